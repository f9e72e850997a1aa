//! linux.netDevices. The "host" is a network namespace of the test's own, with veth pairs in it, so that no device of
//! the machine is touched.

use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::runtime::{self, DEADLINE, Output, eventually_within};

/// A network namespace, held by a process that sleeps.
pub struct Network(Child);

impl Network {
    pub fn new() -> Self {
        let mut command = Command::new("unshare");
        let network = Self(command.args(["--net", "sleep", "1000"]).stdout(Stdio::null()).spawn().unwrap());
        let file = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let moved = || (file(network.0.id()) != file(std::process::id())).then_some(());
        eventually_within(DEADLINE, moved).expect("unshare(1) makes a namespace");
        network
    }

    /// With `a` and `b`, the ends of a veth pair. `a` has an address that lasts, with a peer, one of IPv6, one that does
    /// not last, and one of a link; another size of packets; and it is up.
    pub fn with_pair() -> Self {
        let network = Self::new();
        network.add_pair();
        network
    }

    pub fn add_pair(&self) {
        for command in [
            "link add name a mtu 1400 type veth peer name b",
            "link set dev a address 02:00:00:00:00:07",
            "addr add 10.1.0.1/24 broadcast 10.1.0.255 dev a label a:one",
            "addr add 10.2.0.1 peer 10.2.0.2/32 dev a",
            "addr add 10.3.0.1/24 dev a valid_lft 1000 preferred_lft 1000",
            "addr add 10.4.0.1/24 scope link dev a",
            "addr add fd00::1/64 dev a nodad",
            "link set dev a up",
            "link set dev b up",
        ] {
            self.ip(command);
        }
    }

    /// Of `a`, what outlives a move: whether it is up, and the addresses that last.
    pub fn seen_of_a(&self) -> Option<(bool, Vec<Value>)> {
        let all = self.ip("addr");
        let a = self.has("a").then(|| link(&all, "a"))?;
        let lasting = addresses(a).into_iter().filter(|address| address[0] != "10.3.0.1" && address[0] != "10.4.0.1");
        Some((is_up(a), lasting.collect()))
    }

    pub fn path(&self) -> String {
        file_of(self.0.id() as i32)
    }

    pub fn ip(&self, command: &str) -> Value {
        ip(self.0.id() as i32, command)
    }

    pub fn call(&self, bundle: &Bundle, args: &[&str]) -> Output {
        runtime::run(&mut self.command(bundle.command(args)))
    }

    /// The same, run in this network.
    pub fn command(&self, inside: Command) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(inside.get_program()).args(inside.get_args());
        for (name, value) in inside.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.current_dir(inside.get_current_dir().expect("a directory to run in"));
        command
    }

    pub fn has(&self, name: &str) -> bool {
        names(&self.ip("addr")).iter().any(|other| other == name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn file_of(pid: i32) -> String {
    format!("/proc/{pid}/ns/net")
}

/// ip(8) in the network namespace of a process.
pub fn ip(pid: i32, command: &str) -> Value {
    let net = format!("--net={}", file_of(pid));
    let output =
        Command::new("nsenter").args([&net, "ip", "-json", "-details"]).args(command.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {command}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

pub fn names(links: &Value) -> Vec<String> {
    links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_string()).collect()
}

pub fn link<'a>(links: &'a Value, name: &str) -> &'a Value {
    links.as_array().unwrap().iter().find(|link| link["ifname"] == name).unwrap_or_else(|| panic!("{name}: {links}"))
}

/// What an address is, without those that the kernel makes itself.
pub fn addresses(link: &Value) -> Vec<Value> {
    let of_link = |address: &&Value| address["local"].as_str().is_some_and(|local| !local.starts_with("fe80"));
    let told = |address: &Value| {
        json!([address["local"], address["address"], address["prefixlen"], address["broadcast"], address["label"]])
    };
    link["addr_info"].as_array().unwrap().iter().filter(of_link).map(told).collect()
}

pub fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap().iter().any(|flag| flag == "UP")
}

