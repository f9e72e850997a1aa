use serde_json::{Value, json};

use super::*;
use crate::host::security::Security;
use crate::plan::Rlimit;
use crate::plan::affinity::Last;

const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_RAW: u64 = 1 << 13;

fn host() -> Host {
    Host { capabilities: CHOWN | KILL | NET_RAW, last_capability: 40, ..Host::default() }
}

fn process(value: Value) -> spec::Process {
    spec::document::read(value.to_string().as_bytes()).unwrap()
}

/// The first process of a container, with something in every field that matters here.
fn container() -> spec::Process {
    process(json!({
        "args": ["/init"], "cwd": "/srv", "env": ["PATH=/bin", "A=1"], "terminal": true,
        "consoleSize": {"height": 20, "width": 60},
        "user": {"uid": 7, "gid": 8, "umask": 0o27, "additionalGids": [9]},
        "capabilities": {"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "noNewPrivileges": true, "oomScoreAdj": 300, "execCPUAffinity": {"initial": "0", "final": "1"}
    }))
}

const RELAYED: Manner = Manner { detached: false, console_socket: false, descriptors: NONE };
const NONE: Descriptors = Descriptors { listen: 0, preserve: 0 };

fn build(base: Base, flags: &Flags, manner: Manner) -> Result<(ExecPlan, Vec<String>)> {
    let mut warnings = Vec::new();
    let target = Target { id: "c1", process: &container(), linux: None, keyring: true };
    let plan = ExecPlan::build(target, base, flags, manner, &host(), &mut warnings)?;
    Ok((plan, warnings))
}

fn planned(base: Base, flags: &Flags) -> ExecPlan {
    build(base, flags, RELAYED).unwrap().0
}

fn file(value: Value) -> Base {
    Base::File(Box::new(process(value)), "/p.json".into())
}

fn args(args: &[&str]) -> Flags {
    Flags { args: args.iter().map(|arg| arg.to_string()).collect(), ..Flags::default() }
}

#[test]
fn other_arguments_in_the_container_are_as_its_first_process() {
    let ExecPlan { id, process, affinity, keyring } = planned(Base::Container, &args(&["sh", "-c", "x"]));
    assert_eq!((id.as_str(), process.args), ("c1", ["sh", "-c", "x"].map(String::from).to_vec()));
    assert_eq!((process.cwd.as_str(), process.env), ("/srv", ["PATH=/bin", "A=1"].map(String::from).to_vec()));
    assert_eq!((process.uid, process.gid, process.umask, process.additional_gids), (7, 8, 0o27, vec![9]));
    assert_eq!((process.capabilities.bounding, process.capabilities.ambient), (KILL, 0));
    let core = Rlimit { name: "RLIMIT_CORE".into(), resource: 4, soft: 0, hard: 0 };
    assert_eq!((process.rlimits, process.oom_score_adj), (vec![core], Some(300)));
    assert!(process.no_new_privileges && keyring);
    assert_eq!(process.terminal, None, "the first one's terminal is its own");
    assert_eq!(affinity, Affinity { initial: Some(vec![0]), last: Last::These(vec![1]) });
}

#[test]
fn flags_win_or_are_added() {
    let flags = Flags {
        env: vec!["A=2".into(), "B=3".into()],
        cwd: Some("/tmp".into()),
        user: Some(User { uid: 70, gid: None }),
        additional_gids: vec![90],
        terminal: true,
        ..args(&["sh"])
    };
    for (base, uid_gid, groups) in [
        (Base::Container, (70, 8), vec![9, 90]),
        (file(json!({"args": ["x"], "cwd": "/", "env": ["A=1"]})), (70, 0), vec![90]),
    ] {
        let process = planned(base, &flags).process;
        assert!(process.env.contains(&"A=2".into()) && process.env.contains(&"B=3".into()), "{:?}", process.env);
        assert!(!process.env.contains(&"A=1".into()), "the last one counts: {:?}", process.env);
        assert_eq!(((process.uid, process.gid), process.additional_gids), (uid_gid, groups));
        assert_eq!(process.cwd, "/tmp");
        assert!(process.terminal.is_some_and(|terminal| terminal.size.is_none()));
    }
    let flags = Flags { user: Some(User { uid: 1, gid: Some(2) }), no_new_privileges: true, ..Flags::default() };
    let process = planned(file(json!({"args": ["x"], "cwd": "/"})), &flags).process;
    assert_eq!((process.uid, process.gid, process.no_new_privileges), (1, 2, true));
}

#[test]
fn a_process_of_the_callers_falls_back_only_in_what_concerns_the_container() {
    let ExecPlan { process, affinity, .. } = planned(file(json!({"args": ["x"], "cwd": "/"})), &args(&["ignored"]));
    assert_eq!(process.args, ["x"]);
    assert_eq!((process.umask, process.oom_score_adj, process.capabilities.permitted), (0o27, Some(300), KILL));
    assert_eq!(affinity.initial, Some(vec![0]));
    assert_eq!((process.uid, process.gid, process.additional_gids.len(), process.env.len()), (0, 0, 0, 0));
    assert!(process.rlimits.is_empty() && !process.no_new_privileges && process.terminal.is_none());

    let whole = json!({
        "args": ["x"], "cwd": "/", "capabilities": {"bounding": ["CAP_CHOWN"]}, "oomScoreAdj": -5,
        "user": {"umask": 0o77}, "execCPUAffinity": {"final": "3"}
    });
    let ExecPlan { process, affinity, .. } = planned(file(whole), &Flags::default());
    assert_eq!((process.umask, process.oom_score_adj), (0o77, Some(-5)));
    assert_eq!((process.capabilities.bounding, process.capabilities.permitted), (CHOWN, 0));
    assert_eq!(affinity, Affinity { initial: None, last: Last::These(vec![3]) });
}

// CVE-2022-29162
#[test]
fn a_capability_that_is_added_does_not_become_inheritable() {
    let flags = Flags { capabilities: vec!["CAP_NET_RAW".into(), "CAP_KILL".into()], ..args(&["sh"]) };
    let sets = planned(Base::Container, &flags).process.capabilities;
    assert_eq!([sets.bounding, sets.permitted, sets.effective], [KILL | NET_RAW; 3]);
    assert_eq!((sets.inheritable, sets.ambient), (0, 0));
    let both = json!({"bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"], "inheritable": ["CAP_KILL"]});
    let sets = planned(file(json!({"args": ["x"], "cwd": "/", "capabilities": both})), &flags).process.capabilities;
    assert_eq!((sets.inheritable, sets.ambient), (KILL, KILL), "one that is inheritable can be ambient");
}

