//! Containers in units of systemd's: `--systemd-cgroup`. What every host has is that nothing is made where systemd does
//! not answer; the rest is about hosts that it runs.

use std::fs;
use std::process::Command;
use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use serde_json::json;

use crate::bundle::Bundle;
use crate::layout::{is_v2, mountpoint};
use crate::leftovers::VARIABLE;
use crate::runtime::{Output, eventually_within};

mod kept;
mod of_user;
mod silent;
mod subgroup;

/// Whoever stops systemd waits until nobody needs it, and the other way round.
static QUIET: RwLock<()> = RwLock::new(());

fn with_systemd() -> RwLockReadGuard<'static, ()> {
    QUIET.read().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn alone() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// One more word, and it has a unit.
fn in_unit(mut bundle: Bundle) -> Bundle {
    let path = format!("system.slice::{}", bundle.id);
    bundle.set("/linux/cgroupsPath", path);
    bundle
}

fn unit(bundle: &Bundle) -> String {
    format!("{}.scope", bundle.id)
}

fn call(bundle: &Bundle, args: &[&str]) -> Output {
    bundle.call(&[&["--systemd-cgroup"], args].concat())
}

#[track_caller]
fn create(bundle: &Bundle) {
    call(bundle, &["create", &bundle.id]).ok();
}

