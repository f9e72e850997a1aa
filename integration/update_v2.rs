//! `update` on cgroup v2, where most limits have other files, other values and another order than on v1.

use std::fs;

use serde_json::json;

use crate::bundle::Bundle;
use crate::cgroups::{disk, value};
use crate::runtime::{Call, rounds};
use crate::update::{running, stored, update, update_to};

#[track_caller]
fn is(bundle: &Bundle, file: &str, want: &str) {
    assert_eq!(value(bundle, "", file), want, "{file}");
}

#[test]
fn hosts_with_a_v2_tree_alone() {
    layout!(V2);
    need!(rrun); // others have had this curve of weights since 2025
    let bundle = running(json!({"memory": {"limit": 60 << 20, "swap": 80 << 20}}));
    let file = |name: &str| value(&bundle, "unified", name);
    for (flags, name, want) in [
        (&["--cpu-quota", "30000", "--cpu-period", "50000"][..], "cpu.max", "30000 50000"),
        (&["--cpu-quota", "20000"], "cpu.max", "20000 50000"),
        (&["--cpu-share", "1024"], "cpu.weight", "100"),
        (&["--memory", "50M"], "memory.max", "52428800"),
        (&["--pids-limit", "77"], "pids.max", "77"),
        (&["--cpuset-cpus", "0"], "cpuset.cpus", "0"),
    ] {
        update(&bundle, flags).ok();
        assert_eq!(file(name), want, "{flags:?}");
    }
    assert_eq!(file("memory.swap.max"), (30 << 20).to_string(), "what is left of 80M");
    let text = json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}, "pids": {"limit": 5}}).to_string();
    assert!(update_to(&bundle, &text).code == 1);
    assert_eq!((&*file("memory.max"), &*file("pids.max")), ("52428800", "77"));
}

#[test]
fn limits_of_memory_and_swap_go_up_and_down_on_v2() {
    layout!(V2);
    need!(rrun); // runc does not know the limit of memory by then
    let bundle = running(json!({"memory": {"limit": 60 << 20, "swap": 80 << 20}}));
    for (memory, swap) in [(100, 200), (20, 30), (30, 30), (90, 90), (40, 1000)] {
        let [limit, both] = [memory, swap].map(|megabytes| format!("{megabytes}M"));
        update(&bundle, &["--memory", &limit, "--memory-swap", &both]).ok();
        is(&bundle, "memory.max", &(memory << 20).to_string());
        is(&bundle, "memory.swap.max", &((swap - memory) << 20).to_string());
    }
    for (flags, memory, swap) in [
        (&["--memory", "50M", "--memory-swap", "-1"][..], "52428800", "max"),
        (&["--memory-swap", "60M"], "52428800", "10485760"),
        (&["--memory", "-1", "--memory-swap", "-1"], "max", "max"),
    ] {
        update(&bundle, flags).ok();
        is(&bundle, "memory.max", memory);
        is(&bundle, "memory.swap.max", swap);
    }
}

#[test]
fn no_limit_of_memory_means_none_with_swap_on_v2() {
    layout!(V2);
    need!(rrun); // runc of Debian leaves the one with swap in the way, which is an error
    let bundle = running(json!({"memory": {"limit": 60 << 20, "swap": 80 << 20}}));
    update(&bundle, &["--memory", "-1"]).ok();
    is(&bundle, "memory.max", "max");
    is(&bundle, "memory.swap.max", "max");
    update(&bundle, &["--memory", "50M"]).ok();
    is(&bundle, "memory.max", "52428800");
    is(&bundle, "memory.swap.max", "max");
}

#[test]
fn what_is_not_given_stays_on_v2() {
    layout!(V2);
    need!(rrun); // runc forgets some of it
    let bundle = running(json!({
        "cpu": {"shares": 1024, "quota": 30000, "period": 50000, "burst": 1000, "cpus": "0"}, "pids": {"limit": 44},
        "memory": {"limit": 60 << 20, "reservation": 10 << 20}, "unified": {"memory.high": "41943040"},
    }));
    let before = stored(&bundle);
    for text in [
        json!({}),
        json!({"memory": null, "cpu": null, "blockIO": null, "pids": null, "hugepageLimits": null, "unified": null}),
        json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0}, "blockIO": {"weight": 0}}),
    ] {
        update_to(&bundle, &text.to_string()).ok();
        assert_eq!(stored(&bundle), before, "{text}");
    }
    fs::write(bundle.cgroup("").join("pids.max"), "33").unwrap();
    update(&bundle, &["--cpu-quota", "20000"]).ok();
    for (file, want) in [
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "1000"),
        ("cpu.weight", "100"),
        ("cpuset.cpus", "0"),
        ("memory.max", "62914560"),
        ("memory.low", "10485760"),
        ("memory.high", "41943040"),
        ("pids.max", "33"), // somebody else's
    ] {
        is(&bundle, file, want);
    }
    // the period alone keeps the quota, no quota keeps the period
    update(&bundle, &["--cpu-period", "40000"]).ok();
    is(&bundle, "cpu.max", "20000 40000");
    update(&bundle, &["--cpu-quota", "-1"]).ok();
    is(&bundle, "cpu.max", "max 40000");
    update(&bundle, &["--pids-limit", "0"]).ok();
    is(&bundle, "pids.max", "0");
    update(&bundle, &["--pids-limit", "-1"]).ok();
    is(&bundle, "pids.max", "max");
}

