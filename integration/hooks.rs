//! Hooks that do what they should: when each kind runs, where, as whom, with what, and what it is told. What becomes of
//! those that do not is in `hook_failures`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::leftovers::{VARIABLE, is_alive};
use crate::runtime::{DEADLINE, eventually_within, on_rrun, run};

pub const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// A bundle whose hooks write into one file, which the container sees as /out/log.
pub fn with_log(mut bundle: Bundle) -> Bundle {
    let out = bundle.host_file("out/log", "").parent().unwrap().to_path_buf();
    fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::set_permissions(out.join("log"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    bundle.bind(&out, "/out", &["rw"]);
    bundle
}

fn log_file(bundle: &Bundle) -> PathBuf {
    bundle.dir.join("out/log")
}

pub fn logged(bundle: &Bundle) -> String {
    fs::read_to_string(log_file(bundle)).unwrap()
}

/// A shell that runs `script`, with `$log` for the file.
pub fn script(bundle: &Bundle, kind: &str, script: &str) -> Value {
    let log = if kind == "startContainer" { PathBuf::from("/out/log") } else { log_file(bundle) };
    json!({"path": "/bin/sh", "args": ["sh", "-c", format!("log={}; {script}", log.display())]})
}

pub fn add(bundle: &mut Bundle, kind: &str, hook: Value) {
    bundle.set(&format!("/hooks/{kind}/-"), hook);
}

/// Those that can be compared: runc 1.1 runs poststart at the end of `create`.
fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().filter(|kind| *kind != "poststart" || on_rrun())
}

/// Every kind writes its name and what `script` prints.
fn log_everywhere(bundle: &mut Bundle, command: &str) {
    for kind in kinds() {
        let hook = script(bundle, kind, &format!("echo \"{kind} $({command})\" >> $log"));
        add(bundle, kind, hook);
    }
}

/// What the hook of `kind` has written behind its name.
#[track_caller]
fn said<'a>(log: &'a str, kind: &str) -> &'a str {
    let mut lines = log.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    let line = lines.next().unwrap_or_else(|| panic!("{kind} did not run: {log}"));
    assert_eq!(lines.next(), None, "{kind} ran twice: {log}");
    line
}

fn kinds_that_ran(log: &str) -> Vec<&str> {
    log.lines().filter_map(|line| line.split(' ').next()).collect()
}

/// Until its program runs, which the `start` of runc does not wait for.
#[track_caller]
fn start_sleeping(bundle: &Bundle) {
    bundle.start().ok();
    let name = || fs::read_to_string(format!("/proc/{}/comm", bundle.pid())).unwrap_or_default();
    let patience = if on_rrun() { Duration::ZERO } else { DEADLINE };
    assert!(eventually_within(patience, || (name() == "sleep\n").then_some(())).is_some(), "{}", name());
}

fn through_its_life(bundle: &Bundle) -> String {
    bundle.create().ok();
    start_sleeping(bundle);
    bundle.delete_force().ok();
    logged(bundle)
}

#[test]
fn each_kind_has_its_moment_and_is_told_the_state() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/annotations", json!({"a": "b c"}));
    log_everywhere(&mut bundle, "cat");
    bundle.create().ok();
    assert!(kinds_that_ran(&logged(&bundle)).into_iter().eq(kinds().take(3)));
    let pid = bundle.pid();
    start_sleeping(&bundle);
    assert!(kinds_that_ran(&logged(&bundle)).into_iter().eq(kinds().filter(|kind| *kind != "poststop")));
    bundle.delete_force().ok();
    let log = logged(&bundle);
    assert!(kinds_that_ran(&log).into_iter().eq(kinds()), "{log}");
    // runc has one status for both of the host's kinds
    let deprecated = if on_rrun() { "created" } else { "creating" };
    let moments = [
        ("prestart", deprecated, Some(pid)),
        ("createRuntime", "creating", Some(pid)),
        ("createContainer", "creating", Some(1)),
        ("startContainer", "created", Some(1)),
        ("poststart", "running", Some(pid)),
        ("poststop", "stopped", None),
    ];
    for (kind, status, pid) in moments.into_iter().filter(|(kind, ..)| kinds().any(|k| k == *kind)) {
        let mut state: Value = serde_json::from_str(said(&log, kind)).unwrap();
        let version = state.as_object_mut().unwrap().remove("ociVersion").unwrap();
        assert!(version.as_str().is_some_and(|version| version.starts_with("1.")), "{version}");
        let mut want = json!({"id": bundle.id, "status": status, "bundle": bundle.dir, "annotations": {"a": "b c"}});
        if let Some(pid) = pid {
            want["pid"] = pid.into();
        }
        assert_eq!(state, want, "{kind}");
    }
}

