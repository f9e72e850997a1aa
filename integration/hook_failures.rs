//! Hooks that fail, hang or cannot be run: what becomes of the container, and who is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::hooks::{add, logged, script, with_log};
use crate::leftovers::{Leftovers, is_alive};
use crate::runtime::{Call, eventually_within, on_rrun};

const AT_CREATE: [&str; 3] = ["prestart", "createRuntime", "createContainer"];

fn log_and(bundle: &mut Bundle, kind: &str, then: &str) {
    let hook = script(bundle, kind, &format!("echo {kind} >> $log; {then}"));
    add(bundle, kind, hook);
}

/// Every kind writes its name; before that of `kind`, one that fails.
fn failing(kind: &str, how: &str) -> Bundle {
    let mut bundle = with_log(Bundle::sleeping());
    log_and(&mut bundle, kind, how);
    for kind in crate::hooks::KINDS {
        log_and(&mut bundle, kind, "true");
    }
    bundle
}

/// The pid that a hook has written, once it has.
#[track_caller]
fn pid_in_log(bundle: &Bundle) -> i32 {
    let pid = || logged(bundle).lines().last()?.parse().ok();
    eventually_within(Duration::from_secs(10), pid).expect("no hook has said its pid")
}

#[track_caller]
fn ends(pid: i32) {
    assert!(eventually_within(Duration::from_secs(3), || (!is_alive(pid)).then_some(())).is_some(), "{pid} runs on");
}

#[test]
fn one_that_fails_at_create_ends_it_all() {
    for (index, kind) in AT_CREATE.into_iter().enumerate() {
        let bundle = failing(kind, "echo 'to stdout'; echo 'to stderr' >&2; exit 3");
        let output = bundle.create();
        output.refused(&["exit status 3", "stdout: to stdout", "stderr: to stderr"]);
        if on_rrun() {
            output.refused(&[&format!("error running {kind} hook #0: hooks.{kind}[0]: /bin/sh")]);
        }
        bundle.leaves_nothing();
        let ran: Vec<_> = AT_CREATE[..=index].iter().chain(&["poststop"]).copied().collect();
        assert_eq!(logged(&bundle).lines().collect::<Vec<_>>(), ran, "{kind}");
    }
}

// as in a pod that shares the host's pids, where the end of init ends nobody else
#[test]
fn what_a_hook_inside_leaves_behind_ends_with_a_create_that_fails() {
    for how in ["sleep 1000 & echo $! >> $log; exit 3", "sleep 1000 & echo $! >> $log; kill -9 $PPID; sleep 1000"] {
        let mut bundle = with_log(Bundle::sleeping());
        bundle.without_namespace("pid");
        log_and(&mut bundle, "createContainer", how);
        let output = bundle.create();
        assert_eq!(output.code, 1, "{output}");
        ends(pid_in_log(&bundle));
        bundle.leaves_nothing();
        assert!(output.took < Duration::from_secs(5), "it took {:?}", output.took);
    }
}

#[test]
fn one_that_fails_at_run_ends_it_all() {
    for kind in ["createRuntime", "createContainer", "startContainer", "poststart"] {
        for detach in [&["run"][..], &["run", "-d"]] {
            let bundle = failing(kind, "exit 3");
            let output = bundle.call(&[detach, &[&bundle.id]].concat());
            // runc tells of the last two as the container does, after its start or not at all
            if on_rrun() || kind.starts_with("create") {
                assert_ne!(output.code, 0, "{output}");
            }
            if on_rrun() {
                output.refused(&[&format!("hooks.{kind}[0]: /bin/sh: exit status 3")]);
                assert_eq!(logged(&bundle).lines().last(), Some("poststop"));
                bundle.leaves_nothing();
            }
        }
    }
}

#[test]
fn without_any_hook_begun_poststop_has_nothing_to_end() {
    let mut bundle = failing("createRuntime", "true");
    bundle.mount("/data", "nosuchtype", "x", &[]);
    bundle.create().error();
    bundle.leaves_nothing();
    if on_rrun() {
        assert_eq!(logged(&bundle), "");
    }
}

