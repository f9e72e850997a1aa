//! A container's life under dockerd, from `create` to `rm`, and what is executed inside meanwhile.

use std::time::Duration;

use crate::daemon::{TALK, asks, docker, talks_at_a_terminal};
use crate::runtime::{Output, eventually_within, wait_within};
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
}

/// Every capability that a privileged container has, in one that has few. Where the daemon lacks one, runc gives up.
#[test]
fn a_privileged_exec() {
    need!(rrun);
    let _box = Sleeper::new("ordinary", "");
    let all = sh("docker run --rm --privileged box grep CapEff /proc/self/status").ok().to_string();
    assert_ne!(all, sh("docker exec ordinary grep CapEff /proc/self/status").stdout);
    prints("docker exec --privileged ordinary grep CapEff /proc/self/status", &all);
}

#[test]
fn exec_with_a_terminal() {
    let _box = Sleeper::new("typed", "");
    talks_at_a_terminal(docker().command(&format!("docker exec -it typed sh -c '{TALK}'")));
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
    sh("docker run -d --name always --restart always box sh -c 'sleep 0.2'").ok();
    sh("docker run -d --name until --restart unless-stopped --init box sleep 1000").ok();
    let state =
        |name: &str| sh(&format!("docker inspect -f '{{{{.RestartCount}}}} {{{{.State.Status}}}}' {name}")).stdout;
    let becomes = |name: &str, is_so: &dyn Fn(&str) -> bool| {
        eventually_within(Duration::from_secs(15), || is_so(&state(name)).then_some(()))
            .unwrap_or_else(|| panic!("{name}: {}", state(name)));
    };
    becomes("again", &|state| state == "2 exited\n");
    becomes("always", &|state| state.split(' ').next().is_some_and(|count| count.parse::<u32>().is_ok_and(|n| n >= 3)));
    // what ends from inside or by another's signal comes again, what docker stops does not
    sh("kill -9 $(docker inspect -f '{{.State.Pid}}' until)").ok();
    becomes("until", &|state| state == "1 running\n");
    sh("docker stop -t 5 until").ok();
    becomes("until", &|state| state == "1 exited\n");
    sh("docker rm -f again always until").ok();
}

#[test]
fn an_init_of_dockers_reaps() {
    let _box = Sleeper::new("reaped", "--init");
    prints("docker exec reaped cat /proc/1/comm", "docker-init\n");
    sh("docker exec reaped sh -c '(sleep 0.1 &) ; (sleep 0.1 &)'").ok();
    let zombies = || (sh("docker exec reaped ps -o stat | grep -c Z").stdout == "0\n").then_some(());
    eventually_within(Duration::from_secs(5), zombies).expect("zombies stay");
}

/// What dockerd asks of the runtime and of its shims, for many at the same time.
#[test]
fn a_hundred_containers_at_once() {
    let begun = "for i in $(seq 100); do docker run -d --network none --name many-$i --label many box sleep 1000 & \
         [ $((i % 10)) != 0 ] || wait; done; wait";
    assert_eq!(sh(begun).stdout.lines().count(), 100);
    let many = "docker ps -q --filter label=many --filter status=";
    prints(&format!("{many}running | wc -l"), "100\n");
    prints("for i in $(seq 10 10 100); do docker exec many-$i echo $i; done | wc -l", "10\n");
    sh(&format!("{many}running | xargs docker kill")).ok();
    prints(&format!("{many}exited | wc -l"), "100\n");
    sh("docker ps -aq --filter label=many | xargs docker rm -f").ok();
}

/// A container whose shim dies is dead for docker, and can be removed or started again.
#[test]
fn a_killed_shim_ends_its_container() {
    for command in ["docker rm -f orphan", "docker start orphan && docker exec orphan true && docker rm -f orphan"] {
        sh("docker run -d --name orphan --network none box sleep 1000").ok();
        let pid = sh("docker inspect -f '{{.State.Pid}}' orphan").ok().trim().to_string();
        sh(&format!("kill -9 $(ps -o ppid= -p {pid})")).ok();
        let ended = || (status("orphan") == "exited").then_some(());
        eventually_within(Duration::from_secs(15), ended).unwrap_or_else(|| panic!("{}", status("orphan")));
        let output = sh(&format!("kill -0 {pid} && echo alive; {command}"));
        assert!(output.code == 0 && !output.stdout.contains("alive"), "{output}");
    }
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

/// Left by its keys, the container goes on; its terminal is the same for who comes next.
#[test]
fn attach_to_a_terminal() {
    let script = "while read line; do echo got $line; done";
    sh(&format!("docker run -dit --name seen box sh -c '{script}'")).ok();
    for word in ["one", "two"] {
        let mut terminal = Terminal::new(20, 70);
        let mut command = docker().command("docker attach seen");
        let mut child =
            command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
        asks(&mut terminal, &format!("{word}\r"), &format!("got {word}"));
        terminal.master.types("\x10\x11");
        terminal.master.hears("read escape sequence");
        wait_within(&mut child, Duration::from_secs(10)).expect("it stays attached");
        assert_eq!(status("seen"), "running");
    }
    sh("docker rm -f seen").ok();
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
    prints(
        "cd $DIR; echo one > one; docker cp one copied:/tmp/two 2>/dev/null; docker exec copied cat /tmp/two",
        "one\n",
    );
    prints("docker cp copied:/tmp/two - | tar -xO", "one\n");
    assert!(sh("docker diff copied").ok().contains("A /tmp/two"));
    assert_eq!(sh("docker run --name refused box nosuch").code, 127);
    assert_eq!(status("refused"), "created");
    sh("docker rm refused").ok();
}

/// As docker reads it: the last line with the word `version`, and the line of the commit.
#[test]
fn info_names_the_runtime() {
    let said = crate::runtime::run(std::process::Command::new(crate::runtime::path()).arg("--version"));
    let line =
        |key: &str| said.stdout.lines().find_map(|line| line.split_once(key)).map(|(_, rest)| rest.trim().to_string());
    let (version, commit) = (line("version ").unwrap(), line("commit: ").unwrap_or_default());
    prints("docker info --format '{{.DefaultRuntime}} {{.RuncCommit.ID}}'", &format!("rrun {commit}\n"));
    let components = "docker version --format '{{range .Server.Components}}{{.Name}} {{.Version}}\n{{end}}'";
    let output = sh(components);
    assert!(output.ok().lines().any(|line| line == format!("rrun {version}")), "{output}");
}
