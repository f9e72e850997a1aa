//! Images: built by containers, and made of them.

use std::time::Duration;

use crate::daemon::docker;
use crate::runtime::eventually_within;

#[test]
fn build() {
    let dir = docker().dir.join("build");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("Dockerfile"),
        "FROM box\nRUN echo built > /f && echo bob:x:1234:1234::/w:/bin/sh >> /etc/passwd\nVOLUME /v\nUSER bob\nWORKDIR /w\nRUN id -u > /tmp/id\n\
         HEALTHCHECK --interval=0.5s CMD true\nCMD cat /f /tmp/id && pwd && test -d /v\n",
    )
    .unwrap();
    let output = docker().sh("DOCKER_BUILDKIT=0 docker build -t built $DIR/build");
    assert_eq!(output.code, 0, "{output}");
    let output = docker().sh("docker run --rm built");
    assert_eq!(output.ok(), "built\n1234\n/w\n");
    docker().sh("docker run -d --name checked built sleep 1000").ok();
    let health = || docker().sh("docker inspect -f '{{.State.Health.Status}}' checked").stdout;
    let is_well = || (health() == "healthy\n").then_some(());
    eventually_within(Duration::from_secs(10), is_well).unwrap_or_else(|| panic!("{}", health()));
    docker().sh("docker rm -f checked").ok();
    std::fs::write(dir.join("Dockerfile"), "FROM box\nRUN exit 3\n").unwrap();
    let output = docker().sh("DOCKER_BUILDKIT=0 docker build -q $DIR/build");
    assert!(output.code != 0 && output.stderr.contains("returned a non-zero code: 3"), "{output}");
}

/// Which starts the runtime by itself, without containerd. Debian's client needs no plugin for it.
#[test]
fn build_by_buildkit() {
    let dir = docker().dir.join("buildkit");
    std::fs::create_dir_all(&dir).unwrap();
    let steps = "FROM box\nRUN echo built > /f && id -u > /id\nUSER ann\nRUN id -u > /tmp/id\nCMD cat /f /id /tmp/id\n";
    std::fs::write(dir.join("Dockerfile"), steps).unwrap();
    let output =
        docker().sh("PATH=/usr/bin:$PATH DOCKER_BUILDKIT=1 docker build -t kit --progress plain $DIR/buildkit");
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(docker().sh("docker run --rm kit").ok(), "built\n0\n1000\n");
    std::fs::write(dir.join("Dockerfile"), "FROM box\nRUN echo said; exit 3\n").unwrap();
    let output = docker().sh("PATH=/usr/bin:$PATH DOCKER_BUILDKIT=1 docker build --progress plain $DIR/buildkit");
    assert!(output.code == 1 && output.stderr.contains("said") && output.stderr.contains("exit code: 3"), "{output}");
}

#[test]
fn commit_export_and_save() {
    let sh = |line: &str| docker().sh(line);
    sh("docker run --name source box sh -c 'echo kept > /kept'").ok();
    sh("docker commit source committed").ok();
    assert_eq!(sh("docker run --rm committed cat /kept").ok(), "kept\n");
    sh("docker export source | docker import - exported").ok();
    assert_eq!(sh("docker run --rm exported cat /kept").ok(), "kept\n");
    sh("docker save committed -o $DIR/saved.tar && docker rmi -f committed && docker load -i $DIR/saved.tar").ok();
    assert_eq!(sh("docker run --rm committed cat /kept").ok(), "kept\n");
    sh("docker rm source").ok();
}

#[test]
fn by_a_registry() {
    let sh = |line: &str| docker().sh(line);
    let settings = "version: 0.1\nstorage: {filesystem: {rootdirectory: DIR/registry}}\nhttp: {addr: 127.0.0.1:5000}\nlog: {level: error}\n";
    let settings = settings.replace("DIR", docker().dir.to_str().unwrap());
    std::fs::write(docker().dir.join("registry.yml"), settings).unwrap();
    // in the daemon's pid namespace, so it cannot outlive it
    let mut registry = docker().begin("exec docker-registry serve $DIR/registry.yml");
    let is_up = || (sh("exec 3<>/dev/tcp/127.0.0.1/5000").code == 0).then_some(());
    eventually_within(Duration::from_secs(10), is_up).expect("the registry does not answer");
    sh("docker tag box 127.0.0.1:5000/box:pushed && docker push -q 127.0.0.1:5000/box:pushed").ok();
    sh("docker rmi 127.0.0.1:5000/box:pushed").ok();
    let output = sh("docker run --rm 127.0.0.1:5000/box:pushed echo pulled");
    assert!(output.code == 0 && output.stdout == "pulled\n", "{output}");
    registry.child.kill().unwrap();
    registry.child.wait().unwrap();
}