#[test]
fn create_that_fails_after_its_hooks_runs_poststop() {
    let mut bundle = failing("createContainer", "true");
    bundle.args(&["/no/such/program"]);
    bundle.create().error();
    bundle.leaves_nothing();
    assert_eq!(logged(&bundle).lines().last(), Some("poststop"));
}

#[test]
fn start_container_that_fails_ends_it_all() {
    need!(rrun); // runtime.md, step 7: runc tells the container's stderr, and its start succeeds
    let bundle = failing("startContainer", "echo why >&2; exit 4");
    bundle.create().ok();
    bundle.start().refused(&["start", "hooks.startContainer[0]: /bin/sh: exit status 4, stderr: why"]);
    bundle.leaves_nothing();
    let ran = logged(&bundle);
    assert!(ran.ends_with("createContainer\nstartContainer\npoststop\n"), "{ran}");
}

#[test]
fn poststart_that_fails_ends_it_all() {
    need!(rrun); // runtime.md, step 9: runc 1.1 leaves the container
    let bundle = failing("poststart", "echo why; exit 5");
    bundle.create().ok();
    bundle.start().refused(&["hooks.poststart[0]: /bin/sh: exit status 5, stdout: why"]);
    bundle.leaves_nothing();
    assert!(logged(&bundle).ends_with("startContainer\npoststart\npoststop\n"), "{}", logged(&bundle));
}

#[test]
fn poststart_waits_for_a_program_that_runs() {
    need!(rrun); // runc's start knows nothing of the execve
    let mut bundle = with_log(Bundle::sleeping());
    bundle.image_file("bin/nothing", "");
    fs::set_permissions(bundle.rootfs("bin/nothing"), fs::Permissions::from_mode(0o755)).unwrap();
    bundle.args(&["/bin/nothing"]);
    for kind in ["startContainer", "poststart"] {
        log_and(&mut bundle, kind, "true");
    }
    bundle.create().ok();
    bundle.start().refused(&["ENOEXEC"]);
    assert_eq!(logged(&bundle), "startContainer\n");
}

#[test]
fn poststop_that_fails_is_a_warning_and_the_others_run() {
    need!(rrun); // runtime.md, step 13: runc 1.1 fails and leaves the others out
    let bundle = failing("poststop", "echo why; exit 6");
    bundle.create().ok();
    let log = bundle.dir.join("rrun.log");
    bundle.call(&["--log", log.to_str().unwrap(), "delete", &bundle.id]).ok();
    assert!(logged(&bundle).ends_with("poststop\npoststop\n"), "{}", logged(&bundle));
    let warnings = fs::read_to_string(log).unwrap();
    assert!(warnings.contains("level=warning") && warnings.contains("hooks.poststop[0]: /bin/sh: exit status 6"));
}

#[test]
fn what_cannot_be_run_is_named() {
    type Make = fn(&Bundle) -> std::path::PathBuf;
    let cases: &[(&str, Make)] = &[
        ("ENOENT", |bundle| bundle.dir.join("missing")),
        ("EACCES", |bundle| bundle.host_file("not-executable", "#!/bin/sh\n")),
        ("no regular file", |bundle| bundle.dir.clone()),
        ("no regular file", |bundle| {
            let path = bundle.dir.join("fifo");
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o777)).unwrap();
            path
        }),
        ("ENOEXEC", |bundle| {
            let path = bundle.host_file("nothing", "");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }),
        ("it is missing, or the interpreter", |bundle| {
            let path = bundle.host_file("no-interpreter", "#!/no/such\n");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        }),
    ];
    for kind in AT_CREATE {
        for (want, make) in cases {
            let mut bundle = Bundle::sleeping();
            let path = make(&bundle);
            add(&mut bundle, kind, json!({"path": path}));
            let output = bundle.create();
            output.error();
            if on_rrun() {
                output.refused(&[&format!("hooks.{kind}[0]: "), path.to_str().unwrap(), want]);
            }
            bundle.leaves_nothing();
        }
    }
}

