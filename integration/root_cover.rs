//! Containers without a mount namespace that mount: config-linux.md has them in the runtime's. All of it is below their
//! rootfs and goes with them. Each test has a mount namespace of its own for the host's, with everything shared.

use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::bundle::Bundle;

fn apart(test: fn()) {
    let test = move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        for propagation in [MsFlags::MS_PRIVATE, MsFlags::MS_SHARED] {
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>).unwrap();
        }
        test();
    };
    std::thread::spawn(test).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// But for those of namespaces: other tests' containers hold some while they come up, and copies go with them.
fn mounts() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let lines = text.lines().filter(|line| !line.contains(" - nsfs "));
    lines.map(|line| line.split(' ').skip(3).collect::<Vec<_>>().join(" ")).collect()
}

fn sharing(bundle: &mut Bundle) -> &mut Bundle {
    bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    bundle.without_namespace("mount").without_namespace("cgroup")
}

fn mount_tmpfs(place: &Path) {
    std::fs::create_dir_all(place).unwrap();
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

#[test]
fn the_host_sees_them_until_the_container_is_deleted() {
    need!(rrun); // runc and crun leave them mounted
    apart(|| {
        let mut bundle = Bundle::sleeping();
        sharing(&mut bundle);
        bundle.set("/root/readonly", true);
        let before = mounts();
        bundle.create().ok();
        let own = std::fs::read_link("/proc/thread-self/ns/mnt").unwrap();
        assert_eq!(std::fs::read_link(format!("/proc/{}/ns/mnt", bundle.pid())).unwrap(), own);
        assert!(bundle.rootfs("proc/1/status").exists() && bundle.rootfs("dev/null").exists());
        bundle.start().ok();
        let script = "cat /dev/null; test -r /proc/1/status && touch /x 2>&1";
        let output = bundle.call(&["exec", &bundle.id, "/bin/sh", "-c", script]);
        assert!(output.stdout.matches("Read-only file system").count() == 1, "{}", output.stdout);
        bundle.delete_force().ok();
        assert_eq!(mounts(), before);
        assert!(!bundle.rootfs("proc/1").exists());
        bundle.args(&["true"]).run().ok();
        assert_eq!(mounts(), before, "run");
        bundle.args(&["/not/there"]).run().error();
        assert_eq!(mounts(), before, "a run that fails");
        bundle.leaves_nothing();
    });
}

#[test]
fn what_is_bound_from_the_host_stays_as_it_was_there() {
    need!(rrun); // runc and crun take the host's away, or leave theirs there
    apart(|| {
        let mut bundle = Bundle::sleeping();
        let source = bundle.dir.join("source");
        mount_tmpfs(&source);
        mount_tmpfs(&source.join("below"));
        std::fs::create_dir(source.join("over")).unwrap();
        sharing(&mut bundle).bind(&source, "/data", &["rbind"]);
        bundle.mount("/data/over", "tmpfs", "tmpfs", &[]);
        let before = mounts();
        bundle.create().ok();
        let seen = mounts();
        let below = |of: &Path| seen.iter().filter(|line| line.contains(&format!("{}/", of.display()))).count();
        assert_eq!((below(&source), below(&bundle.rootfs("data"))), (1, 2), "{seen:#?}");
        bundle.delete_force().ok();
        assert_eq!(mounts(), before);
        umount2(&source, MntFlags::MNT_DETACH).unwrap();
    });
}

/// Killed while its hook runs, when all is mounted.
#[test]
fn what_a_killed_create_has_mounted_goes_by_delete() {
    need!(rrun); // runc and crun leave them mounted
    apart(|| {
        let mut bundle = Bundle::sleeping();
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID; exec sleep 100"]});
        sharing(&mut bundle).set("/hooks/createRuntime", json!([hook]));
        let before = mounts();
        let mut create = bundle.command(&["create", "--bundle", bundle.dir.to_str().unwrap(), &bundle.id]);
        let status = create.process_group(0).status().unwrap();
        assert!(!status.success());
        assert_ne!(mounts(), before, "nothing was mounted when it was killed");
        bundle.delete_force().ok();
        assert_eq!(mounts(), before);
    });
}

#[test]
fn a_second_container_on_the_same_rootfs_goes_first() {
    need!(rrun); // runc and crun leave them mounted
    apart(|| {
        let mut bundle = Bundle::sleeping();
        sharing(&mut bundle);
        let before = mounts();
        bundle.create().ok();
        let second = format!("{}-2", bundle.id);
        let own_cgroup = format!("{}-2", bundle.cgroup_path());
        let first_cgroup = bundle.cgroup_path();
        bundle.set("/linux/cgroupsPath", own_cgroup);
        bundle.call(&["create", "--bundle", bundle.dir.to_str().unwrap(), &second]).ok();
        bundle.delete_force().refused(&["something is mounted over the container's root"]);
        bundle.call(&["delete", "--force", &second]).ok();
        bundle.set("/linux/cgroupsPath", first_cgroup);
        bundle.delete_force().ok();
        assert_eq!(mounts(), before);
    });
}
