//! What a container may do below its own cgroup of v2: it is given away to root of a user namespace, and threads inside
//! may be told apart.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde_json::json;

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::runtime::{Output, eventually_within};

const TREE: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(20);

/// With a view of its own cgroup that may be written.
fn with_cgroups(mut bundle: Bundle) -> Bundle {
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    bundle.mount(TREE, "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    bundle
}

#[track_caller]
fn says(run: &Output, words: &str) {
    let said = eventually_within(PATIENCE, || run.later().contains(words).then_some(()));
    assert!(said.is_some(), "does not say `{words}`: {run} {}", run.later());
}

// what systemd in a container with a user namespace does first
#[test]
fn root_of_a_user_namespace_owns_its_cgroup_and_not_its_limits() {
    layout!(V2);
    need!(rrun); // others do so by systemd alone
    let mut bundle = with_cgroups(mapped(Bundle::sh(
        "cd /sys/fs/cgroup && mkdir init.scope pod && echo $$ > init.scope/cgroup.procs &&
         echo '+memory +pids' > cgroup.subtree_control && echo 7 > pod/pids.max && cat pod/pids.max &&
         mkdir pod/deeper && echo +pids > pod/cgroup.subtree_control && echo 3 > pod/deeper/pids.max;
         for file in memory.max pids.max cgroup.freeze cgroup.kill cgroup.max.depth; do
             (echo 1 > $file) 2>/dev/null && echo wrote $file; done; echo ready; exec sleep 1000",
    )));
    bundle.set("/linux/resources/memory/limit", 50 << 20).set("/linux/resources/pids/limit", 99);
    let run = bundle.run_detached();
    says(&run, "ready");
    assert_eq!(run.later(), "7\nready\n");
    let own = bundle.cgroup("");
    let owner = |file: &str| fs::metadata(own.join(file)).unwrap().uid();
    let given = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    assert!(given.contains("cgroup.procs") && given.contains("cgroup.threads"), "{given}");
    for entry in fs::read_dir(&own).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_own = own.join(&name).is_dir() || given.lines().any(|line| line == name);
        assert_eq!(owner(&name), if is_own { 100_000 } else { 0 }, "{name}");
    }
    assert_eq!(owner(""), 100_000);
    // rrun finds what is below
    assert_eq!(bundle.call(&["exec", &bundle.id, "cat", "/sys/fs/cgroup/pod/deeper/pids.max"]).ok(), "3\n");
    bundle.pause().ok();
    bundle.resume().ok();
    bundle.call(&["update", "--pids-limit", "88", &bundle.id]).ok();
    assert_eq!(fs::read_to_string(own.join("pids.max")).unwrap(), "88\n");
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn nothing_is_given_to_root_of_a_user_namespace_that_may_only_read() {
    layout!(V2);
    let mut bundle = mapped(Bundle::sleeping());
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    bundle.mount(TREE, "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    bundle.create().ok();
    let own = bundle.cgroup("");
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(fs::metadata(own.join(file)).unwrap().uid(), 0, "{file}");
    }
}

// a cgroup with threaded ones below stays a place for processes: its type becomes `domain threaded`
#[test]
fn a_container_may_tell_its_threads_apart() {
    layout!(V2);
    need!(rrun); // others do not find threads
    let mut bundle = with_cgroups(Bundle::sh(
        "cd /sys/fs/cgroup && mkdir threads && echo threaded > threads/cgroup.type && sleep 1000 & sleep 0.1;
         cd /sys/fs/cgroup && echo $! > threads/cgroup.threads && echo +pids > cgroup.subtree_control &&
         echo 9 > threads/pids.max && cat cgroup.type threads/cgroup.type && echo ready; wait",
    ));
    bundle.set("/linux/resources/pids/limit", 50);
    let run = bundle.run_detached();
    says(&run, "ready");
    assert_eq!(run.later(), "domain threaded\nthreaded\nready\n");
    let mut pids: Vec<i32> = serde_json::from_str(bundle.call(&["ps", "--format", "json", &bundle.id]).ok()).unwrap();
    pids.sort_unstable();
    assert!(pids.len() >= 2 && pids.contains(&bundle.pid()), "{pids:?}");
    let threads = fs::read_to_string(bundle.cgroup("").join("threads/cgroup.threads")).unwrap();
    assert!(threads.lines().all(|thread| pids.iter().any(|pid| pid.to_string() == thread)), "{threads} of {pids:?}");
    assert_eq!(bundle.call(&["exec", &bundle.id, "echo", "in"]).ok(), "in\n");
    bundle.pause().ok();
    assert_eq!(bundle.status(), "paused");
    bundle.resume().ok();
    bundle.call(&["update", "--pids-limit", "40", &bundle.id]).ok();
    let stats = bundle.call(&["events", "--stats", &bundle.id]);
    let stats: serde_json::Value = serde_json::from_str(stats.ok()).unwrap();
    assert!(stats["data"]["pids"]["current"].as_u64() >= Some(2), "{stats}");
    assert_eq!(stats["data"]["pids"]["limit"], 40);
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

// where others have told their threads apart, new cgroups can be threaded alone
#[test]
fn beside_threaded_cgroups_a_container_is_one_too() {
    layout!(V2);
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    let top = std::path::Path::new(TREE).join(&bundle.id);
    fs::create_dir(&top).unwrap();
    fs::create_dir(top.join("other")).unwrap();
    fs::write(top.join("other/cgroup.type"), "threaded").unwrap();
    assert_eq!(fs::read_to_string(top.join("cgroup.type")).unwrap(), "domain threaded\n");
    bundle.set("/linux/cgroupsPath", format!("/{}/c1", bundle.id)).set("/linux/resources/memory/limit", 50 << 20);
    bundle.create().refused(&["c1: lies below a threaded cgroup, where there is no memory controller"]);
    assert!(!top.join("c1").exists());
    bundle.unset("/linux/resources/memory").set("/linux/resources/pids/limit", 20);
    bundle.run_detached().ok();
    let own = |file: &str| fs::read_to_string(top.join("c1").join(file)).unwrap();
    assert_eq!((&*own("cgroup.type"), &*own("pids.max")), ("threaded\n", "20\n"));
    let stats = bundle.call(&["events", "--stats", &bundle.id]);
    let stats: serde_json::Value = serde_json::from_str(stats.ok()).unwrap();
    assert_eq!(stats["data"]["memory"].get("usage"), None, "memory is counted for the whole domain: {stats}");
    assert_eq!(stats["data"]["pids"], json!({"current": 1, "limit": 20}));
    bundle.kill("9").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    fs::remove_dir(top.join("other")).unwrap();
    crate::cgroups::without_parents(&bundle);
}

// the first cgroup with a limit that only whole processes can have is told
#[test]
fn a_threaded_cgroup_above_is_told_with_what_it_cannot_give() {
    layout!(V2);
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    let top = std::path::Path::new(TREE).join(&bundle.id);
    for (dir, kind) in [("", ""), ("t", "threaded"), ("t/u", "threaded")] {
        fs::create_dir(top.join(dir)).unwrap();
        if !kind.is_empty() {
            fs::write(top.join(dir).join("cgroup.type"), kind).unwrap();
        }
    }
    bundle.set("/linux/cgroupsPath", format!("/{}/t/u/c1", bundle.id));
    let (major, minor) = crate::cgroups::disk();
    let throttle = json!([{"major": major, "minor": minor, "rate": 1000}]);
    for (field, value, controller) in [
        ("memory", json!({"limit": 50 << 20}), "memory"),
        ("unified", json!({"memory.high": "max"}), "memory"),
        ("blockIO", json!({"throttleReadBpsDevice": throttle}), "io"),
        ("hugepageLimits", json!([{"pageSize": "2MB", "limit": 2 << 20}]), "hugetlb"),
    ] {
        bundle.set(&format!("/linux/resources/{field}"), value);
        let words = format!("c1: lies below a threaded cgroup, where there is no {controller} controller");
        bundle.create().refused(&[&words, "set linux.cgroupsPath to an absolute path elsewhere"]);
        assert!(!top.join("t/u/c1").exists(), "what was made is taken away");
        bundle.unset(&format!("/linux/resources/{field}"));
    }
    // those of threads are no hindrance
    bundle.set("/linux/resources/cpu", json!({"shares": 512, "cpus": "0"})).set("/linux/resources/pids/limit", 20);
    bundle.create().ok();
    let own = |file: &str| fs::read_to_string(top.join("t/u/c1").join(file)).unwrap().trim().to_string();
    assert_eq!(["cgroup.type", "cpu.weight", "cpuset.cpus", "pids.max"].map(own), ["threaded", "59", "0", "20"]);
    bundle.start().ok();
    bundle.pause().ok();
    bundle.resume().ok();
    assert_eq!(bundle.call(&["exec", &bundle.id, "echo", "in"]).ok(), "in\n");
    bundle.call(&["update", "--cpu-share", "1024", &bundle.id]).ok();
    assert_eq!(own("cpu.weight"), "100");
    bundle
        .call(&["update", "--memory", "50m", &bundle.id])
        .refused(&["is threaded, and the memory controller is not for such (EOPNOTSUPP)"]);
    bundle.delete_force().ok();
    crate::cgroups::without_parents(&bundle);
}
