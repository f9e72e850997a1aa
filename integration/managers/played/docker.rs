//! What dockerd asks of a runtime besides containers, and buildkit, which calls it without containerd.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;
use crate::runtime::{Call, eventually_within, on_rrun, run};
use crate::tty::Terminal;

/// Docker and containerd ask what a runtime can do, without a root of its own and with flags of theirs before.
#[test]
fn features_and_version() {
    let ask = |args: &[&str]| run(Command::new(runtime::path()).args(args).env_clear()).stdout;
    let features: Value = serde_json::from_str(&ask(&["--debug", "features"])).unwrap();
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].as_str().is_some_and(|version| version.starts_with("1.")), "{key}: {features}");
    }
    assert!(features["linux"].is_object(), "read without a look whether it is there");
    if on_rrun() {
        assert!(features["mountOptions"].as_array().unwrap().contains(&json!("rro")), "{features}");
        assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("user")), "{features}");
        assert_eq!(features["linux"]["mountExtensions"]["idmap"]["enabled"], true, "{features}");
    }
    let said = ask(&["--version"]);
    let named = said.lines().rfind(|line| line.contains("version")).unwrap();
    let (name, version) = named.split_once(" version ").unwrap();
    assert!(!name.contains(' ') && version.starts_with(|first: char| first.is_ascii_digit()), "{said}");
}

/// Flags of the administrator's own: docker writes a script that calls the runtime with them before everything.
#[test]
fn flags_of_ones_own_come_by_a_script() {
    let bundle = Bundle::sleeping();
    let (runtime, log) = (runtime::path().display(), dir(&bundle, "own.log"));
    let script = bundle.host_file("wrapper", format!("#!/bin/sh\n{runtime} --debug --log {log} $@\n"));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = |args: &[&str]| run(Command::new(&script).args(args));
    serde_json::from_str::<Value>(said(&["features"]).ok()).unwrap();
    assert!(said(&["--version"]).ok().contains(" version "));
    let (state, log) = (dir(&bundle, "state"), dir(&bundle, "log.json"));
    let words = ["--root", &state, "--log", &log, "--log-format", "json", "state", &bundle.id];
    assert_eq!(said(&words).code, 1);
    // a flag that is given twice means the last
    let told = std::fs::read_to_string(log).unwrap();
    let entry = serde_json::Deserializer::from_str(&told).into_iter::<Value>().last().unwrap().unwrap();
    assert!(entry["msg"].as_str().unwrap().contains("does not exist"), "{told}");
}

/// Of buildkit's steps: no root of its own, and all of the streams.
fn buildkit(bundle: &Bundle) -> Caller {
    let log = dir(bundle, "log.json");
    let words = ["--log", &log, "--log-format", "json"];
    Caller { before: words.map(String::from).to_vec(), environment: vec![("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")] }
}

/// buildkit: `run` in the foreground with a process group of its own, `exec` likewise, by a state that it polls.
#[test]
fn buildkit_runs_a_step() {
    let bundle = Bundle::sh("echo step; until test -e /tmp/end; do sleep 0.1; done; exit 6");
    let buildkit = buildkit(&bundle);
    let (_own, id) = (Own(&buildkit, &bundle), bundle.id.clone());
    let mut step = buildkit.command(&bundle, &["run", "--bundle", &dir(&bundle, ""), "--keep", &id]);
    let mut step = step.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running = || buildkit.combined(&bundle, &["state", &id]).1.contains("\"running\"").then_some(());
    eventually_within(PATIENCE, running).unwrap();
    let (given, pid) = (process(&bundle, &["sh", "-c", "exit 4"]), dir(&bundle, "exec.pid"));
    let exec = buildkit.combined(&bundle, &["exec", "--process", &given, "--pid-file", &pid, &id]);
    assert_eq!(exec, (4, String::new()));
    std::fs::write(bundle.rootfs("tmp/end"), "").unwrap();
    assert_eq!(runtime::wait_within(&mut step, PATIENCE).unwrap().code(), Some(6));
    assert_eq!(to_the_end(step.stdout.take().unwrap()).as_deref(), Some("step\n"));
    buildkit.silent(&bundle, &["delete", &id]);
}

/// One whose build is given up.
#[test]
fn buildkit_ends_a_step() {
    let bundle = Bundle::sh("echo begun; exec sleep 1000");
    let buildkit = buildkit(&bundle);
    let (_own, id) = (Own(&buildkit, &bundle), bundle.id.clone());
    let mut step = buildkit.command(&bundle, &["run", "--bundle", &dir(&bundle, ""), "--no-pivot", &id]);
    let step = Call::new(step.process_group(0));
    eventually_within(PATIENCE, || (step.so_far() == "begun\n").then_some(())).expect("the step does not begin");
    // what is executed meanwhile ends by the pid in its file
    let (given, pid) = (process(&bundle, &["sleep", "1000"]), bundle.dir.join("exec.pid"));
    let path = pid.display().to_string();
    let exec = Call::new(&mut buildkit.command(&bundle, &["exec", "--process", &given, "--pid-file", &path, &id]));
    let told = || std::fs::read_to_string(&pid).ok()?.parse().ok();
    let inside: i32 = eventually_within(PATIENCE, told).expect("no pid of the exec");
    kill(Pid::from_raw(inside), Signal::SIGKILL).unwrap();
    assert_eq!(exec.wait().code, 137);
    buildkit.silent(&bundle, &["kill", &id, "9"]);
    assert_eq!(step.wait().code, 137);
    // it was not kept
    let (code, text) = buildkit.combined(&bundle, &["delete", &id]);
    assert!(code != 0 && text.contains("does not exist"), "{text}");
}

/// The runtime's standard files are a terminal, and its size comes by a signal.
#[test]
fn buildkit_gives_a_step_its_terminal() {
    let mut bundle =
        Bundle::sh("tty; until stty size | grep 33; do sleep 0.05; done; read line; echo got $line; exit 5");
    bundle.set("/process/terminal", true);
    let buildkit = buildkit(&bundle);
    let (_own, id) = (Own(&buildkit, &bundle), bundle.id.clone());
    let mut terminal = Terminal::new(20, 70);
    let mut step = buildkit.command(&bundle, &["run", "--bundle", &dir(&bundle, ""), &id]);
    step.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let mut step = step.process_group(0).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    terminal.resize(33, 44);
    kill(Pid::from_raw(step.id() as i32), Signal::SIGWINCH).unwrap();
    terminal.master.hears("33 44");
    terminal.master.types("word\r");
    terminal.master.hears("got word");
    assert_eq!(runtime::wait_within(&mut step, PATIENCE).unwrap().code(), Some(5));
}
