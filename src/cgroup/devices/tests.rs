use proptest::prelude::*;

use super::super::write::shown;
use super::*;

pub(in crate::cgroup) fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
    DeviceRule { allow, kind: Some(kind.into()), major: Some(major), minor: Some(minor), access: Some(access.into()) }
}

pub(in crate::cgroup) fn everything(allow: bool) -> DeviceRule {
    DeviceRule { allow, access: Some("rwm".into()), ..DeviceRule::default() }
}

const DEFAULT_LINES: [&str; 12] = [
    "devices.deny = a",
    "devices.allow = c *:* m",
    "devices.allow = b *:* m",
    "devices.allow = c 1:3 rwm",
    "devices.allow = c 1:5 rwm",
    "devices.allow = c 1:7 rwm",
    "devices.allow = c 1:8 rwm",
    "devices.allow = c 1:9 rwm",
    "devices.allow = c 5:0 rwm",
    "devices.allow = c 5:2 rwm",
    "devices.allow = c 136:* rwm",
    "devices.allow = c 10:200 rwm",
];

#[test]
fn no_rules_and_rules_that_say_nothing_new() {
    let sorted = |rules: &[DeviceRule]| {
        let mut lines = shown(v1(rules)).unwrap();
        lines.sort();
        lines
    };
    assert_eq!(shown(v1(&[])).unwrap(), DEFAULT_LINES);
    for rules in [
        vec![everything(false)],
        vec![everything(true), everything(false)],
        vec![rule(false, "c", 1, 3, "rwm")],
        vec![rule(true, "c", -1, -1, "m")],
        vec![rule(true, "c", 136, 4, "rw")],
        vec![rule(true, "c", 8, 1, "r"), rule(false, "c", -1, -1, "r")],
    ] {
        assert_eq!(sorted(&rules), sorted(&[]), "{rules:?}");
    }
}

#[test]
fn a_privileged_container_gets_the_kernels_own_everything() {
    for rules in [
        vec![everything(true)],
        vec![rule(true, "a", -1, -1, "rwm")],
        vec![everything(false), rule(true, "c", -1, -1, "rwm"), rule(true, "b", -1, -1, "mrw")],
        vec![rule(false, "c", 10, 229, "rwm"), everything(true)],
    ] {
        assert_eq!(shown(v1(&rules)), Ok(vec!["devices.allow = a".to_string()]), "{rules:?}");
    }
}

#[test]
fn single_devices_and_wildcards() {
    for (rules, want) in [
        (vec![rule(true, "c", 10, 229, "rw")], vec!["c 10:229 rw"]),
        (vec![rule(true, "c", 10, 229, "mr")], vec!["c 10:229 rm"]),
        // the config's order
        (
            vec![
                everything(false),
                rule(true, "c", 10, 229, "rwm"),
                rule(true, "b", 8, 20, "rw"),
                rule(true, "b", 10, 200, "r"),
            ],
            vec!["c 10:229 rwm", "b 8:20 rw", "b 10:200 r"],
        ),
        (vec![rule(true, "c", 10, 229, "r")], vec!["c 10:229 r"]),
        (vec![rule(true, "b", 8, -1, "r")], vec!["b 8:* r"]),
        (vec![rule(true, "b", -1, 3, "w")], vec!["b *:3 w"]),
        (vec![rule(true, "a", 8, 1, "rw")], vec!["b 8:1 rw", "c 8:1 rw"]),
        // what the wide one gives, the narrow one needs too: a request must be covered by one exception
        (vec![rule(true, "b", 8, -1, "r"), rule(true, "b", 8, 1, "w")], vec!["b 8:* r", "b 8:1 rw"]),
        (vec![rule(true, "b", 8, -1, "r"), rule(true, "b", -1, 1, "w")], vec!["b 8:* r", "b *:1 w", "b 8:1 rw"]),
        // a wide denial takes single devices back, unlike in the kernel
        (
            vec![rule(true, "b", 8, 1, "rw"), rule(true, "b", 9, 1, "rw"), rule(false, "b", 8, -1, "rwm")],
            vec!["b 9:1 rw"],
        ),
        (vec![rule(true, "b", 8, 1, "rw"), rule(false, "b", 8, 1, "w")], vec!["b 8:1 r"]),
    ] {
        let lines = shown(v1(&rules)).unwrap();
        let added: Vec<&str> = lines
            .iter()
            .filter(|line| !DEFAULT_LINES.contains(&line.as_str()))
            .map(|line| line.strip_prefix("devices.allow = ").unwrap())
            .collect();
        assert_eq!(added, want, "{rules:?}");
        assert_eq!(lines.len(), DEFAULT_LINES.len() + want.len(), "{rules:?}");
    }
}