#[test]
fn run_has_the_same_moments() {
    let mut bundle = with_log(Bundle::sh("echo program >> /out/log; exit 7"));
    log_everywhere(&mut bundle, "true");
    assert_eq!(bundle.run().code, 7);
    let log = logged(&bundle);
    let mut ran = kinds_that_ran(&log);
    // the program and poststart run side by side
    ran.retain(|word| *word != "program");
    assert!(ran.into_iter().eq(kinds()), "{log}");
    let at = |word| log.find(word).unwrap();
    assert!(at("startContainer") < at("program") && at("program") < at("poststop"), "{log}");
    bundle.leaves_nothing();
}

#[test]
fn several_run_in_their_order() {
    let mut bundle = with_log(Bundle::sleeping());
    for n in 0..4 {
        for kind in kinds() {
            let hook = script(&bundle, kind, &format!("echo {kind} {n} >> $log"));
            add(&mut bundle, kind, hook);
        }
    }
    let want: Vec<_> = kinds().flat_map(|kind| (0..4).map(move |n| format!("{kind} {n}"))).collect();
    assert_eq!(through_its_life(&bundle).lines().collect::<Vec<_>>(), want);
}

#[test]
fn namespaces_and_working_directory() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/process/cwd", "/home");
    log_everywhere(&mut bundle, "pwd; readlink /proc/self/ns/net; readlink /proc/self/ns/mnt");
    bundle.create().ok();
    let namespace =
        |pid: &str, kind: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().to_str().unwrap().to_string();
    let pid = bundle.pid().to_string();
    let inside = (namespace(&pid, "net"), namespace(&pid, "mnt"));
    start_sleeping(&bundle);
    bundle.delete_force().ok();
    let outside = (namespace("self", "net"), namespace("self", "mnt"));
    let log = logged(&bundle);
    let (dir, rootfs) = (bundle.dir.to_str().unwrap().to_string(), bundle.rootfs("").to_str().unwrap().to_string());
    let places = [
        ("prestart", dir.as_str(), &outside),
        ("createRuntime", &dir, &outside),
        ("createContainer", rootfs.trim_end_matches('/'), &inside),
        ("startContainer", "/home", &inside),
        ("poststart", &dir, &outside), // the caller's
        ("poststop", &dir, &outside),
    ];
    for (kind, cwd, (net, mnt)) in places.into_iter().filter(|(kind, ..)| kinds().any(|k| k == *kind)) {
        let mut lines = log[log.find(&format!("{kind} ")).unwrap() + kind.len() + 1..].lines();
        let got: Vec<_> = lines.by_ref().take(3).collect();
        assert_eq!(got, [cwd, net, mnt], "{kind}: {log}");
    }
}

#[test]
fn create_container_sees_the_finished_tree_and_the_host() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.mount("/data", "tmpfs", "tmpfs", &[]);
    let look =
        "test -c dev/null && grep -c $PWD/data /proc/self/mountinfo; touch data/from-hook; test -f $log && echo host";
    let hook = script(&bundle, "createContainer", &format!("({look}) >> $log"));
    add(&mut bundle, "createContainer", hook);
    bundle.args(&["sh", "-c", "ls /data >> /out/log"]);
    bundle.run().ok();
    assert_eq!(logged(&bundle), "1\nhost\nfrom-hook\n");
}

