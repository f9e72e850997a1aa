//! The container's `/`: what it holds, what is hidden or read-only in it, and how it hangs together with the host's.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;
use crate::mounted::mount_at;

/// What `ls /` says of the image of a [`Bundle`].
const NAMES: &str = "bin\ndev\netc\nhome\nproc\nsys\ntmp\n";

#[test]
fn the_root_is_the_image_and_nothing_of_the_host() {
    let mut bundle = Bundle::sh("ls /; ls /..; cat /etc/mark; awk '{print $5}' /proc/self/mountinfo | sort");
    bundle.image_file("etc/mark", "mine\n");
    assert_eq!(bundle.run().ok(), format!("{NAMES}{NAMES}mine\n/\n/dev\n/dev/pts\n/proc\n/sys\n"));
    assert!(mount_at(&bundle.mounts(), "/").root.ends_with("/rootfs"));
}

#[test]
fn no_pivot_gives_the_same_root() {
    let bundle = Bundle::sh("ls /; ls /..; [ -e /proc/self/status ] && echo proc");
    assert_eq!(bundle.call(&["run", "--no-pivot", &bundle.id]).ok(), format!("{NAMES}{NAMES}proc\n"));
}

#[test]
fn the_path_of_the_root_is_absolute_or_below_the_bundle() {
    let mut bundle = Bundle::sh("cat /mark");
    bundle.image_file("mark", "mine");
    assert_eq!(bundle.run().ok(), "mine");
    bundle.set("/root/path", bundle.rootfs("").to_str().unwrap());
    assert_eq!(bundle.run().ok(), "mine");
    need!(rrun); // runc refuses what is reached by a symlink
    symlink("rootfs", bundle.dir.join("link")).unwrap();
    bundle.set("/root/path", "link");
    assert_eq!(bundle.run().ok(), "mine");
}

#[test]
fn a_read_only_root_leaves_its_mounts_writable() {
    let mut bundle = Bundle::sh("touch /x 2>/dev/null || echo refused; touch /dev/x /data/x && echo taken; pwd");
    bundle.set("/root/readonly", true).mount("/data", "tmpfs", "tmpfs", &[]);
    // the destination and the working directory are made before the root is read-only
    bundle.mount("/made/by/mount", "tmpfs", "tmpfs", &[]).set("/process/cwd", "/made/dir");
    assert_eq!(bundle.run().ok(), "refused\ntaken\n/made/dir\n");
    let mounts = bundle.mounts();
    assert!(mount_at(&mounts, "/").has("ro") && !mount_at(&mounts, "/data").has("ro"));
}

#[test]
fn a_root_is_writable_unless_it_says_otherwise() {
    let bundle = Bundle::sh("echo written > /file");
    bundle.run().ok();
    assert_eq!(fs::read_to_string(bundle.rootfs("file")).unwrap(), "written\n");
}

#[test]
fn a_masked_file_is_empty_and_a_masked_directory_too() {
    let mut bundle = Bundle::sh(
        "cat /etc/secret /etc/dir/* 2>/dev/null; ls -A /etc/dir; touch /etc/dir/x 2>/dev/null || echo refused; \
         stat -c '%F %t:%T' /etc/secret; wc -c < /proc/version",
    );
    bundle.image_file("etc/secret", "secret");
    bundle.image_file("etc/dir/secret", "secret");
    bundle.set("/linux/maskedPaths", json!(["/etc/secret", "/etc/dir", "/missing/path", "/proc/version"]));
    assert_eq!(bundle.run().ok(), "refused\ncharacter special file 1:3\n0\n");
}

#[test]
fn many_masked_directories_are_all_empty() {
    let mut bundle = Bundle::sh("cat /hidden*/secret 2>/dev/null; ls -d /hidden* | wc -l");
    let paths: Vec<_> = (0..30).map(|n| format!("/hidden{n}")).collect();
    for path in &paths {
        bundle.image_file(&format!("{path}/secret"), "secret");
    }
    bundle.set("/linux/maskedPaths", json!(paths));
    assert_eq!(bundle.run().ok(), "30\n");
}

