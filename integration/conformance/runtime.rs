//! runtime.md and runtime-linux.md

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::refused_beside;
use crate::bundle::Bundle;
use crate::hooks::{add, logged, script, with_log};
use crate::leftovers::is_alive;
use crate::runtime::eventually_within;

const SOON: std::time::Duration = std::time::Duration::from_secs(5);

fn running() -> Bundle {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    bundle.start().ok();
    bundle.wait_until("running");
    bundle
}

fn stopped() -> Bundle {
    let bundle = running();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle
}

fn created() -> Bundle {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    bundle
}

/// The program writes a line into this file of the host each time that it runs.
fn telling() -> (Bundle, std::path::PathBuf) {
    let bundle = with_log(Bundle::sh("echo ran >> /out/log; sleep 1000"));
    let log = bundle.dir.join("out/log");
    (bundle, log)
}

#[track_caller]
fn wait_for(file: &Path, text: &str) {
    let read = || fs::read_to_string(file).unwrap_or_default();
    let told = eventually_within(SOON, || (read() == text).then_some(()));
    assert!(told.is_some(), "{:?} and not {text:?}", read());
}

/// From `created` to `stopped`, its status being told on the way.
fn lived() -> Bundle {
    let bundle = created();
    assert_eq!(bundle.status(), "created");
    bundle.start().ok();
    bundle.wait_until("running");
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle
}

#[test]
fn who_made_a_container_can_use_every_operation_on_it() {
    let bundle = lived();
    bundle.delete().ok();
    assert_eq!(bundle.status_if_any(), None);
}

// --- state ---

#[test]
fn state_tells_a_version_of_the_spec() {
    let version = created().state()["ociVersion"].as_str().unwrap().to_string();
    assert!(version.starts_with("1.") && version.split(['.', '-']).count() >= 3, "{version}");
}

#[test]
fn state_tells_the_id() {
    let bundle = created();
    assert_eq!(bundle.state()["id"], json!(bundle.id));
}

#[test]
fn state_tells_the_status() {
    lived();
}

#[test]
fn a_status_of_the_runtimes_own_is_for_a_state_of_its_own() {
    let bundle = running();
    bundle.pause().ok();
    let status = bundle.status();
    bundle.resume().ok();
    let of_the_spec = ["creating", "created", "stopped"];
    assert!(!of_the_spec.contains(&status.as_str()), "paused, {status} stands for something else");
}

#[test]
fn state_tells_the_pid_of_a_container_that_is_created_or_running() {
    let bundle = created();
    let waiting = bundle.pid();
    assert!(is_alive(waiting));
    bundle.start().ok();
    bundle.wait_until("running");
    let name = || fs::read_to_string(format!("/proc/{}/comm", bundle.pid())).unwrap();
    assert!(eventually_within(SOON, || (name() == "sleep\n").then_some(())).is_some(), "{}", name());
}

#[test]
fn state_tells_the_absolute_path_of_the_bundle() {
    let bundle = Bundle::sleeping();
    bundle.call(&["create", "--bundle", ".", &bundle.id]).ok();
    assert_eq!(bundle.state()["bundle"], json!(bundle.dir));
}

/// schema/state-schema.json
#[test]
fn state_keeps_to_its_schema() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/annotations", json!({"a.b": "c"}));
    bundle.create().ok();
    let check = |state: &Value| {
        for required in ["ociVersion", "id", "status", "bundle"] {
            assert!(state[required].is_string(), "{required}: {state}");
        }
        assert!(state["pid"].is_null() || state["pid"].as_u64().is_some(), "{state}");
        assert!(state["annotations"].as_object().is_none_or(|all| all.values().all(Value::is_string)), "{state}");
        assert!(["creating", "created", "running", "stopped"].contains(&state["status"].as_str().unwrap()), "{state}");
    };
    check(&bundle.state());
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    check(&bundle.state());
}

// --- the lifecycle ---

#[test]
fn what_the_config_asks_for_is_there_after_create() {
    let mut bundle = Bundle::sleeping();
    bundle.mount("/data", "tmpfs", "made-by-create", &[]).set("/linux/resources/pids/limit", 77);
    bundle.create().ok();
    let pid = bundle.pid();
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
    }
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    assert!(mounts.contains("made-by-create"), "{mounts}");
    let limit = fs::read_to_string(bundle.cgroup("pids").join("pids.max")).unwrap();
    assert_eq!(limit.trim(), "77");
}

#[test]
fn what_cannot_be_made_is_an_error_and_no_container() {
    let mount = |source: &'static str| {
        move |bundle: &mut Bundle| {
            bundle.mount("/data", "none", source, &["bind"]);
        }
    };
    refused_beside(mount("rootfs"), mount("/no/such/source"));
}

#[test]
fn an_error_leaves_everything_as_it_was() {
    let mut bundle = Bundle::sleeping();
    bundle.mount("/data", "none", "/no/such/source", &["bind"]);
    assert_ne!(bundle.create().code, 0);
    bundle.leaves_nothing();
}