// the nvidia toolkit and others put the program's libraries, or the program, there
#[test]
fn a_hook_may_bring_the_program() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.args(&["/tmp/brought"]);
    let bring = script(&bundle, "createRuntime", "printf '#!/bin/sh\\necho ran' > rootfs/tmp/brought");
    add(&mut bundle, "createRuntime", bring);
    let chmod = script(&bundle, "createContainer", "chmod 755 tmp/brought");
    add(&mut bundle, "createContainer", chmod);
    assert_eq!(bundle.run().ok(), "ran\n");
}

#[test]
fn start_container_runs_as_the_containers_user() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    let look = script(&bundle, "startContainer", "grep -E '^(Uid|Gid|Groups|Cap|NoNew)' /proc/self/status > $log");
    add(&mut bundle, "startContainer", look);
    bundle.args(&["grep", "-E", "^(Uid|Gid|Groups|Cap|NoNew)", "/proc/self/status"]);
    let program = bundle.run();
    assert_eq!(logged(&bundle), program.ok());
    assert!(program.stdout.contains("Uid:\t1000\t1000\t1000\t1000"), "{program}");
}

#[test]
fn without_env_each_side_has_its_own() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/process/env", json!(["PATH=/bin", "LD_PRELOAD=", "IN=image"]));
    for kind in kinds() {
        let hook = script(&bundle, kind, &format!("(echo {kind}; tr '\\0' '\\n' < /proc/$$/environ; echo) >> $log"));
        add(&mut bundle, kind, hook);
    }
    let log = through_its_life(&bundle);
    for kind in kinds() {
        let environment: Vec<_> =
            log.lines().skip_while(|l| *l != kind).skip(1).take_while(|l| !l.is_empty()).collect();
        match kind {
            // its /proc is the host's, where $$ is another process
            "createContainer" => continue,
            "startContainer" => {
                assert_eq!(environment[..3], ["PATH=/bin", "LD_PRELOAD=", "IN=image"], "{environment:?}");
                assert!(
                    environment.contains(&"HOME=/root"),
                    "what the program has, with what was added: {environment:?}"
                )
            }
            _ => {
                assert!(environment.contains(&format!("{VARIABLE}={}", bundle.id).as_str()), "{kind}: {environment:?}");
                assert!(
                    !environment.iter().any(|entry| entry.starts_with("RRUN_RESTARTED") || entry.starts_with("IN="))
                );
            }
        }
    }
}

// CVE-2025-23266: what the image's environment names must not be loaded by a hook that runs as root
#[test]
fn create_container_has_no_environment_of_its_own() {
    need!(rrun); // runc 1.1 gives it the image's
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/process/env", json!(["PATH=/bin", "LD_PRELOAD=/evil.so"]));
    let print = json!({"path": "/usr/bin/env", "args": ["env"]});
    add(&mut bundle, "createContainer", json!({"path": "/bin/sh", "env": [], "args": ["sh", "-c", "exit 0"]}));
    add(&mut bundle, "createContainer", print);
    // its output is shown only if it fails
    bundle.config["hooks"]["createContainer"][1]["args"] = json!(["env", "/bin/sh", "-c", "/usr/bin/env >&2; exit 1"]);
    let line = bundle.create().error().to_string();
    assert!(!line.contains("LD_PRELOAD") && !line.contains(VARIABLE) && line.contains("PWD="), "{line}");
}

#[test]
fn env_and_args_are_taken_as_they_stand() {
    let mut bundle = with_log(Bundle::sleeping());
    for kind in kinds() {
        let mut hook = script(&bundle, kind, &format!("echo {kind} $0 $1 $B ${VARIABLE} $IN >> $log"));
        let args = hook["args"].as_array_mut().unwrap();
        args.extend([json!("zero"), json!("one two")]);
        hook["env"] = json!(["B=b=c"]);
        add(&mut bundle, kind, hook);
    }
    let log = through_its_life(&bundle);
    for kind in kinds() {
        assert_eq!(said(&log, kind), "zero one two b=c");
    }
}

