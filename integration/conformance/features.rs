//! features.md and features-linux.md: of a runtime that tells its features at all, for that is its own choice.

use std::process::Command;

use serde_json::{Value, json};

use super::refused_beside;
use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::runtime::{self, features};

/// A list of words, as `features` has it; `None` where it says nothing of them.
fn words(pointer: &str) -> Option<Vec<String>> {
    let list = features().pointer(pointer)?.as_array()?;
    Some(list.iter().map(|word| word.as_str().unwrap().to_string()).collect())
}

#[track_caller]
fn takes(bundle: &Bundle, what: &str) {
    let output = bundle.create();
    assert_eq!(output.code, 0, "{what}: {output}");
    bundle.delete_force().ok();
}

#[test]
fn they_are_those_of_the_program_and_not_of_the_host() {
    need!(features);
    let mut elsewhere = Command::new("unshare");
    let hide = "umount -R -l /sys/fs/cgroup; mount -t tmpfs none /sys; mount -t tmpfs none /proc/sys; exec \"$@\"";
    elsewhere.args(["--mount", "sh", "-c", hide, "sh"]).arg(runtime::path()).arg("features");
    let there: Value = serde_json::from_str(runtime::run(&mut elsewhere).ok()).unwrap();
    assert_eq!(there, *features());
}

#[test]
fn nothing_is_null_that_is_empty() {
    need!(features);
    for field in ["hooks", "mountOptions"] {
        assert!(features()[field].is_null() || features()[field].is_array(), "{field}");
    }
    for field in ["namespaces", "capabilities"] {
        assert!(features()["linux"][field].is_null() || features()["linux"][field].is_array(), "{field}");
    }
}

#[track_caller]
fn takes_the_version(field: &str) {
    let version = features()[field].as_str().expect("a version").to_string();
    let mut bundle = Bundle::sleeping();
    bundle.set("/ociVersion", version.as_str());
    takes(&bundle, &version);
}

#[test]
fn the_oldest_version_is_told_and_taken() {
    need!(features);
    takes_the_version("ociVersionMin");
}

#[test]
fn the_newest_version_is_told_and_taken() {
    need!(features);
    takes_the_version("ociVersionMax");
}

/// major, minor, patch; of one that is not released yet, those of the release that it becomes.
fn numbers(version: &str) -> Vec<u32> {
    let release = version.split(['-', '+']).next().unwrap();
    release.split('.').map(|number| number.parse().unwrap()).collect()
}

#[test]
fn the_newest_version_is_not_older_than_the_oldest() {
    need!(features);
    let of = |field: &str| numbers(features()[field].as_str().unwrap());
    assert!(of("ociVersionMax") >= of("ociVersionMin"));
}

/// The properties that features.md and features-linux.md define, by the version that brought them.
const DEFINED: [(&str, &[&str]); 2] = [
    (
        "",
        &[
            "ociVersionMin",
            "ociVersionMax",
            "hooks",
            "mountOptions",
            "linux",
            "annotations",
            "potentiallyUnsafeConfigAnnotations",
        ],
    ),
    (
        "/linux",
        &[
            "namespaces",
            "capabilities",
            "cgroup",
            "seccomp",
            "apparmor",
            "selinux",
            "intelRdt",
            "memoryPolicy",
            "mountExtensions",
            "netDevices",
        ],
    ),
];
const SINCE: [(&str, &str, [u32; 3]); 5] = [
    ("", "potentiallyUnsafeConfigAnnotations", [1, 1, 0]),
    ("/linux", "mountExtensions", [1, 2, 0]),
    ("/linux", "intelRdt", [1, 2, 0]),
    ("/linux", "netDevices", [1, 3, 0]),
    ("/linux", "memoryPolicy", [1, 3, 0]),
];

#[test]
fn there_is_nothing_that_the_version_does_not_define() {
    need!(features);
    let newest = numbers(features()["ociVersionMax"].as_str().unwrap());
    for (pointer, defined) in DEFINED {
        for name in features().pointer(pointer).unwrap().as_object().unwrap().keys() {
            assert!(defined.contains(&name.as_str()), "{pointer}/{name}");
            for (_, _, since) in SINCE.iter().filter(|(place, word, _)| *place == pointer && word == name) {
                assert!(newest >= since.to_vec(), "{name} is of {since:?}, and {newest:?} is the newest");
            }
        }
    }
}

