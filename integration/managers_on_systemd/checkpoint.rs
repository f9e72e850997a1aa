//! Containers that docker, containerd and podman checkpoint with criu, and restore: what ran goes on where it was, with the
//! streams, the terminal and the limits that its manager gives it. `make vm-test TESTS=managers_on_systemd::checkpoint`.

use std::sync::OnceLock;
use std::time::Duration;

use super::{Docker, docker};
use crate::bundle::Bundle;
use crate::runtime::{self, eventually_within};

/// Counts, beside a word that a program begun anew would not know. It says so to its output, and in a file of /dev: a
/// checkpoint has what is in a tmpfs, and criu would not restore a file of the image that has changed its size.
const COUNT: &str = "sh -c 'word=$(cat /proc/sys/kernel/random/uuid); n=0; while :; do n=$((n+1)); \
    echo $word $n; echo $word $n >/dev/count; sleep 0.1; done'";

#[derive(Debug, Clone, PartialEq)]
struct Count {
    word: String,
    number: u32,
}

/// What `line` prints of it last.
fn count(docker: &Docker, line: &str) -> Count {
    let parsed = || {
        let output = docker.sh(line);
        let (word, number) = output.stdout.lines().last()?.trim().split_once(' ')?;
        Some(Count { word: word.into(), number: number.parse().ok()? })
    };
    eventually_within(Duration::from_secs(30), parsed).unwrap_or_else(|| panic!("{}", docker.sh(line)))
}

/// The same program, further on than it was.
#[track_caller]
fn goes_on(docker: &Docker, line: &str, before: &Count) -> Count {
    let is_later = || Some(count(docker, line)).filter(|now| now.number > before.number + 2);
    let now = eventually_within(Duration::from_secs(30), is_later);
    let now = now.unwrap_or_else(|| panic!("{line}: no more than {before:?}: {:?}", count(docker, line)));
    assert_eq!(now.word, before.word, "{line}: another program");
    now
}

/// Docker stumbles over its own copy of the images until containerd has collected it.
#[track_caller]
fn begins_from(docker: &Docker, checkpoint: &str, name: &str) {
    let start = || docker.sh(&format!("docker start --checkpoint {checkpoint} {name}"));
    let tried = || Some(start()).filter(|started| !started.stderr.contains("already exists"));
    eventually_within(Duration::from_secs(30), tried).expect("docker has images that it says it has").ok();
}

#[test]
fn docker_goes_on_from_a_checkpoint() {
    guest!();
    let docker = docker();
    let run = docker.sh(&format!("docker run -d --name counts --network none -m 64m box {COUNT}"));
    let scope = format!("docker-{}.scope", run.ok().trim());
    let (file, output) = ("docker exec counts cat /dev/count", "docker logs --tail 1 counts");
    let first = count(docker, file);
    docker.sh("docker checkpoint create --leave-running counts first").ok();
    let second = goes_on(docker, file, &first);
    docker.sh("docker checkpoint create counts second").ok();
    assert_eq!(docker.sh("docker inspect -f '{{.State.Status}}' counts").ok(), "exited\n");
    assert_eq!(docker.properties(&scope, &["LoadState"]), ["LoadState=not-found"]);
    assert_eq!(docker.sh("docker checkpoint ls counts").ok(), "CHECKPOINT NAME\nfirst\nsecond\n");
    for (name, before) in [("second", second), ("first", first)] {
        begins_from(docker, name, "counts");
        let now = goes_on(docker, file, &before);
        goes_on(docker, output, &now);
        let memory = if crate::layout::is_v2() { "MemoryMax" } else { "MemoryLimit" };
        assert_eq!(docker.properties(&scope, &[memory]), [format!("{memory}=67108864")]);
        docker.sh("docker kill counts && docker wait counts").ok();
    }
    docker.sh("docker rm counts").ok();
}

#[test]
fn a_terminal_of_docker_is_restored() {
    guest!();
    let docker = docker();
    docker.sh(&format!("docker run -dt --name shown --network none box {COUNT}")).ok();
    let output = "docker logs --tail 1 shown";
    let before = count(docker, output);
    docker.sh("docker checkpoint create shown one").ok();
    begins_from(docker, "one", "shown");
    goes_on(docker, output, &before);
    assert_eq!(docker.sh("docker exec shown readlink /proc/1/fd/2").ok(), "/dev/pts/0\n");
    docker.sh("docker rm -f shown").ok();
}

