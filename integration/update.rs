//! Other limits for a container that lives: by flags and by a file, laid over those it has, all of them or none.

use std::fs;
use std::io::{Seek, Write};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::cgroups::disk;
use crate::runtime::{Call, Output, on_rrun, run};

mod refused;

#[track_caller]
fn value(bundle: &Bundle, controller: &str, file: &str) -> String {
    let path = bundle.cgroup(controller).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_string()
}

pub fn update(bundle: &Bundle, flags: &[&str]) -> Output {
    bundle.call(&[&["update"], flags, &[&*bundle.id]].concat())
}

/// By a file.
pub fn update_to(bundle: &Bundle, resources: &str) -> Output {
    let file = bundle.host_file("resources.json", resources);
    update(bundle, &["--resources", file.to_str().unwrap()])
}

pub fn running(resources: Value) -> Bundle {
    let mut bundle = Bundle::sleeping();
    for (section, value) in resources.as_object().unwrap() {
        bundle.set(&format!("/linux/resources/{section}"), value.clone());
    }
    bundle.run_detached().ok();
    bundle
}

pub fn stored(bundle: &Bundle) -> Value {
    let config = fs::read(bundle.state_root.join(&bundle.id).join("config.json")).unwrap();
    serde_json::from_slice::<Value>(&config).unwrap()["linux"]["resources"].clone()
}

/// Flag and value, and what file of v1 says so then.
const FLAGS: [(&str, &str, &str, &str, &str); 9] = [
    ("--cpu-share", "600", "cpu", "cpu.shares", "600"),
    ("--cpu-period", "50000", "cpu", "cpu.cfs_period_us", "50000"),
    ("--cpu-quota", "30000", "cpu", "cpu.cfs_quota_us", "30000"),
    ("--cpuset-cpus", "0", "cpuset", "cpuset.cpus", "0"),
    ("--cpuset-mems", "0", "cpuset", "cpuset.mems", "0"),
    ("--memory", "50m", "memory", "memory.limit_in_bytes", "52428800"),
    ("--memory-reservation", "40M", "memory", "memory.soft_limit_in_bytes", "41943040"),
    ("--memory-swap", "61440k", "memory", "memory.memsw.limit_in_bytes", "62914560"),
    ("--pids-limit", "77", "pids", "pids.max", "77"),
];

#[test]
fn each_flag_sets_its_value() {
    layout!(V1, Hybrid);
    let bundle = running(json!({}));
    for (flag, given, controller, file, want) in FLAGS {
        if flag == "--memory-swap" && !on_rrun() {
            update(&bundle, &["--memory", "50m", flag, given]).ok(); // runc has no stored limit beside it in older versions
        } else {
            update(&bundle, &[flag, given]).ok();
        }
        assert_eq!(value(&bundle, controller, file), want, "{flag}");
    }
    for (_, _, controller, file, want) in FLAGS {
        assert_eq!(value(&bundle, controller, file), want, "{file} after the others");
    }
}

#[test]
fn all_flags_at_once() {
    layout!(V1, Hybrid);
    let bundle = running(json!({}));
    let words: Vec<&str> = FLAGS.iter().flat_map(|(flag, given, ..)| [*flag, *given]).collect();
    update(&bundle, &words).ok();
    for (_, _, controller, file, want) in FLAGS {
        assert_eq!(value(&bundle, controller, file), want, "{file}");
    }
}

#[test]
fn weights_burst_and_idle() {
    layout!(V1, Hybrid);
    need!(rrun); // flags of later versions
    let bundle = running(json!({}));
    for (flags, controller, file, want) in [
        (&["--blkio-weight", "300"][..], "blkio", "blkio.bfq.weight", "300"),
        (&["--cpu-quota", "30000", "--cpu-burst", "10000"], "cpu", "cpu.cfs_burst_us", "10000"),
        (&["--cpu-idle", "1"], "cpu", "cpu.idle", "1"),
        (&["--cpu-idle", "0"], "cpu", "cpu.idle", "0"),
    ] {
        if bundle.cgroup(controller).join(file).exists() {
            update(&bundle, flags).ok();
            assert_eq!(value(&bundle, controller, file), want, "{flags:?}");
        }
    }
}

