//! create → start → kill → delete, in order and out of order.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bundle::Bundle;
use crate::layout::set_frozen;
use crate::leftovers::{Leftovers, is_alive};
use crate::procfs::status;
use crate::runtime::{eventually_within, on_rrun};

#[test]
fn a_container_goes_through_its_states() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    assert_eq!(bundle.status(), "created");
    bundle.start().ok();
    assert_eq!(bundle.status(), "running");
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    bundle.leaves_nothing();
    bundle.call(&["state", &bundle.id]).refused(&["container does not exist"]);
}

#[test]
fn the_program_runs_at_start_and_not_before() {
    let mut bundle = Bundle::sh("echo ran > /out/file");
    let file = bundle.host_file("out/file", "");
    bundle.bind(file.parent().unwrap(), "/out", &["rw"]);
    bundle.create().ok();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    bundle.start().ok();
    bundle.wait_until("stopped");
    assert_eq!(fs::read_to_string(&file).unwrap(), "ran\n");
}

#[test]
fn a_foreground_run_ends_as_its_program_and_leaves_nothing() {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -KILL $$; sleep 1", 0)] {
        let bundle = Bundle::sh(script);
        let output = bundle.run();
        // the kernel lets no signal from inside end the first process of a pid namespace
        assert_eq!(output.code, code, "{script}: {output}");
        bundle.leaves_nothing();
    }
}

#[test]
fn a_foreground_run_that_is_killed_gives_128_and_the_signal() {
    let bundle = Bundle::sleeping();
    let run = bundle.spawn(&["run", &bundle.id]);
    bundle.wait_until("running");
    bundle.kill("KILL").ok();
    assert_eq!(run.wait().code, 137);
    bundle.leaves_nothing();
}

#[test]
fn a_foreground_run_that_is_killed_by_a_real_time_signal_gives_128_and_its_number() {
    let mut bundle = Bundle::sh("kill -40 $$");
    bundle.without_namespace("pid");
    assert_eq!(bundle.run().code, 128 + 40);
    bundle.leaves_nothing();
}

#[test]
fn a_detached_run_returns_while_its_program_runs() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    assert_eq!(bundle.status(), "running");
    let left = Leftovers::find(&bundle.id, &bundle.state_root);
    assert_eq!(left.processes, [bundle.pid()], "only the program may run on: {left}");
}

#[test]
fn run_keep_leaves_the_stopped_container() {
    let bundle = Bundle::sh("exit 3");
    assert_eq!(bundle.call(&["run", "--keep", &bundle.id]).code, 3);
    assert_eq!(bundle.status(), "stopped");
    bundle.delete().ok();
    bundle.leaves_nothing();
}

#[test]
fn run_hands_signals_on_to_its_program() {
    let bundle = Bundle::sh("trap 'echo got it; exit 5' USR1; echo ready; while :; do sleep 0.05; done");
    let run = bundle.spawn(&["run", &bundle.id]);
    assert!(eventually_within(Duration::from_secs(5), || run.so_far().contains("ready").then_some(())).is_some());
    kill(Pid::from_raw(run.pid()), Signal::SIGUSR1).unwrap();
    let output = run.wait();
    assert_eq!((output.code, output.stdout.as_str()), (5, "ready\ngot it\n"), "{output}");
}

#[test]
fn kill_takes_signals_by_name_and_number() {
    let bundle =
        Bundle::sh("for s in TERM HUP USR1 USR2 INT; do trap \"echo $s\" $s; done; echo; while :; do sleep 0.02; done");
    let run = bundle.run_detached();
    run.ok();
    let says = |text: &str| {
        let heard = eventually_within(Duration::from_secs(5), || run.later().ends_with(text).then_some(()));
        assert!(heard.is_some(), "not {text:?} but {:?}", run.later());
    };
    says("\n");
    for (signal, heard) in [("HUP", "HUP\n"), ("SIGUSR1", "USR1\n"), ("usr2", "USR2\n"), ("2", "INT\n")] {
        bundle.kill(signal).ok();
        says(heard);
    }
    bundle.call(&["kill", &bundle.id]).ok();
    says("TERM\n"); // what is sent when none is named
    bundle.kill("0").ok();
}

#[test]
fn a_second_create_of_an_id_leaves_the_first_alone() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let pid = bundle.pid();
    bundle.create().refused(&[if on_rrun() { "container with given ID already exists" } else { "exist" }]);
    assert_eq!((bundle.status().as_str(), bundle.pid()), ("running", pid));
}

#[test]
fn an_id_can_be_used_again() {
    let bundle = Bundle::new();
    for _ in 0..3 {
        bundle.create().ok();
        bundle.delete_force().ok();
        assert!(bundle.run().ok().contains("Name:\tcat"));
    }
}

#[test]
fn start_refuses_what_runs_or_has_stopped() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    bundle.start().refused(&["cannot start an already running container"]);
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.start().refused(&["cannot start a container that has stopped"]);
}

#[test]
fn start_of_a_container_whose_init_died_says_that_it_stopped() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    kill(Pid::from_raw(bundle.pid()), Signal::SIGKILL).unwrap();
    bundle.wait_until("stopped");
    bundle.start().refused(&["cannot start a container that has stopped"]);
}

#[test]
fn a_created_container_can_be_killed() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
}

