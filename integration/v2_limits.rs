//! Limits that cgroup v2 alone has, or has in another way: `unified`, idle, burst, disks with and without BFQ, huge pages;
//! and what `update` makes of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bundle::{Bundle, by_systemd};
use crate::cgroups::{created_with, disk, value};
use crate::runtime::{Output, eventually_within};

fn update_to(bundle: &Bundle, resources: Value) -> Output {
    let file = bundle.host_file("resources.json", resources.to_string());
    bundle.call(&["update", "--resources", file.to_str().unwrap(), &bundle.id])
}

#[test]
fn unified_sets_what_no_other_field_does() {
    layout!(V2);
    need!(rrun); // runc writes line by line since 1.2
    let (major, minor) = disk();
    let lines = format!("{major}:{minor} rbps=1000000\n{major}:{minor} wiops=300\n");
    let bundle = created_with(&[(
        "unified",
        json!({
            "memory.high": "41943040", "memory.min": "4194304", "memory.low": "8388608", "memory.swap.high": "max",
            "memory.oom.group": "1", "cpu.max": "20000 50000", "cpu.max.burst": "5000", "cpu.weight.nice": "5",
            "cpuset.cpus": "0", "io.max": lines, "pids.max": "78", "hugetlb.2MB.max": "4194304",
            "hugetlb.2MB.rsvd.max": "2097152",
        }),
    )]);
    for (file, want) in [
        ("memory.high", "41943040"),
        ("memory.min", "4194304"),
        ("memory.low", "8388608"),
        ("memory.swap.high", "max"),
        ("memory.oom.group", "1"),
        ("cpu.max", "20000 50000"),
        ("cpu.max.burst", "5000"),
        ("cpu.weight.nice", "5"),
        ("cpuset.cpus.effective", "0"),
        ("io.max", &format!("{major}:{minor} rbps=1000000 wbps=max riops=max wiops=300")),
        ("pids.max", "78"),
        ("hugetlb.2MB.max", "4194304"),
        ("hugetlb.2MB.rsvd.max", "2097152"),
    ] {
        assert_eq!(value(&bundle, "", file), want, "{file}");
    }
}

// the last word is its own, whatever another field says of the same file
#[test]
fn unified_comes_after_everything_else() {
    layout!(V2);
    let bundle = created_with(&[
        ("memory", json!({"limit": 50 << 20, "reservation": 30 << 20})),
        ("cpu", json!({"shares": 1024, "quota": 20000, "period": 50000})),
        ("pids", json!({"limit": 5})),
        ("unified", json!({"memory.max": "62914560", "memory.low": "0", "cpu.weight": "77", "pids.max": "max"})),
    ]);
    for (file, want) in [
        ("memory.max", "62914560"),
        ("memory.low", "0"),
        ("cpu.weight", "77"),
        ("cpu.max", "20000 50000"),
        ("pids.max", "max"),
    ] {
        assert_eq!(value(&bundle, "", file), want, "{file}");
    }
}

#[test]
fn a_want_of_memory_ends_one_process_or_by_oom_group_all() {
    layout!(V2);
    for (group, want) in [("0", 0), ("1", 137)] {
        let mut bundle = Bundle::sh("sleep 1000 & tail -c 60000000 /dev/zero > /dev/null; kill $!; echo survived");
        bundle.set("/linux/resources/memory", json!({"limit": 20 << 20, "swap": 20 << 20}));
        bundle.set("/linux/resources/unified", json!({"memory.oom.group": group}));
        let output = bundle.run();
        assert_eq!((output.code, output.stdout.contains("survived")), (want, want == 0), "{group}: {output}");
    }
}

// memory.high slows a program down, and does not kill it
#[test]
fn memory_high_is_kept_by_taking_caches_away() {
    layout!(V2);
    let mut bundle = Bundle::sh(
        "head -c 40000000 /dev/zero > /tmp/file && cat /tmp/file | wc -c && grep high /sys/fs/cgroup/memory.events",
    );
    bundle.set("/linux/resources/unified", json!({"memory.high": "16777216"}));
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro"]);
    let output = bundle.run();
    let (count, events) = output.ok().split_once('\n').unwrap();
    let high: u64 = events.trim().strip_prefix("high ").unwrap().parse().unwrap();
    assert!(count == "40000000" && high > 0, "{output}");
}

#[test]
fn update_of_what_v2_alone_has() {
    layout!(V2);
    need!(rrun); // flags of later versions
    let bundle =
        created_with(&[("unified", json!({"memory.high": "41943040"})), ("memory", json!({"limit": 60 << 20}))]);
    let flags = |flags: &[&str]| bundle.call(&[&["update"], flags, &[&*bundle.id]].concat());
    let is = |file: &str, want: &str| assert_eq!(value(&bundle, "", file), want, "{file}");
    flags(&["--cpu-quota", "30000", "--cpu-burst", "10000"]).ok();
    is("cpu.max.burst", "10000");
    // both are checked against what stands: smaller than the old burst, so that goes first
    flags(&["--cpu-quota", "5000", "--cpu-burst", "4000"]).ok();
    is("cpu.max", "5000 100000");
    is("cpu.max.burst", "4000");
    flags(&["--cpu-idle", "1"]).ok();
    is("cpu.idle", "1");
    flags(&["--cpu-idle", "0", "--cpu-share", "512"]).ok();
    is("cpu.idle", "0");
    is("cpu.weight", "59");
    flags(&["--memory-reservation", "20m"]).ok();
    is("memory.low", "20971520");
    is("memory.high", "41943040");
    update_to(&bundle, json!({"unified": {"memory.high": "max", "memory.min": "1048576", "memory.oom.group": "1"}}))
        .ok();
    for (file, want) in
        [("memory.high", "max"), ("memory.min", "1048576"), ("memory.oom.group", "1"), ("memory.max", "62914560")]
    {
        is(file, want);
    }
    // a later one knows of it, and does not write it again; systemd does
    fs::write(bundle.cgroup("").join("memory.min"), "0").unwrap();
    flags(&["--pids-limit", "50"]).ok();
    is("memory.min", if by_systemd() { "1048576" } else { "0" });
    is("pids.max", "50");
}

