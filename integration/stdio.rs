//! What the program holds of its caller: the three standard files, and nothing more.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;

use crate::bundle::Bundle;
use crate::runtime::{self, Call, on_rrun};

/// Prints the numbers of its open files, found without opening any.
pub const LIST: &str = "n=0; while [ $n -lt 300 ]; do [ -e /proc/self/fd/$n ] && echo $n; n=$((n+1)); done";

/// A shell command line that ends in starting the runtime.
pub fn by_shell(bundle: &Bundle, redirections: &str, args: &[&str]) -> Command {
    let runtime = bundle.command(args);
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {redirections}; exec \"$@\""), "bash"]).arg(runtime.get_program());
    command.args(runtime.get_args()).current_dir(&bundle.dir);
    command
}

#[test]
fn the_program_has_fds_0_to_2_whatever_its_caller_left_open() {
    let bundle = Bundle::sh(LIST);
    let leak = "3</etc/passwd 7</ 12>/dev/null 200</proc";
    assert_eq!(runtime::run(&mut by_shell(&bundle, leak, &["run", &bundle.id])).ok(), "0\n1\n2\n");

    let created = runtime::run(&mut by_shell(&bundle, leak, &["create", &bundle.id]));
    created.ok();
    bundle.start().ok();
    bundle.wait_until("stopped");
    assert_eq!(created.later(), "0\n1\n2\n");
}

// CVE-2024-21626: a directory of the host that is left open is a way out
#[test]
fn a_waiting_init_holds_no_directory() {
    let bundle = Bundle::sleeping();
    runtime::run(&mut by_shell(&bundle, "7</", &["create", &bundle.id])).ok();
    let pid = bundle.pid();
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path()) {
        let target = fs::read_link(&fd).unwrap();
        assert!(!fs::metadata(&fd).is_ok_and(|file| file.is_dir()), "{} is {}", fd.display(), target.display());
    }
}

#[test]
fn a_closed_standard_file_is_not_replaced_by_one_of_the_runtime() {
    let bundle = Bundle::sh("for n in 0 1 2; do readlink /proc/self/fd/$n; done > /out; true");
    bundle.image_file("out", "");
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let output = runtime::run(&mut by_shell(&bundle, closed, &["run", &bundle.id]));
        if !on_rrun() && output.code != 0 {
            continue;
        }
        assert_eq!(output.code, 0, "{closed}: {output}");
        // what Call gives its commands: /dev/null, and two files of /tmp that have no name any more
        let seen = fs::read_to_string(bundle.rootfs("out")).unwrap();
        let foreign = seen
            .lines()
            .find(|target| !["/dev/null", "/tmp/", "/out", "pipe:"].iter().any(|known| target.starts_with(known)));
        assert!(foreign.is_none(), "{closed}: {seen}");
    }
}

#[test]
fn input_and_output_pass_through_a_foreground_run() {
    let bundle = Bundle::sh("cat; echo error >&2; exit 2");
    let input = fs::File::open(bundle.host_file("input", "line 1\nline 2")).unwrap();
    let output = Call::with_stdin(&mut bundle.command(&["run", &bundle.id]), input.into()).wait();
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (2, "line 1\nline 2", "error\n"));
}

#[test]
fn much_output_arrives_whole() {
    let bundle = Bundle::sh("head -c 3000000 /dev/zero");
    let mut run = bundle.command(&["run", &bundle.id]).stdout(Stdio::piped()).spawn().unwrap();
    let mut all = Vec::new();
    run.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!((all.len(), run.wait().unwrap().code()), (3_000_000, Some(0)));
}

/// Whether the command's output ends when the command does: its caller may read to the end (go-runc does).
pub fn reaches_its_end(command: &mut Command) -> bool {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let both = stdout.read_to_string(&mut text).and_then(|_| stderr.read_to_string(&mut text));
        let _ = ended.send((both, text));
    });
    assert!(child.wait().unwrap().success(), "{command:?}");
    wait.recv_timeout(Duration::from_secs(5)).is_ok()
}

#[test]
fn no_command_on_a_running_container_keeps_its_callers_output() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    for args in [
        &["start", &bundle.id][..],
        &["state", &bundle.id],
        &["kill", &bundle.id, "0"],
        &["delete", "--force", &bundle.id],
    ] {
        assert!(reaches_its_end(&mut bundle.command(args)), "{args:?}");
    }
}

#[test]
fn the_end_of_a_detached_program_is_the_end_of_its_output() {
    let bundle = Bundle::sh("echo out; echo err >&2");
    assert!(reaches_its_end(&mut bundle.command(&["run", "-d", &bundle.id])));
    bundle.wait_until("stopped");
}

#[test]
fn a_user_may_reopen_the_standard_files() {
    let mut bundle = Bundle::sh("stat -L -c '%u' /proc/self/fd/1 /proc/self/fd/2; echo again >> /dev/stdout");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    for detach in [&[][..], &["--detach"]] {
        // pipes, as managers give them
        let output = bundle.command(&[&["run"], detach, &[&bundle.id]].concat()).stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "1000\n1000\nagain\n", "{output:?}");
        bundle.delete_force().ok();
    }
}

#[test]
fn a_regular_file_stays_the_callers() {
    need!(rrun); // others give it to the container's user
    let mut bundle = Bundle::sh("stat -L -c '%u' /proc/self/fd/1");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(bundle.run().ok(), "0\n");
}

// CVE-2025-31133's neighbour: the host's /dev/null in a container is a file of the host
#[test]
fn dev_null_of_the_host_becomes_that_of_the_container() {
    let bundle = Bundle::sh("[ /proc/self/fd/0 -ef /dev/null ] && echo same");
    bundle.call(&["create", &bundle.id]).ok();
    bundle.delete_force().ok();
    let created = bundle.create();
    bundle.start().ok();
    bundle.wait_until("stopped");
    assert_eq!(created.later(), "same\n");
}
