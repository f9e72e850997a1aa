//! `checkpoint` and `restore`, by CRIU. In guests alone: the kernel that a host has may be newer than its CRIU, which then
//! does nothing at all.
//!
//! What a container has open outside cannot be taken along, so its standard files are /dev/null or pipes here.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bundle::Bundle;
use crate::runtime::{self, eventually_within, wait_within};

mod broken;
mod files;
mod leftovers;
mod refused;

/// CRIU takes its time in a slow guest, and more when it loads modules.
const PATIENCE: Duration = Duration::from_secs(120);
const MOMENT: Duration = Duration::from_secs(20);

/// Counts in a file of the image, so that its progress can be seen from outside: by a rename, since one that is dumped
/// while it writes would leave an empty file.
const COUNTING: &str = "n=0; while :; do n=$((n+1)); echo $n > /next; mv /next /count; sleep 0.1; done";

fn counting() -> Bundle {
    let mut bundle = Bundle::sh(COUNTING);
    bundle.set("/root/readonly", false);
    bundle
}

fn count(bundle: &Bundle) -> u64 {
    let read = || std::fs::read_to_string(bundle.rootfs("count")).ok()?.trim().parse().ok();
    eventually_within(MOMENT, read).expect("no count")
}

/// It counts on from where it was.
#[track_caller]
fn goes_on(bundle: &Bundle, from: u64) {
    let first = count(bundle);
    assert!(first >= from, "begins anew: {first} after {from}");
    let more = || (count(bundle) > first + 1).then_some(());
    assert!(eventually_within(MOMENT, more).is_some(), "stands still at {first}");
}

/// A command whose container keeps the standard files: /dev/null, or what is given for stdout. Its errors are in a log.
#[track_caller]
fn quietly(bundle: &Bundle, args: &[&str], stdout: Option<OwnedFd>) -> (i32, String) {
    let log = bundle.dir.join("quiet.log");
    let _ = std::fs::remove_file(&log);
    let mut with_log = vec!["--log", log.to_str().unwrap()];
    with_log.extend(args);
    let mut command = bundle.command(&with_log);
    let stdout = stdout.map_or_else(Stdio::null, Stdio::from);
    let mut child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null()).spawn().unwrap();
    let status = wait_within(&mut child, PATIENCE).expect("does not end");
    (status.code().unwrap_or(-1), std::fs::read_to_string(log).unwrap_or_default())
}

#[track_caller]
fn run(bundle: &Bundle) {
    let (code, said) = quietly(bundle, &["run", "-d", &bundle.id], None);
    assert_eq!(code, 0, "{said}");
}

#[track_caller]
fn checkpoint(bundle: &Bundle, flags: &[&str]) -> runtime::Output {
    let args = [&["checkpoint"], flags, &[bundle.id.as_str()]].concat();
    bundle.spawn(&args).wait_for(PATIENCE)
}

#[track_caller]
fn dump(bundle: &Bundle, flags: &[&str]) {
    let output = checkpoint(bundle, flags);
    assert_eq!(output.code, 0, "{output}: {}", dump_log(bundle));
}

#[track_caller]
fn restore(bundle: &Bundle, flags: &[&str]) {
    let args = [&["restore", "-d"], flags, &[bundle.id.as_str()]].concat();
    let (code, said) = quietly(bundle, &args, None);
    assert_eq!(code, 0, "{said}");
}

