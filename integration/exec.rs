//! `exec`: one more process in a container that runs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::runtime::{self, Call, DEADLINE, Output, eventually_within, on_rrun, wait_within};
use crate::stdio::{LIST, by_shell};
use crate::tty::{ConsoleSocket, Terminal};
use crate::userns::{give, mapped, we_may_raise_limits};

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

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

fn namespaces(pid: i32) -> Vec<String> {
    KINDS.iter().map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()).collect()
}

/// Lines of `/proc/PID/cgroup`.
fn cgroups(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

#[test]
fn it_is_where_init_is() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    if crate::need::namespace("time") {
        bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    }
    let init = running(&bundle).pid();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(namespaces(pid), namespaces(init));
    assert_eq!(cgroups(pid), cgroups(init));
    let root = |pid| fs::metadata(format!("/proc/{pid}/root/")).map(|root| std::os::unix::fs::MetadataExt::ino(&root));
    assert_eq!(root(pid).unwrap(), root(init).unwrap());
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
fn what_is_wrong_with_the_program_is_said_as_create_says_it() {
    let bundle = Bundle::sleeping();
    bundle.image_file("text", "no program");
    bundle.image_file("bin/bad", "#!/missing/interpreter\n");
    running(&bundle);
    for (program, words) in [
        ("nothing", &["exec: \"nothing\": executable file not found in $PATH"][..]),
        ("/missing", &["exec: \"/missing\": stat /missing: no such file or directory"]),
        ("/text", &["exec: \"/text\": permission denied"]),
    ] {
        let output = exec(&bundle, &["--pid-file", "pid"], &[program]);
        fails(&output, words);
        assert!(!bundle.dir.join("pid").exists(), "{program}: a pid file is left");
    }
    let output = exec(&bundle, &["-d", "--pid-file", "pid"], &["/etc"]);
    fails(&output, if on_rrun() { &["exec: \"/etc\": is a directory"] } else { &["/etc"] });
    if on_rrun() {
        fails(&exec(&bundle, &[], &["bad"]), &["its interpreter /missing/interpreter"]);
    }
    bundle.wait_until("running");
}

#[test]
fn what_only_execve_can_tell_is_told_too() {
    need!(rrun); // of others it is the process that ends
    let bundle = Bundle::sleeping();
    let program = bundle.image_file("nonsense", "neither this nor that");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    running(&bundle);
    for flags in [&[][..], &["-d"], &["-d", "--pid-file", "pid"], &["--pid-file", "pid"]] {
        fails(&exec(&bundle, flags, &["/nonsense"]), &["exec format error (ENOEXEC)"]);
        assert!(!bundle.dir.join("pid").exists(), "{flags:?}: a pid file is left");
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
fn it_needs_a_container_that_is_there_and_not_frozen() {
    let bundle = Bundle::sleeping();
    fails(&sh(&bundle, "true"), &["container does not exist"]);
    bundle.create().ok();
    assert_eq!(sh(&bundle, "echo in a created one").ok(), "in a created one\n");
    assert_eq!(bundle.status(), "created");
    bundle.start().ok();
    bundle.pause().ok();
    fails(&sh(&bundle, "true"), &["cannot exec in a paused container (use --ignore-paused to override)"]);
    bundle.resume().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    fails(&sh(&bundle, "true"), &["cannot exec in a stopped container"]);
}

// Its namespaces are gone by then: to say that a file of them is missing would be docker's "command not found".
#[test]
fn a_container_that_cannot_end_yet_is_stopped_to_it() {
    need!(rrun); // others tell what was missing
    let bundle = Bundle::sleeping();
    running(&bundle);
    let waits = bundle.spawn(&["exec", &bundle.id, "sleep", "1000"]);
    let inside = || fs::read_to_string(format!("/proc/{}/task/{0}/children", waits.pid())).ok()?.trim().parse().ok();
    let inside: i32 = eventually_within(DEADLINE, inside).unwrap();
    eventually_within(DEADLINE, || fs::read_to_string(format!("/proc/{inside}/comm")).ok().filter(|c| c == "sleep\n"));
    let init = Pid::from_raw(bundle.pid());
    // its process is not reaped, and init ends when everybody inside is
    kill(Pid::from_raw(waits.pid()), Signal::SIGSTOP).unwrap();
    kill(init, Signal::SIGKILL).unwrap();
    let ending = || (!fs::exists(format!("/proc/{init}/ns/mnt")).unwrap()).then_some(());
    eventually_within(DEADLINE, ending).expect("its namespaces are gone");
    fails(&exec(&bundle, &[], &["true"]), &["cannot exec in a stopped container"]);
    kill(Pid::from_raw(waits.pid()), Signal::SIGCONT).unwrap();
    assert_eq!(waits.wait().code, 137);
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

#[test]
fn a_manager_gets_its_terminal() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let socket = ConsoleSocket::new(&bundle.dir);
    let flags = ["-t", "-d", "--pid-file", "pid", "--console-socket", socket.path.to_str().unwrap()];
    exec(&bundle, &flags, &["sh", "-c", "tty; read line; echo \"heard $line\"; echo x > /dev/tty"]).ok();
    let mut master = socket.receive();
    master.hears("/dev/pts/0\r\n");
    master.types("hello\n");
    master.hears("heard hello\r\n");
    master.hears("x\r\n");
    // the container's console is its first process's
    assert!(sh(&bundle, "[ -e /dev/console ]").code != 0 || !on_rrun());
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
fn a_terminal_of_the_callers_process_has_its_size() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let socket = ConsoleSocket::new(&bundle.dir);
    let terminal = json!({"args": ["stty", "size"], "cwd": "/", "env": ["PATH=/bin"], "terminal": true,
        "consoleSize": {"height": 41, "width": 123}, "user": {"uid": 1000, "gid": 1000}});
    let file = process(&bundle, terminal);
    bundle.call(&["exec", "-d", "--console-socket", socket.path.to_str().unwrap(), "-p", &file, &bundle.id]).ok();
    socket.receive().hears("41 123\r\n");
}

/// In front of a person's terminal.
fn in_front_of(terminal: &Terminal, bundle: &Bundle, script: &str) -> std::process::Child {
    let mut command = bundle.command(&["exec", "-t", &bundle.id, "sh", "-c", script]);
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    command.spawn().unwrap()
}

#[track_caller]
fn ends_with(mut exec: std::process::Child, code: i32) {
    let status = wait_within(&mut exec, Duration::from_secs(10)).expect("exec does not end");
    assert_eq!(status.code(), Some(code));
}

#[test]
fn in_the_foreground_the_callers_terminal_is_relayed() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let mut terminal = Terminal::new(33, 77);
    let before = terminal.settings();
    let script = "trap 'stty size' WINCH; stty size; until read line; do :; done; echo \"heard $line\"; while :; do sleep 0.02; done";
    let exec = in_front_of(&terminal, &bundle, script);
    terminal.master.hears("33 77\r\n");
    terminal.master.types("hello\r");
    terminal.master.hears("heard hello\r\n");
    terminal.resize(44, 111);
    kill(Pid::from_raw(exec.id() as i32), Signal::SIGWINCH).unwrap();
    terminal.master.hears("44 111\r\n");
    terminal.master.types("\x03");
    ends_with(exec, 130);
    assert_eq!(terminal.settings(), before);
    let exec = in_front_of(&terminal, &bundle, "exit 3");
    ends_with(exec, 3);
}

// A caller that does not read, as a manager in trouble, still wants its signals to arrive.
#[test]
fn a_caller_that_does_not_read_can_still_send_signals() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let script = "trap 'touch /got; exit 9' TERM; yes & sleep 1; touch /full; while :; do sleep 0.02; done";
    let (reader, writer) = std::io::pipe().unwrap();
    for stdout in [Some(writer), None] {
        let mut terminal = Terminal::new(24, 80);
        let mut command = bundle.command(&["exec", "-t", &bundle.id, "sh", "-c", script]);
        command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
        let is_pipe = stdout.is_some();
        if let Some(pipe) = stdout {
            command.stdout(pipe);
        }
        let mut exec = command.spawn().unwrap();
        drop(command);
        let made = |name| eventually_within(DEADLINE, || bundle.rootfs(name).exists().then_some(()));
        made("full").expect("it runs");
        kill(Pid::from_raw(exec.id() as i32), Signal::SIGTERM).unwrap();
        made("got").unwrap_or_else(|| panic!("SIGTERM is not passed on while nobody reads; a pipe: {is_pipe}"));
        for name in ["full", "got"] {
            fs::remove_file(bundle.rootfs(name)).unwrap();
        }
        // what is left is still shown
        let read = std::thread::spawn({
            let mut reader = reader.try_clone().unwrap();
            move || if is_pipe { std::io::copy(&mut reader, &mut std::io::sink()).unwrap() } else { 0 }
        });
        let status = eventually_within(DEADLINE, || {
            terminal.master.discard();
            exec.try_wait().unwrap()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(9));
        assert!(!is_pipe || read.join().unwrap() > 1 << 16, "output was lost");
    }
}

#[test]
fn the_callers_terminal_is_as_it_was_when_nothing_starts() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    let mut command = bundle.command(&["exec", "-t", &bundle.id, "/missing"]);
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    ends_with(command.spawn().unwrap(), 255);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_terminal_and_a_console_socket_need_each_other() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    fails(
        &exec(&bundle, &["-t", "-d"], &["true"]),
        &["cannot allocate tty if ", " will detach without setting console socket"],
    );
    let socket = ConsoleSocket::new(&bundle.dir);
    let output = exec(&bundle, &["--console-socket", socket.path.to_str().unwrap()], &["true"]);
    fails(&output, &["cannot use console socket if ", " will not detach or allocate tty"]);
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

// CVE-2024-21626: a descriptor of the host's as the working directory
#[test]
fn the_working_directory_is_inside() {
    let bundle = Bundle::sleeping();
    symlink("/proc/self/fd/7", bundle.rootfs("out")).unwrap();
    running(&bundle);
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/8", "/out", "/proc/1/cwd/../../.."] {
        let args = ["exec", "--cwd", cwd, &bundle.id, "pwd"];
        let output = runtime::run(&mut by_shell(&bundle, "7</ 8</etc", &args));
        assert!(output.code != 0 || output.stdout == "/\n", "{cwd}: {output}");
    }
    fails(&exec(&bundle, &["--cwd", "/missing"], &["pwd"]), &["/missing", "no such file or directory"]);
    assert!(!bundle.rootfs("missing").exists(), "it is not made for another process");
}

#[test]
fn its_session_keyring_is_the_containers() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let keyring = format!("_ses.{}", bundle.id);
    let keys = |output: &Output| {
        let line = output.ok().lines().find(|line| line.contains(&keyring)).map(String::from);
        line.and_then(|line| line.split(' ').next().map(String::from))
            .unwrap_or_else(|| panic!("no {keyring}: {output}"))
    };
    // the same serial number for everybody
    assert_eq!(keys(&sh(&bundle, "cat /proc/keys")), keys(&exec(&bundle, &["-u", "1000"], &["cat", "/proc/keys"])));
    let bundle = Bundle::sleeping();
    bundle.call(&["run", "-d", "--no-new-keyring", &bundle.id]).ok();
    assert!(!sh(&bundle, "cat /proc/keys").ok().contains(&format!("_ses.{}", bundle.id)), "the caller's is kept");
}

