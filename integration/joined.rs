//! Namespaces by path: those of another container, of a process, or of a file that pins one.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::need;
use crate::refusals::Who::{self, Everybody, Rrun};
use crate::refusals::refuses;
use crate::refusals::refuses_unforeseen;
use crate::runtime::{DEADLINE, eventually_within, on_rrun};

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
    let output = bundle.run();
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines[0], namespace_of(elsewhere.pid(), "mount"));
    assert!(lines.contains(&"bin") && !lines.contains(&"boot"), "{output}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.id.as_str()), "the host's mounts: {mounts}");
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

// the end of init ends nobody else there
#[test]
fn every_process_of_a_container_in_a_joined_pid_namespace_is_ended() {
    let infra = infra();
    let mut bundle = Bundle::sh("sleep 1000 & setsid sleep 1000 & exec sleep 1000");
    join_of(&mut bundle, infra.pid(), &["pid"]);
    // runc 1.1 kills init alone, unless asked for all
    let kill = on_rrun().then_some("kill");
    for how in ["delete --force", "its own end"].into_iter().chain(kill) {
        bundle.run_detached().ok();
        let tasks = bundle.cgroup("pids").join("cgroup.procs");
        let count = || fs::read_to_string(&tasks).unwrap_or_default().lines().count();
        eventually_within(DEADLINE, || (count() == 3).then_some(())).expect("three processes");
        match how {
            "kill" => {
                bundle.kill("KILL").ok();
                eventually_within(DEADLINE, || (count() == 0).then_some(())).expect("nobody is left");
                bundle.delete().ok();
            }
            "delete --force" => drop(bundle.delete_force().ok()),
            _ => {
                bundle.kill("TERM").ok();
                bundle.wait_until("stopped");
                assert_eq!(count(), 2, "the end of one");
                bundle.delete().ok();
            }
        }
        bundle.leaves_nothing();
    }
    assert_eq!(infra.status(), "running");
}

#[test]
fn the_record_says_where_the_namespaces_are() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let record = fs::read_to_string(bundle.state_root.join(&bundle.id).join("state.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["init_process_pid"], bundle.pid());
    for (word, file) in [("NEWNET", "net"), ("NEWNS", "mnt"), ("NEWPID", "pid"), ("NEWUSER", "user")] {
        let path = record["namespace_paths"][word].as_str().unwrap();
        assert_eq!(path, format!("/proc/{}/ns/{file}", bundle.pid()));
    }
}

/// A path that cannot be joined as `kind`.
#[track_caller]
fn refused_path(who: Who, kind: &str, path: &str, words: &[&str]) {
    let (bundle, field) = joining(kind, path);
    refuses(who, &bundle, &[&[field.as_str(), path], words].concat());
}

/// And the field of the path.
fn joining(kind: &str, path: &str) -> (Bundle, String) {
    let mut bundle = Bundle::new();
    join(&mut bundle, kind, path);
    let last = bundle.config["linux"]["namespaces"].as_array().unwrap().len() - 1;
    bundle.write_config();
    (bundle, format!("linux.namespaces[{last}].path: "))
}

#[test]
fn a_path_of_another_kind_is_named_for_what_it_is() {
    let infra = infra();
    for (kind, other, words) in [
        ("ipc", "net", "is a network namespace, not ipc"),
        ("network", "mnt", "is a mount namespace, not network"),
        ("uts", "user", "is a user namespace, not uts"),
        ("pid", "uts", "is a uts namespace, not pid"),
    ] {
        refused_path(Everybody, kind, &format!("/proc/{}/ns/{other}", infra.pid()), &[words]);
    }
}

#[test]
fn what_is_no_namespace_is_refused() {
    let mut place = Bundle::new();
    let file = place.host_file("file", "x");
    let fifo = place.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [file.to_str().unwrap(), place.dir.to_str().unwrap(), "/dev/null", "/dev/tty0"] {
        refused_path(Everybody, "network", path, &["is no namespace; give a file such as /proc/PID/ns/net"]);
    }
    refused_path(Rrun, "network", fifo.to_str().unwrap(), &["is no namespace"]); // runc waits for a writer
    refused_path(Everybody, "ipc", "/proc/4194305/ns/ipc", &["no such file or directory"]);
    refused_path(Rrun, "ipc", "proc/1/ns/ipc", &["is not absolute"]);
    let gone = Elsewhere::new(&["--net"], "network").pid();
    refused_path(Everybody, "network", &format!("/proc/{gone}/ns/net"), &["no such file or directory"]);
    place.set("/linux/namespaces/-", json!({"type": "pid", "path": "/proc/1/ns/pid"})).write_config();
    refuses(Everybody, &place, &["linux.namespaces[5].type: pid is listed twice"]);
}

// a pid namespace outlives its first process as a file, but not as a place for others
#[test]
fn a_pid_namespace_that_has_ended_is_refused() {
    let mut infra = infra();
    let pinned = infra.host_pin("pinned", &format!("/proc/{}/ns/pid", infra.pid()));
    infra.kill("KILL").ok();
    infra.wait_until("stopped");
    // only a birth in it would tell `check`
    let (bundle, field) = joining("pid", pinned.to_str().unwrap());
    refuses_unforeseen(Everybody, &bundle, &[&field, "whose first process has ended"]);
}

/// Seen from a pid namespace below, that of the host is above.
#[test]
fn a_pid_namespace_can_be_joined_from_above_only() {
    let (mut bundle, mut place) = (Bundle::new(), Bundle::new());
    let host = place.host_pin("host", "/proc/self/ns/pid");
    join(&mut bundle, "pid", host.to_str().unwrap());
    bundle.write_config();
    let command = bundle.command_on_config_as_it_is(&["create", &bundle.id]);
    let mut below = Command::new("unshare");
    below.args(["--pid", "--fork", "--mount-proc"]).arg(command.get_program()).args(command.get_args());
    let output = crate::runtime::run(below.current_dir(&bundle.dir));
    assert_ne!(output.code, 0, "{output}");
    if on_rrun() {
        output.refused(&["linux.namespaces[4].path: ", "setns pid: ", "it must be rrun's own or one below"]);
    }
    bundle.leaves_nothing();
}

// CVE-2024-21626's neighbour: what is set must be the container's
#[test]
fn nothing_is_set_in_the_runtimes_own_namespaces() {
    for (kind, pointer, value) in [
        ("uts", "/hostname", json!("changed")),
        ("uts", "/domainname", json!("changed")),
        ("network", "/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        ("ipc", "/linux/sysctl", json!({"kernel.msgmax": "9999"})),
        ("mount", "/annotations", json!({})),
    ] {
        let mut bundle = Bundle::new();
        join(&mut bundle, kind, &format!("/proc/{}/ns/{}", std::process::id(), file_of(kind)));
        bundle.unset("/hostname").set(pointer, value).write_config();
        refuses(Rrun, &bundle, &["would change the host", &format!("is rrun's own {kind} namespace")]);
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

#[test]
fn clocks_that_cannot_be_set_are_refused() {
    for (namespace, offsets, words) in [
        (None, json!({"boottime": {"secs": 1}}), "linux.timeOffsets: needs a new time namespace"),
        (Some(json!({"type": "time", "path": "/proc/1/ns/time"})), json!({"boottime": {"secs": 1}}), "has its own"),
        (Some(json!({"type": "time"})), json!({"realtime": {"secs": 1}}), "linux.timeOffsets.realtime: is no clock"),
        (
            Some(json!({"type": "time"})),
            json!({"monotonic": {"nanosecs": 1_000_000_000}}),
            "linux.timeOffsets.monotonic.nanosecs: 1000000000",
        ),
        (
            Some(json!({"type": "time"})),
            json!({"monotonic": {"secs": 1}, "boottime": {"secs": -1_000_000_000}}),
            "linux.timeOffsets.boottime: write timens_offsets boottime -1000000000 0: ",
        ),
        (Some(json!({"type": "time"})), json!({"monotonic": {"secs": i64::MIN}}), "linux.timeOffsets.monotonic: "),
    ] {
        let mut bundle = Bundle::new();
        if let Some(namespace) = namespace {
            bundle.set("/linux/namespaces/-", namespace);
        }
        bundle.set("/linux/timeOffsets", offsets).write_config();
        refuses(Rrun, &bundle, &[words]);
    }
}
