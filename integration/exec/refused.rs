//! What `exec` refuses, and how it says so.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::{exec, fails, running, sh};
use crate::bundle::Bundle;
use crate::runtime::{DEADLINE, eventually_within, on_rrun};

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
    fails(&output, if on_rrun() { &["exec: \"/etc\": is a directory: permission denied"] } else { &["/etc"] });
    if on_rrun() {
        fails(
            &exec(&bundle, &[], &["bad"]),
            &["its interpreter /missing/interpreter stops exec bad: no such file or directory"],
        );
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
fn processors_that_are_not_there_are_named_with_what_to_do() {
    need!(rrun); // others tell a number
    let mut bundle = Bundle::sleeping();
    running(&bundle);
    for when in ["initial", "final"] {
        bundle.set("/process", json!({"args": ["true"], "cwd": "/", "execCPUAffinity": {when: "1000-1002,1004"}}));
        let file = bundle.host_file("affinity.json", bundle.config["process"].to_string());
        let output = bundle.call(&["exec", "-p", file.to_str().unwrap(), &bundle.id]);
        let field = format!("process.execCPUAffinity.{when}: sched_setaffinity 1000-1002,1004: ");
        fails(&output, &[&field, "EINVAL", "this host has none of these CPUs"]);
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
