//! What docs/managers.md tells a new user to type and to write: typed and written as it stands. The files that it gives
//! are those of the daemons, by daemon.sh.

use serde_json::json;

use crate::daemon::{Daemon, containerd, docker, podman};
use crate::kubelet::{Pod, ask};
use crate::runtime;

const PAGE: &str = include_str!("../../docs/managers.md");

/// Commands of the page that begin so, without `sudo` and remarks; the image is the one that there is. Those of checkpoint and
/// restore are about a container of the reader's: managers_on_systemd::checkpoint types them, where there is a CRIU.
fn commands(program: &str) -> Vec<String> {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix("    "));
    let typed = lines.map(|line| line.trim_start_matches("sudo ").split("     #").next().unwrap().to_string());
    let here = |line: String| {
        line.replace("/usr/local/bin/rrun", runtime::path().to_str().unwrap())
            .replace("docker.io/library/busybox", "docker.io/library/box")
            .replace(" busybox ", " box ")
    };
    let is_meant = |line: &String| {
        let of_images = line.contains("checkpoint") || line.contains(" restore ");
        line.starts_with(&format!("{program} ")) && !of_images
    };
    typed.filter(is_meant).map(here).collect()
}

#[track_caller]
fn typed(daemon: &Daemon, program: &str, at_least: usize) {
    let commands = commands(program);
    assert!(commands.len() >= at_least, "{commands:?}");
    for line in commands {
        let output = daemon.sh(&line);
        assert_eq!(output.code, 0, "{output}");
        if line.ends_with(" echo hello") {
            assert_eq!(output.stdout, "hello\n", "{output}");
        }
    }
}

#[test]
fn commands_of_docker() {
    typed(docker(), "docker", 3);
}

#[test]
fn commands_of_containerd() {
    typed(containerd(), "ctr", 1);
}

#[test]
fn commands_of_podman() {
    typed(podman(), "podman", 3);
}

/// The class names the handler, the pod names the class.
#[test]
fn a_runtime_class_names_the_handler() {
    let values = |key: &str| -> Vec<&str> { PAGE.lines().filter_map(|line| line.trim().strip_prefix(key)).collect() };
    let (handler, class, names) = (values("handler: "), values("runtimeClassName: "), values("name: "));
    assert_eq!((handler.len(), class.len(), names[0]), (1, 1, class[0]));
    let pod = Pod::of_handler("classy", "CONTAINER", handler[0]);
    assert_eq!(pod.start("one", "sleep 1000", json!({})).exec("echo in").0, "in\n");
    let config = json!({"metadata": {"name": "none", "uid": "none", "namespace": "default"}});
    let refused = ask("RunPodSandbox", &json!({"config": config, "runtimeHandler": "no-such-handler"}));
    assert!(refused.code == 1 && refused.stderr.contains("no-such-handler"), "{refused}");
}
