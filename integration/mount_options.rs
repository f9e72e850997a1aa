//! The words of a mount: each one does what mount(8) says of it.

use std::fs;

use nix::mount::MsFlags;
use serde_json::json;

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::mounted::{Mounted, mount_at};
use crate::runtime::{features, on_rrun};

/// What each mount of a list of tmpfs shows, by the words it was given.
fn tmpfs_with(words: &[&[&str]]) -> Vec<Mounted> {
    let mut bundle = Bundle::new();
    for (n, words) in words.iter().enumerate() {
        bundle.mount(&format!("/m/{n}"), "tmpfs", "tmpfs", words);
    }
    let mut mounts = bundle.mounts();
    mounts.retain(|mount| mount.point.starts_with("/m/"));
    assert_eq!(mounts.len(), words.len());
    mounts
}

/// words → options that are there, options that are not
type Case = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

#[track_caller]
fn check(cases: &[Case]) {
    check_by(cases, Mounted::has);
}

#[track_caller]
fn check_filesystem(cases: &[Case]) {
    check_by(cases, Mounted::filesystem_has);
}

#[track_caller]
fn check_by(cases: &[Case], has: fn(&Mounted, &str) -> bool) {
    let words: Vec<_> = cases.iter().map(|(words, ..)| *words).collect();
    for (mount, (words, present, absent)) in tmpfs_with(&words).iter().zip(cases) {
        present.iter().for_each(|option| assert!(has(mount, option), "{words:?} lacks {option}: {mount:?}"));
        absent.iter().for_each(|option| assert!(!has(mount, option), "{words:?} has {option}: {mount:?}"));
    }
}

#[test]
fn words_of_one_mount() {
    check(&[
        (&[], &["rw", "relatime"], &["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"]),
        (&["ro"], &["ro"], &["rw"]),
        (&["nosuid"], &["nosuid"], &["nodev", "noexec"]),
        (&["nodev"], &["nodev"], &["nosuid", "noexec"]),
        (&["noexec"], &["noexec"], &["nosuid", "nodev"]),
        (&["noatime"], &["noatime"], &["relatime"]),
        (&["nodiratime"], &["nodiratime", "relatime"], &["noatime"]),
        (&["relatime"], &["relatime"], &["noatime"]),
        (&["strictatime"], &[], &["relatime", "noatime"]),
        (&["nosuid", "nodev", "noexec", "ro"], &["nosuid", "nodev", "noexec", "ro"], &[]),
    ]);
}

#[test]
fn a_later_word_wins() {
    check(&[
        (&["ro", "rw"], &["rw"], &["ro"]),
        (&["rw", "ro"], &["ro"], &["rw"]),
        (&["nosuid", "suid", "nodev", "dev", "noexec", "exec"], &["rw"], &["nosuid", "nodev", "noexec"]),
        (&["suid", "nosuid"], &["nosuid"], &[]),
        (&["noatime", "strictatime"], &[], &["noatime", "relatime"]),
        (&["nodiratime", "diratime"], &[], &["nodiratime"]),
    ]);
}

#[test]
fn words_of_the_file_system() {
    check_filesystem(&[
        (&["sync"], &["sync"], &["dirsync"]),
        (&["dirsync"], &["dirsync"], &["sync"]),
        (&["sync", "async"], &[], &["sync"]),
    ]);
    need!(mount_option("lazytime"));
    check_filesystem(&[(&["lazytime"], &["lazytime"], &[]), (&["lazytime", "nolazytime"], &[], &["lazytime"])]);
}

// runc hands it on as data, which tmpfs refuses
#[test]
fn defaults_says_nothing() {
    need!(rrun);
    check(&[(&["defaults"], &["rw", "relatime"], &["ro", "nosuid"]), (&["defaults", "ro"], &["ro"], &["rw"])]);
    let mut bundle = Bundle::new();
    let file = bundle.host_file("file", "");
    bundle.bind(&file, "/file", &["defaults", "ro"]);
    assert!(mount_at(&bundle.mounts(), "/file").has("ro"));
}