#[test]
fn real_time_budgets() {
    layout!(V1, Hybrid);
    need!(rrun); // runc leaves it to the caller to give the cgroups above a budget
    let bundle = running(json!({}));
    if !bundle.cgroup("cpu").join("cpu.rt_runtime_us").exists() {
        // a kernel without CONFIG_RT_GROUP_SCHED
        return update(&bundle, &["--cpu-rt-runtime", "1000"]).refused(&["linux.resources.cpu.realtimeRuntime"]);
    }
    update(&bundle, &["--cpu-rt-period", "500000", "--cpu-rt-runtime", "1000"]).ok();
    assert_eq!(value(&bundle, "cpu", "cpu.rt_runtime_us"), "1000");
    assert_eq!(value(&bundle, "cpu", "cpu.rt_period_us"), "500000");
}

#[test]
fn a_file_or_stdin_says_the_same() {
    layout!(V1, Hybrid);
    let bundle = running(json!({}));
    let text =
        json!({"memory": {"limit": 60 << 20}, "cpu": {"shares": 700}, "pids": {"limit": 55}, "someday": {"x": 1}});
    update_to(&bundle, &text.to_string()).ok();
    let seen = |bundle: &Bundle| {
        [("memory", "memory.limit_in_bytes"), ("cpu", "cpu.shares"), ("pids", "pids.max")]
            .map(|(controller, file)| value(bundle, controller, file))
    };
    assert_eq!(seen(&bundle), ["62914560", "700", "55"]);
    let text = text.to_string().replace("700", "800").replace("55", "66");
    let mut stdin = tempfile::tempfile().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    stdin.rewind().unwrap();
    let mut command = bundle.command(&["update", "-r", "-", "--cpu-share", "5", &bundle.id]); // other flags are left out
    Call::with_stdin(&mut command, Stdio::from(stdin)).wait().ok();
    assert_eq!(seen(&bundle), ["62914560", "800", "66"]);
}

// runc panics at a section that is null
#[test]
fn null_and_empty_sections_change_nothing() {
    layout!(V1, Hybrid);
    need!(rrun);
    let bundle = running(json!({"cpu": {"shares": 600}, "pids": {"limit": 44}, "memory": {"limit": 60 << 20}}));
    let before = stored(&bundle);
    for text in [
        json!({}),
        json!({"memory": null, "cpu": null, "blockIO": null, "pids": null, "hugepageLimits": null, "unified": null}),
        json!({"memory": {}, "cpu": {"shares": null, "cpus": ""}, "pids": {"limit": null}}),
        json!({"memory": {"limit": 0, "swap": 0}, "cpu": {"shares": 0, "quota": 0}, "blockIO": {"weight": 0}}),
    ] {
        update_to(&bundle, &text.to_string()).ok();
        assert_eq!(value(&bundle, "cpu", "cpu.shares"), "600", "{text}");
        assert_eq!(value(&bundle, "pids", "pids.max"), "44", "{text}");
        assert_eq!(value(&bundle, "memory", "memory.limit_in_bytes"), "62914560", "{text}");
        assert_eq!(stored(&bundle), before, "{text}");
    }
    update(&bundle, &[]).ok();
}

#[test]
fn what_is_not_given_stays() {
    layout!(V1, Hybrid);
    let bundle = running(json!({
        "cpu": {"shares": 600, "quota": 30000, "period": 50000, "cpus": "0"}, "pids": {"limit": 44},
        "memory": {"limit": 60 << 20},
    }));
    update(&bundle, &["--cpu-quota", "20000"]).ok();
    for (controller, file, want) in [
        ("cpu", "cpu.cfs_quota_us", "20000"),
        ("cpu", "cpu.cfs_period_us", "50000"),
        ("cpu", "cpu.shares", "600"),
        ("cpuset", "cpuset.cpus", "0"),
        ("pids", "pids.max", "44"),
        ("memory", "memory.limit_in_bytes", "62914560"),
    ] {
        assert_eq!(value(&bundle, controller, file), want, "{file}");
    }
}

// somebody else's business: a value that was neither asked for nor changed is not written again
#[test]
fn what_others_wrote_is_left_alone() {
    layout!(V1, Hybrid);
    need!(rrun); // runc writes all that it has stored
    let bundle = running(json!({"cpu": {"shares": 600}, "pids": {"limit": 44}}));
    fs::write(bundle.cgroup("pids").join("pids.max"), "33").unwrap();
    update(&bundle, &["--cpu-share", "700"]).ok();
    assert_eq!(value(&bundle, "pids", "pids.max"), "33");
    update(&bundle, &["--pids-limit", "44"]).ok();
    assert_eq!(value(&bundle, "pids", "pids.max"), "44", "was asked for");
}

