use libc::sock_filter;
use serde_json::{Value, json};

use super::calls::{ARM, Arch, Call, Family, X32_BIT, X86};
use super::compile;
use super::interpret::{Data, run};
use super::profile::Profile;
use crate::plan::spec::seccomp::Seccomp;

fn filter(profile: &Value, family: &Family) -> Result<Vec<sock_filter>, String> {
    let seccomp: Seccomp = serde_json::from_value(profile.clone()).unwrap();
    let profile = Profile::check(&seccomp, family).map_err(|error| format!("{error:#}"))?;
    compile(&profile, family).map_err(|error| format!("{error:#}"))
}

fn verdict(profile: &Value, family: &Family, arch: Arch, number: u32, arguments: &[u64]) -> u32 {
    let program = filter(profile, family).unwrap_or_else(|error| panic!("{error}: {profile:#}"));
    let mut data = Data { number, arch: arch.token(), ..Data::default() };
    data.arguments[..arguments.len()].copy_from_slice(arguments);
    run(&program, &data).unwrap().verdict
}

fn number(name: &str, arch: Arch) -> u32 {
    let family = if matches!(arch, Arch::Aarch64 | Arch::Arm) { &ARM } else { &X86 };
    family.number(Call::named(name).unwrap(), arch).unwrap()
}

fn rule(name: &str, action: &str, args: Value) -> Value {
    json!({"names": [name], "action": action, "args": args})
}

fn compare(index: u32, op: &str, value: u64, value_two: u64) -> Value {
    json!({"index": index, "op": op, "value": value, "valueTwo": value_two})
}

const KILL: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x3_0000;
const ERRNO: u32 = 0x5_0000;
const NOTIFY: u32 = 0x7FC0_0000;
const TRACE: u32 = 0x7FF0_0000;
const LOG: u32 = 0x7FFC_0000;
const ALLOW: u32 = 0x7FFF_0000;
const EPERM: u32 = ERRNO | 1;
const ENOSYS: u32 = ERRNO | 38;

#[test]
fn every_action_is_the_kernels() {
    for (action, errno, want) in [
        ("SCMP_ACT_KILL", None, KILL),
        ("SCMP_ACT_KILL_THREAD", None, KILL),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, TRAP),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", Some(0), ERRNO),
        ("SCMP_ACT_ERRNO", Some(4095), ERRNO | 4095),
        ("SCMP_ACT_TRACE", None, TRACE | 1),
        ("SCMP_ACT_TRACE", Some(65535), TRACE | 65535),
        ("SCMP_ACT_LOG", None, LOG),
        ("SCMP_ACT_NOTIFY", None, NOTIFY),
        ("SCMP_ACT_ALLOW", None, ALLOW),
    ] {
        let rule = json!({"names": ["read"], "action": action, "errnoRet": errno});
        let other = if action == "SCMP_ACT_ALLOW" { "SCMP_ACT_LOG" } else { "SCMP_ACT_ALLOW" };
        let profile = json!({"defaultAction": other, "listenerPath": "/agent", "syscalls": [rule]});
        assert_eq!(verdict(&profile, &X86, Arch::X86_64, 0, &[]), want, "{action} {errno:?}");
        if action != "SCMP_ACT_NOTIFY" {
            let profile = json!({"defaultAction": action, "defaultErrnoRet": errno});
            assert_eq!(verdict(&profile, &X86, Arch::X86_64, 0, &[]), want, "default {action} {errno:?}");
        }
    }
}

#[test]
fn operators_see_all_64_bits() {
    const HIGH: u64 = 1 << 32;
    for (op, value, two, argument, want) in [
        ("EQ", 5, 0, 5, true),
        ("EQ", 5, 0, HIGH + 5, false),
        ("EQ", HIGH, 0, 0, false),
        ("NE", 5, 0, 5, false),
        ("NE", 5, 0, HIGH + 5, true),
        ("LT", HIGH, 0, HIGH - 1, true),
        ("LT", HIGH, 0, HIGH, false),
        ("LE", HIGH, 0, HIGH, true),
        ("LE", 5, 0, HIGH, false),
        ("GT", HIGH - 1, 0, HIGH, true),
        ("GT", u64::MAX, 0, u64::MAX, false),
        ("GE", u64::MAX, 0, u64::MAX, true),
        ("GE", HIGH + 1, 0, HIGH, false),
        ("MASKED_EQ", 0x7E02_0000, 0, 0x11, true),
        ("MASKED_EQ", 0x7E02_0000, 0, 0x1000_0011, false),
        ("MASKED_EQ", 0x7E02_0000, 0, HIGH, true),
        ("MASKED_EQ", HIGH | 1, HIGH, HIGH | 2, true),
        ("MASKED_EQ", HIGH | 1, HIGH, HIGH | 3, false),
        ("MASKED_EQ", HIGH | 1, HIGH, 2, false),
    ] {
        let rule = rule("clone", "SCMP_ACT_ALLOW", json!([compare(0, &format!("SCMP_CMP_{op}"), value, two)]));
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]});
        let verdict = verdict(&profile, &X86, Arch::X86_64, number("clone", Arch::X86_64), &[argument]);
        assert_eq!(verdict, if want { ALLOW } else { EPERM }, "{argument:x} {op} {value:x} {two:x}");
    }
}

