//! config-linux.md, "Control groups" and "Unified".

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use super::refused_beside;
use crate::bundle::{Bundle, by_systemd};
use crate::cgroups::{disk, memberships};
use crate::layout::{is_v2, set_frozen};

/// Where the container is, in one hierarchy that every host has.
fn place(bundle: &Bundle) -> String {
    let wanted = if is_v2() { "" } else { "pids" };
    memberships(bundle.pid()).into_iter().find(|(controllers, _)| controllers == wanted).unwrap().1
}

/// A check is the runtime's own choice; one that it does not make must not end in a container that does nothing.
#[test]
fn a_frozen_cgroup_is_refused_or_does_not_matter() {
    let bundle = Bundle::sleeping();
    let cgroup = bundle.cgroup("freezer");
    fs::create_dir(&cgroup).unwrap();
    set_frozen(&cgroup, true);
    let output = bundle.create();
    let runs = output.code == 0 && bundle.start().code == 0 && bundle.status() == "running";
    set_frozen(&cgroup, false);
    let _ = bundle.delete_force();
    let _ = fs::remove_dir(&cgroup);
    assert!(output.code != 0 || runs, "{output}");
}

#[test]
fn an_absolute_path_starts_at_the_mount_point() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("/{}", bundle.id));
    bundle.create().ok();
    assert_eq!(place(&bundle), format!("/{}", bundle.id));
    assert!(bundle.cgroup("pids").is_dir());
}

#[test]
fn a_relative_path_is_taken() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", bundle.id.clone());
    bundle.create().ok();
    assert!(place(&bundle).ends_with(&bundle.id), "{}", place(&bundle));
}

#[test]
fn the_same_path_is_the_same_place() {
    for path in ["/", ""] {
        let places = [1, 2].map(|_| {
            let mut bundle = Bundle::sleeping();
            bundle.set("/linux/cgroupsPath", format!("{path}{}", bundle.id));
            bundle.create().ok();
            place(&bundle).replace(&bundle.id, "ID")
        });
        assert_eq!(places[0], places[1]);
    }
}

/// What is invalid is the runtime's to say: either an error, or a place that can be foreseen.
#[test]
fn a_path_with_an_end_in_it_is_refused_or_ends_there() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("/{}\u{0}/more", bundle.id));
    if bundle.create().code == 0 {
        assert_eq!(place(&bundle), format!("/{}", bundle.id));
    }
}

// --- who owns it ---

/// The container's cgroup, with a cgroup namespace and a view by `mount_options`, of a user of the container's.
fn owned(namespace: bool, view: Option<&str>) -> Bundle {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    if namespace {
        bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    }
    if let Some(option) = view {
        bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &[option]);
    }
    bundle.create().ok();
    bundle
}

fn owner(path: PathBuf) -> u32 {
    fs::metadata(path).unwrap().uid()
}

#[test]
fn cgroups_of_v1_stay_the_hosts() {
    layout!(V1, Hybrid);
    let bundle = owned(true, Some("rw"));
    for controller in ["pids", "memory", "freezer"] {
        assert_eq!(owner(bundle.cgroup(controller)), 0, "{controller}");
        assert_eq!(owner(bundle.cgroup(controller).join("cgroup.procs")), 0, "{controller}");
    }
}

#[test]
fn without_a_cgroup_namespace_it_stays_the_hosts() {
    layout!(V2, Hybrid);
    let bundle = owned(false, Some("rw"));
    assert_eq!(owner(bundle.cgroup("unified")), 0);
}

#[test]
fn without_a_view_or_with_a_read_only_one_it_stays_the_hosts() {
    layout!(V2, Hybrid);
    for view in [None, Some("ro")] {
        let bundle = owned(true, view);
        assert_eq!(owner(bundle.cgroup("unified")), 0, "{view:?}");
    }
}

#[test]
fn a_writable_view_is_that_of_the_user_inside() {
    layout!(V2);
    let bundle = owned(true, Some("rw"));
    assert_eq!(owner(bundle.cgroup("")), 1000);
}

/// The files of /sys/kernel/cgroup/delegate, of which a cgroup need not have all.
#[test]
fn only_what_is_delegated_is_that_of_the_user_inside() {
    layout!(V2);
    let bundle = owned(true, Some("rw"));
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap();
    let listed: Vec<_> = listed.lines().collect();
    let (mut given, mut kept) = (0, 0);
    for entry in fs::read_dir(bundle.cgroup("")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_listed = listed.contains(&name.as_str());
        assert_eq!(owner(entry.path()), if is_listed { 1000 } else { 0 }, "{name}");
        *(if is_listed { &mut given } else { &mut kept }) += 1;
    }
    assert!(given >= 3 && kept > 10, "{given} and {kept}");
}

// --- controllers ---

fn limits(field: &str, value: Value) -> impl FnOnce(&mut Bundle) + use<> {
    let pointer = format!("/linux/resources/{field}");
    move |bundle| {
        bundle.set(&pointer, value);
    }
}

#[test]
fn a_rule_of_devices_says_whether_it_allows() {
    refused_beside(
        limits("devices", json!([{"allow": true, "type": "c", "access": "rwm"}])),
        limits("devices", json!([{"type": "c", "access": "rwm"}])),
    );
}

