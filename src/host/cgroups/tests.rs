use super::*;

fn hierarchy(controllers: &[&str], mountpoint: &str, root: &str, own: &str) -> Hierarchy {
    Hierarchy {
        controllers: controllers.iter().map(|c| c.to_string()).collect(),
        mountpoint: mountpoint.into(),
        root: root.into(),
        own: own.into(),
    }
}

fn tree(mountpoint: &str, root: &str, own: &str) -> Option<Unified> {
    Some(Unified { mountpoint: mountpoint.into(), root: root.into(), own: own.into(), controllers: vec![] })
}

fn parse(mountinfo: &str, own: &str) -> CgroupLayout {
    CgroupLayout::parse(mountinfo.as_bytes(), own.as_bytes()).unwrap()
}

const ROOT: &str = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n22 27 0:21 / /proc rw - proc proc rw\n";

#[test]
fn v1_with_hierarchies_that_share_a_mount() {
    let mountinfo = format!(
        "{ROOT}31 23 0:28 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755\n\
         32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:10 - cgroup cgroup rw,cpu,cpuacct\n\
         40 31 0:37 / /sys/fs/cgroup/systemd rw,nosuid shared:11 master:2 - cgroup cgroup rw,xattr,name=systemd\n"
    );
    let own = "12:net_cls,net_prio:/\n3:cpu,cpuacct:/user.slice\n1:name=systemd:/user.slice/session-1.scope\n";
    let want = CgroupLayout {
        v1: vec![
            hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", "/", "/user.slice"),
            hierarchy(&["name=systemd"], "/sys/fs/cgroup/systemd", "/", "/user.slice/session-1.scope"),
        ],
        v2: None,
    };
    assert_eq!(parse(&mountinfo, own), want, "net_cls has no mount and is left out");
}

#[test]
fn a_hybrid_host() {
    let mountinfo = format!(
        "{ROOT}35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
    );
    let want = CgroupLayout {
        v1: vec![hierarchy(&["memory"], "/sys/fs/cgroup/memory", "/", "/a:b/c")],
        v2: tree("/sys/fs/cgroup/unified", "/", "/"),
    };
    assert_eq!(parse(&mountinfo, "4:memory:/a:b/c\n0::/\n"), want);
}

#[test]
fn v2_alone() {
    let mountinfo = format!("{ROOT}31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup rw\n");
    let want = CgroupLayout { v1: vec![], v2: tree("/sys/fs/cgroup", "/", "/init.scope") };
    assert_eq!(parse(&mountinfo, "0::/init.scope\n"), want);
}

#[test]
fn inside_a_container_the_mount_begins_further_down() {
    let mountinfo = "811 810 0:29 /docker/4f /sys/fs/cgroup/cpu ro,nosuid master:10 - cgroup cgroup rw,cpu\n\
                     812 810 0:38 /docker/4f /sys/fs/cgroup/unified ro - cgroup2 cgroup rw\n";
    let want = CgroupLayout {
        v1: vec![hierarchy(&["cpu"], "/sys/fs/cgroup/cpu", "/docker/4f", "/docker/4f/in")],
        v2: tree("/sys/fs/cgroup/unified", "/docker/4f", "/docker/4f"),
    };
    assert_eq!(parse(mountinfo, "3:cpu:/docker/4f/in\n0::/docker/4f\n"), want);
}

#[test]
fn the_usual_place_and_the_whole_hierarchy_are_preferred() {
    let line = |root: &str, at: &str| format!("811 810 0:29 {root} {at} rw - cgroup cgroup rw,cpu\n");
    for (mounts, want) in [
        (vec![("/", "/var/chroot/sys/fs/cgroup/cpu"), ("/", "/sys/fs/cgroup/cpu")], "/sys/fs/cgroup/cpu"),
        (vec![("/pod", "/a"), ("/", "/b"), ("/", "/c")], "/b"),
        (vec![("/pod", "/a"), ("/pod", "/b")], "/a"),
        (vec![("/pod", "/sys/fs/cgroup/cpu"), ("/", "/a")], "/sys/fs/cgroup/cpu"),
    ] {
        let mountinfo: String = mounts.iter().map(|(root, at)| line(root, at)).collect();
        assert_eq!(parse(&mountinfo, "3:cpu:/\n").v1[0].mountpoint, Path::new(want), "{mounts:?}");
    }
    let twice = line("/below", "/sys/fs/cgroup/cpu") + &line("/above", "/sys/fs/cgroup/cpu");
    assert_eq!(parse(&twice, "3:cpu:/\n").v1[0].root, "/above", "the later mount is on top");
}

#[test]
fn escapes_and_names_that_look_like_more() {
    let mountinfo = "1 2 0:1 / /x\\040-\\040cgroup rw - tmpfs cgroup rw\n\
                     1 2 0:1 /a\\134b /my\\040cg\\011roups rw - cgroup cgroup rw,cpu\n\
                     1 2 0:1 / /c rw - cgroupfs cgroup rw,memory\n\
                     1 2 0:1 / /d rw - cgroup";
    let want = CgroupLayout { v1: vec![hierarchy(&["cpu"], "/my cg\troups", "/a\\b", "/")], v2: None };
    assert_eq!(parse(mountinfo, "3:cpu:/\n2:memory:/\n"), want);
    for (field, want) in [("a\\040b", "a b"), ("\\134040", "\\040"), ("\\04", "\\04"), ("\\999", "\\999"), ("", "")] {
        assert_eq!(unescaped(field.as_bytes()), want.as_bytes(), "{field}");
    }
}

#[test]
fn a_controller_is_not_taken_for_another_with_a_longer_name() {
    let mountinfo = "1 2 0:1 / /a rw - cgroup cgroup rw,cpuset\n1 2 0:2 / /b rw - cgroup cgroup rw,cpu\n";
    assert_eq!(parse(mountinfo, "3:cpu:/\n").v1[0].mountpoint, Path::new("/b"));
}

#[test]
fn nothing_mounted_and_broken_lines() {
    assert_eq!(parse(ROOT, "3:cpu:/\n0::/\n"), CgroupLayout::default());
    assert_eq!(parse("", ""), CgroupLayout::default());
    for own in [&b"3:cpu\n"[..], b"nonsense\n", b"3:cpu:/\xff\n"] {
        assert!(CgroupLayout::parse(b"", own).is_err(), "{own:?}");
    }
}

#[test]
fn this_machine_can_be_read() {
    let layout = CgroupLayout::detect(&Proc::open().unwrap()).unwrap();
    for hierarchy in &layout.v1 {
        assert!(hierarchy.mountpoint.join("cgroup.procs").exists(), "{hierarchy:?}");
    }
}
