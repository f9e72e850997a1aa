//! `exec`: one more process in a container that runs.

mod console;
mod inside;
mod refused;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::runtime::{self, Call, Output, eventually_within, on_rrun};
use crate::stdio::{LIST, by_shell};

/// A container that runs.
fn running(bundle: &Bundle) -> &Bundle {
    bundle.run_detached().ok();
    bundle
}

fn exec(bundle: &Bundle, flags: &[&str], command: &[&str]) -> Output {
    bundle.call(&[&["exec"], flags, &[&bundle.id], command].concat())
}

fn sh(bundle: &Bundle, script: &str) -> Output {
    exec(bundle, &[], &["sh", "-c", script])
}

/// A process of the caller's, as managers write it.
fn process(bundle: &Bundle, process: Value) -> String {
    bundle.host_file("process.json", process.to_string()).to_str().unwrap().to_string()
}

/// Says one line that begins as callers know it, with exit status 255.
#[track_caller]
pub fn fails(output: &Output, words: &[&str]) {
    assert_eq!(output.code, 255, "{output}");
    let line = output.stderr.replace("\\\"", "\""); // runc quotes what it says
    assert!(line.contains("exec failed: "), "{output}");
    if on_rrun() {
        assert!(line.starts_with("exec failed: ") && line.lines().count() == 1, "{output}");
    }
    for word in words {
        assert!(line.contains(word), "does not say `{word}`: {output}");
    }
}

#[track_caller]
fn pid_in(bundle: &Bundle, file: &str) -> i32 {
    fs::read_to_string(bundle.dir.join(file)).unwrap().parse().unwrap()
}

/// A process in the background, by its pid as the host sees it.
#[track_caller]
fn detached(bundle: &Bundle, command: &[&str]) -> i32 {
    exec(bundle, &["-d", "--pid-file", "exec.pid"], command).ok();
    pid_in(bundle, "exec.pid")
}

#[test]
fn its_exit_status_is_that_of_the_process() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)] {
        assert_eq!(sh(&bundle, script).code, code, "{script}");
    }
}

#[test]
fn standard_files_are_the_callers() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let call =
        Call::with_stdin(&mut bundle.command(&["exec", &bundle.id, "sh", "-c", "cat; echo err >&2"]), reader.into());
    std::io::Write::write_all(&mut writer, b"hello\n").unwrap();
    drop(writer);
    let output = call.wait();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (0, "hello\n", "err\n"));
}

#[test]
fn it_is_as_the_first_process_is() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [7], "umask": 0o27}));
    bundle.set("/process/env", json!(["PATH=/bin", "A=1"])).set("/process/cwd", "/tmp");
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
    bundle.set("/process/oomScoreAdj", 345);
    running(&bundle);
    let script = "id; pwd; umask; echo $A $HOME; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj; \
                  grep -E '^(Groups|CapBnd|NoNewPrivs)' /proc/self/status";
    let output = sh(&bundle, &script.replace("grep -E", "busybox grep -E"));
    let want = "uid=1000(user) gid=1001 groups=7\n/tmp\n0027\n1 /home/user\n100\n200\n345\n\
                Groups:\t7 \nNoNewPrivs:\t1\nCapBnd:\t0000000000000421\n";
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    if on_rrun() {
        assert_eq!(sorted(output.ok()), sorted(want));
    } else {
        // the others take the limits of their own process
        assert!(output.ok().contains("uid=1000") && output.ok().contains("\n345\n"), "{output}");
    }
}

#[test]
fn flags_change_it() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/noNewPrivileges", false).set("/process/env", json!(["PATH=/bin", "A=1"]));
    running(&bundle);
    let flags = ["-u", "1000:5", "-g", "9", "-g", "10", "-e", "A=2", "-e", "B=3,4", "--cwd", "/etc"];
    let output = exec(&bundle, &flags, &["sh", "-c", "id; pwd; echo $A $B"]);
    assert_eq!(output.ok(), "uid=1000(user) gid=5 groups=5,9,10\n/etc\n2 3,4\n".replace("=5,9,10", &groups(&output)));
    let output = exec(&bundle, &["--no-new-privs"], &["cat", "/proc/self/status"]);
    assert!(output.ok().contains("NoNewPrivs:\t1"), "{output}");
    assert!(sh(&bundle, "cat /proc/self/status").ok().contains("NoNewPrivs:\t0"));
    // a user's gid stays the container's unless it is given
    assert!(exec(&bundle, &["--user", "1000"], &["id"]).ok().starts_with("uid=1000(user) gid=0"));
}

