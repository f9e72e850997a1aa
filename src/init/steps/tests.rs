use super::*;
use crate::host::Host;
use crate::plan::Descriptors;
use crate::plan::affinity::Affinity;
use crate::plan::build::Options;
use crate::plan::spec::Spec;

/// A plan with something of everything.
fn plan(no_new_privileges: bool, terminal: bool, hooks: bool) -> Plan {
    let kinds = ["pid", "network", "mount", "ipc", "uts", "cgroup"];
    let namespaces = kinds.map(|kind| serde_json::json!({"type": kind}));
    let hook = if hooks { serde_json::json!([{"path": "/h"}]) } else { serde_json::json!([]) };
    let config = serde_json::json!({
        "ociVersion": "1.3.0",
        "hooks": {"prestart": hook, "createContainer": hook, "startContainer": hook, "poststop": hook},
        "process": {
            "args": ["true"], "cwd": "/", "terminal": terminal, "noNewPrivileges": no_new_privileges,
            "user": {"uid": 1, "gid": 1},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}],
            "scheduler": {"policy": "SCHED_BATCH"},
            "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 0}
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "h",
        "mounts": [{"destination": "/t", "type": "tmpfs", "options": ["ro"]}],
        "linux": {
            "namespaces": namespaces,
            "netDevices": {"eth0": {}}, "memoryPolicy": {"mode": "MPOL_LOCAL"}, "personality": {"domain": "LINUX"},
            "maskedPaths": ["/proc/kcore"], "readonlyPaths": ["/proc/sys"],
            "sysctl": {"net.ipv4.ip_forward": "1"}
        }
    });
    let spec = Spec::parse(config.to_string().as_bytes()).unwrap();
    let options = Options {
        id: "c".into(),
        bundle: "/b".into(),
        rootfs: "/b/rootfs".into(),
        no_pivot: false,
        detached: false,
        console_socket: false,
        descriptors: Descriptors::default(),
        no_new_keyring: false,
        cgroup_of_unit: None,
        notify: None,
    };
    Plan::build(&spec, &options, &Host::default()).unwrap()
}

fn names(steps: &[Step]) -> Vec<String> {
    let name = |step: &Step| match step {
        Step::Move(step) => format!("{step:?}"),
        step => format!("{step:?}").split(['(', ' ']).next().unwrap_or_default().to_string(),
    };
    steps.iter().map(name).collect()
}

#[test]
fn what_must_come_before_what() {
    for (no_new_privileges, terminal) in [(false, false), (true, true)] {
        let plan = plan(no_new_privileges, terminal, true);
        let order = names(&steps(&plan));
        let at =
            |name: &str| order.iter().position(|step| step == name).unwrap_or_else(|| panic!("no {name} in {order:?}"));
        for (first, then, why) in [
            ("DieWithParent", "JoinCgroups", "nothing may outlive a parent that has not recorded it"),
            ("JoinCgroups", "AllProcessors", "the cpuset says which there are"),
            ("JoinCgroups", "Unshare(Cgroup)", "its root is the cgroup of its maker"),
            ("NetDevices", "RuntimeHooks", "hooks may configure them"),
            ("NetDevices", "Sysctl", "a device may have some of its own"),
            ("PrepareRoot", "Mount", "mounts go into the root"),
            ("Mount", "Device", "a tmpfs may lie on /dev"),
            ("Device", "SwitchRoot", ""),
            ("Device", "RuntimeHooks", "they see the finished tree"),
            ("WorkingDirectory", "RuntimeHooks", ""),
            ("RuntimeHooks", "ContainerHooks", ""),
            ("ContainerHooks", "FindProgram", "a hook may bring it"),
            ("ContainerHooks", "SwitchRoot", "their paths are the host's"),
            ("ContainerHooks", "Sysctl", "they may set up the network"),
            ("CapabilitySets", "StartHooks", "they run as the container's user"),
            ("CloseOtherDescriptors", "StartHooks", ""),
            ("WaitForStart", "StartHooks", ""),
            ("StartHooks", "Exec", ""),
            ("FindProgram", "SwitchRoot", "the host's binfmt_misc is asked"),
            ("Mount", "PrivateProcfs", ""),
            ("PrivateProcfs", "SwitchRoot", "another procfs must be in sight"),
            ("SwitchRoot", "Sysctl", ""),
            ("Sysctl", "ReadonlyPath", "/proc/sys becomes read-only"),
            ("Mask", "ReadonlyRoot", ""),
            ("WorkingDirectory", "ReadonlyRoot", "it may have to be made"),
            ("ReadonlyMounts", "EnterDirectory", ""),
            ("EnterDirectory", "Limits", "it opens a descriptor"),
            ("Limits", "Ids", "raising a limit takes CAP_SYS_RESOURCE"),
            ("JoinCgroups", "Scheduler", "they say which CPUs there are, and how much real time"),
            ("JoinCgroups", "MemoryPolicy", "they say which nodes there are"),
            ("NewSession", "IoPriority", "it is that of the process group"),
            ("Scheduler", "BoundingSet", "some take CAP_SYS_NICE"),
            ("IoPriority", "BoundingSet", "real time takes CAP_SYS_NICE"),
            ("BoundingSet", "Ids", "dropping takes CAP_SETPCAP"),
            ("Ids", "CapabilitySets", "a change of uid clears effective capabilities"),
            ("Ids", "DieWithParentAgain", "a change of ids clears the death signal"),
            ("OutliveParent", "Ready", "a recorded container outlives rrun"),
            ("CloseOtherDescriptors", "Ready", "no descriptor of the host waits in init"),
            ("Ready", "WaitForStart", ""),
            ("WaitForStart", "Exec", ""),
        ] {
            assert!(at(first) < at(then), "{first} must come before {then}: {why}; {order:?}");
        }
        assert_eq!(order.contains(&"NoNewPrivileges".to_string()), no_new_privileges);
        let (with, without) = ("Terminal".to_string(), "ReplaceDevNull".to_string());
        assert_eq!((order.contains(&with), order.contains(&without)), (terminal, !terminal));
        assert_eq!(order.last().map(String::as_str), Some("Exec"));
    }
}

