//! config.md, but for mount options and hooks.

use std::fs;

use serde_json::{Value, json};

use super::refused_beside;
use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::mounted::mount_at;
use crate::runtime::Output;

// --- version, root ---

refused! {
    fn a_version_is_required: |bundle| bundle.unset("/ociVersion");
    fn a_version_is_one_of_semver: |bundle| bundle.set("/ociVersion", "latest");
    fn a_root_is_required: |bundle| bundle.unset("/root");
    fn a_root_has_a_path: |bundle| bundle.unset("/root/path");
    fn the_root_is_there: |bundle| bundle.set("/root/path", "missing");
    fn the_root_is_a_directory: |bundle| { bundle.host_file("file", ""); bundle.set("/root/path", "file") };
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let mut bundle = Bundle::sh("echo x > /file || echo refused; echo y > /dev/file && echo its mounts can");
    bundle.set("/root/readonly", true);
    assert_eq!(bundle.run().stdout, "refused\nits mounts can\n");
    bundle.set("/root/readonly", false).args(&["sh", "-c", "echo x > /file && echo written"]);
    assert_eq!(bundle.run().ok(), "written\n");
}

// --- mounts ---

#[test]
fn mounts_are_made_in_their_order() {
    let mut bundle = Bundle::new();
    for (point, source) in [("/a", "1"), ("/a/b", "2"), ("/a", "3"), ("/a/c", "4")] {
        bundle.mount(point, "tmpfs", source, &[]);
    }
    let mounts = bundle.mounts();
    let made: Vec<_> = mounts.iter().filter(|m| m.point.starts_with("/a")).map(|m| m.source.as_str()).collect();
    assert_eq!(made, ["1", "2", "3", "4"]);
}

#[test]
fn a_mount_needs_a_destination() {
    let mount = |mount: Value| {
        move |bundle: &mut Bundle| {
            bundle.set("/mounts/4", mount);
        }
    };
    let with = json!({"destination": "/data", "type": "tmpfs", "source": "tmpfs"});
    refused_beside(
        |bundle| {
            bundle.set("/mounts/-", with);
        },
        mount(json!({"type": "tmpfs", "source": "tmpfs"})),
    );
}

#[test]
fn a_relative_destination_starts_at_the_root() {
    let mut bundle = Bundle::new();
    bundle.mount("da/ta", "tmpfs", "relative", &[]);
    assert_eq!(mount_at(&bundle.mounts(), "/da/ta").source, "relative");
}

/// A file of root's, seen at /data through ids that are others.
fn id_mapped(mut bundle: Bundle, words: &[&str]) -> Bundle {
    let dir = bundle.host_tmpfs("data", "mode=755");
    fs::write(dir.join("file"), "").unwrap();
    bundle.host_tmpfs("data/sub", "mode=755");
    fs::write(dir.join("sub/file"), "").unwrap();
    bundle.mount("/data", "none", dir.to_str().unwrap(), words);
    bundle.args(&["stat", "-c", "%u:%g", "/data/file", "/data/sub/file"]);
    bundle
}

fn map(field: &str, bundle: &mut Bundle) {
    bundle.set(&format!("/mounts/4/{field}"), json!([{"containerID": 0, "hostID": 7000, "size": 100}]));
}

#[test]
fn an_id_mapped_mount_shows_other_ids() {
    let mut bundle = id_mapped(Bundle::new(), &["rbind", "idmap"]);
    map("uidMappings", &mut bundle);
    map("gidMappings", &mut bundle);
    assert_eq!(bundle.run().ok(), "7000:7000\n0:0\n");
}

#[test]
fn a_recursively_id_mapped_mount_shows_other_ids_everywhere() {
    let mut bundle = id_mapped(Bundle::new(), &["rbind", "ridmap"]);
    map("uidMappings", &mut bundle);
    map("gidMappings", &mut bundle);
    assert_eq!(bundle.run().ok(), "7000:7000\n7000:7000\n");
}

