//! containerd's own client: tasks, terminals, user namespaces, and shims that die.

use std::time::Duration;

use crate::daemon::{TALK, asks, containerd, talks_at_a_terminal};
use crate::runtime::{self, Output, eventually_within};
use crate::tty::Terminal;

fn sh(line: &str) -> Output {
    containerd().sh(line)
}

fn ctr_run(options: &str, name: &str, command: &str) -> String {
    let runtime = runtime::path().display();
    format!(
        "ctr run --runc-binary {runtime} --cgroup /$(basename $DIR)/{name} {options} --env PATH=/bin --rootfs $DIR/image {name} {command}"
    )
}

/// A detached container that sleeps.
struct Task(&'static str);

impl Task {
    fn new(name: &'static str, options: &str) -> Self {
        sh(&ctr_run(&format!("-d {options}"), name, "sleep 1000")).ok();
        Self(name)
    }

    fn status(&self) -> String {
        let listed = sh("ctr task ls").stdout;
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(self.0));
        line.and_then(|line| line.split_whitespace().nth(2)).unwrap_or("none").to_string()
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        sh(&format!("ctr task delete -f {0}; ctr container delete {0}", self.0));
    }
}

#[test]
fn run_gives_output_and_exit_code() {
    assert_eq!(sh(&ctr_run("--rm", "hello", "echo hi")).ok(), "hi\n");
    assert_eq!(sh(&ctr_run("--rm", "exits", "sh -c 'exit 7'")).code, 7);
    let refused = sh(&ctr_run("--rm", "refused", "nosuch"));
    assert!(refused.code == 1 && refused.stderr.contains("executable file not found in $PATH"), "{refused}");
}