#[test]
fn rules_of_one_call() {
    let (eq, lt, gt) = ("SCMP_CMP_EQ", "SCMP_CMP_LT", "SCMP_CMP_GT");
    let if_arg = |action: &str, args: Value| rule("read", action, args);
    let allow = |args: Value| if_arg("SCMP_ACT_ALLOW", args);
    let trap = |args: Value| if_arg("SCMP_ACT_TRAP", args);
    for (why, rules, cases) in [
        (
            "all arguments have to hold",
            vec![allow(json!([compare(0, eq, 1, 0), compare(1, eq, 2, 0)]))],
            vec![([1, 2], ALLOW), ([1, 3], EPERM), ([0, 2], EPERM)],
        ),
        (
            "one argument twice: either",
            vec![allow(json!([compare(0, eq, 1, 0), compare(0, eq, 2, 0)]))],
            vec![([1, 0], ALLOW), ([2, 0], ALLOW), ([3, 0], EPERM)],
        ),
        (
            "several rules: either",
            vec![allow(json!([compare(0, eq, 1, 0)])), allow(json!([compare(1, eq, 2, 0)]))],
            vec![([1, 0], ALLOW), ([0, 2], ALLOW), ([0, 0], EPERM)],
        ),
        ("the first rule without condition decides", vec![trap(json!([])), allow(json!([]))], vec![([0, 0], TRAP)]),
        (
            "also about what stands before",
            vec![trap(json!([compare(0, eq, 1, 0)])), allow(json!([]))],
            vec![([1, 0], ALLOW)],
        ),
        ("and after", vec![allow(json!([])), trap(json!([compare(0, eq, 1, 0)]))], vec![([1, 0], ALLOW)]),
        (
            "what says the default is no rule",
            vec![if_arg("SCMP_ACT_ERRNO", json!([])), allow(json!([]))],
            vec![([0, 0], ALLOW)],
        ),
        (
            "later arguments first",
            vec![trap(json!([compare(0, eq, 1, 0)])), allow(json!([compare(1, eq, 1, 0)]))],
            vec![([1, 1], ALLOW), ([1, 0], TRAP)],
        ),
        (
            "equal before less",
            vec![trap(json!([compare(0, lt, 9, 0)])), allow(json!([compare(0, eq, 5, 0)]))],
            vec![([5, 0], ALLOW), ([4, 0], TRAP), ([9, 0], EPERM)],
        ),
        (
            "less before greater",
            vec![trap(json!([compare(0, gt, 1, 0)])), allow(json!([compare(0, lt, 9, 0)]))],
            vec![([5, 0], ALLOW), ([9, 0], TRAP), ([0, 0], ALLOW)],
        ),
        (
            "tighter bounds first",
            vec![trap(json!([compare(0, lt, 9, 0)])), allow(json!([compare(0, lt, 5, 0)]))],
            vec![([4, 0], ALLOW), ([5, 0], TRAP)],
        ),
        (
            "the shorter, written first",
            vec![trap(json!([compare(0, eq, 1, 0)])), allow(json!([compare(0, eq, 1, 0), compare(1, eq, 1, 0)]))],
            vec![([1, 1], TRAP)],
        ),
        (
            "a mask of nothing is no condition",
            vec![allow(json!([compare(0, "SCMP_CMP_MASKED_EQ", 0, 7)]))],
            vec![([1, 1], ALLOW)],
        ),
    ] {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
        for (arguments, want) in cases {
            assert_eq!(verdict(&profile, &X86, Arch::X86_64, 0, &arguments), want, "{why}: {arguments:?}");
        }
    }
}

