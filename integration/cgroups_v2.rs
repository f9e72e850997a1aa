//! What is only so where cgroup v2 is all there is. What holds on every layout is in cgroups.rs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use serde_json::{Value, json};

use crate::bundle::{Bundle, by_systemd};
use crate::cgroups::{created_with, disk, memberships, value, without_parents};
use crate::leftovers::Leftovers;
use crate::mounted::mount_at;
use crate::runtime::on_rrun;

const TREE: &str = "/sys/fs/cgroup";

#[test]
fn a_relative_cgroups_path_starts_above_the_runtimes_own_cgroup() {
    layout!(V2);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("{}/deeper", bundle.id));
    bundle.create().ok();
    let path = |pid: i32| memberships(pid)[0].1.clone();
    let above = path(std::process::id() as i32).rsplit_once('/').unwrap().0.to_string();
    assert_eq!(path(bundle.pid()), format!("{above}/{}/deeper", bundle.id));
    bundle.delete_force().ok();
    without_parents(&bundle);
}

#[test]
fn limits_stand_in_the_files_of_v2() {
    layout!(V2);
    let (major, minor) = disk();
    let rate = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let bundle = created_with(&[
        ("cpu", json!({"shares": 1024, "quota": 20000, "period": 50000, "burst": 10000, "cpus": "0", "mems": "0"})),
        ("memory", json!({"limit": 50 << 20, "reservation": 30 << 20, "swap": 60 << 20, "kernel": 5 << 20})),
        ("pids", json!({"limit": 77})),
        (
            "blockIO",
            json!({
                "throttleReadBpsDevice": rate(1_000_000), "throttleWriteBpsDevice": rate(2_000_000),
                "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(0),
            }),
        ),
        ("unified", json!({"memory.high": "45M", "cpu.max.burst": "5000", "pids.max": "78"})),
    ]);
    for (file, want) in [
        ("cpu.weight", "100".to_string()),
        ("cpu.max", "20000 50000".into()),
        ("cpu.max.burst", "5000".into()),
        ("cpuset.cpus", "0".into()),
        ("cpuset.mems", "0".into()),
        ("memory.max", (50 << 20).to_string()),
        ("memory.low", (30 << 20).to_string()),
        ("memory.swap.max", (10 << 20).to_string()),
        ("memory.high", (45 << 20).to_string()),
        ("pids.max", "78".into()),
        ("io.max", format!("{major}:{minor} rbps=1000000 wbps=2000000 riops=300 wiops=max")),
    ] {
        assert_eq!(value(&bundle, "", file), want, "{file}");
    }
}