#[test]
fn a_read_only_path_can_be_read_and_not_written() {
    let mut bundle = Bundle::sh(
        "cat /etc/conf/file; for f in /etc/conf/file /proc/sys/kernel/domainname; do \
         (echo x > $f) 2>/dev/null || echo refused; done; echo x > /etc/other && echo taken",
    );
    bundle.image_file("etc/conf/file", "text\n");
    bundle.set("/linux/readonlyPaths", json!(["/etc/conf", "/missing/path", "/proc/sys"]));
    assert_eq!(bundle.run().ok(), "text\nrefused\nrefused\ntaken\n");
}

#[test]
fn read_only_paths_keep_the_other_options_of_their_mount() {
    let mut bundle = Bundle::new();
    bundle.mount("/data", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    bundle.set("/linux/readonlyPaths", json!(["/data"]));
    let mounts = bundle.mounts();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(mount_at(&mounts, "/data").has(option), "{option}: {mounts:#?}");
    }
}

#[test]
fn the_root_propagates_as_told() {
    need!(rrun); // runc 1.1 leaves it private whatever the word
    for (word, want) in [("shared", "shared:"), ("rshared", "shared:"), ("unbindable", "unbindable")] {
        let mut bundle = Bundle::new();
        bundle.set("/linux/rootfsPropagation", word);
        let mounts = bundle.mounts();
        let seen = &mount_at(&mounts, "/").propagation;
        assert!(seen.iter().any(|field| field.starts_with(want)), "{word}: {seen:?}");
    }
}

#[test]
fn a_private_or_slave_root_carries_nothing_out() {
    for word in ["private", "rprivate", "slave", "rslave"] {
        let mut bundle = Bundle::new();
        bundle.set("/linux/rootfsPropagation", word);
        let mounts = bundle.mounts();
        let shared = mounts.iter().find(|mount| mount.propagation.iter().any(|field| field.starts_with("shared")));
        assert!(shared.is_none(), "{word}: {shared:?}");
    }
}

#[test]
fn a_slave_root_hears_of_the_hosts_mounts() {
    need!(rrun); // runc 1.1 leaves it private whatever the word
    for (word, want) in [("slave", true), ("rslave", true), ("private", false), ("rprivate", false)] {
        let mut bundle = Bundle::new();
        let shared = bundle.host_tmpfs("shared", "mode=755");
        assert!(Command::new("mount").arg("--make-shared").arg(&shared).status().unwrap().success());
        assert!(Command::new("cp").arg("-a").args([bundle.rootfs("."), shared.clone()]).status().unwrap().success());
        bundle.set("/root/path", shared.to_str().unwrap()).set("/linux/rootfsPropagation", word);
        let mounts = bundle.mounts();
        let seen = &mount_at(&mounts, "/").propagation;
        assert_eq!(seen.iter().any(|field| field.starts_with("master:")), want, "{word}: {seen:?}");
        assert!(!seen.iter().any(|field| field.starts_with("shared:")), "{word}: {seen:?}");
    }
}

// kubelet's "Bidirectional": what the container mounts is seen by the host, through this one mount
#[test]
fn a_shared_bind_carries_mounts_to_the_host() {
    let mut bundle = Bundle::sh("mount -t tmpfs tmpfs /shared/sub && echo mounted");
    let shared = bundle.host_tmpfs("shared", "rw");
    assert!(Command::new("mount").arg("--make-shared").arg(&shared).status().unwrap().success());
    fs::create_dir(shared.join("sub")).unwrap();
    bundle.mount("/shared", "none", "shared", &["rbind", "rshared"]).set("/linux/rootfsPropagation", "rshared");
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}/-"), "CAP_SYS_ADMIN");
    }
    assert_eq!(bundle.run().ok(), "mounted\n");
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(host.contains(&format!(" {} ", shared.join("sub").display())), "the host does not see it");
    nix::mount::umount(&shared.join("sub")).unwrap();
}

#[test]
fn without_a_mount_namespace_the_root_is_changed_all_the_same() {
    need!(rrun); // runc needs a /proc in there
    let mut bundle = Bundle::sh("ls /; ls /..");
    bundle.without_namespace("mount").set("/mounts", json!([]));
    assert_eq!(bundle.run().ok(), format!("{NAMES}{NAMES}"));
    bundle.leaves_nothing();
    bundle.set("/linux/maskedPaths", json!(["/etc"]));
    bundle.create().refused(&["linux.maskedPaths"]);
}