#[test]
fn a_device_keeps_its_addresses_and_is_up() {
    need!(rrun); // runc has it since 1.4
    for (mut bundle, name) in [(Bundle::sleeping(), "a"), (mapped(Bundle::sleeping()), "net1")] {
        let host = Network::with_pair();
        bundle.set("/linux/netDevices", json!({"a": {"name": name}}));
        host.call(&bundle, &["run", "--detach", &bundle.id]).ok();
        let inside = ip(bundle.pid(), "addr");
        let device = link(&inside, name);
        let (one, peer) = (json!(format!("{name}:one")), json!(name));
        let want = [
            json!(["10.1.0.1", null, 24, "10.1.0.255", one]),
            json!(["10.2.0.1", "10.2.0.2", 32, null, peer]),
            json!(["fd00::1", null, 64, null, null]),
        ];
        let mut got = addresses(device);
        got.sort_by_key(|address| address[0].as_str().unwrap().to_string());
        assert_eq!(got, want, "{inside}");
        assert!(is_up(device), "{device}");
        assert_eq!((&device["mtu"], &device["address"]), (&json!(1400), &json!("02:00:00:00:00:07")));
        assert!(!host.has("a") && host.has("b"));
        let state = std::fs::read(bundle.state_root.join(&bundle.id).join("state.json")).unwrap();
        let state: Value = serde_json::from_slice(&state).unwrap();
        assert_eq!(state["net_devices"], json!({"a": name}));
        // a veth ends with its namespace, and takes its peer with it
        bundle.delete_force().ok();
        assert!(eventually_within(DEADLINE, || (!host.has("b")).then_some(())).is_some());
        bundle.leaves_nothing();
    }
}

#[test]
fn hooks_find_the_device_there() {
    need!(rrun);
    let host = Network::with_pair();
    let mut bundle = Bundle::new();
    let seen = bundle.dir.join("seen");
    let script = format!(
        "#!/bin/sh\npid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')\nnsenter --net=/proc/$pid/ns/net ip -o link show net1 > {}",
        seen.display()
    );
    let hook = bundle.host_file("hook", script);
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.set("/hooks", json!({"createRuntime": [{"path": hook}]}));
    bundle.set("/linux/netDevices", json!({"a": {"name": "net1"}}));
    host.call(&bundle, &["run", &bundle.id]).ok();
    assert!(std::fs::read_to_string(seen).unwrap().contains("net1"));
}

#[test]
fn a_template_gets_the_first_number_that_is_free() {
    need!(rrun);
    let (host, pod) = (Network::with_pair(), Network::new());
    pod.ip("link add name net0 type veth peer name a");
    let mut bundle = Bundle::sleeping();
    bundle.without_namespace("network");
    bundle.set("/linux/namespaces/-", json!({"type": "network", "path": pod.path()}));
    bundle.set("/linux/netDevices", json!({"a": {"name": "net%d"}, "b": {"name": "net%d"}}));
    host.call(&bundle, &["run", "--detach", &bundle.id]).ok();
    let mut inside = names(&pod.ip("addr"));
    inside.sort();
    assert_eq!(inside, ["a", "lo", "net0", "net1", "net2"], "`a` of the pod is another");
    assert_eq!(link(&pod.ip("addr"), "net1")["mtu"], 1400);
    // the namespace is the pod's, and so are the devices in it
    bundle.delete_force().ok();
    assert!(pod.ip("addr").to_string().contains("net2"));
}

#[test]
fn what_cannot_be_moved_is_named_and_nothing_has_changed() {
    need!(rrun);
    let (host, pod) = (Network::with_pair(), Network::new());
    pod.ip("link add name taken type veth peer name other");
    let seen = || {
        let all = host.ip("addr");
        (names(&all), addresses(link(&all, "a")), is_up(link(&all, "a")))
    };
    let before = seen();
    let in_pod = |b: &mut Bundle| {
        b.without_namespace("network").set("/linux/namespaces/-", json!({"type": "network", "path": pod.path()}));
    };
    type Change<'a> = &'a dyn Fn(&mut Bundle);
    let cases: &[(Change, &[&str])] = &[
        (
            &|b| {
                in_pod(b);
                b.set("/linux/netDevices", json!({"a": {"name": "taken"}}));
            },
            &["linux.netDevices.a: the container's network namespace has a device taken", "eth%d"],
        ),
        (
            &|b| {
                b.set("/linux/netDevices", json!({"nosuch": {}}));
            },
            &["config.json: linux.netDevices.nosuch: rrun's network namespace has no such device"],
        ),
        (
            &|b| {
                b.set("/linux/netDevices", json!({"lo": {"name": "lo2"}}));
            },
            &["linux.netDevices.lo: move network device lo", "EINVAL"],
        ),
        (
            &|b| {
                b.without_namespace("network").set("/linux/netDevices", json!({"a": {}}));
            },
            &["linux.netDevices: needs a network namespace"],
        ),
        (
            &|b| {
                b.without_namespace("network");
                b.set("/linux/namespaces/-", json!({"type": "network", "path": host.path()}));
                b.set("/linux/netDevices", json!({"a": {}}));
            },
            &["linux.netDevices: would change the host"],
        ),
        (
            &|b| {
                b.set("/linux/netDevices", json!({"a": {"name": "sixteen-bytes-xy"}}));
            },
            &["linux.netDevices.a.name: sixteen-bytes-xy is no name of a network device"],
        ),
    ];
    for (change, words) in cases {
        let mut bundle = Bundle::new();
        change(&mut bundle);
        host.call(&bundle, &["create", &bundle.id]).refused(words);
        bundle.leaves_nothing();
        assert_eq!(seen(), before, "{words:?}");
    }
}

