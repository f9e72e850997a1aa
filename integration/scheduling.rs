//! process.scheduler, process.ioPriority, linux.memoryPolicy and linux.personality, as the host sees them of the program
//! and of what is executed beside it.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::refusals::Who::Rrun;
use crate::refusals::refuses;

/// Every CPU of the host is the container's, and it may use real time where that is a matter of cgroups.
fn real_time(mut bundle: Bundle) -> Bundle {
    if has_real_time_groups() {
        bundle.set("/linux/resources/cpu", json!({"realtimeRuntime": 1000, "realtimePeriod": 1_000_000}));
    }
    bundle
}

fn has_real_time_groups() -> bool {
    Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
}

/// What a command of util-linux tells of a process.
fn told(command: &[&str], pid: i32) -> String {
    let output = Command::new(command[0]).args(&command[1..]).arg(pid.to_string()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn scheduler(pid: i32) -> String {
    let lines = told(&["chrt", "-p"], pid);
    let values: Vec<_> = lines.lines().filter_map(|line| line.rsplit_once(": ")).map(|(_, value)| value).collect();
    values.join(" ")
}

/// Field 19 of proc_pid_stat(5).
fn nice(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(16).unwrap().parse().unwrap()
}

fn run(bundle: &Bundle) -> i32 {
    bundle.run_detached().ok();
    bundle.pid()
}

/// The pid of one more process that sleeps.
fn exec(bundle: &Bundle, args: &[&str]) -> i32 {
    let pid_file = bundle.dir.join("exec.pid");
    let file = pid_file.to_str().unwrap().to_string();
    bundle.call(&[&["exec", "--detach", "--pid-file", &file], args].concat()).ok();
    fs::read_to_string(pid_file).unwrap().trim().parse().unwrap()
}

fn process(bundle: &Bundle, fields: Value) -> String {
    let mut process = json!({"args": ["sleep", "1000"], "cwd": "/", "env": ["PATH=/bin"]});
    process.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    bundle.host_file("process.json", process.to_string()).to_str().unwrap().to_string()
}

#[test]
fn every_policy_is_that_of_the_program() {
    need!(rrun); // runc has it since 1.2, crun reads other words for flags
    let reset = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    let deadline =
        json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 5_000_000, "period": 10_000_000});
    for (written, want) in [
        (json!({"policy": "SCHED_FIFO", "priority": 7}), "SCHED_FIFO 7"),
        (json!({"policy": "SCHED_RR", "priority": 1, "flags": reset}), "SCHED_RR|SCHED_RESET_ON_FORK 1"),
        (json!({"policy": "SCHED_BATCH"}), "SCHED_BATCH 0"),
        (json!({"policy": "SCHED_IDLE"}), "SCHED_IDLE 0"),
        (json!({"policy": "SCHED_OTHER", "flags": reset}), "SCHED_OTHER|SCHED_RESET_ON_FORK 0"),
        (deadline, "SCHED_DEADLINE 0 1000000/5000000/10000000"),
    ] {
        let mut bundle = real_time(Bundle::sleeping());
        bundle.set("/process/scheduler", written.clone());
        assert_eq!(scheduler(run(&bundle)), want, "{written}");
        let file = process(&bundle, json!({"scheduler": {"policy": "SCHED_BATCH", "nice": 3}}));
        let other = exec(&bundle, &["-p", &file, &bundle.id]);
        assert_eq!((scheduler(other).as_str(), nice(other)), ("SCHED_BATCH 0", 3), "{written}");
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    }
}

#[test]
fn what_is_executed_later_has_the_containers_scheduler_if_none_of_its_own() {
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": -5}));
    bundle.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
    let init = run(&bundle);
    let file = process(&bundle, json!({}));
    for pid in [init, exec(&bundle, &[&bundle.id, "sleep", "1000"]), exec(&bundle, &["-p", &file, &bundle.id])] {
        assert_eq!((scheduler(pid).as_str(), nice(pid)), ("SCHED_BATCH 0", -5));
        assert_eq!(told(&["ionice", "-p"], pid), "best-effort: prio 6\n");
    }
}

