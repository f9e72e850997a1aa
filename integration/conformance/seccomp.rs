//! config-linux.md, "Seccomp" and "The Container Process State".

use std::os::unix::net::UnixDatagram;

use serde_json::{Value, json};

use super::refused_beside;
use crate::bundle::Bundle;
use crate::seccomp::Agent;

fn profile(value: Value) -> impl FnOnce(&mut Bundle) {
    move |bundle| {
        bundle.set("/linux/seccomp", value);
    }
}

fn rule(rule: Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
}

macro_rules! bad_profiles {
    ($(fn $name:ident: $good:expr => $bad:expr;)+) => {$(
        #[test]
        fn $name() {
            refused_beside(profile($good), profile($bad));
        }
    )+};
}

fn comparing(args: Value) -> Value {
    rule(json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "args": [args]}))
}

bad_profiles! {
    fn a_default_action_is_required: json!({"defaultAction": "SCMP_ACT_ALLOW"}) => json!({"syscalls": []});
    fn a_default_action_without_an_errno: json!({"defaultAction": "SCMP_ACT_ALLOW"})
        => json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5});
    fn a_rule_names_a_call: rule(json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}))
        => rule(json!({"names": [], "action": "SCMP_ACT_ERRNO"}));
    fn a_rule_has_names: rule(json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}))
        => rule(json!({"action": "SCMP_ACT_ERRNO"}));
    fn a_rule_has_an_action: rule(json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}))
        => rule(json!({"names": ["getpgid"]}));
    fn an_action_without_an_errno: rule(json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}))
        => rule(json!({"names": ["getpgid"], "action": "SCMP_ACT_LOG", "errnoRet": 5}));
    fn an_argument_has_an_index: comparing(json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}))
        => comparing(json!({"value": 1, "op": "SCMP_CMP_EQ"}));
    fn an_argument_has_a_value: comparing(json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}))
        => comparing(json!({"index": 0, "op": "SCMP_CMP_EQ"}));
    fn an_argument_has_an_operator: comparing(json!({"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}))
        => comparing(json!({"index": 0, "value": 1}));
    fn metadata_needs_a_listener: json!({"defaultAction": "SCMP_ACT_ALLOW"})
        => json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "of nobody"});
}

/// mkdir(2) is for the agent at this path.
fn asking(bundle: &mut Bundle, path: &std::path::Path) {
    let mut profile = rule(json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}));
    profile["listenerPath"] = json!(path);
    profile["listenerMetadata"] = json!("of the test");
    bundle.set("/linux/seccomp", profile);
}

#[test]
fn an_agent_that_does_not_listen_is_an_error() {
    let mut bundle = Bundle::sleeping();
    let path = bundle.dir.join("nobody");
    asking(&mut bundle, &path);
    let output = bundle.create();
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn an_agent_is_reached_by_a_stream() {
    let mut bundle = Bundle::sleeping();
    let path = bundle.dir.join("datagrams");
    let _socket = UnixDatagram::bind(&path).unwrap();
    asking(&mut bundle, &path);
    let output = bundle.create();
    assert_ne!(output.code, 0, "{output}");
}

/// What the agent is told, which takes one message with one descriptor and then the end of the connection.
#[track_caller]
fn told() -> (Bundle, i32, Value) {
    let mut bundle = Bundle::sh("mkdir /made-by-the-agent && echo as it says");
    let path = bundle.dir.join("agent");
    let agent = Agent::new(&path, 1, 0);
    asking(&mut bundle, &path);
    let create = bundle.create();
    create.ok();
    let pid = bundle.pid();
    bundle.start().ok();
    let mut messages = agent.messages();
    bundle.wait_until("stopped");
    assert_eq!(create.later(), "as it says\n", "the descriptor is not that of the filter");
    assert_eq!(messages.len(), 1);
    (bundle, pid, messages.remove(0))
}

#[test]
fn an_agent_is_told_once_and_the_connection_closed() {
    told();
}

#[test]
fn each_container_has_a_connection_of_its_own() {
    let (first, second) = (told(), told());
    assert_ne!(first.2["state"]["id"], second.2["state"]["id"]);
}

#[test]
fn an_agent_is_given_the_filters_descriptor() {
    let (_bundle, _, message) = told();
    assert_eq!(message["fds"], json!(["seccompFd"]));
}

#[test]
fn an_agent_is_told_a_version() {
    let (_bundle, _, message) = told();
    assert!(message["ociVersion"].is_string(), "{message}");
}

#[test]
fn an_agent_is_told_the_pid() {
    let (_bundle, pid, message) = told();
    assert_eq!(message["pid"], json!(pid));
}

#[test]
fn an_agent_is_told_the_state() {
    let (bundle, _, message) = told();
    let state = &message["state"];
    assert_eq!((&state["id"], &state["bundle"]), (&json!(bundle.id), &json!(bundle.dir)), "{message}");
}

#[test]
fn without_a_rule_for_it_an_agent_does_not_matter() {
    let mut bundle = Bundle::sh("echo ran");
    let path = bundle.dir.join("nobody");
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path}));
    assert_eq!(bundle.run().ok(), "ran\n");
}