#[test]
fn bad_values_are_named_and_nothing_is_made() {
    need!(rrun); // nobody else looks
    for kind in crate::hooks::KINDS {
        for (hook, want) in [
            (json!({}), "path: missing"),
            (json!({"path": "bin/true"}), "path: bin/true is not absolute"),
            (json!({"path": "/bin/true", "timeout": 0}), "timeout: 0 is not above 0"),
            (json!({"path": "/bin/true", "timeout": -1}), "timeout: -1 is not above 0"),
            (json!({"path": "/bin/true", "timeout": "1"}), "timeout: expected a whole number"),
            (json!({"path": "/bin/true", "env": ["A"]}), "env[0]: A has no ="),
            (json!({"path": "/bin/true", "args": "a"}), "args: expected a list"),
        ] {
            let mut bundle = Bundle::sleeping();
            add(&mut bundle, kind, json!({"path": "/bin/true"}));
            add(&mut bundle, kind, hook);
            bundle.create().refused(&[&format!("config.json: hooks.{kind}[1].{want}")]);
            bundle.leaves_nothing();
        }
    }
}

#[test]
fn one_that_is_killed_says_by_what() {
    for kind in AT_CREATE {
        let bundle = failing(kind, "kill -USR1 $$");
        let output = bundle.create();
        output.refused(&[if on_rrun() { "killed by SIGUSR1" } else { "signal" }]);
        bundle.leaves_nothing();
    }
}

// other runtimes kill the process alone, and what it has begun runs on
#[test]
fn a_timeout_ends_the_whole_session() {
    need!(rrun);
    for kind in ["prestart", "createRuntime", "createContainer"] {
        let mut bundle = with_log(Bundle::sleeping());
        // a pipeline in the background of a shell with job control is a process group of its own
        let mut hook = script(&bundle, kind, "set -m; echo begun; sleep 1000 | cat & sleep 1000 & sleep 1000");
        hook["timeout"] = json!(1);
        add(&mut bundle, kind, hook);
        let output = bundle.create();
        output.refused(&[&format!("hooks.{kind}[0]: /bin/sh ran past its timeout of 1 s"), "stdout: begun"]);
        assert!(output.took < Duration::from_secs(10), "{:?}", output.took);
        bundle.leaves_nothing();
    }
}

#[test]
fn a_timeout_at_start_and_after() {
    need!(rrun);
    for kind in ["startContainer", "poststart", "poststop"] {
        let mut bundle = with_log(Bundle::sleeping());
        let mut hook = script(&bundle, kind, "sleep 1000");
        hook["timeout"] = json!(1);
        add(&mut bundle, kind, hook);
        bundle.create().ok();
        let start = bundle.start();
        match kind {
            "poststop" => drop(start.ok()),
            _ => start.refused(&[&format!("hooks.{kind}[0]: /bin/sh ran past its timeout of 1 s")]),
        }
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
}

fn stuck(kind: &str) -> Bundle {
    let mut bundle = with_log(Bundle::sleeping());
    let hook = script(&bundle, kind, "echo $$ >> $log; exec sleep 1000");
    add(&mut bundle, kind, hook);
    let last = script(&bundle, "poststop", "echo poststop >> $log");
    add(&mut bundle, "poststop", last);
    bundle
}

/// A `create` that waits for a hook, and the hook's pid.
fn stuck_create(bundle: &Bundle) -> (Call, i32) {
    let create = bundle.spawn(&["create", &bundle.id]);
    (create, pid_in_log(bundle))
}

#[test]
fn sigterm_ends_a_hook_and_the_create() {
    need!(rrun); // the Go runtime dies of it and leaves everything
    for kind in AT_CREATE {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let bundle = stuck(kind);
            let (create, hook) = stuck_create(&bundle);
            kill(Pid::from_raw(create.pid()), signal).unwrap();
            create.wait().refused(&["ended by", signal.as_str()]);
            if kind != "createContainer" {
                ends(hook);
            }
            bundle.leaves_nothing();
            assert!(logged(&bundle).ends_with("poststop\n"), "{kind}: {}", logged(&bundle));
        }
    }
}

