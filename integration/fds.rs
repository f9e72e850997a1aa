//! Descriptors that a caller leaves open for the program: `--preserve-fds`, and the sockets of sd_listen_fds(3); and the
//! one that it gets back, by `--pidfd-socket`.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;

use crate::bundle::Bundle;
use crate::runtime::{self, Call, Output};
use crate::stdio::{LIST, by_shell};
use crate::tty::ConsoleSocket;

/// The runtime with these descriptors open, and what is set in its own process.
fn with(bundle: &Bundle, redirections: &str, settings: &str, args: &[&str]) -> Output {
    let runtime = bundle.command(args);
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {redirections}; export {settings}; exec \"$@\""), "bash"]);
    command.arg(runtime.get_program()).args(runtime.get_args()).current_dir(&bundle.dir);
    runtime::run(&mut command)
}

fn files(bundle: &Bundle) -> String {
    for n in [3, 4, 5, 9] {
        bundle.host_file(&format!("f{n}"), format!("file {n}\n"));
    }
    "3<f3 4<f4 5<f5 9<f9".into()
}

#[test]
fn as_many_as_asked_for_arrive_under_their_numbers() {
    let bundle = Bundle::sh(&format!("cat <&3; cat <&4; {LIST}"));
    let files = files(&bundle);
    let want = "file 3\nfile 4\n0\n1\n2\n3\n4\n";
    for seal in ["", "memfd"] {
        let run = by_shell(&bundle, &files, &["run", "--preserve-fds", "2", &bundle.id]);
        assert_eq!(runtime::run({ run }.env("RRUN_SEAL", seal)).ok(), want, "{seal}");
    }
    let created = runtime::run(&mut by_shell(&bundle, &files, &["create", "--preserve-fds=2", &bundle.id]));
    created.ok();
    bundle.start().ok();
    bundle.wait_until("stopped");
    assert_eq!(created.later(), want);
}

#[test]
fn a_waiting_init_holds_what_its_program_was_promised_and_nothing_of_ours_among_it() {
    let bundle = Bundle::sleeping();
    runtime::run(&mut by_shell(&bundle, &files(&bundle), &["create", "--preserve-fds", "3", &bundle.id])).ok();
    for n in 3..6 {
        let held = fs::read_link(format!("/proc/{}/fd/{n}", bundle.pid())).unwrap();
        assert_eq!(held, bundle.dir.join(format!("f{n}")), "{n}");
    }
}

#[test]
fn one_that_is_missing_is_named_before_anything_is_made() {
    need!(rrun); // runc names no number of LISTEN_FDS
    let bundle = Bundle::new();
    for (open, settings, preserve, words) in [
        ("3</ 5</", "X=", "3", &["--preserve-fds 3", "descriptor 4 "][..]),
        ("3</", "X=", "4000000000", &["--preserve-fds 4000000000", "descriptor 4 "]),
        ("3</", "LISTEN_FDS=2 LISTEN_PID=$$", "0", &["LISTEN_FDS 2", "descriptor 4 "]),
        ("3</", "LISTEN_FDS=1 LISTEN_PID=$$", "1", &["--preserve-fds 1", "descriptor 4 "]),
        // where the log would take the number
        ("9</", "LOG=1", "1", &["--preserve-fds 1", "descriptor 3 "]),
    ] {
        for verb in [&["create"][..], &["run"], &["run", "-d"]] {
            let args = [&["--log", "log"], verb, &["--preserve-fds", preserve, &bundle.id]].concat();
            with(&bundle, open, settings, &args).refused(words);
            bundle.leaves_nothing();
        }
    }
}

const SHOW: &str = "echo \"$LISTEN_FDS $LISTEN_PID $LISTEN_FDNAMES\"; cat <&3; ";

#[test]
fn sockets_of_systemd_come_first() {
    let bundle = Bundle::sh(&format!("{SHOW} cat <&4; {LIST}"));
    let settings = "LISTEN_FDS=1 LISTEN_PID=$$ LISTEN_FDNAMES=web";
    let output = with(&bundle, &files(&bundle), settings, &["run", "--preserve-fds", "1", &bundle.id]);
    assert_eq!(output.ok(), "1 1 \nfile 3\nfile 4\n0\n1\n2\n3\n4\n");
    // the config's own words about it are of another process
    let mut bundle = Bundle::sh(SHOW);
    bundle.set("/process/env", json!(["PATH=/bin", "LISTEN_FDS=7", "LISTEN_PID=7"]));
    let output = with(&bundle, &files(&bundle), settings, &["run", &bundle.id]);
    assert_eq!(output.ok(), "1 1 \nfile 3\n");
}