/// What has no mapping of its own takes that of the container, or is refused.
#[track_caller]
fn takes_the_containers_mapping_or_none(word: &str) {
    let mut bundle = id_mapped(mapped(Bundle::new()), &["rbind", word]);
    fs::set_permissions(&bundle.dir, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = bundle.run();
    assert!(output.code != 0 || output.stdout.starts_with("0:0\n"), "{output}");
    bundle.set("/linux/uidMappings", json!([])).set("/linux/gidMappings", json!([]));
    bundle.without_namespace("user");
    let output = bundle.run();
    assert_ne!(output.code, 0, "without any mapping: {output}");
}

#[test]
fn an_id_mapped_mount_without_mappings() {
    takes_the_containers_mapping_or_none("idmap");
}

#[test]
fn a_recursively_id_mapped_mount_without_mappings() {
    takes_the_containers_mapping_or_none("ridmap");
}

#[test]
fn an_id_mapping_of_users_needs_one_of_groups() {
    let both = |bundle: &mut Bundle| {
        *bundle = id_mapped(Bundle::sleeping(), &["rbind", "idmap"]);
        bundle.args(&["sleep", "1000"]);
        map("uidMappings", bundle);
        map("gidMappings", bundle);
    };
    refused_beside(both, |bundle| {
        bundle.unset("/mounts/4/gidMappings");
    });
}

#[test]
fn an_id_mapping_of_groups_needs_one_of_users() {
    let both = |bundle: &mut Bundle| {
        *bundle = id_mapped(Bundle::sleeping(), &["rbind", "idmap"]);
        bundle.args(&["sleep", "1000"]);
        map("uidMappings", bundle);
        map("gidMappings", bundle);
    };
    refused_beside(both, |bundle| {
        bundle.unset("/mounts/4/uidMappings");
    });
}

// --- process ---

#[test]
fn without_a_terminal_its_size_does_not_matter() {
    let mut bundle = Bundle::sh("test -t 0 || echo no terminal");
    bundle.set("/process/terminal", false).set("/process/consoleSize", json!({"height": 10, "width": 20}));
    assert_eq!(bundle.run().ok(), "no terminal\n");
    bundle.unset("/process/terminal");
    assert_eq!(bundle.run().ok(), "no terminal\n");
}

/// With a terminal, which a manager takes.
#[track_caller]
fn console(size: Value) -> Output {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/terminal", true).set("/process/consoleSize", size);
    let path = bundle.dir.join("console");
    let _manager = std::os::unix::net::UnixListener::bind(&path).unwrap();
    bundle.call(&["create", "--console-socket", path.to_str().unwrap(), &bundle.id])
}

#[test]
fn a_console_has_a_height_and_a_width() {
    console(json!({"height": 10, "width": 20})).ok();
    for size in [json!({"height": 10}), json!({"width": 20})] {
        let output = console(size);
        assert_ne!(output.code, 0, "{output}");
    }
}

refused! {
    fn a_working_directory_is_required: |bundle| bundle.unset("/process/cwd");
    fn a_working_directory_is_absolute: |bundle| bundle.set("/process/cwd", "tmp");
    fn a_program_is_required: |bundle| bundle.args(&[]);
    fn a_uid_is_a_number: |bundle| bundle.set("/process/user/uid", "root");
    fn a_gid_is_a_number: |bundle| bundle.set("/process/user/gid", "root");
}

fn limit(kind: &str, soft: u64, hard: u64) -> Value {
    json!({"type": kind, "soft": soft, "hard": hard})
}

bad_values! {
    fn an_rlimit_has_a_type: "/process/rlimits", [limit("RLIMIT_NOFILE", 9, 9)] => [{"soft": 9, "hard": 9}];
    fn an_rlimit_has_both_limits: "/process/rlimits", [limit("RLIMIT_NOFILE", 9, 9)]
        => [{"type": "RLIMIT_NOFILE", "soft": 9}];
    fn an_rlimit_that_the_kernel_has_not:
        "/process/rlimits", [limit("RLIMIT_NOFILE", 9, 9)] => [limit("RLIMIT_FUN", 9, 9)];
    fn an_rlimit_twice: "/process/rlimits",
        [limit("RLIMIT_NOFILE", 9, 9), limit("RLIMIT_CORE", 8, 8)]
        => [limit("RLIMIT_NOFILE", 9, 9), limit("RLIMIT_NOFILE", 8, 8)];
    fn a_scheduler_has_a_policy:
        "/process/scheduler", {"policy": "SCHED_OTHER", "nice": 5} => {"nice": 5};
    fn a_scheduling_policy_that_the_kernel_has_not:
        "/process/scheduler", {"policy": "SCHED_OTHER", "nice": 5} => {"policy": "SCHED_FUN", "nice": 5};
    fn an_io_priority_has_a_class:
        "/process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 4} => {"priority": 4};
    fn an_io_priority_has_a_number:
        "/process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 4} => {"class": "IOPRIO_CLASS_BE"};
    fn an_io_priority_is_one_of_eight:
        "/process/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 4} => {"class": "IOPRIO_CLASS_BE", "priority": 8};
}

/// The lines of /proc/self/limits, by the words before the numbers.
fn limits(rlimits: Value) -> String {
    let mut bundle = Bundle::new();
    bundle.set("/process/rlimits", rlimits).args(&["cat", "/proc/self/limits"]);
    bundle.run().ok().split('\n').map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

/// Each that Linux has, with the words that procfs has for it.
const RLIMITS: [(&str, &str); 16] = [
    ("RLIMIT_CPU", "Max cpu time"),
    ("RLIMIT_FSIZE", "Max file size"),
    ("RLIMIT_DATA", "Max data size"),
    ("RLIMIT_STACK", "Max stack size"),
    ("RLIMIT_CORE", "Max core file size"),
    ("RLIMIT_RSS", "Max resident set"),
    ("RLIMIT_NPROC", "Max processes"),
    ("RLIMIT_NOFILE", "Max open files"),
    ("RLIMIT_MEMLOCK", "Max locked memory"),
    ("RLIMIT_AS", "Max address space"),
    ("RLIMIT_LOCKS", "Max file locks"),
    ("RLIMIT_SIGPENDING", "Max pending signals"),
    ("RLIMIT_MSGQUEUE", "Max msgqueue size"),
    ("RLIMIT_NICE", "Max nice priority"),
    ("RLIMIT_RTPRIO", "Max realtime priority"),
    ("RLIMIT_RTTIME", "Max realtime timeout"),
];

/// The hard limit of whoever runs this, which not everybody may raise.
fn present(words: &str) -> u64 {
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let values = own.lines().find_map(|line| line.strip_prefix(words)).unwrap();
    values.split_whitespace().nth(1).unwrap().parse().unwrap_or(u64::MAX)
}

/// Small enough for any host to grant, large enough for a program to run.
fn soft_and_hard(n: usize) -> (u64, u64) {
    let hard = match RLIMITS[n].0 {
        "RLIMIT_NOFILE" => 40,
        "RLIMIT_NICE" | "RLIMIT_RTPRIO" => 4,
        _ => (200 + n as u64) << 20,
    };
    let hard = hard.min(present(RLIMITS[n].1));
    (hard - hard / 4, hard)
}

#[test]
fn every_rlimit_is_what_it_was_told() {
    let all = || (0..RLIMITS.len()).map(|n| (RLIMITS[n], soft_and_hard(n)));
    let told = limits(all().map(|((kind, _), (soft, hard))| limit(kind, soft, hard)).collect());
    for ((_, words), (soft, hard)) in all() {
        let line = format!("{words} {soft} {hard}");
        assert!(told.contains(&line), "no {line:?} in {told}");
    }
}

#[test]
fn a_capability_that_is_unknown_is_a_warning() {
    let mut bundle = Bundle::new();
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}/-"), "CAP_FUN");
    }
    let output = bundle.call(&["--log", "log", "run", &bundle.id]);
    assert_eq!(output.code, 0, "{output}");
    let log = fs::read_to_string(bundle.dir.join("log")).unwrap_or_default();
    assert!((log + &output.stderr).contains("CAP_FUN"), "no warning: {output}");
}