/// The directory that they lie in is looked up once: what is mounted over it in between would not be seen.
#[test]
fn devices_and_links_follow_each_other() {
    let order = names(&steps(&plan(true, true, true)));
    let nodes = |step: &String| ["Device", "Link"].contains(&step.as_str());
    let (first, last) = (order.iter().position(nodes).unwrap(), order.iter().rposition(nodes).unwrap());
    assert!(order[first..=last].iter().all(nodes), "{order:?}");
    assert!(order.iter().any(|step| step == "Link") && order.iter().any(|step| step == "Device"), "{order:?}");
}

#[test]
fn where_a_filter_is_loaded() {
    let written = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
    for no_new_privileges in [false, true] {
        let mut plan = plan(no_new_privileges, false, false);
        plan.process.seccomp = Some(crate::plan::seccomp::plan(&written).unwrap());
        let order = names(&steps(&plan));
        let at = |name: &str| order.iter().position(|step| step == name).unwrap_or_else(|| panic!("{name}: {order:?}"));
        for (first, then, why) in [
            ("CloseOtherDescriptors", "LoadFilter", "the listener gets the number that was told"),
            ("OutliveParent", "LoadFilter", "it asks whether the death signal is cleared"),
            ("LoadFilter", "Ready", "one that is refused fails `create`"),
            ("Scheduler", "LoadFilter", "it may forbid it"),
            ("Personality", "LoadFilter", "usual ones forbid it"),
            ("MemoryPolicy", "LoadFilter", "usual ones forbid it"),
            if no_new_privileges {
                ("CapabilitySets", "LoadFilter", "it need not allow what gives rights up")
            } else {
                ("LoadFilter", "BoundingSet", "it takes CAP_SYS_ADMIN")
            },
        ] {
            assert!(at(first) < at(then), "{first} must come before {then}: {why}; {order:?}");
        }
        assert_eq!(order.contains(&"DieWithParentAgain".to_string()), no_new_privileges, "{order:?}");
    }
}