#[test]
pub(in crate::cgroup) fn everything_but_some() {
    let rules = [everything(true), rule(false, "c", 10, 229, "rwm"), rule(false, "b", 8, -1, "w")];
    let want = ["devices.allow = a", "devices.deny = b 8:* w", "devices.deny = c 10:229 rw"];
    assert_eq!(shown(v1(&rules)), Ok(want.map(String::from).to_vec()));
}

#[test]
fn what_v1_cannot_say() {
    for (rules, says) in [
        (vec![rule(true, "b", 8, -1, "rw"), rule(false, "b", 8, 1, "rw")], "cannot allow b 8:* rwm without b 8:1 rw;"),
        (
            vec![rule(true, "c", 10, -1, "r"), rule(false, "c", -1, 229, "r")],
            "cannot allow c 10:* rm without c 10:229 r;",
        ),
    ] {
        let error = shown(v1(&rules)).unwrap_err();
        assert!(error.starts_with("linux.resources.devices: ") && error.contains(says), "{rules:?}: {error}");
    }
}

#[test]
fn bad_rules() {
    let no_access = DeviceRule { allow: true, ..DeviceRule::default() };
    for (bad, says) in [
        (rule(true, "u", 1, 3, "r"), "linux.resources.devices[1].type: u is"),
        (rule(true, "p", 1, 3, "r"), "linux.resources.devices[1].type: p is"),
        (rule(true, "c", -2, 3, "r"), "linux.resources.devices[1].major: -2 is"),
        (rule(true, "c", 4096, 3, "r"), "linux.resources.devices[1].major: 4096 is"),
        (rule(true, "c", 1, 1 << 20, "r"), "linux.resources.devices[1].minor: 1048576 is"),
        (rule(true, "c", 1, 4_294_967_295, "r"), "linux.resources.devices[1].minor: 4294967295 is"),
        (rule(true, "c", 1, 3, ""), "linux.resources.devices[1].access: is empty"),
        (rule(true, "c", 1, 3, "rx"), "linux.resources.devices[1].access: x is"),
        (no_access, "linux.resources.devices[1].access: is empty"),
    ] {
        let error = shown(v1(&[everything(false), bad.clone()])).unwrap_err();
        assert!(error.starts_with(says), "{bad:?}: {error}");
    }
}

/// The kernel's v1 device cgroup (security/device_cgroup.c), as far as one without children and with a parent that
/// allows everything goes.
#[derive(Debug)]
struct Kernel {
    allow_by_default: bool,
    exceptions: Vec<(char, Number, Number, u8)>,
}

impl Kernel {
    fn after(lines: &[String]) -> Self {
        let mut kernel = Self { allow_by_default: true, exceptions: vec![] };
        for line in lines {
            let (file, line) = line.split_once(" = ").unwrap();
            kernel.write(file == "devices.allow", line);
        }
        kernel
    }

    fn write(&mut self, allow: bool, line: &str) {
        if line == "a" {
            *self = Self { allow_by_default: allow, exceptions: vec![] };
            return;
        }
        let fields: Vec<&str> = line.split(' ').collect();
        let (major, minor) = fields[1].split_once(':').unwrap();
        let number = |text: &str| if text == "*" { None } else { Some(text.parse().unwrap()) };
        let key = (fields[0].parse().unwrap(), number(major), number(minor));
        let access = fields[2].chars().fold(0, |bits, c| bits | bit(c));
        let same = self.exceptions.iter_mut().find(|e| (e.0, e.1, e.2) == key);
        match (self.allow_by_default == allow, same) {
            (true, Some(same)) => same.3 &= !access,
            (true, None) => {}
            (false, Some(same)) => same.3 |= access,
            (false, None) => self.exceptions.push((key.0, key.1, key.2, access)),
        }
    }

