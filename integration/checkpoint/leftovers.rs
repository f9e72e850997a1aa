//! rrun, or CRIU, killed in the middle: the container runs on or can be deleted, and nobody waits for ever.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{MOMENT, PATIENCE, count, counting, criu, dump, goes_on, run};
use crate::bundle::Bundle;
use crate::runtime::{Call, eventually_within, rounds};

/// Enough memory to keep CRIU busy for a while.
fn large() -> Bundle {
    let mut bundle = Bundle::sh(
        "a=$(head -c 30000000 /dev/zero | tr '\\0' x); n=0; while :; do n=$((n+1)); echo $n > /count; sleep 0.1; done",
    );
    bundle.set("/root/readonly", false);
    bundle
}

fn call(bundle: &Bundle, args: &[&str]) -> Call {
    let mut command: Command = bundle.command(args);
    Call::new(&mut command)
}

fn criu_of(bundle: &Bundle) -> Vec<i32> {
    let marked = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/environ"))
            .is_ok_and(|environ| String::from_utf8_lossy(&environ).contains(&bundle.id))
    };
    criu().into_iter().filter(marked).collect()
}

#[test]
fn a_criu_that_is_killed_fails_the_checkpoint_and_all_can_be_deleted() {
    guest!();
    let bundle = large();
    run(&bundle);
    count(&bundle);
    let call = call(&bundle, &["checkpoint", &bundle.id]);
    let pids = eventually_within(MOMENT, || Some(criu_of(&bundle)).filter(|pids| !pids.is_empty())).expect("no criu");
    std::thread::sleep(Duration::from_millis(300));
    for pid in pids {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let output = call.wait_for(PATIENCE);
    assert_eq!(output.code, 1, "{output}");
    assert_ne!(bundle.status(), "paused", "frozen for ever");
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn a_rrun_that_is_killed_leaves_a_container_that_runs_or_can_be_deleted() {
    guest!();
    for milliseconds in rounds(1000).filter(|n| n % 200 == 0) {
        let bundle = large();
        run(&bundle);
        count(&bundle);
        let call = call(&bundle, &["checkpoint", "--leave-running", &bundle.id]);
        std::thread::sleep(Duration::from_millis(milliseconds + 50));
        let _ = kill(Pid::from_raw(call.pid()), Signal::SIGKILL);
        call.wait_for(PATIENCE);
        // it takes back what it has done
        let ended = || criu_of(&bundle).is_empty().then_some(());
        assert!(eventually_within(PATIENCE, ended).is_some(), "criu works on");
        assert_eq!(bundle.status(), "running");
        goes_on(&bundle, 1);
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
}

#[test]
fn a_restore_that_is_killed_can_be_deleted() {
    guest!();
    let bundle = counting();
    run(&bundle);
    dump(&bundle, &[]);
    for milliseconds in rounds(1000).filter(|n| n % 200 == 0) {
        let call = call(&bundle, &["restore", "-d", &bundle.id]);
        std::thread::sleep(Duration::from_millis(milliseconds + 50));
        let _ = kill(Pid::from_raw(call.pid()), Signal::SIGKILL);
        call.wait_for(PATIENCE);
        bundle.delete_force().ok();
        let ended = || criu_of(&bundle).is_empty().then_some(());
        assert!(eventually_within(PATIENCE, ended).is_some(), "criu works on");
        bundle.leaves_nothing();
    }
}