#[test]
fn a_killed_create_takes_its_hook_with_it() {
    need!(rrun);
    for kind in AT_CREATE {
        let bundle = stuck(kind);
        let (create, _) = stuck_create(&bundle);
        kill(Pid::from_raw(create.pid()), Signal::SIGKILL).unwrap();
        create.wait();
        let none = || Leftovers::find(&bundle.id, &bundle.state_root).processes.is_empty().then_some(());
        assert!(eventually_within(Duration::from_secs(3), none).is_some(), "{kind}: somebody runs on");
        bundle.delete_force().ok();
        bundle.leaves_nothing();
        assert!(logged(&bundle).ends_with("poststop\n"), "{kind}: {}", logged(&bundle));
    }
}

#[test]
fn delete_force_ends_a_create_that_is_stuck_in_a_hook() {
    need!(rrun);
    for kind in AT_CREATE {
        let bundle = stuck(kind);
        let (create, _) = stuck_create(&bundle);
        assert_eq!(bundle.status(), "creating");
        bundle.delete().refused(&["not stopped: creating"]);
        bundle.delete_force().ok();
        assert_eq!(create.wait().code, 128 + 9);
        bundle.leaves_nothing();
        assert_eq!(logged(&bundle).matches("poststop").count(), 1, "{kind}");
    }
}

#[test]
fn delete_force_ends_a_start_that_is_stuck_in_a_hook() {
    need!(rrun);
    let bundle = stuck("startContainer");
    bundle.create().ok();
    let start = bundle.spawn(&["start", &bundle.id]);
    pid_in_log(&bundle);
    assert_eq!(bundle.status(), "created");
    bundle.start().refused(&["cannot start an already running container"]);
    bundle.delete_force().ok();
    start.wait().refused(&["ended while its startContainer hooks ran"]);
    bundle.leaves_nothing();
    assert!(logged(&bundle).ends_with("poststop\n"), "{}", logged(&bundle));
}

#[test]
fn sigterm_ends_a_run_that_is_stuck_in_a_hook() {
    need!(rrun);
    for kind in ["createRuntime", "startContainer", "poststart", "poststop"] {
        let mut bundle = stuck(kind);
        if kind == "poststop" {
            bundle.args(&["true"]);
        }
        let run = bundle.spawn(&["run", &bundle.id]);
        pid_in_log(&bundle);
        kill(Pid::from_raw(run.pid()), Signal::SIGTERM).unwrap();
        let output = run.wait();
        // what went wrong after its end does not change how the program ended
        assert_eq!(output.code, if kind == "poststop" { 0 } else { 1 }, "{kind}: {output}");
        bundle.leaves_nothing();
        assert!(logged(&bundle).ends_with("poststop\n"), "{kind}: {}", logged(&bundle));
    }
}

#[test]
fn an_init_that_ends_while_a_hook_runs() {
    let mut bundle = with_log(Bundle::sleeping());
    let end = "kill -9 $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); echo $? >> $log";
    let hook = script(&bundle, "createRuntime", end);
    add(&mut bundle, "createRuntime", hook);
    let output = bundle.create();
    if on_rrun() {
        output.refused(&["its process ended during set-up: killed by SIGKILL"]);
    }
    assert_ne!(output.code, 0, "{output}");
    assert_eq!(logged(&bundle), "0\n");
    bundle.leaves_nothing();
}

#[test]
fn a_hook_inside_counts_as_a_process() {
    need!(rrun); // where start succeeds whatever its hooks do, there is nothing to see
    let mut bundle = with_log(Bundle::sleeping());
    bundle.set("/linux/resources/pids", json!({"limit": 1}));
    log_and(&mut bundle, "startContainer", "true");
    bundle.create().ok();
    bundle.start().refused(&["hooks.startContainer[0]: clone: ", "EAGAIN", "linux.resources.pids.limit"]);
    bundle.leaves_nothing();
}

#[test]
fn a_long_output_is_shortened() {
    let bundle = failing("createRuntime", "head -c 200000 /dev/zero | tr '\\0' x; echo the end; exit 1");
    let output = bundle.create();
    assert_eq!(output.code, 1, "{output}");
    if on_rrun() {
        output.refused(&["stdout: xxx", "…", "the end"]);
        assert!(output.stderr.len() < 2000, "{} bytes", output.stderr.len());
    }
}
