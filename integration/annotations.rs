//! Annotations that change what a container is: only as root permits, who says so in a file. Here /etc is another one for
//! rrun alone.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;
use crate::hooks::{KINDS, add};
use crate::mapped::mapped;
use crate::runtime::{self, Output};

const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// As a caller with the groups 4242 and 4343, where root has permitted what `list` says.
fn call(bundle: &Bundle, list: Option<&str>, args: &[&str]) -> Output {
    let etc = bundle.dir.join("etc");
    fs::create_dir_all(etc.join("rrun")).unwrap();
    let file = etc.join("rrun/annotations");
    match list {
        Some(list) => fs::write(&file, list).unwrap(),
        None => drop(fs::remove_file(&file)),
    }
    let inner = bundle.command(args);
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /etc && exec setpriv --groups 4242,4343 \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&etc).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    runtime::run(command.current_dir(&bundle.dir))
}

fn groups(text: &str) -> Vec<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_else(|| panic!("{text}"));
    line.split_whitespace().collect()
}

#[test]
fn the_callers_groups_stay_only_if_root_permits() {
    need!(rrun); // crun keeps them for whoever writes the annotation
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/self/status"]);
    assert!(groups(call(&bundle, None, &["run", &bundle.id]).ok()).is_empty());
    bundle.set("/annotations", json!({KEEP_GROUPS: "1"}));
    for list in [None, Some(""), Some("run.oci.\nrun.oci.keep\n")] {
        let words = ["config.json: annotations.run.oci.keep_original_groups: ", "/etc/rrun/annotations"];
        call(&bundle, list, &["create", &bundle.id]).refused(&words);
        bundle.leaves_nothing();
    }
    let permitted = Some("a\nrun.oci.keep_original_groups\n");
    assert_eq!(groups(call(&bundle, permitted, &["run", &bundle.id]).ok()), ["4242", "4343"]);
    // those of a user namespace are other ones, if any
    let mut inside = mapped(Bundle::new());
    inside.args(&["cat", "/proc/self/status"]).set("/annotations", json!({KEEP_GROUPS: "1"}));
    assert_eq!(groups(call(&inside, permitted, &["run", &inside.id]).ok()), ["65534", "65534"]);
    bundle.set("/annotations", json!({KEEP_GROUPS: "0", "run.oci.unknown": "x"}));
    assert!(groups(call(&bundle, permitted, &["run", &bundle.id]).ok()).is_empty());
}

#[test]
fn what_is_executed_keeps_them_too() {
    need!(rrun);
    let permitted = Some(KEEP_GROUPS);
    let mut bundle = Bundle::sleeping();
    bundle.set("/annotations", json!({KEEP_GROUPS: "1"}));
    call(&bundle, permitted, &["run", "--detach", &bundle.id]).ok();
    let status = ["exec", &bundle.id, "cat", "/proc/self/status"];
    assert_eq!(groups(call(&bundle, permitted, &status).ok()), ["4242", "4343"]);
    let output = call(&bundle, Some(""), &status);
    assert!(output.code == 255 && output.stderr.contains("annotations.run.oci.keep_original_groups: "), "{output}");
}

#[test]
fn a_list_that_others_may_write_is_no_list_of_roots() {
    need!(rrun);
    let mut bundle = Bundle::new();
    bundle.set("/annotations", json!({KEEP_GROUPS: "1"}));
    call(&bundle, Some(KEEP_GROUPS), &["run", &bundle.id]).ok();
    let file = bundle.dir.join("etc/rrun/annotations");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    call(&bundle, Some(KEEP_GROUPS), &["create", &bundle.id])
        .refused(&["/etc/rrun/annotations: must be a file that root owns"]);
    bundle.leaves_nothing();
}

