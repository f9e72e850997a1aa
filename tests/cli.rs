//! The binary as a caller sees it: words, streams, exit statuses, log files. No root, no container.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// rrun with a root directory of its own and an empty environment, as managers call it.
struct Rrun {
    dir: TempDir,
}

impl Rrun {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().into()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rrun"));
        command.env_clear().current_dir(self.dir.path()).arg("--root").arg(self.dir.path()).args(words);
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// A failing command: its exit status and stderr; stdout carries data alone.
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        assert_eq!(text(&output.stdout), "", "{words:?}");
        (output.status.code().unwrap(), text(&output.stderr))
    }

    /// A successful command: its stdout; a word on stderr would break callers that read both as one.
    fn succeeds(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{words:?}");
        text(&output.stdout)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_and_version_are_data() {
    let rrun = Rrun::new();
    for words in [&[][..], &["--help"], &["help"]] {
        assert!(rrun.succeeds(words).contains("Usage: rrun "), "{words:?}");
    }
    for command in [
        "create", "start", "run", "state", "list", "kill", "pause", "resume", "ps", "delete", "spec", "features",
        "plan",
    ] {
        assert!(rrun.succeeds(&[command, "-h"]).contains(&format!("Usage: rrun {command}")), "{command}");
    }
    let version = rrun.succeeds(&["--version"]);
    let lines: Vec<_> = version.lines().collect();
    assert_eq!(lines[0], concat!("rrun version ", env!("CARGO_PKG_VERSION")));
    assert_eq!(lines.last(), Some(&"spec: 1.3.0"));
    assert_eq!(version.matches("version").count(), 1, "dockerd takes the last line with that word");
}

#[test]
fn misuse_is_one_line_and_opens_no_log() {
    let rrun = Rrun::new();
    let log = rrun.path("log");
    for (words, status, line) in [
        (&["frob"][..], 3, "rrun: unknown command frob; see rrun --help\n"),
        (&["mounts", "c1"], 3, "rrun: this version has no command mounts yet; see rrun --help\n"),
        (&["state", "--frob", "c1"], 1, "state: flag provided but not defined: -frob; see rrun state --help\n"),
        (&["create", "c1", "--bundle"], 1, "create: flag needs an argument: --bundle; see rrun create --help\n"),
        (&["state"], 1, "rrun: \"state\" requires exactly 1 argument(s), not 0; see rrun state --help\n"),
        (&["--log-format=xml", "list"], 1, "list: invalid log-format: xml; see rrun --help\n"),
    ] {
        let words = [&["--log", &log][..], words].concat();
        assert_eq!(rrun.fails(&words), (status, line.into()), "{words:?}");
        assert!(!Path::new(&log).exists(), "{words:?}");
    }
}

#[test]
fn a_failed_command_leaves_one_entry_in_the_log_and_its_reason_on_stderr() {
    let rrun = Rrun::new();
    let (json, plain) = (rrun.path("log.json"), rrun.path("log"));
    let reason = "state c1: container does not exist";
    for n in 1..=2 {
        let words = ["--log", &json, "--log-format", "json", "state", "c1"];
        assert_eq!(rrun.fails(&words), (1, format!("{reason}\n")));
        let log = fs::read_to_string(&json).unwrap();
        let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(entries.len(), n, "appended, one each: {log}");
        let last = entries[n - 1].as_object().unwrap();
        assert_eq!((&last["level"], &last["msg"], last.len()), (&"error".into(), &reason.into(), 3));
        assert!(is_a_date(last["time"].as_str().unwrap()), "{log}");
    }
    // Global flags may stand behind, too; debugging adds no second error.
    assert_eq!(rrun.fails(&["state", "c1", "--debug", "--log", &plain]).0, 1);
    let log = fs::read_to_string(&plain).unwrap();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("level=error")).collect();
    let [error] = errors[..] else { panic!("{log}") };
    let (time, rest) = error.strip_prefix("time=\"").unwrap().split_once('"').unwrap();
    assert!(is_a_date(time) && rest == format!(" level=error msg=\"{reason}\""), "{log}");
}

/// `2026-11-21T09:59:49Z`
fn is_a_date(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    form == "0000-00-00T00:00:00Z" && text > "2020"
}

