use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ALL: [Namespace; 3] = [Namespace::Ipc, Namespace::Network, Namespace::Uts];

fn plan_one(key: &str, value: &str, namespaces: &[Namespace]) -> Result<Sysctl> {
    let sysctls = BTreeMap::from([(key.to_string(), value.to_string())]);
    let mut problems = Problems::default();
    let planned = plan(&sysctls, namespaces, Some("lan"), &mut problems);
    problems.result(planned).map(|mut planned| planned.remove(0))
}

#[test]
fn the_first_separator_decides() {
    for (key, path) in [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ("kernel/domainname", "kernel/domainname"),
    ] {
        let value = if path.ends_with("domainname") { "lan" } else { "1\t2 3" };
        let planned = plan_one(key, value, &ALL).unwrap();
        assert_eq!(planned, Sysctl { key: key.into(), path: path.into(), value: value.into() });
    }
}

#[test]
fn a_key_that_is_none_is_refused() {
    for key in [
        "",
        ".",
        "/",
        "net",
        "net.",
        ".net.x",
        "net..x",
        "net/../kernel/panic",
        "net.ipv4.//.kernel",
        "/net/x",
        "net/./x",
        "net/x/",
        "net.a\nb",
        "net.a b",
        "net.a+b",
        "net/a\\b",
        "net/..",
        "net.\u{7f}",
    ] {
        let error = plan_one(key, "1", &ALL).unwrap_err().to_string();
        assert!(error.starts_with("linux.sysctl: ") && !error.contains('\n'), "{key}: {error}");
    }
    for value in ["", "1\n", "1\n2", "\r", "a\u{1b}[2J"] {
        let error = plan_one("net.ipv4.ip_forward", value, &ALL).unwrap_err().to_string();
        assert!(error.starts_with("linux.sysctl: net.ipv4.ip_forward: ") && !error.contains('\n'), "{value}: {error}");
    }
}

#[test]
fn only_what_has_a_namespace_is_written() {
    for (key, namespaces, want) in [
        ("net.ipv4.ip_forward", &[Namespace::Ipc, Namespace::Uts][..], "needs a new network namespace"),
        ("kernel.sem", &[Namespace::Network, Namespace::Uts], "needs a new ipc namespace"),
        ("fs.mqueue.queues_max", &[Namespace::Network], "needs a new ipc namespace"),
        ("kernel.domainname", &[Namespace::Ipc], "needs a new uts namespace"),
        ("kernel.hostname", &ALL, "use the field hostname instead"),
        ("user.max_net_namespaces", &ALL, "needs a new user namespace; add one"),
        ("kernel.panic", &ALL, "is not in a separate kernel namespace"),
        ("kernel.semx", &ALL, "is not in a separate kernel namespace"),
        ("kernel/sem/x", &ALL, "is not in a separate kernel namespace"),
        ("fs.mqueue", &ALL, "is not in a separate kernel namespace"),
        ("fs.mqueuex.a", &ALL, "is not in a separate kernel namespace"),
        ("network.x", &ALL, "is not in a separate kernel namespace"),
        ("vm.swappiness", &ALL, "is not in a separate kernel namespace"),
        ("kernel.domainname", &ALL, "1 contradicts the field domainname"),
    ] {
        let error = plan_one(key, "1", namespaces).unwrap_err().to_string();
        assert!(error.starts_with(&format!("linux.sysctl: {key}: ")) && error.contains(want), "{key}: {error}");
    }
}

#[test]
fn one_key_in_two_spellings_is_refused() {
    let both = ["net.ipv4.ip_forward", "net/ipv4/ip_forward"].map(|key| (key.to_string(), "1".to_string()));
    let mut problems = Problems::default();
    plan(&BTreeMap::from(both), &ALL, None, &mut problems);
    let error = problems.result(()).unwrap_err().to_string();
    assert_eq!(error, "linux.sysctl: net/ipv4/ip_forward: given twice, with dots and with slashes; keep one");
}

proptest! {
    /// What is written lies below /proc/sys, in a part that belongs to a namespace.
    #[test]
    fn a_path_never_leaves_its_part(key in "(net|kernel|fs|mqueue|sem|\\.|/|\\.\\.|[a-z+\\\\\u{0}-\u{20}é]){0,10}", value in any::<String>()) {
        let Ok(planned) = plan_one(&key, &value, &ALL) else { return Ok(()) };
        let parts: Vec<&str> = planned.path.split('/').collect();
        prop_assert!(parts.iter().all(|part| !part.is_empty() && *part != "." && *part != ".."), "{}", planned.path);
        prop_assert!(["net", "kernel", "fs"].contains(&parts[0]), "{}", planned.path);
        prop_assert!(!planned.value.contains('\n') && !planned.path.contains(char::is_control));
    }
}
