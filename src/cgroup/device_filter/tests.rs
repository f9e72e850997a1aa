use proptest::prelude::*;

use super::super::devices::tests::{any_rule, bit, everything, last_wins, rule, samples};
use super::*;

fn filter(rules: &[DeviceRule]) -> DeviceFilter {
    DeviceFilter::new(rules).unwrap_or_else(|error| panic!("{rules:?}: {error:#}"))
}

fn shown(rules: &[DeviceRule]) -> Vec<String> {
    serde_json::from_value(serde_json::to_value(filter(rules)).unwrap()).unwrap()
}

const DEFAULTS: [&str; 11] = [
    "c 136:* rwm",
    "c 10:200 rwm",
    "c 5:2 rwm",
    "c 5:0 rwm",
    "c 1:9 rwm",
    "c 1:8 rwm",
    "c 1:7 rwm",
    "c 1:5 rwm",
    "c 1:3 rwm",
    "c *:* m",
    "b *:* m",
];

#[test]
fn the_narrow_ones_decide_first_and_nothing_is_said_twice() {
    assert_eq!(shown(&[]), DEFAULTS);
    assert_eq!(shown(&[everything(true), everything(false), rule(true, "c", 136, 4, "rw")]), DEFAULTS);
    for (rules, more) in [
        (vec![rule(true, "c", 10, 229, "r")], vec!["c 10:229 rm"]),
        // what v1 has no words for
        (vec![rule(true, "b", 8, -1, "rw"), rule(false, "b", 8, 1, "rw")], vec!["b 8:1 m", "b 8:* rwm"]),
        (vec![rule(true, "b", 8, -1, "r"), rule(true, "b", -1, 1, "r")], vec!["b 8:* rm", "b *:1 rm"]),
        (vec![rule(true, "b", 8, -1, "r"), rule(true, "b", -1, 1, "w")], vec!["b 8:1 rwm", "b 8:* rm", "b *:1 wm"]),
    ] {
        let own: Vec<_> = shown(&rules).into_iter().filter(|line| !DEFAULTS.contains(&line.as_str())).collect();
        assert_eq!(own, more, "{rules:?}");
    }
}

#[test]
fn a_privileged_container_needs_no_filter() {
    for (rules, want) in [
        (vec![everything(true)], true),
        (vec![rule(true, "b", -1, -1, "rwm"), rule(true, "c", -1, -1, "rw")], true),
        (vec![everything(true), rule(false, "b", 8, 1, "w")], false),
        (vec![], false),
    ] {
        assert_eq!(filter(&rules).allows_everything(), want, "{rules:?}");
    }
}

#[test]
fn bad_rules_are_those_of_v1() {
    let error = DeviceFilter::new(&[rule(true, "u", 1, 3, "r")]).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.devices[0].type: u is"), "{error}");
}

#[test]
fn more_rules_than_jumps_can_skip() {
    let rules: Vec<_> = (0..10_000).map(|minor| rule(true, "c", 240, minor, "r")).collect();
    let error = filter(&rules).program().unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.devices: are too many"), "{error}");
    assert!(filter(&rules[..4000]).program().is_ok());
}

/// The instructions as the kernel runs them, as far as they are used.
fn run(program: &[Instruction], context: [u32; 3]) -> u64 {
    let mut registers = [0u64; 11];
    let mut at = 0;
    loop {
        let Instruction { code, registers: of, offset, immediate } = program[at];
        let (to, from) = (usize::from(of & 15), usize::from(of >> 4));
        at += 1;
        let jump = (at as i64 + i64::from(offset)) as usize;
        match code {
            LOAD_WORD => {
                assert_eq!((from, offset % 4), (usize::from(CONTEXT), 0));
                registers[to] = u64::from(context[offset as usize / 4]);
            }
            SET => registers[to] = u64::from(immediate as u32),
            COPY => registers[to] = registers[from] & 0xffff_ffff,
            AND => registers[to] = u64::from(registers[to] as u32 & immediate as u32),
            SHIFT_RIGHT => registers[to] = u64::from(registers[to] as u32 >> immediate),
            JUMP_IF_EQUAL if registers[to] == i64::from(immediate) as u64 => at = jump,
            JUMP_UNLESS_EQUAL if registers[to] != i64::from(immediate) as u64 => at = jump,
            JUMP_IF_EQUAL | JUMP_UNLESS_EQUAL => {}
            code if code == EXIT.code => return registers[0],
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn allows(program: &[Instruction], kind: char, major: u32, minor: u32, access: u8) -> bool {
    let kind = if kind == 'b' { 1 } else { 2 };
    let access = [('m', 1), ('r', 2), ('w', 4)].iter().filter(|(letter, _)| access & bit(*letter) != 0);
    let access: u32 = access.map(|(_, bit)| bit).sum();
    run(program, [access << 16 | kind, major, minor]) == 1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_program_decides_as_the_last_rule_does(rules in prop::collection::vec(any_rule(), 0..8)) {
        let program = filter(&rules).program().unwrap();
        for (kind, major, minor, access) in samples() {
            prop_assert_eq!(
                allows(&program, kind, major, minor, access),
                last_wins(&rules, kind, major, minor, access),
                "{} {}:{} {:03b} after {:?}", kind, major, minor, access, shown(&rules)
            );
        }
    }
}

#[test]
fn what_is_neither_kind_is_denied() {
    let program = filter(&[]).program().unwrap();
    assert_eq!((run(&program, [2 << 16 | 3, 1, 3]), run(&program, [2 << 16 | 2, 1, 3])), (0, 1));
}