#[test]
fn nosymfollow_is_a_word() {
    need!(mount_option("nosymfollow"));
    check(&[(&["nosymfollow"], &["nosymfollow"], &[]), (&["nosymfollow", "symfollow"], &[], &["nosymfollow"])]);
}

#[test]
fn words_apply_to_a_bind_too() {
    const WORDS: [&str; 5] = ["ro", "nosuid", "nodev", "noexec", "noatime"];
    let mut bundle = Bundle::new();
    let file = bundle.host_tmpfs("host", "rw").join("file"); // a plain bind has the words of its file system
    fs::write(&file, "").unwrap();
    for word in WORDS {
        bundle.bind(&file, &format!("/m/{word}"), &[word]);
    }
    bundle.bind(&file, "/m/plain", &[]);
    let mounts = bundle.mounts();
    for word in WORDS {
        assert!(mount_at(&mounts, &format!("/m/{word}")).has(word), "{word}: {mounts:#?}");
        assert!(!mount_at(&mounts, "/m/plain").has(word), "{word}");
    }
}

// As mount(2) has it and runc and crun do: options are those of the source, or those given. In a user namespace the
// host's are locked; those that are named must be had all the same.
#[test]
fn words_of_a_bind_replace_those_of_its_source() {
    need!(mount_option("nosymfollow"));
    const SOURCE: MsFlags = MsFlags::MS_RDONLY.union(MsFlags::MS_NOSUID).union(MsFlags::MS_NODEV);
    const NOSYMFOLLOW: u64 = 256;
    const ALL: [&str; 4] = ["ro", "nosuid", "nodev", "nosymfollow"];
    for in_user_namespace in [false, true] {
        let mut bundle = Bundle::new();
        if in_user_namespace {
            bundle = mapped(bundle);
        }
        let dir = bundle.host_tmpfs("host", "rw");
        let flags = SOURCE | MsFlags::from_bits_retain(NOSYMFOLLOW) | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        nix::mount::mount(None::<&str>, &dir, None::<&str>, flags, None::<&str>).unwrap();
        let locked: &[&str] = if in_user_namespace { &ALL[..3] } else { &[] };
        let cases = [
            ("/plain", &["rprivate"][..], &ALL[..]),
            ("/exec", &["exec"], locked),
            ("/ro", &["ro"], if in_user_namespace { locked } else { &ALL[..1] }),
            (
                "/some",
                &["nodev", "ro", "nosymfollow"],
                if in_user_namespace { &ALL } else { &["ro", "nodev", "nosymfollow"] },
            ),
        ];
        for (destination, words, _) in &cases {
            bundle.bind(&dir, destination, words);
        }
        let mounts = bundle.mounts();
        for (destination, words, want) in cases {
            let mount = mount_at(&mounts, destination);
            let has: Vec<_> = ALL.into_iter().filter(|option| mount.has(option)).collect();
            assert_eq!(has, want, "{words:?}, in a user namespace: {in_user_namespace}");
        }
        if in_user_namespace {
            bundle.bind(&dir, "/named", &["rw"]);
            bundle.run().refused(&["/named", "operation not permitted"]);
        }
    }
}

#[test]
fn ro_is_for_one_mount_and_rro_for_the_tree() {
    need!(mount_option("rro"));
    let mut bundle = Bundle::new();
    bundle.host_tmpfs("tree/sub", "rw");
    for word in ["ro", "rro"] {
        bundle.mount(&format!("/{word}"), "none", "tree", &["rbind", word]);
    }
    let mounts = bundle.mounts();
    for (point, readonly) in [("/ro", true), ("/ro/sub", false), ("/rro", true), ("/rro/sub", true)] {
        assert_eq!(mount_at(&mounts, point).has("ro"), readonly, "{point}");
    }
}

