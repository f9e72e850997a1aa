//! `kill` and `delete` of what is stopped, paused, half made, or has left processes behind; with a pid namespace of its
//! own and without one, where the end of init ends nobody else.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::layout;
use crate::leftovers::{Leftovers, hierarchies, is_alive};
use crate::runtime::eventually_within;
use crate::tracer::{At, Then, Who, trace};

const SOON: Duration = Duration::from_secs(3);

/// What a container is like whose init has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// With a pid namespace of its own.
    Alone,
    /// Without one, and a process of it lives.
    LeavesSomebody,
    LeavesNobody,
    /// Its cgroups have been removed too.
    LeavesNoCgroup,
}
use Stopped::{Alone, LeavesNoCgroup, LeavesNobody, LeavesSomebody};

impl Stopped {
    fn make(self) -> Bundle {
        let mut bundle = match self {
            LeavesSomebody => Bundle::sh("setsid sleep 1000 & sleep 0.05"),
            _ => Bundle::sh("true"),
        };
        if self != Alone {
            bundle.without_namespace("pid");
        }
        bundle.run_detached().ok();
        bundle.wait_until("stopped");
        let left = || (processes(&bundle).len() == usize::from(self == LeavesSomebody)).then_some(());
        assert!(eventually_within(SOON, left).is_some(), "{self:?}: {:?}", processes(&bundle));
        if self == LeavesNoCgroup {
            hierarchies().iter().for_each(|top| drop(fs::remove_dir(top.join(bundle.cgroup_path()))));
        }
        bundle
    }
}

fn processes(bundle: &Bundle) -> Vec<i32> {
    Leftovers::find(&bundle.id, &bundle.state_root).processes
}

#[track_caller]
fn nobody_is_left(bundle: &Bundle) {
    let gone = eventually_within(SOON, || processes(bundle).is_empty().then_some(()));
    assert!(gone.is_some(), "still there: {:?}", processes(bundle));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Ok,
    NotRunning,
}
use Answer::{NotRunning, Ok as Fine};

const KILLS: [&[&str]; 6] = [&["TERM"], &["0"], &["KILL"], &["--all", "TERM"], &["--all", "0"], &["--all", "KILL"]];

#[track_caller]
fn answers(stopped: Stopped, answers: [Answer; KILLS.len()]) {
    for (words, want) in KILLS.into_iter().zip(answers) {
        let bundle = stopped.make();
        let (signal, flags) = words.split_last().unwrap();
        let output = bundle.call(&[&["kill"], flags, &[&*bundle.id, signal]].concat());
        match want {
            Fine => drop(output.ok()),
            NotRunning => output.refused(&["container not running"]),
        }
        match (stopped, *signal) {
            (LeavesSomebody, "KILL") => nobody_is_left(&bundle),
            (LeavesSomebody, _) => assert_eq!(processes(&bundle).len(), 1, "{words:?} is for init alone"),
            _ => {}
        }
        assert_eq!(bundle.status(), "stopped", "{words:?}");
    }
}

#[test]
fn a_stopped_container_is_not_running_but_all_makes_that_a_success() {
    answers(Alone, [NotRunning, NotRunning, NotRunning, Fine, Fine, Fine]);
}

#[test]
fn kill_9_reaches_what_an_init_has_left_behind() {
    need!(rrun); // runc of Debian does so with --all alone, and then with any signal
    answers(LeavesSomebody, [NotRunning, NotRunning, Fine, Fine, Fine, Fine]);
}

#[test]
fn kill_9_of_an_empty_cgroup_succeeds_and_of_none_does_not() {
    need!(rrun); // as above
    answers(LeavesNobody, [NotRunning, NotRunning, Fine, Fine, Fine, Fine]);
    answers(LeavesNoCgroup, [NotRunning, NotRunning, NotRunning, Fine, Fine, Fine]);
}

#[test]
fn delete_takes_away_whatever_a_stopped_container_left() {
    for stopped in [Alone, LeavesSomebody, LeavesNobody, LeavesNoCgroup] {
        for delete in [Bundle::delete, Bundle::delete_force] {
            let bundle = stopped.make();
            delete(&bundle).ok();
            bundle.leaves_nothing();
        }
    }
}

