//! Namespaces by path: those of another container, of a process, or of a file that pins one.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::bundle::Bundle;
use crate::need;
use crate::runtime::{DEADLINE, eventually_within};

/// Names in `linux.namespaces` and in /proc/PID/ns. A mount namespace is joined below: in another container's the
/// rootfs cannot be found.
const KINDS: [(&str, &str); 6] =
    [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup"), ("time", "time")];

fn file_of(kind: &str) -> &str {
    KINDS.iter().find(|(name, _)| *name == kind).map_or("mnt", |(_, file)| file)
}

fn known() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(kind, _)| *kind).filter(|kind| need::namespace(kind))
}

fn namespace_of(pid: i32, kind: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{}", file_of(kind))).unwrap().into_os_string().into_string().unwrap()
}

fn own(kind: &str) -> String {
    namespace_of(std::process::id() as i32, kind)
}

/// A running container with new namespaces of every kind: what an infra container is to a pod.
fn infra() -> Bundle {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    if need::namespace("time") {
        bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    }
    bundle.run_detached().ok();
    bundle
}

fn join(bundle: &mut Bundle, kind: &str, path: &str) {
    bundle.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}));
}

fn join_of(bundle: &mut Bundle, pid: i32, kinds: &[&str]) {
    for kind in kinds {
        join(bundle, kind, &format!("/proc/{pid}/ns/{}", file_of(kind)));
    }
}

/// A process of the host in new namespaces, by unshare(1).
struct Elsewhere(Child);

impl Elsewhere {
    fn new(options: &[&str], kind: &str) -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(options).args(["sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap();
        let elsewhere = Self(child);
        let moved = || (namespace_of(elsewhere.pid(), kind) != own(kind)).then_some(());
        eventually_within(DEADLINE, moved).expect("unshare(1) makes a namespace");
        elsewhere
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn each_kind_can_be_joined_alone() {
    let infra = infra();
    for kind in known() {
        let mut bundle = Bundle::new();
        join_of(&mut bundle, infra.pid(), &[kind]);
        if kind == "uts" {
            bundle.unset("/hostname");
        }
        bundle.args(&["readlink", &format!("/proc/self/ns/{}", file_of(kind))]);
        assert_eq!(bundle.run().ok().trim(), namespace_of(infra.pid(), kind), "{kind}");
    }
}

/// Which of the kinds a container has in common with `pid`, by a program that sleeps in it.
fn shared_with(bundle: &Bundle, pid: i32) -> Vec<&'static str> {
    known().filter(|kind| namespace_of(bundle.pid(), kind) == namespace_of(pid, kind)).collect()
}

#[test]
fn a_container_joins_its_pod_and_has_the_rest_to_itself() {
    let infra = infra();
    for kinds in [
        &["network", "ipc", "uts"][..],    // podman, Kubernetes
        &["pid", "network", "ipc", "uts"], // shareProcessNamespace
        &["pid", "network"],               // docker --pid container:X --network container:X
        &["pid"],
    ] {
        let mut bundle = Bundle::sleeping();
        bundle.unset("/hostname").set("/linux/namespaces/-", json!({"type": "cgroup"}));
        join_of(&mut bundle, infra.pid(), kinds);
        bundle.run_detached().ok();
        assert_eq!(shared_with(&bundle, infra.pid()), kinds.to_vec(), "{kinds:?}");
        let with_host = shared_with(&bundle, std::process::id() as i32);
        let expected: &[&str] = if need::namespace("time") { &["time"] } else { &[] };
        assert_eq!(with_host, expected, "{kinds:?}");
        bundle.kill("KILL").ok();
        bundle.wait_until("stopped");
        bundle.delete().ok();
        bundle.leaves_nothing();
        assert_eq!(infra.status(), "running", "{kinds:?}");
    }
}

// nothing else of the namespace may change: a pod's loopback is the infra container's business
#[test]
fn a_joined_network_namespace_is_left_as_it_is() {
    let elsewhere = Elsewhere::new(&["--net"], "network");
    let mut bundle = Bundle::sh("ip -o link show lo");
    join_of(&mut bundle, elsewhere.pid(), &["network"]);
    assert!(bundle.run().ok().contains("lo: <LOOPBACK> "), "{}", bundle.run());
}

#[test]
fn names_and_sysctls_are_set_in_joined_namespaces() {
    let elsewhere = Elsewhere::new(&["--net", "--uts", "--ipc"], "ipc");
    let mut bundle = Bundle::sh("hostname; cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax");
    join_of(&mut bundle, elsewhere.pid(), &["network", "uts", "ipc"]);
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "9999"}));
    assert_eq!(bundle.run().ok(), "inside\n1\n9999\n");
}

#[test]
fn a_mount_namespace_can_be_joined() {
    let elsewhere = Elsewhere::new(&["--mount", "--propagation", "private"], "mount");
    let mut bundle = Bundle::new();
    join_of(&mut bundle, elsewhere.pid(), &["mount"]);
    bundle.args(&["sh", "-c", "readlink /proc/self/ns/mnt; ls /; cat /proc/self/mountinfo | wc -l"]);
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let output = bundle.run();
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines[0], namespace_of(elsewhere.pid(), "mount"));
    assert!(lines.contains(&"bin") && !lines.contains(&"boot"), "{output}");
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before, "the host's mounts");
}

// as `ip netns` and CRI-O keep them
#[test]
fn a_namespace_can_be_pinned_by_a_file() {
    let elsewhere = Elsewhere::new(&["--net"], "network");
    let mut bundle = Bundle::new();
    let pinned = namespace_of(elsewhere.pid(), "network");
    let file = bundle.host_pin("pinned", &format!("/proc/{}/ns/net", elsewhere.pid()));
    drop(elsewhere);
    join(&mut bundle, "network", file.to_str().unwrap());
    assert_eq!(bundle.args(&["readlink", "/proc/self/ns/net"]).run().ok().trim(), pinned);
}

// docker --network host names the host's by a file
#[test]
fn a_path_of_the_runtimes_own_namespace_shares_it() {
    for kind in known() {
        let mut bundle = Bundle::new();
        join(&mut bundle, kind, &format!("/proc/self/ns/{}", file_of(kind)));
        if kind == "uts" {
            bundle.unset("/hostname");
        }
        bundle.args(&["readlink", &format!("/proc/self/ns/{}", file_of(kind))]);
        assert_eq!(bundle.run().ok().trim(), own(kind), "{kind}");
    }
}

/// Uptime and a monotonic clock as seen by a container whose clocks are off by so many seconds.
#[test]
fn clocks_of_a_time_namespace_are_off_by_what_is_asked() {
    need!(namespace("time"));
    let mut bundle = Bundle::sh("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime");
    bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": 7, "nanosecs": 5}, "boottime": {"secs": 1_000_000}}));
    let output = bundle.run();
    let words: Vec<_> = output.ok().split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "7", "5", "boottime", "1000000", "0"], "{output}");
    let host = fs::read_to_string("/proc/uptime").unwrap();
    let host: i64 = host.split('.').next().unwrap().parse().unwrap();
    assert!((0..=30).contains(&(host + 1_000_000 - words[6].parse::<i64>().unwrap())), "{output}");
}
