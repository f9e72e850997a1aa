//! Podman with conmon: no daemon, so the runtime is called by what the user started, and by conmon.

use std::time::Duration;

use crate::daemon::{asks, podman};
use crate::runtime::{Output, eventually_within};
use crate::tty::Terminal;

fn sh(line: &str) -> Output {
    podman().sh(line)
}

/// Options of every container: one of this run's cgroups, and a network without plugins of the host's.
const USUAL: &str = "--cgroup-parent /$(basename $DIR) --network none";

fn run(words: &str) -> Output {
    sh(&format!("podman run --rm {USUAL} {words}"))
}

#[track_caller]
fn prints(line: &str, want: &str) {
    let output = sh(line);
    assert!(output.code == 0 && output.stdout == want, "{output}");
}

#[track_caller]
fn run_prints(words: &str, want: &str) {
    let output = run(words);
    assert!(output.code == 0 && output.stdout == want, "{output}");
}

fn asked(name: &str, what: &str) -> String {
    sh(&format!("podman inspect -f '{{{{.State.{what}}}}}' {name}")).stdout.trim().to_string()
}

struct Sleeper(&'static str);

impl Sleeper {
    fn new(name: &'static str, options: &str) -> Self {
        sh(&format!("podman run -d --name {name} {USUAL} {options} box sleep 1000")).ok();
        Self(name)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        sh(&format!("podman rm -f -t 0 {}", self.0));
    }
}

#[test]
fn output_and_exit_code_are_those_of_the_program() {
    let output = run("box sh -c 'echo out; echo err >&2; exit 7'");
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(run("box sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'").code, 137);
    assert_eq!(sh(&format!("echo typed | podman run --rm -i {USUAL} box cat")).ok(), "typed\n");
}

/// No JSON of a runtime whose name podman does not know, so these are made of what stderr says.
#[test]
fn errors_give_the_usual_exit_codes() {
    for (program, code, says) in [
        ("nosuch", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "/etc"),
    ] {
        let output = run(&format!("box {program}"));
        assert!(output.code == code && output.stderr.contains(says), "{output}");
    }
}

#[test]
fn exec() {
    let _box = Sleeper::new("executed", "");
    prints("podman exec executed echo in", "in\n");
    prints("podman exec -u 1000 -w /tmp -e X=1 executed sh -c 'id -u; pwd; echo $X'", "1000\n/tmp\n1\n");
    assert_eq!(sh("podman exec executed sh -c 'exit 9'").code, 9);
    for (program, code) in [("nosuch", 127), ("/etc/passwd", 126)] {
        let output = sh(&format!("podman exec executed {program}"));
        assert_eq!(output.code, code, "{output}");
    }
    sh("podman exec -d executed sleep 555").ok();
    assert!(sh("podman top executed").ok().contains("sleep 555"));
}

#[test]
fn a_terminal() {
    let _box = Sleeper::new("typed", "");
    let script =
        "tty; until stty size 2>&1 | grep -q 20; do sleep 0.1; done; stty size; read line; echo got $line; exit 5";
    for line in [format!("podman run --rm -it {USUAL} box"), "podman exec -it typed".to_string()] {
        let mut terminal = Terminal::new(20, 70);
        let mut command = podman().command(&format!("{line} sh -c '{script}'"));
        let mut child =
            command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
        terminal.master.hears("/dev/pts/0");
        terminal.master.hears("20 70");
        asks(&mut terminal, "word\r", "got word");
        assert_eq!(child.wait().unwrap().code(), Some(5), "{line}");
    }
}

#[test]
fn a_container_lives() {
    let _box = Sleeper::new("lives", "");
    prints("podman inspect -f '{{.OCIRuntime}}' lives", "rrun\n");
    sh("podman pause lives").ok();
    assert_eq!(asked("lives", "Status"), "paused");
    sh("podman unpause lives").ok();
    assert_eq!(asked("lives", "Status"), "running");
    prints("podman stats --no-stream --format '{{.PIDs}}' lives", "1\n");
    sh("podman restart -t 0 lives").ok();
    sh("podman kill lives").ok();
    prints("podman wait lives", "137\n");
    assert_eq!(asked("lives", "ExitCode"), "137");
    sh("podman start lives").ok();
    assert_eq!(sh("podman stop -t 0 lives").code, 0);
    assert_eq!(asked("lives", "Status"), "exited");
    sh("podman rm lives").ok();
    // its cgroup is conmon's to leave, and the container's is gone
    let id = "find /sys/fs/cgroup -type d -path \"*/$(basename $DIR)/libpod-*\" -not -path '*/libpod-conmon*' | wc -l";
    let gone = || (sh(&format!("podman ps -q | wc -l; {id}")).stdout.lines().count() == 2).then_some(());
    eventually_within(Duration::from_secs(5), gone).unwrap();
}

#[test]
fn logs_are_those_of_the_program() {
    sh(&format!("podman run -d --name talks {USUAL} box sh -c 'echo out; echo err >&2; sleep 1000'")).ok();
    let said = || Some(sh("podman logs talks")).filter(|logs| logs.stdout == "out\n" && logs.stderr == "err\n");
    eventually_within(Duration::from_secs(5), said).unwrap_or_else(|| panic!("{}", sh("podman logs talks")));
    sh("podman rm -f -t 0 talks").ok();
}

/// Its processes are no namespace's, so each of them is killed.
#[test]
fn a_container_of_the_hosts_pids_is_stopped() {
    sh(&format!("podman run -d --name shares --pid host {USUAL} box sh -c 'sleep 777 & sleep 778'")).ok();
    let seen = || (sh("pgrep -fx 'sleep 77[78]'").stdout.lines().count() == 2).then_some(());
    eventually_within(Duration::from_secs(5), seen).unwrap();
    sh("podman stop -t 0 shares").ok();
    let gone = || (sh("pgrep -fx 'sleep 77[78]'").code == 1).then_some(());
    eventually_within(Duration::from_secs(5), gone).expect("they live on");
    sh("podman rm shares").ok();
}

#[test]
fn limits_are_in_the_cgroup() {
    let _box = Sleeper::new("limited", "-m 64m --pids-limit 55 --cpus 0.5");
    let file = |name: &str| sh(&format!("podman exec limited cat /sys/fs/cgroup/{name}")).ok().trim().to_string();
    assert_eq!(file("memory/memory.limit_in_bytes"), "67108864");
    assert_eq!(file("pids/pids.max"), "55");
    assert_eq!(file("cpu/cpu.cfs_quota_us"), "50000");
    let path = sh("cat /proc/$(podman inspect -f '{{.State.Pid}}' limited)/cgroup").ok().to_string();
    assert!(path.lines().any(|line| line.contains("/rrun-podman-") && line.contains("/libpod-")), "{path}");
    let output = sh(&format!("podman run --name hungry -m 10m --memory-swap 10m {USUAL} box tail /dev/zero"));
    assert_eq!(output.code, 137, "{output}");
    sh("podman rm hungry").ok();
}

#[test]
fn users_are_mapped() {
    run_prints("--uidmap 0:100000:65536 box sh -c 'id -u; tr -s \" \" </proc/self/uid_map'", "0\n 0 100000 65536\n");
    run_prints("--userns host -u 1000 box id -u", "1000\n");
    run_prints("-u 5 --uidmap 0:200000:10 --gidmap 0:200000:10 box id -u", "5\n");
}

#[test]
fn descriptors_are_handed_on() {
    run_prints("--preserve-fds 1 box sh -c 'read line <&3; echo $line' 3<$DIR/image/etc/group", "root:x:0:\n");
}

#[test]
fn a_pod() {
    sh("podman pod create --name pod --network none --cgroup-parent /$(basename $DIR) --infra-image pause").ok();
    sh("podman run -d --pod pod --name one box sleep 1000 && podman run -d --pod pod --name two box sleep 1000").ok();
    let namespace = |name: &str, kind: &str| sh(&format!("podman exec {name} readlink /proc/self/ns/{kind}")).stdout;
    for (kind, is_shared) in [("net", true), ("ipc", true), ("uts", true), ("pid", false), ("mnt", false)] {
        assert_eq!(namespace("one", kind) == namespace("two", kind), is_shared, "{kind}");
    }
    sh("podman pod pause pod && podman pod unpause pod").ok();
    assert_eq!(sh("podman pod stop -t 0 pod").code, 0);
    assert_eq!(asked("two", "Status"), "exited");
    sh("podman pod rm -f pod").ok();
    prints("podman ps -aq --filter pod=pod | wc -l", "0\n");
}