fn systemctl(args: &[&str]) -> String {
    let output = Command::new("systemctl").args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

/// A property as systemd has it.
fn shown(unit: &str, property: &str) -> String {
    systemctl(&["show", unit, "--value", "-p", property])
}

fn is_loaded(unit: &str) -> bool {
    shown(unit, "LoadState") == "loaded"
}

#[track_caller]
fn goes(unit: &str) {
    // a slice is loaded by the question
    let gone = || match unit.ends_with(".slice") {
        true => shown(unit, "ActiveState") == "inactive",
        false => !is_loaded(unit),
    };
    let gone = eventually_within(Duration::from_secs(5), || gone().then_some(()));
    assert!(gone.is_some(), "{unit} is {}", shown(unit, "ActiveState"));
}

/// Of the container's cgroup in the hierarchy of a controller.
#[track_caller]
fn value(bundle: &Bundle, controller: &str, file: &str) -> String {
    let path = mountpoint(controller).join("system.slice").join(unit(bundle)).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_string()
}

/// A property, its value, and where that stands on v1 and on v2.
type Limit = (&'static str, &'static str, [(&'static str, &'static str, &'static str); 2]);

const LIMITS: [Limit; 3] = [
    ("TasksMax", "77", [("pids", "pids.max", "77"), ("", "pids.max", "77")]),
    ("CPUQuotaPerSecUSec", "400ms", [("cpu", "cpu.cfs_quota_us", "20000"), ("", "cpu.max", "20000 50000")]),
    ("CPUQuotaPeriodUSec", "50ms", [("cpu", "cpu.cfs_period_us", "50000"), ("", "cpu.max", "20000 50000")]),
];
const LIMITS_OF_ONE: [Limit; 2] = [
    ("MemoryLimit", "52428800", [("memory", "memory.limit_in_bytes", "52428800"); 2]),
    ("MemoryMax", "52428800", [("", "memory.max", "52428800"); 2]),
];

#[track_caller]
fn has_its_limits(bundle: &Bundle) {
    let memory = &LIMITS_OF_ONE[usize::from(is_v2())];
    for (property, want, files) in LIMITS.iter().chain([memory]) {
        let (controller, file, text) = files[usize::from(is_v2())];
        assert_eq!(shown(&unit(bundle), property), *want, "{property}");
        assert_eq!(value(bundle, controller, file), text, "{file}");
    }
    let device =
        bundle.call(&["exec", &bundle.id, "sh", "-c", "mknod /tmp/d b 7 0; cat /tmp/d; rm /tmp/d; echo >/dev/null"]);
    assert!(device.stderr.contains("not permitted"), "devices: {device}");
}

fn limited() -> Bundle {
    let mut bundle = in_unit(Bundle::sleeping());
    bundle.set("/linux/resources/memory/limit", 50 << 20).set("/linux/resources/pids/limit", 77);
    bundle.set("/linux/resources/cpu", json!({"quota": 20000, "period": 50000}));
    let capabilities = json!(["CAP_MKNOD"]);
    bundle.set(
        "/process/capabilities",
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities}),
    );
    bundle
}

/// Where the kernel has charged init to whoever made it, a limit of what it needs shows.
#[test]
fn limits_are_systemds_and_the_kernels_also_after_a_reload() {
    systemd!();
    let _systemd = with_systemd();
    let bundle = limited();
    create(&bundle);
    bundle.start().ok();
    assert_eq!(shown(&unit(&bundle), "ActiveState"), "active");
    assert_eq!(shown(&unit(&bundle), "Delegate"), "yes");
    assert_eq!(shown(&unit(&bundle), "Slice"), "system.slice");
    has_its_limits(&bundle);
    systemctl(&["daemon-reload"]);
    has_its_limits(&bundle);
    // and when it sets all of them anew
    systemctl(&["set-property", "--runtime", &unit(&bundle), "CPUWeight=90"]);
    has_its_limits(&bundle);
    let inside = value(&bundle, if is_v2() { "" } else { "pids" }, "cgroup.procs");
    assert_eq!(inside, bundle.pid().to_string(), "who is in the scope");
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    goes(&unit(&bundle));
    bundle.leaves_nothing();
}

/// What holds the scope until init is there counts as well.
#[test]
fn a_limit_of_hardly_any_process() {
    systemd!();
    need!(rrun); // others make another number of 0
    let _systemd = with_systemd();
    for limit in [0, 1] {
        let mut bundle = in_unit(Bundle::sleeping());
        bundle.set("/linux/resources/pids/limit", limit);
        create(&bundle);
        bundle.start().ok();
        assert_eq!(shown(&unit(&bundle), "TasksMax"), "1");
        bundle.delete_force().ok();
        goes(&unit(&bundle));
    }
}

// containerd's cleanup, podman and CRI-O's update call without the flag
#[test]
fn the_record_says_who_made_the_cgroups() {
    systemd!();
    let _systemd = with_systemd();
    let bundle = limited();
    call(&bundle, &["run", "-d", &bundle.id]).ok();
    let cgroup = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    let scope = format!("/system.slice/{}", unit(&bundle));
    assert!(cgroup.ok().lines().all(|line| line.ends_with(&scope)), "{cgroup}");
    bundle.pause().ok();
    bundle.resume().ok();
    bundle.call(&["update", "--pids-limit", "55", "--memory", "60m", "--cpu-quota", "25000", &bundle.id]).ok();
    let (pids, memory) = if is_v2() { ("", "MemoryMax") } else { ("pids", "MemoryLimit") };
    for reload in [false, true] {
        if reload {
            systemctl(&["daemon-reload"]);
        }
        assert_eq!(shown(&unit(&bundle), "TasksMax"), "55");
        assert_eq!(shown(&unit(&bundle), memory), (60 << 20).to_string());
        assert_eq!(shown(&unit(&bundle), "CPUQuotaPerSecUSec"), "500ms", "of a period that stands");
        assert_eq!(value(&bundle, pids, "pids.max"), "55");
    }
    bundle.delete_force().ok();
    goes(&unit(&bundle));
}

#[test]
fn an_update_that_the_kernel_refuses_changes_nothing() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    let bundle = limited();
    create(&bundle);
    bundle.call(&["update", "--pids-limit", "55", "--cpuset-cpus", "4000", &bundle.id]).error();
    has_its_limits_but_devices(&bundle);
}

/// The last of its steps fails, when systemd has been told.
#[test]
fn an_update_that_cannot_be_recorded_is_taken_back_from_systemd_too() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    let bundle = limited();
    create(&bundle);
    let in_the_way = bundle.state_root.join(&bundle.id).join("config.json.new");
    fs::create_dir(&in_the_way).unwrap();
    let flags = ["--pids-limit", "55", "--memory", "60m", "--cpu-quota", "30100"];
    bundle.call(&[&["update"], &flags[..], &[&bundle.id]].concat()).error();
    for _ in 0..2 {
        has_its_limits_but_devices(&bundle);
        let (property, want, files) = &LIMITS_OF_ONE[usize::from(is_v2())];
        let (controller, file, text) = files[usize::from(is_v2())];
        assert_eq!(
            (shown(&unit(&bundle), property).as_str(), value(&bundle, controller, file).as_str()),
            (*want, text)
        );
        systemctl(&["daemon-reload"]);
    }
    fs::remove_dir(&in_the_way).unwrap();
}

