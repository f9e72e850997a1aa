use serde_json::{Value, json};

use super::*;
use crate::host::Host;
use crate::plan::build::tests::options;
use crate::plan::spec::Spec;

fn plan(mounts: Value, more: &[(&str, Value)]) -> Plan {
    let namespaces = ["pid", "network", "mount", "ipc", "uts"].map(|kind| json!({"type": kind}));
    let mut config = json!({"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "mounts": mounts,
        "process": {"args": ["sh"], "cwd": "/"}, "linux": {"namespaces": namespaces}});
    for (key, value) in more {
        config["linux"][key] = value.clone();
    }
    let mut plan =
        Plan::build(&Spec::parse(config.to_string().as_bytes()).unwrap(), &options(), &Host::default()).unwrap();
    plan.devices.clear();
    plan
}

fn volumes() -> Value {
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/a/../b", "type": "bind", "source": "/host/b", "options": ["bind"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/link", "type": "none", "source": "file", "options": ["rbind", "ro"]},
    ])
}

fn shown(mounts: BTreeMap<PathBuf, PathBuf>) -> Vec<String> {
    mounts.iter().map(|(name, source)| format!("{} {}", name.display(), source.display())).collect()
}

#[test]
fn what_is_bound_is_outside_and_nothing_else() {
    let plan = plan(volumes(), &[]);
    let external: Vec<_> = external_mounts(&plan).iter().map(|(at, from)| format!("{at} {}", from.display())).collect();
    assert_eq!(external, ["/b /host/b", "/link /bundle/file"]);
}

#[test]
fn a_restore_knows_mounts_by_what_they_are_called_and_by_where_they_are() {
    let mut plan = plan(volumes(), &[("maskedPaths", json!(["/proc/keys"]))]);
    let resolved = |target: &InRoot| (target.to_string() == "/link").then(|| PathBuf::from("/real/place"));
    let want = ["/b /host/b", "/dev/null /dev/null", "/link /bundle/file", "/real/place /bundle/file"];
    assert_eq!(shown(restored_mounts(&plan, resolved)), want);
    plan.masked_paths.clear();
    assert_eq!(shown(restored_mounts(&plan, |_| None)), ["/b /host/b", "/link /bundle/file"]);
    // one that is named so is not hidden by one that leads there
    let clash = |target: &InRoot| (target.to_string() == "/b").then(|| PathBuf::from("/link"));
    assert_eq!(shown(restored_mounts(&plan, clash)), ["/b /host/b", "/link /bundle/file"]);
}

#[test]
fn devices_that_are_bound_are_outside_too() {
    let mut plan = plan(json!([]), &[]);
    assert!(external_mounts(&plan).is_empty());
    let devices = json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]);
    plan.devices = self::plan_of_devices(devices);
    assert_eq!(external_mounts(&plan), [(InRoot::new("/dev/fuse"), PathBuf::from("/dev/fuse"))]);
}

fn plan_of_devices(devices: Value) -> Vec<crate::plan::DevicePlan> {
    let listed: Vec<crate::plan::spec::linux::Device> = serde_json::from_value(devices).unwrap();
    let all = crate::plan::devices::plan(&listed, crate::plan::devices::Dev::Container, &mut Vec::new()).unwrap();
    all.into_iter().filter(|device| device.field.starts_with("linux")).collect()
}

#[test]
fn what_criu_cannot_take_along_is_named() {
    let mut plan = plan(json!([]), &[]);
    assert!(refuse_impossible(&plan).is_ok());
    plan.namespaces.retain(|kind| *kind != Namespace::Mount);
    let error = refuse_impossible(&plan).unwrap_err().to_string();
    assert!(error.starts_with("linux.namespaces: criu needs "), "{error}");
    for (kind, want) in [(Namespace::Cgroup, false), (Namespace::Ipc, true), (Namespace::Network, true)] {
        let refused = refuse_joined(kind, "linux.namespaces[0].path");
        assert_eq!(refused.is_ok(), want, "{kind:?}");
        assert!(want || refused.unwrap_err().to_string().starts_with("linux.namespaces[0].path: "));
    }
}

