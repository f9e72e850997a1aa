use proptest::prelude::*;

use super::*;
use crate::plan::AttrChange;
use crate::plan::id_maps::User;

/// The plan of one mount and what was warned about.
fn plan_with(json: &str) -> (Result<MountPlan>, Vec<String>) {
    let mut warnings = Vec::new();
    let mounts: spec::List<spec::Mount> = spec::document::read(format!("[{json}]").as_bytes()).unwrap();
    let cgroup = || Ok(CgroupMount::V2 { new: true, bind: "/sys/fs/cgroup/x".into() });
    let container = Container { user: User::Shared, maps: None, rootless: false };
    let origin = Origin { bundle: Path::new("/bundle"), rootfs: Path::new("/bundle/rootfs") };
    let mut problems = Problems::default();
    let planned = super::plan(&mounts, origin, &container, cgroup, &mut warnings, &mut problems);
    (problems.result(planned).map(|mut planned| planned.remove(0)), warnings)
}

fn mount(destination: &str, kind: &str, options: &[&str]) -> MountPlan {
    let json = serde_json::json!({"destination": destination, "type": kind, "source": "src", "options": options});
    let (planned, warnings) = plan_with(&json.to_string());
    assert!(warnings.is_empty(), "{warnings:?}");
    planned.unwrap()
}

fn flag(name: &str) -> Parameter {
    Parameter::Flag(name.into())
}

fn value(key: &str, value: &str) -> Parameter {
    Parameter::Value(key.into(), value.into())
}

fn change(set: u64, clear: u64) -> AttrChange {
    AttrChange { set, clear }
}

#[test]
fn a_file_system_gets_its_parameters_in_order() {
    let planned = mount("/dev/shm/", "tmpfs", &["nosuid", "mode=1777", "sync", "size=64k", "rw", "defaults"]);
    assert_eq!((planned.field.as_str(), planned.target.to_string().as_str()), ("mounts[0]", "/dev/shm"));
    let Source::Filesystem { fstype, device, parameters, copy_up } = planned.source else { panic!("{planned:?}") };
    assert_eq!((fstype.as_str(), device.as_str(), copy_up), ("tmpfs", "src", false));
    assert_eq!(parameters, [flag("sync"), value("mode", "1777"), value("size", "64k")]);
    assert_eq!(planned.attributes, change(libc::MOUNT_ATTR_NOSUID, libc::MOUNT_ATTR_RDONLY));
    assert!(!planned.readonly_at_end);
    let copies = |planned| matches!(planned, Source::Filesystem { copy_up: true, .. });
    assert!(copies(mount("/tmp", "tmpfs", &["tmpcopyup"]).source));
}

#[test]
fn a_destination_by_its_path_on_the_host_is_the_one_inside() {
    for (destination, want, warned) in [
        ("/bundle/rootfs/mnt", "/mnt", true),
        ("/bundle/rootfs/../mnt", "/mnt", true),
        ("/bundle/rootfsx", "/bundle/rootfsx", false),
        ("/mnt/bundle/rootfs", "/mnt/bundle/rootfs", false),
    ] {
        let json = serde_json::json!({"destination": destination, "type": "tmpfs"});
        let (planned, warnings) = plan_with(&json.to_string());
        assert_eq!(planned.unwrap().target.to_string(), want);
        let want = format!("mounts[0].destination: {destination} begins with root.path; taken as {want}");
        assert_eq!(warnings, if warned { vec![want] } else { Vec::new() }, "{destination}");
    }
    let root = serde_json::json!({"destination": "/bundle/rootfs/", "type": "tmpfs"});
    let error = plan_with(&root.to_string()).0.unwrap_err().to_string();
    assert!(error.contains("is the root itself"), "{error}");
    assert_eq!(below(Path::new("/"), "/mnt"), None, "a container in the host's own root");
}