#[test]
fn what_is_wrong_is_named_with_its_flag_or_file() {
    let detached = Manner { detached: true, ..RELAYED };
    for (base, flags, manner, want) in [
        (Base::Container, args(&[]), RELAYED, "process.args: empty; add the program to run"),
        (Base::Container, Flags { cwd: Some("x".into()), ..args(&["sh"]) }, RELAYED, "process.cwd: x is not absolute"),
        (Base::Container, Flags { env: vec!["A".into()], ..args(&["sh"]) }, RELAYED, "process.env[2]: A has no ="),
        (
            Base::Container,
            Flags { capabilities: vec!["CAP_SYS_TIME".into()], ..args(&["sh"]) },
            RELAYED,
            "--cap: CAP_SYS_TIME: rrun does not have it here",
        ),
        (
            Base::Container,
            Flags { capabilities: vec!["KILL".into()], ..args(&["sh"]) },
            RELAYED,
            "--cap: KILL: not known to this kernel",
        ),
        (
            Base::Container,
            Flags { apparmor_profile: Some("p".into()), ..args(&["sh"]) },
            RELAYED,
            "--apparmor: p cannot be applied: AppArmor is off",
        ),
        (file(json!({"cwd": "/"})), Flags::default(), RELAYED, "--process /p.json: process.args: empty"),
        (file(json!({"args": ["x"]})), Flags::default(), RELAYED, "--process /p.json: process.cwd: missing"),
        (
            file(json!({"args": ["x"], "cwd": "/", "user": {"uid": u32::MAX}})),
            Flags::default(),
            RELAYED,
            "--process /p.json: process.user.uid: 4294967295 means no id",
        ),
        (Base::Container, Flags { terminal: true, ..args(&["sh"]) }, detached, "cannot allocate tty if rrun will"),
        (
            Base::Container,
            args(&["sh"]),
            Manner { detached: true, console_socket: true, ..RELAYED },
            "cannot use console socket if rrun",
        ),
    ] {
        let error = build(base, &flags, manner).map(|_| ()).unwrap_err();
        let line = format!("{error:#}");
        assert!(line.starts_with(want), "{line}, wanted {want}");
    }
}

