//! What is made and changed while rrun is killed: as much as takes system calls.

use serde_json::json;

use crate::bundle::Bundle;
use crate::cgroups::disk;
use crate::layout::is_v2;
use crate::need;
use crate::runtime::on_rrun;

/// Mounts, devices, every controller, a terminal, and whatever else takes system calls.
pub fn everything(bundle: &mut Bundle) {
    bundle.set("/process/terminal", true).set("/process/cwd", "/made/for/it").set("/process/oomScoreAdj", 100);
    bundle.set("/process/consoleSize", json!({"height": 30, "width": 90}));
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}]));
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    if need::namespace("time") {
        bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    }
    bundle.image_file("data/file", "x");
    bundle.host_file("shared/file", "x");
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid", "ro"]);
    bundle.mount("/shared", "none", "shared", &["rbind", "ro", "rprivate"]);
    bundle.mount("/etc/one", "none", "shared/file", &["bind", "nodev"]);
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["noexec"]);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid"]);
    bundle.set("/linux/devices", json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "uid": 7}]));
    bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware", "/home"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/proc/bus"]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let (major, minor) = disk();
    bundle.set(
        "/linux/resources",
        json!({
            "devices": [{"allow": false, "access": "rwm"}],
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
            "pids": {"limit": 50},
            "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 30}]},
        }),
    );
    if on_rrun() && need::hugetlb() {
        bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]));
    }
    bundle.set("/root/readonly", true);
}

pub fn update(id: &str) -> [&str; 10] {
    ["update", "--pids-limit", "60", "--memory", "80m", "--cpu-quota", "60000", "--cpu-share", "700", id]
}

/// What of it is looked at: controller, file, the value of `everything` and the one of `update`.
pub fn updated() -> [(&'static str, &'static str, &'static str, &'static str); 3] {
    let pids = ("pids", "pids.max", "50", "60");
    match is_v2() {
        true => {
            [pids, ("memory", "memory.max", "67108864", "83886080"), ("cpu", "cpu.max", "50000 100000", "60000 100000")]
        }
        false => [
            pids,
            ("memory", "memory.limit_in_bytes", "67108864", "83886080"),
            ("cpu", "cpu.cfs_quota_us", "50000", "60000"),
        ],
    }
}
