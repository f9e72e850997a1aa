//! A container's life under dockerd, from `create` to `rm`, and what is executed inside meanwhile.

use std::time::Duration;

use crate::daemon::docker;
use crate::runtime::{Output, eventually_within, on_rrun};
use crate::tty::Terminal;

fn sh(line: &str) -> Output {
    docker().sh(line)
}

#[track_caller]
fn prints(line: &str, want: &str) {
    let output = sh(line);
    assert!(output.code == 0 && output.stdout == want, "{output}");
}

fn status(name: &str) -> String {
    sh(&format!("docker inspect -f '{{{{.State.Status}}}}' {name}")).stdout.trim().to_string()
}

/// A container that sleeps, removed with what it left at the end.
struct Sleeper(&'static str);

impl Sleeper {
    fn new(name: &'static str, options: &str) -> Self {
        sh(&format!("docker run -d --name {name} {options} box sleep 1000")).ok();
        Self(name)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        sh(&format!("docker rm -f {}", self.0));
    }
}

#[test]
fn exec() {
    let _box = Sleeper::new("executed", "");
    prints("docker exec executed echo in", "in\n");
    prints("docker exec -u 1000 -w /tmp -e X=1 executed sh -c 'id -u; pwd; echo $X'", "1000\n/tmp\n1\n");
    prints("echo typed | docker exec -i executed cat", "typed\n");
    assert_eq!(sh("docker exec executed sh -c 'exit 9'").code, 9);
    assert_eq!(sh("docker exec executed sh -c 'kill -9 $$'").code, 137);
    for program in ["nosuch", "/etc/passwd"] {
        let output = sh(&format!("docker exec executed {program}"));
        assert!(output.code == 126 && output.stdout.contains("exec failed: "), "{output}");
    }
    sh("docker exec -d executed sleep 555").ok();
    prints("docker top executed -eo pid,args | grep -c 'sleep 555'", "1\n");
    // where the host itself lacks a capability, runc gives up
    if on_rrun() {
        prints("docker exec --privileged executed sh -c 'mount -t tmpfs t /tmp && echo mounted'", "mounted\n");
    }
}

#[test]
fn exec_with_a_terminal() {
    let _box = Sleeper::new("typed", "");
    let mut terminal = Terminal::new(20, 70);
    let mut command = docker()
        .command("docker exec -it typed sh -c 'tty; until stty size 2>&1 | grep -q 20; do sleep 0.1; done; stty size; read line; echo got $line; exit 5'");
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    terminal.master.hears("20 70");
    terminal.master.types("word\r");
    terminal.master.hears("got word");
    assert_eq!(child.wait().unwrap().code(), Some(5));
}

#[test]
fn pause_and_unpause() {
    let _box = Sleeper::new("paused", "");
    sh("docker pause paused").ok();
    assert_eq!(status("paused"), "paused");
    let refused = sh("docker exec paused true");
    assert!(refused.code == 1 && refused.stderr.contains("is paused"), "{refused}");
    sh("docker unpause paused").ok();
    assert_eq!(status("paused"), "running");
    prints("docker exec paused echo on", "on\n");
    sh("docker pause paused").ok();
    sh("docker rm -f paused").ok();
}

#[test]
fn kill_stop_restart_and_wait() {
    let _box = Sleeper::new("ended", "--init");
    let waiting = docker().begin("docker wait ended");
    sh("docker kill --signal TERM ended").ok();
    assert_eq!(waiting.wait().ok(), "143\n");
    sh("docker start ended").ok();
    sh("docker restart -t 1 ended").ok();
    assert_eq!(status("ended"), "running");
    sh("docker stop -t 5 ended").ok();
    prints("docker inspect -f '{{.State.ExitCode}}' ended", "143\n");
    sh("docker start ended").ok();
    sh("docker kill ended").ok();
    assert_eq!(status("ended"), "exited");
}

#[test]
fn restart_policies() {
    sh("docker run -d --name again --restart on-failure:2 box sh -c 'exit 3'").ok();
    let count = || sh("docker inspect -f '{{.RestartCount}} {{.State.Status}}' again").stdout;
    eventually_within(Duration::from_secs(15), || (count() == "2 exited\n").then_some(()))
        .unwrap_or_else(|| panic!("{}", count()));
    sh("docker rm again").ok();
}

#[test]
fn logs_top_stats_and_events() {
    sh("docker run -d --name talks box sh -c 'echo out; echo err >&2; sleep 1000'").ok();
    eventually_within(Duration::from_secs(5), || (sh("docker logs talks").stdout == "out\n").then_some(())).unwrap();
    assert_eq!(sh("docker logs talks").stderr, "err\n");
    assert!(sh("docker top talks").ok().contains("sleep 1000"));
    prints("docker stats --no-stream --format '{{.PIDs}}' talks | grep -c '^[12]$'", "1\n");
    sh("docker rm -f talks").ok();
    let events = sh("timeout 2 docker events --since 60s --filter container=talks --format '{{.Action}}'; true");
    for action in ["create", "start", "die", "destroy"] {
        assert!(events.ok().lines().any(|line| line == action), "{action}: {events}");
    }
}

#[test]
fn attach() {
    sh("docker run -d -i --name attached box sh -c 'read line; echo got $line; sleep 0.2; exit 4'").ok();
    let output = sh("(echo word; sleep 1) | docker attach attached");
    assert!(output.stdout == "got word\n", "{output}");
    prints("docker wait attached; docker rm attached", "4\nattached\n");
}

#[test]
fn health() {
    sh("docker run -d --name healthy --health-cmd 'test -e /tmp/well' --health-interval 0.5s --health-retries 2 box sleep 1000").ok();
    let health = |want: &str| {
        let ask = || sh("docker inspect -f '{{.State.Health.Status}}' healthy").stdout;
        eventually_within(Duration::from_secs(20), || (ask().trim() == want).then_some(()))
            .unwrap_or_else(|| panic!("{}", ask()));
    };
    health("unhealthy");
    sh("docker exec healthy touch /tmp/well").ok();
    health("healthy");
    sh("docker rm -f healthy").ok();
}

#[test]
fn files_in_and_out() {
    let _box = Sleeper::new("copied", "");
    prints("cd $DIR; echo one > one; docker cp -q one copied:/tmp/two; docker exec copied cat /tmp/two", "one\n");
    prints("docker cp copied:/tmp/two - | tar -xO", "one\n");
    assert!(sh("docker diff copied").ok().contains("A /tmp/two"));
    assert_eq!(sh("docker run --name refused box nosuch").code, 127);
    assert_eq!(status("refused"), "created");
    sh("docker rm refused").ok();
}

#[test]
fn info_names_the_runtime() {
    let output = sh("docker info --format '{{.DefaultRuntime}} {{json .RuncCommit}}'");
    assert!(output.ok().starts_with("tried "), "{output}");
}