/// It pauses the container itself, and restores it by another name: another bundle, another cgroup.
#[test]
fn containerd_goes_on_from_a_checkpoint() {
    guest!();
    // its cgroup is one of files at the top, which systemd takes away on v1
    layout!(V2);
    let docker = docker();
    let ctr = "ctr --address $DIR/exec/containerd/containerd.sock";
    docker.sh(&format!("docker save box | {ctr} image import -")).ok();
    let runtime = runtime::path().display();
    let image = "docker.io/library/box:latest";
    docker.sh(&format!("{ctr} run -d --runc-binary {runtime} --env PATH=/bin {image} before {COUNT}")).ok();
    let file = |name: &str| format!("{ctr} task exec --exec-id e$(date +%N) {name} sh -c 'cat /dev/count; sleep 0.5'");
    let first = count(docker, &file("before"));
    docker.sh(&format!("mkdir -p $DIR/images && {ctr} task checkpoint --image-path $DIR/images before")).ok();
    assert!(docker.dir.join("images/inventory.img").exists());
    let second = goes_on(docker, &file("before"), &first);
    docker.sh(&format!("{ctr} container checkpoint --rw --image --task before saved")).ok();
    goes_on(docker, &file("before"), &second);
    docker.sh(&format!("{ctr} task kill -s 9 before")).ok();
    let removed = || (docker.sh(&format!("{ctr} task rm before")).code == 0).then_some(());
    eventually_within(Duration::from_secs(10), removed).expect("the task does not end");
    docker.sh(&format!("{ctr} container rm before && {ctr} container restore --live --rw after saved")).ok();
    goes_on(docker, &file("after"), &second);
    docker.sh(&format!("{ctr} task kill -s 9 after")).ok();
    let removed = || (docker.sh(&format!("{ctr} task rm after")).code == 0).then_some(());
    eventually_within(Duration::from_secs(10), removed).expect("the task does not end");
    docker.sh(&format!("{ctr} container rm after")).ok();
}

/// The command, with this runtime and an image.
fn podman() -> &'static str {
    static PODMAN: OnceLock<String> = OnceLock::new();
    PODMAN.get_or_init(|| {
        let podman = format!("podman --runtime {}", runtime::path().display());
        let image = Bundle::new();
        docker().sh(&format!("tar -C {} -c . | {podman} import -q - box", image.rootfs("/").display())).ok();
        podman
    })
}

#[test]
fn podman_goes_on_from_a_checkpoint() {
    guest!();
    let (docker, podman) = (docker(), podman());
    let container = format!("{podman} container");
    docker.sh(&format!("{podman} run -d --name kept --network none box {COUNT}")).ok();
    let (file, output) = (format!("{podman} exec kept cat /dev/count"), format!("{podman} logs --tail 1 kept"));
    let restored = |before: &Count, options: &str| {
        assert_ne!(docker.sh(&format!("{container} inspect -f '{{{{.State.Status}}}}' kept")).stdout, "running\n");
        docker.sh(&format!("{container} restore {options}")).ok();
        let now = goes_on(docker, &file, before);
        goes_on(docker, &output, &now)
    };
    let first = count(docker, &file);
    docker.sh(&format!("{container} checkpoint kept")).ok();
    let second = restored(&first, "kept");
    docker.sh(&format!("{container} checkpoint --leave-running kept")).ok();
    let third = goes_on(docker, &file, &second);
    // memory first while it runs, and then what has changed since
    docker.sh(&format!("{container} checkpoint --pre-checkpoint kept")).ok();
    let fourth = goes_on(docker, &file, &third);
    docker.sh(&format!("{container} checkpoint --with-previous kept")).ok();
    let fifth = restored(&fourth, "kept");
    // into an archive, and by it as if it were on another machine
    docker.sh(&format!("{container} checkpoint --export $DIR/kept.tar kept && {podman} rm kept")).ok();
    restored(&fifth, "--import $DIR/kept.tar");
    docker.sh(&format!("{podman} rm -f -t 0 kept")).ok();
}

#[test]
fn a_terminal_of_podman_is_restored() {
    guest!();
    let (docker, podman) = (docker(), podman());
    docker.sh(&format!("{podman} run -dt --name seen --network none box {COUNT}")).ok();
    let output = format!("{podman} logs --tail 1 seen");
    let before = count(docker, &output);
    docker.sh(&format!("{podman} container checkpoint seen && {podman} container restore seen")).ok();
    goes_on(docker, &output, &before);
    assert_eq!(docker.sh(&format!("{podman} exec seen readlink /proc/1/fd/2")).ok(), "/dev/pts/0\n");
    docker.sh(&format!("{podman} rm -f -t 0 seen")).ok();
}

/// Without the option criu refuses, and the container runs on as if nobody had asked.
#[test]
fn a_connection_lasts_where_podman_says_so() {
    guest!();
    let (docker, podman) = (docker(), podman());
    let script = "busybox nc -ll -p 7777 -e cat & until grep -q :1E61 /proc/net/tcp*; do sleep 0.1; done; \
        word=$(cat /proc/sys/kernel/random/uuid); n=0; \
        while :; do n=$((n+1)); echo $word $n; sleep 0.1; done | busybox nc 127.0.0.1 7777 >/dev/count";
    // runc does not set up the loopback of a namespace that it makes anew
    let network = "--network ns:/run/netns/talks";
    docker.sh("ip netns add talks && ip -n talks link set lo up").ok();
    docker.sh(&format!("{podman} run -d --name talks {network} box sh -c '{script}'")).ok();
    let answered = format!("{podman} exec talks tail -n 1 /dev/count");
    let first = count(docker, &answered);
    let refused = docker.sh(&format!("{podman} container checkpoint talks"));
    assert!(refused.code != 0 && refused.stderr.contains("dump.log"), "{refused}");
    let second = goes_on(docker, &answered, &first);
    docker.sh(&format!("{podman} container checkpoint --tcp-established talks")).ok();
    docker.sh(&format!("{podman} container restore --tcp-established talks")).ok();
    goes_on(docker, &answered, &second);
    docker.sh(&format!("{podman} rm -f -t 0 talks && ip netns delete talks")).ok();
}