/// Init and two more, in a pid namespace that is not the container's own.
fn of_three(namespace: Option<&Bundle>) -> Bundle {
    let mut bundle = Bundle::sh("sleep 1000 & sleep 1000 & echo ready; trap 'echo heard' TERM; while :; do wait; done");
    bundle.without_namespace("pid");
    if let Some(other) = namespace {
        let path = format!("/proc/{}/ns/pid", other.pid());
        bundle.set("/linux/namespaces/-", json!({"type": "pid", "path": path}));
    }
    bundle.run_detached().ok();
    assert!(eventually_within(SOON, || (processes(&bundle).len() == 3).then_some(())).is_some());
    bundle
}

// a pod's containers share one pid namespace, and one may be killed without the others
#[test]
fn kill_9_ends_all_of_a_container_that_shares_its_pid_namespace_and_nobody_else() {
    need!(rrun); // runc of Debian ends init alone, unless --all is given
    let infra = Bundle::sleeping();
    infra.run_detached().ok();
    for namespace in [None, Some(&infra)] {
        for flags in [&[][..], &["--all"]] {
            let bundle = of_three(namespace);
            bundle.call(&[&["kill"], flags, &[&bundle.id, "KILL"]].concat()).ok();
            nobody_is_left(&bundle);
            bundle.wait_until("stopped");
            assert_eq!(infra.status(), "running");
        }
    }
}

#[test]
fn kill_9_reaches_cgroups_below_and_an_init_that_was_moved_away() {
    need!(rrun); // as above
    let bundle = of_three(None);
    let (init, others): (Vec<i32>, Vec<i32>) = processes(&bundle).into_iter().partition(|pid| *pid == bundle.pid());
    let put = |cgroup: PathBuf, pid: i32| {
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
    };
    let mut away = Vec::new();
    for top in hierarchies() {
        if top.ends_with("cpuset") {
            continue; // a new one is empty, and takes nobody in
        }
        put(top.join(bundle.cgroup_path()).join("below"), others[0]);
        away.push(top.join(format!("{}-away", bundle.id)));
        put(away[away.len() - 1].clone(), init[0]);
    }
    bundle.kill("KILL").ok();
    nobody_is_left(&bundle);
    bundle.delete().ok();
    for cgroup in away {
        // a systemd that owns the hierarchy may have removed it
        let removed = eventually_within(SOON, || (!cgroup.exists() || fs::remove_dir(&cgroup).is_ok()).then_some(()));
        assert!(removed.is_some(), "{}", cgroup.display());
    }
    bundle.leaves_nothing();
}

#[test]
fn other_signals_are_for_init_alone() {
    need!(rrun); // `--all` of runc of Debian sends them to everybody
    let mut bundle = Bundle::sh("sleep 1000 & trap 'echo heard' TERM; echo ready; while :; do wait; done");
    bundle.without_namespace("pid");
    let run = bundle.run_detached();
    let says = |count: usize| {
        let heard = || (run.later().matches("heard").count() == count && run.later().contains("ready")).then_some(());
        assert!(eventually_within(SOON, heard).is_some(), "not {count} times: {}", run.later());
    };
    says(0);
    bundle.kill("TERM").ok();
    says(1);
    bundle.call(&["kill", "--all", &bundle.id, "TERM"]).ok();
    says(2);
    assert_eq!(processes(&bundle).len(), 2, "{}", run.later());
}

#[test]
fn delete_force_of_a_paused_one_without_a_pid_namespace() {
    for leaves in [false, true] {
        let bundle = of_three(None);
        if leaves {
            kill(Pid::from_raw(bundle.pid()), Signal::SIGKILL).unwrap();
            bundle.wait_until("stopped");
            layout::set_frozen(&bundle.cgroup("freezer"), true);
        } else {
            bundle.pause().ok();
        }
        let output = bundle.delete_force();
        output.ok();
        assert!(output.took < Duration::from_secs(5), "{output}");
        bundle.leaves_nothing();
    }
}