#[test]
fn what_a_bind_mount_does_not_name_is_cleared_once_it_names_something() {
    for (kind, options, want) in [
        ("bind", &["bind"][..], ""),
        ("bind", &["rbind", "rprivate", "rro"], ""),
        ("bind", &["bind", "rw"], "suid,dev,exec,symfollow"),
        ("bind", &["bind", "ro", "nosuid"], "dev,exec,symfollow"),
        ("bind", &["bind", "noatime"], "rw,suid,dev,exec,symfollow"),
        ("tmpfs", &["nosuid"], ""),
        ("", &["remount", "bind", "ro"], ""),
    ] {
        assert_eq!(mount_options::words(&mount("/x", kind, options).unnamed), want, "{kind} {options:?}");
    }
    let below_dev = mount("/dev/x", "bind", &["bind", "ro"]);
    assert!(below_dev.readonly_at_end && mount_options::words(&below_dev.unnamed) == "suid,dev,exec,symfollow");
}

#[test]
fn a_read_only_block_device_is_not_opened_for_writing() {
    for (source, options, want) in [
        ("/dev/sda1", &["ro"][..], &[Parameter::Flag("ro".into())][..]),
        ("/dev/sda1", &["ro", "rw"], &[]),
        ("sysfs", &["ro"], &[]),
    ] {
        let json = serde_json::json!({"destination": "/x", "type": "ext4", "source": source, "options": options});
        match plan_with(&json.to_string()).0.unwrap().source {
            Source::Filesystem { parameters, .. } => assert_eq!(parameters, want, "{json}"),
            other => panic!("{json}: {other:?}"),
        }
    }
}