/// As in a container: what is not in the caller's bounding set nobody can give.
fn with_less_capabilities() -> (Output, String) {
    let mut bundle = Bundle::new();
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_CHOWN", "CAP_SYS_PTRACE"]));
    }
    let run = bundle.command(&["--log", "log", "run", &bundle.id]);
    let mut restricted = std::process::Command::new("setpriv");
    restricted.args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]);
    restricted.arg(run.get_program()).args(run.get_args()).current_dir(&bundle.dir);
    restricted.env(crate::leftovers::VARIABLE, &bundle.id);
    let output = crate::runtime::run(&mut restricted);
    let log = fs::read_to_string(bundle.dir.join("log")).unwrap_or_default() + &output.stderr;
    (output, log)
}

#[test]
fn a_capability_that_cannot_be_granted_does_not_fail() {
    let (output, _) = with_less_capabilities();
    assert_eq!(output.code, 0, "{output}");
    assert!(output.stdout.contains("CapEff:\t0000000000000001"), "{output}");
}

#[test]
fn a_capability_that_cannot_be_granted_is_a_warning() {
    let (output, log) = with_less_capabilities();
    assert!(log.contains("CAP_SYS_PTRACE"), "no warning: {output}\n{log}");
    assert_eq!(output.code, 0, "{output}");
}

