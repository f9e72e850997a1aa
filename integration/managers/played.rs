//! Managers that are not here, or newer than those that are, played: their calls with the arguments, the environment and
//! the streams that they have there, and answers read as they read them. A topic is a manager, a test what it does.

// what `create` returns has ended and is reaped; its pipes are what the caller keeps
#![allow(clippy::zombie_processes)]

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::leftovers;
use crate::runtime::{self, Output, eventually_within, on_rrun, run};
use crate::tty::ConsoleSocket;

const PATIENCE: Duration = Duration::from_secs(10);

/// One caller: what stands before each command, and all of the environment.
struct Caller {
    before: Vec<String>,
    environment: Vec<(&'static str, &'static str)>,
}

impl Caller {
    fn command(&self, bundle: &Bundle, args: &[&str]) -> Command {
        bundle.write_config();
        let mut command = Command::new(runtime::path());
        command.args(&self.before).args(args).current_dir(&bundle.dir).env_clear().stdin(Stdio::null());
        command.envs(self.environment.iter().copied()).env(leftovers::VARIABLE, &bundle.id);
        command
    }

    /// stdout and stderr in one pipe, read to its end, as go-runc does; who keeps it open makes its caller hang.
    #[track_caller]
    fn combined(&self, bundle: &Bundle, args: &[&str]) -> (i32, String) {
        combined(self.command(bundle, args))
    }

    /// What goes well says nothing.
    #[track_caller]
    fn silent(&self, bundle: &Bundle, args: &[&str]) {
        assert_eq!(self.combined(bundle, args), (0, String::new()), "{args:?}");
    }

    #[track_caller]
    fn fails(&self, bundle: &Bundle, args: &[&str], words: &str) {
        let (code, text) = self.combined(bundle, args);
        assert!(code != 0 && text.contains(words), "{args:?} gave {code}: {text}");
    }
}

#[track_caller]
fn combined(mut command: Command) -> (i32, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut child = command.stdout(writer.try_clone().unwrap()).stderr(writer).spawn().unwrap();
    let what = format!("{command:?}");
    drop(command); // and with it our own copies of the pipe
    let text = to_the_end(reader).unwrap_or_else(|| panic!("{what}: its output does not end"));
    (child.wait().unwrap().code().unwrap_or(-1), text)
}

fn to_the_end(mut reader: impl Read + Send + 'static) -> Option<String> {
    let (ended, wait) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = reader.read_to_string(&mut text);
        let _ = ended.send(text);
    });
    wait.recv_timeout(PATIENCE).ok()
}

/// As go-runc's strict parser takes it: digits and nothing else.
#[track_caller]
fn pid_file(path: &Path) -> i32 {
    let text = std::fs::read_to_string(path).unwrap();
    text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
}

fn dir(bundle: &Bundle, name: &str) -> String {
    bundle.dir.join(name).display().to_string()
}

/// A process of the caller's, gone as soon as its call has returned.
fn process(bundle: &Bundle, args: &[&str]) -> String {
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(args);
    bundle.host_file("runc-process123", process.to_string()).display().to_string()
}

/// containerd-shim-runc-v2: a root for each namespace, and a log that all calls of a container append to.
fn shim(bundle: &Bundle) -> Caller {
    let words = ["--root", &dir(bundle, "state/k8s.io"), "--log", &dir(bundle, "log.json"), "--log-format", "json"];
    Caller { before: words.map(String::from).to_vec(), environment: vec![("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")] }
}

