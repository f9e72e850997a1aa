//! Cgroups of an ordinary user: one that is his is used, and nothing that needs one is left out in silence.

use std::fs;

use serde_json::{Value, json};

use super::{Rootless, USER};
use crate::bundle::Bundle;
use crate::layout::is_v2;
use crate::leftovers::hierarchies;
use crate::mapped::give;
use crate::runtime::{self, DEADLINE, eventually_within};

/// Nothing that was asked for is left out.
#[test]
fn limits_and_paths_need_a_cgroup() {
    need!(rrun); // the words
    let mut user = Rootless::sh("true");
    user.bundle.set("/linux/resources", json!({"pids": {"limit": 7}}));
    user.run().refused(&["linux.resources.pids.limit: needs a cgroup of this user's own; let systemd delegate one"]);
    user.bundle.leaves_nothing();
    let path = format!("/{}", user.bundle.id);
    user.bundle.unset("/linux/resources").set("/linux/cgroupsPath", path);
    user.run().refused(&["linux.cgroupsPath: needs a cgroup of this user's own"]);
    user.bundle.leaves_nothing();
}

#[test]
fn its_processes_are_known_without_a_cgroup() {
    need!(rrun); // runc looks into the cgroup alone
    let user = Rootless::sh("sleep 1000 & sleep 1000; true");
    user.run_detached().ok();
    let pids = || {
        let json = user.call(&["ps", "--format", "json", &user.bundle.id]).ok().to_string();
        let pids = serde_json::from_str::<Vec<i32>>(&json).unwrap();
        (pids.len() == 3).then_some(pids)
    };
    let pids = eventually_within(DEADLINE, pids).expect("the shell and both of its children");
    assert!(pids.contains(&user.pid()), "{pids:?}");
    let stats: Value = serde_json::from_str(user.call(&["events", "--stats", &user.bundle.id]).ok()).unwrap();
    assert_eq!(stats["data"]["pids"], json!({}), "whoever else is in rrun's own cgroup is not counted: {stats}");
}

#[test]
fn what_nothing_can_end_is_warned_of() {
    need!(rrun); // the words
    let mut user = Rootless::sh("true");
    let root = user.bundle.state_root.to_str().unwrap().to_string();
    let log = user.bundle.dir.join("log");
    let run = |user: &Rootless| {
        let global = ["--root", &root, "--log", log.to_str().unwrap()];
        runtime::run(&mut user.after("exec \"$@\"", &global, &["run", &user.bundle.id])).ok();
        fs::read_to_string(&log).unwrap_or_default()
    };
    let told = run(&user);
    assert!(told.contains("stays in the cgroup of rrun") && !told.contains("lives on"), "{told}");
    user.bundle.without_namespace("pid").without_mount("/proc");
    let told = run(&user);
    assert!(told.contains("only init is ended with the container"), "{told}");
}

/// Not silently: it would be stored, and nothing would hold to it.
#[test]
fn limits_cannot_be_given_later_either() {
    need!(rrun); // the words
    let user = Rootless::new(Bundle::sleeping());
    user.run_detached().ok();
    let id = &user.bundle.id;
    user.call(&["update", "--pids-limit", "7", id])
        .refused(&["linux.resources.pids.limit: the container has no cgroup of its own for it"]);
    user.call(&["update", id]).ok();
}

/// Podman always denies all devices: a user has none to lose.
#[test]
fn rules_of_devices_are_no_limits() {
    let mut user = Rootless::sh("cat /proc/self/cgroup");
    user.bundle.set("/linux/resources", json!({"devices": [{"allow": false, "access": "rwm"}]}));
    let output = user.run();
    assert_eq!(output.ok(), fs::read_to_string("/proc/self/cgroup").unwrap(), "{output}");
}

#[test]
fn a_cgroup_that_is_his_is_used() {
    let mut user = Rootless::sh("cat /proc/self/cgroup; sleep 1000");
    user.bundle.set("/linux/resources", json!({"pids": {"limit": 77}, "devices": [{"allow": false, "access": "rwm"}]}));
    let id = user.bundle.id.clone();
    let mut join = String::new();
    for hierarchy in hierarchies() {
        let cgroup = hierarchy.join(&id);
        if cgroup.exists() {
            continue;
        }
        fs::create_dir(&cgroup).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(hierarchy.join(file)) {
                let _ = fs::write(cgroup.join(file), value.trim());
            }
        }
        give(&cgroup, USER);
        // on v2 the container's is made beside rrun's own, and a cgroup that hands controllers down holds nobody
        let own = if is_v2() { cgroup.join("own") } else { cgroup.clone() };
        if own != cgroup {
            fs::write(hierarchy.join("cgroup.subtree_control"), "+pids").unwrap();
            fs::create_dir(&own).unwrap();
            give(&own, USER);
            user.cgroups.push(own.clone());
        }
        join += &format!("echo $$ > {}/cgroup.procs && ", own.display());
        user.cgroups.push(cgroup);
    }
    if !user.cgroups.iter().any(|cgroup| cgroup.join("pids.max").exists()) {
        return crate::need::skip("a pids controller that can be given away");
    }
    let script = format!("{join} exec \"$@\"");
    let root = user.bundle.state_root.to_str().unwrap().to_string();
    let output = runtime::run(&mut user.after(&script, &["--root", &root], &["run", "-d", &id]));
    output.ok();
    let said = eventually_within(DEADLINE, || Some(output.later()).filter(|said| said.contains(id.as_str())));
    let own = format!("/{id}/{id}");
    let hierarchy = if is_v2() { "0::" } else { "pids" };
    assert!(
        said.as_ref().is_some_and(|said| said.lines().any(|line| line.contains(hierarchy) && line.ends_with(&own))),
        "{said:?}"
    );
    let limit = user.cgroups.iter().find_map(|cgroup| fs::read_to_string(cgroup.join(&id).join("pids.max")).ok());
    assert_eq!(limit.as_deref(), Some("77\n"));
    if crate::need::events() {
        let stats: Value = serde_json::from_str(user.call(&["events", "--stats", &id]).ok()).unwrap();
        assert_eq!(stats["data"]["pids"]["limit"], 77, "{stats}");
    }
    user.call(&["delete", "--force", &id]).ok();
    assert!(!user.cgroups.iter().any(|cgroup| cgroup.join(&id).exists()));
}