fn oom_score(score: Option<i32>, of_the_caller: i32) -> String {
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/self/oom_score_adj"]);
    if let Some(score) = score {
        bundle.set("/process/oomScoreAdj", score);
    }
    let run = bundle.command(&["run", &bundle.id]);
    let mut adjusted = std::process::Command::new("sh");
    adjusted.args(["-c", &format!("echo {of_the_caller} > /proc/self/oom_score_adj; exec \"$@\""), "sh"]);
    adjusted.arg(run.get_program()).args(run.get_args()).current_dir(&bundle.dir);
    adjusted.env(crate::leftovers::VARIABLE, &bundle.id);
    crate::runtime::run(&mut adjusted).ok().trim().to_string()
}

#[test]
fn an_oom_score_is_set() {
    assert_eq!(oom_score(Some(77), 11), "77");
}

#[test]
fn an_oom_score_that_is_not_set_is_the_callers() {
    assert_eq!(oom_score(None, 55), "55");
}

/// Processors of a process, by its /proc/PID/status.
fn processors(status: &str) -> &str {
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim()
}

#[test]
fn an_exec_keeps_the_affinity_that_its_cgroup_gives() {
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let last = processors(&own).rsplit([',', '-']).next().unwrap().to_string();
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/cpu/cpus", last.as_str()).set("/process/execCPUAffinity", json!({"initial": "0"}));
    bundle.run_detached().ok();
    let status = bundle.call(&["exec", &bundle.id, "cat", "/proc/self/status"]);
    assert_eq!(processors(status.ok()), last);
}

#[test]
fn uid_and_gid_are_those_of_the_config() {
    let mut bundle = Bundle::new();
    bundle.set("/process/user", json!({"uid": 1234, "gid": 5678}));
    let status = bundle.run().ok().to_string();
    assert!(status.contains("Uid:\t1234\t1234\t1234\t1234\n") && status.contains("Gid:\t5678\t5678\t5678\t5678\n"));
}

// --- annotations, extensibility, values ---

bad_values! {
    fn annotations_are_a_map: "/annotations", {"a.b": "c"} => ["a.b"];
    fn a_key_of_annotations_is_not_empty: "/annotations", {"a.b": "c"} => {"": "c"};
    fn a_value_of_annotations_is_a_string: "/annotations", {"a.b": "c"} => {"a.b": 7};
}

#[test]
fn unknown_annotations_change_nothing() {
    let mut bundle = Bundle::sh("echo ran");
    bundle.set("/annotations", json!({"com.example.unknown": "1", "org.opencontainers.unknown": "", "x": "y"}));
    assert_eq!(bundle.run().ok(), "ran\n");
}

#[test]
fn unknown_properties_change_nothing() {
    let mut bundle = Bundle::sh("echo ran");
    for place in ["", "/process", "/process/user", "/root", "/linux", "/linux/resources", "/mounts/0", "/hooks"] {
        bundle.set(&format!("{place}/unknownToAll"), json!({"a": [1, "b"]}));
    }
    bundle.set("/linux/namespaces/0/unknownToAll", json!(null));
    assert_eq!(bundle.run().code, 0);
    assert_eq!(bundle.run().stdout, "ran\n");
}

bad_values! {
    fn an_unknown_namespace: "/linux/namespaces/1", {"type": "cgroup"} => {"type": "space"};
    fn an_unknown_propagation: "/linux/rootfsPropagation", "private" => "everywhere";
    fn an_oom_score_out_of_range: "/process/oomScoreAdj", 1000 => 1001;
    fn a_soft_limit_above_the_hard_one:
        "/process/rlimits", [limit("RLIMIT_NOFILE", 9, 10)] => [limit("RLIMIT_NOFILE", 20, 10)];
    fn an_unknown_type_of_device: "/linux/devices", [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]
        => [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}];
    fn a_sysctl_of_the_whole_host: "/linux/sysctl", {"net.ipv4.ip_forward": "1"} => {"kernel.core_pattern": "x"};
    fn a_file_system_that_the_kernel_has_not: "/mounts/3",
        {"destination": "/data", "type": "tmpfs", "source": "x"} => {"destination": "/data", "type": "nosuchfs", "source": "x"};
    fn an_unknown_domain_of_personality: "/linux/personality", {"domain": "LINUX"} => {"domain": "LINUX16"};
}