#[test]
fn shares_of_who_is_idle_have_no_effect() {
    layout!(V2);
    need!(rrun);
    let bundle = running(json!({"cpu": {"shares": 512}}));
    is(&bundle, "cpu.weight", "59");
    update(&bundle, &["--cpu-idle", "1"]).ok();
    is(&bundle, "cpu.idle", "1");
    let log = bundle.dir.join("log");
    bundle.call(&["--log", log.to_str().unwrap(), "update", "--cpu-share", "1024", &bundle.id]).ok();
    assert!(fs::read_to_string(log).unwrap().contains("cpu.shares: has no effect with cpu.idle 1"));
    update(&bundle, &["--cpu-idle", "0"]).ok();
    is(&bundle, "cpu.idle", "0");
    is(&bundle, "cpu.weight", "100"); // as the kernel has it then
    update(&bundle, &["--cpu-share", "512"]).ok();
    is(&bundle, "cpu.weight", "59");
}

#[test]
fn disks_keep_their_limits_beside_new_ones_on_v2() {
    layout!(V2);
    need!(rrun); // runc takes no throttles at update
    let (major, minor) = disk();
    let throttle = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let bundle = running(json!({"blockIO": {"throttleReadBpsDevice": throttle(1_000_000)}}));
    for (field, rate, want) in [
        ("throttleWriteIOPSDevice", 300, "rbps=1000000 wbps=max riops=max wiops=300"),
        ("throttleReadBpsDevice", 2_000_000, "rbps=2000000 wbps=max riops=max wiops=300"),
        ("throttleReadBpsDevice", 0, "rbps=max wbps=max riops=max wiops=300"),
    ] {
        update_to(&bundle, &json!({"blockIO": {field: throttle(rate)}}).to_string()).ok();
        is(&bundle, "io.max", &format!("{major}:{minor} {want}"));
    }
}

#[test]
fn bad_values_are_refused_and_change_nothing_on_v2() {
    layout!(V2);
    need!(rrun); // runc hands the wrong ones to the kernel, or drops them
    let (major, minor) = disk();
    let bundle = running(json!({
        "cpu": {"shares": 1024, "quota": 30000, "period": 50000}, "memory": {"limit": 60 << 20, "swap": 80 << 20},
        "pids": {"limit": 44}, "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 5000}]},
    }));
    let seen = || {
        ["cpu.weight", "cpu.max", "memory.max", "memory.swap.max", "pids.max", "io.max"]
            .map(|file| value(&bundle, "", file))
    };
    let (before, files) = (stored(&bundle), seen());
    let missing = json!([{"major": major, "minor": minor, "rate": 7}, {"major": 4000, "minor": 1, "rate": 5}]);
    for (given, says) in [
        (json!({"memory": {"limit": 100 << 20}}), "linux.resources.memory.swap: 83886080 is below memory.limit"),
        (json!({"memory": {"limit": -1, "swap": 5 << 20}}), "linux.resources.memory.swap: is 5242880, but"),
        (json!({"memory": {"limit": -2}}), "linux.resources.memory.limit: -2 is negative"),
        (json!({"memory": {"swappiness": 10}}), "linux.resources.memory.swappiness: cgroup v2 has none"),
        (json!({"memory": {"disableOOMKiller": true}}), "linux.resources.memory.disableOOMKiller: cgroup v2"),
        (json!({"cpu": {"realtimeRuntime": 1000}}), "linux.resources.cpu.realtimeRuntime: cgroup v2"),
        (json!({"cpu": {"quota": 500}}), "linux.resources.cpu.quota"),
        (json!({"cpu": {"burst": 40000}}), "linux.resources.cpu.burst: 40000 is more than the quota 30000"),
        (json!({"cpu": {"idle": 2}}), "linux.resources.cpu.idle: 2 is neither 0 nor 1"),
        (json!({"cpu": {"cpus": "4000000"}}), "linux.resources.cpu.cpus: cannot set cpuset.cpus = 4000000"),
        (json!({"cpu": {"mems": "900"}}), "linux.resources.cpu.mems: cannot set cpuset.mems = 900"),
        (json!({"blockIO": {"leafWeight": 100}}), "linux.resources.blockIO.leafWeight"),
        (json!({"blockIO": {"throttleReadBpsDevice": missing}}), "blockIO.throttleReadBpsDevice[1]: cannot set io.max"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 5}]}), "linux.resources.hugepageLimits[0]"),
        (json!({"rdma": {"mlx5_0": {"hcaHandles": 3}}}), "linux.resources.rdma.mlx5_0: cannot set rdma.max"),
        (json!({"network": {"classID": 5}}), "linux.resources.network.classID: this host has no net_cls"),
    ] {
        let mut text = given.clone();
        text["pids"] = json!({"limit": 9});
        if text["cpu"].is_null() {
            text["cpu"] = json!({"shares": 512});
        }
        update_to(&bundle, &text.to_string()).refused(&[says]);
        assert_eq!((seen(), stored(&bundle)), (files.clone(), before.clone()), "{given}");
    }
    assert_eq!(bundle.status(), "running");
}

#[test]
fn many_at_once_all_count_on_v2() {
    layout!(V2);
    need!(rrun); // by its own record
    let bundle = running(json!({"memory": {"limit": 60 << 20}}));
    for round in rounds(5) {
        let (shares, pids, low) = (512 + round, 50 + round, (10 + round) << 20);
        let calls: Vec<Call> = [
            ["--cpu-share", &shares.to_string()],
            ["--pids-limit", &pids.to_string()],
            ["--memory-reservation", &low.to_string()],
        ]
        .iter()
        .map(|[flag, value]| bundle.spawn(&["update", flag, value, &bundle.id]))
        .collect();
        calls.into_iter().for_each(|call| assert_eq!(call.wait().ok(), ""));
        is(&bundle, "pids.max", &pids.to_string());
        is(&bundle, "memory.low", &low.to_string());
        assert_eq!(stored(&bundle)["cpu"]["shares"], json!(shares));
    }
}