#[test]
fn recursive_words_reach_the_whole_tree() {
    need!(mount_option("rnosuid"));
    const SET: [&str; 5] = ["nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    const CLEARED: [(&str, &str); 5] =
        [("rsuid", "nosuid"), ("rdev", "nodev"), ("rexec", "noexec"), ("rrw", "ro"), ("rdiratime", "nodiratime")];
    let mut bundle = Bundle::new();
    bundle.host_tmpfs("open/sub", "rw");
    bundle.host_tmpfs("shut", "nosuid,nodev,noexec,nodiratime");
    bundle.host_tmpfs("shut/sub", "ro,nosuid,nodev,noexec,nodiratime");
    for option in SET {
        bundle.mount(&format!("/set/{option}"), "none", "open", &["rbind", &format!("r{option}")]);
    }
    for (word, option) in CLEARED {
        bundle.mount(&format!("/cleared/{option}"), "none", "shut", &["rbind", word]);
    }
    let mounts = bundle.mounts();
    for point in ["", "/sub"] {
        for option in SET {
            assert!(mount_at(&mounts, &format!("/set/{option}{point}")).has(option), "r{option} at {point:?}");
        }
        for (word, option) in CLEARED {
            assert!(!mount_at(&mounts, &format!("/cleared/{option}{point}")).has(option), "{word} at {point:?}");
        }
    }
    assert!(mount_at(&mounts, "/cleared/nosuid/sub").has("ro"), "a word changes what it does not name");
}

#[test]
fn words_of_propagation() {
    let mut bundle = Bundle::new();
    for (n, word) in
        ["shared", "rshared", "slave", "private", "rprivate", "unbindable", "runbindable"].iter().enumerate()
    {
        bundle.mount(&format!("/{n}"), "tmpfs", word, &[word]);
    }
    let mounts = bundle.mounts();
    for (n, want) in ["shared:", "shared:", "", "", "", "unbindable", "unbindable"].iter().enumerate() {
        let mount = mount_at(&mounts, &format!("/{n}"));
        match want {
            &"" => assert!(mount.propagation.is_empty(), "{mount:?}"),
            want => assert!(mount.propagation.iter().any(|field| field.starts_with(want)), "{mount:?}"),
        }
    }
}

// `features` is what containerd and CRI-O go by
#[test]
fn every_word_that_features_lists_is_taken() {
    let words = features()["mountOptions"].as_array().expect("mountOptions").clone();
    assert!(words.len() > 20, "{words:?}");
    let mut bundle = Bundle::sh("echo ran");
    let dir = bundle.host_file("dir/file", "");
    for word in words.iter().map(|word| word.as_str().unwrap()) {
        let destination = format!("/m/{word}");
        match word {
            // made for something to change, or for a map: see mount_ids
            "remount" | "idmap" | "ridmap" => continue,
            "copy-symlink" | "src-nofollow" | "dest-nofollow" => bundle.bind(&dir, &destination, &[word]),
            // runc 1.1 fails on words that it lists
            "defaults" | "ratime" | "rnorelatime" | "rnostrictatime" if !on_rrun() => continue,
            "bind" | "rbind" => bundle.mount(&destination, "none", dir.to_str().unwrap(), &[word]),
            word if word.starts_with('r') && word != "ro" && word != "rw" && word != "relatime" => {
                bundle.bind(dir.parent().unwrap(), &destination, &[word])
            }
            word => bundle.mount(&destination, "tmpfs", "tmpfs", &[word]),
        };
    }
    assert_eq!(bundle.run().ok(), "ran\n");
}

#[test]
fn rro_is_listed_where_dockerd_looks_for_it() {
    need!(rrun);
    let words = &features()["mountOptions"];
    for word in ["rro", "ro", "defaults", "nosymfollow", "tmpcopyup", "rnosymfollow", "lazytime", "loud"] {
        assert!(words.as_array().unwrap().contains(&json!(word)), "{word} is not in {words}");
    }
}