#[test]
fn options_of_run() {
    let cgroups = "--mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro";
    for (options, command, want) in [
        ("--cwd /tmp", "pwd", "/tmp\n"),
        ("--env A=1", "sh -c 'echo $A'", "1\n"),
        ("--memory-limit 67108864 $CGROUPS", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
        ("--cpus 0.5 $CGROUPS", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
        ("--seccomp", "grep Seccomp: /proc/self/status", "Seccomp:\t2\n"),
        ("--allow-new-privs", "grep NoNew /proc/self/status", "NoNewPrivs:\t0\n"),
        ("", "grep NoNew /proc/self/status", "NoNewPrivs:\t1\n"),
        ("--mount type=bind,src=$DIR/image/etc,dst=/mnt,options=rbind:ro", "ls /mnt", "group\npasswd\n"),
        ("--device /dev/fuse", "stat -c %t:%T /dev/fuse", "a:e5\n"),
    ] {
        let options = options.replace("$CGROUPS", cgroups);
        assert_eq!(sh(&ctr_run(&format!("--rm {options}"), "options", command)).ok(), want, "{options}");
    }
}

#[test]
fn a_terminal() {
    talks_at_a_terminal(containerd().command(&ctr_run("--rm -t", "terminal", &format!("sh -c '{TALK}'"))));
}

#[test]
fn exec_in_a_task() {
    let _task = Task::new("executed", "");
    // ctr stops reading when it hears of the end, whether it has begun to or not
    let exec = |options: &str, script: &str| {
        sh(&format!(
            "ctr task exec --exec-id e$RANDOM {options} executed sh -c '{script}; status=$?; sleep 0.3; exit $status'"
        ))
    };
    assert_eq!(exec("", "echo in").ok(), "in\n");
    assert_eq!(exec("--cwd /tmp", "pwd").ok(), "/tmp\n");
    assert_eq!(exec("--user 1000", "id -u").ok(), "1000\n");
    assert_eq!(exec("", "sh -c \"exit 9\"").code, 9);
    let refused = sh("ctr task exec --exec-id refused executed nosuch");
    assert!(refused.code == 1 && refused.stderr.contains("executable file not found in $PATH"), "{refused}");
    let mut terminal = Terminal::new(20, 70);
    let mut command =
        containerd().command("ctr task exec --exec-id t -t executed sh -c 'tty; read line; echo got $line; exit 5'");
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    asks(&mut terminal, "word\r", "got word");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn pause_resume_kill_and_delete() {
    let task = Task::new("lives", "");
    sh("ctr task pause lives").ok();
    assert_eq!(task.status(), "PAUSED");
    sh("ctr task resume lives").ok();
    assert_eq!(task.status(), "RUNNING");
    assert!(sh("ctr task delete lives").code != 0);
    sh("ctr task kill -s KILL lives").ok();
    eventually_within(Duration::from_secs(5), || (task.status() == "STOPPED").then_some(())).unwrap();
    let late = sh("ctr task kill -s KILL lives");
    assert!(late.code == 1 && late.stderr.contains("not found"), "{late}");
    // ctr warns of the exit code
    assert_eq!(sh("ctr task delete lives").code, 0);
    assert_eq!(task.status(), "none");
}

#[test]
fn ps_and_metrics() {
    let task = Task::new("counted", "");
    let pid = sh("ctr task ps counted")
        .ok()
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
    assert!(pid.is_some_and(|pid| pid > 1));
    let metrics = sh("ctr task metrics counted");
    assert!(metrics.ok().contains("memory.usage_in_bytes") && metrics.stdout.contains("pids.current"), "{metrics}");
    assert_eq!(task.status(), "RUNNING");
}

#[test]
fn user_namespaces() {
    let image = ctr_run(
        "--rm --uidmap 0:100000:65536 --gidmap 0:100000:65536",
        "mapped",
        "sh -c 'id -u; cat /proc/self/uid_map'",
    );
    let line = image.replace("--rootfs $DIR/image", "docker.io/library/box:latest");
    let output = sh(&line);
    let words: Vec<&str> = output.ok().split_whitespace().collect();
    assert_eq!(words, ["0", "0", "100000", "65536"], "{output}");
}

#[test]
fn a_root_of_ones_own() {
    let _task = Task::new("rooted", "--runc-root $DIR/own");
    let recorded = containerd().dir.join("own/default/rooted");
    assert!(recorded.is_dir(), "{}", recorded.display());
    sh("ctr task kill -s KILL rooted").ok();
    let gone = || (sh("ctr task delete rooted").code == 0 || !recorded.exists()).then_some(());
    eventually_within(Duration::from_secs(5), gone).unwrap();
    assert!(!recorded.exists(), "{}", recorded.display());
}

#[test]
fn namespaces_of_another_task() {
    let _first = Task::new("first", "");
    let pid = sh("ctr task ls")
        .stdout
        .lines()
        .find(|line| line.starts_with("first "))
        .and_then(|line| line.split_whitespace().nth(1).map(String::from))
        .unwrap();
    for (kind, name) in [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")] {
        let exec = format!("ctr task exec --exec-id e$RANDOM first sh -c 'readlink /proc/self/ns/{name}; sleep 0.3'");
        let own = sh(&exec).ok().to_string();
        // the daemon has a pid namespace of its own, and there the path is meant
        let line = ctr_run(
            &format!("--rm --with-ns {kind}:/proc/{pid}/ns/{name}"),
            "second",
            &format!("readlink /proc/self/ns/{name}"),
        );
        assert_eq!(sh(&line).ok(), own, "{kind}");
    }
}

/// A shim that is killed takes nothing with it that cannot be removed.
#[test]
fn a_killed_shim_is_cleaned_up_after() {
    for delay in ["0", "0.02", "0.05", "0.1", "0.3"] {
        let name = "orphan";
        let begun = containerd().begin(&ctr_run("-d", name, "sleep 1000"));
        std::thread::sleep(Duration::from_secs_f64(delay.parse().unwrap()));
        for pid in shims(name) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        begun.wait();
        let gone = || {
            sh(&format!("ctr task delete -f {name}; ctr container delete {name}"));
            let left = [sh("ctr task ls -q; ctr container ls -q").stdout, sleepers(name)];
            left.iter().all(|left| !left.contains(name)).then_some(())
        };
        eventually_within(Duration::from_secs(20), gone)
            .unwrap_or_else(|| panic!("after {delay} s: {}", sh("ctr task ls; ctr container ls")));
    }
}

/// The shim of this run's daemon for one container.
fn shims(name: &str) -> Vec<i32> {
    let address = containerd().dir.join("containerd.sock").display().to_string();
    let is_ours = |line: &str| line.contains(&address) && line.contains(&format!("-id {name} "));
    processes()
        .into_iter()
        .filter(|(_, line)| line.contains("containerd-shim") && is_ours(&format!("{line} ")))
        .map(|(pid, _)| pid)
        .collect()
}

/// Directories of the container that the runtime still has.
fn sleepers(name: &str) -> String {
    let cgroups =
        runtime::run(std::process::Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", name]));
    cgroups.stdout
}

fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        Some((pid, std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?.replace('\0', " ")))
    })
    .collect()
}