#[test]
fn contradictions_are_refused() {
    let one = compare(0, "SCMP_CMP_EQ", 1, 0);
    for rules in [
        [rule("read", "SCMP_ACT_ALLOW", json!([one])), rule("read", "SCMP_ACT_TRAP", json!([one]))],
        [
            rule("read", "SCMP_ACT_ALLOW", json!([one, compare(1, "SCMP_CMP_EQ", 1, 0)])),
            rule("read", "SCMP_ACT_TRAP", json!([one])),
        ],
    ] {
        let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
        let want = "linux.seccomp.syscalls[1]: contradicts an earlier rule for read; keep one of them";
        assert_eq!(filter(&profile, &X86).unwrap_err(), want);
    }
}

#[test]
fn architectures_are_told_apart() {
    let all = json!(["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"]);
    let rules = json!([rule("read", "SCMP_ACT_ALLOW", json!([])), rule("getpid", "SCMP_ACT_ALLOW", json!([]))]);
    let profile = |architectures: &Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": rules});
    for (architectures, arch, number, want) in [
        (&all, Arch::X86_64, 0, ALLOW),
        (&all, Arch::X86_64, 3, EPERM),
        (&all, Arch::X86, 3, ALLOW),
        (&all, Arch::X86, 0, EPERM),
        (&all, Arch::X32, X32_BIT, ALLOW),
        (&all, Arch::X32, X32_BIT + 1, EPERM),
        (&all, Arch::Arm, 3, KILL),
        (&json!([]), Arch::X86_64, 0, ALLOW),
        (&json!([]), Arch::X86, 3, KILL),
        (&json!([]), Arch::X32, X32_BIT, KILL),
        // what a tracer makes of a call to be skipped
        (&json!([]), Arch::X86_64, u32::MAX, EPERM),
        (&all, Arch::X86_64, 40, ENOSYS),
        (&all, Arch::X32, X32_BIT + 40, ENOSYS),
        (&all, Arch::X86, 21, ENOSYS),
    ] {
        let got = verdict(&profile(architectures), &X86, arch, number, &[]);
        assert_eq!(got, want, "{arch:?} {number:x} with {architectures}");
    }
    let arm = json!(["SCMP_ARCH_ARM"]);
    for (architectures, arch, want) in
        [(&arm, Arch::Arm, ALLOW), (&json!([]), Arch::Arm, KILL), (&arm, Arch::Aarch64, ALLOW)]
    {
        let got = verdict(&profile(architectures), &ARM, arch, number("read", arch), &[]);
        assert_eq!(got, want, "{arch:?} with {architectures}");
    }
}

#[test]
fn newer_calls_are_unknown_where_the_default_forbids() {
    for (default, want) in [
        ("SCMP_ACT_ERRNO", ENOSYS),
        ("SCMP_ACT_KILL_PROCESS", ENOSYS),
        ("SCMP_ACT_TRAP", ENOSYS),
        ("SCMP_ACT_LOG", LOG),
        ("SCMP_ACT_ALLOW", ALLOW),
        ("SCMP_ACT_TRACE", TRACE | 1),
    ] {
        // counts although it says what the default says
        let rules = json!([rule("write", default, json!([])), rule("read", "SCMP_ACT_TRAP", json!([]))]);
        let profile = json!({"defaultAction": default, "syscalls": rules});
        assert_eq!(verdict(&profile, &X86, Arch::X86_64, 2, &[]), want, "{default}");
    }
}

#[test]
fn x86_multiplexes_calls() {
    let only = compare(1, "SCMP_CMP_EQ", 1, 0);
    let rules = json!([
        rule("socket", "SCMP_ACT_ALLOW", json!([])),
        rule("semop", "SCMP_ACT_ALLOW", json!([only])),
        rule("close_range", "SCMP_ACT_ALLOW", json!([]))
    ]);
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules});
    for (number, arguments, want) in
        [(102, [1, 0], ALLOW), (102, [2, 0], EPERM), (359, [0, 0], ALLOW), (117, [1, 1], ALLOW), (117, [1, 0], EPERM)]
    {
        assert_eq!(verdict(&profile, &X86, Arch::X86, number, &arguments), want, "{number} {arguments:?}");
    }
}

#[test]
fn unknown_names_make_no_rule() {
    let rules = json!([rule("no_such_call", "SCMP_ACT_ALLOW", json!([])), rule("read", "SCMP_ACT_ALLOW", json!([]))]);
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    assert_eq!(verdict(&profile, &X86, Arch::X86_64, 0, &[]), ALLOW);
}

