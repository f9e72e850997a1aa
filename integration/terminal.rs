//! `process.terminal`: handed to a manager by its console socket, or joined to the caller's own terminal.

use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::termios::LocalFlags;
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::mounted::mount_at;
use crate::runtime::{self, Call, eventually_within, wait_within};
use crate::tty::{ConsoleSocket, Terminal};

fn with_terminal(script: &str) -> Bundle {
    let mut bundle = Bundle::sh(script);
    bundle.set("/process/terminal", true);
    bundle
}

fn create(bundle: &Bundle, socket: &ConsoleSocket) {
    bundle.call(&["create", "--console-socket", socket.path.to_str().unwrap(), &bundle.id]).ok();
}

#[test]
fn a_manager_gets_the_terminal_and_speaks_through_it() {
    let bundle = with_terminal("tty; read line; echo \"heard $line\"; echo x > /dev/tty");
    let socket = ConsoleSocket::new(&bundle.dir);
    create(&bundle, &socket);
    // only now, when the runtime has ended: this is how go-runc does it
    let mut master = socket.receive();
    bundle.start().ok();
    master.hears("/dev/pts/0\r\n");
    master.types("hello\n");
    master.hears("heard hello\r\n");
    master.hears("x\r\n");
    bundle.wait_until("stopped");
}

/// Then stderr is not the container's, and what is left out is told there though nobody sits in front of it.
#[test]
fn a_warning_is_heard_where_the_process_has_a_terminal() {
    need!(rrun);
    for terminal in [true, false] {
        let mut bundle = with_terminal("sleep 1000");
        bundle.set("/process/terminal", terminal).set("/process/capabilities/ambient", json!(["CAP_CHOWN"]));
        bundle.set("/process/capabilities/inheritable", json!([]));
        let socket = ConsoleSocket::new(&bundle.dir);
        let console = ["--console-socket", socket.path.to_str().unwrap()];
        let said = |args: &[&str], id: &str| {
            let console: &[&str] = if terminal { &console } else { &[] };
            let output = bundle.call(&[args, console, &[id]].concat());
            assert_eq!(output.code, 0, "{output}");
            output.stderr
        };
        let warning = "process.capabilities.ambient: can't raise ambient capability CAP_CHOWN: ";
        assert_eq!(said(&["create"], &bundle.id).contains(warning), terminal);
        bundle.start().ok();
        let file = bundle.dir.join("process.json");
        let process = json!({"args": ["/bin/true"], "cwd": "/", "terminal": terminal, "capabilities": {"ambient": ["CAP_CHOWN"]}});
        std::fs::write(&file, process.to_string()).unwrap();
        let exec = ["exec", "-d", "--process", file.to_str().unwrap()];
        assert_eq!(said(&exec, &bundle.id).contains(warning), terminal);
        bundle.delete();
    }
}