/// busybox prints the primary group among them or not, by version.
fn groups(output: &Output) -> String {
    let line = output.stdout.lines().next().unwrap_or_default();
    let groups = line.split_once("groups").map_or("", |(_, groups)| groups);
    assert!(groups.ends_with("9,10"), "{output}");
    groups.into()
}

// CVE-2022-29162
#[test]
fn a_capability_that_is_added_is_not_inheritable() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let output = exec(&bundle, &["--cap", "CAP_NET_RAW", "--cap=CAP_SYS_TIME"], &["cat", "/proc/self/status"]);
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        assert!(output.ok().contains(&format!("{set}:\t0000000002002421")), "{set}: {output}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert!(output.ok().contains(&format!("{set}:\t0000000000000000")), "{set}: {output}");
    }
}

#[test]
fn a_process_of_the_callers_is_taken_as_it_is() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/user/umask", 0o27).set("/process/oomScoreAdj", 345);
    bundle.set("/process/env", json!(["PATH=/bin", "A=1"]));
    running(&bundle);
    let script = "id -u; pwd; echo $A$B; umask; cat /proc/self/oom_score_adj; cat /proc/self/status";
    let file = process(
        &bundle,
        json!({"args": ["/bin/sh", "-c", script], "cwd": "/tmp", "env": ["PATH=/bin", "B=2"], "user": {"uid": 5, "gid": 6}}),
    );
    // what follows the id is ignored
    let output = bundle.call(&["exec", "--process", &file, &bundle.id, "ignored"]);
    if on_rrun() {
        assert!(output.ok().starts_with("5\n/tmp\n2\n0027\n345\n"), "{output}");
    } else {
        // runc 1.1 has a umask of its own for such a process
        assert!(output.ok().starts_with("5\n/tmp\n2\n") && output.ok().contains("\n345\n"), "{output}");
    }
    assert!(output.ok().contains("NoNewPrivs:\t0"), "no_new_privileges is the process's own: {output}");
    // capabilities are the container's
    assert!(output.ok().contains("CapBnd:\t0000000000000421"), "{output}");
}

#[test]
fn the_bundle_may_be_gone() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let file = process(&bundle, json!({"args": ["pwd"], "cwd": "/tmp", "env": ["PATH=/bin"]}));
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    let command = |args: &[&str]| runtime::run(&mut bundle.command_on_config_as_it_is(args));
    assert_eq!(command(&["exec", "-p", &file, &bundle.id]).ok(), "/tmp\n");
    if on_rrun() {
        assert_eq!(command(&["exec", &bundle.id, "pwd"]).ok(), "/\n");
    }
}

#[test]
fn detached_it_runs_on_and_its_pid_is_told() {
    let bundle = Bundle::sleeping();
    fs::write(bundle.dir.join("exec.pid"), "").unwrap(); // as CRI-O makes it beforehand
    running(&bundle);
    let pid = detached(&bundle, &["sh", "-c", "echo started; exec sleep 1000"]);
    if on_rrun() {
        // others return before that
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert!(program.ends_with("busybox"), "is still {}", program.display());
    }
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let plain = exec(&bundle, &["--detach"], &["sh", "-c", "echo here; exec sleep 1000"]);
    plain.ok();
    assert!(eventually_within(Duration::from_secs(3), || (plain.later() == "here\n").then_some(())).is_some());
}

#[test]
fn the_pid_file_is_there_in_the_foreground_too() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let call = bundle.spawn(&["exec", "--pid-file", "exec.pid", &bundle.id, "sleep", "1000"]);
    let file = bundle.dir.join("exec.pid");
    let pid: Option<i32> = eventually_within(Duration::from_secs(3), || fs::read_to_string(&file).ok()?.parse().ok());
    kill(Pid::from_raw(pid.expect("no pid file")), Signal::SIGKILL).unwrap();
    assert_eq!(call.wait().code, 137);
}