#[test]
fn the_limits_stand_and_the_namespaces_are_there() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/linux/resources/pids", json!({"limit": 33}));
    let pids = bundle.cgroup("pids").join("pids.max");
    let hook = script(&bundle, "createRuntime", &format!("cat {} > $log", pids.display()));
    add(&mut bundle, "createRuntime", hook);
    bundle.create().ok();
    assert_eq!(logged(&bundle), "33\n");
}

#[test]
fn a_hook_begins_with_a_clean_slate() {
    need!(rrun); // runc 1.1 lets createContainer have its descriptors, and ignores a signal
    let mut bundle = with_log(Bundle::sleeping());
    let look = "grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t\\n'; umask; ls /proc/self/fd | tr '\\n' ' '";
    log_everywhere(&mut bundle, look);
    let log = through_its_life(&bundle);
    let zero = "0".repeat(16);
    for kind in kinds() {
        let slate = log[log.find(kind).unwrap()..].lines().take(2).collect::<Vec<_>>().join(" ");
        let signals = format!("{kind} SigBlk:{zero}SigIgn:{zero}0022");
        assert!(slate.starts_with(&signals), "{kind}: {slate}");
        // 3 is what `ls` itself has opened
        // 3 is what `ls` itself has opened
        assert!(slate.ends_with(" 0 1 2 3 "), "{kind}: {slate}");
    }
}

#[test]
fn a_large_state_reaches_who_reads_it_and_hinders_nobody_else() {
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/annotations", json!({"large": "x".repeat(500_000)}));
    for kind in kinds() {
        add(&mut bundle, kind, json!({"path": "/bin/true"}));
        let closes = script(&bundle, kind, "exec <&-; exit 0");
        add(&mut bundle, kind, closes);
        let reads = script(&bundle, kind, &format!("sleep 0.1; echo {kind} $(cat | wc -c) >> $log"));
        add(&mut bundle, kind, reads);
    }
    let log = through_its_life(&bundle);
    for kind in kinds() {
        let length: usize = said(&log, kind).parse().unwrap();
        assert!(length > 500_000, "{kind}: {length}");
    }
}

#[test]
fn a_hook_that_says_much_is_not_stopped() {
    let mut bundle = with_log(Bundle::sleeping());
    for kind in kinds() {
        let hook = script(
            &bundle,
            kind,
            &format!("head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2; echo {kind} >> $log"),
        );
        add(&mut bundle, kind, hook);
    }
    let log = through_its_life(&bundle);
    assert!(kinds_that_ran(&log).into_iter().eq(kinds()), "{log}");
}

#[test]
fn later_hooks_do_not_need_the_bundle() {
    let mut bundle = with_log(Bundle::sleeping());
    log_everywhere(&mut bundle, "true");
    bundle.create().ok();
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    for command in ["start", "delete"] {
        let args = [command, if command == "delete" { "--force" } else { "--" }, &bundle.id];
        run(&mut bundle.command_on_config_as_it_is(&args)).ok();
    }
    assert!(kinds_that_ran(&logged(&bundle)).into_iter().eq(kinds()), "{}", logged(&bundle));
}

#[test]
fn a_child_in_the_background_delays_nobody() {
    need!(rrun); // runc waits until nobody has the output open
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        let mut bundle = with_log(Bundle::sleeping());
        let hook = script(&bundle, kind, "sleep 20 & echo $! >> $log");
        add(&mut bundle, kind, hook);
        let since = std::time::Instant::now();
        bundle.create().ok();
        bundle.start().ok();
        assert!(since.elapsed().as_secs() < 15, "{kind}: {:?}", since.elapsed());
        if matches!(kind, "createRuntime" | "poststart") {
            let pid: i32 = logged(&bundle).trim().parse().unwrap();
            assert!(is_alive(pid), "{kind}: the child was killed");
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}
