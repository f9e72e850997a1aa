//! containerd as Kubernetes uses it: pods of several containers, by the calls that a kubelet makes. Pods share the
//! daemon's network, since a network of their own is made by plugins, before a runtime is called.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::containerd;
use crate::runtime::{Call, Output, eventually_within};

fn ask(method: &str, request: &Value) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/managers/cri.py");
    let mut command: Command = containerd().command(&format!("{script} $DIR/containerd.sock {method}"));
    let mut asking = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut asking, request.to_string().as_bytes()).unwrap();
    std::io::Seek::rewind(&mut asking).unwrap();
    Call::with_stdin(&mut command, Stdio::from(asking)).wait()
}

#[track_caller]
fn call(method: &str, request: Value) -> Value {
    let output = ask(method, &request);
    assert_eq!(output.code, 0, "{method} {request}: {output}");
    serde_json::from_str(&output.stdout).unwrap()
}

struct Pod {
    id: String,
    config: Value,
    logs: PathBuf,
}

impl Pod {
    /// Its processes see each other if `pid` is POD.
    fn new(name: &str, pid: &str) -> Self {
        let dir = &containerd().dir;
        let logs = dir.join("logs").join(name);
        let config = json!({
            "metadata": {"name": name, "uid": name, "namespace": "default"},
            "logDirectory": logs,
            "linux": {
                "cgroupParent": format!("/{}/{name}", dir.file_name().unwrap().to_str().unwrap()),
                "securityContext": {"namespaceOptions": {"network": "NODE", "pid": pid}, "seccomp": {"profileType": "RuntimeDefault"}},
            },
        });
        let response = call("RunPodSandbox", json!({"config": config, "runtimeHandler": "rrun"}));
        Self { id: response["podSandboxId"].as_str().unwrap().into(), config, logs }
    }

    fn create(&self, name: &str, script: &str, mut linux: Value) -> Output {
        linux["securityContext"]["namespaceOptions"] =
            self.config["linux"]["securityContext"]["namespaceOptions"].clone();
        let config = json!({
            "metadata": {"name": name},
            "image": {"image": "docker.io/library/box:latest"},
            "command": if script.contains(' ') { vec!["sh", "-c", script] } else { vec![script] },
            "envs": [{"key": "WHO", "value": name}],
            "logPath": format!("{name}.log"),
            "linux": linux,
        });
        let request = json!({"podSandboxId": self.id, "config": config, "sandboxConfig": self.config});
        ask("CreateContainer", &request)
    }

    #[track_caller]
    fn start(&self, name: &str, script: &str, linux: Value) -> Container {
        let created = self.create(name, script, linux);
        assert_eq!(created.code, 0, "{created}");
        let response: Value = serde_json::from_str(&created.stdout).unwrap();
        let container = Container {
            id: response["containerId"].as_str().unwrap().into(),
            log: self.logs.join(format!("{name}.log")),
        };
        call("StartContainer", json!({"containerId": container.id}));
        container
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        ask("StopPodSandbox", &json!({"podSandboxId": self.id}));
        ask("RemovePodSandbox", &json!({"podSandboxId": self.id}));
    }
}

struct Container {
    id: String,
    log: PathBuf,
}

impl Container {
    fn exec(&self, script: &str) -> (String, i64) {
        let response = call("ExecSync", json!({"containerId": self.id, "cmd": ["sh", "-c", script], "timeout": 10}));
        let output =
            Command::new("base64").arg("-d").stdin(input(response["stdout"].as_str().unwrap())).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), response["exitCode"].as_i64().unwrap())
    }

    fn status(&self) -> Value {
        call("ContainerStatus", json!({"containerId": self.id}))["status"].take()
    }

    /// Waits for a line of the log as the interface has them: time, stream, whole or partial, text.
    #[track_caller]
    fn logs(&self, line: &str) {
        let has = || {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            log.lines().any(|entry| entry.split_once(' ').is_some_and(|(_, rest)| rest == line)).then_some(())
        };
        let log = || std::fs::read_to_string(&self.log);
        eventually_within(Duration::from_secs(10), has).unwrap_or_else(|| panic!("no {line:?} in {:?}", log()));
    }
}

fn input(text: &str) -> Stdio {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file.into()
}

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