#[test]
fn it_goes_into_a_cgroup_below_the_containers_own_if_there_is_one() {
    layout!(V1, Hybrid);
    let bundle = Bundle::sleeping();
    running(&bundle);
    let below = bundle.cgroup("pids").join("below/here");
    let flags = ["--cgroup", "pids:below/here"];
    fails(&exec(&bundle, &flags, &["true"]), &["no such file or directory"]);
    fs::create_dir_all(&below).unwrap();
    let output = exec(&bundle, &flags, &["cat", "/proc/self/cgroup"]);
    let own = format!("/{}", bundle.id);
    assert!(output.ok().contains(&format!(":pids:{own}/below/here\n")), "{output}");
    assert!(output.ok().lines().any(|line| line.contains("freezer") && line.ends_with(&own)), "{output}");
    fails(&exec(&bundle, &["--cgroup", "pids:../.."], &["true"]), &["cgroup"]);
    fails(&exec(&bundle, &["--cgroup", "none:below"], &["true"]), &[]);
    fails(&exec(&bundle, &["--cgroup", "pids:below", "--cgroup", "pids:x"], &["true"]), &["pids"]);
    fs::remove_dir(&below).unwrap();
}

#[test]
fn a_cgroup_below_stands_alone_on_v2() {
    layout!(V2);
    let bundle = Bundle::sleeping();
    running(&bundle);
    let below = bundle.cgroup("").join("below");
    fails(&exec(&bundle, &["--cgroup", "below"], &["true"]), &["no such file or directory"]);
    fs::create_dir(&below).unwrap();
    let output = exec(&bundle, &["--cgroup", "/below"], &["cat", "/proc/self/cgroup"]);
    assert!(output.ok().ends_with(&format!("/{}/below\n", bundle.id)), "{output}");
    fails(&exec(&bundle, &["--cgroup", "pids:below"], &["true"]), &["pids"]);
    fails(&exec(&bundle, &["--cgroup", "../x"], &["true"]), &["cgroup"]);
    fs::remove_dir(&below).unwrap();
}