#[track_caller]
fn has_its_limits_but_devices(bundle: &Bundle) {
    for (property, want, files) in &LIMITS {
        let (controller, file, text) = files[usize::from(is_v2())];
        assert_eq!(shown(&unit(bundle), property), *want, "{property}");
        assert_eq!(value(bundle, controller, file), text, "{file}");
    }
}

#[test]
fn a_slice_of_slices() {
    systemd!();
    let _systemd = with_systemd();
    let mut bundle = Bundle::sleeping();
    let slice = format!("{}-deep.slice", bundle.id.replace('-', "_"));
    bundle.set("/linux/cgroupsPath", format!("{slice}:x:{}", bundle.id));
    create(&bundle);
    let above = bundle.id.replace('-', "_");
    let want = format!("/{above}.slice/{slice}/x-{}.scope", bundle.id);
    assert_eq!(shown(&format!("x-{}.scope", bundle.id), "ControlGroup"), want);
    bundle.delete_force().ok();
    goes(&format!("x-{}.scope", bundle.id));
    systemctl(&["stop", &slice, &format!("{above}.slice")]);
}

/// As kubelet has them for pods.
#[test]
fn a_slice_can_be_the_containers_own() {
    systemd!();
    let _systemd = with_systemd();
    let mut bundle = Bundle::sleeping();
    let slice = format!("{}.slice", bundle.id.replace('-', "_"));
    bundle.set("/linux/cgroupsPath", format!(":ignored:{slice}")).set("/linux/resources/pids/limit", 9);
    create(&bundle);
    assert_eq!(shown(&slice, "TasksMax"), "9");
    let init = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
    assert!(init.lines().all(|line| line.ends_with(&format!("/{slice}"))), "{init}");
    bundle.delete_force().ok();
    goes(&slice);
}

#[test]
fn without_a_path_the_unit_has_the_containers_name() {
    systemd!();
    need!(rrun); // others put their own name into it
    let _systemd = with_systemd();
    let mut bundle = Bundle::sleeping();
    bundle.unset("/linux/cgroupsPath");
    create(&bundle);
    assert_eq!(shown(&format!("rrun-{}.scope", bundle.id), "ActiveState"), "active");
    bundle.delete_force().ok();
    goes(&format!("rrun-{}.scope", bundle.id));
}

#[test]
fn a_create_that_fails_takes_the_unit_back() {
    systemd!();
    let _systemd = with_systemd();
    let mut bundle = in_unit(Bundle::sleeping());
    bundle.args(&["/missing"]);
    call(&bundle, &["create", &bundle.id]).error();
    goes(&unit(&bundle));
    bundle.leaves_nothing();
    // refused by the kernel, when the unit is there
    bundle.args(&["sleep", "1000"]).set("/linux/resources/cpu/cpus", "4000");
    call(&bundle, &["create", &bundle.id]).error();
    goes(&unit(&bundle));
    bundle.leaves_nothing();
}

/// Made by hand, as systemd keeps one that failed.
#[test]
fn a_unit_that_is_left_over_is_replaced() {
    systemd!();
    let _systemd = with_systemd();
    let bundle = in_unit(Bundle::sleeping());
    let unit = unit(&bundle);
    let status = Command::new("systemd-run")
        .args(["--scope", "--quiet", "--unit", &unit, "-p", "RuntimeMaxSec=1", "sleep", "100"])
        .status();
    assert!(!status.unwrap().success());
    assert_eq!(shown(&unit, "ActiveState"), "failed", "the unit that is to be replaced");
    create(&bundle);
    assert_eq!(shown(&unit, "ActiveState"), "active");
}

#[test]
fn a_unit_that_somebody_is_in_is_not() {
    systemd!();
    let _systemd = with_systemd();
    let bundle = in_unit(Bundle::sleeping());
    let unit = unit(&bundle);
    let mut other = Command::new("systemd-run");
    let mut other = other.args(["--scope", "--quiet", "--unit", &unit, "sleep", "100"]).spawn().unwrap();
    eventually_within(Duration::from_secs(5), || (shown(&unit, "ActiveState") == "active").then_some(())).unwrap();
    let inside = || !value(&bundle, if is_v2() { "" } else { "pids" }, "cgroup.procs").is_empty();
    eventually_within(Duration::from_secs(5), || inside().then_some(())).unwrap();
    call(&bundle, &["create", &bundle.id]).error();
    assert!(other.try_wait().unwrap().is_none(), "the process of another was ended");
    other.kill().unwrap();
    other.wait().unwrap();
    goes(&unit);
}

