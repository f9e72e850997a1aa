//! Ranges of ids, granted to an ordinary user by /etc/subuid and /etc/subgid.

use serde_json::json;

use super::{Rootless, USER};
use crate::mapped::{give, mapping};
use crate::runtime::{self, Output};

/// The first of those that the user is granted.
const GRANTED: u32 = 300_000;

/// What the user may map, seen by him alone: in a mount namespace of the command's own.
fn granting(subuid: &str, then: &str) -> String {
    format!(
        "unshare -m sh -c '\
         printf \"root:x:0:0::/:/bin/sh\\nrttester:x:{USER}:{USER}::/:/bin/sh\\n\" > passwd && \
         printf \"{subuid}\" > sub && mount --bind passwd /etc/passwd && \
         mount --bind sub /etc/subuid && mount --bind sub /etc/subgid && {then} exec \"$@\"' sh \"$@\""
    )
}

fn with_ranges(script: &str) -> Rootless {
    let mut user = Rootless::sh(script);
    let ranges = json!([mapping(0, USER, 1), mapping(1, GRANTED, 1000)]);
    user.bundle.set("/linux/uidMappings", ranges.clone()).set("/linux/gidMappings", ranges);
    user.bundle.set("/process/user", json!({"uid": 5, "gid": 6}));
    if runtime::on_rrun() {
        // runc sets no groups for users at all
        user.bundle.set("/process/user/additionalGids", json!([7]));
    }
    user
}

fn run_granted(user: &Rootless, subuid: &str, then: &str) -> Output {
    let root = user.bundle.state_root.to_str().unwrap().to_string();
    runtime::run(&mut user.after(&granting(subuid, then), &["--root", &root], &["run", &user.bundle.id]))
}

#[test]
fn ranges_are_mapped_by_the_helpers() {
    need!(newuidmap);
    let user = with_ranges("id; cat /proc/self/uid_map | tr -s ' '; cat /proc/self/setgroups");
    let output = run_granted(&user, &format!("rttester:{GRANTED}:1000\\n"), "");
    let groups = if runtime::on_rrun() { " groups=7" } else { "" };
    assert_eq!(output.ok(), format!("uid=5 gid=6{groups}\n 0 {USER} 1\n 1 {GRANTED} 1000\nallow\n"));
    assert!(with_ranges("true").run().code != 0, "without a grant");
}

/// As a service of systemd with AmbientCapabilities=.
#[test]
fn a_user_with_rights_to_ids_needs_no_helper() {
    need!(rrun);
    let mut user = with_ranges("cat /proc/self/uid_map | tr -s ' '");
    give(&user.bundle.rootfs("/"), GRANTED);
    for map in ["/linux/uidMappings", "/linux/gidMappings"] {
        user.bundle.set(map, json!([mapping(0, GRANTED, 65_536)]));
    }
    let root = user.bundle.state_root.to_str().unwrap().to_string();
    let script = "user=\"$1 $2 $3 $4 $5 $6\"; shift 6; \
                  exec $user --inh-caps +setuid,+setgid --ambient-caps +setuid,+setgid \"$@\"";
    let output = runtime::run(&mut user.after(script, &["--root", &root], &["run", &user.bundle.id]));
    assert_eq!(output.ok(), format!(" 0 {GRANTED} 65536\n"));
}

#[test]
fn why_a_helper_refuses_is_told() {
    need!(newuidmap, rrun);
    let user = with_ranges("true");
    let refused = |subuid: &str, then: &str, words: &[&str]| {
        run_granted(&user, subuid, then).refused(words);
        user.bundle.leaves_nothing();
    };
    let granted = format!("rttester:{GRANTED}:1000\\n");
    refused(
        &format!("rttester:{GRANTED}:999\\n"),
        "",
        &["linux.uidMappings: newuidmap refuses 0 4242 1, 1 300000 1000: ", "see that /etc/subuid grants these ids"],
    );
    let copy = "mkdir -p plain && cp /usr/bin/newuidmap /usr/bin/newgidmap plain && chmod 755 plain plain/* && \
                PATH=$PWD/plain:$PATH";
    refused(
        &granted,
        copy,
        &["linux.uidMappings: newuidmap refuses", "plain/newuidmap has its setuid bit (chmod u+s)"],
    );
    let hide = "mkdir -p none && for f in /usr/bin/newuidmap; do mount --bind /dev/null $f; done &&";
    refused(&granted, hide, &["linux.uidMappings: newuidmap is not installed; install it (package uidmap"]);
}
