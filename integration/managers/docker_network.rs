//! Networks of dockerd: it sets them up by a hook of the container's.

use std::time::Duration;

use crate::daemon::docker;
use crate::runtime::eventually_within;

#[test]
fn containers_meet_on_a_network_and_a_port_is_published() {
    let sh = |line: &str| docker().sh(line);
    sh("docker network create meet").ok();
    sh("docker run -d --name web --net meet -p 127.0.0.1:8099:80 box httpd -f -p 80 -h /etc").ok();
    let fetch = |line: &str| {
        let fetched = eventually_within(Duration::from_secs(10), || Some(sh(line)).filter(|output| output.code == 0));
        assert!(fetched.is_some_and(|output| output.stdout.contains("root:x:0:")), "{line}: {}", sh(line));
    };
    fetch("docker run --rm --net meet box wget -qO- http://web/group");
    fetch("docker run --rm --net host box wget -qO- http://127.0.0.1:8099/group");
    sh("docker rm -f web && docker network rm meet").ok();
}

#[test]
fn without_a_network_only_the_loopback_is_there() {
    let output =
        docker().sh("docker run --rm --net none box sh -c 'ip -o link | wc -l; ip -o link | grep -c LOOPBACK,UP'");
    assert_eq!(output.ok(), "1\n1\n");
}