#[test]
fn a_file_of_unified_that_is_refused_brings_the_others_back() {
    layout!(V2);
    need!(rrun);
    let bundle = created_with(&[("unified", json!({"memory.high": "41943040", "cpu.weight": "50"}))]);
    let (major, minor) = disk();
    for (unified, says) in [
        (
            json!({"cpu.weight": "60", "memory.high": "77777", "memory.oom.group": "x"}),
            "unified.memory.oom.group: write cgroup",
        ),
        (json!({"cpu.weight": "60", "pids.max": "-5"}), "linux.resources.unified.pids.max: write cgroup"),
        (json!({"cpu.weight": "60", "io.max": format!("{major}:{minor} rbps=7\n4000:1 rbps=5")}), "unified.io.max: "),
        (json!({"cpu.weight": "60", "memory.nothing": "1"}), "unified.memory.nothing: cgroup "),
        (json!({"cpu.weight": "60", "cgroup.freeze": "1"}), "unified.cgroup.freeze: is not a limit"),
        (json!({"cpu.weight": "60", "misc.max": "sev 5"}), "linux.resources.unified.misc.max: "),
    ] {
        update_to(&bundle, json!({"unified": unified})).refused(&[says]);
        for (file, want) in [
            ("cpu.weight", "50"),
            ("memory.high", "41943040"),
            ("memory.oom.group", "0"),
            ("pids.max", "max"),
            ("io.max", ""),
        ] {
            assert_eq!(value(&bundle, "", file), want, "{file} after {unified}");
        }
    }
}

#[test]
fn memory_that_is_in_use_is_checked_before_it_is_limited() {
    layout!(V2);
    need!(rrun); // runc since 1.2
    let mut bundle = Bundle::sh("head -c 12000000 /dev/zero > /dev/shm/file; echo done; sleep 1000");
    bundle.mount("/dev/shm", "tmpfs", "tmpfs", &["size=64m"]);
    bundle.set("/linux/resources/memory", json!({"limit": 60 << 20, "swap": 60 << 20}));
    let run = bundle.run_detached();
    assert!(eventually_within(Duration::from_secs(9), || run.later().contains("done").then_some(())).is_some());
    let small = |check: bool| json!({"memory": {"limit": 4 << 20, "swap": 4 << 20, "checkBeforeUpdate": check}});
    assert_eq!(update_to(&bundle, small(true)).code, 1);
    assert_eq!((value(&bundle, "", "memory.max"), bundle.status()), ((60 << 20).to_string(), "running".into()));
    // without, the kernel makes room by its killer
    update_to(&bundle, small(false));
    bundle.wait_until("stopped");
}

/// A disk that is not in use, with a scheduler for as long as a test takes.
struct Scheduled {
    file: PathBuf,
    before: String,
    number: String,
}

impl Scheduled {
    /// `None`: this kernel has no BFQ, or no such disk.
    fn by_bfq() -> Option<Self> {
        let _ = Command::new("modprobe").args(["-q", "bfq"]).status();
        let unused = |n: &u32| {
            let dir = PathBuf::from(format!("/sys/block/loop{n}"));
            dir.exists() && !dir.join("loop/backing_file").exists()
        };
        let disk = PathBuf::from(format!("/sys/block/loop{}", (0..8).find(unused)?));
        let file = disk.join("queue/scheduler");
        let text = fs::read_to_string(&file).ok()?;
        let before = text.split('[').nth(1)?.split(']').next()?.to_string();
        fs::write(&file, "bfq").ok()?;
        Some(Self { file, before, number: fs::read_to_string(disk.join("dev")).ok()?.trim().to_string() })
    }
}

impl Drop for Scheduled {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, &self.before);
    }
}

// by a policy of its own where a disk has BFQ, and the spec's range is BFQ's
#[test]
fn bfq_has_weights_of_its_own() {
    layout!(V2);
    need!(rrun); // others know the default alone, or no device without it
    let Some(disk) = Scheduled::by_bfq() else { return crate::need::skip("BFQ and an unused loop device") };
    let (major, minor) = disk.number.split_once(':').unwrap();
    let number = |text: &str| text.parse::<u32>().unwrap();
    let device = |weight: u32| json!([{"major": number(major), "minor": number(minor), "weight": weight}]);
    let bundle = created_with(&[("blockIO", json!({"weight": 300, "weightDevice": device(700)}))]);
    let weights = || value(&bundle, "", "io.bfq.weight");
    assert_eq!(weights(), format!("default 300\n{} 700", disk.number));
    assert_eq!(value(&bundle, "", "io.weight"), "default 100");
    update_to(&bundle, json!({"blockIO": {"weightDevice": device(10)}})).ok();
    assert_eq!(weights(), format!("default 300\n{} 10", disk.number));
    bundle.call(&["update", "--blkio-weight", "1000", &bundle.id]).ok();
    assert_eq!(weights(), format!("default 1000\n{} 10", disk.number), "the default makes it forget the others");
    let refused = json!({"blockIO": {"weight": 20, "weightDevice": device(30)}, "unified": {"pids.max": "x"}});
    update_to(&bundle, refused).refused(&["linux.resources.unified.pids.max: "]);
    assert_eq!(weights(), format!("default 1000\n{} 10", disk.number));
}
