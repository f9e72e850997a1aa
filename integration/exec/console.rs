//! `exec -t`: a terminal of its own, handed over or relayed.

use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{exec, fails, process, running, sh};
use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::runtime::{DEADLINE, eventually_within, on_rrun, wait_within};
use crate::tty::{ConsoleSocket, Terminal};

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