fn files() -> Files {
    Files { images: 7, work: Some(8), log: "x.log", config: Some("/etc/criu/rrun.conf".into()) }
}

#[test]
fn a_dump_says_what_was_found_and_what_was_asked_for() {
    let dumped = Dumped {
        pid: 42,
        rootfs: "/bundle/rootfs".into(),
        mounts: BTreeMap::from([("/real".into(), "/link".into())]),
        joined: vec![(Namespace::Network, 9), (Namespace::Pid, 10)],
        freezer: Some("/sys/fs/cgroup/freezer/c1".into()),
    };
    let request = dump(&Flags::default(), &files(), &dumped);
    let options = request.options.unwrap();
    assert_eq!(request.kind, Kind::Dump as i32);
    assert_eq!((options.images_dir_fd, options.work_dir_fd, options.pid), (7, Some(8), Some(42)));
    assert_eq!(options.root.as_deref(), Some(&b"/bundle/rootfs"[..]));
    assert_eq!(options.external, ["net[9]:extRootNetNS", "pid[10]:extRootPidNS"]);
    assert_eq!(options.external_mounts, [ExternalMount { key: b"/real".to_vec(), value: b"/link".to_vec() }]);
    assert_eq!(options.freeze_cgroup.as_deref(), Some(&b"/sys/fs/cgroup/freezer/c1"[..]));
    assert_eq!(options.config_file.as_deref(), Some(&b"/etc/criu/rrun.conf"[..]));
    assert_eq!((options.manage_cgroups_mode, options.empty_namespaces), (Some(6), Some(0x4000_0000)));
    assert_eq!((options.leave_running, options.track_mem, options.restore_sibling), (Some(false), None, None));
    let ahead = Flags { pre_dump: true, parent: Some("../before".into()), ..Flags::default() };
    let request = dump(&ahead, &files(), &dumped);
    let options = request.options.unwrap();
    assert_eq!(request.kind, Kind::PreDump as i32);
    assert_eq!((options.parent_images.as_deref(), options.track_mem), (Some(&b"../before"[..]), Some(true)));
}

/// A flag, and what it changes in the request.
type Row = (Flags, fn(&Options) -> bool);

#[test]
fn each_flag_reaches_criu() {
    let none = Flags::default;
    let rows: Vec<Row> = vec![
        (Flags { tcp_established: true, ..none() }, |o| o.tcp_established == Some(true)),
        (Flags { tcp_skip_in_flight: true, ..none() }, |o| o.tcp_skip_in_flight == Some(true)),
        (Flags { link_remap: true, ..none() }, |o| o.link_remap == Some(true)),
        (Flags { ext_unix_sk: true, ..none() }, |o| o.ext_unix_sk == Some(true)),
        (Flags { shell_job: true, ..none() }, |o| o.shell_job == Some(true)),
        (Flags { file_locks: true, ..none() }, |o| o.file_locks == Some(true)),
        (Flags { auto_dedup: true, ..none() }, |o| o.auto_dedup == Some(true)),
        (Flags { lazy_pages: true, ..none() }, |o| o.lazy_pages == Some(true)),
        (Flags { leave_running: true, ..none() }, |o| o.leave_running == Some(true)),
        (Flags { cgroups: CgroupsMode::Ignore, ..none() }, |o| o.manage_cgroups_mode == Some(0)),
        (Flags { cgroups: CgroupsMode::Soft, ..none() }, |o| o.manage_cgroups_mode == Some(3)),
        (Flags { cgroups: CgroupsMode::Full, ..none() }, |o| o.manage_cgroups_mode == Some(4)),
        (Flags { cgroups: CgroupsMode::Strict, ..none() }, |o| o.manage_cgroups_mode == Some(5)),
        (Flags { network_lock: Some(NetworkLock::Nftables), ..none() }, |o| o.network_lock == Some(2)),
        (Flags { page_server: Some(("::1".into(), 80)), ..none() }, |o| {
            o.page_server == Some(PageServer { address: Some("::1".into()), port: Some(80) })
        }),
    ];
    let asked = |flags: &Flags| *dump(flags, &files(), &Dumped::default()).options.unwrap();
    for (flags, reached) in rows {
        assert!(reached(&asked(&flags)) && !reached(&asked(&none())), "{flags:?}");
    }
    let rows: Vec<Row> = vec![
        (Flags { tcp_close: true, ..none() }, |o| o.tcp_close == Some(true)),
        (Flags { lsm_profile: Some("apparmor:x".into()), ..none() }, |o| {
            o.lsm_profile.as_deref() == Some("apparmor:x")
        }),
        (Flags { lsm_mount_context: Some("c".into()), ..none() }, |o| o.lsm_mount_context.as_deref() == Some("c")),
        (Flags { tcp_established: true, ..none() }, |o| o.tcp_established == Some(true)),
    ];
    let asked = |flags: &Flags| *restore(flags, &files(), &Restored::default()).options.unwrap();
    for (flags, reached) in rows {
        assert!(reached(&asked(&flags)) && !reached(&asked(&none())), "{flags:?}");
    }
}