#[test]
fn the_program_runs_at_start_and_not_before() {
    let (bundle, log) = telling();
    bundle.create().ok();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
    bundle.start().ok();
    wait_for(&log, "ran\n");
}

#[test]
fn later_changes_of_config_json_change_nothing() {
    let (mut bundle, log) = telling();
    bundle.create().ok();
    bundle.args(&["sh", "-c", "echo changed >> /out/log; sleep 1000"]);
    bundle.start().ok(); // which writes the config first
    wait_for(&log, "ran\n");
}

/// Of a container that hooks of every kind of the host's side can look at.
fn with_poststop() -> Bundle {
    let mut bundle = with_log(Bundle::sleeping());
    let hook = script(&bundle, "poststop", "echo poststop >> $log");
    add(&mut bundle, "poststop", hook);
    bundle
}

fn add_failing(bundle: &mut Bundle, kind: &str) {
    let hook = script(bundle, kind, &format!("echo {kind} >> $log; exit 3"));
    add(bundle, kind, hook);
}

/// "generate an error, stop the container, and continue the lifecycle at step 12", where it is destroyed.
#[track_caller]
fn ends_a_create(kind: &str) {
    let mut bundle = with_poststop();
    add_failing(&mut bundle, kind);
    assert_ne!(bundle.create().code, 0, "no error");
    assert_eq!(bundle.status_if_any(), None, "it is not destroyed");
    assert_eq!(logged(&bundle), format!("{kind}\npoststop\n"));
}

#[test]
fn a_prestart_hook_that_fails_ends_it() {
    ends_a_create("prestart");
}

#[test]
fn a_create_runtime_hook_that_fails_ends_it() {
    ends_a_create("createRuntime");
}

#[test]
fn a_create_container_hook_that_fails_ends_it() {
    ends_a_create("createContainer");
}

/// What `start` does: the error, and the end of the container.
#[track_caller]
fn ends_a_start(kind: &str) -> Bundle {
    let mut bundle = with_poststop();
    add_failing(&mut bundle, kind);
    bundle.create().ok();
    assert_ne!(bundle.start().code, 0, "no error");
    let ended = || bundle.status_if_any().is_none_or(|status| status == "stopped").then_some(());
    assert!(eventually_within(SOON, ended).is_some(), "it is not stopped");
    bundle
}

#[test]
fn a_start_container_hook_that_fails_ends_it() {
    ends_a_start("startContainer");
}

#[test]
fn a_start_container_hook_that_fails_destroys_it() {
    let bundle = ends_a_start("startContainer");
    assert_eq!(bundle.status_if_any(), None);
    assert_eq!(logged(&bundle), "startContainer\npoststop\n");
}

#[test]
fn a_poststart_hook_that_fails_ends_it() {
    let bundle = ends_a_start("poststart");
    assert_eq!(bundle.status_if_any(), None, "it is not destroyed");
    assert_eq!(logged(&bundle), "poststart\npoststop\n");
}

#[test]
fn a_poststop_hook_that_fails_is_a_warning_and_the_others_run() {
    let mut bundle = with_log(Bundle::sleeping());
    add_failing(&mut bundle, "poststop");
    let last = script(&bundle, "poststop", "echo the next >> $log");
    add(&mut bundle, "poststop", last);
    bundle.create().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    let output = bundle.call(&["--log", "log", "delete", &bundle.id]);
    assert_eq!(output.code, 0, "{output}");
    assert_ne!(fs::read_to_string(bundle.dir.join("log")).unwrap_or_default() + &output.stderr, "", "no warning");
    assert_eq!(logged(&bundle), "poststop\nthe next\n");
    assert_eq!(bundle.status_if_any(), None);
}

#[test]
fn what_create_made_is_undone_by_delete() {
    let mut bundle = Bundle::sleeping();
    bundle.mount("/data", "tmpfs", "tmpfs", &[]).set("/linux/resources/pids/limit", 77);
    bundle.create().ok();
    bundle.start().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    bundle.leaves_nothing();
}

#[test]
fn what_belongs_to_others_stays() {
    let pod = running();
    let mut bundle = Bundle::sleeping();
    let volume = bundle.host_file("volume/file", "kept").parent().unwrap().to_path_buf();
    bundle.bind(&volume, "/volume", &[]).without_namespace("network");
    let network = format!("/proc/{}/ns/net", pod.pid());
    bundle.set("/linux/namespaces/-", json!({"type": "network", "path": network}));
    bundle.create().ok();
    bundle.start().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    assert_eq!(fs::read_to_string(volume.join("file")).unwrap(), "kept");
    assert_eq!(pod.status(), "running");
}

// --- operations ---

