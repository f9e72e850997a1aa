//! config-linux.md, but for cgroups and seccomp.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::{Value, json};

use super::{refused_beside, set};
use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::mounted::{Mounted, mount_at};

// --- file systems ---

/// What a container of the config has mounted that the runtime writes for who has none.
fn mounts_of_spec() -> Vec<Mounted> {
    let mut bundle = Bundle::new();
    crate::runtime::run(&mut bundle.command_on_config_as_it_is(&["spec"])).ok();
    let written = fs::read(bundle.dir.join("config.json")).unwrap();
    let cgroups_path = bundle.config["linux"]["cgroupsPath"].clone();
    bundle.config = serde_json::from_slice(&written).unwrap();
    bundle
        .set("/process/terminal", false)
        .set("/linux/cgroupsPath", cgroups_path)
        .set("/process/env", json!(["PATH=/bin"]));
    bundle.mounts()
}

macro_rules! file_systems {
    ($(fn $name:ident: $point:literal, $kind:literal;)+) => {$(
        #[test]
        fn $name() {
            assert_eq!(mount_at(&mounts_of_spec(), $point).fstype, $kind);
        }
    )+};
}

file_systems! {
    fn a_container_has_a_proc: "/proc", "proc";
    fn a_container_has_a_sys: "/sys", "sysfs";
    fn a_container_has_a_dev_pts: "/dev/pts", "devpts";
    fn a_container_has_a_dev_shm: "/dev/shm", "tmpfs";
}

// --- namespaces ---

const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("mount", "mnt"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn namespace_of(process: &str, file: &str) -> String {
    fs::read_link(format!("/proc/{process}/ns/{file}")).unwrap().to_string_lossy().into_owned()
}

#[track_caller]
fn can_be_new(kind: &str, file: &str) {
    let mut bundle = Bundle::new().with_namespace(json!({"type": kind}));
    bundle.args(&["readlink", &format!("/proc/self/ns/{file}")]);
    assert_ne!(bundle.run().ok().trim(), namespace_of("self", file));
}

trait WithNamespace {
    fn with_namespace(self, namespace: Value) -> Self;
}

impl WithNamespace for Bundle {
    fn with_namespace(mut self, namespace: Value) -> Self {
        self.without_namespace(namespace["type"].as_str().unwrap());
        self.set("/linux/namespaces/-", namespace);
        self
    }
}

macro_rules! namespaces {
    ($(fn $name:ident: $kind:literal, $file:literal;)+) => {$(
        #[test]
        fn $name() {
            can_be_new($kind, $file);
        }
    )+};
}

namespaces! {
    fn a_pid_namespace: "pid", "pid";
    fn a_network_namespace: "network", "net";
    fn a_mount_namespace: "mount", "mnt";
    fn an_ipc_namespace: "ipc", "ipc";
    fn a_uts_namespace: "uts", "uts";
    fn a_cgroup_namespace: "cgroup", "cgroup";
    fn a_time_namespace: "time", "time";
}

#[test]
fn a_user_namespace() {
    let mut bundle = mapped(Bundle::new());
    bundle.args(&["sh", "-c", "readlink /proc/self/ns/user; id -u"]);
    let output = bundle.run();
    let lines: Vec<_> = output.ok().lines().collect();
    assert_ne!(lines[0], namespace_of("self", "user"));
    assert_eq!(lines[1], "0");
}

/// A running container that others join.
fn infra() -> Bundle {
    let bundle = Bundle::sleeping().with_namespace(json!({"type": "cgroup"}));
    bundle.run_detached().ok();
    bundle
}

#[test]
fn a_namespace_is_joined_by_its_path() {
    let infra = infra();
    let pid = infra.pid();
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let path = format!("/proc/{pid}/ns/{file}");
        let mut bundle = Bundle::new().with_namespace(json!({"type": kind, "path": path}));
        bundle.unset("/hostname").args(&["readlink", &format!("/proc/self/ns/{file}")]);
        if kind != "uts" {
            bundle.set("/hostname", "inside");
        }
        assert_eq!(bundle.run().ok().trim(), namespace_of(&pid.to_string(), file), "{kind}");
    }
}

fn network(path: String) -> impl FnOnce(&mut Bundle) {
    move |bundle| {
        bundle.without_namespace("network");
        bundle.set("/linux/namespaces/-", json!({"type": "network", "path": path}));
    }
}

#[test]
fn a_path_of_a_namespace_of_another_type_is_refused() {
    let infra = infra();
    let path = |file: &str| format!("/proc/{}/ns/{file}", infra.pid());
    refused_beside(network(path("net")), network(path("ipc")));
}

#[test]
fn a_path_of_a_namespace_is_absolute() {
    let infra = infra();
    let pid = infra.pid();
    // from wherever it starts, it leads there
    let relative = format!("{}proc/{pid}/ns/net", "../".repeat(20));
    refused_beside(network(format!("/proc/{pid}/ns/net")), network(relative));
}

#[test]
fn a_namespace_without_a_path_is_new() {
    for (kind, file) in KINDS.into_iter().take(5) {
        can_be_new(kind, file);
    }
}

#[test]
fn a_namespace_that_is_not_listed_is_the_runtimes() {
    for (kind, file) in KINDS.into_iter().filter(|(kind, _)| *kind != "mount") {
        let mut bundle = Bundle::new();
        bundle.without_namespace(kind);
        if kind == "uts" {
            bundle.unset("/hostname");
        }
        if kind == "network" {
            bundle.without_mount("/sys");
        }
        bundle.args(&["readlink", &format!("/proc/self/ns/{file}")]);
        assert_eq!(bundle.run().ok().trim(), namespace_of("self", file), "{kind}");
    }
}

