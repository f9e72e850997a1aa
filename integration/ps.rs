//! `ps`: which processes are in a container, as JSON and as the host's ps(1) shows them.

use std::fs;
use std::time::Duration;

use crate::bundle::Bundle;
use crate::leftovers::hierarchies;
use crate::runtime::{Output, eventually_within};

impl Bundle {
    fn ps(&self, args: &[&str]) -> Output {
        self.call(&[&["ps"], args].concat())
    }

    fn pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = serde_json::from_str(self.ps(&["--format", "json", &self.id]).ok()).unwrap();
        pids.sort_unstable(); // a peer gives them as it finds them
        pids
    }
}

/// Three processes, init among them.
fn three() -> Bundle {
    let bundle = Bundle::sh("sleep 1000 & sleep 2000 & echo ready; wait");
    let run = bundle.run_detached();
    assert!(eventually_within(Duration::from_secs(5), || run.later().contains("ready").then_some(())).is_some());
    bundle
}

#[test]
fn json_is_one_list_of_all_pids() {
    let bundle = three();
    for args in [&["--format", "json", &bundle.id][..], &["-f", "json", &bundle.id], &["-format=json", &bundle.id]] {
        let output = bundle.ps(args);
        let text = output.ok();
        assert!(text.starts_with('[') && text.ends_with("]\n") && !text.contains(' '), "{output}");
    }
    let pids = bundle.pids();
    assert!(pids.len() == 3 && pids.contains(&bundle.pid()), "{pids:?}");
}

#[test]
fn json_of_a_container_without_processes_is_null() {
    let bundle = Bundle::new();
    bundle.run_detached().ok();
    bundle.wait_until("stopped");
    assert_eq!(bundle.ps(&["-f", "json", &bundle.id]).ok(), "null\n");
    assert_eq!(bundle.ps(&[&bundle.id]).ok().lines().count(), 1);
}

#[test]
fn a_created_and_a_paused_container_have_their_init() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    assert_eq!(bundle.pids(), [bundle.pid()]);
    bundle.start().ok();
    bundle.pause().ok();
    assert_eq!(bundle.pids(), [bundle.pid()]);
}

#[test]
fn a_table_has_a_header_and_a_row_for_each_process() {
    let bundle = three();
    let output = bundle.ps(&[&bundle.id]);
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(lines.len(), 4, "{output}");
    let header: Vec<_> = lines[0].split_whitespace().collect();
    assert_eq!(header[..3], ["UID", "PID", "PPID"]);
    let shown: Vec<i32> = lines[1..].iter().map(|l| l.split_whitespace().nth(1).unwrap().parse().unwrap()).collect();
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, bundle.pids());
    assert!(output.stdout.contains("sleep 2000"), "{output}");
}

#[test]
fn what_follows_the_id_goes_to_the_hosts_ps() {
    let bundle = three();
    let pids: Vec<String> = bundle.pids().iter().map(i32::to_string).collect();
    for options in [&["aux"][..], &["-e", "-o", "pid,comm"], &["-eo", "user,pid,args"], &["-efL"]] {
        let output = bundle.ps(&[&[bundle.id.as_str()], options].concat());
        let header = output.ok().lines().next().unwrap();
        let column = header.split_whitespace().position(|word| word == "PID").unwrap();
        let shown: Vec<_> =
            output.stdout.lines().skip(1).map(|l| l.split_whitespace().nth(column).unwrap().to_string()).collect();
        let all = pids.iter().all(|pid| shown.contains(pid));
        assert!(all && shown.len() == 3, "{options:?}: {output}");
    }
    // no flag of ours stands there
    bundle.ps(&[&bundle.id, "--format", "json"]).error();
}

// 1.1 hands it on
#[test]
fn a_double_dash_behind_the_id_is_dropped() {
    need!(rrun);
    let bundle = three();
    let output = bundle.ps(&[&bundle.id, "--", "-e", "-o", "pid"]);
    assert_eq!(output.ok().lines().count(), 4, "{output}");
}

#[test]
fn what_ps_does_not_do_is_told() {
    let bundle = three();
    bundle.ps(&[&bundle.id, "-e", "-o", "comm"]).refused(&["couldn't find PID field in ps output"]);
    bundle.ps(&[&bundle.id, "--no-such-option"]).refused(&["unknown gnu long option"]);
    bundle.ps(&["--format", "xml", &bundle.id]).refused(&["invalid format option"]);
    bundle.ps(&["no-such-container"]).refused(&["container does not exist"]);
}

#[test]
fn a_host_without_ps_still_has_json() {
    need!(rrun);
    let bundle = three();
    let without = |args: &[&str]| crate::runtime::run(bundle.command(args).env("PATH", "/nowhere"));
    without(&["ps", &bundle.id]).refused(&["install procps, or ask for json", "execute ps"]);
    assert!(without(&["ps", "-f", "json", &bundle.id]).ok().starts_with('['));
}

// managers call without any PATH, where runc finds none
#[test]
fn ps_is_found_without_a_path() {
    need!(rrun);
    let bundle = three();
    let output = crate::runtime::run(bundle.command(&["ps", &bundle.id]).env_remove("PATH"));
    assert_eq!(output.ok().lines().count(), 4, "{output}");
}

#[test]
fn processes_in_cgroups_below_belong_to_the_container() {
    let bundle = three();
    let before = bundle.pids();
    let moved = before.iter().find(|pid| **pid != bundle.pid()).unwrap();
    for hierarchy in hierarchies() {
        let own = hierarchy.join(&bundle.id);
        let below = own.join("deep/er");
        if !own.exists() {
            continue;
        }
        for dir in [own.join("deep"), below.clone()] {
            fs::create_dir(&dir).unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"].iter().filter(|file| dir.join(file).exists()) {
                let value = fs::read(dir.parent().unwrap().join(file)).unwrap();
                fs::write(dir.join(file), value).unwrap();
            }
        }
        fs::write(below.join("cgroup.procs"), moved.to_string()).unwrap();
        let procs = fs::read_to_string(own.join("cgroup.procs")).unwrap();
        assert!(!procs.lines().any(|pid| pid == moved.to_string()), "not moved in {}", own.display());
    }
    assert_eq!(bundle.pids(), before);
    assert_eq!(bundle.ps(&[&bundle.id]).ok().lines().count(), 4);
}

#[test]
fn what_an_init_left_behind_is_shown() {
    let mut bundle = Bundle::sh("setsid sleep 1000 & sleep 0.1");
    bundle.without_namespace("pid");
    bundle.run_detached().ok();
    bundle.wait_until("stopped");
    assert_eq!(bundle.pids().len(), 1);
}