/// So many that conditional jumps do not reach; and more than the kernel takes.
#[test]
fn long_filters() {
    let profile = |count: u64| {
        let rules: Vec<_> = (0..count)
            .map(|n| {
                rule(
                    "ioctl",
                    if n % 2 == 0 { "SCMP_ACT_ALLOW" } else { "SCMP_ACT_TRAP" },
                    json!([compare(1, "SCMP_CMP_EQ", n * 3, 0)]),
                )
            })
            .collect();
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules})
    };
    for count in [100, 300, 1200] {
        let program = filter(&profile(count), &X86).unwrap();
        assert!(program.len() as u64 > count);
        for n in 0..count * 3 {
            let data =
                Data { number: 16, arch: Arch::X86_64.token(), arguments: [0, n, 0, 0, 0, 0], ..Data::default() };
            let want = if n % 3 != 0 {
                EPERM
            } else if n % 2 == 0 {
                ALLOW
            } else {
                TRAP
            };
            assert_eq!(run(&program, &data).unwrap().verdict, want, "{n} of {count}");
        }
    }
    let error = filter(&profile(5000), &X86).unwrap_err();
    assert!(error.contains("4096"), "{error}");
}

/// The kernel remembers a verdict for good where none but number and architecture is looked at (5.11).
#[test]
fn arguments_are_looked_at_last() {
    let rules = json!([rule("clone", "SCMP_ACT_ALLOW", json!([compare(0, "SCMP_CMP_EQ", 1, 0)])),
        {"names": ["read", "write", "close", "futex", "openat2"], "action": "SCMP_ACT_ALLOW"}]);
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "syscalls": rules});
    let program = filter(&profile, &X86).unwrap();
    for arch in [Arch::X86_64, Arch::X86] {
        for number in 0..1000 {
            let saw = run(&program, &Data { number, arch: arch.token(), ..Data::default() }).unwrap().saw_arguments;
            assert_eq!(saw, number == super::tests::number("clone", arch), "{arch:?} {number}");
        }
    }
}

#[test]
fn bad_profiles() {
    let rule = |pointer: &str, value: Value| {
        let mut rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]});
        *rule.pointer_mut(pointer).unwrap() = value;
        json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]})
    };
    for (profile, want) in [
        (json!({}), "linux.seccomp.defaultAction: missing; use one of SCMP_ACT_KILL, "),
        (json!({"defaultAction": "ALLOW"}), "linux.seccomp.defaultAction: ALLOW is no action; use one of "),
        (
            json!({"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/a"}),
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would ",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}),
            "linux.seccomp.defaultErrnoRet: 4096 is above 4095",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536}),
            "linux.seccomp.defaultErrnoRet: 65536 is above 65535",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW returns no errno; remove it",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "x86"]}),
            "linux.seccomp.architectures[1]: x86 is no architecture; use one of ",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}),
            "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_NEW_LISTENER is no flag; use one of ",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "m"}),
            "linux.seccomp.listenerMetadata: set without listenerPath",
        ),
        (rule("/action", json!("SCMP_ACT_NOTIFY")), "linux.seccomp.listenerPath: missing; SCMP_ACT_NOTIFY needs "),
        (rule("/action", json!("scmp_act_allow")), "linux.seccomp.syscalls[0].action: scmp_act_allow is no action"),
        (rule("/action", Value::Null), "linux.seccomp.syscalls[0].action: missing"),
        (rule("/names", json!([])), "linux.seccomp.syscalls[0].names: is empty"),
        (rule("/names/0", json!("")), "linux.seccomp.syscalls[0].names[0]: is empty"),
        (rule("/args/0/index", json!(6)), "linux.seccomp.syscalls[0].args[0].index: 6 is above 5"),
        (rule("/args/0/index", Value::Null), "linux.seccomp.syscalls[0].args[0].index: missing"),
        (rule("/args/0/value", Value::Null), "linux.seccomp.syscalls[0].args[0].value: missing"),
        (
            rule("/args/0/op", json!("EQ")),
            "linux.seccomp.syscalls[0].args[0].op: EQ is no operator; use one of SCMP_CMP_NE, ",
        ),
        (rule("/args/0/op", Value::Null), "linux.seccomp.syscalls[0].args[0].op: missing; use one of "),
    ] {
        let error = filter(&profile, &X86).expect_err(want);
        assert!(error.starts_with(want), "{error}\nnot {want}");
    }
    let rule = json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1});
    let error = filter(&json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}), &X86).unwrap_err();
    assert_eq!(error, "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW returns no errno; remove it");
}
