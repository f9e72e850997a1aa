//! Images: built by containers, and made of them.

use crate::daemon::docker;

#[test]
fn build() {
    let dir = docker().dir.join("build");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(
        dir.join("Dockerfile"),
        "FROM box\nRUN echo built > /f && echo bob:x:1234:1234::/w:/bin/sh >> /etc/passwd\nVOLUME /v\nUSER bob\nWORKDIR /w\nRUN id -u > /tmp/id\n\
         HEALTHCHECK CMD true\nCMD cat /f /tmp/id && pwd && test -d /v\n",
    )
    .unwrap();
    let output = docker().sh("DOCKER_BUILDKIT=0 docker build -t built $DIR/build");
    assert_eq!(output.code, 0, "{output}");
    let output = docker().sh("docker run --rm built");
    assert_eq!(output.ok(), "built\n1234\n/w\n");
    std::fs::write(dir.join("Dockerfile"), "FROM box\nRUN exit 3\n").unwrap();
    let output = docker().sh("DOCKER_BUILDKIT=0 docker build -q $DIR/build");
    assert!(output.code != 0 && output.stderr.contains("returned a non-zero code: 3"), "{output}");
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
