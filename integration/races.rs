//! Commands that meet, and commands that are cut short: one wins, and what is left is whole or nothing.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::leftovers::{Leftovers, is_alive};
use crate::runtime::{eventually_within, few_rounds, rounds};
use crate::tracer::{At, Then, Who, trace};

#[test]
fn of_two_starts_one_wins_and_the_other_says_so() {
    need!(rrun); // with runc 1.1 the other can wait for ever
    let bundle = Bundle::sleeping();
    for _ in rounds(10) {
        bundle.create().ok();
        let both = [bundle.spawn(&["start", &bundle.id]), bundle.spawn(&["start", &bundle.id])].map(|call| call.wait());
        let (won, lost): (Vec<_>, Vec<_>) = both.iter().partition(|output| output.code == 0);
        assert_eq!((won.len(), lost.len()), (1, 1), "{}\n{}", both[0], both[1]);
        lost[0].refused(&["cannot start an already running container"]);
        assert_eq!(bundle.status(), "running");
        bundle.delete_force().ok();
    }
}

#[test]
fn of_two_creates_one_wins_and_the_other_says_so() {
    need!(rrun); // with runc 1.1 both can lose
    let bundle = Bundle::sleeping();
    for _ in rounds(10) {
        let both =
            [bundle.spawn(&["create", &bundle.id]), bundle.spawn(&["create", &bundle.id])].map(|call| call.wait());
        let (won, lost): (Vec<_>, Vec<_>) = both.iter().partition(|output| output.code == 0);
        assert_eq!((won.len(), lost.len()), (1, 1), "{}\n{}", both[0], both[1]);
        lost[0].refused(&["exist"]);
        bundle.start().ok();
        assert_eq!(bundle.status(), "running");
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
}

#[test]
fn commands_that_meet_leave_nothing_that_delete_does_not_remove() {
    need!(rrun); // runc 1.1 leaves processes and cgroups
    let bundle = Bundle::sleeping();
    for _ in rounds(5) {
        let verbs: [&[&str]; 6] = [
            &["create", &bundle.id],
            &["delete", "--force", &bundle.id],
            &["start", &bundle.id],
            &["state", &bundle.id],
            &["run", "-d", &bundle.id],
            &["delete", "--force", &bundle.id],
        ];
        let calls: Vec<_> = verbs.iter().map(|verb| bundle.spawn(verb)).collect();
        calls.into_iter().for_each(|call| drop(call.wait()));
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
}

#[test]
fn a_program_that_ends_at_once_has_started() {
    let mut bundle = Bundle::new();
    bundle.args(&["true"]);
    for _ in rounds(20) {
        bundle.create().ok();
        bundle.start().ok();
        bundle.wait_until("stopped");
        bundle.delete().ok();
        bundle.run().ok();
    }
}

/// An ELF file for this machine that only execve(2) finds wanting: it has no program headers.
fn hollow_elf() -> Vec<u8> {
    let mut elf = std::fs::read("/bin/busybox").unwrap();
    elf.truncate(64);
    elf[54..58].fill(0); // e_phentsize, e_phnum
    elf.resize(4096, 0);
    elf
}

#[test]
fn a_program_that_cannot_be_executed_has_not_started() {
    need!(rrun); // elsewhere `start` succeeds, and the container says so on its own stderr
    let mut bundle = Bundle::new();
    bundle.image_file("prog", hollow_elf());
    bundle.args(&["/prog"]);
    bundle.create().ok();
    bundle.start().refused(&["/prog", "ENOEXEC"]);
    assert_eq!(bundle.status(), "stopped");
    bundle.delete().ok();
    bundle.run().refused(&["/prog", "ENOEXEC"]);
    bundle.leaves_nothing();
    bundle.run_detached().refused(&["/prog", "ENOEXEC"]);
    bundle.leaves_nothing();
}

// the window in which init is told to go on, and its record must stand
#[test]
fn a_create_killed_near_its_end_leaves_a_container_or_none() {
    need!(rrun); // runc leaks its cgroups there
    let bundle = Bundle::sleeping();
    let create = bundle.command(&["create", "--pid-file", "pid", &bundle.id]);
    let calls = trace(&create, None, None).calls_of(Who::Parent);
    bundle.delete_force().ok();
    // backwards from its end, until there is no container any more
    let (mut whole, mut none) = (0, 0);
    for call in (1..=calls).rev() {
        if none == 10 {
            break;
        }
        trace(&create, None, Some((At { who: Who::Parent, call }, Then::Kill)));
        if is_whole(&bundle, call) {
            assert_eq!(none, 0, "call {call}: a later one leaves nothing, and this one a container");
            whole += 1;
        } else {
            none += 1;
        }
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
    assert!(whole > 0 && none == 10, "whole {whole}, none {none}");
}

/// Whether there is a container that can be started. If not, nothing of it may run on.
fn is_whole(bundle: &Bundle, call: usize) -> bool {
    let whole = bundle.waits_for_start();
    if whole {
        assert_eq!(processes(bundle), [bundle.pid()], "call {call}");
        bundle.start().ok();
        assert_eq!(bundle.status(), "running", "call {call}");
    }
    let gone = || (whole || processes(bundle).is_empty()).then_some(());
    assert!(eventually_within(Duration::from_secs(2), gone).is_some(), "call {call}: {:?} run on", processes(bundle));
    whole
}

fn processes(bundle: &Bundle) -> Vec<i32> {
    Leftovers::find(&bundle.id, &bundle.state_root).processes
}

#[test]
fn a_container_that_is_being_created_can_be_seen_and_removed() {
    need!(rrun); // others know no such state, or show nothing
    let bundle = Bundle::sleeping();
    let create = bundle.command(&["create", &bundle.id]);
    let calls = trace(&create, None, None).calls_of(Who::Parent);
    bundle.delete_force().ok();
    let (mut seen, mut asked) = (0, 0);
    for share in [5, 6, 7, 8, 9] {
        let at = At { who: Who::Parent, call: calls * share / 10 };
        let creator = trace(&create, None, Some((at, Then::Stop))).pids[0];
        if bundle.status_if_any().as_deref() == Some("creating") {
            seen += 1;
            assert!(bundle.call(&["list"]).ok().contains("creating"));
            // stopped while it holds the lock it keeps these waiting, for 10 s
            if !is_locked(&bundle) {
                asked += 1;
                let refusal = format!("cannot delete container {} that is not stopped: creating", bundle.id);
                bundle.delete().refused(&[&refusal]);
                bundle.start().error();
            }
            bundle.delete_force().ok();
            bundle.leaves_nothing();
            assert!(!is_alive(creator), "{at:?}: the creator lives on");
        }
        let _ = kill(Pid::from_raw(creator), Signal::SIGKILL);
        let _ = waitpid(Pid::from_raw(creator), None);
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
    assert!(seen > 0 && asked > 0, "seen {seen} times, asked {asked} times");
}

fn is_locked(bundle: &Bundle) -> bool {
    let directory = File::open(bundle.state_root.join(&bundle.id)).unwrap();
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).is_err()
}

// stuck in a system call, say: on a file system that does not answer
#[test]
fn a_child_that_goes_no_further_dies_with_its_parent() {
    need!(rrun); // others have more processes than these two
    let bundle = Bundle::sleeping();
    let create = bundle.command(&["create", &bundle.id]);
    for call in [30, 60, 90] {
        let trace = trace(&create, None, Some((At { who: Who::Child, call }, Then::Stop)));
        let [parent, child] = trace.pids[..] else { panic!("{trace:?}") };
        assert!(is_alive(child) && is_alive(parent), "{trace:?}");
        kill(Pid::from_raw(parent), Signal::SIGKILL).unwrap();
        waitpid(Pid::from_raw(parent), None).unwrap();
        let dead = eventually_within(Duration::from_secs(2), || (!is_alive(child)).then_some(()));
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        assert!(dead.is_some(), "call {call}: the child lives on");
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
}

#[test]
fn a_start_that_waits_for_a_dead_init_ends() {
    need!(rrun); // runc 1.1 fails too
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let trace = trace(
        &bundle.command(&["start", &bundle.id]),
        Some(bundle.pid()),
        Some((At { who: Who::Child, call: 1 }, Then::Kill)),
    );
    // killed on its way into the execve it has read its start, which is all that can be told of one that executed
    let code = if trace.hit == Some(libc::SYS_read as u64) { 1 } else { 0 };
    assert_eq!((trace.exit_code, trace.hung), (Some(code), false));
    assert_eq!(bundle.status(), "stopped");
}

#[test]
fn delete_force_ends_a_create_at_any_moment() {
    need!(rrun); // runc 1.1 leaves the container
    let bundle = Bundle::sleeping();
    for n in rounds(60) {
        let create = bundle.spawn(&["create", &bundle.id]);
        std::thread::sleep(Duration::from_micros(100 * n));
        let deleted = bundle.delete_force();
        deleted.ok();
        let created = create.wait();
        // It came too early to see it: then the container is there, whole.
        if bundle.status_if_any().is_some() {
            assert_eq!(created.code, 0, "{created}");
            bundle.delete_force().ok();
        }
        bundle.leaves_nothing();
    }
}

#[test]
fn a_run_removes_no_container_but_its_own() {
    need!(rrun); // others go by the id
    let bundle = Bundle::sleeping();
    let first = bundle.spawn(&["run", &bundle.id]);
    bundle.wait_until("running");
    // as one that cannot write its output
    kill(Pid::from_raw(first.pid()), Signal::SIGSTOP).unwrap();
    bundle.delete_force().ok();
    bundle.run_detached().ok();
    kill(Pid::from_raw(first.pid()), Signal::SIGCONT).unwrap();
    assert_eq!(first.wait().code, 128 + Signal::SIGKILL as i32);
    assert_eq!(bundle.status(), "running");
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

// read as "creating", looked at when its creator had finished and gone, and taken for stopped
#[test]
fn a_container_whose_creator_finishes_meanwhile_is_not_taken_for_stopped() {
    need!(rrun); // others know no such state
    let bundle = Bundle::sleeping();
    let create = bundle.command(&["create", &bundle.id]);
    let calls = trace(&create, None, None).calls_of(Who::Parent);
    bundle.delete_force().ok();
    let mut state = Command::new("/bin/sh");
    let runtime = bundle.command(&["state", &bundle.id]);
    state.args(["-c", "exec \"$@\" > seen", "sh"]).arg(runtime.get_program()).args(runtime.get_args());
    state.current_dir(&bundle.dir);
    for call in 1.. {
        let creator = trace(&create, None, Some((At { who: Who::Parent, call: calls * 8 / 10 }, Then::Stop))).pids[0];
        assert_eq!(bundle.status(), "creating");
        let looker = trace(&state, None, Some((At { who: Who::Parent, call }, Then::Stop)));
        go_on(creator);
        let ended = looker.exit_code.is_some();
        if !ended {
            go_on(looker.pids[0]);
        }
        let seen = std::fs::read_to_string(bundle.dir.join("seen")).unwrap();
        assert!(seen.contains("\"status\"") && !seen.contains("\"stopped\""), "stopped at its call {call}: {seen}");
        bundle.delete_force().ok();
        if ended {
            break;
        }
    }
    bundle.leaves_nothing();
}

/// Lets a stopped process go on, and waits for its end.
fn go_on(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    waitpid(Pid::from_raw(pid), None).unwrap();
}

#[test]
fn what_a_failing_create_cannot_take_back_delete_force_removes() {
    need!(rrun); // others forget it
    let mut bundle = Bundle::new();
    let create = bundle.command(&["create", &bundle.id]);
    let calls = trace(&create, None, None).calls_of(Who::Parent);
    let cgroup = bundle.cgroup("pids");
    bundle.delete_force().ok();
    bundle.args(&["/no-such-program"]);
    let create = bundle.command(&["create", &bundle.id]);
    let creator = trace(&create, None, Some((At { who: Who::Parent, call: calls * 7 / 10 }, Then::Stop))).pids[0];
    let mut guest = Command::new("sleep").arg("100").spawn().unwrap();
    std::fs::write(cgroup.join("cgroup.procs"), guest.id().to_string()).unwrap();
    go_on(creator);
    assert_eq!(bundle.status_if_any().as_deref(), Some("stopped"), "forgotten, and its cgroup is left");
    bundle.delete_force().ok();
    guest.wait().unwrap();
    bundle.leaves_nothing();
}

/// systemd does so with empty ones at the top of a hierarchy of v1.
#[test]
fn a_cgroup_that_somebody_removes_before_it_is_joined_is_made_again_or_missed() {
    layout!(V1, Hybrid); // on v2 nobody but the maker of a directory is known to
    need!(rrun); // runc goes on without
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/pids", json!({"limit": 77}));
    let create = bundle.command(&["create", &bundle.id]);
    let calls = trace(&create, None, None).calls_of(Who::Parent);
    let cgroup = bundle.cgroup("pids");
    bundle.delete_force().ok();
    let (mut missed, mut again) = (0, 0);
    for call in (calls * 4 / 10..calls).step_by(if few_rounds() { 17 } else { 7 }) {
        let creator = trace(&create, None, Some((At { who: Who::Parent, call }, Then::Stop))).pids[0];
        let removed = std::fs::remove_dir(&cgroup).is_ok();
        go_on(creator);
        match (bundle.status_if_any(), removed) {
            (None, true) => missed += 1,
            (None, false) => panic!("call {call}: not created"),
            (Some(_), removed) => {
                again += usize::from(removed);
                let inside = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
                assert_eq!(inside.trim(), bundle.pid().to_string(), "call {call}");
                assert_eq!(std::fs::read_to_string(cgroup.join("pids.max")).unwrap(), "77\n", "call {call}");
                bundle.delete_force().ok();
            }
        }
        bundle.leaves_nothing();
    }
    // missed between its opening and the child's first steps
    assert!(again > missed, "made again {again} times and missed {missed} times");
}