// programs such as systemd move themselves down, and then nobody can be put where they were
#[test]
fn it_goes_where_init_went_if_the_containers_own_cgroup_takes_nobody() {
    layout!(Hybrid, V2);
    need!(rrun); // runc 1.1 does so on v2 alone
    let bundle = Bundle::sleeping();
    running(&bundle);
    let tree = bundle.cgroup("unified");
    let below = tree.join("below");
    fs::create_dir(&below).unwrap();
    let init = bundle.pid();
    fs::write(below.join("cgroup.procs"), init.to_string()).unwrap();
    let controllers = fs::read_to_string(tree.join("cgroup.controllers")).unwrap();
    let Some(controller) = controllers.split_whitespace().find(|name| !matches!(*name, "cpu" | "cpuset" | "pids"))
    else {
        return crate::need::skip("a controller in the v2 tree that knows no threads");
    };
    fs::write(tree.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(cgroups(pid), cgroups(init));
    assert!(cgroups(pid).contains(&format!("0::/{}/below\n", bundle.id)), "{}", cgroups(pid));
}

#[test]
fn it_enters_containers_that_share_namespaces_with_the_host() {
    for kind in ["pid", "network", "ipc", "uts"] {
        let mut bundle = Bundle::sleeping();
        bundle.without_namespace(kind);
        if kind == "uts" {
            bundle.unset("/hostname");
        }
        let init = running(&bundle).pid();
        let pid = detached(&bundle, &["sleep", "1000"]);
        assert_eq!(namespaces(pid), namespaces(init), "without {kind}");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[test]
fn it_enters_a_pid_namespace_that_the_container_has_joined() {
    let mut bundle = Bundle::sleeping();
    let other = Bundle::sleeping();
    let first = running(&other).pid();
    bundle.without_namespace("pid");
    bundle.set("/linux/namespaces/-", json!({"type": "pid", "path": format!("/proc/{first}/ns/pid")}));
    let init = running(&bundle).pid();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(namespaces(pid), namespaces(init));
    assert!(sh(&bundle, "ps").ok().lines().count() > 3, "sees them all");
}

#[test]
fn it_enters_a_user_namespace() {
    let mut bundle = mapped(Bundle::sleeping());
    bundle.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    bundle.set("/process/oomScoreAdj", 345);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 4096}]));
    let init = running(&bundle).pid();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!((namespaces(pid), cgroups(pid)), (namespaces(init), cgroups(init)));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains("Uid:\t100005\t100005\t100005\t100005\n") && status.contains("Groups:\t100007 \n"),
        "{status}"
    );
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "345\n");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = bundle.command(&["exec", "-u", "9:0", &bundle.id, "sh", "-c", "id -u; echo again > /dev/stdout"]);
    assert!(command.stdin(Stdio::null()).stdout(writer).status().unwrap().success());
    drop(command);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    assert_eq!(said, "9\nagain\n");
    fails(
        &exec(&bundle, &["-u", "70000"], &["id"]),
        if on_rrun() { &["process.user.uid: 70000 is not mapped"] } else { &[] },
    );
}

