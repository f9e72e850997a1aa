//! Daemons with options of their own: that end and come back, map users, and are a swarm.

use std::time::Duration;

use crate::daemon::{Daemon, docker_with};
use crate::runtime::eventually_within;

#[track_caller]
fn becomes(daemon: &Daemon, line: &str, want: &str) {
    let asked = || Some(daemon.sh(line)).filter(|output| output.stdout == want);
    if eventually_within(Duration::from_secs(20), asked).is_none() {
        panic!("not {want:?}: {}", daemon.sh(line));
    }
}

/// The runtime is asked nothing meanwhile: the shims have the containers.
#[test]
fn containers_outlive_a_daemon_that_restores_them() {
    let daemon = docker_with("--live-restore");
    let sh = |line: &str| daemon.sh(line);
    for signal in ["TERM", "KILL"] {
        sh("docker run -d --name stays box sh -c 'while sleep 0.1; do date +%s.%N; done'").ok();
        sh("docker run -d --name ends box sh -c 'until test -e /tmp/end; do sleep 0.1; done; exit 5'").ok();
        let state = "docker inspect -f '{{.State.Status}} {{.State.Pid}} {{.RestartCount}}' stays";
        let before = sh(state).ok().to_string();
        let root = sh("docker inspect -f '{{.GraphDriver.Data.MergedDir}}' ends").ok().trim().to_string();
        daemon.goes_down(signal);
        sh(&format!("touch {root}/tmp/end")).ok();
        std::thread::sleep(Duration::from_millis(500));
        daemon.comes_back();
        assert_eq!(sh(state).ok(), before, "after SIG{signal}");
        becomes(&daemon, "docker inspect -f '{{.State.Status}} {{.State.ExitCode}}' ends", "exited 5\n");
        assert_eq!(sh("docker exec stays echo in").ok(), "in\n");
        let lines = sh("docker logs stays").stdout.lines().count();
        let goes_on = || (sh("docker logs stays").stdout.lines().count() > lines).then_some(());
        eventually_within(Duration::from_secs(10), goes_on).expect("its log ends with the daemon");
        sh("docker pause stays && docker unpause stays && docker restart -t 0 stays").ok();
        sh("docker rm -f stays ends").ok();
    }
}

/// One that does not, ends them when it comes back, and begins again what is to run always.
#[test]
fn a_daemon_that_was_killed_begins_again() {
    let daemon = docker_with("");
    daemon.sh("docker run -d --name once box sleep 1000").ok();
    daemon.sh("docker run -d --name always --restart always box sleep 1000").ok();
    daemon.goes_down("KILL");
    daemon.comes_back();
    becomes(&daemon, "docker inspect -f '{{.State.Status}}' once always", "exited\nrunning\n");
    assert_eq!(daemon.sh("docker exec always echo in").ok(), "in\n");
    daemon.sh("docker start once && docker rm -f once always").ok();
}

#[test]
fn users_are_mapped() {
    let daemon = docker_with("--userns-remap daemon");
    let prints = |line: &str, want: &str| {
        let output = daemon.sh(line);
        assert!(output.code == 0 && output.stdout == want, "{output}");
    };
    prints("docker run --rm box sh -c 'id -u; tr -s \" \" </proc/self/uid_map'", "0\n 0 100000 65536\n");
    prints("docker run --rm --userns host box sh -c 'tr -s \" \" </proc/self/uid_map'", " 0 0 4294967295\n");
    prints(
        "docker run --rm -u ann --read-only --tmpfs /t box sh -c 'id -u && touch /t/f && echo made'",
        "1000\nmade\n",
    );
    prints(
        "docker run --rm -v kept:/v box sh -c 'echo word > /v/f' && docker run --rm -v kept:/v box cat /v/f",
        "word\n",
    );
    daemon.sh("docker run -d --name mapped -m 64m --init box sleep 1000").ok();
    prints("docker exec mapped sh -c 'id -u; echo x > /made; stat -c %u /made'", "0\n0\n");
    prints("docker exec -u 1000 mapped id -u", "1000\n");
    prints("stat -c %u /proc/$(docker inspect -f '{{.State.Pid}}' mapped)", "100000\n");
    prints("docker run --rm --network container:mapped box sh -c 'ip -o link | grep -c LOOPBACK,UP'", "1\n");
    assert!(daemon.sh("docker top mapped").ok().contains("sleep 1000"));
    daemon.sh("docker pause mapped && docker unpause mapped && docker update -m 80m --memory-swap 80m mapped").ok();
    daemon.sh("docker rm -f mapped").ok();
}

/// Without a published port, which would need ip_vs.
#[test]
fn a_service_of_several_replicas() {
    let daemon = docker_with("");
    let sh = |line: &str| daemon.sh(line);
    sh("docker swarm init --advertise-addr 127.0.0.1").ok();
    sh("docker service create -d -q --name served --replicas 3 --endpoint-mode dnsrr --no-resolve-image --limit-memory 32m --limit-pids 20 box sleep 1000").ok();
    let replicas = "docker service ls --format '{{.Name}} {{.Replicas}}'";
    becomes(&daemon, replicas, "served 3/3\n");
    // one that is killed is replaced
    sh("docker kill $(docker ps -q | head -1)").ok();
    becomes(&daemon, "docker ps -aq | wc -l", "4\n");
    becomes(&daemon, replicas, "served 3/3\n");
    sh("docker service scale -d served=5").ok();
    becomes(&daemon, replicas, "served 5/5\n");
    sh("docker service rm served").ok();
    becomes(&daemon, "docker ps -aq | wc -l", "0\n");
    sh("docker swarm leave --force").ok();
}