#[test]
fn in_a_paused_container_it_waits_if_it_is_told_to() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    bundle.pause().ok();
    let call = bundle.spawn(&["exec", "--ignore-paused", &bundle.id, "echo", "thawed"]);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(call.so_far(), "");
    bundle.resume().ok();
    assert_eq!(call.wait().ok(), "thawed\n");
}

/// A shell's `<(…)`, or a pipe on stdin.
#[test]
fn a_process_may_come_by_a_pipe() {
    let bundle = Bundle::sh("sleep 1000");
    running(&bundle);
    let (reader, mut writer) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut writer, br#"{"args": ["echo", "piped"], "cwd": "/", "env": ["PATH=/bin"]}"#)
        .unwrap();
    drop(writer);
    let mut command = bundle.command(&["exec", "--process", "/dev/stdin", &bundle.id]);
    assert_eq!(Call::with_stdin(&mut command, reader.into()).wait().ok(), "piped\n");
}

#[test]
fn signals_are_passed_on() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.02; done";
    let call = bundle.spawn(&["exec", &bundle.id, "sh", "-c", script]);
    assert!(eventually_within(Duration::from_secs(5), || (call.so_far() == "ready\n").then_some(())).is_some());
    kill(Pid::from_raw(call.pid()), Signal::SIGTERM).unwrap();
    let output = call.wait();
    assert_eq!((output.code, output.stdout.as_str()), (9, "ready\ngot it\n"));
}

#[test]
fn the_callers_descriptors_do_not_reach_it_but_those_it_was_promised() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let leak = "3</etc/passwd 4</etc/group 5<&- 7</ 12>/dev/null 200</proc";
    let command = |flags: &[&str]| {
        let args = [&["exec"], flags, &[&bundle.id, "sh", "-c", LIST]].concat();
        runtime::run(&mut by_shell(&bundle, leak, &args))
    };
    assert_eq!(command(&[]).ok(), "0\n1\n2\n");
    assert_eq!(command(&["--preserve-fds", "2"]).ok(), "0\n1\n2\n3\n4\n");
    if on_rrun() {
        // others leave it to the process to miss one
        fails(&command(&["--preserve-fds", "3"]), &["5"]);
    }
}

#[test]
fn the_end_of_the_container_ends_it() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let call = bundle.spawn(&["exec", &bundle.id, "sleep", "1000"]);
    // it is there before it has executed its program
    let sleeps = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    let both = || {
        let listed = bundle.call(&["ps", "--format", "json", &bundle.id]);
        let pids: Vec<i32> = serde_json::from_str(listed.ok()).unwrap();
        (pids.len() == 2 && pids.iter().all(sleeps)).then_some(())
    };
    assert!(eventually_within(Duration::from_secs(5), both).is_some());
    bundle.delete_force().ok();
    assert_eq!(call.wait().code, 137);
    bundle.leaves_nothing();
}

#[test]
fn an_exec_that_is_killed_early_leaves_no_process() {
    need!(rrun); // others leave what has been started
    let bundle = Bundle::sleeping();
    running(&bundle);
    let init = bundle.pid();
    for delay in [0, 1, 2, 3, 4, 6, 8, 12] {
        let mut exec = bundle
            .command(&["exec", "-d", "--pid-file", "exec.pid", &bundle.id, "sleep", "1000"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        let _ = exec.kill();
        exec.wait().unwrap();
        let told = fs::read_to_string(bundle.dir.join("exec.pid")).ok().and_then(|pid| pid.parse::<i32>().ok());
        let only = |pids: &[i32]| pids.iter().all(|pid| *pid == init || Some(*pid) == told);
        let inside =
            || -> Vec<i32> { serde_json::from_str(&bundle.call(&["ps", "-f", "json", &bundle.id]).stdout).unwrap() };
        let settled = eventually_within(Duration::from_secs(3), || only(&inside()).then_some(()));
        assert!(settled.is_some(), "after {delay} ms: {:?} run, and the pid file says {told:?}", inside());
        if let Some(pid) = told {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            fs::remove_file(bundle.dir.join("exec.pid")).unwrap();
        }
    }
}