#[test]
fn limits_of_memory_and_swap_go_up_and_down() {
    layout!(V1, Hybrid);
    let bundle = running(json!({"memory": {"limit": 60 << 20, "swap": 80 << 20}}));
    for (memory, swap) in [(100, 200), (20, 30), (30, 30), (90, 90), (40, 1000)] {
        let [limit, both] = [memory, swap].map(|megabytes| format!("{megabytes}M"));
        update(&bundle, &["--memory", &limit, "--memory-swap", &both]).ok();
        assert_eq!(value(&bundle, "memory", "memory.limit_in_bytes"), (memory << 20).to_string(), "{limit} {both}");
        assert_eq!(value(&bundle, "memory", "memory.memsw.limit_in_bytes"), (swap << 20).to_string(), "{limit} {both}");
    }
    update(&bundle, &["--memory", "-1", "--memory-swap", "-1"]).ok();
    assert!(value(&bundle, "memory", "memory.limit_in_bytes").len() > 15);
    assert!(value(&bundle, "memory", "memory.memsw.limit_in_bytes").len() > 15);
}

#[test]
fn no_limit_of_memory_means_none_with_swap() {
    layout!(V1, Hybrid);
    need!(rrun); // runc of Debian leaves the one with swap in the way, which is an error
    let bundle = running(json!({"memory": {"limit": 60 << 20, "swap": 80 << 20}}));
    update(&bundle, &["--memory", "-1"]).ok();
    assert!(value(&bundle, "memory", "memory.limit_in_bytes").len() > 15);
    assert!(value(&bundle, "memory", "memory.memsw.limit_in_bytes").len() > 15);
    update(&bundle, &["--memory", "50M"]).ok();
    assert_eq!(value(&bundle, "memory", "memory.limit_in_bytes"), "52428800");
}

#[test]
fn disks_keep_their_limits_beside_new_ones() {
    layout!(V1, Hybrid);
    need!(rrun); // runc takes no throttles at update
    let (major, minor) = disk();
    let throttle = |rate: u32| json!([{"major": major, "minor": minor, "rate": rate}]);
    let bundle = running(json!({"blockIO": {"throttleReadBpsDevice": throttle(1_000_000)}}));
    let text = json!({"blockIO": {"throttleWriteBpsDevice": throttle(2_000_000)}});
    update_to(&bundle, &text.to_string()).ok();
    for (file, rate) in [("read", 1_000_000), ("write", 2_000_000)] {
        let want = format!("{major}:{minor} {rate}");
        assert_eq!(value(&bundle, "blkio", &format!("blkio.throttle.{file}_bps_device")), want);
    }
}

#[test]
fn a_controller_of_the_v2_tree_is_reached_too() {
    layout!(Hybrid);
    need!(rrun, hugetlb); // runc knows one tree only
    if !fs::read_to_string("/sys/fs/cgroup/unified/cgroup.controllers").unwrap_or_default().contains("hugetlb") {
        // systemd of a guest puts every controller on v1
        let guest = std::env::var_os("LAYOUT").is_some();
        if !guest {
            crate::need::skip("hugetlb in a v2 tree");
        }
        return;
    }
    // enabled above by the update itself
    let bundle = running(json!({}));
    update_to(&bundle, &json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}).to_string()).ok();
    assert_eq!(value(&bundle, "unified", "hugetlb.2MB.max"), "4194304");
}

#[test]
fn limits_of_kernel_memory_are_ignored_with_a_word() {
    layout!(V1, Hybrid);
    need!(rrun);
    let bundle = running(json!({"memory": {"limit": 60 << 20}}));
    let log = bundle.dir.join("log");
    let warnings = |flags: &[&str]| {
        let _ = fs::remove_file(&log);
        update(&bundle, &[&["--log", log.to_str().unwrap()], flags].concat()).ok();
        fs::read_to_string(&log).unwrap_or_default().matches("is ignored").count()
    };
    let flag = ["--kernel-memory", "10m"];
    assert_eq!((warnings(&flag), warnings(&flag)), (1, 1));
    assert_eq!(warnings(&["--kernel-memory-tcp", "10m"]), 0, "buffers of TCP still have a limit of their own");
    assert_eq!(value(&bundle, "memory", "memory.kmem.tcp.limit_in_bytes"), (10 << 20).to_string());
    assert_eq!(warnings(&["--memory", "50m"]), 0, "what is stored is not spoken of again");
}

#[test]
fn created_running_and_paused_ones_can_be_updated() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let step = |limit: &str, status: &str| {
        update(&bundle, &["--pids-limit", limit]).ok();
        assert_eq!((value(&bundle, "pids", "pids.max").as_str(), bundle.status().as_str()), (limit, status));
    };
    step("31", "created");
    bundle.start().ok();
    step("32", "running");
    bundle.pause().ok();
    step("33", "paused");
    bundle.resume().ok();
    step("34", "running");
}

