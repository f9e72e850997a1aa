//! A bundle without `process`: runtime.md lets it be created, and makes it an error to start it.

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::refusals::Who::Rrun;
use crate::runtime::Output;

const MISSING: &str = "config.json: process: missing; a container without one can be created, and not started";

fn without_process() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.unset("/process");
    bundle
}

#[track_caller]
fn cannot_be_started(bundle: &Bundle) {
    bundle.start().refused(&[MISSING]);
    assert_eq!(bundle.status(), "created", "a start that is refused changes nothing");
}

#[test]
fn it_is_created_and_not_started() {
    need!(rrun);
    let bundle = without_process();
    bundle.create().ok();
    assert_eq!((bundle.status().as_str(), bundle.pid() > 0), ("created", true));
    cannot_be_started(&bundle);
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    bundle.leaves_nothing();
}

#[test]
fn it_is_paused_resumed_updated_and_deleted_as_any() {
    need!(rrun);
    let bundle = without_process();
    bundle.create().ok();
    bundle.pause().ok();
    assert_eq!(bundle.status(), "paused");
    bundle.resume().ok();
    bundle.call(&["update", "--pids-limit", "77", &bundle.id]).ok();
    assert_eq!(std::fs::read_to_string(bundle.cgroup("pids").join("pids.max")).unwrap(), "77\n");
    cannot_be_started(&bundle);
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn another_process_can_be_executed_in_it() {
    need!(rrun);
    let bundle = without_process();
    bundle.create().ok();
    let output: Output =
        bundle.call(&["exec", &bundle.id, "/bin/sh", "-c", "pwd; id -u; grep CapEff /proc/self/status"]);
    assert_eq!(output.ok(), "/\n0\nCapEff:\t0000000000000000\n");
    bundle.delete_force().ok();
}

#[test]
fn one_with_a_user_namespace_hooks_and_a_filter_too() {
    need!(rrun);
    let mut bundle = mapped(without_process());
    bundle.set("/linux/seccomp", serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW"}));
    let told = bundle.dir.join("told");
    let script = format!("cat > {}", told.display());
    bundle.set("/hooks/createRuntime/-", serde_json::json!({"path": "/bin/sh", "args": ["sh", "-c", script]}));
    bundle.create().ok();
    assert!(std::fs::read_to_string(told).unwrap().contains("\"creating\""));
    cannot_be_started(&bundle);
    bundle.delete_force().ok();
}

#[test]
fn a_check_says_that_it_will_not_start() {
    need!(rrun);
    let mut bundle = without_process();
    let warning = MISSING.replace("config.json: ", "warning: ");
    let output = bundle.call(&["check"]);
    assert!(output.ok().starts_with(&warning), "{output}");
    bundle.set("/process", serde_json::json!({"cwd": "/", "args": []}));
    let output = bundle.call(&["check"]);
    assert!(output.code == 1 && !output.stdout.contains("warning: "), "{output}");
}

#[test]
fn to_run_it_leaves_nothing() {
    let bundle = without_process();
    for args in [&["run"][..], &["run", "--detach"]] {
        let output = bundle.call(&[args, &[&bundle.id]].concat());
        if crate::runtime::on_rrun() {
            output.refused(&[MISSING]);
        }
        assert_ne!(output.code, 0, "{output}");
        bundle.leaves_nothing();
    }
}

/// What is there must be whole.
#[test]
fn a_process_that_is_empty_is_an_error() {
    let mut bundle = Bundle::new();
    bundle.set("/process", serde_json::json!({"cwd": "/"}));
    bundle.write_config();
    crate::refusals::refuses(Rrun, &bundle, &["process.args: empty"]);
}