#[test]
fn every_hook_that_is_listed_is_taken() {
    need!(features);
    let mut bundle = Bundle::sleeping();
    for kind in words("/hooks").unwrap_or_default() {
        bundle.set(&format!("/hooks/{kind}"), json!([{"path": "/bin/true"}]));
    }
    takes(&bundle, "hooks");
}

#[test]
fn every_mount_option_that_is_listed_is_taken() {
    need!(features);
    let mut bundle = Bundle::sleeping();
    let dir = bundle.host_file("dir/file", "").parent().unwrap().to_path_buf();
    for word in words("/mountOptions").unwrap_or_default() {
        let destination = format!("/m/{word}");
        match word.as_str() {
            // without something to change or to map they are an error
            "remount" | "idmap" | "ridmap" => continue,
            "bind" | "rbind" => bundle.mount(&destination, "none", dir.to_str().unwrap(), &[&word]),
            "copy-symlink" | "src-nofollow" | "dest-nofollow" => bundle.bind(&dir, &destination, &[&word]),
            recursive if recursive.starts_with('r') && !["ro", "rw", "relatime"].contains(&recursive) => {
                bundle.bind(&dir, &destination, &[recursive])
            }
            plain => bundle.mount(&destination, "tmpfs", "tmpfs", &[plain]),
        };
    }
    takes(&bundle, "mountOptions");
}

#[test]
fn no_option_of_a_file_system_is_listed() {
    need!(features);
    let listed = words("/mountOptions").unwrap_or_default();
    for data in ["size", "mode", "uid", "gid", "nr_inodes", "newinstance", "ptmxmode", "lowerdir", "upperdir"] {
        assert!(!listed.iter().any(|word| word == data), "{data}");
    }
}

#[test]
fn annotations_of_features_are_strings() {
    need!(features);
    let annotations = &features()["annotations"];
    let all_strings = |all: &serde_json::Map<String, Value>| all.iter().all(|(k, v)| !k.is_empty() && v.is_string());
    assert!(annotations.is_null() || annotations.as_object().is_some_and(all_strings), "{annotations}");
}

#[test]
fn every_namespace_that_is_listed_is_taken() {
    need!(features);
    for kind in words("/linux/namespaces").unwrap_or_default() {
        let mut bundle = Bundle::sleeping();
        if kind == "user" {
            bundle = mapped(bundle);
        } else {
            bundle.without_namespace(&kind).set("/linux/namespaces/-", json!({"type": kind}));
        }
        takes(&bundle, &kind);
    }
}

/// Known, whether or not they can be granted here: what is said of a name that nobody knows is said of none of them.
#[test]
fn every_capability_that_is_listed_is_known() {
    need!(features);
    let names = words("/linux/capabilities").unwrap_or_default();
    let mut bundle = Bundle::sleeping();
    let with_another = [&names[..], &["CAP_FUN".to_string()]].concat();
    bundle.set("/process/capabilities/bounding", json!(with_another));
    let output = bundle.call(&["--log", "log", "create", &bundle.id]);
    assert_eq!(output.code, 0, "{output}");
    let log = std::fs::read_to_string(bundle.dir.join("log")).unwrap_or_default() + &output.stderr;
    let of_unknown: Vec<_> = log.lines().filter(|line| line.contains("CAP_FUN")).collect();
    assert!(!of_unknown.is_empty(), "any name is taken");
    let said = |name: &&String| of_unknown.iter().any(|line| line.contains(name.as_str()));
    assert_eq!(names.iter().filter(said).collect::<Vec<_>>(), Vec::<&String>::new(), "{log}");
}

fn with_rule(bundle: &mut Bundle, rule: Value) {
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
}

#[test]
fn every_action_that_is_listed_is_taken() {
    need!(features);
    for action in words("/linux/seccomp/actions").unwrap_or_default() {
        let mut bundle = Bundle::sleeping();
        with_rule(&mut bundle, json!({"names": ["getpgid"], "action": action}));
        let _agent = std::os::unix::net::UnixListener::bind(bundle.dir.join("agent")).unwrap();
        if action == "SCMP_ACT_NOTIFY" {
            let path = bundle.dir.join("agent");
            bundle.set("/linux/seccomp/listenerPath", json!(path));
        }
        takes(&bundle, &action);
    }
}