/// `create` with the container's own pipes.
#[track_caller]
fn create(caller: &Caller, bundle: &Bundle) -> Child {
    let (place, pid_file_path) = (dir(bundle, ""), dir(bundle, "init.pid"));
    let args = ["create", "--bundle", &place, "--pid-file", &pid_file_path, &bundle.id];
    let mut command = caller.command(bundle, &args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = runtime::wait_within(&mut child, PATIENCE).expect("create hangs");
    assert!(status.success(), "{:?}", to_the_end(child.stderr.take().unwrap()));
    assert!(pid_file(Path::new(&pid_file_path)) > 1);
    child
}

#[test]
fn a_shim_has_a_container_from_create_to_delete() {
    let mut bundle = Bundle::sh("echo out; echo err >&2; exec sleep 1000");
    bundle.state_root = bundle.dir.join("state/k8s.io");
    let (shim, id) = (shim(&bundle), bundle.id.clone());
    let mut container = create(&shim, &bundle);
    let init = pid_file(&bundle.dir.join("init.pid"));
    let cgroups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert!(cgroups.contains(&bundle.id), "{cgroups}");
    shim.silent(&bundle, &["start", &id]);

    let given = process(&bundle, &["sleep", "1000"]);
    let (execed, exec_pid) = (dir(&bundle, "e1.pid"), bundle.dir.join("e1.pid"));
    let mut exec = shim.command(&bundle, &["exec", "--process", &given, "--detach", "--pid-file", &execed, &id]);
    let mut exec = exec.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(runtime::wait_within(&mut exec, PATIENCE).expect("exec hangs").success());
    std::fs::remove_file(given).unwrap();
    let (_, listed) = shim.combined(&bundle, &["ps", "--format", "json", &id]);
    let listed: Vec<i32> = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
    assert!(listed.contains(&init) && listed.contains(&pid_file(&exec_pid)), "{listed:?}");
    let (_, state) = shim.combined(&bundle, &["state", &id]);
    let state: Value = serde_json::from_str(&state).unwrap_or_else(|error| panic!("{error}: {state}"));
    assert!(state["status"] == "running" && state["pid"] == init, "{state}");

    for command in ["pause", "resume"] {
        shim.silent(&bundle, &[command, &id]);
    }
    let mut update = shim.command(&bundle, &["update", "--resources=-", &id]);
    update.stdin(std::fs::File::open(bundle.host_file("limits", r#"{"pids":{"limit":77}}"#)).unwrap());
    assert_eq!(combined(update), (0, String::new()));
    assert_eq!(std::fs::read_to_string(bundle.cgroup("pids").join("pids.max")).unwrap(), "77\n");

    shim.silent(&bundle, &["kill", &id, "9"]);
    assert_eq!(to_the_end(container.stdout.take().unwrap()).as_deref(), Some("out\n"));
    assert_eq!(to_the_end(container.stderr.take().unwrap()).as_deref(), Some("err\n"));
    let stopped = || shim.combined(&bundle, &["state", &id]).1.contains("\"stopped\"").then_some(());
    eventually_within(PATIENCE, stopped).unwrap();
    shim.fails(&bundle, &["kill", &id, "15"], "container not running");
    shim.silent(&bundle, &["kill", "--all", &id, "9"]);
    shim.silent(&bundle, &["delete", &id]);
    shim.fails(&bundle, &["delete", &id], "does not exist");
    shim.fails(&bundle, &["kill", &id, "9"], "does not exist");
    shim.silent(&bundle, &["delete", "--force", &id]);
    bundle.state_root = bundle.dir.join("state");
    std::fs::remove_dir(bundle.dir.join("state/k8s.io")).unwrap();
}

/// go-runc: the first JSON value of stdout, whose stream it then closes; or value by value until the stream ends.
#[test]
fn a_shim_asks_what_a_container_uses() {
    let mut bundle = Bundle::sleeping();
    bundle.state_root = bundle.dir.join("state/k8s.io");
    let (shim, id) = (shim(&bundle), bundle.id.clone());
    let _pipes = create(&shim, &bundle);
    shim.silent(&bundle, &["start", &id]);
    let event = |value: Option<serde_json::Result<Value>>| -> Value {
        let event = value.expect("an event").unwrap();
        assert!(event["type"] == "stats" && event["id"] == id, "{event}");
        assert!(event["data"]["pids"]["current"] == 1 && event["data"]["memory"]["raw"].is_object(), "{event}");
        event
    };
    let stats = run(&mut shim.command(&bundle, &["events", "--stats", &id]));
    event(serde_json::Deserializer::from_str(stats.ok()).into_iter().next());

    let mut events = shim.command(&bundle, &["events", "--interval=1s", &id]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut values = serde_json::Deserializer::from_reader(events.stdout.take().unwrap()).into_iter();
    event(values.next());
    event(values.next());
    shim.silent(&bundle, &["kill", &id, "9"]);
    eventually_within(PATIENCE, || shim.combined(&bundle, &["state", &id]).1.contains("\"stopped\"").then_some(()));
    shim.silent(&bundle, &["delete", &id]);
    while values.next().is_some() {}
    assert!(runtime::wait_within(&mut events, PATIENCE).expect("events hang").success());
    shim.fails(&bundle, &["events", "--stats", &id], "does not exist");
    bundle.state_root = bundle.dir.join("state");
    std::fs::remove_dir(bundle.dir.join("state/k8s.io")).unwrap();
}

/// A terminal: create's own output is one buffer, and the socket is looked at when create has ended.
#[test]
fn a_shim_takes_the_terminal_afterwards() {
    let mut bundle = Bundle::sh("echo in the terminal; exec sleep 1000");
    bundle.set("/process/terminal", true);
    bundle.state_root = bundle.dir.join("state/k8s.io");
    let (shim, socket, id) = (shim(&bundle), ConsoleSocket::new(&bundle.dir), bundle.id.clone());
    let (path, pid) = (socket.path.display().to_string(), dir(&bundle, "init.pid"));
    shim.silent(
        &bundle,
        &["create", "--bundle", &dir(&bundle, ""), "--pid-file", &pid, "--console-socket", &path, &id],
    );
    let mut master = socket.receive();
    shim.silent(&bundle, &["start", &id]);
    master.hears("in the terminal");
    let given = process(&bundle, &["sh", "-c", "echo executed; exec sleep 1000"]);
    shim.silent(
        &bundle,
        &["exec", "--process", &given, "--console-socket", &path, "--detach", "--pid-file", &pid, &id],
    );
    socket.receive().hears("executed");
    shim.silent(&bundle, &["delete", "--force", &id]);
}

/// The last entry of the log whose level is `error` becomes what the user reads.
#[test]
fn a_shim_reads_why_it_failed() {
    let mut bundle = Bundle::new();
    bundle.args(&["nosuch"]);
    bundle.state_root = bundle.dir.join("state/k8s.io");
    let (shim, id) = (shim(&bundle), bundle.id.clone());
    let path = dir(&bundle, "init.pid");
    assert_ne!(shim.combined(&bundle, &["create", "--bundle", &dir(&bundle, ""), "--pid-file", &path, &id]).0, 0);
    assert!(!Path::new(&path).exists(), "a pid file of a container that is not");
    let log = std::fs::read_to_string(bundle.dir.join("log.json")).unwrap();
    let entries: Vec<Value> = serde_json::Deserializer::from_str(&log).into_iter().collect::<Result<_, _>>().unwrap();
    let last = entries.iter().rfind(|entry| entry["level"] == "error").unwrap_or_else(|| panic!("{log}"));
    assert!(last["msg"].as_str().unwrap().contains("exec: \"nosuch\": executable file not found in $PATH"), "{log}");
    assert!(last["time"].as_str().is_some_and(|time| time.contains('T')), "{log}");
    shim.silent(&bundle, &["delete", "--force", &id]);
}

/// Docker and containerd ask what a runtime can do, without a root of its own and with flags of theirs before.
#[test]
fn features_and_version() {
    let ask = |args: &[&str]| run(Command::new(runtime::path()).args(args).env_clear()).stdout;
    let features: Value = serde_json::from_str(&ask(&["--debug", "features"])).unwrap();
    for key in ["ociVersionMin", "ociVersionMax"] {
        assert!(features[key].as_str().is_some_and(|version| version.starts_with("1.")), "{key}: {features}");
    }
    assert!(features["linux"].is_object(), "read without a look whether it is there");
    if on_rrun() {
        assert!(features["mountOptions"].as_array().unwrap().contains(&json!("rro")), "{features}");
        assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("user")), "{features}");
    }
    let said = ask(&["--version"]);
    let named = said.lines().rfind(|line| line.contains("version")).unwrap();
    let (name, version) = named.split_once(" version ").unwrap();
    assert!(!name.contains(' ') && version.starts_with(|first: char| first.is_ascii_digit()), "{said}");
}

/// No `--root`, so the runtime's own; its state is removed by `delete`.
struct Own<'a>(&'a Caller, &'a Bundle);

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(self.1, &["delete", "--force", &self.1.id]).output();
    }
}

/// buildkit: `run` in the foreground with a process group of its own, `exec` likewise, by a state that it polls.
#[test]
fn buildkit_runs_a_step() {
    let bundle = Bundle::sh("echo step; until test -e /tmp/end; do sleep 0.1; done; exit 6");
    let log = dir(&bundle, "log.json");
    let words = ["--log", &log, "--log-format", "json"];
    let buildkit = Caller {
        before: words.map(String::from).to_vec(),
        environment: vec![("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")],
    };
    let (_own, id) = (Own(&buildkit, &bundle), bundle.id.clone());
    let mut step = buildkit.command(&bundle, &["run", "--bundle", &dir(&bundle, ""), "--keep", &id]);
    let mut step = step.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let running = || buildkit.combined(&bundle, &["state", &id]).1.contains("\"running\"").then_some(());
    eventually_within(PATIENCE, running).unwrap();
    let (given, pid) = (process(&bundle, &["sh", "-c", "touch /tmp/end; exit 4"]), dir(&bundle, "exec.pid"));
    let exec = buildkit.combined(&bundle, &["exec", "--process", &given, "--pid-file", &pid, &id]);
    assert_eq!(exec, (4, String::new()));
    assert_eq!(runtime::wait_within(&mut step, PATIENCE).unwrap().code(), Some(6));
    assert_eq!(to_the_end(step.stdout.take().unwrap()).as_deref(), Some("step\n"));
    buildkit.silent(&bundle, &["delete", &id]);
}

/// CRI-O: an environment of one variable, no PATH; conmon makes the pid file before, empty.
#[test]
fn cri_o_has_a_container() {
    let mut bundle = Bundle::sleeping();
    bundle.state_root = bundle.dir.join("state");
    let before = vec!["--root".to_string(), dir(&bundle, "state")];
    let crio = Caller { before, environment: vec![("XDG_RUNTIME_DIR", "/run/user/0")] };
    let id = bundle.id.clone();
    bundle.host_file("init.pid", "");
    let _pipes = create(&crio, &bundle);
    crio.silent(&bundle, &["start", &id]);
    let (code, state) = crio.combined(&bundle, &["state", &id]);
    let state: Value = serde_json::from_str(&state).unwrap();
    assert!(code == 0 && state["status"] == "running" && state["created"].is_string(), "{state}");
    let given = process(&bundle, &["sh", "-c", "echo executed; exit 3"]);
    assert_eq!(crio.combined(&bundle, &["exec", "--process", &given, &id]), (3, "executed\n".into()));
    let mut update = crio.command(&bundle, &["update", "--resources", "-", &id]);
    update.stdin(std::fs::File::open(bundle.host_file("limits", r#"{"pids":{"limit":66}}"#)).unwrap());
    assert_eq!(combined(update), (0, String::new()));
    for command in ["pause", "resume"] {
        crio.silent(&bundle, &[command, &id]);
    }
    crio.silent(&bundle, &["kill", &id, "KILL"]);
    bundle.wait_until("stopped");
    // either of these words, and the container counts as gone
    let (code, text) = crio.combined(&bundle, &["kill", &id, "15"]);
    let gone = ["no such process", "container not running", "invalid process"];
    assert!(code != 0 && gone.iter().any(|words| text.contains(words)), "{text}");
    crio.silent(&bundle, &["delete", "--force", &id]);
    crio.silent(&bundle, &["delete", "--force", &id]);
}

/// Podman with conmon: no `--root` and no log; its own calls have an empty XDG_RUNTIME_DIR, and most no PATH.
#[test]
fn podman_has_a_container() {
    let bundle = Bundle::sleeping();
    let podman = Caller { before: Vec::new(), environment: vec![("XDG_RUNTIME_DIR", "")] };
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
