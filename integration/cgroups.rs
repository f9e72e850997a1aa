//! cgroups by files: where the container is, what limits it, and that nothing is left. What is v2 alone is in
//! cgroups_v2.rs.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::layout::{is_v2, mountpoint, set_frozen};
use crate::leftovers::{Leftovers, hierarchies, is_alive};
use crate::mounted::{Mounted, mount_at};
use crate::runtime::{on_rrun, run};

/// What one file of the container's cgroup says.
#[track_caller]
pub fn value(bundle: &Bundle, controller: &str, file: &str) -> String {
    let path = bundle.cgroup(controller).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_string()
}

#[track_caller]
pub fn created_with(resources: &[(&str, Value)]) -> Bundle {
    let mut bundle = Bundle::sleeping();
    for (field, value) in resources {
        bundle.set(&format!("/linux/resources/{field}"), value.clone());
    }
    bundle.create().ok();
    bundle
}

/// `controllers:path` of each hierarchy that a process is in.
pub fn memberships(pid: i32) -> Vec<(String, String)> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let fields = text.lines().map(|line| line.splitn(3, ':').skip(1).map(String::from).collect::<Vec<_>>());
    fields.map(|fields| (fields[0].clone(), fields[1].clone())).collect()
}

#[test]
fn the_container_is_in_its_cgroup_in_every_hierarchy() {
    let bundle = created_with(&[]);
    let own = format!("/{}", bundle.cgroup_path());
    for (controllers, path) in memberships(bundle.pid()) {
        assert_eq!(path, own, "in {controllers:?}");
    }
    for hierarchy in hierarchies() {
        assert!(hierarchy.join(bundle.cgroup_path()).is_dir(), "{}", hierarchy.display());
    }
}

#[test]
fn a_relative_cgroups_path_starts_at_the_runtimes_own_cgroup() {
    layout!(V1, Hybrid);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("{}/deeper", bundle.id));
    bundle.create().ok();
    let own = memberships(std::process::id() as i32);
    for (controllers, path) in memberships(bundle.pid()).into_iter().filter(|(controllers, _)| !controllers.is_empty())
    {
        let (_, caller) = own.iter().find(|(other, _)| *other == controllers).unwrap();
        assert_eq!(path, format!("{}/{}/deeper", caller.trim_end_matches('/'), bundle.id), "{controllers}");
    }
    bundle.delete_force().ok();
    without_parents(&bundle);
}

/// The cgroup itself must be gone; the levels above it may stay, as others may be using them by now.
#[track_caller]
pub fn without_parents(bundle: &Bundle) {
    let left = Leftovers::find(&bundle.id, &bundle.state_root).cgroups;
    let leaf = Path::new(bundle.config["linux"]["cgroupsPath"].as_str().unwrap()).file_name().unwrap();
    assert!(left.iter().all(|cgroup| cgroup.file_name() != Some(leaf)), "{left:?}");
    Leftovers::remove(&bundle.id, &bundle.state_root);
}

#[test]
fn without_a_cgroups_path_the_id_is_the_path() {
    let mut bundle = Bundle::sleeping();
    bundle.unset("/linux/cgroupsPath");
    bundle.create().ok();
    let (_, path) = memberships(bundle.pid())
        .into_iter()
        .find(|(controllers, _)| controllers == if is_v2() { "" } else { "pids" })
        .unwrap();
    assert!(path.ends_with(&format!("/{}", bundle.id)), "{path}");
}

#[test]
fn dots_in_a_cgroups_path_do_not_lead_out_of_the_tree() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("/../../../{}/../{}", bundle.id, bundle.id));
    if bundle.create().code == 0 {
        assert!(memberships(bundle.pid()).iter().all(|(_, path)| *path == format!("/{}", bundle.id)));
    }
}