// what only the parent can do is asked for, with and without something to record
#[test]
fn limits_are_raised_from_outside_a_user_namespace() {
    let bundle = mapped(Bundle::sleeping());
    running(&bundle);
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 1 << 17, "hard": 1 << 19}]);
    let file = process(
        &bundle,
        json!({"args": ["sh", "-c", "ulimit -Hn"], "cwd": "/", "env": ["PATH=/bin"], "rlimits": limits}),
    );
    let exec = |flags: &[&str]| {
        let mut command = Command::new("prlimit");
        let exec = bundle.command(&[&["exec", "-p", &file], flags, &[&bundle.id]].concat());
        command.args(["--nofile=1024:4096"]).arg(exec.get_program()).args(exec.get_args()).current_dir(&bundle.dir);
        runtime::run(&mut command)
    };
    for flags in [&[][..], &["--pid-file", "pid"]] {
        match we_may_raise_limits() {
            true => assert_eq!(exec(flags).ok(), "524288\n"),
            false if on_rrun() => fails(&exec(flags), &["process.rlimits: RLIMIT_NOFILE", "(EPERM)"]),
            false => assert_ne!(exec(flags).code, 0),
        }
    }
}

#[test]
fn an_ordinary_user_enters_his_own_container() {
    need!(rrun); // others want directories of the user's session for it
    const USER: u32 = 54_321;
    let mut bundle = Bundle::sleeping();
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle.set("/linux/namespaces/-", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", own.clone()).set("/linux/gidMappings", own);
    bundle.unset("/linux/resources").unset("/linux/cgroupsPath");
    fs::create_dir(&bundle.state_root).unwrap();
    let runtime = bundle.dir.join("runtime");
    assert!(Command::new("cp").arg(runtime::path()).arg(&runtime).status().unwrap().success());
    let _ = bundle.command(&[]); // writes config.json
    give(&bundle.dir, USER);
    let by_user = |args: &[&str]| {
        let usual = bundle.command_on_config_as_it_is(args);
        let mut command = Command::new("setpriv");
        let id = USER.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(&runtime).args(usual.get_args());
        runtime::run(command.current_dir(&bundle.dir).env(crate::leftovers::VARIABLE, &bundle.id))
    };
    by_user(&["run", "-d", &bundle.id]).ok();
    let output = by_user(&["exec", &bundle.id, "sh", "-c", "id -u; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "0\n"), "{output}");
    by_user(&["exec", "-d", "--pid-file", "exec.pid", &bundle.id, "sleep", "1000"]).ok();
    assert_eq!(namespaces(pid_in(&bundle, "exec.pid")), namespaces(bundle.pid()));
    fails(&by_user(&["exec", "-u", "5", &bundle.id, "id"]), &["process.user.uid: 5 is not mapped"]);
    fails(&by_user(&["exec", &bundle.id, "/missing"]), &["exec: \"/missing\": stat /missing: no such file"]);
}

#[test]
fn a_terminal_in_a_user_namespace() {
    let mut bundle = mapped(Bundle::sleeping());
    bundle.set("/process/user", json!({"uid": 5, "gid": 6}));
    running(&bundle);
    let socket = ConsoleSocket::new(&bundle.dir);
    exec(
        &bundle,
        &["-t", "-d", "--console-socket", socket.path.to_str().unwrap()],
        &["sh", "-c", "tty; stat -c %u /dev/pts/0"],
    )
    .ok();
    assert_eq!(socket.receive().rest(), "/dev/pts/0\n5\n");
}

#[test]
fn it_enters_a_container_without_a_mount_namespace() {
    need!(rrun); // runc 1.1 cannot make one
    let mut bundle = Bundle::sleeping();
    bundle.without_namespace("mount").set("/mounts", json!([])).unset("/hostname").without_namespace("uts");
    bundle.image_file("here", "inside");
    running(&bundle);
    assert_eq!(sh(&bundle, "cat /here; pwd").ok(), "inside/\n");
}

#[test]
fn the_containers_proc_may_be_covered() {
    need!(rrun); // runc 1.1 reads the container's /proc
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/oomScoreAdj", 345);
    running(&bundle);
    exec(&bundle, &["--cap", "CAP_SYS_ADMIN"], &["mount", "-t", "tmpfs", "tmpfs", "/proc"]).ok();
    assert_eq!(sh(&bundle, "ls /proc").ok(), "");
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "345\n");
    assert_eq!(cgroups(pid), cgroups(bundle.pid()));
}

#[test]
fn a_caller_that_is_pinned_does_not_pin_it() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return crate::need::skip("two processors");
    }
    let mut bundle = Bundle::sleeping();
    running(&bundle);
    let pinned = |args: &[&str]| {
        let exec = bundle.command(args);
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(exec.get_program()).args(exec.get_args()).current_dir(&bundle.dir);
        let output = runtime::run(&mut command);
        let line = output.ok().lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.unwrap_or_else(|| panic!("{output}")).to_string()
    };
    let everything = ["exec", &bundle.id, "cat", "/proc/self/status"];
    if on_rrun() {
        let all = pinned(&everything);
        assert_ne!(all, "0");
        let file = |affinity: Value| {
            let args = ["cat", "/proc/self/status"];
            process(&bundle, json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity}))
        };
        for affinity in [json!({"final": "1"}), json!({"initial": "0", "final": "1"})] {
            let file = file(affinity.clone());
            assert_eq!(pinned(&["exec", "-p", &file, &bundle.id]), "1", "{affinity}");
        }
        // The last word is the kernel's. Before 6.2 whoever joins a cpuset gets all of it; later ones keep what was
        // asked for; a cgroup without a cpuset of its own changes nothing.
        let left = pinned(&["exec", "-p", &file(json!({"initial": "1"})), &bundle.id]);
        assert!(left == "1" || left == all, "{left}");
    }
    bundle.set("/process/execCPUAffinity", json!({}));
}

