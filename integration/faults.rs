//! Killed anywhere: SIGKILL at every system call of `create`, `start`, `exec`, `pause`, `resume`, `update`, `kill` and
//! `delete`, one call after another, of rrun itself and of its child until the program runs. After each, nothing may run
//! on, the container must answer, and `delete --force` must take everything away. A lane of its own: `make faults`.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use self::lane::{Lane, Verb};
use crate::bundle::Bundle;
use crate::hooks::KINDS;
use crate::mapped::{POD, closed_directory, in_pod_of, infra, mapped};
use crate::need;
use crate::net_devices::Network;
use crate::runtime::few_rounds;
use crate::tracer::Who;

mod aftermath;
mod lane;
mod setting;
mod the_lane_itself;

#[test]
#[ignore = "a lane of its own: make faults"]
fn create_killed_anywhere() {
    everywhere(Verb::Create, &[Who::Parent, Who::Child]);
}

/// The parent is in the pod's namespaces for a moment.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_in_a_pod_killed_anywhere() {
    let infra = Bundle::sleeping();
    infra.run_detached().ok();
    let mut lane = Lane::of(Bundle::sleeping());
    lane.bundle.set("/process/terminal", true);
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let path = format!("/proc/{}/ns/{file}", infra.pid());
        lane.bundle.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}));
    }
    if need::namespace("time") {
        lane.bundle.set("/linux/namespaces/-", json!({"type": "time"}));
        lane.bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": 7}}));
    }
    lane.is_clean(Verb::Create, &[Who::Parent]);
}

/// A child is also what is about to become a hook.
#[test]
#[ignore = "a lane of its own: make faults"]
fn hooks_killed_anywhere() {
    let mut lane = Lane::of(Bundle::sleeping());
    lane.bundle.set("/process/terminal", true);
    for kind in KINDS {
        lane.bundle.set(&format!("/hooks/{kind}/-"), json!({"path": "/bin/true", "timeout": 20}));
    }
    for verb in [Verb::Create, Verb::Start, Verb::Delete] {
        lane.is_clean(verb, &[Who::Parent, Who::Child]);
    }
}

/// With a terminal, a bind mount that rrun must open, and one whose ids are mapped by a process made for that.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_in_a_user_namespace_killed_anywhere() {
    let mut lane = Lane::of(mapped(Bundle::sleeping()));
    lane.bundle.set("/process/terminal", true);
    let closed = closed_directory(&lane.bundle, "closed");
    lane.bundle.bind(&closed.join("file"), "/f", &["ro"]).bind(&closed, "/mapped", &["idmap"]);
    if need::mount_option("idmap") {
        let map = json!([{"containerID": 0, "hostID": 7, "size": 9}]);
        lane.bundle.set("/mounts/5/uidMappings", map.clone()).set("/mounts/5/gidMappings", map);
    } else {
        lane.bundle.unset("/mounts/5");
    }
    lane.is_clean(Verb::Create, &[Who::Parent, Who::Child]);
}

/// Lent to the container until it is up, and given back by `delete` if it never is.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_with_network_devices_killed_anywhere() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/terminal", true).set("/linux/netDevices", json!({"a": {"name": "net%d"}}));
    let mut lane = Lane::of(bundle);
    lane.network = Some(Network::with_pair());
    // nsenter(1) and what every create does are among the calls
    lane.step = 3;
    lane.is_clean(Verb::Create, &[Who::Parent, Who::Child]);
}

/// Two processes on the way to one, which the tracer cannot tell apart.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_in_a_pods_user_namespace_killed_anywhere() {
    let infra = infra();
    let lane = Lane::of(in_pod_of(&infra, Bundle::sleeping(), &POD));
    lane.is_clean(Verb::Create, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn start_killed_anywhere() {
    everywhere(Verb::Start, &[Who::Parent, Who::Child]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn exec_killed_anywhere() {
    everywhere(Verb::Exec, &[Who::Parent, Who::Child]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn pause_killed_anywhere() {
    everywhere(Verb::Pause, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn resume_killed_anywhere() {
    everywhere(Verb::Resume, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn update_killed_anywhere() {
    everywhere(Verb::Update, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn kill_killed_anywhere() {
    everywhere(Verb::Kill, &[Who::Parent]);
}

/// Where the end of init ends nobody else.
#[test]
#[ignore = "a lane of its own: make faults"]
fn kill_without_a_pid_namespace_killed_anywhere() {
    let mut bundle = Bundle::sh("sleep 1000 & exec sleep 1000");
    bundle.set("/process/terminal", true).without_namespace("pid");
    Lane::of(bundle).is_clean(Verb::Kill, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn delete_killed_anywhere() {
    everywhere(Verb::Delete, &[Who::Parent]);
}

/// systemd makes the cgroup, and half a unit is left. In a guest: `make vm-faults`.
#[test]
#[ignore = "a lane of its own: make vm-faults"]
fn by_systemd_killed_anywhere() {
    systemd!();
    killed_anywhere_in_a_unit(Bundle::sleeping());
}

#[test]
#[ignore = "a lane of its own: make vm-faults"]
fn by_systemd_and_below_its_unit_killed_anywhere() {
    systemd!();
    let mut bundle = Bundle::sleeping();
    bundle.set("/annotations/run.oci.systemd.subgroup", "payload");
    killed_anywhere_in_a_unit(bundle);
}

fn killed_anywhere_in_a_unit(mut bundle: Bundle) {
    let path = format!("system.slice::{}", bundle.id);
    bundle.set("/linux/cgroupsPath", path).set("/linux/resources/memory/limit", 50 << 20);
    bundle.set("/process/terminal", true);
    let mut lane = Lane::of(bundle);
    lane.by_systemd = true;
    // a guest is slow
    lane.step = if few_rounds() { 29 } else { 1 };
    (lane.answer_within, lane.patience) = (Duration::from_secs(5), Duration::from_secs(5));
    for verb in [Verb::Create, Verb::Delete] {
        lane.is_clean(verb, &[Who::Parent]);
        let unit = format!("{}.scope", lane.bundle.id);
        let loaded = Command::new("systemctl").args(["show", "--value", "-p", "LoadState", &unit]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&loaded.stdout).trim(), "not-found", "{unit}");
    }
}

fn everywhere(verb: Verb, victims: &[Who]) {
    Lane::new().is_clean(verb, victims);
}