#[test]
fn memory_limits() {
    layout!(V1, Hybrid);
    let bundle = created_with(&[(
        "memory",
        json!({
            "limit": 50 << 20, "reservation": 30 << 20, "swap": 60 << 20, "swappiness": 7, "disableOOMKiller": true,
        }),
    )]);
    for (file, want) in [
        ("memory.limit_in_bytes", (50 << 20).to_string()),
        ("memory.soft_limit_in_bytes", (30 << 20).to_string()),
        ("memory.memsw.limit_in_bytes", (60 << 20).to_string()),
        ("memory.swappiness", "7".into()),
    ] {
        assert_eq!(value(&bundle, "memory", file), want, "{file}");
    }
    assert!(value(&bundle, "memory", "memory.oom_control").contains("oom_kill_disable 1"));
}

/// The kernel counts 256 KiB for a processor at once, of which a fresh container uses less.
#[test]
fn a_small_limit_is_not_refused_for_what_nobody_uses() {
    layout!(V1, Hybrid);
    need!(rrun); // runc needs more itself
    for round in 0..10 {
        let mut bundle = Bundle::sleeping();
        bundle.set("/linux/resources/memory", json!({"limit": 256 << 10}));
        let created = bundle.create();
        assert!(created.code == 0, "round {round}: {created}");
    }
}

#[test]
fn buffers_of_tcp_have_a_limit_of_their_own() {
    layout!(V1, Hybrid);
    need!(rrun); // runc leaves it out with a warning
    let bundle = created_with(&[("memory", json!({"kernelTCP": 8 << 20}))]);
    assert_eq!(value(&bundle, "memory", "memory.kmem.tcp.limit_in_bytes"), (8 << 20).to_string());
}

#[test]
fn cpu_limits() {
    layout!(V1, Hybrid);
    let bundle =
        created_with(&[("cpu", json!({"shares": 512, "quota": 20000, "period": 50000, "cpus": "0", "mems": "0"}))]);
    for (controller, file, want) in [
        ("cpu", "cpu.shares", "512"),
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpuset", "cpuset.cpus", "0"),
        ("cpuset", "cpuset.mems", "0"),
    ] {
        assert_eq!(value(&bundle, controller, file), want, "{file}");
    }
}

#[test]
fn a_cpuset_works_below_a_new_directory_too() {
    let mut bundle = Bundle::new();
    bundle.set("/linux/cgroupsPath", format!("/{}/a/b", bundle.id)).set("/linux/resources/cpu/cpus", "0");
    let output = bundle.run();
    assert!(output.ok().contains("\nCpus_allowed_list:\t0\n"), "{output}");
    without_parents(&bundle);
}

#[test]
fn pids_limit_and_the_lack_of_one() {
    for (given, want) in [(json!(77), "77"), (json!(-1), "max")] {
        assert_eq!(value(&created_with(&[("pids", json!({"limit": given}))]), "pids", "pids.max"), want);
    }
    assert_eq!(value(&created_with(&[("pids", json!({}))]), "pids", "pids.max"), "max");
}

#[test]
fn block_io_throttles() {
    layout!(V1, Hybrid);
    let device = disk();
    let rate = |rate: u64| json!([{"major": device.0, "minor": device.1, "rate": rate}]);
    let bundle = created_with(&[(
        "blockIO",
        json!({
            "throttleReadBpsDevice": rate(1_000_000), "throttleWriteBpsDevice": rate(2_000_000),
            "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400),
        }),
    )]);
    for (file, rate) in [("read_bps", "1000000"), ("write_bps", "2000000"), ("read_iops", "300"), ("write_iops", "400")]
    {
        let seen = value(&bundle, "blkio", &format!("blkio.throttle.{file}_device"));
        assert_eq!(seen, format!("{}:{} {rate}", device.0, device.1), "{file}");
    }
}

