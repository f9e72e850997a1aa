//! What a caller reads: lists, logs, exit codes, versions. The parser's own rules are tested without root.

use std::fs;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::runtime::on_rrun;

#[test]
fn list_shows_a_table() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let output = bundle.call(&["list"]);
    let lines: Vec<Vec<_>> = output.ok().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let state = bundle.state();
    let [pid, created] = [state["pid"].to_string(), state["created"].as_str().unwrap().to_string()];
    assert_eq!(lines[1], [&bundle.id, &pid, "running", bundle.dir.to_str().unwrap(), &created, "root"]);
    assert_eq!(lines.len(), 2);
}

#[test]
fn list_speaks_json() {
    let bundle = Bundle::new();
    bundle.run_detached().ok();
    bundle.wait_until("stopped");
    let list: Value = serde_json::from_str(bundle.call(&["list", "--format", "json"]).ok()).unwrap();
    let state = bundle.state();
    for key in ["id", "status", "bundle", "rootfs", "created", "ociVersion", "pid"] {
        assert_eq!(list[0][key], state[key], "{key}");
    }
    assert_eq!((&list[0]["owner"], &list[0]["pid"]), (&json!("root"), &json!(0)));
}

#[test]
fn list_quiet_prints_ids() {
    let bundle = Bundle::new();
    bundle.create().ok();
    assert_eq!(bundle.call(&["list", "-q"]).ok(), format!("{}\n", bundle.id));
    assert_eq!(bundle.call(&["list", "--quiet"]).ok(), format!("{}\n", bundle.id));
}

#[test]
fn an_empty_list_is_null_in_json_and_a_header_in_a_table() {
    let bundle = Bundle::new();
    fs::create_dir(&bundle.state_root).unwrap();
    assert_eq!(bundle.call(&["list", "--format", "json"]).ok(), "null\n");
    assert_eq!(bundle.call(&["list"]).ok().split_whitespace().count(), 6);
    assert_eq!(bundle.call(&["list", "-q"]).ok(), "");
    bundle.call(&["list", "--format", "yaml"]).refused(&["invalid format option"]);
}

#[test]
fn list_goes_on_past_what_it_cannot_read() {
    let bundle = Bundle::new();
    bundle.create().ok();
    for name in ["empty", "broken"] {
        fs::create_dir(bundle.state_root.join(name)).unwrap();
    }
    fs::write(bundle.state_root.join("broken/state.json"), "{").unwrap();
    fs::write(bundle.state_root.join("a-file"), "").unwrap();
    let output = bundle.call(&["list", "-q"]);
    assert_eq!(output.code, 0, "{output}");
    assert!(output.stdout.lines().any(|line| line == bundle.id), "{output}");
    for name in ["empty", "broken", "a-file"] {
        let path = bundle.state_root.join(name);
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
}

/// The log of a failing command.
fn log_of_failure(flags: &[&str]) -> String {
    let mut bundle = Bundle::new();
    bundle.args(&["/missing \"quoted\""]);
    let output = bundle.call(&[flags, &["--log", "log", "create", &bundle.id]].concat());
    assert!(output.error().contains("/missing"), "the line is on stderr too: {output}");
    fs::read_to_string(bundle.dir.join("log")).unwrap()
}

// containerd takes the last entry with level error, podman takes the file for one object
#[test]
fn a_failure_is_one_json_object_in_the_log() {
    let log = log_of_failure(&["--log-format", "json"]);
    let entries: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors: Vec<_> = entries.iter().filter(|entry| entry["level"] == "error").collect();
    assert_eq!(errors.len(), 1, "{log}");
    assert!(errors[0]["msg"].as_str().unwrap().contains("/missing \"quoted\""), "{log}");
    let time = errors[0]["time"].as_str().unwrap();
    assert!(time.len() >= 20 && &time[10..11] == "T", "{time}");
    assert_eq!(entries.len(), 1, "{log}");
}

#[test]
fn a_failure_is_one_line_of_text_in_the_log() {
    let log = log_of_failure(&[]);
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.starts_with("time=\"") && log.contains("\" level=error msg=\""), "{log}");
    assert!(log.contains("\\\"quoted\\\""), "{log}");
}