#[test]
fn every_operator_that_is_listed_is_taken() {
    need!(features);
    for operator in words("/linux/seccomp/operators").unwrap_or_default() {
        let mut bundle = Bundle::sleeping();
        let args = json!([{"index": 0, "value": 12_345, "valueTwo": 5, "op": operator}]);
        with_rule(&mut bundle, json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO", "args": args}));
        takes(&bundle, &operator);
    }
}

/// Of an architecture that this machine is not it need not be able to make a filter, but it must know the word.
#[test]
fn every_architecture_that_is_listed_is_known() {
    need!(features);
    let told = |architecture: &str| {
        let mut bundle = Bundle::sleeping();
        with_rule(&mut bundle, json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}));
        bundle.set("/linux/seccomp/architectures", json!([architecture]));
        let output = bundle.create();
        (output.code != 0).then(|| output.stderr.replace(architecture, "").replace(&bundle.id, ""))
    };
    let without_time = |line: String| line.split("msg=").last().map(String::from);
    let unknown = told("SCMP_ARCH_FUN").and_then(without_time);
    assert!(unknown.is_some(), "any word is taken");
    for architecture in words("/linux/seccomp/archs").unwrap_or_default() {
        assert_ne!(told(&architecture).and_then(without_time), unknown, "{architecture}");
    }
}

/// Known ones need not be supported, but an unknown one is an error.
#[test]
fn every_flag_that_is_listed_as_supported_is_taken() {
    need!(features);
    for flag in words("/linux/seccomp/supportedFlags").unwrap_or_default() {
        let mut bundle = Bundle::sleeping();
        let mut profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": [flag],
            "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}]});
        let _agent = std::os::unix::net::UnixListener::bind(bundle.dir.join("agent")).unwrap();
        if flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" {
            profile["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY");
            profile["listenerPath"] = json!(bundle.dir.join("agent"));
        }
        bundle.set("/linux/seccomp", profile);
        takes(&bundle, &flag);
    }
}

#[test]
fn every_flag_that_is_listed_as_known_is_recognized() {
    need!(features);
    let known = words("/linux/seccomp/knownFlags").unwrap_or_default();
    let supported = words("/linux/seccomp/supportedFlags").unwrap_or_default();
    assert!(supported.iter().all(|flag| known.contains(flag)), "{supported:?} are more than {known:?}");
    let flags = |flags: Value| {
        move |bundle: &mut Bundle| {
            with_rule(bundle, json!({"names": ["getpgid"], "action": "SCMP_ACT_ERRNO"}));
            bundle.set("/linux/seccomp/flags", flags);
        }
    };
    refused_beside(flags(json!([])), flags(json!(["SECCOMP_FILTER_FLAG_FUN"])));
}

#[test]
fn every_memory_policy_that_is_listed_is_taken() {
    need!(features);
    for mode in words("/linux/memoryPolicy/modes").unwrap_or_default() {
        let mut bundle = Bundle::sleeping();
        let without = ["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str());
        bundle.set(
            "/linux/memoryPolicy",
            if without { json!({"mode": mode}) } else { json!({"mode": mode, "nodes": "0"}) },
        );
        takes(&bundle, &mode);
    }
}

#[test]
fn every_flag_of_memory_policies_that_is_listed_is_taken() {
    need!(features);
    for flag in words("/linux/memoryPolicy/flags").unwrap_or_default() {
        let mut bundle = Bundle::sleeping();
        bundle.set("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}));
        takes(&bundle, &flag);
    }
}

#[test]
fn id_mapped_mounts_are_told_if_mappings_are_read() {
    need!(features);
    let told = features().pointer("/linux/mountExtensions/idmap/enabled") == Some(&json!(true));
    let mut bundle = Bundle::sleeping();
    let dir = bundle.host_tmpfs("data", "rw");
    bundle.bind(&dir, "/data", &["idmap"]);
    for field in ["uidMappings", "gidMappings"] {
        bundle.set(&format!("/mounts/4/{field}"), json!([{"containerID": 0, "hostID": 7000, "size": 10}]));
    }
    assert_eq!(bundle.create().code == 0, told);
}