#[test]
fn a_bind_mount_is_told_by_its_options_or_its_type() {
    for (json, from, recursive) in [
        (r#"{"destination":"/a","source":"/host","options":["bind"]}"#, "/host", false),
        (r#"{"destination":"/a","source":"/host","type":"ext4","options":["rbind"]}"#, "/host", true),
        (r#"{"destination":"/a","source":"vol","type":"bind"}"#, "/bundle/vol", false),
        (
            r#"{"destination":"/a","source":"vol/../x","type":"none","options":["bind","rbind"]}"#,
            "/bundle/vol/../x",
            true,
        ),
        (r#"{"destination":"/a","source":"/host","type":"cgroup","options":["rbind","bind"]}"#, "/host", true),
    ] {
        match plan_with(json).0.unwrap().source {
            Source::Bind { from: got, recursive: got_recursive, .. } => {
                assert_eq!((got.as_path(), got_recursive), (Path::new(from), recursive), "{json}")
            }
            other => panic!("{json}: {other:?}"),
        }
    }
    let (planned, warnings) = plan_with(r#"{"destination":"/a","source":"/h","options":["rbind","sync"]}"#);
    assert!(planned.is_ok());
    assert_eq!(warnings, ["mounts[0].options: sync is left out: a bind mount cannot change it"]);
}

#[test]
fn remount_and_cgroup_have_their_own_source() {
    assert!(matches!(mount("/sys/fs/cgroup", "cgroup", &["ro"]).source, Source::Cgroup(CgroupMount::V2 { .. })));
    assert!(matches!(mount("/sys/fs/cgroup", "cgroup2", &[]).source, Source::Cgroup(CgroupMount::V2 { .. })));
    let remount = |options: &[&str]| match mount("/x", "", options).source {
        Source::Remount { parameters } => parameters,
        other => panic!("{other:?}"),
    };
    assert_eq!(remount(&["remount", "ro", "size=1m", "lazytime"]), [flag("lazytime"), value("size", "1m")]);
    assert_eq!(remount(&["remount", "bind", "ro"]), []);
}

#[test]
fn read_only_comes_last_where_things_are_made_inside() {
    let rdonly = libc::MOUNT_ATTR_RDONLY;
    for (destination, kind, options, at_end, set, recursive) in [
        ("/tmp", "tmpfs", &["ro"][..], true, 0, 0),
        ("/tmp", "tmpfs", &["ro", "rw"], false, 0, 0),
        ("/tmp", "tmpfs", &["rro"], true, 0, 0),
        ("/dev", "devtmpfs", &["ro"], true, 0, 0),
        ("/dev/x/y", "bind", &["ro"], true, 0, 0),
        ("/dev/x", "bind", &["rbind", "rro"], false, 0, rdonly),
        ("/device", "bind", &["ro"], false, rdonly, 0),
        ("/tmp", "bind", &["ro", "rro"], false, rdonly, rdonly),
        ("/sys", "sysfs", &["ro", "rro"], false, rdonly, rdonly),
    ] {
        let planned = mount(destination, kind, options);
        let got = (planned.readonly_at_end, planned.attributes.set, planned.recursive.set);
        assert_eq!(got, (at_end, set, recursive), "{destination} {kind} {options:?}");
    }
}

#[test]
fn only_proc_and_a_few_files_go_into_proc() {
    for (destination, kind, options, taken) in [
        ("/proc", "proc", &[][..], true),
        ("/proc/", "bind", &[], true),
        ("//proc/.", "", &["remount", "ro"], true),
        ("/proc", "tmpfs", &[], false),
        ("/proc", "cgroup", &[], false),
        ("/proc/cpuinfo", "bind", &[], true),
        ("/proc/net/dev", "bind", &[], true),
        ("/proc/sys/kernel/ns_last_pid", "bind", &[], true),
        ("/proc/sys", "bind", &[], false),
        ("/proc/self/attr", "tmpfs", &[], false),
        ("/proc/cpuinfo/x", "bind", &[], false),
        ("/x/../proc/1", "bind", &[], false),
        ("/process", "tmpfs", &[], true),
        ("/x/proc/sys", "tmpfs", &[], true),
    ] {
        let json = serde_json::json!({"destination": destination, "type": kind, "source": "s", "options": options});
        let (planned, _) = plan_with(&json.to_string());
        assert_eq!(planned.is_ok(), taken, "{json}: {planned:?}");
    }
}

#[test]
fn a_bad_mount_is_named_with_its_path() {
    for (json, want) in [
        (r#"{"type":"tmpfs"}"#, "destination: missing"),
        (r#"{"destination":"","type":"tmpfs"}"#, "destination: missing"),
        (r#"{"destination":"/","type":"tmpfs"}"#, "destination: / is the root itself"),
        (r#"{"destination":"/a/..","type":"tmpfs"}"#, "destination: /a/.. is the root itself"),
        (
            r#"{"destination":"/proc/x","type":"tmpfs"}"#,
            "destination: /proc/x cannot be mounted because it is inside /proc",
        ),
        (r#"{"destination":"/proc","type":"tmpfs"}"#, "type: tmpfs cannot be mounted on /proc"),
        (r#"{"destination":"/a"}"#, "type: missing"),
        (r#"{"destination":"/a","source":"/b","type":""}"#, "type: missing"),
        (r#"{"destination":"/a","type":"bind"}"#, "source: missing"),
        (r#"{"destination":"/a","options":["rbind"],"source":""}"#, "source: missing"),
        (r#"{"destination":"/a","source":"/b","options":["bind","acl"]}"#, "options: acl: a bind mount takes no"),
        (
            r#"{"destination":"/a","source":"/b","options":["bind","tmpcopyup"]}"#,
            "options: tmpcopyup fills a new tmpfs",
        ),
        (r#"{"destination":"/a","type":"ramfs","options":["tmpcopyup"]}"#, "options: tmpcopyup fills a new tmpfs"),
        (
            r#"{"destination":"/a","type":"tmpfs","options":["remount","tmpcopyup"]}"#,
            "options: tmpcopyup fills a new tmpfs",
        ),
        (
            r#"{"destination":"/a","type":"cgroup","options":["nsdelegate"]}"#,
            "options: nsdelegate: a cgroup mount takes no",
        ),
        (r#"{"destination":"/a","type":"cgroup2","options":["sync"]}"#, "options: sync: a cgroup mount takes no"),
        (r#"{"destination":"/a","type":"tmpfs","options":["ro","idmap"]}"#, "options: idmap: only of a new bind mount"),
        (
            r#"{"destination":"/a","type":"cgroup","uidMappings":[{"containerID":0,"hostID":0,"size":1}]}"#,
            "uidMappings: only of a new bind mount",
        ),
        (r#"{"destination":"/a","type":"bind","source":"/b","uidMappings":[{}]}"#, "uidMappings[0].size: missing"),
        (r#"{"destination":"/a","type":"bind","source":"/b","gidMappings":[{}]}"#, "gidMappings[0].size: missing"),
        (
            r#"{"destination":"/a","type":"tmpfs","options":["copy-symlink"]}"#,
            "options: copy-symlink: only a bind mount",
        ),
        (
            r#"{"destination":"/a","type":"tmpfs","options":["src-nofollow"]}"#,
            "options: src-nofollow: only a bind mount",
        ),
        (
            r#"{"destination":"/a","type":"bind","source":"/b","options":["copy-symlink","dest-nofollow"]}"#,
            "options: dest-nofollow and copy-symlink exclude each other",
        ),
        (
            r#"{"destination":"/a","type":"bind","source":"/b","options":["src-nofollow","copy-symlink"]}"#,
            "options: src-nofollow and copy-symlink exclude each other",
        ),
        (
            r#"{"destination":"/a","type":"sysfs","options":["dest-nofollow"]}"#,
            "options: dest-nofollow: not for a mount of",
        ),
        (
            r#"{"destination":"/a","type":"cgroup","options":["dest-nofollow"]}"#,
            "options: dest-nofollow: not for a mount",
        ),
        (r#"{"destination":"/a","options":["remount","dest-nofollow"]}"#, "options: dest-nofollow: not for a mount of"),
    ] {
        let error = plan_with(json).0.unwrap_err().to_string();
        assert!(error.starts_with(&format!("mounts[0].{want}")), "{json}: {error}");
    }
    let (planned, warnings) = plan_with(r#"{"destination":"etc/../x","type":"tmpfs"}"#);
    assert_eq!(planned.unwrap().target.to_string(), "/x");
    assert_eq!(warnings, ["mounts[0].destination: etc/../x is not absolute; taken from /"]);
}

#[test]
fn many_layers_of_overlay_become_one_parameter_each() {
    let long = "l".repeat(200);
    let lowerdir = format!("lowerdir=/{long}:/a\\:b:/c::/data");
    for (kind, option, want) in [
        ("overlay", "lowerdir=/a:/b", vec![value("lowerdir", "/a:/b")]),
        (
            "overlay",
            &format!("{lowerdir}:{long}"),
            vec![
                value("lowerdir+", &format!("/{long}")),
                value("lowerdir+", "/a:b"),
                value("lowerdir+", "/c"),
                value("datadir+", "/data"),
                value("lowerdir+", &long),
            ],
        ),
    ] {
        match mount("/x", kind, &[option]).source {
            Source::Filesystem { parameters, .. } => assert_eq!(parameters, want, "{option}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bind_of_the_host_is_seen_on_dev_only() {
    let seen = |destination, kind| dev_is_bound(&[mount(destination, kind, &[])]);
    assert!(seen("/dev", "bind") && seen("/x/../dev/", "bind"));
    assert!(!seen("/dev", "tmpfs") && !seen("/dev/shm", "bind") && !seen("/x", "bind"));
}

proptest! {
    #[test]
    fn a_target_stays_inside(destination in "(/|\\.\\.|\\.|proc|sys|a|é){1,12}", kind in "(tmpfs|proc|bind)") {
        let json = serde_json::json!({"destination": destination, "type": kind, "source": "s"});
        let (planned, _) = plan_with(&json.to_string());
        let Ok(planned) = planned else { return Ok(()) };
        let path = planned.target.as_path();
        prop_assert!(!planned.target.is_root() && path.is_relative(), "{}", path.display());
        prop_assert!(!path.starts_with("proc/sys") && (!path.starts_with("proc") || kind != "tmpfs"), "{}", path.display());
    }
}