/// Numbers of some whole disk of this machine.
pub fn disk() -> (u64, u64) {
    let disks = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().path().join("dev"));
    let mut numbers: Vec<_> = disks.filter_map(|dev| fs::read_to_string(dev).ok()).collect();
    numbers.sort();
    let (major, minor) = numbers.first().expect("a machine without a disk").trim().split_once(':').unwrap();
    (major.parse().unwrap(), minor.parse().unwrap())
}

// a controller of a hybrid host may be in either tree
#[test]
fn huge_page_limits() {
    need!(rrun, hugetlb); // runc knows one tree only
    let limit = 4 << 20;
    let bundle = created_with(&[("hugepageLimits", json!([{"pageSize": "2MB", "limit": limit}]))]);
    let files = [
        ("unified", "hugetlb.2MB.max"),
        ("unified", "hugetlb.2MB.rsvd.max"),
        ("hugetlb", "hugetlb.2MB.limit_in_bytes"),
    ];
    let seen: Vec<_> =
        files.iter().filter_map(|(tree, file)| fs::read_to_string(bundle.cgroup(tree).join(file)).ok()).collect();
    assert!(!seen.is_empty() && seen.iter().all(|value| value.trim() == limit.to_string()), "{seen:?}");
}

#[test]
fn a_limit_stands_before_the_program_runs() {
    let mut bundle = Bundle::sh("for n in 1 2 3 4 5 6 7 8; do sleep 1 & done 2>/dev/null; echo all started");
    bundle.set("/linux/resources/pids/limit", 5);
    assert!(!bundle.run().stdout.contains("all started"));
}

#[test]
fn a_program_that_takes_more_memory_than_its_limit_is_killed() {
    let mut bundle = Bundle::sh("tail -c 60000000 /dev/zero | tail -c 1 >/dev/null; echo survived");
    bundle.set("/linux/resources/memory/limit", 20 << 20);
    bundle.args(&["tail", "-c", "60000000", "/dev/zero"]);
    assert_eq!(bundle.run().code, 137);
}

#[test]
fn the_program_sees_its_own_limits_through_its_cgroup_mount() {
    layout!(V1, Hybrid);
    for namespace in [true, false] {
        let mut bundle = Bundle::sh(
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max; \
             (echo 5 > pids/pids.max) 2>/dev/null || echo read-only",
        );
        if namespace {
            bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
        }
        bundle.set("/linux/resources/memory/limit", 50 << 20).set("/linux/resources/pids/limit", 99);
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
        assert_eq!(bundle.run().ok(), "52428800\n99\nread-only\n", "with a cgroup namespace: {namespace}");
    }
}

#[test]
fn a_cgroup_mount_has_a_directory_for_each_hierarchy() {
    layout!(V1, Hybrid);
    for namespace in [true, false] {
        let mut bundle = Bundle::new();
        if namespace {
            bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
        }
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid"]);
        let mounts = bundle.mounts();
        assert_eq!(mount_at(&mounts, "/sys/fs/cgroup").fstype, "tmpfs");
        for name in ["memory", "pids", "cpuset", "devices", "freezer", "systemd"] {
            let mount = mount_at(&mounts, &format!("/sys/fs/cgroup/{name}"));
            assert!(mount.fstype == "cgroup" && mount.has("ro") && mount.has("nosuid"), "{mount:?}");
            let root = if namespace { "/".to_string() } else { format!("/{}", bundle.cgroup_path()) };
            assert_eq!(mount.root, root, "{name}");
        }
    }
}

#[test]
fn a_writable_cgroup_mount_serves_a_manager_inside() {
    layout!(V1, Hybrid);
    let mut bundle = Bundle::sh("cd /sys/fs/cgroup/pids; mkdir inner && echo $$ > inner/tasks && cat inner/tasks");
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    // one process is the shell, another is cat
    assert!(bundle.run().ok().starts_with("1\n"));
    bundle.leaves_nothing(); // the inner cgroup too
}

