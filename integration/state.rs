//! What `state` says, and what it goes by: the processes that are there, not what was written down.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::leftovers::is_alive;
use crate::runtime::on_rrun;

#[test]
fn state_tells_everything_that_managers_read() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/annotations", json!({"org.example.key": "va\"lue\n", "empty": ""}));
    bundle.run_detached().ok();
    let state = bundle.state();
    assert_eq!(state["id"], json!(bundle.id));
    assert_eq!(state["status"], "running");
    assert_eq!(state["bundle"], json!(bundle.dir));
    assert_eq!(state["rootfs"], json!(bundle.rootfs("")).as_str().unwrap().trim_end_matches('/'));
    assert_eq!(state["annotations"], json!({"org.example.key": "va\"lue\n", "empty": ""}));
    assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
    let pid = state["pid"].as_i64().unwrap() as i32;
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap(), "sleep\x001000\0");
}

// go-runc decodes `created` as a time and fails on anything else
#[test]
fn created_is_a_utc_time_of_rfc_3339() {
    let bundle = Bundle::new();
    bundle.create().ok();
    let state = bundle.state();
    let created = state["created"].as_str().unwrap();
    let shape: String = created.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert!(shape.starts_with("9999-99-99T99:99:99") && shape.ends_with('Z'), "{created}");
    let utc = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H"]).output().unwrap();
    let hour = String::from_utf8(utc.stdout).unwrap();
    assert!(created.starts_with(hour.trim()) || created[14..16] >= *"59", "{created} is not now, {hour}");
}

#[test]
fn a_stopped_container_has_pid_0() {
    let bundle = Bundle::new();
    bundle.run_detached().ok();
    bundle.wait_until("stopped");
    assert_eq!(bundle.state()["pid"], 0);
}

// whoever should reap init may be slow: it has ended all the same
#[test]
fn an_init_that_nobody_reaps_has_stopped() {
    let bundle = Bundle::sleeping();
    let run = bundle.spawn(&["run", &bundle.id]);
    bundle.wait_until("running");
    let init = bundle.pid();
    kill(Pid::from_raw(run.pid()), Signal::SIGSTOP).unwrap();
    kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
    bundle.wait_until("stopped");
    assert!(fs::metadata(format!("/proc/{init}")).is_ok(), "was reaped: this shows nothing");
    bundle.kill("TERM").refused(&["container not running"]);
    kill(Pid::from_raw(run.pid()), Signal::SIGCONT).unwrap();
    assert_eq!(run.wait().code, 137);
}

// the number of a process that ended goes to another one sooner or later
#[test]
fn a_process_that_got_the_number_of_a_dead_init_is_left_alone() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let init = bundle.pid();
    kill(Pid::from_raw(init), Signal::SIGKILL).unwrap();
    bundle.wait_until("stopped");

    // Identity is pid and start time, which the kernel counts in ticks of 10 ms: one number is never given out twice in
    // one of them, so neither may the test pretend so.
    std::thread::sleep(Duration::from_millis(20));
    let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let number = bystander.id() as i32;
    let file = bundle.state_root.join(&bundle.id).join("state.json");
    let state = fs::read_to_string(&file).unwrap();
    let changed = state.replace(&format!(":{init},"), &format!(":{number},"));
    let changed = changed.replace(&format!(": {init},"), &format!(": {number},"));
    assert_ne!(state, changed, "no pid {init} in {state}");
    fs::write(&file, changed).unwrap();

    assert_eq!(bundle.status(), "stopped");
    bundle.kill("KILL").refused(&["container not running"]);
    bundle.delete_force().ok();
    let alive = is_alive(number);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(alive, "the other process was killed");
}

#[test]
fn state_answers_while_another_command_holds_the_lock() {
    need!(rrun);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let dir = fs::File::open(bundle.state_root.join(&bundle.id)).unwrap();
    let lock = nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let output = bundle.call(&["state", &bundle.id]);
    output.ok();
    assert!(output.took < Duration::from_secs(5), "{output}");
    let listed = bundle.call(&["list"]);
    assert!(listed.ok().contains(&bundle.id) && listed.took < Duration::from_secs(5), "{listed}");
    bundle.kill("KILL").ok();
    drop(lock);
}