#[test]
fn rules_of_devices_are_never_touched() {
    layout!(V1, Hybrid);
    let bundle = running(json!({"devices": [{"allow": false, "access": "rwm"}]}));
    // systemd writes them again, from the last to the first
    let listed = || {
        let mut lines: Vec<_> = value(&bundle, "devices", "devices.list").lines().map(String::from).collect();
        lines.sort();
        lines
    };
    let before = listed();
    update_to(&bundle, "{\"devices\": [{\"allow\": true, \"access\": \"rwm\"}], \"pids\": {\"limit\": 5}}").ok();
    assert_eq!(listed(), before);
    assert_eq!(value(&bundle, "pids", "pids.max"), "5");
}

#[test]
fn the_bundle_may_be_gone() {
    let bundle = running(json!({"pids": {"limit": 44}}));
    fs::remove_file(bundle.dir.join("config.json")).unwrap();
    let elsewhere = |flags: &[&str]| {
        run(bundle.command_on_config_as_it_is(&[&["update"], flags, &[&*bundle.id]].concat()).current_dir("/"))
    };
    for limit in ["5", "6"] {
        elsewhere(&["--pids-limit", limit]).ok();
        assert_eq!(value(&bundle, "pids", "pids.max"), limit);
    }
}

#[test]
fn later_updates_know_of_earlier_ones() {
    layout!(V1, Hybrid);
    need!(rrun); // what is stored where differs
    let bundle = running(json!({"memory": {"limit": 60 << 20}}));
    let process = |bundle: &Bundle| {
        let config = fs::read(bundle.state_root.join(&bundle.id).join("config.json")).unwrap();
        serde_json::from_slice::<Value>(&config).unwrap()["process"].clone()
    };
    let before = process(&bundle);
    update(&bundle, &["--memory", "100M", "--memory-swap", "200M"]).ok();
    update(&bundle, &["--memory", "250M"]).refused(&["memory.swap: 209715200 is below memory.limit 262144000"]);
    update(&bundle, &["--cpu-period", "50000"]).ok();
    let want = json!({"limit": 100 << 20, "swap": 200 << 20});
    assert_eq!((&stored(&bundle)["memory"], &stored(&bundle)["cpu"]), (&want, &json!({"period": 50000})));
    assert_eq!(process(&bundle), before);
}

// a relative path starts at the cgroup of whoever creates, not of whoever updates
#[test]
fn the_container_is_found_from_any_cgroup() {
    layout!(V1, Hybrid);
    need!(rrun); // runc records it as well; its test would be the same but for the state root
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", bundle.id.clone());
    bundle.run_detached().ok();
    let memberships = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    let path = memberships.lines().find_map(|line| line.split_once(":pids:")).unwrap().1.trim_start_matches('/');
    let elsewhere = bundle.cgroup("pids").with_file_name(format!("{}-elsewhere", bundle.id));
    fs::create_dir(&elsewhere).unwrap();
    let command = bundle.command(&["update", "--pids-limit", "21", &bundle.id]);
    let mut inside = Command::new("sh");
    inside.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(&elsewhere);
    let output = run(inside.arg(command.get_program()).args(command.get_args()));
    fs::remove_dir(&elsewhere).unwrap();
    output.ok();
    let seen = fs::read_to_string(format!("/sys/fs/cgroup/pids/{path}/pids.max")).unwrap();
    assert_eq!(seen.trim(), "21");
}

#[test]
fn many_at_once_all_count() {
    layout!(V1, Hybrid);
    need!(rrun); // runc has no lock: the last one stores its own view
    let bundle = running(json!({}));
    let calls: Vec<_> =
        FLAGS.iter().map(|(flag, given, ..)| bundle.spawn(&["update", flag, given, &bundle.id])).collect();
    for (call, (flag, given, ..)) in calls.into_iter().zip(FLAGS) {
        let output = call.wait();
        // a limit with swap needs the other one, which may come later
        if flag == "--memory-swap" && output.code != 0 {
            update(&bundle, &[flag, given]).ok();
        } else {
            output.ok();
        }
    }
    for (_, _, controller, file, want) in FLAGS {
        assert_eq!(value(&bundle, controller, file), want, "{file}");
    }
    let want = json!({"limit": 50 << 20, "reservation": 40 << 20, "swap": 60 << 20});
    assert_eq!(stored(&bundle)["memory"], want);
}