/// The end of it.
fn dump_log(bundle: &Bundle) -> String {
    let log = std::fs::read_to_string(bundle.dir.join("checkpoint/dump.log")).unwrap_or_default();
    log.lines().rev().take(15).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_container_goes_on_where_it_was() {
    guest!();
    let bundle = counting();
    run(&bundle);
    let before = count(&bundle);
    dump(&bundle, &[]);
    assert_eq!(bundle.status_if_any(), None, "a container that was dumped is gone");
    bundle.leaves_nothing();
    let stood = count(&bundle);
    restore(&bundle, &[]);
    assert_eq!(bundle.status(), "running");
    assert!(stood >= before);
    goes_on(&bundle, stood);
    // and once more, under the same id
    dump(&bundle, &[]);
    let stood = count(&bundle);
    restore(&bundle, &[]);
    goes_on(&bundle, stood);
}

#[test]
fn all_other_commands_work_on_a_restored_container() {
    guest!();
    let bundle = counting();
    run(&bundle);
    dump(&bundle, &[]);
    let pid_file = bundle.dir.join("pid");
    restore(&bundle, &["--pid-file", pid_file.to_str().unwrap()]);
    let pid = bundle.pid();
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    assert_eq!(bundle.call(&["exec", &bundle.id, "hostname"]).ok().trim(), "inside");
    assert!(bundle.call(&["ps", &bundle.id]).ok().contains(&pid.to_string()));
    bundle.start().refused(&["cannot start an already running container"]);
    bundle.pause().ok();
    assert_eq!(bundle.status(), "paused");
    let still = count(&bundle);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(count(&bundle), still);
    bundle.resume().ok();
    goes_on(&bundle, still);
    assert!(bundle.call(&["events", "--stats", &bundle.id]).ok().contains("\"type\":\"stats\""));
    assert_eq!(bundle.delete().code, 1);
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    bundle.leaves_nothing();
}

#[test]
fn who_is_left_running_goes_on_and_can_be_restored_later() {
    guest!();
    let bundle = counting();
    run(&bundle);
    let pid = bundle.pid();
    dump(&bundle, &["--leave-running"]);
    assert_eq!((bundle.status(), bundle.pid()), ("running".into(), pid));
    goes_on(&bundle, count(&bundle));
    bundle.delete_force().ok();
    restore(&bundle, &[]);
    goes_on(&bundle, 1);
}

#[test]
fn a_paused_container_can_be_dumped() {
    guest!();
    let bundle = counting();
    run(&bundle);
    count(&bundle);
    bundle.pause().ok();
    dump(&bundle, &["--leave-running"]);
    assert_eq!(bundle.status(), "paused");
    dump(&bundle, &[]);
    bundle.leaves_nothing();
    let stood = count(&bundle);
    restore(&bundle, &[]);
    assert_eq!(bundle.status(), "running");
    goes_on(&bundle, stood);
}

#[test]
fn memory_can_be_dumped_ahead() {
    guest!();
    let bundle = counting();
    run(&bundle);
    dump(&bundle, &["--pre-dump", "--image-path", "before"]);
    assert_eq!(bundle.status(), "running");
    goes_on(&bundle, count(&bundle));
    let stood = count(&bundle);
    dump(&bundle, &["--parent-path", "../before", "--image-path", "images", "--work-path", "work"]);
    assert!(bundle.dir.join("images/parent").exists() && bundle.dir.join("work/dump.log").exists());
    restore(&bundle, &["--image-path", "images", "--work-path", "work"]);
    assert!(bundle.dir.join("work/restore.log").exists());
    goes_on(&bundle, stood);
}

#[test]
fn in_the_foreground_the_exit_status_is_the_containers() {
    guest!();
    let mut bundle = Bundle::sh("until [ -e /go ]; do sleep 0.1; done; exit 7");
    bundle.set("/root/readonly", false);
    run(&bundle);
    dump(&bundle, &[]);
    std::fs::write(bundle.rootfs("go"), "").unwrap();
    let (code, said) = quietly(&bundle, &["restore", &bundle.id], None);
    assert_eq!(code, 7, "{said}");
    bundle.leaves_nothing();
}

// descriptors.json: how a shim gets the output of a container that it has restored
#[test]
fn pipes_of_the_caller_are_replaced_by_those_of_the_restore() {
    guest!();
    let bundle = Bundle::sh("n=0; while :; do n=$((n+1)); echo line $n; sleep 0.1; done");
    let (before, its) = nix::unistd::pipe().unwrap();
    let (code, said) = quietly(&bundle, &["run", "-d", &bundle.id], Some(its));
    assert_eq!(code, 0, "{said}");
    let hears = |pipe: OwnedFd| {
        let mut byte = [0];
        let mut line = String::new();
        let mut pipe = File::from(pipe);
        while !line.ends_with('\n') && pipe.read(&mut byte).unwrap() == 1 {
            line.push(byte[0] as char);
        }
        (line, pipe)
    };
    let (line, kept) = hears(before);
    assert_eq!(line, "line 1\n");
    dump(&bundle, &[]);
    drop(kept);
    let (after, its) = nix::unistd::pipe().unwrap();
    let (code, said) = quietly(&bundle, &["restore", "-d", &bundle.id], Some(its));
    assert_eq!(code, 0, "{said}");
    let (line, _pipe) = hears(after);
    assert!(line.starts_with("line ") && line != "line 1\n", "{line:?}");
}

#[test]
fn hooks_are_told_of_the_restored_process() {
    guest!();
    let mut bundle = counting();
    let told = bundle.dir.join("told");
    let hook = |name: &str| {
        let script = format!("(echo {name}; cat) >> {}; echo >> {0}", told.display());
        serde_json::json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        bundle.set(&format!("/hooks/{kind}"), hook(kind));
    }
    run(&bundle);
    count(&bundle);
    std::fs::remove_file(&told).unwrap();
    dump(&bundle, &[]);
    let kinds = || -> Vec<String> {
        let text = std::fs::read_to_string(&told).unwrap();
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('{')).map(String::from).collect()
    };
    assert_eq!(kinds(), ["poststop"]);
    std::fs::remove_file(&told).unwrap();
    restore(&bundle, &[]);
    assert_eq!(kinds(), ["prestart", "createRuntime", "poststart"]);
    let text = std::fs::read_to_string(&told).unwrap();
    let states: Vec<serde_json::Value> =
        text.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect();
    let pid = bundle.pid();
    assert!(states.iter().all(|state| state["pid"] == pid), "{states:?}");
    let statuses: Vec<_> = states.iter().map(|state| state["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["created", "creating", "running"]);
    goes_on(&bundle, 1);
}

#[test]
fn a_hook_that_fails_takes_the_restore_back() {
    guest!();
    let mut bundle = counting();
    run(&bundle);
    dump(&bundle, &[]);
    bundle.set("/hooks/createRuntime", serde_json::json!([{"path": "/bin/false"}]));
    let (code, said) = quietly(&bundle, &["restore", "-d", &bundle.id], None);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("hooks.createRuntime"), "{said}");
    bundle.leaves_nothing();
    bundle.unset("/hooks/createRuntime");
    restore(&bundle, &[]);
}

/// Of a `restore` that is under way, or of a container.
fn criu() -> Vec<i32> {
    let found = runtime::run(Command::new("pgrep").args(["-x", "criu"])).stdout;
    found.lines().filter_map(|line| line.trim().parse().ok()).collect()
}