#[test]
fn sockets_for_another_process_are_left_out() {
    let bundle = Bundle::sh(&format!("echo \"$LISTEN_FDS $LISTEN_PID\"; {LIST}"));
    for settings in ["LISTEN_FDS=1 LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_FDS=0 LISTEN_PID=$$"] {
        let output = with(&bundle, &files(&bundle), settings, &["run", &bundle.id]);
        assert_eq!(output.ok(), " \n0\n1\n2\n", "{settings}");
    }
}

#[test]
fn listen_pid_is_what_the_program_sees_as_its_own() {
    need!(rrun); // runc says 1 whatever the pid is
    let mut bundle = Bundle::sh("[ \"$LISTEN_PID\" = $$ ] && echo own");
    bundle.without_namespace("pid").without_mount("/proc");
    let output = with(&bundle, &files(&bundle), "LISTEN_FDS=1 LISTEN_PID=$$", &["run", &bundle.id]);
    assert_eq!(output.ok(), "own\n");
}

#[test]
fn a_pipe_given_away_ends_when_the_program_closes_it() {
    need!(rrun); // runc keeps its copy while it stays
    let bundle = Bundle::sh("echo said >&3; exec 3>&-; exec sleep 1000");
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let redirection = format!("3>&{0} {0}>&-", writer.as_raw_fd());
    let run = Call::new(&mut by_shell(&bundle, &redirection, &["run", "--preserve-fds", "1", &bundle.id]));
    drop(writer);
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut said = String::new();
        let _ = ended.send(reader.read_to_string(&mut said).map(|_| said));
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(5)).unwrap().unwrap(), "said\n");
    bundle.kill("KILL").ok();
    assert_eq!(run.wait().code, 137);
}

#[test]
fn hooks_get_none_of_them_and_the_program_gets_all() {
    need!(rrun); // runc gives some of them to hooks
    let mut bundle = Bundle::sh("cat <&3; cat /seen");
    bundle.image_file("seen", "");
    let look = |path: &str| {
        let script = format!("for n in 3 4; do [ -e /proc/self/fd/$n ] && echo $n; done >> {path}; echo ran >> {path}");
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    let on_the_host = look(bundle.rootfs("seen").to_str().unwrap());
    bundle.set("/hooks/createRuntime", on_the_host).set("/hooks/startContainer", look("/seen"));
    let files = files(&bundle);
    let run = runtime::run(&mut by_shell(&bundle, &files, &["run", "--preserve-fds", "2", &bundle.id]));
    assert_eq!(run.ok(), "file 3\nran\nran\n");
}

// CVE-2024-21626
#[test]
fn a_directory_given_away_is_no_working_directory() {
    for n in 3..8 {
        let mut bundle = Bundle::sh("pwd; ls");
        bundle.set("/process/cwd", format!("/proc/self/fd/{n}"));
        for preserve in ["0", "1", "2"] {
            let args = ["run", "--preserve-fds", preserve, &bundle.id];
            let output = runtime::run(&mut by_shell(&bundle, "3</ 4</etc", &args));
            assert!(output.code != 0 && output.stdout.is_empty(), "{n} {preserve}: {output}");
            bundle.leaves_nothing();
        }
    }
}

#[test]
fn a_pidfd_of_init_is_sent_before_create_returns() {
    need!(rrun); // runc does since 1.3
    for verb in [&["create"][..], &["run", "-d"]] {
        let bundle = Bundle::sleeping();
        let socket = ConsoleSocket::new(&bundle.dir);
        let flag = ["--pidfd-socket", socket.path.to_str().unwrap(), &bundle.id];
        bundle.call(&[verb, &flag].concat()).ok();
        let (name, pidfd) = socket.receive_named();
        let about = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).unwrap();
        let pid = about.lines().find_map(|line| line.strip_prefix("Pid:\t")).unwrap();
        assert_eq!((name.as_str(), pid), ("standard", bundle.pid().to_string().as_str()), "{about}");
    }
}

#[test]
fn a_pidfd_socket_where_nobody_listens_is_an_error() {
    need!(rrun); // runc does since 1.3
    let bundle = Bundle::new();
    bundle.host_file("file", "");
    for path in ["nobody.sock", "file"] {
        for verb in ["create", "run"] {
            bundle.call(&[verb, "--pidfd-socket", path, &bundle.id]).refused(&["--pidfd-socket", path]);
            bundle.leaves_nothing();
        }
    }
}