#[test]
fn an_empty_slice_of_the_host_stays() {
    systemd!();
    need!(rrun); // others make it theirs, and stop it
    let _systemd = with_systemd();
    let mut bundle = Bundle::sleeping();
    let slice = format!("{}.slice", bundle.id.replace('-', "_"));
    systemctl(&["start", &slice]);
    assert_eq!(shown(&slice, "ActiveState"), "active");
    bundle.set("/linux/cgroupsPath", format!(":ignored:{slice}"));
    call(&bundle, &["create", &bundle.id]).refused(&["linux.cgroupsPath: ", &slice, "another's"]);
    bundle.delete_force().ok();
    assert_eq!(shown(&slice, "ActiveState"), "active");
    systemctl(&["stop", &slice]);
    create(&bundle);
    bundle.delete_force().ok();
    goes(&slice);
}

// CVE-2024-3154: a pod's annotation had the host power off, or run a program
#[test]
fn an_annotation_sets_no_property_unless_root_has_listed_it() {
    systemd!();
    need!(rrun); // others take them from anybody
    let _systemd = with_systemd();
    const LIST: &str = "/etc/rrun/annotations";
    let mut bundle = in_unit(Bundle::sleeping());
    bundle.set("/annotations/org.systemd.property.TimeoutStopSec", "uint64 7");
    let refused = [
        "annotations.org.systemd.property.TimeoutStopSec: ",
        "root may permit it by a line org.systemd.property.TimeoutStopSec",
    ];
    call(&bundle, &["create", &bundle.id]).refused(&refused);
    bundle.leaves_nothing();
    fs::create_dir_all("/etc/rrun").unwrap();
    fs::write(LIST, "org.systemd.property.CollectMode\nTimeoutStopSec\n").unwrap();
    call(&bundle, &["create", &bundle.id]).refused(&refused);
    fs::write(LIST, "run.oci.x\norg.systemd.property.TimeoutStopSec\n").unwrap();
    Command::new("chmod").args(["666", LIST]).status().unwrap();
    call(&bundle, &["create", &bundle.id]).refused(&["must be a file that root owns and nobody else may write"]);
    Command::new("chmod").args(["644", LIST]).status().unwrap();
    create(&bundle);
    assert_eq!(shown(&unit(&bundle), "TimeoutStopUSec"), "7s");
    fs::remove_file(LIST).unwrap();
    bundle.delete_force().ok();
    // by files it means nothing
    bundle.set("/linux/cgroupsPath", format!("/{}", bundle.id));
    bundle.create().ok();
}

#[test]
fn bad_paths_and_values() {
    systemd!();
    let _systemd = with_systemd();
    for (path, says) in [
        (
            "/a/b",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
        ),
        ("a:b:c:d", "of format"),
        ("nosuch:x:c1", "slice"),
        ("a--b.slice:x:c1", "slice"),
    ] {
        let mut bundle = Bundle::sleeping();
        bundle.set("/linux/cgroupsPath", path);
        call(&bundle, &["create", &bundle.id]).refused(&[says]);
        bundle.leaves_nothing();
    }
}

#[test]
fn no_cgroup_at_all_where_the_caller_wants_none() {
    need!(rrun); // crun leaves limits out without a word
    let mut bundle = Bundle::sleeping();
    let call = |bundle: &Bundle| bundle.call(&["--cgroup-manager", "disabled", "run", "-d", &bundle.id]);
    bundle.set("/process/env/-", format!("{VARIABLE}={}", bundle.id)).set("/linux/cgroupsPath", "/not/made");
    bundle.set("/linux/resources/pids/limit", 7);
    call(&bundle).refused(&["linux.resources.pids.limit: needs a cgroup, and --cgroup-manager disabled makes none"]);
    bundle.unset("/linux/resources/pids");
    call(&bundle).ok();
    let own = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(own(bundle.pid()), own(std::process::id() as i32));
    assert_eq!(bundle.call(&["exec", &bundle.id, "echo", "hello"]).ok(), "hello\n");
    assert!(bundle.call(&["ps", &bundle.id]).ok().contains("sleep 1000"));
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    bundle.leaves_nothing();
}