#[test]
fn what_forbids_forks_comes_after_the_hooks_that_are_forked() {
    let mut plan = plan(true, false, true);
    let deadline = serde_json::from_str(r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":2048}"#).unwrap();
    plan.process.scheduler = Some(crate::plan::scheduler::plan(&deadline, &mut Vec::new()).unwrap());
    let order = names(&steps(&plan));
    let end = ["StartHooks", "LateScheduler", "Exec"].map(String::from);
    assert!(order.ends_with(&end) && !order.contains(&"Scheduler".to_string()), "{order:?}");
    plan.hooks.start_container.clear();
    let order = names(&steps(&plan));
    assert!(order.contains(&"Scheduler".to_string()) && !order.contains(&end[1]), "{order:?}");
}

#[test]
fn when_labels_are_asked_for() {
    for no_new_privileges in [false, true] {
        let mut plan = plan(no_new_privileges, false, true);
        let labels = &mut plan.process;
        (labels.apparmor_profile, labels.selinux_label) = (Some("p".into()), Some("u:r:t".into()));
        let affinity = Affinity { initial: None, last: Last::All };
        let exec = ExecPlan { id: "c".into(), process: plan.process.clone(), affinity, keyring: true };
        for (new, order) in [(true, names(&steps(&plan))), (false, names(&steps_of_exec(&exec)))] {
            let keyring = if new { "SessionKeyring" } else { "ShareSessionKeyring" };
            let of_new: &[_] = &[
                ("HoldProcfs", "JoinCgroups", "before any namespace of the container is entered"),
                ("ContainerHooks", "ApparmorProfile", "hooks of the host are not to be confined"),
                ("ContainerHooks", "SelinuxLabel", ""),
            ];
            for (first, then, why) in [
                ("LabelKeys", keyring, "the keyring gets the label"),
                (keyring, "LabelKeysAsUsual", ""),
                ("SelinuxLabel", "Limits", "it opens a descriptor"),
                ("SelinuxLabel", "CloseOtherDescriptors", "the host's procfs goes"),
                ("ApparmorProfile", "CloseOtherDescriptors", ""),
            ]
            .iter()
            .chain(of_new.iter().filter(|_| new))
            {
                let at = |name: &str| order.iter().position(|step| step == name);
                assert!(at(first).is_some() && at(first) < at(then), "{first} before {then}: {why}; {order:?}");
            }
            let at = |name: &str| order.iter().position(|step| step == name);
            let bound = at("NoNewPrivileges").is_none_or(|bound| Some(bound) < at("ApparmorProfile"));
            assert!(bound, "whether profiles are stacked depends on it; {order:?}");
        }
    }
}

#[test]
fn without_hooks_and_labels_nothing_is_asked() {
    let order = names(&steps(&plan(false, false, false)));
    assert!(!order.iter().any(|step| step.contains("Label") || step == "HoldProcfs"), "{order:?}");
    assert!(!order.iter().any(|step| step.ends_with("Hooks")), "{order:?}");
}

#[test]
fn what_exec_must_do_before_what() {
    for terminal in [false, true] {
        let process = ProcessPlan {
            oom_score_adj: Some(1),
            terminal: terminal.then_some(Terminal { size: None }),
            ..plan(true, false, false).process
        };
        let affinity = Affinity { initial: None, last: Last::These(vec![0]) };
        let order = names(&steps_of_exec(&ExecPlan { id: "c".into(), process, affinity, keyring: true }));
        let at =
            |name: &str| order.iter().position(|step| step == name).unwrap_or_else(|| panic!("no {name} in {order:?}"));
        for (first, then, why) in [
            ("DieWithParent", "JoinCgroups", "nothing may outlive a parent that does not know of it"),
            ("OomScore", "JoinNamespaces", "the container's user namespace may not lower it"),
            ("JoinCgroups", "Processors", "the cpuset says which there are"),
            ("JoinCgroups", "CheckContainer", "who ends it looks for processes after init has ended"),
            ("JoinNamespaces", "CheckContainer", ""),
            ("JoinNamespaces", "ShareSessionKeyring", "its name belongs to the user namespace"),
            ("JoinNamespaces", "EnterRoot", "the root is that of the mount namespace"),
            ("NewSession", if terminal { "Terminal" } else { "ReplaceDevNull" }, "a session leader takes it"),
            ("EnterRoot", "FindProgram", ""),
            ("FindProgram", "Ready", "the pid file tells of a program that was found"),
            ("EnterDirectory", "Limits", "it opens a descriptor"),
            ("BoundingSet", "Ids", "dropping takes CAP_SETPCAP"),
            ("Ids", "DieWithParentAgain", "a change of ids clears the death signal"),
            ("OutliveParent", "Ready", "a process that is told of outlives rrun"),
            ("CloseOtherDescriptors", "Ready", "no descriptor of the host reaches the program"),
            ("Ready", "Exec", ""),
        ] {
            assert!(at(first) < at(then), "{first} must come before {then}: {why}; {order:?}");
        }
        for name in ["Console", "WaitForStart", "SwitchRoot", "WorkingDirectory"] {
            assert!(!order.contains(&name.to_string()), "{name} is for a new container: {order:?}");
        }
        assert_eq!(order.last().map(String::as_str), Some("Exec"));
    }
}
