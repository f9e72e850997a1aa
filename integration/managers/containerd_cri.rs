//! containerd as Kubernetes uses it: pods of several containers, by the calls that a kubelet makes.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kubelet::{Container, Pod, ask, call};
use crate::runtime::eventually_within;

#[test]
fn a_pod_of_two_containers() {
    let pod = Pod::new("two", "POD");
    assert_eq!(call("PodSandboxStatus", json!({"podSandboxId": pod.id}))["status"]["state"], "READY");
    let counts = "echo begun; echo aside >&2; i=0; while sleep 0.1; do i=$((i+1)); echo $i; done";
    let first = pod.start("first", counts, json!({}));
    let second = pod.start("second", "sleep 1000", json!({}));
    assert_eq!(first.status()["state"], "RUNNING");

    // what it says is there while it runs
    first.logs("stdout F begun");
    first.logs("stderr F aside");
    first.logs("stdout F 5");

    assert_eq!(first.exec("echo $WHO; exit 3"), ("first\n".into(), 3));
    assert_eq!(second.exec("echo $WHO"), ("second\n".into(), 0));
    let namespace = |container: &Container, kind: &str| container.exec(&format!("readlink /proc/self/ns/{kind}")).0;
    for (kind, is_shared) in [("ipc", true), ("uts", true), ("pid", true), ("net", true), ("mnt", false)] {
        assert_eq!(namespace(&first, kind) == namespace(&second, kind), is_shared, "{kind}");
    }
    let (processes, _) = second.exec("ps -o args");
    assert!(processes.contains("echo begun") && processes.contains("sleep 1000"), "{processes}");

    call("StopContainer", json!({"containerId": second.id, "timeout": 1}));
    let status = second.status();
    assert!(status["state"] == "EXITED" && status["exitCode"] == 143, "{status}");
    call("RemoveContainer", json!({"containerId": second.id}));
    assert_eq!(first.status()["state"], "RUNNING");
    call("StopPodSandbox", json!({"podSandboxId": pod.id}));
    assert_eq!(first.status()["state"], "EXITED");
}

#[test]
fn limits_and_security_of_a_container() {
    let pod = Pod::new("limits", "CONTAINER");
    let linux = json!({
        "resources": {"memoryLimitInBytes": 67108864, "cpuPeriod": 100000, "cpuQuota": 50000, "oomScoreAdj": 500},
        "securityContext": {
            "runAsUser": {"value": 1000}, "supplementalGroups": [55], "readonlyRootfs": true, "noNewPrivs": true,
            "capabilities": {"dropCapabilities": ["ALL"]}, "seccomp": {"profileType": "RuntimeDefault"},
            "maskedPaths": ["/proc/interrupts"], "readonlyPaths": ["/proc/sys"],
        },
    });
    let container = pod.start("held", "sleep 1000", linux);
    for (script, want) in [
        ("cat /sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
        ("cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
        ("cat /proc/1/oom_score_adj", "500\n"),
        ("id -u; id -G | grep -c 55", "1000\n1\n"),
        ("grep -E 'CapEff|NoNew|Seccomp:' /proc/1/status", "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n"),
        ("touch /x 2>&1", "touch: /x: Read-only file system\n"),
        ("stat -c %t:%T /proc/interrupts", "1:3\n"),
    ] {
        assert_eq!(container.exec(script).0, want, "{script}");
    }
    call(
        "UpdateContainerResources",
        json!({"containerId": container.id, "linux": {"memoryLimitInBytes": 100000000 / 4096 * 4096}}),
    );
    assert_eq!(container.exec("cat /sys/fs/cgroup/memory/memory.limit_in_bytes").0, "99999744\n");
    let stats = call("ContainerStats", json!({"containerId": container.id}));
    assert_ne!(stats["stats"]["memory"]["workingSetBytes"]["value"], "0", "{stats}");
}

#[test]
fn what_becomes_of_a_container_is_told() {
    let pod = Pod::new("told", "CONTAINER");
    let ends = |container: &Container| {
        let ended = || Some(container.status()).filter(|status| status["state"] == "EXITED");
        eventually_within(Duration::from_secs(15), ended).unwrap_or_else(|| panic!("{}", container.status()))
    };
    assert_eq!(ends(&pod.start("exits", "exit 7", json!({})))["exitCode"], 7);
    let little = json!({"resources": {"memoryLimitInBytes": 10485760}});
    let hungry = ends(&pod.start("hungry", "exec tail /dev/zero", little));
    assert!(hungry["exitCode"] == 137 && hungry["reason"] == "OOMKilled", "{hungry}");

    let created = pod.create("missing", "nosuch", json!({}));
    let response: Value = serde_json::from_str(&created.stdout).unwrap();
    let refused = ask("StartContainer", &json!({"containerId": response["containerId"]}));
    assert!(refused.code == 1 && refused.stderr.contains("executable file not found in $PATH"), "{refused}");
}

/// A kubelet's probe has a time limit; what it began then is gone, and the container is not.
#[test]
fn a_probe_that_takes_too_long() {
    let pod = Pod::new("probed", "CONTAINER");
    let container = pod.start("slow", "sleep 1000", json!({}));
    let request = json!({"containerId": container.id, "cmd": ["sleep", "333"], "timeout": 1});
    let late = ask("ExecSync", &request);
    assert!(late.code == 1 && late.stderr.contains("timeout 1s exceeded"), "{late}");
    let (processes, _) = container.exec("ps -o args");
    assert!(!processes.contains("333"), "{processes}");
    assert_eq!(container.status()["state"], "RUNNING");
}
