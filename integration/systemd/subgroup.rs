//! A cgroup below that of the container's unit: `run.oci.systemd.subgroup`.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{call, create, goes, in_unit, limited, shown, systemctl, unit, value, with_systemd};
use crate::bundle::Bundle;
use crate::layout::{is_v2, mountpoint};
use crate::runtime::eventually_within;

const ANNOTATION: &str = "/annotations/run.oci.systemd.subgroup";
const NAME: &str = "payload";

fn below(mut bundle: Bundle) -> Bundle {
    bundle.set(ANNOTATION, NAME);
    bundle
}

/// Of v2's tree, or of a v1 hierarchy.
fn either<'a>(v1: (&'a str, &'a str), v2: &'a str) -> (&'a str, &'a str) {
    if is_v2() { ("", v2) } else { v1 }
}

/// What a file says in the container's cgroup, and in its unit's.
#[track_caller]
fn both(bundle: &Bundle, (controller, file): (&str, &str)) -> [String; 2] {
    [format!("{NAME}/{file}"), file.to_string()].map(|file| value(bundle, controller, &file))
}

#[track_caller]
fn has_limits(bundle: &Bundle, pids: &str, memory: u64, quota: &str) {
    assert_eq!(both(bundle, either(("pids", "pids.max"), "pids.max")), [pids; 2]);
    let files = either(("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(both(bundle, files), [memory.to_string(), memory.to_string()]);
    let quota = if is_v2() { format!("{quota} 50000") } else { quota.to_string() };
    assert_eq!(both(bundle, either(("cpu", "cpu.cfs_quota_us"), "cpu.max")), [quota.clone(), quota]);
}

#[track_caller]
fn is_all_gone(bundle: &Bundle) {
    goes(&unit(bundle));
    bundle.leaves_nothing();
    for controller in if is_v2() { &[""][..] } else { &["pids", "freezer", "memory", "systemd"] } {
        let left = mountpoint(controller).join("system.slice").join(unit(bundle));
        assert!(!left.exists(), "{}", left.display());
    }
}

#[test]
fn the_container_lives_below_its_unit() {
    systemd!();
    need!(rrun); // runc knows no such annotation
    let _systemd = with_systemd();
    let bundle = below(limited());
    create(&bundle);
    bundle.start().ok();
    let path = format!("/system.slice/{}/{NAME}", unit(&bundle));
    let init = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    assert!(init.lines().all(|line| line.ends_with(&path)), "{init}");
    let exec = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert!(exec.ok().lines().all(|line| line.ends_with(&path)), "{exec}");
    let procs = either(("pids", "cgroup.procs"), "cgroup.procs");
    assert_eq!(both(&bundle, procs), [bundle.pid().to_string(), String::new()]);
    has_limits(&bundle, "77", 50 << 20, "20000");
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", &unit(&bundle), "CPUWeight=90"]);
    has_limits(&bundle, "77", 50 << 20, "20000");
    assert_eq!(bundle.call(&["ps", "-f", "json", &bundle.id]).ok().trim(), format!("[{}]", bundle.pid()));
    let stats: Value = serde_json::from_str(bundle.call(&["events", "--stats", &bundle.id]).ok()).unwrap();
    assert_eq!((&stats["data"]["pids"]["current"], &stats["data"]["pids"]["limit"]), (&json!(1), &json!(77)));
    bundle.pause().ok();
    bundle.wait_until("paused");
    bundle.resume().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    is_all_gone(&bundle);
}

/// v1 lets no quota be larger than that of the cgroup above.
#[test]
fn an_update_reaches_both_upwards_and_downwards() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    let bundle = below(limited());
    call(&bundle, &["run", "-d", &bundle.id]).ok();
    for (pids, memory, quota) in [("90", 70 << 20, "45000"), ("30", 40 << 20, "10000")] {
        let memory_word = memory.to_string();
        let flags = ["--pids-limit", pids, "--memory", &memory_word, "--cpu-quota", quota];
        bundle.call(&[&["update"], &flags[..], &[&bundle.id]].concat()).ok();
        has_limits(&bundle, pids, memory, quota);
        systemctl(&["daemon-reload"]);
        has_limits(&bundle, pids, memory, quota);
    }
    bundle.call(&["update", "--pids-limit", "55", "--cpuset-cpus", "4000", &bundle.id]).error();
    has_limits(&bundle, "30", 40 << 20, "10000");
    assert_eq!(shown(&unit(&bundle), "TasksMax"), "30");
    bundle.delete_force().ok();
    is_all_gone(&bundle);
}

#[test]
fn by_force_all_of_it_goes_and_so_it_does_when_create_fails() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    let mut bundle = below(in_unit(Bundle::sleeping()));
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    call(&bundle, &["run", "-d", &bundle.id]).ok();
    let seen = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert!(seen.ok().lines().all(|line| line.ends_with(":/")), "of its view of its own: {seen}");
    Command::new("kill").args(["-9", &bundle.pid().to_string()]).status().unwrap();
    bundle.delete_force().ok();
    is_all_gone(&bundle);
    bundle.args(&["/missing"]);
    call(&bundle, &["create", &bundle.id]).error();
    is_all_gone(&bundle);
    bundle.args(&["sleep", "1000"]).set("/linux/resources/cpu/cpus", "4000");
    call(&bundle, &["create", &bundle.id]).error();
    is_all_gone(&bundle);
}

#[test]
fn a_limit_of_hardly_any_process_holds_below_too() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    for limit in [0, 1, 2] {
        let mut bundle = below(in_unit(Bundle::sleeping()));
        bundle.set("/linux/resources/pids/limit", limit);
        create(&bundle);
        bundle.start().ok();
        assert_eq!(value(&bundle, if is_v2() { "" } else { "pids" }, &format!("{NAME}/pids.max")), limit.to_string());
        bundle.delete_force().ok();
        is_all_gone(&bundle);
    }
}

#[test]
fn a_unit_that_somebody_is_in_is_not_taken_for_a_cgroup_below() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    let bundle = below(in_unit(Bundle::sleeping()));
    let mut other = Command::new("systemd-run");
    let mut other = other.args(["--scope", "--quiet", "--unit", &unit(&bundle), "sleep", "100"]).spawn().unwrap();
    let active = || shown(&unit(&bundle), "ActiveState") == "active";
    eventually_within(Duration::from_secs(5), || active().then_some(())).unwrap();
    let inside = || !value(&bundle, if is_v2() { "" } else { "pids" }, "cgroup.procs").is_empty();
    eventually_within(Duration::from_secs(5), || inside().then_some(())).unwrap();
    call(&bundle, &["create", &bundle.id]).refused(&["container's cgroup is not empty"]);
    assert!(other.try_wait().unwrap().is_none(), "the process of another was ended");
    other.kill().unwrap();
    other.wait().unwrap();
    goes(&unit(&bundle));
}

#[test]
fn a_name_that_is_none_is_refused() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    for name in ["..", ".", "a/b", "/a"] {
        let mut bundle = in_unit(Bundle::sleeping());
        bundle.set(ANNOTATION, name);
        call(&bundle, &["create", &bundle.id])
            .refused(&[&format!("annotations.run.oci.systemd.subgroup: {name} is no name of one cgroup")]);
        is_all_gone(&bundle);
    }
}