#[test]
fn cgroups_that_were_made_inside_go_with_the_container() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    for cgroup in bundle.cgroups(&["pids", "memory", "freezer"]) {
        fs::create_dir_all(cgroup.join("a/b")).unwrap();
    }
    fs::create_dir(bundle.cgroup("pids").join("c")).unwrap();
    fs::write(bundle.cgroup("pids").join("c/cgroup.procs"), bundle.pid().to_string()).unwrap();
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn delete_works_when_the_cgroup_is_gone_already() {
    let bundle = Bundle::new();
    bundle.run_detached().ok();
    bundle.wait_until("stopped");
    for hierarchy in hierarchies() {
        let _ = fs::remove_dir(hierarchy.join(&bundle.id));
    }
    bundle.delete().ok();
    bundle.leaves_nothing();
}

// two containers in one cgroup would share limits, and one `delete` would kill both
#[test]
fn a_cgroup_with_somebody_in_it_is_refused_and_left_alone() {
    let bundle = Bundle::sleeping();
    let mut somebody = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = somebody.id() as i32;
    let occupied = bundle.cgroups(&["pids", "freezer", "memory"]);
    for cgroup in &occupied {
        fs::create_dir_all(cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    if on_rrun() {
        bundle.create().refused(&["linux.cgroupsPath"]);
    }
    let (alive, there) = (is_alive(pid), bundle.cgroup("pids").exists());
    somebody.kill().unwrap();
    somebody.wait().unwrap();
    assert!(alive && there, "whoever was there has gone: alive {alive}, cgroup {there}");
    occupied.iter().for_each(|cgroup| fs::remove_dir(cgroup).unwrap());
}

/// Whoever has no number here may live there all the same.
#[test]
fn a_cgroup_with_somebody_of_another_pid_namespace_in_it_is_refused() {
    need!(rrun); // others see nobody
    layout!(V2, Hybrid); // v1 does not tell
    let bundle = Bundle::sleeping();
    let cgroup = mountpoint("unified").join(bundle.cgroup_path());
    fs::create_dir_all(&cgroup).unwrap();
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::write(cgroup.join("cgroup.procs"), other.id().to_string()).unwrap();
    let command = bundle.command(&["create", &bundle.id]);
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--pid", "--fork", "--mount-proc"]).arg(command.get_program()).args(command.get_args());
    let output = run(elsewhere.current_dir(&bundle.dir));
    output.refused(&["container's cgroup is not empty", "outside of rrun's pid namespace"]);
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    fs::remove_dir(&cgroup).unwrap();
}

#[test]
fn a_frozen_cgroup_is_refused() {
    let bundle = Bundle::sleeping();
    fs::create_dir_all(bundle.cgroup("freezer")).unwrap();
    set_frozen(&bundle.cgroup("freezer"), true);
    assert!(bundle.create().error().contains("frozen"));
    assert!(bundle.cgroup("freezer").exists() || !on_rrun(), "it was there before, and is not ours to remove");
    let _ = fs::remove_dir(bundle.cgroup("freezer"));
}

#[test]
fn the_hosts_cgroup_mounts_stay_as_they_are() {
    let table = || {
        let text = fs::read_to_string("/proc/self/mountinfo").unwrap();
        Mounted::parse(&text)
            .into_iter()
            .filter(|mount| mount.fstype.starts_with("cgroup"))
            .map(|m| m.point)
            .collect::<Vec<_>>()
    };
    let before = table();
    let mut bundle = Bundle::new();
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    bundle.run().ok();
    assert_eq!(table(), before);
    assert!(before.iter().all(|point| Path::new(point).is_dir()));
}

#[test]
fn the_cgroups_can_be_mounted_where_a_symlink_of_the_image_leads() {
    let mut bundle = Bundle::sh("ls /real/cgroup");
    std::os::unix::fs::symlink("real", bundle.rootfs("link")).unwrap();
    bundle.mount("/link/cgroup", "cgroup", "cgroup", &[]);
    assert!(bundle.run().ok().contains("memory"));
}
