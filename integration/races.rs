//! Commands that meet, and commands that are cut short: one wins, and what is left is whole or nothing.

use std::fs::File;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::bundle::Bundle;
use crate::leftovers::{Leftovers, is_alive};
use crate::runtime::eventually_within;
use crate::tracer::{At, Then, Who, trace};

#[test]
fn of_two_starts_one_wins_and_the_other_says_so() {
    need!(rrun); // with runc 1.1 the other can wait for ever
    let bundle = Bundle::sleeping();
    for _ in 0..10 {
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
    for _ in 0..10 {
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
    for _ in 0..5 {
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
    for _ in 0..20 {
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
    let settled = || match bundle.status_if_any().as_deref() {
        Some("created") => Some(true),
        _ => processes(bundle).is_empty().then_some(false),
    };
    let whole = eventually_within(Duration::from_secs(2), settled);
    let whole = whole.unwrap_or_else(|| panic!("call {call}: {:?} run on", processes(bundle)));
    if whole {
        assert_eq!(processes(bundle), [bundle.pid()], "call {call}");
        bundle.start().ok();
        assert_eq!(bundle.status(), "running", "call {call}");
    }
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

#[test]
fn a_start_that_waits_for_a_dead_init_ends() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let trace = trace(
        &bundle.command(&["start", &bundle.id]),
        Some(bundle.pid()),
        Some((At { who: Who::Child, call: 1 }, Then::Kill)),
    );
    // killed just before its execve or just after, who could tell? But `start` has ended, and by itself.
    assert!(trace.exit_code.is_some() && !trace.hung, "{trace:?}");
    assert_eq!(bundle.status(), "stopped");
}
