//! The lane is worth what it catches.

use std::process::Command;
use std::time::Duration;

use super::lane::{Lane, Tally, Verb};
use crate::leftovers::{VARIABLE, hierarchies};
use crate::tracer::{At, Who};

fn rounds_on(lane: &Lane) -> String {
    format!("{:?}", lane.round(Verb::Create, None).1)
}

#[test]
fn finds_nothing_where_nothing_is() {
    assert_eq!(rounds_on(&Lane::new()), "[]");
}

#[test]
fn catches_a_process() {
    let lane = Lane::new();
    let mut planted = Command::new("sleep").arg("1000").env(VARIABLE, &lane.bundle.id).spawn().unwrap();
    let found = rounds_on(&lane);
    let _ = planted.kill();
    planted.wait().unwrap();
    assert!(found.contains("run on while") && found.contains("left: "), "{found}");
}

#[test]
fn catches_a_mount_a_cgroup_and_state() {
    let mut lane = Lane::new();
    let mount = lane.bundle.host_tmpfs("planted", "rw");
    let cgroup = hierarchies()[0].join(format!("{}-planted", lane.bundle.id));
    let state = lane.bundle.state_root.join("planted");
    for dir in [&cgroup, &state] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let found = rounds_on(&lane);
    for planted in [mount, cgroup, state] {
        assert!(found.contains(planted.to_str().unwrap()), "{} is not in {found}", planted.display());
    }
}

#[test]
fn catches_a_late_answer() {
    let lane = Lane { answer_within: Duration::ZERO, ..Lane::new() };
    assert!(rounds_on(&lane).contains("Hung(\"took"));
}

#[test]
fn hits_the_call_that_it_means_to() {
    let lane = Lane::new();
    for who in [Who::Parent, Who::Child] {
        let (trace, _) = lane.round(Verb::Create, Some(At { who, call: 20 }));
        assert_eq!((trace.calls_of(who), trace.hit.is_some()), (20, true), "{trace:?}");
    }
    let (trace, _) = lane.round(Verb::Create, Some(At { who: Who::Parent, call: 100_000 }));
    assert!(trace.hit.is_none() && trace.exit_code == Some(0), "{trace:?}");
}

#[test]
fn is_not_content_with_fewer_calls_than_it_has_seen() {
    let tally = |fewest, injected, hung, leaked| Tally { fewest, injected, hung, leaked, step: 1, ..Tally::default() };
    assert!(tally(5, 5, 0, 0).is_clean());
    for tally in [tally(0, 0, 0, 0), tally(5, 4, 0, 0), tally(300, 280, 0, 0), tally(5, 5, 1, 0), tally(5, 5, 0, 1)] {
        assert!(!tally.is_clean(), "{tally}");
    }
}