#[test]
fn labels_are_the_containers_the_callers_or_those_of_flags() {
    const FIRST: &str = "u:r:first_t:s0";
    let security = Security { apparmor: true, selinux: true };
    let mut first = container();
    (first.apparmor_profile, first.selinux_label) = (Some("first".into()), Some(FIRST.into()));
    let given = |apparmor: &str, selinux: &str| Flags {
        apparmor_profile: Some(apparmor.into()),
        selinux_label: Some(selinux.into()),
        ..args(&["sh"])
    };
    let own = json!({"args": ["x"], "cwd": "/", "apparmorProfile": "own", "selinuxLabel": "u:r:own_t"});
    for (base, flags, want) in [
        (Base::Container, args(&["sh"]), (Some("first"), Some(FIRST))),
        (Base::Container, given("", ""), (Some("first"), Some(FIRST))),
        (Base::Container, given("p", "u:r:t"), (Some("p"), Some("u:r:t"))),
        (file(json!({"args": ["x"], "cwd": "/"})), Flags::default(), (None, Some(FIRST))),
        (file(own.clone()), Flags::default(), (Some("own"), Some("u:r:own_t"))),
        (file(own), given("p", "u:r:t"), (Some("p"), Some("u:r:t"))),
    ] {
        let shown = format!("{base:?} {flags:?}");
        let target = Target { id: "c1", process: &first, linux: None, keyring: true };
        let host = Host { security, ..host() };
        let plan = ExecPlan::build(target, base, &flags, RELAYED, &host, &mut Vec::new()).unwrap();
        assert_eq!((plan.process.apparmor_profile.as_deref(), plan.process.selinux_label.as_deref()), want, "{shown}");
    }
}

#[test]
fn only_what_the_callers_file_says_is_warned_of() {
    let unknown = json!({"bounding": ["CAP_SYS_TIME"]});
    let base = file(json!({"args": ["x"], "cwd": "/", "capabilities": unknown}));
    let warnings = build(base, &Flags::default(), RELAYED).unwrap().1;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].starts_with("--process /p.json: process.capabilities.bounding: CAP_SYS_TIME"), "{warnings:?}");
}

// CVE-2024-40635 and its kin
#[test]
fn ids_are_numbers_and_nothing_else() {
    for (text, want) in [
        ("0", Some((0, None))),
        ("1000:5", Some((1000, Some(5)))),
        ("4294967294:0", Some((4294967294, Some(0)))),
        ("1000:", None),
        (":5", None),
        ("", None),
        (":", None),
        ("-1", None),
        ("+1", None),
        (" 0", None),
        ("0 ", None),
        ("1:2:3", None),
        ("4294967295", None),
        ("0:4294967295", None),
        ("4294967296", None),
        ("0x10", None),
        ("root", None),
    ] {
        assert_eq!(user(text).ok(), want.map(|(uid, gid)| User { uid, gid }), "{text:?}");
    }
}