#[test]
fn delete_refuses_what_runs() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    bundle.delete().refused(&[&format!("cannot delete container {} that is not stopped: running", bundle.id)]);
    assert_eq!(bundle.status(), "running");
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn delete_takes_a_created_container_away() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let pid = bundle.pid();
    bundle.delete().ok();
    assert!(!is_alive(pid));
    bundle.leaves_nothing();
}

// containerd takes `does not exist` for success, and cleans up with --force what may never have been made
#[test]
fn delete_of_what_is_not_there_fails_and_with_force_does_not() {
    let bundle = Bundle::new();
    bundle.delete().refused(&["container does not exist"]);
    bundle.delete_force().ok();
    bundle.kill("TERM").refused(&["container does not exist"]);
    bundle.start().refused(&["container does not exist"]);
}

#[test]
fn delete_force_kills_all_processes_of_a_container_without_a_pid_namespace() {
    let mut bundle = Bundle::sh("sleep 1000 & sleep 1000 & echo ready; wait");
    bundle.without_namespace("pid");
    let run = bundle.run_detached();
    assert!(eventually_within(Duration::from_secs(5), || run.later().contains("ready").then_some(())).is_some());
    assert_eq!(Leftovers::find(&bundle.id, &bundle.state_root).processes.len(), 3);
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn a_frozen_container_is_paused_and_can_be_killed_and_deleted() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let freeze = || {
        set_frozen(&bundle.cgroup("freezer"), true);
        bundle.wait_until("paused");
    };
    freeze();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();

    bundle.run_detached().ok();
    freeze();
    let since = Instant::now();
    bundle.delete_force().ok();
    assert!(since.elapsed() < Duration::from_secs(5), "took {:?}", since.elapsed());
    bundle.leaves_nothing();
}

#[test]
fn a_frozen_container_does_not_start() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    set_frozen(&bundle.cgroup("freezer"), true);
    bundle.wait_until("paused");
    bundle.start().refused(&["cannot start a container in the paused state"]);
    set_frozen(&bundle.cgroup("freezer"), false);
    bundle.start().ok();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn commands_work_when_the_bundle_is_gone() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    fs::rename(bundle.dir.join("rootfs"), bundle.dir.join("elsewhere")).unwrap();
    let call = |args: &[&str]| crate::runtime::run(&mut bundle.command_on_config_as_it_is(args));
    assert!(call(&["state", &bundle.id]).ok().contains("running"));
    call(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait_until("stopped");
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    call(&["delete", &bundle.id]).ok();
    bundle.leaves_nothing();
}

// the shim reads it with a strict parser as soon as `create` returns; CRI-O makes it beforehand, empty
#[test]
fn the_pid_file_holds_the_pid_and_nothing_else() {
    let bundle = Bundle::sleeping();
    let file = bundle.host_file("pid", "");
    bundle.call(&["create", "--pid-file", "pid", &bundle.id]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), bundle.pid().to_string());
}

#[test]
fn a_failing_create_leaves_no_pid_file() {
    let mut bundle = Bundle::new();
    bundle.args(&["/missing"]);
    bundle.call(&["create", "--pid-file", "pid", &bundle.id]).error();
    assert!(!bundle.dir.join("pid").exists());
}

/// Runs it in the foreground without a pid namespace; its program leaves an orphan. The orphan's pid and its parent's.
fn orphan_of(bundle: &Bundle, flags: &[&str]) -> (crate::runtime::Call, i32, i32) {
    let run = bundle.spawn(&[&["run"], flags, &[&bundle.id]].concat());
    let orphan = || run.so_far().lines().next()?.parse::<i32>().ok();
    let orphan = eventually_within(Duration::from_secs(5), orphan).expect("no orphan");
    let parent = || status(orphan, "PPid")?.parse::<i32>().ok();
    // its own parent ends a little later
    let init = bundle.pid();
    let adopted =
        eventually_within(Duration::from_secs(5), || parent().filter(|parent| *parent > 1 && *parent != init));
    (run, orphan, adopted.unwrap_or(1))
}

const ORPHAN: &str = "sh -c 'sleep 1 & echo $!' & wait; ";

#[test]
fn run_adopts_and_reaps_the_orphans_of_a_container_that_shares_its_pid_namespace() {
    let mut bundle = Bundle::sh(&format!("{ORPHAN} sleep 1.6; exit 6"));
    bundle.without_namespace("pid");
    let (run, orphan, parent) = orphan_of(&bundle, &[]);
    assert_eq!(parent, run.pid());
    let reaped = || (!std::path::Path::new(&format!("/proc/{orphan}")).exists()).then_some(());
    assert!(eventually_within(Duration::from_secs(3), reaped).is_some(), "a zombie stays");
    assert_eq!(bundle.status(), "running");
    assert_eq!(run.wait().code, 6);
}

#[test]
fn without_a_subreaper_orphans_go_elsewhere() {
    let mut bundle = Bundle::sh(&format!("{ORPHAN} sleep 0.6; exit 6"));
    bundle.without_namespace("pid");
    let (run, _, parent) = orphan_of(&bundle, &["--no-subreaper"]);
    assert_ne!(parent, run.pid());
    assert_eq!(run.wait().code, 6);
}

// many ends at once are one signal
#[test]
fn the_status_of_the_program_is_not_lost_among_many_orphans() {
    let mut bundle = Bundle::sh("for n in $(seq 50); do sh -c 'sleep 0.2 & :'; done; sleep 0.2; exit 9");
    bundle.without_namespace("pid");
    for _ in 0..3 {
        assert_eq!(bundle.run().code, 9);
    }
}
