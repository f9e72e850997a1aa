//! Limits of `docker run` and `docker update`, as the container's cgroup has them.

use crate::daemon::docker;
use crate::runtime::Output;

fn run(words: &str) -> Output {
    docker().sh(&format!("docker run --rm {words}"))
}

#[test]
fn limits_are_in_the_cgroup() {
    for (options, file, want) in [
        ("-m 64m", "memory/memory.limit_in_bytes", "67108864"),
        ("-m 64m --memory-swap 128m", "memory/memory.memsw.limit_in_bytes", "134217728"),
        ("--memory-reservation 32m", "memory/memory.soft_limit_in_bytes", "33554432"),
        ("--cpus 0.5", "cpu/cpu.cfs_quota_us", "50000"),
        ("--cpu-shares 512", "cpu/cpu.shares", "512"),
        ("--cpuset-cpus 0", "cpuset/cpuset.cpus", "0"),
        ("--pids-limit 50", "pids/pids.max", "50"),
        ("--blkio-weight 300", "blkio/blkio.bfq.weight", "300"),
    ] {
        let output = run(&format!("{options} box cat /sys/fs/cgroup/{file}"));
        // a weight needs a scheduler that this kernel may lack; then docker says so, and drops it
        let lacking = options.contains("blkio") && output.stderr.contains("does not support");
        assert!(lacking || output.stdout.trim() == want, "{options}: {output}");
    }
}

#[test]
fn disks_are_throttled() {
    let found =
        "for disk in /sys/block/*; do [ -b /dev/${disk##*/} ] && echo ${disk##*/} $(cat $disk/dev) && break; done";
    let found = docker().sh(found).stdout;
    let Some((disk, numbers)) = found.trim().split_once(' ') else { return crate::need::skip("a disk in /dev") };
    let options = [("read-bps", "1mb"), ("write-bps", "2mb"), ("read-iops", "300"), ("write-iops", "400")];
    let options = options.map(|(what, rate)| format!("--device-{what} /dev/{disk}:{rate} ")).concat();
    let files = "read_bps_device write_bps_device read_iops_device write_iops_device";
    let output = run(&format!(
        "{options} box sh -c 'cd /sys/fs/cgroup/blkio; for f in {files}; do cat blkio.throttle.$f; done'"
    ));
    let want = ["1048576", "2097152", "300", "400"].map(|rate| format!("{numbers} {rate}\n")).concat();
    assert_eq!(output.ok(), want);
}

#[test]
fn want_of_memory_is_reported() {
    // dockerd hears of the kill and of the end by two ways, and now and then of the end first
    let told = || {
        let output = docker().sh("docker run --name hungry -m 10m --memory-swap 10m box tail /dev/zero");
        assert_eq!(output.code, 137, "{output}");
        docker()
            .sh("docker inspect -f '{{.State.OOMKilled}} {{.State.ExitCode}}' hungry; docker rm hungry")
            .ok()
            .to_string()
    };
    assert!((0..4).any(|_| told() == "true 137\nhungry\n"), "not told in four tries");
}

#[test]
fn update_changes_a_running_container() {
    docker().sh("docker run -d --name changed -m 64m --memory-swap 64m box sleep 1000").ok();
    docker().sh("docker update -m 100m --memory-swap 100m --cpus 0.25 --pids-limit 77 changed").ok();
    for (file, want) in
        [("memory/memory.limit_in_bytes", "104857600"), ("cpu/cpu.cfs_quota_us", "25000"), ("pids/pids.max", "77")]
    {
        let output = docker().sh(&format!("docker exec changed cat /sys/fs/cgroup/{file}"));
        assert_eq!(output.ok().trim(), want, "{file}");
    }
    docker().sh("docker rm -f changed").ok();
}
