//! Managers that are not here, or newer than those that are, played: their calls with the arguments, the environment and
//! the streams that they have there, and answers read as they read them. A topic is a manager, a test what it does.
//! `rows.md` says which call of which manager is played where.

// what `create` returns has ended and is reaped; its pipes are what the caller keeps
#![allow(clippy::zombie_processes)]

mod cri_o;
mod docker;
mod go_runc;
mod podman;
mod shim;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::leftovers;
use crate::runtime;

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

    /// Both streams in one buffer, read as JSON: a word beside it breaks it.
    #[track_caller]
    fn json(&self, bundle: &Bundle, args: &[&str]) -> Value {
        let (code, text) = self.combined(bundle, args);
        assert_eq!(code, 0, "{args:?}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
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

/// No `--root`, so the runtime's own; its state is removed by `delete`.
struct Own<'a>(&'a Caller, &'a Bundle);

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(self.1, &["delete", "--force", &self.1.id]).output();
    }
}