// an address holds 107 bytes
#[test]
fn a_console_socket_may_lie_deep() {
    need!(rrun);
    let bundle = with_terminal("tty; sleep 1000");
    let mut socket = ConsoleSocket::new(&bundle.dir);
    let deep = bundle.dir.join("x".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("socket");
    std::fs::rename(&socket.path, &path).unwrap();
    socket.path = path;
    create(&bundle, &socket);
    let mut master = socket.receive();
    bundle.start().ok();
    master.hears("/dev/pts/0\r\n");
}

#[test]
fn run_detached_sends_the_terminal_too() {
    let bundle = with_terminal("echo here; sleep 1000");
    let socket = ConsoleSocket::new(&bundle.dir);
    bundle.call(&["run", "-d", "--console-socket", socket.path.to_str().unwrap(), &bundle.id]).ok();
    socket.receive().hears("here\r\n");
}

#[test]
fn the_programs_standard_files_are_the_terminal_and_nothing_else_is_open() {
    let bundle = with_terminal(
        "for n in 0 1 2; do readlink /proc/self/fd/$n; done; ls /proc/$$/fd > /tmp/fds; tr '\\n' ' ' < /tmp/fds; stat -c '%u %a' /dev/pts/0",
    );
    let socket = ConsoleSocket::new(&bundle.dir);
    create(&bundle, &socket);
    let mut master = socket.receive();
    bundle.start().ok();
    // 10: the shell's own copy of its terminal
    let rest = master.rest();
    assert_eq!(rest.replace(" 10 ", " "), "/dev/pts/0\n/dev/pts/0\n/dev/pts/0\n0 1 2 0 620\n");
}

#[test]
fn the_terminal_belongs_to_the_user() {
    let mut bundle = with_terminal("stat -c '%u' /dev/pts/0; echo written > /dev/pts/0");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let socket = ConsoleSocket::new(&bundle.dir);
    create(&bundle, &socket);
    let mut master = socket.receive();
    bundle.start().ok();
    assert_eq!(master.rest(), "1000\nwritten\n");
}

#[test]
fn dev_console_is_the_terminal() {
    let bundle = with_terminal("echo to the console > /dev/console; cat /proc/self/mountinfo");
    let socket = ConsoleSocket::new(&bundle.dir);
    create(&bundle, &socket);
    let mut master = socket.receive();
    bundle.start().ok();
    let said = master.rest();
    let mounts = said.strip_prefix("to the console\n").expect(&said);
    assert_eq!(mount_at(&crate::mounted::Mounted::parse(mounts), "/dev/console").fstype, "devpts");
}

#[test]
fn the_terminal_has_the_size_of_the_config() {
    let mut bundle = with_terminal("stty size");
    bundle.set("/process/consoleSize", json!({"height": 41, "width": 123}));
    let socket = ConsoleSocket::new(&bundle.dir);
    create(&bundle, &socket);
    let mut master = socket.receive();
    bundle.start().ok();
    master.hears("41 123\r\n");
}

#[test]
fn the_caller_is_not_kept_by_a_container_with_a_terminal() {
    let bundle = with_terminal("sleep 1000");
    let socket = ConsoleSocket::new(&bundle.dir);
    let mut command = bundle.command(&["create", "--console-socket", socket.path.to_str().unwrap(), &bundle.id]);
    assert!(crate::stdio::reaches_its_end(&mut command), "its output stays open");
}

#[test]
fn a_terminal_and_a_console_socket_need_each_other() {
    let bundle = with_terminal("true");
    for verb in [&["create"][..], &["run", "-d"]] {
        let output = bundle.call(&[verb, &[&bundle.id]].concat());
        output.refused(&["cannot allocate tty if ", " will detach without setting console socket"]);
        bundle.leaves_nothing();
    }
    let bundle = Bundle::new();
    let socket = ConsoleSocket::new(&bundle.dir);
    for verb in ["create", "run"] {
        let output = bundle.call(&[verb, "--console-socket", socket.path.to_str().unwrap(), &bundle.id]);
        output.refused(&["cannot use console socket if ", " will not detach or allocate tty"]);
        bundle.leaves_nothing();
    }
}

#[test]
fn a_console_socket_where_nobody_listens_is_an_error() {
    let bundle = with_terminal("true");
    let output = bundle.call(&["create", "--console-socket", "nobody.sock", &bundle.id]);
    assert!(output.error().contains("nobody.sock"), "{output}");
    bundle.leaves_nothing();
}

/// `run` in front of a person's terminal.
fn in_front_of(terminal: &Terminal, bundle: &Bundle) -> std::process::Child {
    let mut command = bundle.command(&["run", &bundle.id]);
    command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    command.spawn().unwrap()
}

#[track_caller]
fn ends_with(mut run: std::process::Child, code: i32) {
    let status = wait_within(&mut run, Duration::from_secs(10)).expect("run does not end");
    assert_eq!(status.code(), Some(code));
}

fn is_raw(terminal: &Terminal) -> bool {
    !terminal.settings().local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
}

#[test]
fn in_the_foreground_the_callers_terminal_is_raw_and_then_as_it_was() {
    let bundle = with_terminal("echo ready; read line; echo \"heard $line\"; exit 3");
    let mut terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    let run = in_front_of(&terminal, &bundle);
    terminal.master.hears("ready\r\n");
    assert!(is_raw(&terminal));
    terminal.master.types("hello\r");
    terminal.master.hears("heard hello\r\n");
    ends_with(run, 3);
    assert_eq!(terminal.settings(), before);
}

/// Ends of lines are the caller's terminal's business: nothing of them goes into a file.
#[test]
fn what_goes_into_a_file_has_no_carriage_returns() {
    let bundle = with_terminal("echo one; echo two");
    let terminal = Terminal::new(24, 80);
    let output = Call::with_stdin(&mut bundle.command(&["run", &bundle.id]), terminal.stdio()).wait();
    assert_eq!(output.ok(), "one\ntwo\n");
}

#[test]
fn the_callers_terminal_is_as_it_was_when_the_program_is_killed() {
    let bundle = with_terminal("echo ready; sleep 1000");
    let mut terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    let run = in_front_of(&terminal, &bundle);
    terminal.master.hears("ready\r\n");
    bundle.kill("KILL").ok();
    ends_with(run, 137);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn the_callers_terminal_is_as_it_was_when_run_is_told_to_end() {
    let bundle = with_terminal("trap 'exit 9' TERM; echo ready; while :; do sleep 0.02; done");
    let mut terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    let run = in_front_of(&terminal, &bundle);
    terminal.master.hears("ready\r\n");
    kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM).unwrap();
    ends_with(run, 9);
    assert_eq!(terminal.settings(), before);
}

#[test]
fn the_callers_terminal_is_as_it_was_when_nothing_starts() {
    let mut bundle = with_terminal("true");
    let terminal = Terminal::new(24, 80);
    let before = terminal.settings();
    bundle.args(&["/missing"]);
    ends_with(in_front_of(&terminal, &bundle), 1);
    assert_eq!(terminal.settings(), before);
    bundle.leaves_nothing();
}

#[test]
fn the_size_of_the_callers_terminal_is_followed() {
    let bundle = with_terminal("trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.02; done");
    let mut terminal = Terminal::new(33, 77);
    let run = in_front_of(&terminal, &bundle);
    terminal.master.hears("33 77\r\n");
    terminal.master.hears("ready\r\n");
    terminal.resize(44, 111);
    kill(Pid::from_raw(run.id() as i32), Signal::SIGWINCH).unwrap();
    terminal.master.hears("44 111\r\n");
    bundle.kill("KILL").ok();
    ends_with(run, 137);
}

#[test]
fn control_characters_go_to_the_program() {
    let bundle = with_terminal("trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.02; done");
    let mut terminal = Terminal::new(24, 80);
    let run = in_front_of(&terminal, &bundle);
    terminal.master.hears("ready\r\n");
    terminal.master.types("\x03");
    terminal.master.hears("interrupted\r\n");
    ends_with(run, 4);
}

#[test]
fn a_terminal_is_only_what_the_config_asks_for() {
    let bundle = Bundle::sh("[ -t 0 ] && echo terminal; echo done");
    assert_eq!(bundle.run().ok(), "done\n");
}

// the last words of a program are as good as its first
#[test]
fn all_output_arrives_before_run_returns() {
    let bundle = with_terminal("seq 1 5000");
    let mut terminal = Terminal::new(24, 80);
    let mut run = in_front_of(&terminal, &bundle);
    for n in [1000, 3000, 5000] {
        terminal.master.hears(&format!("\n{n}\r\n"));
    }
    let ended = eventually_within(Duration::from_secs(10), || run.try_wait().unwrap());
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}

#[test]
fn a_foreground_run_with_pipes_and_a_terminal_for_the_program_needs_some_terminal() {
    let bundle = with_terminal("true");
    let mut command = Command::new("setsid"); // so that there is no /dev/tty either
    let run = bundle.command(&["run", &bundle.id]);
    command.arg("--wait").arg(run.get_program()).args(run.get_args()).current_dir(&bundle.dir);
    let output: runtime::Output = Call::new(&mut command).wait();
    assert!(output.error().contains("/dev/tty"), "{output}");
    bundle.leaves_nothing();
}

#[test]
fn a_listener_that_never_accepts_does_not_hold_create_for_ever() {
    need!(rrun); // others wait without limit
    let mut bundle = Bundle::new();
    bundle.set("/process/terminal", true);
    let path = bundle.dir.join("full");
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    nix::sys::socket::bind(socket.as_raw_fd(), &nix::sys::socket::UnixAddr::new(&path).unwrap()).unwrap();
    nix::sys::socket::listen(&socket, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let output = bundle.call(&["create", "--console-socket", path.to_str().unwrap(), &bundle.id]);
    output.refused(&["--console-socket"]);
    assert!(output.took < Duration::from_secs(20), "{output}");
    bundle.leaves_nothing();
}

#[test]
fn a_caller_that_stops_reading_does_not_end_the_container() {
    let mut bundle = Bundle::sh("sleep 0.2; echo lost; sleep 0.2; echo lost too; exit 7");
    bundle.set("/process/terminal", true);
    let terminal = Terminal::new(24, 80);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = bundle.command(&["run", &bundle.id]);
    let status = command.stdin(terminal.stdio()).stdout(writer).stderr(terminal.stdio()).status().unwrap();
    assert_eq!(status.code(), Some(7));
}

/// In the foreground, writing more than anybody reads.
fn unread(stdout: Stdio) -> (Bundle, Terminal, std::process::Child) {
    let bundle = with_terminal("exec yes");
    let terminal = Terminal::new(24, 80);
    let mut command = bundle.command(&["run", &bundle.id]);
    let run = command.stdin(terminal.stdio()).stdout(stdout).stderr(terminal.stdio()).spawn().unwrap();
    bundle.wait_until("running");
    std::thread::sleep(Duration::from_millis(300));
    (bundle, terminal, run)
}

#[test]
fn a_caller_that_does_not_read_is_not_waited_for_when_the_container_has_ended() {
    need!(rrun); // runc waits for ever
    let (pipe, on_pipe) = std::io::pipe().unwrap();
    // opened anew it cannot be
    let (socket, on_socket) = UnixStream::pair().unwrap();
    let runs = [unread(on_pipe.into()), unread(OwnedFd::from(on_socket).into())];
    for (bundle, _, _) in &runs {
        bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    }
    for (bundle, _terminal, run) in runs {
        ends_with(run, 137);
        assert_eq!(bundle.status_if_any(), None);
    }
    drop((pipe, socket));
}

#[test]
fn a_signal_ends_the_wait_for_a_caller_that_does_not_read() {
    need!(rrun);
    let (_reader, writer) = std::io::pipe().unwrap();
    let (bundle, _terminal, run) = unread(writer.into());
    bundle.call(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_until("stopped");
    kill(Pid::from_raw(run.id() as i32), Signal::SIGTERM).unwrap();
    let began = std::time::Instant::now();
    ends_with(run, 137);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn who_writes_on_after_the_container_does_not_keep_run() {
    need!(rrun);
    let mut bundle = with_terminal(
        "for i in 1 2 3 4; do setsid sh -c 'while :; do yes > /dev/pts/0; done' & done; sleep 0.5; exit 5",
    );
    bundle.without_namespace("pid");
    let mut terminal = Terminal::new(24, 80);
    let mut run = in_front_of(&terminal, &bundle);
    let ended = eventually_within(Duration::from_secs(10), || {
        terminal.master.discard();
        run.try_wait().unwrap()
    });
    assert_eq!(ended.expect("run does not end").code(), Some(5));
}

#[test]
fn a_container_that_has_closed_its_terminal_costs_nothing() {
    need!(rrun); // the others' loops are their own
    let mut bundle = Bundle::sh("exec 0<&- 1>&- 2>&-; exec sleep 2");
    bundle.set("/process/terminal", true);
    let terminal = Terminal::new(24, 80);
    let mut command = bundle.command(&["run", &bundle.id]);
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let wakes = crate::procfs::status(child.id(), "voluntary_ctxt_switches").unwrap();
    assert!(wakes.parse::<u32>().unwrap() < 60, "woke {wakes} times");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
