//! dockerd and containerd where systemd owns the cgroups: each container is a scope, whose properties are its limits, and
//! AppArmor holds it. The daemon is configured by the block of docs/managers.md. `make managers` has all else that
//! managers do, on hosts without systemd.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::bundle::Bundle;
use crate::layout::is_v2;
use crate::runtime::{self, Call, Output, eventually_within, run, wait_within};

mod checkpoint;

/// A dockerd, and the containerd that it starts; for the whole run. The guest is thrown away with it.
struct Docker {
    dir: PathBuf,
}

fn docker() -> &'static Docker {
    static DOCKER: OnceLock<Docker> = OnceLock::new();
    DOCKER.get_or_init(|| {
        let dir = PathBuf::from("/tmp/docker-on-systemd");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("daemon.json"), documented()).unwrap();
        // on v2 it chooses so by itself
        let driver = if is_v2() { "" } else { "--exec-opt native.cgroupdriver=systemd" };
        let docker = Docker { dir };
        docker
            .sh(&format!(
                "systemd-run -q --unit docker-on-systemd dockerd --config-file $DIR/daemon.json --data-root $DIR/data \
             --exec-root $DIR/exec --pidfile $DIR/pid --host $DOCKER_HOST --bridge none --iptables=false \
             --ip6tables=false --experimental {driver}"
            ))
            .ok();
        let answered =
            eventually_within(Duration::from_secs(100), || (docker.sh("docker version").code == 0).then_some(()));
        let log = || run(Command::new("journalctl").args(["-q", "-u", "docker-on-systemd"])).stdout;
        answered.unwrap_or_else(|| panic!("dockerd does not answer: {}", log()));
        let image = Bundle::new();
        docker.sh(&format!("tar -C {} -c . | docker import - box", image.rootfs("/").display())).ok();
        docker
    })
}