#[test]
fn a_pidfd_goes_to_the_socket_that_is_named() {
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    let path = bundle.dir.join("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    bundle.set("/annotations", json!({"run.oci.pidfd_receiver": path}));
    call(&bundle, Some("run.oci.pidfd_receiver"), &["run", "--detach", &bundle.id]).ok();
    let (mut socket, _) = listener.accept().unwrap();
    let mut said = Vec::new();
    socket.read_to_end(&mut said).unwrap();
    assert_eq!(said, b"standard");
}

const HOOKS: &str = "run.oci.hooks.stdout\nrun.oci.hooks.stderr";

/// One hook of every kind, which says its kind.
fn with_talking_hooks(mut bundle: Bundle) -> Bundle {
    for kind in KINDS {
        let said = format!("echo {kind} out; echo {kind} err >&2");
        add(&mut bundle, kind, json!({"path": "/bin/sh", "args": ["sh", "-c", said]}));
    }
    bundle
}

fn of_every_kind(stream: &str) -> String {
    KINDS.map(|kind| format!("{kind} {stream}\n")).concat()
}

#[test]
fn what_hooks_write_goes_to_files_that_root_permits() {
    need!(rrun); // crun opens them for whoever writes the annotation
    for bundle in [Bundle::sleeping(), mapped(Bundle::sleeping())] {
        let mut bundle = with_talking_hooks(bundle);
        let [out, err] = ["out.log", "err.log"].map(|name| bundle.dir.join(name));
        bundle.set("/annotations", json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err}));
        for list in [None, Some("run.oci.hooks.stdout\nrun.oci.hooks.\n")] {
            call(&bundle, list, &["create", &bundle.id]).refused(&["config.json: annotations.run.oci.hooks.stderr: "]);
            bundle.leaves_nothing();
            assert!(!out.exists() && !err.exists());
        }
        fs::write(&out, "before\n").unwrap();
        call(&bundle, Some(HOOKS), &["create", &bundle.id]).ok();
        // what is permitted once stays so for this container
        bundle.start().ok();
        bundle.delete_force().ok();
        assert_eq!(fs::read_to_string(&out).unwrap(), format!("before\n{}", of_every_kind("out")));
        assert_eq!(fs::read_to_string(&err).unwrap(), of_every_kind("err"));
        assert_eq!(fs::metadata(&err).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn the_program_gets_no_descriptor_of_the_hooks_files() {
    need!(rrun);
    let mut bundle = with_talking_hooks(Bundle::new());
    bundle.args(&["sh", "-c", "ls /proc/self/fd/ | wc -l; echo program"]);
    let without = bundle.run().ok().to_string();
    let log = bundle.dir.join("log");
    bundle.set("/annotations", json!({"run.oci.hooks.stdout": log, "run.oci.hooks.stderr": log}));
    assert_eq!(call(&bundle, Some(HOOKS), &["run", &bundle.id]).ok(), without);
    let both = KINDS.map(|kind| format!("{kind} out\n{kind} err\n")).concat();
    let said = fs::read_to_string(&log).unwrap();
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(String::from).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&said), sorted(&both));
}

#[test]
fn a_file_that_hooks_cannot_write_to_is_told_before_anything_is_made() {
    need!(rrun);
    let mut bundle = with_talking_hooks(Bundle::new());
    let link = bundle.dir.join("link");
    symlink(bundle.dir.join("elsewhere"), &link).unwrap();
    for path in [link, bundle.dir.join("none/log"), bundle.dir.clone()] {
        bundle.set("/annotations", json!({"run.oci.hooks.stderr": path}));
        let words = ["config.json: annotations.run.oci.hooks.stderr: ", path.to_str().unwrap()];
        call(&bundle, Some(HOOKS), &["create", &bundle.id]).refused(&words);
        bundle.leaves_nothing();
    }
    assert!(!bundle.dir.join("elsewhere").exists());
    // who has no hooks needs no file
    bundle.config["hooks"] = json!({});
    call(&bundle, Some(HOOKS), &["run", &bundle.id]).ok();
}

#[test]
fn a_hook_that_fails_shows_what_goes_to_no_file() {
    need!(rrun);
    let mut bundle = Bundle::new();
    let log = bundle.dir.join("log");
    bundle.set("/annotations", json!({"run.oci.hooks.stdout": log}));
    let fails = json!({"path": "/bin/sh", "args": ["sh", "-c", "echo said; echo reason >&2; exit 3"]});
    add(&mut bundle, "createRuntime", fails);
    let output = call(&bundle, Some(HOOKS), &["create", &bundle.id]);
    output.refused(&["hooks.createRuntime[0]", "exit status 3, stderr: reason"]);
    bundle.leaves_nothing();
    assert_eq!(fs::read_to_string(&log).unwrap(), "said\n");
}

#[test]
fn after_the_end_a_hook_runs_without_its_file_too() {
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    let (logs, ran) = (bundle.dir.join("logs"), bundle.dir.join("ran"));
    fs::create_dir(&logs).unwrap();
    bundle.set("/annotations", json!({"run.oci.hooks.stdout": logs.join("log")}));
    let touches = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("echo x; : > {}", ran.display())]});
    add(&mut bundle, "poststop", touches);
    call(&bundle, Some(HOOKS), &["create", &bundle.id]).ok();
    fs::remove_dir_all(&logs).unwrap();
    let log = bundle.dir.join("warnings");
    bundle.call(&["--log", log.to_str().unwrap(), "delete", "--force", &bundle.id]).ok();
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains("annotations.run.oci.hooks.stdout: open "), "{told}");
    assert!(ran.exists());
}