// what comes after the move: a second device, a hook, the program
#[test]
fn a_container_that_does_not_come_up_gives_them_back() {
    need!(rrun);
    let change = |b: &mut Bundle, what: &str| {
        b.set("/linux/netDevices", json!({"a": {"name": "net1"}}));
        match what {
            "device" => b.set("/linux/netDevices/lo", json!({"name": "lo2"})),
            "hook" => b.set("/hooks", json!({"createRuntime": [{"path": "/bin/false"}]})),
            _ => b.args(&["/nosuch"]),
        };
    };
    for what in ["device", "hook", "program"] {
        let host = Network::with_pair();
        let before = host.seen_of_a().unwrap();
        let mut bundle = Bundle::new();
        change(&mut bundle, what);
        let output = host.call(&bundle, &["create", &bundle.id]);
        assert_ne!(output.code, 0, "{output}");
        assert!(!output.stderr.contains("undoing"), "{output}");
        bundle.leaves_nothing();
        assert_eq!(host.seen_of_a(), Some(before), "{what}");
        assert_eq!(link(&host.ip("addr"), "a")["mtu"], 1400, "{what}");
    }
}

/// A hook that kills the rrun that runs it: then the devices are handed over, and nobody is left to give them back.
fn killed_by_its_hook() -> Bundle {
    let mut bundle = Bundle::new();
    let hook = bundle.host_file("hook", "#!/bin/sh\nkill -9 $PPID\n");
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.set("/hooks", json!({"createRuntime": [{"path": hook}]}));
    bundle
}

// a virtual device ends with its namespace, and a physical one comes back nameless to the host's first network
#[test]
fn a_killed_create_has_them_given_back_by_delete() {
    need!(rrun);
    let pod = Network::new();
    pod.ip("link add name net0 type veth peer name other");
    for (in_pod, inside) in [(false, "a"), (false, "net1"), (false, "net%d"), (true, "net1"), (true, "net%d")] {
        let host = Network::with_pair();
        let before = host.seen_of_a().unwrap();
        let mut bundle = killed_by_its_hook();
        if in_pod {
            bundle.without_namespace("network");
            bundle.set("/linux/namespaces/-", json!({"type": "network", "path": pod.path()}));
        }
        bundle.set("/linux/netDevices", json!({"a": {"name": inside}, "b": {"name": "net%d"}}));
        let killed = host.call(&bundle, &["create", &bundle.id]);
        assert_ne!(killed.code, 0, "{killed}");
        assert!(!host.has("a") && !host.has("b"), "the hook came too early: {killed}");
        // from wherever, also where the network that it was made in is another
        bundle.delete_force().ok();
        assert_eq!(host.seen_of_a(), Some(before), "{inside}, in a pod: {in_pod}");
        assert!(host.has("b"));
        assert_eq!(names(&pod.ip("addr")).len(), 3, "the pod's own");
        bundle.leaves_nothing();
    }
}

#[test]
fn what_is_gone_or_has_no_place_is_told_by_delete() {
    need!(rrun);
    let pod = Network::new();
    let in_pod = || {
        let mut bundle = killed_by_its_hook();
        bundle.without_namespace("network");
        bundle.set("/linux/namespaces/-", json!({"type": "network", "path": pod.path()}));
        bundle.set("/linux/netDevices", json!({"a": {"name": "net1"}}));
        bundle
    };
    let (host, bundle) = (Network::with_pair(), in_pod());
    host.call(&bundle, &["create", &bundle.id]);
    pod.ip("link del dev net1");
    let log = bundle.dir.join("log");
    bundle.call(&["--log", log.to_str().unwrap(), "delete", "--force", &bundle.id]).ok();
    let told = std::fs::read_to_string(log).unwrap();
    assert!(told.contains("linux.netDevices.a: is gone"), "{told}");
    bundle.leaves_nothing();

    let (host, bundle) = (Network::with_pair(), in_pod());
    host.call(&bundle, &["create", &bundle.id]);
    host.ip("link add name a type veth peer name c");
    bundle.delete_force().refused(&["linux.netDevices.a: cannot come back", "rename that one"]);
    assert!(pod.has("net1"));
    host.ip("link del dev a");
    bundle.delete_force().ok();
    assert!(host.has("a") && !pod.has("net1"));
    bundle.leaves_nothing();
}

#[test]
fn a_container_that_is_up_holds_no_network() {
    need!(rrun);
    let (host, mut bundle) = (Network::with_pair(), Bundle::sleeping());
    bundle.set("/linux/netDevices", json!({"a": {"name": "net1"}}));
    host.call(&bundle, &["create", &bundle.id]).ok();
    let left: Vec<_> =
        std::fs::read_dir(bundle.state_root.join(&bundle.id)).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("net")), "{left:?}");
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}
