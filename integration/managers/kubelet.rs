//! A kubelet's calls to containerd, and pods made by them. Pods share the daemon's network, since a network of their own
//! is made by plugins, before a runtime is called.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::containerd;
use crate::runtime::{Call, Output, eventually_within};

pub fn ask(method: &str, request: &Value) -> Output {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/managers/cri.py");
    let mut command: Command = containerd().command(&format!("{script} $DIR/containerd.sock {method}"));
    let mut asking = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut asking, request.to_string().as_bytes()).unwrap();
    std::io::Seek::rewind(&mut asking).unwrap();
    Call::with_stdin(&mut command, Stdio::from(asking)).wait()
}

#[track_caller]
pub fn call(method: &str, request: Value) -> Value {
    let output = ask(method, &request);
    assert_eq!(output.code, 0, "{method} {request}: {output}");
    serde_json::from_str(&output.stdout).unwrap()
}

pub struct Pod {
    pub id: String,
    config: Value,
    logs: PathBuf,
}

impl Pod {
    /// Its processes see each other if `pid` is POD.
    pub fn new(name: &str, pid: &str) -> Self {
        Self::of_handler(name, pid, "rrun")
    }

    pub fn of_handler(name: &str, pid: &str, handler: &str) -> Self {
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
        let response = call("RunPodSandbox", json!({"config": config, "runtimeHandler": handler}));
        Self { id: response["podSandboxId"].as_str().unwrap().into(), config, logs }
    }

    pub fn create(&self, name: &str, script: &str, linux: Value) -> Output {
        self.create_with(name, script, json!({"linux": linux}))
    }

    /// `settings` are those of a container, beside what every one has.
    fn create_with(&self, name: &str, script: &str, mut settings: Value) -> Output {
        settings["linux"]["securityContext"]["namespaceOptions"] =
            self.config["linux"]["securityContext"]["namespaceOptions"].clone();
        settings["metadata"] = json!({"name": name});
        settings["image"] = json!({"image": "docker.io/library/box:latest"});
        settings["command"] = if script.contains(' ') { json!(["sh", "-c", script]) } else { json!([script]) };
        settings["envs"] = json!([{"key": "WHO", "value": name}]);
        settings["logPath"] = json!(format!("{name}.log"));
        let request = json!({"podSandboxId": self.id, "config": settings, "sandboxConfig": self.config});
        ask("CreateContainer", &request)
    }

    #[track_caller]
    pub fn start(&self, name: &str, script: &str, linux: Value) -> Container {
        self.start_with(name, script, json!({"linux": linux}))
    }

    #[track_caller]
    pub fn start_with(&self, name: &str, script: &str, settings: Value) -> Container {
        let created = self.create_with(name, script, settings);
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

pub struct Container {
    pub id: String,
    pub log: PathBuf,
}

impl Container {
    pub fn exec(&self, script: &str) -> (String, i64) {
        let response = call("ExecSync", json!({"containerId": self.id, "cmd": ["sh", "-c", script], "timeout": 10}));
        let output =
            Command::new("base64").arg("-d").stdin(input(response["stdout"].as_str().unwrap())).output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), response["exitCode"].as_i64().unwrap())
    }

    pub fn status(&self) -> Value {
        call("ContainerStatus", json!({"containerId": self.id}))["status"].take()
    }

    /// Waits for a line of the log as the interface has them: time, stream, whole or partial, text.
    #[track_caller]
    pub fn logs(&self, line: &str) {
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