#[test]
fn a_directory_without_a_record_does_not_exist_and_can_be_deleted() {
    let bundle = Bundle::new();
    let left = bundle.state_root.join(&bundle.id);
    fs::create_dir_all(&left).unwrap();
    bundle.call(&["state", &bundle.id]).refused(&["container does not exist"]);
    bundle.delete_force().ok();
    assert!(!left.exists());
}

#[test]
fn the_record_of_a_container_is_for_root_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bundle = Bundle::new();
    bundle.create().ok();
    let dir = bundle.state_root.join(&bundle.id);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.join("state.json")), 0o600);
    if on_rrun() {
        assert_eq!(mode(&dir), 0o700); // runc's lets others pass, for a FIFO that its init opens
    }
}

#[test]
fn a_bad_id_is_refused_by_every_command() {
    let bundle = Bundle::new();
    let outside = bundle.host_file("outside/state.json", "{}");
    for id in [".", "..", "../outside", "/etc", "a/b", "a b", "a\nb", "ü", "a;b", "a*"] {
        for verb in ["create", "run", "start", "state", "kill", "delete"] {
            let output = bundle.call(&[verb, id]);
            assert_eq!(output.code, 1, "{id:?}: {output}");
            assert!(output.stderr.contains("invalid container ID format") || !on_rrun(), "{id:?}: {output}");
        }
    }
    for verb in ["create", "run", "start", "state", "kill", "delete"] {
        bundle.call(&[verb, ""]).refused(&["container id cannot be empty"]);
    }
    assert_eq!(fs::read(outside).unwrap(), b"{}");
    bundle.leaves_nothing();
}

#[test]
fn every_legal_letter_can_stand_in_an_id() {
    let bundle = Bundle::new();
    let id = format!("{}_aZ09+-.x", bundle.id);
    bundle.call(&["create", &id]).ok();
    assert!(bundle.call(&["state", &id]).ok().contains(&id));
    bundle.call(&["delete", "--force", &id]).ok();
}

#[test]
fn a_damaged_record_is_told_and_the_others_are_listed() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let damaged = bundle.state_root.join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("state.json"), "{").unwrap();
    for log in [&[][..], &["--log", "log"]] {
        let list = bundle.call(&[log, &["list", "--quiet"]].concat());
        assert_eq!((list.code, list.stdout.trim()), (0, bundle.id.as_str()), "{list}");
        let said = list.stderr.lines().count();
        assert!(said == 1 && list.stderr.contains("damaged"), "{list}");
    }
    std::fs::remove_dir_all(damaged).unwrap();
}

// a disk that was full, or a hand that meant well
#[test]
fn a_damaged_record_is_told_and_nobody_waits_for_it() {
    need!(rrun);
    type Damage = fn(&std::path::Path);
    let damages: [(&str, Damage); 5] = [
        ("half", |path| std::fs::write(path, "{\"id").unwrap()),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("huge", |path| std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap()),
        ("fifo", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("symlink", |path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap()),
    ];
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let record = bundle.state_root.join(&bundle.id).join("state.json");
    let kept = std::fs::read(&record).unwrap();
    for (name, damage) in damages {
        std::fs::remove_file(&record).unwrap();
        damage(&record);
        let id = &bundle.id;
        for verb in [&["state", id][..], &["kill", id, "KILL"], &["exec", id, "true"], &["delete", "--force", id]] {
            let output = bundle.call(verb);
            assert!(output.code != 0 && output.stderr.contains("state.json: "), "{name}: {output}");
            assert!(output.took < std::time::Duration::from_secs(5), "{name} took {:?}: {output}", output.took);
        }
        let list = bundle.call(&["list"]);
        assert!(list.code == 0 && list.stdout.starts_with("ID") && list.stderr.contains("warning: "), "{name}: {list}");
    }
    std::fs::remove_file(&record).unwrap();
    std::fs::write(&record, kept).unwrap();
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}