#[test]
fn io_priorities() {
    need!(rrun); // runc has it since 1.2
    for (class, priority, want) in [
        ("IOPRIO_CLASS_RT", 0, "realtime: prio 0\n"),
        ("IOPRIO_CLASS_BE", 7, "best-effort: prio 7\n"),
        ("IOPRIO_CLASS_IDLE", 4, "idle\n"),
    ] {
        for mut bundle in [Bundle::sleeping(), mapped(Bundle::sleeping())] {
            bundle.set("/process/ioPriority", json!({"class": class, "priority": priority}));
            assert_eq!(told(&["ionice", "-p"], run(&bundle)), want);
            let other = exec(&bundle, &[&bundle.id, "sleep", "1000"]);
            assert_eq!(told(&["ionice", "-p"], other), want, "{class} of exec");
        }
    }
}

// the right to it is that of the host, which nobody in a user namespace has
#[test]
fn real_time_in_a_user_namespace() {
    need!(rrun);
    let mut bundle = real_time(mapped(Bundle::sleeping()));
    bundle.set("/process/scheduler", json!({"policy": "SCHED_RR", "priority": 2}));
    assert_eq!(scheduler(run(&bundle)), "SCHED_RR 2");
    assert_eq!(scheduler(exec(&bundle, &[&bundle.id, "sleep", "1000"])), "SCHED_RR 2");
}

#[test]
fn real_time_without_a_share_of_it_says_what_is_missing() {
    need!(rrun);
    if !has_real_time_groups() {
        return crate::need::skip("a kernel that shares real time out to cgroups of v1");
    }
    for policy in ["SCHED_FIFO", "SCHED_RR"] {
        let mut bundle = Bundle::new();
        bundle.set("/process/scheduler", json!({"policy": policy, "priority": 1}));
        bundle.create().refused(&["process.scheduler: ", "linux.resources.cpu.realtimeRuntime", policy, "EPERM"]);
        bundle.leaves_nothing();
    }
}

const DEADLINE: &str = "SCHED_DEADLINE";

fn with_start_hook(fields: Value) -> Bundle {
    let mut bundle = Bundle::sleeping();
    bundle.image_file("hook", "#!/bin/sh\n/bin/true | cat; touch /ran\n");
    bundle.set("/hooks", json!({"startContainer": [{"path": "/hook"}]}));
    let mut scheduler = json!({"policy": DEADLINE, "runtime": 1_000_000, "deadline": 5_000_000});
    scheduler.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    bundle.set("/process/scheduler", scheduler);
    bundle
}

// fork(2) is EAGAIN under it
#[test]
fn a_deadline_does_not_hinder_hooks() {
    need!(rrun);
    let seen = |bundle: &Bundle| {
        let told = scheduler(run(bundle));
        assert!(bundle.rootfs("ran").exists(), "the hook ran");
        told
    };
    let reset = with_start_hook(json!({"flags": ["SCHED_FLAG_RESET_ON_FORK"]}));
    assert_eq!(seen(&reset), "SCHED_DEADLINE|SCHED_RESET_ON_FORK 0 1000000/5000000/5000000");
    let mut late = with_start_hook(json!({}));
    let all = json!(["CAP_SYS_NICE"]);
    late.set("/process/capabilities", json!({"bounding": all, "permitted": all, "effective": all}));
    assert_eq!(seen(&late), "SCHED_DEADLINE 0 1000000/5000000/5000000");
    late.delete_force().ok();
    let rule = json!({"names": ["sched_setattr"], "action": "SCMP_ACT_ERRNO"});
    late.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
    late.create().refused(&["linux.seccomp: sched_setattr gets SCMP_ACT_ERRNO 1", "hooks.startContainer"]);
    late.leaves_nothing();
    late = with_start_hook(json!({}));
    late.write_config();
    refuses(Rrun, &late, &["process.scheduler.policy: ", "hooks.startContainer", "CAP_SYS_NICE"]);
}