/// Of a device that has no driver: where the rules allow it, the kernel looks for one.
#[test]
fn rules_of_devices_hold_in_their_order() {
    let all = json!({"allow": false, "access": "rwm"});
    let one = |allow: bool| json!({"allow": allow, "type": "c", "major": 1, "minor": 99, "access": "rwm"});
    let (allowed, denied) = ("No such device or address", "Operation not permitted");
    for (rules, want) in [
        (vec![all.clone(), one(true)], allowed),
        (vec![one(true), all.clone()], denied),
        (vec![all.clone(), one(true), one(false)], denied),
        (vec![all.clone(), one(false), one(true)], allowed),
    ] {
        let mut bundle = Bundle::new();
        let device = bundle.rootfs("tmp/device");
        mknod(&device, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 99)).unwrap();
        bundle.args(&["cat", "/tmp/device"]).set("/linux/resources/devices", json!(rules));
        let output = bundle.run();
        assert!(output.stderr.contains(want), "{rules:?}: {output}");
    }
}

#[test]
fn a_burst_is_no_larger_than_the_quota() {
    refused_beside(
        limits("cpu", json!({"quota": 50_000, "period": 100_000, "burst": 20_000})),
        limits("cpu", json!({"quota": 50_000, "period": 100_000, "burst": 60_000})),
    );
}

fn throttle(kind: &str, entry: Value) -> impl FnOnce(&mut Bundle) {
    limits(&format!("blockIO/{kind}"), json!([entry]))
}

const THROTTLES: [&str; 4] =
    ["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"];

#[track_caller]
fn throttle_needs(field: &str) {
    let (major, minor) = disk();
    for kind in THROTTLES {
        let good = json!({"major": major, "minor": minor, "rate": 1000});
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(field);
        refused_beside(throttle(kind, good), throttle(kind, bad));
    }
}

#[test]
fn a_throttle_needs_the_numbers_of_a_disk() {
    throttle_needs("major");
}

#[test]
fn a_throttle_needs_a_rate() {
    throttle_needs("rate");
}

refused! {
    fn a_weight_of_a_disk_needs_its_numbers: |bundle|
        bundle.set("/linux/resources/blockIO/weightDevice", json!([{"weight": 100}]));
    fn a_weight_of_a_disk_is_one_of_two: |bundle|
        { let (major, minor) = disk();
          bundle.set("/linux/resources/blockIO/weightDevice", json!([{"major": major, "minor": minor}])) };
    fn a_limit_of_huge_pages_needs_their_size: |bundle|
        bundle.set("/linux/resources/hugepageLimits", json!([{"limit": 1 << 21}]));
    fn a_limit_of_huge_pages_needs_a_number: |bundle|
        bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB"}]));
    fn a_priority_of_network_needs_a_name: |bundle|
        bundle.set("/linux/resources/network/priorities", json!([{"priority": 5}]));
    fn a_priority_of_network_needs_a_number: |bundle|
        bundle.set("/linux/resources/network/priorities", json!([{"name": "lo"}]));
    fn a_limit_of_rdma_is_one_of_two: |bundle| bundle.set("/linux/resources/rdma", json!({"mlx5_1": {}}));
    fn a_key_of_a_controller_that_is_not_there: |bundle|
        bundle.set("/linux/resources/unified", json!({"nosuchcontroller.max": "1"}));
}

#[test]
fn no_process_is_a_limit_of_processes() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/pids/limit", 0);
    bundle.create().ok();
    let file = bundle.cgroup("pids").join("pids.max");
    let limit = fs::read_to_string(file).unwrap();
    // systemd has no such limit, and sets again the one that comes next: init alone, which may not fork
    assert!(limit.trim() == "0" || by_systemd() && limit.trim() == "1", "{limit}");
}

#[test]
fn a_limit_below_what_is_in_use_is_refused() {
    layout!(V2);
    let mut bundle = Bundle::sh("head -c 40000000 /dev/zero > /dev/held; sleep 1000");
    bundle.set("/linux/resources/memory", json!({"limit": 100 << 20}));
    bundle.run_detached().ok();
    let in_use =
        || fs::read_to_string(bundle.cgroup("").join("memory.current")).unwrap().trim().parse::<u64>().unwrap();
    let fills = || (in_use() > 40_000_000).then_some(());
    assert!(crate::runtime::eventually_within(std::time::Duration::from_secs(9), fills).is_some(), "{}", in_use());
    let resources = bundle.host_file("r.json", r#"{"memory": {"limit": 20000000, "checkBeforeUpdate": true}}"#);
    let output = bundle.call(&["update", "-r", resources.to_str().unwrap(), &bundle.id]);
    assert_ne!(output.code, 0, "{output}");
    assert_eq!(bundle.status(), "running");
}

#[test]
fn unified_turns_on_the_controllers_that_it_needs() {
    layout!(V2);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/unified", json!({"memory.high": "50000000", "pids.max": "77"}));
    bundle.create().ok();
    let read = |file: &str| fs::read_to_string(bundle.cgroup("").join(file)).unwrap();
    assert!(read("cgroup.controllers").contains("memory") && read("cgroup.controllers").contains("pids"));
    assert_eq!(read("pids.max").trim(), "77");
}

#[test]
fn unified_writes_what_it_does_not_know() {
    layout!(V2);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/unified", json!({"memory.oom.group": "1", "pids.max": "66"}));
    bundle.create().ok();
    assert_eq!(fs::read_to_string(bundle.cgroup("").join("memory.oom.group")).unwrap().trim(), "1");
}

#[test]
fn what_v2_cannot_say_is_refused() {
    layout!(V2);
    refused_beside(limits("pids/limit", json!(100)), limits("network/classID", json!(4097)));
}
