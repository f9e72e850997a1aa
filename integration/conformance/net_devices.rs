//! config-linux.md, "Network Devices". The host of these tests is a network namespace of their own.

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::net_devices::{Network, addresses, ip, is_up, link, names};
use crate::runtime::Output;

/// With `a` of the host to be moved, as `name`.
fn moving(name: &str) -> Bundle {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/netDevices", json!({"a": {"name": name}}));
    bundle
}

#[track_caller]
fn run(host: &Network, bundle: &Bundle) -> Output {
    host.call(bundle, &["run", "--detach", &bundle.id])
}

/// What the container has, with `a` moved as `name`.
#[track_caller]
fn inside(name: &str) -> (Network, Bundle, Value) {
    let (host, bundle) = (Network::with_pair(), moving(name));
    run(&host, &bundle).ok();
    let devices = ip(bundle.pid(), "addr");
    (host, bundle, devices)
}

#[test]
fn what_is_listed_is_in_the_container() {
    let (host, _bundle, devices) = inside("new");
    assert!(names(&devices).contains(&"new".to_string()), "{devices}");
    assert!(!host.has("a"));
}

#[test]
fn what_cannot_be_moved_is_an_error() {
    let host = Network::with_pair();
    let mut bundle = moving("new");
    bundle.set("/linux/netDevices", json!({"nosuch": {}}));
    let output = run(&host, &bundle);
    assert_ne!(output.code, 0, "{output}");
}

/// Into a namespace that has a device `net0` already.
fn into_a_pod(name: &str) -> (Network, Network, Bundle) {
    let (host, pod, mut bundle) = (Network::with_pair(), Network::new(), moving(name));
    pod.ip("link add name net0 type veth peer name other");
    bundle.without_namespace("network");
    bundle.set("/linux/namespaces/-", json!({"type": "network", "path": pod.path()}));
    (host, pod, bundle)
}

#[test]
fn a_name_that_is_taken_is_an_error() {
    let (host, _pod, bundle) = into_a_pod("net0");
    let output = run(&host, &bundle);
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn a_template_is_numbered() {
    let (host, pod, bundle) = into_a_pod("net%d");
    run(&host, &bundle).ok();
    assert!(names(&pod.ip("addr")).contains(&"net1".to_string()), "{}", pod.ip("addr"));
}

#[test]
fn permanent_addresses_stay() {
    let (_host, _bundle, devices) = inside("new");
    let has = addresses(link(&devices, "new"));
    for wanted in ["10.1.0.1", "10.2.0.1", "fd00::1"] {
        assert!(has.iter().any(|address| address[0] == wanted), "{wanted}: {devices}");
    }
}

#[test]
fn a_device_is_up() {
    let (_host, _bundle, devices) = inside("new");
    assert!(is_up(link(&devices, "new")), "{devices}");
}

#[test]
fn what_a_container_does_with_it_stays() {
    let (host, bundle, _devices) = inside("new");
    if host.has("a") {
        return; // who moves none has none to manage
    }
    ip(bundle.pid(), "link set dev new down");
    ip(bundle.pid(), "link set dev new mtu 1300");
    bundle.pause().ok();
    bundle.resume().ok();
    bundle.state();
    let devices = ip(bundle.pid(), "addr");
    let device = link(&devices, "new");
    assert!(!is_up(device) && device["mtu"] == 1300, "{device}");
}

#[test]
fn it_is_not_moved_out_again() {
    let (host, pod, bundle) = into_a_pod("net%d");
    run(&host, &bundle).ok();
    if host.has("a") {
        return; // nor one to move back
    }
    bundle.delete_force().ok();
    assert!(names(&pod.ip("addr")).contains(&"net1".to_string()), "{}", pod.ip("addr"));
    assert!(!host.has("a"));
}