    fn allows(&self, kind: char, major: u32, minor: u32, access: u8) -> bool {
        let mut covering = self
            .exceptions
            .iter()
            .filter(|(of, a, b, _)| *of == kind && a.is_none_or(|a| a == major) && b.is_none_or(|b| b == minor));
        if self.allow_by_default {
            !covering.any(|(.., excepted)| access & excepted != 0)
        } else {
            covering.any(|(.., excepted)| access & !excepted == 0)
        }
    }
}

pub(in crate::cgroup) fn bit(letter: char) -> u8 {
    match letter {
        'r' => R,
        'w' => W,
        'm' => M,
        other => panic!("{other}"),
    }
}

/// The law: the last rule that speaks of a device and a kind of access decides; nothing said is denied.
pub(in crate::cgroup) fn last_wins(rules: &[DeviceRule], kind: char, major: u32, minor: u32, access: u8) -> bool {
    let any = |number: Option<i64>, own: u32| number.is_none_or(|n| n == -1 || n == i64::from(own));
    let speaks = |rule: &&DeviceRule, letter: char| {
        rule.kind.as_deref().is_none_or(|of| of == "a" || of == kind.to_string())
            && any(rule.major, major)
            && any(rule.minor, minor)
            && rule.access.as_ref().unwrap().contains(letter)
    };
    "rwm".chars().filter(|c| access & bit(*c) != 0).all(|letter| {
        let always = DEFAULTS.iter().any(|d| {
            d.kind == Some(if kind == 'c' { Kind::Char } else { Kind::Block })
                && d.covers(Some(major), Some(minor))
                && d.access & bit(letter) != 0
        });
        always || rules.iter().rev().find(|rule| speaks(rule, letter)).is_some_and(|rule| rule.allow)
    })
}

pub(in crate::cgroup) fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let number =
        || prop_oneof![Just(None), Just(Some(-1)), Just(Some(1)), Just(Some(3)), Just(Some(136)), Just(Some(8))];
    let kind = prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("c"))];
    (any::<bool>(), kind, number(), number(), "(r|w|m|rw|rwm)").prop_map(|(allow, kind, major, minor, access)| {
        DeviceRule { allow, kind: kind.map(String::from), major, minor, access: Some(access) }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_kernel_decides_as_the_last_rule_does(rules in prop::collection::vec(any_rule(), 0..6)) {
        // what cannot be said is refused, and then at least one device is denied inside of an allowed group
        let Ok(lines) = shown(v1(&rules)) else {
            prop_assert!(rules.iter().any(|rule| !rule.allow) && rules.iter().any(|rule| rule.allow), "{rules:?}");
            return Ok(());
        };
        let kernel = Kernel::after(&lines);
        for (kind, major, minor, access) in samples() {
            prop_assert_eq!(
                kernel.allows(kind, major, minor, access),
                last_wins(&rules, kind, major, minor, access),
                "{} {}:{} {:03b} after {:?}", kind, major, minor, access, lines
            );
        }
    }
}

/// What the kernel asks: to make a node, or to open one.
pub(in crate::cgroup) fn samples() -> impl Iterator<Item = (char, u32, u32, u8)> {
    const NUMBERS: [u32; 8] = [0, 1, 3, 5, 8, 10, 136, 200];
    ['b', 'c'].into_iter().flat_map(|kind| {
        NUMBERS.into_iter().flat_map(move |major| {
            NUMBERS
                .into_iter()
                .flat_map(move |minor| [R, W, R | W, M].into_iter().map(move |access| (kind, major, minor, access)))
        })
    })
}