#[test]
fn without_a_log_stderr_has_the_reason_once() {
    let rrun = Rrun::new();
    assert_eq!(rrun.fails(&["state", "c1"]), (1, "state c1: container does not exist\n".into()));
    assert_eq!(rrun.fails(&["--log", "", "state", "c1"]), (1, "state c1: container does not exist\n".into()));
    let (status, stderr) = rrun.fails(&["--log-format", "json", "state", "c1"]);
    let entry: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((status, entry["msg"].as_str()), (1, Some("state c1: container does not exist")));
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let rrun = Rrun::new();
    let log = rrun.path("missing/log");
    let want = format!("state c1: --log: open {log}: no such file or directory (ENOENT)\n");
    assert_eq!(rrun.fails(&["--log", &log, "state", "c1"]), (1, want));
}

#[test]
fn an_unknown_signal_is_named() {
    let (status, stderr) = Rrun::new().fails(&["kill", "c1", "SIGFROB"]);
    assert_eq!(status, 1);
    assert!(stderr.starts_with("kill c1: unknown signal \"SIGFROB\"; "), "{stderr}");
}

#[test]
fn a_root_directory_that_cannot_be_is_refused() {
    let rrun = Rrun::new();
    for words in [&["--root", "/", "list"][..], &["list", "--root=/tmp/../"]] {
        let (status, stderr) = rrun.fails(words);
        assert!(status == 1 && stderr.starts_with("list: --root: / holds the whole system"), "{words:?}: {stderr}");
    }
    let missing = rrun.path("missing");
    let want = format!("list: open {missing}: no such file or directory (ENOENT)\n");
    assert_eq!(rrun.fails(&["list", "--root", &missing]), (1, want));
}

#[test]
fn an_empty_list() {
    let rrun = Rrun::new();
    assert_eq!(rrun.succeeds(&["list"]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
    assert_eq!(rrun.succeeds(&["list", "--format=json"]), "null\n");
    assert_eq!(rrun.succeeds(&["list", "-q"]), "");
    let want = "list: invalid format option: xml is neither table nor json\n";
    assert_eq!(rrun.fails(&["list", "-f", "xml"]), (1, want.into()));
}

#[test]
fn features_need_no_state_directory_and_satisfy_their_readers() {
    let rrun = Rrun::new();
    let json = rrun.succeeds(&["--root", "/proc/nowhere", "features"]);
    assert!(json.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n") && json.ends_with("}\n"), "{json}");
    let features: oci_spec::runtime::Features = serde_json::from_str(&json).unwrap();
    let options = features.mount_options().as_ref().unwrap();
    assert!(options.contains(&"rro".into()), "docker refuses recursive read-only mounts without it");
    assert!(options.is_sorted(), "{options:?}");
    assert!(features.linux().as_ref().unwrap().cgroup().as_ref().unwrap().v1().unwrap());
}

#[test]
fn spec_writes_a_config_and_overwrites_nothing() {
    let rrun = Rrun::new();
    let read = |name: &str| fs::read_to_string(rrun.path(name)).unwrap();
    assert_eq!(rrun.succeeds(&["spec"]), "");
    assert!(read("config.json").starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n"));
    fs::write(rrun.path("config.json"), "mine").unwrap();
    assert_eq!(rrun.fails(&["spec"]), (1, "spec: file config.json exists; remove it first\n".into()));
    assert_eq!(read("config.json"), "mine");

    fs::create_dir(rrun.path("bundle")).unwrap();
    rrun.succeeds(&["spec", "--bundle", "bundle", "-f", "other.json", "--rootless"]);
    let config: Value = serde_json::from_str(&read("bundle/other.json")).unwrap();

    assert_eq!(config["linux"]["uidMappings"][0]["hostID"], nix::unistd::geteuid().as_raw());
    assert_eq!(config["linux"]["gidMappings"][0]["hostID"], nix::unistd::getegid().as_raw());

    let want = "spec: create missing/config.json: no such file or directory (ENOENT)\n";
    assert_eq!(rrun.fails(&["spec", "-b", "missing"]), (1, want.into()));
}

#[test]
fn whoever_stops_reading_has_read_enough() {
    let rrun = Rrun::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = rrun.command(&["features"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));

    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = rrun.command(&["state", "c1"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1), "the status is told even where the reason finds no reader");

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = rrun.command(&["features"]).stdout(full).output().unwrap();
    let want = "features: write stdout: no space left on device (ENOSPC)\n";
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), want.into()));
}

#[test]
fn words_need_not_be_utf8() {
    let rrun = Rrun::new();
    let name = std::ffi::OsStr::from_bytes(b"log\xff");
    let output = rrun.command(&["state", "c1", "--log"]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let log = rrun.dir.path().join(name);
    assert!(fs::read_to_string(&log).unwrap().contains("container does not exist"));
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o133, 0, "nobody else writes it, nobody runs it");
}