// told by `start`, since `create` is over
#[test]
fn a_deadline_that_is_refused_after_the_hooks_fails_the_start() {
    need!(rrun);
    let all = json!(["CAP_SYS_NICE"]);
    // more than sysctl kernel.sched_deadline_period_max_us allows, which no plan can know
    let mut bundle = with_start_hook(json!({"deadline": 100_000_000_000u64}));
    bundle.set("/process/capabilities", json!({"bounding": all, "permitted": all, "effective": all}));
    bundle.create().ok();
    bundle.start().refused(&["process.scheduler: ", "kernel.sched_deadline_period_min_us", "EINVAL"]);
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn a_personality_is_that_of_every_process() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/personality", json!({"domain": "LINUX32"}));
    run(&bundle);
    let machine = |bundle: &Bundle| bundle.call(&["exec", &bundle.id, "uname", "-m"]).ok().to_string();
    let of_32_bits = if cfg!(target_arch = "x86_64") { "i686\n" } else { "armv8l\n" };
    let told = fs::read_to_string(format!("/proc/{}/personality", bundle.pid())).unwrap();
    assert_eq!(told.trim(), "00000008");
    if crate::runtime::on_rrun() {
        assert_eq!(machine(&bundle), of_32_bits);
    }
    let mut bundle = Bundle::sh("uname -m");
    bundle.set("/linux/personality", json!({"domain": "LINUX"}));
    assert_ne!(bundle.run().ok(), of_32_bits);
}

/// Each mapping of a process with the policy of its memory: numa(7).
fn policies(maps: &str) -> Vec<&str> {
    let mut policies: Vec<_> = maps.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    policies.dedup();
    policies
}

#[test]
fn a_memory_policy_is_that_of_every_process() {
    need!(rrun); // runc has it since 1.4
    if !Path::new("/proc/self/numa_maps").exists() {
        return crate::need::skip("a kernel that knows memory nodes");
    }
    for (written, want) in [
        (json!({"mode": "MPOL_BIND", "nodes": "0"}), "bind:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}), "interleave=static:0"),
        (json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}), "interleave=relative:0"),
        (json!({"mode": "MPOL_PREFERRED", "nodes": "0"}), "prefer:0"),
        (json!({"mode": "MPOL_PREFERRED"}), "local"),
        (json!({"mode": "MPOL_LOCAL"}), "local"),
        (json!({"mode": "MPOL_DEFAULT"}), "default"),
        (json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}), "bind=balancing:0"),
    ] {
        let mut bundle = Bundle::sleeping();
        bundle.set("/linux/memoryPolicy", written.clone());
        let maps = fs::read_to_string(format!("/proc/{}/numa_maps", run(&bundle))).unwrap();
        assert_eq!(policies(&maps), [want], "{written}");
        let other = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/numa_maps"]);
        assert_eq!(policies(other.ok()), [want], "{written}");
    }
}

#[test]
fn what_the_kernel_or_the_spec_refuses_is_named() {
    for (pointer, value, words) in [
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "1023"}),
            &["linux.memoryPolicy: MPOL_BIND of nodes 1023: ", "linux.resources.cpu.mems"][..],
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_INTERLEAVE"}),
            &["linux.memoryPolicy.nodes: missing; MPOL_INTERLEAVE needs some"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_ISO"}),
            &["process.scheduler: this kernel has no such policy", "SCHED_ISO", "EINVAL"],
        ),
        (
            "/process/scheduler",
            json!({"policy": "SCHED_OTHER", "priority": 1}),
            &["process.scheduler.priority: 1 is for SCHED_FIFO and SCHED_RR"],
        ),
        (
            "/process/ioPriority",
            json!({"class": "IOPRIO_CLASS_NONE", "priority": 0}),
            &["process.ioPriority.class: IOPRIO_CLASS_NONE is no class"],
        ),
        (
            "/linux/personality",
            json!({"domain": "SVR4"}),
            &["linux.personality.domain: SVR4 is no domain; use LINUX or LINUX32"],
        ),
    ] {
        let mut bundle = Bundle::new();
        bundle.set(pointer, value).write_config();
        refuses(Rrun, &bundle, words);
    }
}