/// What users are told to write into daemon.json.
fn documented() -> String {
    let page = include_str!("../docs/managers.md");
    let blocks = page.split("\n```json\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let block = blocks.into_iter().find(|block| block.contains("default-runtime")).expect("a block for daemon.json");
    block.replace("/usr/local/bin/rrun", runtime::path().to_str().unwrap())
}

impl Docker {
    /// A line of shell, as a user types it. In a guest that has to share its processor a container takes its time.
    fn sh(&self, line: &str) -> Output {
        let host = format!("unix://{}", self.dir.join("socket").display());
        let mut shell = Command::new("sh");
        let mut call = Call::new(shell.args(["-c", line]).env("DIR", &self.dir).env("DOCKER_HOST", host));
        wait_within(&mut call.child, Duration::from_secs(120));
        call.wait()
    }

    /// Of the container's scope, as systemd knows them: `MemoryMax=…` and so on, by name.
    fn properties(&self, scope: &str, names: &[&str]) -> Vec<String> {
        let names = names.iter().map(|name| format!("-p {name}")).collect::<Vec<_>>().join(" ");
        let mut shown: Vec<_> =
            self.sh(&format!("systemctl show {names} {scope}")).ok().lines().map(String::from).collect();
        shown.sort();
        shown
    }
}

/// A file of the scope in the hierarchy of a controller.
fn value(scope: &str, controller: &str, v1: &str, v2: &str) -> String {
    let top = crate::layout::mountpoint(controller);
    let path = top.join("system.slice").join(scope).join(if is_v2() { v2 } else { v1 });
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().into()
}

/// Limits as systemd says them, and as the kernel has them: the same after systemd has read its units again and written
/// all of their properties.
#[track_caller]
fn has_limits(docker: &Docker, scope: &str, bytes: u32, quota: (&str, u32), tasks: u32) {
    let memory = if is_v2() { "MemoryMax" } else { "MemoryLimit" };
    for moment in ["at first", "after daemon-reload"] {
        let shown = docker.properties(scope, &["ActiveState", "CPUQuotaPerSecUSec", "Delegate", memory, "TasksMax"]);
        let want = [
            "ActiveState=active".into(),
            format!("CPUQuotaPerSecUSec={}", quota.0),
            "Delegate=yes".into(),
            format!("{memory}={bytes}"),
            format!("TasksMax={tasks}"),
        ];
        assert_eq!(shown, want, "{moment}");
        assert_eq!(value(scope, "memory", "memory.limit_in_bytes", "memory.max"), bytes.to_string(), "{moment}");
        let cpu = value(scope, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert_eq!(cpu.split(' ').next().unwrap(), quota.1.to_string(), "{moment}");
        assert_eq!(value(scope, "pids", "pids.max", "pids.max"), tasks.to_string(), "{moment}");
        docker.sh("systemctl daemon-reload").ok();
    }
}

#[test]
fn limits_of_docker_are_properties_of_a_scope() {
    guest!();
    let docker = docker();
    assert_eq!(docker.sh("docker info -f '{{.CgroupDriver}} {{.DefaultRuntime}}'").ok(), "systemd rrun\n");
    let run = docker.sh("docker run -d --network none -m 64m --cpus 0.5 --pids-limit 50 box sleep 1000");
    let id = run.stdout.trim();
    assert!(run.code == 0 && id.len() == 64, "{run}");
    let scope = format!("docker-{id}.scope");
    has_limits(docker, &scope, 64 << 20, ("500ms", 50_000), 50);
    docker.sh(&format!("docker update -m 96m --memory-swap 96m --cpus 0.25 --pids-limit 77 {id}")).ok();
    has_limits(docker, &scope, 96 << 20, ("250ms", 25_000), 77);
    docker.sh(&format!("docker pause {id} && docker unpause {id} && docker exec {id} true")).ok();
    docker.sh(&format!("docker rm -f {id}")).ok();
    assert_eq!(
        docker.properties(&scope, &["ActiveState", "LoadState"]),
        ["ActiveState=inactive", "LoadState=not-found"]
    );
}

#[test]
fn the_default_profile_of_docker_holds() {
    guest!();
    let docker = docker();
    // the capability is there, and the profile says no
    let mount = "sh -c 'cat /proc/self/attr/current; mount -t tmpfs none /tmp && echo mounted'";
    let held = docker.sh(&format!("docker run --rm --network none --cap-add SYS_ADMIN box {mount}"));
    assert_eq!(held.stdout, "docker-default (enforce)\n", "{held}");
    assert!(held.code != 0 && held.stderr.contains("ermission denied"), "{held}");
    let options = "--network none --cap-add SYS_ADMIN --security-opt";
    let free = docker.sh(&format!("docker run --rm {options} apparmor=unconfined box {mount}"));
    assert_eq!(free.ok(), "unconfined\nmounted\n");
    let unknown = docker.sh(&format!("docker run --rm {options} apparmor=no-such-profile box true"));
    assert!(unknown.code == 125 && unknown.stderr.contains("no-such-profile"), "{unknown}");
}

/// By the option that `SystemdCgroup = true` of its configuration gives to the shim.
#[test]
fn limits_of_containerd_are_properties_of_a_scope() {
    guest!();
    let docker = docker();
    let ctr = "ctr --address $DIR/exec/containerd/containerd.sock";
    docker.sh(&format!("docker save box | {ctr} image import -")).ok();
    let runtime = runtime::path().display();
    docker
        .sh(&format!(
            "{ctr} run -d --runc-binary {runtime} --runc-systemd-cgroup --cgroup system.slice:ctr:one \
             --memory-limit 67108864 --cpus 0.5 docker.io/library/box:latest one sleep 1000"
        ))
        .ok();
    let scope = "ctr-one.scope";
    let names = ["ActiveState", "CPUQuotaPerSecUSec", if is_v2() { "MemoryMax" } else { "MemoryLimit" }];
    for moment in ["at first", "after daemon-reload"] {
        let shown = docker.properties(scope, &names);
        assert_eq!(shown[..2], ["ActiveState=active", "CPUQuotaPerSecUSec=500ms"], "{moment}");
        assert!(shown[2].ends_with("=67108864"), "{moment}: {shown:?}");
        assert_eq!(value(scope, "memory", "memory.limit_in_bytes", "memory.max"), "67108864", "{moment}");
        docker.sh("systemctl daemon-reload").ok();
    }
    assert_eq!(docker.sh(&format!("{ctr} task exec --exec-id e one echo in")).ok(), "in\n");
    docker.sh(&format!("{ctr} task pause one && {ctr} task resume one && {ctr} task kill -s 9 one")).ok();
    let ended = || (docker.sh(&format!("{ctr} task rm one")).code == 0).then_some(());
    eventually_within(Duration::from_secs(10), ended).expect("the task does not end");
    docker.sh(&format!("{ctr} container rm one")).ok();
    assert_eq!(docker.properties(scope, &["LoadState"]), ["LoadState=not-found"]);
    assert!(!Path::new("/sys/fs/cgroup/system.slice").join(scope).exists());
}