#[test]
fn a_namespace_twice_is_refused() {
    for kind in ["pid", "network", "ipc", "uts", "mount"] {
        let listed = set("/linux/namespaces/-", json!({"type": kind}));
        refused_beside(|_| (), listed);
    }
}

#[test]
fn a_namespace_needs_a_type() {
    let listed = |entry: Value| set("/linux/namespaces/5", entry);
    refused_beside(
        |bundle| {
            bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
        },
        listed(json!({"path": ""})),
    );
}

// --- ids ---

#[test]
fn a_mapping_changes_no_owner_of_a_file() {
    let mut bundle = mapped(Bundle::new());
    let file = bundle.image_file("etc/of-another", "");
    std::os::unix::fs::chown(&file, Some(4321), Some(4321)).unwrap();
    bundle.args(&["true"]);
    let of = |path: &std::path::Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().gid());
    let before = (of(&file), of(&bundle.rootfs("bin/busybox")));
    bundle.run().ok();
    assert_eq!((of(&file), of(&bundle.rootfs("bin/busybox"))), before);
}

#[track_caller]
fn mapping_needs(field: &str) {
    refused_beside(
        |bundle| *bundle = mapped(Bundle::sleeping()),
        |bundle| {
            bundle.unset(&format!("/linux/uidMappings/0/{field}"));
        },
    );
}

#[test]
fn a_mapping_needs_its_numbers() {
    ["containerID", "hostID", "size"].into_iter().for_each(mapping_needs);
}

// --- devices ---

#[test]
fn listed_devices_are_there() {
    let mut bundle = Bundle::new();
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8},
            {"path": "/data/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o600, "uid": 0, "gid": 0},
            {"path": "/dev/pipe", "type": "p", "fileMode": 0o600, "uid": 0, "gid": 0},
        ]),
    );
    bundle.args(&["stat", "-c", "%F %t:%T %a %u:%g", "/dev/mine", "/data/block", "/dev/pipe"]);
    let told = bundle.run();
    let lines: Vec<_> = told.ok().lines().collect();
    assert_eq!(lines[0], "character special file 1:3 640 7:8");
    assert_eq!(lines[1], "block special file 7:c8 600 0:0");
    assert!(lines[2].starts_with("fifo") && lines[2].ends_with("600 0:0"), "{}", lines[2]);
}

fn device(value: Value) -> impl FnOnce(&mut Bundle) {
    move |bundle| {
        bundle.set("/linux/devices", json!([value]));
    }
}

fn null_at(path: &str) -> Value {
    json!({"path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 0, "gid": 0})
}

#[test]
fn another_file_in_the_place_of_a_device_is_an_error() {
    refused_beside(device(null_at("/data/null")), |bundle| {
        fs::remove_file(bundle.rootfs("data/null")).ok();
        bundle.image_file("data/null", "text");
    });
}

#[test]
fn a_device_of_another_number_in_the_place_of_a_device_is_an_error() {
    refused_beside(device(null_at("/data/null")), |bundle| {
        fs::remove_file(bundle.rootfs("data/null")).ok();
        fs::create_dir_all(bundle.rootfs("data")).unwrap();
        mknod(&bundle.rootfs("data/null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).unwrap();
    });
}

#[track_caller]
fn device_needs(field: &str) {
    let mut bad = null_at("/dev/mine");
    bad.as_object_mut().unwrap().remove(field);
    refused_beside(device(null_at("/dev/mine")), device(bad));
}

#[test]
fn a_device_needs_a_type() {
    device_needs("type");
}

#[test]
fn a_device_needs_a_path() {
    device_needs("path");
}

#[test]
fn a_device_needs_its_numbers() {
    device_needs("major");
    device_needs("minor");
}

macro_rules! default_devices {
    ($(fn $name:ident: $path:literal, $numbers:literal;)+) => {$(
        #[test]
        fn $name() {
            let mut bundle = Bundle::new();
            bundle.args(&["stat", "-c", "%F %t:%T", $path]);
            assert_eq!(bundle.run().ok().trim_end(), concat!("character special file ", $numbers));
        }
    )+};
}

default_devices! {
    fn there_is_dev_null: "/dev/null", "1:3";
    fn there_is_dev_zero: "/dev/zero", "1:5";
    fn there_is_dev_full: "/dev/full", "1:7";
    fn there_is_dev_random: "/dev/random", "1:8";
    fn there_is_dev_urandom: "/dev/urandom", "1:9";
    fn there_is_dev_tty: "/dev/tty", "5:0";
}

#[test]
fn dev_ptmx_is_that_of_the_containers_devpts() {
    let look = r#"test "$(stat -L -c %d:%i /dev/ptmx)" = "$(stat -c %d:%i /dev/pts/ptmx)" && echo same"#;
    let bundle = Bundle::sh(look);
    assert_eq!(bundle.run().ok(), "same\n");
}

// --- paths, personality, memory policy ---

bad_values! {
    fn a_masked_path_is_absolute: "/linux/maskedPaths", ["/etc/passwd"] => ["etc/passwd"];
    fn a_read_only_path_is_absolute: "/linux/readonlyPaths", ["/etc"] => ["etc"];
    fn a_personality_has_a_domain: "/linux/personality", {"domain": "LINUX"} => {"flags": []};
    fn a_memory_policy_has_a_mode: "/linux/memoryPolicy", {"mode": "MPOL_DEFAULT"} => {"nodes": "0"};
}

refused! {
    fn intel_rdt_needs_a_resctrl: |bundle| bundle.set("/linux/intelRdt", json!({"closID": "guaranteed"}));
}