/// `fn name: verb;` an operation that is not told which container.
macro_rules! needs_an_id {
    ($(fn $name:ident: $verb:literal;)+) => {$(
        #[test]
        fn $name() {
            let bundle = Bundle::sleeping();
            let output = bundle.call(&[$verb]);
            assert_ne!(output.code, 0, "{output}");
        }
    )+};
}

needs_an_id! {
    fn state_needs_an_id: "state";
    fn create_needs_an_id: "create";
    fn start_needs_an_id: "start";
    fn kill_needs_an_id: "kill";
    fn delete_needs_an_id: "delete";
}

#[test]
fn create_needs_a_bundle() {
    let bundle = Bundle::sleeping();
    let output = bundle.call(&["create", "--bundle", "/no/such/bundle", &bundle.id]);
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn there_is_no_state_of_what_is_not_there() {
    let bundle = Bundle::sleeping();
    let output = bundle.call(&["state", &bundle.id]);
    assert_ne!(output.code, 0, "{output}");
}

#[test]
fn an_id_is_given_once() {
    let bundle = created();
    let (pid, status) = (bundle.pid(), bundle.status());
    let output = bundle.create();
    assert_ne!(output.code, 0, "{output}");
    assert_eq!((bundle.pid(), bundle.status()), (pid, status), "the first one has changed");
}

#[test]
fn an_id_that_is_not_valid_is_refused() {
    let bundle = Bundle::sleeping();
    for id in ["", "a/b", "../c", "."] {
        let output = bundle.call(&["create", id]);
        assert_ne!(output.code, 0, "{id:?}: {output}");
    }
}

#[test]
fn create_makes_a_container() {
    assert_eq!(created().status(), "created");
}

#[test]
fn start_of_what_runs_has_no_effect() {
    let (bundle, log) = telling();
    bundle.create().ok();
    bundle.start().ok();
    wait_for(&log, "ran\n");
    let pid = bundle.pid();
    assert_ne!(bundle.start().code, 0, "no error");
    assert_eq!((bundle.pid(), bundle.status()), (pid, "running".into()));
    wait_for(&log, "ran\n");
}

#[test]
fn start_of_what_has_stopped_has_no_effect() {
    let bundle = stopped();
    assert_ne!(bundle.start().code, 0, "no error");
    assert_eq!(bundle.status(), "stopped");
}

#[test]
fn without_a_process_there_can_be_a_container() {
    let mut bundle = Bundle::sleeping();
    bundle.unset("/process");
    bundle.create().ok();
    assert_eq!(bundle.status(), "created");
}

#[test]
fn without_a_process_nothing_starts() {
    let mut bundle = Bundle::sleeping();
    bundle.unset("/process");
    let started = bundle.create().code == 0 && bundle.start().code == 0;
    assert!(!started);
}

#[test]
fn kill_of_what_has_stopped_has_no_effect() {
    let bundle = stopped();
    assert_ne!(bundle.kill("TERM").code, 0, "no error");
    assert_eq!(bundle.status(), "stopped");
}

#[test]
fn kill_sends_the_signal_that_it_is_told() {
    let bundle = with_log(Bundle::sh(
        "trap 'echo usr1 >> /out/log' USR1; trap 'echo hup >> /out/log' HUP; echo ready >> /out/log
        while :; do sleep 0.01; done",
    ));
    bundle.create().ok();
    bundle.start().ok();
    let log = bundle.dir.join("out/log");
    wait_for(&log, "ready\n");
    bundle.kill("USR1").ok();
    wait_for(&log, "ready\nusr1\n");
    bundle.kill("HUP").ok();
    wait_for(&log, "ready\nusr1\nhup\n");
}

#[test]
fn kill_reaches_what_is_created() {
    let bundle = created();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
}

#[test]
fn delete_of_what_runs_has_no_effect() {
    let bundle = running();
    let pid = bundle.pid();
    assert_ne!(bundle.delete().code, 0, "no error");
    assert_eq!((bundle.pid(), bundle.status()), (pid, "running".into()));
}

#[test]
#[ignore = "rrun takes it away, as runc does: its callers rely on that"]
fn delete_of_what_is_created_has_no_effect() {
    let bundle = created();
    assert_ne!(bundle.delete().code, 0, "no error");
    assert_eq!(bundle.status(), "created");
}

// --- on Linux ---

/// `fn name: link => target;`
macro_rules! links {
    ($(fn $name:ident: $link:literal => $target:literal;)+) => {$(
        #[test]
        fn $name() {
            let mut bundle = Bundle::new();
            bundle.args(&["readlink", $link]);
            assert_eq!(bundle.run().ok().trim_end(), $target);
        }
    )+};
}

links! {
    fn dev_fd_is_a_link: "/dev/fd" => "/proc/self/fd";
    fn dev_stdin_is_a_link: "/dev/stdin" => "/proc/self/fd/0";
    fn dev_stdout_is_a_link: "/dev/stdout" => "/proc/self/fd/1";
    fn dev_stderr_is_a_link: "/dev/stderr" => "/proc/self/fd/2";
}