#[test]
fn the_log_is_appended_to() {
    let bundle = Bundle::new();
    for _ in 0..2 {
        assert_eq!(bundle.call(&["--log", "log", "state", "missing"]).code, 1);
    }
    assert_eq!(fs::read_to_string(bundle.dir.join("log")).unwrap().lines().count(), 2);
}

#[test]
fn a_command_that_goes_well_logs_nothing() {
    let bundle = Bundle::new();
    for args in [
        &["create", &bundle.id][..],
        &["start", &bundle.id],
        &["state", &bundle.id],
        &["delete", "--force", &bundle.id],
    ] {
        bundle.call(&[&["--log", "log", "--log-format", "json"], args].concat()).ok();
    }
    assert_eq!(fs::read_to_string(bundle.dir.join("log")).unwrap_or_default(), "");
}

#[test]
fn debug_tells_more_and_to_the_log_only() {
    let bundle = Bundle::new();
    let output = bundle.call(&["--debug", "--log", "log", "--log-format", "json", "create", &bundle.id]);
    assert!(output.ok().is_empty());
    let log = fs::read_to_string(bundle.dir.join("log")).unwrap();
    let levels: Vec<Value> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["level"].clone()).collect();
    assert!(!levels.is_empty() && levels.iter().all(|level| level == "debug"), "{log}");
}

#[test]
fn a_wrong_log_format_is_refused() {
    let bundle = Bundle::new();
    bundle.call(&["--log-format", "xml", "list"]).refused(&["xml"]);
}

#[test]
fn exit_codes_of_the_command_line() {
    let bundle = Bundle::new();
    for (args, code) in [
        (&["--version"][..], 0),
        (&["--help"], 0),
        (&[], 0),
        (&["create", "--help"], 0),
        (&["state"], 1),
        (&["state", "a", "b"], 1),
        (&["create", "--no-such-flag", "x"], 1),
        (&["kill", "x", "KILL", "--all"], 1),
    ] {
        assert_eq!(bundle.call(args).code, code, "{args:?}");
    }
    if on_rrun() {
        assert_eq!(bundle.call(&["no-such-command"]).code, 3);
    }
}

#[test]
fn flags_may_stand_behind_the_command() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    bundle.call(&["delete", &bundle.id, "--force"]).ok();
    bundle.leaves_nothing();
}

// dockerd takes the last line that holds the word
#[test]
fn version_says_the_word_once() {
    let output = Bundle::new().call(&["--version"]);
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines.iter().filter(|line| line.contains("version")).count(), 1, "{output}");
    assert!(lines[0].contains(" version ") && lines.iter().any(|line| line.starts_with("spec: 1.")), "{output}");
}

#[test]
fn the_config_that_spec_writes_runs() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.dir.join("new")).unwrap();
    std::os::unix::fs::symlink("../rootfs", bundle.dir.join("link")).unwrap();
    bundle.call(&["spec", "--bundle", "new"]).ok();
    bundle.call(&["spec", "--bundle", "new"]).refused(&["config.json exists"]);
    let written = fs::read(bundle.dir.join("new/config.json")).unwrap();
    let mut again = Bundle::new();
    let marked = again.config["linux"]["cgroupsPath"].clone();
    again.config = serde_json::from_slice(&written).unwrap();
    again.set("/process/terminal", false).set("/linux/cgroupsPath", marked).args(&["hostname"]);
    let name = again.config["hostname"].as_str().unwrap().to_string();
    assert_eq!(again.run().ok(), format!("{name}\n"));
}

#[test]
fn plan_makes_nothing() {
    need!(rrun);
    let bundle = Bundle::new();
    bundle.command(&["state", "x"]); // writes config.json
    let output = bundle.call(&["plan", bundle.dir.to_str().unwrap()]);
    let plan: Value = serde_json::from_str(output.ok()).unwrap();
    assert_eq!(plan["process"]["args"], json!(["cat", "/proc/self/status"]));
    bundle.leaves_nothing();
}