#[test]
fn without_limits_everything_is_as_the_kernel_has_it() {
    layout!(V2);
    let bundle = created_with(&[
        ("cpu", json!({"shares": 0, "quota": 0, "period": 0, "cpus": "", "mems": ""})),
        ("memory", json!({"limit": 0, "swap": 0, "swappiness": u64::MAX, "disableOOMKiller": false})),
        ("pids", json!({})),
    ]);
    for (file, want) in [
        ("cpu.weight", "100"),
        ("cpu.max", "max 100000"),
        ("memory.max", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
    ] {
        assert_eq!(value(&bundle, "", file), want, "{file}");
    }
}

// 0 is for what was set: -1 and a period alone
#[test]
fn no_limit_can_be_asked_for() {
    layout!(V2);
    let bundle = created_with(&[
        ("cpu", json!({"quota": -1, "period": 50000, "idle": 1})),
        ("memory", json!({"limit": -1, "swap": -1, "reservation": -1})),
        ("pids", json!({"limit": -1})),
    ]);
    for (file, want) in [
        // to systemd a period means nothing without a quota
        ("cpu.max", if by_systemd() { "max 100000" } else { "max 50000" }),
        ("cpu.idle", "1"),
        ("memory.max", "max"),
        ("memory.low", "max"),
        ("memory.swap.max", "max"),
        ("pids.max", "max"),
    ] {
        assert_eq!(value(&bundle, "", file), want, "{file}");
    }
}

/// Weights of a disk that is not in use, for which io.cost is enabled meanwhile.
struct Weighed {
    number: String,
}

impl Weighed {
    fn new() -> Option<Self> {
        let unused = |n: &u32| {
            let dir = PathBuf::from(format!("/sys/block/loop{n}"));
            dir.exists() && !dir.join("loop/backing_file").exists()
        };
        let weighed = Self { number: format!("7:{}", (0..8).rev().find(unused)?) };
        weighed.enable(1);
        Some(weighed)
    }

    fn enable(&self, enable: u8) {
        fs::write(Path::new(TREE).join("io.cost.qos"), format!("{} enable={enable}", self.number)).unwrap();
    }
}

impl Drop for Weighed {
    fn drop(&mut self) {
        self.enable(0);
    }
}

// io.weight, or io.bfq.weight where that scheduler is loaded
#[test]
fn a_weight_of_disk_traffic_is_scaled() {
    layout!(V2);
    need!(rrun); // others write io.bfq.weight alone, or in another format
    let Some(disk) = Weighed::new() else { return crate::need::skip("an unused loop device") };
    let (major, minor) = disk.number.split_once(':').unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let device = json!([{"major": number(major), "minor": number(minor), "weight": 1000}]);
    let bundle = created_with(&[("blockIO", json!({"weight": 100, "weightDevice": device}))]);
    let bfq = bundle.cgroup("").join("io.bfq.weight").exists();
    let default = if bfq { value(&bundle, "", "io.bfq.weight") } else { value(&bundle, "", "io.weight") };
    assert_eq!(default.lines().next(), Some(if bfq { "default 100" } else { "default 910" }));
    assert_eq!(value(&bundle, "", "io.weight").lines().last(), Some(format!("{} 10000", disk.number).as_str()));
}

#[test]
fn a_disk_that_cannot_be_weighed_says_what_it_lacks() {
    layout!(V2);
    need!(rrun);
    let (major, minor) = disk();
    let mut bundle = Bundle::new();
    bundle.set("/linux/resources/blockIO/weightDevice", json!([{"major": major, "minor": minor, "weight": 100}]));
    bundle.create().refused(&[
        "linux.resources.blockIO.weightDevice[0].weight: cannot set io.weight = ",
        "has neither the BFQ scheduler nor io.cost enabled",
    ]);
    bundle.leaves_nothing();
}

#[test]
fn what_v2_has_not_is_refused_by_its_name() {
    layout!(V2);
    need!(rrun); // peers drop some of these without a word
    for (field, given, says) in [
        ("/memory/swappiness", json!(10), "linux.resources.memory.swappiness: cgroup v2 has none"),
        ("/memory/disableOOMKiller", json!(true), "linux.resources.memory.disableOOMKiller"),
        ("/cpu/realtimeRuntime", json!(1000), "linux.resources.cpu.realtimeRuntime: cgroup v2 has no"),
        ("/blockIO/leafWeight", json!(100), "linux.resources.blockIO.leafWeight"),
        ("/network/classID", json!(4097), "linux.resources.network.classID: this host has no net_cls controller"),
        ("/rdma", json!({"mlx5_1": {"hcaHandles": 3}}), "linux.resources.rdma.mlx5_1: cannot set rdma.max"),
        ("/unified", json!({"nocontroller.max": "1"}), "nocontroller.max: invalid configuration: the cgroup v2 tree"),
        ("/unified", json!({"memory.nothing": "1"}), "linux.resources.unified.memory.nothing: cgroup "),
        ("/unified", json!({"cgroup.freeze": "1"}), "linux.resources.unified.cgroup.freeze: is not a limit"),
        ("/unified", json!({"../memory.max": "1"}), "linux.resources.unified.../memory.max: is not the name"),
        ("/unified", json!({"memory.high": "x"}), "linux.resources.unified.memory.high: write cgroup"),
        ("/cpu/cpus", json!("4000000"), "linux.resources.cpu.cpus: cannot set cpuset.cpus = 4000000"),
        (
            "/blockIO/throttleReadBpsDevice",
            json!([{"major": 4000, "minor": 1, "rate": 5}]),
            "linux.resources.blockIO.throttleReadBpsDevice[0]: cannot set io.max = 4000:1 rbps=5",
        ),
    ] {
        let mut bundle = Bundle::new();
        bundle.set(&format!("/linux/resources{field}"), given);
        bundle.create().refused(&[says]);
        bundle.leaves_nothing();
    }
}

#[test]
fn processors_that_the_cgroups_above_do_not_leave_are_told() {
    layout!(V2);
    need!(rrun); // the kernel leaves them out without a word, and so do peers
    let mut bundle = Bundle::new();
    let parent = Parent::new(&bundle);
    fs::write(parent.path.join("cpuset.cpus"), "0").unwrap();
    bundle.set("/linux/cgroupsPath", parent.below()).set("/linux/resources/cpu/cpus", "0-1");
    bundle.args(&["grep", "Cpus_allowed_list", "/proc/self/status"]);
    let log = bundle.dir.join("log");
    let output = bundle.call(&["--log", log.to_str().unwrap(), "run", &bundle.id]);
    assert!(output.stdout.ends_with("\t0\n") && output.code == 0, "{output}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("linux.resources.cpu.cpus: of 0-1 the cgroups above leave 0"), "{log}");
    without_parents(&bundle);
}

#[test]
fn a_limit_that_is_too_small_to_start_with_says_so() {
    layout!(V2);
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/memory", json!({"limit": 4096, "swap": 4096}));
    bundle.create().refused(&["linux.resources.memory: the limit is too small to start: setting up took "]);
    bundle.leaves_nothing();
}

/// Makes cgroups as a host's manager does, and takes them away again.
struct Parent {
    path: PathBuf,
    somebody: Option<Child>,
}

impl Parent {
    fn new(bundle: &Bundle) -> Self {
        let path = Path::new(TREE).join(&bundle.id);
        fs::create_dir(&path).unwrap();
        Self { path, somebody: None }
    }

    fn below(&self) -> String {
        format!("/{}/below/c1", self.path.file_name().unwrap().to_str().unwrap())
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap().trim().to_string()
    }

    fn with_somebody_inside(mut self) -> Self {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        fs::write(self.path.join("cgroup.procs"), child.id().to_string()).unwrap();
        self.somebody = Some(child);
        self
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.somebody {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn every_cgroup_above_hands_the_controllers_down() {
    layout!(V2);
    let mut bundle = Bundle::sleeping();
    let parent = Parent::new(&bundle);
    assert_eq!(parent.read("cgroup.subtree_control"), "");
    bundle.set("/linux/cgroupsPath", parent.below()).set("/linux/resources/pids/limit", 9);
    bundle.create().ok();
    // those that nothing was set of too: for statistics, and for `update`
    for above in [".", "below"] {
        let enabled = parent.read(&format!("{above}/cgroup.subtree_control"));
        for controller in ["cpuset", "cpu", "io", "memory", "pids"] {
            assert!(enabled.split(' ').any(|own| own == controller), "{controller} not in {above}: {enabled}");
        }
    }
    assert_eq!(parent.read("below/c1/pids.max"), "9");
    assert_eq!(parent.read("below/c1/cgroup.subtree_control"), "");
    bundle.delete_force().ok();
    without_parents(&bundle);
}

#[test]
fn below_a_cgroup_that_holds_processes_there_are_no_limits() {
    layout!(V2);
    need!(rrun); // in its own words
    let mut bundle = Bundle::sleeping();
    let parent = Parent::new(&bundle).with_somebody_inside();
    bundle.set("/linux/cgroupsPath", parent.below()).set("/linux/resources/pids/limit", 9);
    bundle.create().refused(&[
        &format!(
            "cgroup {} holds processes itself, so none below it can have the pids controller",
            parent.path.display()
        ),
        "set linux.cgroupsPath to an absolute path elsewhere",
    ]);
    assert!(!parent.path.join("below").exists(), "what was made is taken away");
    // nothing needs a controller, so none is asked for, and the cgroup there stays what it is
    bundle.unset("/linux/resources/pids");
    bundle.create().ok();
    assert_eq!((parent.read("cgroup.type").as_str(), parent.read("cgroup.subtree_control").as_str()), ("domain", ""));
    bundle.delete_force().ok();
    drop(parent);
    Leftovers::remove(&bundle.id, &bundle.state_root);
}

#[test]
fn a_cgroup_that_hands_controllers_down_takes_no_container() {
    layout!(V2);
    need!(rrun); // in its own words
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("/{}", bundle.id)); // systemd would make it anew
    let parent = Parent::new(&bundle);
    fs::write(parent.path.join("cgroup.subtree_control"), "+memory").unwrap(); // threads could share it with `pids`
    bundle.create().refused(&["join cgroup", "hands controllers down to cgroups below it"]);
    assert!(bundle.status_if_any().is_none());
    Leftovers::remove(&bundle.id, &bundle.state_root);
}

#[test]
fn below_a_threaded_cgroup_a_container_is_threaded_too() {
    layout!(V2);
    need!(rrun); // in its own words
    let mut bundle = Bundle::sleeping();
    let parent = Parent::new(&bundle);
    fs::create_dir(parent.path.join("threads")).unwrap();
    fs::write(parent.path.join("threads/cgroup.type"), "threaded").unwrap();
    bundle.set("/linux/cgroupsPath", format!("/{}/threads/c1", bundle.id));
    bundle.set("/linux/resources/memory/limit", 50 << 20);
    bundle.create().refused(&["lies below a threaded cgroup, where there is no memory controller"]);
    bundle.unset("/linux/resources/memory").set("/linux/resources/pids/limit", 9);
    bundle.create().ok();
    let own = |file: &str| parent.read(&format!("threads/c1/{file}"));
    assert_eq!((own("cgroup.type").as_str(), own("pids.max").as_str()), ("threaded", "9"));
    assert_eq!(own("cgroup.threads"), bundle.pid().to_string());
    bundle.start().ok();
    assert_eq!(bundle.call(&["ps", "--format", "json", &bundle.id]).ok().trim(), format!("[{}]", bundle.pid()));
    // cgroup.kill does not work there
    bundle.delete_force().ok();
    without_parents(&bundle);
}

#[test]
fn the_program_sees_its_own_limits_in_a_namespace_and_the_hosts_tree_without() {
    layout!(V2);
    for namespace in [true, false] {
        let own = if namespace { "" } else { "$(cut -d: -f3 /proc/self/cgroup)" };
        let mut bundle = Bundle::sh(&format!(
            "cd /sys/fs/cgroup{own}; cat memory.max pids.max; (echo 5 > pids.max) 2>/dev/null || echo read-only",
        ));
        if namespace {
            bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
        }
        bundle.set("/linux/resources/memory/limit", 50 << 20).set("/linux/resources/pids/limit", 99);
        for kind in ["cgroup", "cgroup2"] {
            bundle.without_mount("/sys/fs/cgroup");
            bundle.mount("/sys/fs/cgroup", kind, "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]);
            assert_eq!(bundle.run().ok(), "52428800\n99\nread-only\n", "{kind} with a cgroup namespace: {namespace}");
        }
        let mounts = bundle.mounts();
        let mount = mount_at(&mounts, "/sys/fs/cgroup");
        assert!(mount.fstype == "cgroup2" && mount.root == "/", "{mount:?}");
        assert!(["ro", "nosuid", "noexec", "nodev"].iter().all(|option| mount.has(option)), "{mount:?}");
    }
}

// a mount of cgroup2 made in the host's cgroup namespace sets the options of every other, systemd's nsdelegate too
#[test]
fn the_options_of_the_hosts_tree_stay() {
    layout!(V2);
    need!(rrun);
    let options = || {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().find(|line| line.split(' ').nth(1) == Some(TREE)).unwrap().to_string()
    };
    let before = options();
    assert!(before.contains("nsdelegate"), "systemd sets it: {before}");
    for namespace in [false, true] {
        let mut bundle = Bundle::new();
        if namespace {
            bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
        }
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &[]);
        bundle.run().ok();
        assert_eq!(options(), before);
    }
}

#[test]
fn a_manager_inside_can_make_cgroups_of_its_own() {
    layout!(V2);
    let mut bundle = Bundle::sh(
        "cd /sys/fs/cgroup; mkdir manager workers && echo $$ > manager/cgroup.procs &&
         echo +pids +memory > cgroup.subtree_control && echo 5 > workers/pids.max && cat workers/pids.max",
    );
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    assert_eq!(bundle.run().ok(), "5\n");
    bundle.leaves_nothing(); // the inner cgroups too
}

#[test]
fn a_container_with_a_writable_view_of_its_own_owns_its_cgroup_and_not_its_limits() {
    layout!(V2);
    need!(rrun); // others do so by systemd alone
    let mut bundle = Bundle::sh(
        "cd /sys/fs/cgroup && mkdir inner && echo $$ > inner/cgroup.procs && echo +pids > cgroup.subtree_control &&
         (echo max > memory.max) 2>/dev/null || echo not the limit; sleep 1000",
    );
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"})).set("/linux/resources/memory/limit", 50 << 20);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    let run = bundle.run_detached();
    let said = crate::runtime::eventually_within(std::time::Duration::from_secs(9), || {
        Some(run.later()).filter(|said| said.contains('\n'))
    });
    assert_eq!(said.as_deref(), Some("not the limit\n"), "{}", run.later());
    let owner = |file: &str| fs::metadata(bundle.cgroup("").join(file)).unwrap().uid();
    for (file, want) in [
        ("", 1000),
        ("cgroup.procs", 1000),
        ("cgroup.subtree_control", 1000),
        ("cgroup.threads", 1000),
        ("memory.max", 0),
        ("pids.max", 0),
        ("cgroup.kill", 0),
    ] {
        assert_eq!(owner(file), want, "{file}");
    }
    assert!(bundle.cgroup("").join("inner").exists());
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

// containerd's shim does so when `create` has returned, for pids, statistics and want of memory
#[test]
fn controllers_handed_down_afterwards_leave_the_container_where_it_is() {
    layout!(V2);
    let mut bundle = Bundle::sleeping();
    let path = format!("/{}/below/own", bundle.id);
    bundle.set("/linux/cgroupsPath", path.as_str());
    bundle.create().ok();
    let place = || fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    let before = place();
    let root = bundle.cgroup("").parent().unwrap().to_path_buf();
    let all = fs::read_to_string(root.join("cgroup.controllers")).unwrap();
    let words: Vec<String> = all.split_whitespace().map(|name| format!("+{name}")).collect();
    for above in [root, bundle.cgroup(""), bundle.cgroup("").join("below")] {
        fs::write(above.join("cgroup.subtree_control"), words.join(" ")).unwrap();
    }
    bundle.start().ok();
    assert_eq!(place(), before);
    let output = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert_eq!(output.ok(), format!("0::{path}\n"));
    bundle.delete_force().ok();
    // what is above a container's own is not its to remove
    fs::remove_dir(bundle.cgroup("").join("below")).unwrap();
    fs::remove_dir(bundle.cgroup("")).unwrap();
}

#[test]
fn a_read_only_view_or_a_shared_one_gives_nothing_away() {
    layout!(V2);
    for (namespace, option) in [(true, "ro"), (false, "rw")] {
        let mut bundle = Bundle::sleeping();
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        if namespace {
            bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
        }
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &[option]);
        bundle.create().ok();
        assert_eq!(fs::metadata(bundle.cgroup("")).unwrap().uid(), 0, "namespace {namespace}, {option}");
    }
}

#[test]
fn the_tree_alone_is_recorded() {
    layout!(V2);
    need!(rrun);
    let bundle = created_with(&[]);
    let state = fs::read(bundle.state_root.join(&bundle.id).join("state.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    assert_eq!(state["cgroup_paths"], json!({"": bundle.cgroup("")}));
    assert!(on_rrun() && Path::new(TREE).join(bundle.cgroup_path()).is_dir());
}