#[test]
fn a_restore_says_where_it_is_put() {
    let restored = Restored {
        root: "/run/rrun/c1/restore".into(),
        mounts: BTreeMap::from([("/link".into(), "/bundle/file".into())]),
        inherited: vec![("pipe:[5]".into(), 1), (outside(Namespace::Network), 6)],
        joined: vec![(Namespace::Ipc, "/proc/1/fd/9".into())],
        cgroups: vec![("memory".into(), "/c1".into()), (String::new(), "/c1".into())],
    };
    let request = restore(&Flags::default(), &files(), &restored);
    let options = request.options.unwrap();
    assert_eq!((request.kind, options.restore_sibling), (Kind::Restore as i32, Some(true)));
    assert_eq!(options.root.as_deref(), Some(&b"/run/rrun/c1/restore"[..]));
    let fds: Vec<_> = options.inherited_fds.iter().map(|one| (one.key.as_str(), one.fd)).collect();
    assert_eq!(fds, [("pipe:[5]", 1), ("extRootNetNS", 6)]);
    let joined: Vec<_> =
        options.joined_namespaces.iter().map(|one| (one.namespace.as_str(), one.file.as_str())).collect();
    assert_eq!(joined, [("ipc", "/proc/1/fd/9")]);
    let roots: Vec<_> = options.cgroup_roots.iter().map(|one| (one.controller.as_deref(), one.path.as_str())).collect();
    assert_eq!(roots, [(Some("memory"), "/c1"), (Some(""), "/c1")]);
}

#[test]
fn cgroups_as_the_kernel_lists_them() {
    for (text, want) in [
        ("", &[][..]),
        ("0::/a/b:c\n", &[("", "/a/b:c")]),
        ("2:cpu,cpuacct:/x\n1:name=systemd:/y\n", &[("cpu", "/x"), ("cpuacct", "/x"), ("name=systemd", "/y")]),
        ("broken\n3:memory\n", &[]),
    ] {
        let want: Vec<_> = want.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        assert_eq!(cgroup_roots(text.as_bytes()), want, "{text}");
    }
}

// the images are whoever's: a name must not make CRIU hand another descriptor to a container
#[test]
fn only_pipes_are_taken_from_the_images() {
    for (names, want) in [
        (&[][..], &[][..]),
        (&["/dev/null", "pipe:[7]", "pipe:[8]"], &[("pipe:[7]", 1), ("pipe:[8]", 2)]),
        (&["pipe:[7]", "pipe:[7]", "pipe:[7]"], &[("pipe:[7]", 0)]),
        (&["", "", "", "pipe:[9]"], &[]),
        (&["socket:[7]", "/run/pipe:[7]", "pipe:[7"], &[]),
        (&["pipe:[]", "pipe:[7]x", "extRootNetNS"], &[]),
        (&["pipe:[-1]", "pipe:[ 1]", "pipe:[1]\n"], &[]),
    ] {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let got = pipes(&names);
        let got: Vec<_> = got.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        assert_eq!(got, want, "{names:?}");
    }
}