#[test]
fn a_container_whose_bundle_is_gone_is_killed_and_deleted() {
    for force in [false, true] {
        let bundle = Bundle::sleeping();
        bundle.run_detached().ok();
        fs::remove_file(bundle.dir.join("config.json")).unwrap();
        fs::remove_dir_all(bundle.dir.join("rootfs")).unwrap();
        let call = |words: &[&str]| crate::runtime::run(bundle.command_on_config_as_it_is(words).current_dir("/"));
        assert!(call(&["state", &bundle.id]).ok().contains("running"));
        if force {
            call(&["delete", "--force", &bundle.id]).ok();
        } else {
            call(&["kill", &bundle.id, "KILL"]).ok();
            bundle.wait_until("stopped");
            call(&["delete", &bundle.id]).ok();
        }
        bundle.leaves_nothing();
    }
}

#[test]
fn delete_force_of_a_half_made_one_without_a_pid_namespace() {
    need!(rrun); // others show and remove nothing before they are done
    let mut bundle = Bundle::sleeping();
    bundle.without_namespace("pid");
    let create = bundle.command(&["create", &bundle.id]);
    let calls = trace(&create, None, None).calls_of(Who::Parent);
    bundle.delete_force().ok();
    // towards the end it may hold the lock of a container that is ready
    for share in [40, 60, 80, 90, 92, 94, 95, 96, 97, 98] {
        let at = At { who: Who::Parent, call: calls * share / 100 };
        let creator = trace(&create, None, Some((at, Then::Stop))).pids[0];
        bundle.delete_force().ok();
        let _ = kill(Pid::from_raw(creator), Signal::SIGKILL);
        let _ = waitpid(Pid::from_raw(creator), None);
        assert!(!is_alive(creator));
        bundle.leaves_nothing();
    }
}

/// It waits for its start as the first process of its pid namespace, where the kernel drops what has no handler.
#[test]
fn what_has_not_started_can_be_asked_to_end() {
    for signal in ["TERM", "INT", "HUP", "QUIT"] {
        let bundle = Bundle::sh("true");
        bundle.create().ok();
        bundle.kill(signal).ok();
        eventually_within(SOON, || (bundle.status() == "stopped").then_some(())).unwrap_or_else(|| panic!("{signal}"));
    }
}

/// In one `--root`.
fn beside(other: &Bundle) -> Bundle {
    let mut bundle = Bundle::sleeping();
    bundle.state_root = other.state_root.clone();
    bundle
}

#[test]
fn an_expression_means_every_container_that_matches_it() {
    need!(rrun); // runc knows no expressions; crun ends with 0 whatever happened
    let first = Bundle::sleeping();
    let (second, third) = (beside(&first), beside(&first));
    first.create().ok();
    second.run_detached().ok();
    third.run_detached().ok();
    let both = format!("^({}|{})$", first.id, second.id);
    // no container is called so
    first.call(&["kill", "--regex", &format!("^{}$", &first.id[1..]), "KILL"]).ok();
    first.call(&["kill", "--regex", &both, "0"]).ok();
    let refused = first.call(&["delete", "--regex", &format!("{}|{}", second.id, third.id)]);
    let told: Vec<String> =
        [&second, &third].map(|bundle| format!("delete {}: cannot delete container", bundle.id)).into();
    assert!(refused.code == 1 && refused.stderr.lines().count() == 2, "{refused}");
    assert!(told.iter().zip(refused.stderr.lines()).all(|(want, line)| line.starts_with(want)), "{refused}");
    // one that fails keeps none from its turn
    first.kill("KILL").ok();
    first.wait_until("stopped");
    let killed = first.call(&["kill", "-r", &both, "KILL"]);
    killed.refused(&[&format!("kill {}: container not running", first.id)]);
    assert!(!killed.stderr.contains(&second.id), "{killed}");
    second.wait_until("stopped");
    assert_eq!(third.status(), "running");
    first.call(&["delete", "--regex", &both]).ok();
    assert_eq!(first.call(&["list", "--quiet"]).ok(), format!("{}\n", third.id));
    first.call(&["delete", "--force", "--regex", "."]).ok();
    [first, second, third].iter().for_each(Bundle::leaves_nothing);
}

#[test]
fn what_is_no_expression_touches_no_container() {
    need!(rrun); // as above
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    for (expression, want) in
        [("", "--regex: the expression is empty; "), ("(", "--regex: ( is no regular expression: ")]
    {
        for command in [&["kill", "--regex", expression, "KILL"][..], &["delete", "--force", "--regex", expression]] {
            bundle.call(command).refused(&[want]);
        }
    }
    assert_eq!(bundle.status(), "running");
}