#[test]
fn the_end_of_the_container_ends_it() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let call = bundle.spawn(&["exec", &bundle.id, "sleep", "1000"]);
    let pids = || bundle.call(&["ps", "--format", "json", &bundle.id]).stdout;
    assert!(eventually_within(Duration::from_secs(5), || pids().contains(',').then_some(())).is_some());
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

#[test]
fn a_bad_process_is_named_by_file_and_field() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let process = |text: &str| {
        let file = bundle.host_file("process.json", text);
        bundle.call(&["exec", "-d", "--pid-file", "pid", "-p", file.to_str().unwrap(), &bundle.id])
    };
    for (text, words) in [
        ("", &["line 1"][..]),
        ("{\"args\": [}", &["line 1, column 11"]),
        ("[]", &["expected an object"]),
        ("{\"cwd\": \"/\"}", &["process.args: empty"]),
        ("{\"args\": [\"true\"]}", &["process.cwd: missing"]),
        ("{\"args\": [\"true\"], \"cwd\": \"tmp\"}", &["process.cwd: tmp is not absolute"]),
        ("{\"args\": \"true\", \"cwd\": \"/\"}", &["args: expected a list, got string true"]),
        ("{\"args\": [\"true\"], \"cwd\": \"/\", \"user\": {\"uid\": -1}}", &["user.uid: expected a whole number"]),
        ("{\"args\": [\"true\"], \"cwd\": \"/\", \"user\": {\"uid\": 4294967295}}", &["process.user.uid: 4294967295"]),
        ("{\"args\": [\"true\"], \"cwd\": \"/\", \"env\": [\"A\"]}", &["process.env[0]: A has no ="]),
        (
            "{\"args\": [\"true\"], \"cwd\": \"/\", \"rlimits\": [{\"type\": \"X\"}]}",
            &["process.rlimits[0].type: X is no"],
        ),
        (
            "{\"args\": [\"true\"], \"cwd\": \"/\", \"execCPUAffinity\": {\"final\": \"x\"}}",
            &["process.execCPUAffinity.final: x is no list"],
        ),
    ] {
        let output = process(text);
        if on_rrun() {
            fails(&output, words);
            fails(&output, &["process.json: "]);
        }
        assert!(!bundle.dir.join("pid").exists(), "{text}: a pid file is left");
    }
    fails(&bundle.call(&["exec", "-p", "nothing.json", &bundle.id]), &["nothing.json", "no such file or directory"]);
    if on_rrun() {
        fails(
            &bundle.call(&["exec", "-p", "/dev/zero", &bundle.id]),
            &["--process /dev/zero: ", "is not a regular file"],
        );
    }
}

#[test]
fn bad_flags_are_misuse() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    for flags in [&["-u", "1000:"][..], &["-u", "-1"], &["--user", "4294967295"], &["-g", "-1"], &["--none"]] {
        let output = exec(&bundle, flags, &["true"]);
        if on_rrun() {
            let said = output.error();
            assert!(said.starts_with("exec: ") || said.starts_with("rrun: "), "{output}");
        } else {
            assert_ne!(output.code, 0, "{output}");
        }
    }
    let output = bundle.call(&["exec"]);
    output.refused(&["requires a minimum of 1"]);
    fails(&bundle.call(&["exec", &bundle.id]), &["args"]);
    fails(&exec(&bundle, &["--cwd", "tmp"], &["true"]), &["absolute"]);
}
