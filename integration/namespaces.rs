//! What is the container's own and what it shares with the host.

use std::fs;

use serde_json::json;

use crate::bundle::Bundle;
use crate::layout::is_v2;
use crate::runtime::on_rrun;

/// Names in `linux.namespaces` and in /proc/self/ns.
const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

/// Which namespaces a program inside has in common with the host.
fn shared(bundle: &mut Bundle) -> Vec<&'static str> {
    let output = bundle.args(&["sh", "-c", "for n in /proc/self/ns/*; do readlink $n; done"]).run();
    let inside: Vec<_> = output.ok().lines().collect();
    let host = |file: &str| fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
    KINDS.iter().filter(|(_, file)| inside.contains(&host(file).to_str().unwrap())).map(|(kind, _)| *kind).collect()
}

#[test]
fn each_listed_namespace_is_new_and_the_others_are_the_hosts() {
    let mut bundle = Bundle::new();
    assert_eq!(shared(&mut bundle), ["cgroup", "time"]);
    for kind in ["pid", "network", "ipc", "uts"] {
        let mut bundle = Bundle::new();
        bundle.without_namespace(kind);
        if kind == "uts" {
            bundle.unset("/hostname");
        }
        assert!(shared(&mut bundle).contains(&kind), "{kind} is not listed");
    }
}

#[test]
fn a_cgroup_namespace_starts_at_the_containers_own_cgroup() {
    let mut bundle = Bundle::new();
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    assert!(!shared(&mut bundle).contains(&"cgroup"));
    let output = bundle.args(&["cat", "/proc/self/cgroup"]).run();
    let outside: Vec<_> = output.ok().lines().filter(|line| !line.ends_with(":/")).collect();
    if on_rrun() {
        assert!(outside.is_empty(), "paths of the host are seen: {outside:?}");
    } else {
        // runc 1.1 leaves the v2 tree of a hybrid host alone
        assert!(outside.iter().all(|line| line.starts_with("0::")), "paths of the host are seen: {outside:?}");
    }
}

#[test]
fn without_a_cgroup_namespace_the_path_is_the_hosts() {
    let mut bundle = Bundle::new();
    let output = bundle.args(&["cat", "/proc/self/cgroup"]).run();
    let own = format!("{}:/{}", if is_v2() { "0:" } else { ":pids" }, bundle.id);
    assert!(output.ok().lines().any(|line| line.ends_with(&own)), "{output}");
}

#[test]
fn a_time_namespace_can_be_the_containers_own() {
    need!(namespace("time"));
    let mut bundle = Bundle::new();
    bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    assert_eq!(shared(&mut bundle), ["cgroup"]);
}

#[test]
fn the_first_process_of_a_pid_namespace_is_the_program() {
    let bundle = Bundle::sh("echo $$; for p in /proc/[0-9]*; do readlink $p/exe; done");
    let output = bundle.run();
    assert!(output.ok().starts_with("1\n"), "{output}");
    assert!(output.ok().lines().skip(1).all(|exe| exe == "/bin/busybox"), "others are seen: {output}");
}

#[test]
fn loopback_is_up_in_a_new_network_namespace() {
    let bundle =
        Bundle::sh("ip -o link show up; ping -c 1 -W 2 127.0.0.1 >/dev/null; ip -o -4 addr show lo | awk '{print $4}'");
    let output = bundle.run();
    assert!(
        output.stdout.contains("lo: <LOOPBACK,UP,LOWER_UP>") && output.stdout.ends_with("127.0.0.1/8\n"),
        "{output}"
    );
    assert_eq!(output.stdout.lines().count(), 2, "an interface of the host: {output}");
}

#[test]
fn hostname_and_domainname_are_those_of_the_config() {
    let bundle = Bundle::sh("hostname");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(bundle.run().ok(), "inside\n");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host);
    need!(rrun); // runc has `domainname` since 1.1.8
    let mut bundle = Bundle::sh("cat /proc/sys/kernel/domainname");
    bundle.set("/domainname", "example.org");
    assert_eq!(bundle.run().ok(), "example.org\n");
}

#[test]
fn sysctls_are_set_inside_and_not_outside() {
    const KEYS: [(&str, &str, &str); 4] = [
        ("net.ipv4.ip_forward", "1", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.lo.rp_filter", "2", "net/ipv4/conf/lo/rp_filter"),
        ("kernel.msgmax", "9999", "kernel/msgmax"),
        ("fs.mqueue.msg_max", "17", "fs/mqueue/msg_max"),
    ];
    let paths: Vec<_> = KEYS.iter().map(|(_, _, path)| format!("/proc/sys/{path}")).collect();
    let host = || paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect::<Vec<_>>();
    let before = host();
    let mut bundle = Bundle::new();
    bundle.args(&[&["cat"], &paths.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    bundle.set(
        "/linux/sysctl",
        KEYS.iter().map(|(key, value, _)| (key.to_string(), json!(value))).collect::<serde_json::Map<_, _>>(),
    );
    // read-only for the program, and set all the same
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    assert_eq!(bundle.run().ok(), "1\n2\n9999\n17\n");
    assert_eq!(host(), before);
}

// an interface may have a dot in its name: with slashes as separators a dot is a dot
#[test]
fn a_sysctl_may_be_written_with_slashes() {
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/sys/net/ipv4/conf/lo/forwarding"]);
    bundle.set("/linux/sysctl", json!({"net/ipv4/conf/lo/forwarding": "1"}));
    assert_eq!(bundle.run().ok(), "1\n");
}
