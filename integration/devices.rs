//! What stands in /dev, and what may be done with it.

use std::fs;
use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;
use crate::runtime;

#[test]
fn a_container_gets_the_default_devices_and_links() {
    let bundle = Bundle::sh(
        "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; \
         for l in fd stdin stdout stderr ptmx; do readlink $l; done",
    );
    let devices = [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)];
    let mut want: String =
        devices.map(|(name, minor)| format!("{name} character special file 1:{minor} 666\n")).concat();
    want += "tty character special file 5:0 666\n";
    want += "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    assert_eq!(bundle.run().ok(), want);
}

#[test]
fn the_default_devices_may_be_used() {
    let bundle = Bundle::sh(
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c && ls /dev/pts",
    );
    assert_eq!(bundle.run().ok(), "3\n3\nptmx\n");
}

#[test]
fn listed_devices_are_made_as_listed() {
    let mut bundle = Bundle::sh("cd /; stat -c '%n %F %t:%T %a %u:%g' dev/mem0 block pipe dev/sub/plain");
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/mem0", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/block", "type": "b", "major": 7, "minor": 77, "fileMode": 0o600},
            {"path": "/pipe", "type": "p", "fileMode": 0o622},
            {"path": "/dev/sub/plain", "type": "u", "major": 1, "minor": 5},
        ]),
    );
    let want = "dev/mem0 character special file 1:3 640 3:4\nblock block special file 7:4d 600 0:0\n\
        pipe fifo 0:0 622 0:0\ndev/sub/plain character special file 1:5 666 0:0\n";
    assert_eq!(bundle.run().ok(), want);
}

#[test]
fn a_listed_device_replaces_the_default_one() {
    let mut bundle = Bundle::sh("stat -c '%t:%T %a' /dev/full");
    bundle
        .set("/linux/devices", json!([{"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o606}]));
    assert_eq!(bundle.run().ok(), "1:7 606\n");
}

// spec: a file that stands there and is not that device is an error
#[test]
fn a_different_file_in_the_place_of_a_device_is_an_error() {
    need!(rrun);
    let mut bundle = Bundle::new();
    bundle.image_file("somewhere/node", "a file");
    bundle.set("/linux/devices", json!([{"path": "/somewhere/node", "type": "c", "major": 1, "minor": 3}]));
    bundle.create().refused(&["linux.devices[0]", "/somewhere/node"]);
    bundle.leaves_nothing();
}

#[test]
fn a_device_that_no_rule_allows_cannot_be_used() {
    let mut bundle = Bundle::sh(
        "head -c 1 /dev/kmsg0 >/dev/null 2>&1 || echo refused; \
         cat /dev/disk >/dev/null 2>&1 || echo refused; mknod /tmp/null c 1 3 && echo made",
    );
    bundle.set(
        "/linux/devices",
        json!([
            {"path": "/dev/kmsg0", "type": "c", "major": 1, "minor": 11},
            {"path": "/dev/disk", "type": "b", "major": 7, "minor": 0},
        ]),
    );
    let capabilities = json!(["CAP_MKNOD", "CAP_SYSLOG", "CAP_DAC_OVERRIDE"]);
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), capabilities.clone());
    }
    // runc and all managers count on it: making nodes is allowed, using them is not
    assert_eq!(bundle.run().ok(), "refused\nrefused\nmade\n");
}

#[test]
fn a_rule_allows_a_device() {
    let mut bundle = Bundle::sh("head -c 1 /dev/kmsg0 | wc -c; echo x 2>/dev/null > /dev/kmsg0 || echo 'no write'");
    bundle.set("/linux/devices", json!([{"path": "/dev/kmsg0", "type": "c", "major": 1, "minor": 11}]));
    bundle
        .set("/linux/resources/devices/-", json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}));
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}/-"), "CAP_SYSLOG");
    }
    assert_eq!(bundle.run().ok(), "1\nno write\n");
}

#[test]
fn a_later_rule_wins() {
    layout!(V1, Hybrid); // v2 has no list to read: see device_filter.rs
    let mut bundle = Bundle::sleeping();
    bundle.set(
        "/linux/resources/devices",
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "major": 7, "access": "r"},
            {"allow": false, "type": "c", "major": 10, "minor": 229, "access": "w"},
        ]),
    );
    bundle.create().ok();
    let list = fs::read_to_string(bundle.cgroup("devices").join("devices.list")).unwrap();
    let may = |device: &str, access: char| {
        let rule = list.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '));
        rule.is_some_and(|letters| letters.contains(access))
    };
    assert!(may("c 10:229", 'r') && !may("c 10:229", 'w') && may("b 7:*", 'r') && !may("b 7:*", 'w'), "{list}");
    for device in ["c 1:3", "c 1:5", "c 1:7", "c 1:8", "c 1:9", "c 5:0", "c 5:2", "c 136:*"] {
        assert!(may(device, 'r') && may(device, 'w'), "a default device, {device}, is not in {list}");
    }
    assert!(may("c *:*", 'm') && may("b *:*", 'm') && !list.contains("a *:*"), "{list}");
}

// a manager that binds the host's /dev wants it as it is
#[test]
fn nothing_is_made_in_a_bound_dev() {
    let mut bundle = Bundle::sh("ls /dev");
    let null = bundle.dir.join("dev/null");
    fs::create_dir(bundle.dir.join("dev")).unwrap();
    assert!(Command::new("mknod").arg(null).args(["c", "1", "3"]).status().unwrap().success());
    bundle.without_mount("/dev/pts").without_mount("/dev").mount("/dev", "none", "dev", &["bind"]);
    assert_eq!(bundle.run().ok(), "null\n");
}

#[test]
fn where_nodes_cannot_be_made_the_hosts_are_bound() {
    let bundle = Bundle::sh("stat -c '%F %t:%T' /dev/null; echo ok > /dev/null && head -c 3 /dev/zero | wc -c");
    let drop = ["--bounding-set", "-mknod", "--inh-caps", "-mknod"];
    let mut command = Command::new("setpriv");
    let call = bundle.command(&["run", &bundle.id]);
    command.args(drop).arg(call.get_program()).args(call.get_args()).current_dir(&bundle.dir);
    assert_eq!(runtime::run(&mut command).ok(), "character special file 1:3\n3\n");
}
