//! Podman with conmon, newer than the one that `podman` tries.

use std::path::PathBuf;

use super::*;
use crate::runtime::{Output, run};
use crate::tty::ConsoleSocket;

/// No `--root` and no log; its own calls have an empty XDG_RUNTIME_DIR, and most no PATH.
fn podman() -> Caller {
    Caller { before: Vec::new(), environment: vec![("XDG_RUNTIME_DIR", "")] }
}

#[test]
fn podman_has_a_container() {
    let bundle = Bundle::sleeping();
    let podman = podman();
    let (_own, id) = (Own(&podman, &bundle), bundle.id.clone());
    let _pipes = create(&podman, &bundle);
    podman.silent(&bundle, &["start", &id]);
    let execs = |args: &[&str]| -> (Output, PathBuf) {
        let (given, pid) = (process(&bundle, args), bundle.dir.join("exec.pid"));
        let path = pid.display().to_string();
        let args = ["exec", "--pid-file", &path, "--process", &given, "--detach", &id];
        (run(&mut podman.command(&bundle, &args)), pid)
    };
    let (execed, pid) = execs(&["sleep", "1000"]);
    assert!(execed.code == 0 && pid_file(&pid) > 1, "{execed}");
    std::fs::remove_file(pid).unwrap();
    // that there is no pid file is all that conmon goes by
    let (refused, pid) = execs(&["nosuch"]);
    assert!(refused.stderr.contains("executable file not found in") && !pid.exists(), "{refused}");
    let limits = bundle.host_file("limits", r#"{"pids":{"limit":55}}"#);
    podman.silent(&bundle, &["update", &format!("--resources={}", limits.display()), &id]);
    for command in ["pause", "resume"] {
        podman.silent(&bundle, &[command, &id]);
    }
    podman.silent(&bundle, &["kill", &id, "15"]);
    podman.silent(&bundle, &["kill", "--all", &id, "9"]);
    podman.silent(&bundle, &["delete", "--force", &id]);
}

/// conmon takes the terminal while the runtime still runs, and reads the runtime's own output beside.
#[test]
fn conmon_has_the_terminal_of_a_container() {
    let mut bundle = Bundle::sh("echo in the terminal; exec sleep 1000");
    bundle.set("/process/terminal", true);
    let podman = podman();
    let (_own, socket, id) = (Own(&podman, &bundle), ConsoleSocket::new(&bundle.dir), bundle.id.clone());
    let (place, pid, path) = (dir(&bundle, ""), dir(&bundle, "init.pid"), socket.path.display().to_string());
    let args = ["create", "--bundle", &place, "--pid-file", &pid, "--no-pivot", "--no-new-keyring"];
    let after = ["--preserve-fds", "0", "--console-socket", &path, &id];
    podman.silent(&bundle, &[&args[..], &after].concat());
    let mut master = socket.receive();
    podman.silent(&bundle, &["start", &id]);
    master.hears("in the terminal");
}

/// What is read of the errors' pipe is all that the user sees; who keeps it open would hold conmon for ever.
#[test]
fn conmon_hears_why_and_then_the_end() {
    let mut bundle = Bundle::new();
    bundle.args(&["/no/such"]);
    let podman = podman();
    let (_own, id) = (Own(&podman, &bundle), bundle.id.clone());
    let (place, pid) = (dir(&bundle, ""), dir(&bundle, "init.pid"));
    let mut create = podman.command(&bundle, &["create", "--bundle", &place, "--pid-file", &pid, &id]);
    let mut create = create.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = to_the_end(create.stderr.take().unwrap()).expect("somebody keeps the pipe");
    assert!(said.contains("no such file or directory"), "{said}");
    assert!(!create.wait().unwrap().success() && !Path::new(&pid).exists());
    podman.silent(&bundle, &["delete", "--force", &id]);
}

/// Of a runtime whose configuration says that it can, errors are taken from a log of one object.
#[test]
fn podman_decodes_one_object_of_the_log() {
    let mut bundle = Bundle::new();
    bundle.args(&["nosuch"]);
    let log = dir(&bundle, "oci-log");
    let before = ["--log-format=json", "--log", &log].map(String::from).to_vec();
    let podman = Caller { before, ..podman() };
    let (_own, id) = (Own(&podman, &bundle), bundle.id.clone());
    assert_ne!(podman.combined(&bundle, &["create", "--bundle", &dir(&bundle, ""), &id]).0, 0);
    let log = std::fs::read_to_string(log).unwrap();
    let entry: Value = serde_json::from_str(&log).unwrap_or_else(|error| panic!("{error}: {log}"));
    assert!(entry["level"] == "error" && entry["time"].is_string(), "{log}");
    assert!(entry["msg"].as_str().unwrap().contains("executable file not found in"), "{log}");
}

/// Ports that podman reserves are open in conmon and so in the runtime, above what was promised to the container.
#[test]
fn descriptors_that_podman_keeps_for_itself_stay_outside() {
    let bundle = Bundle::sh("ls /proc/self/fd; exec sleep 1000");
    let podman = podman();
    let (_own, id) = (Own(&podman, &bundle), bundle.id.clone());
    let (place, pid) = (dir(&bundle, ""), dir(&bundle, "init.pid"));
    let call = podman.command(&bundle, &["create", "--bundle", &place, "--pid-file", &pid, "--preserve-fds", "1", &id]);
    let line = "exec \"$@\" 3</etc/passwd 4</etc/group 7</proc 12</etc/group";
    let (reader, writer) = std::io::pipe().unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", line, "bash"]).arg(call.get_program()).args(call.get_args()).current_dir(&bundle.dir);
    shell.env("XDG_RUNTIME_DIR", "").env(leftovers::VARIABLE, &bundle.id);
    assert!(shell.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()).status().unwrap().success());
    drop(shell);
    podman.silent(&bundle, &["start", &id]);
    let mut list = String::new();
    // ls has one of its own, on the directory
    std::io::BufReader::new(reader).take(10).read_to_string(&mut list).unwrap();
    assert_eq!(list, "0\n1\n2\n3\n4\n");
}

/// What a runtime says to these decides whether podman offers checkpoints, and restores them into pods.
#[test]
fn podman_asks_whether_containers_can_be_stored() {
    let ask = |args: &[&str]| run(Command::new(runtime::path()).args(args).env_clear());
    let stores = ask(&["checkpoint", "--help"]).code == 0;
    let needs = ask(&["restore", "--lsm-mount-context"]);
    let takes_a_label =
        needs.stderr.contains("flag needs an argument") || needs.stderr.contains("requires an argument");
    assert_eq!(stores, takes_a_label, "{needs}");
}