#[test]
fn a_call_that_nobody_knows_is_fatal_if_asked() {
    let mut bundle = Bundle::new();
    let rule = json!({"names": ["no_such_call", "getpid"], "action": "SCMP_ACT_ALLOW"});
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    bundle.run().ok();
    need!(rrun);
    bundle.set("/annotations", json!({"run.oci.seccomp_fail_unknown_syscall": "1"}));
    bundle.create().refused(&["linux.seccomp.syscalls: no_such_call is no system call that rrun knows"]);
    bundle.leaves_nothing();
}

const FILTER: &str = "run.oci.seccomp_bpf_data";

/// `verdict` of one call, and SCMP_ACT_ALLOW of all others, as seccomp(2) and base64(1) have it.
fn filter(bundle: &Bundle, number: i64, verdict: u32) -> String {
    let program = [(0x20, 0, 0), (0x15, 1, number as u32), (0x06, 0, verdict), (0x06, 0, 0x7fff_0000)];
    let instruction =
        |(code, jump, operand): (u16, u8, u32)| [&code.to_ne_bytes()[..], &[0, jump], &operand.to_ne_bytes()].concat();
    let bytes = bundle.host_file("filter", program.map(instruction).concat());
    runtime::run(Command::new("base64").args(["--wrap", "0"]).arg(bytes)).ok().to_string()
}

#[test]
fn a_filter_written_as_bytes_takes_the_place_of_the_rules_if_root_permits() {
    need!(rrun); // crun follows whoever writes the annotation
    let mut bundle = Bundle::sleeping();
    let kills = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"});
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [kills]}));
    let refusing_uname = filter(&bundle, libc::SYS_uname, libc::SECCOMP_RET_ERRNO | libc::E2BIG as u32);
    bundle.set("/annotations", json!({FILTER: refusing_uname}));
    for list in [None, Some("run.oci.seccomp.receiver\n")] {
        call(&bundle, list, &["create", &bundle.id]).refused(&["config.json: annotations.run.oci.seccomp_bpf_data: "]);
        bundle.leaves_nothing();
    }
    let script = "mkdir /tmp/made && rmdir /tmp/made && grep Seccomp_filters /proc/self/status; test -n \"$(uname)\"";
    bundle.args(&["sh", "-c", script]);
    for (no_new_privileges, section) in [(true, true), (false, true), (true, false)] {
        bundle.set("/process/noNewPrivileges", no_new_privileges);
        if !section {
            bundle.unset("/linux/seccomp");
        }
        let output = call(&bundle, Some(FILTER), &["run", &bundle.id]);
        assert!(output.code == 1 && output.stdout == "Seccomp_filters:\t1\n", "{section}: {output}");
    }
    // whoever comes later too
    bundle.args(&["sleep", "1000"]);
    call(&bundle, Some(FILTER), &["run", "--detach", &bundle.id]).ok();
    assert_eq!(call(&bundle, Some(FILTER), &["exec", &bundle.id, "sh", "-c", "test -n \"$(uname)\""]).code, 1);
    assert_eq!(call(&bundle, None, &["exec", &bundle.id, "true"]).code, 255);
}

#[test]
fn a_filter_of_bytes_that_cannot_be_is_told_before_anything_is_made() {
    need!(rrun); // crun passes on what the kernel says
    let mut bundle = Bundle::new();
    let kills_execve = filter(&bundle, libc::SYS_execve, libc::SECCOMP_RET_KILL_PROCESS);
    for (data, want) in [
        ("-", "is no base64"),
        ("BgAAAAAA", "has 6 bytes"),
        ("IAAAAAAAAAA=", "instruction 0: leads out of the filter"),
        (&*kills_execve, "linux.seccomp: execve gets SCMP_ACT_KILL_PROCESS"),
    ] {
        bundle.set("/annotations", json!({FILTER: data}));
        call(&bundle, Some(FILTER), &["create", &bundle.id]).refused(&[want]);
        bundle.leaves_nothing();
    }
}

#[test]
fn a_cgroup_below_is_left_out() {
    need!(rrun); // crun follows
    let mut bundle = Bundle::new();
    let log = bundle.dir.join("warnings");
    bundle.set("/annotations", json!({"run.oci.systemd.subgroup": "below", "run.oci.delegate-cgroup": "mine"}));
    bundle.call(&["--log", log.to_str().unwrap(), "run", &bundle.id]).ok();
    let told = fs::read_to_string(&log).unwrap();
    for name in ["run.oci.systemd.subgroup: below: ", "run.oci.delegate-cgroup: mine: "] {
        assert!(told.contains(&format!("annotations.{name}")), "{told}");
    }
}
