//! No command mounts or unmounts anything in the mount namespace that it was called in: not for a moment either, which
//! every process of the host would pay for and could see. The kernel counts such changes; poll(2) on mountinfo tells.

use std::fs::File;
use std::os::fd::AsFd;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::bundle::Bundle;

/// The mounts of this thread's own namespace, which commands that it starts share.
struct Mounts(File);

impl Mounts {
    fn in_a_new_namespace(propagation: MsFlags) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | propagation, None::<&str>).unwrap();
        Self(File::open("/proc/thread-self/mountinfo").unwrap())
    }

    /// Whether there were changes since the last question.
    fn have_changed(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() > 0
    }
}

/// With all kinds of mounts in it, some of which propagate.
fn bundle() -> Bundle {
    let mut bundle = Bundle::sleeping();
    let shared = bundle.dir.join("rootfs/home");
    bundle.bind(&shared, "/tmp/shared", &["rbind", "rshared"]);
    bundle.mount("/tmp/copied", "tmpfs", "tmpfs", &["tmpcopyup"]);
    bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    bundle.set("/root/readonly", true);
    bundle
}

fn no_command_changes_them(propagation: MsFlags) {
    let mounts = Mounts::in_a_new_namespace(propagation);
    let unchanged = |after: &str| assert!(!mounts.have_changed(), "{after} changed mounts of the host");
    let mut bundle = bundle();
    let id = bundle.id.clone();
    unchanged("nothing");
    for args in [
        &["features"][..],
        &["create", &id],
        &["state", &id],
        &["list"],
        &["start", &id],
        &["exec", &id, "true"],
        &["ps", &id],
        &["pause", &id],
        &["resume", &id],
        &["update", "--pids-limit", "100", &id],
        &["kill", &id, "KILL"],
    ] {
        bundle.call(args).ok();
        unchanged(&args.join(" "));
    }
    bundle.wait_until("stopped");
    bundle.delete().ok();
    unchanged("delete");
    bundle.args(&["true"]).run().ok();
    unchanged("run");
    bundle.args(&["/not/there"]).run().error();
    unchanged("a run that fails");

    let place = bundle.rootfs("home");
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    let seen = mounts.have_changed();
    umount2(&place, MntFlags::empty()).unwrap();
    assert!(seen, "this test sees no mounts");
}

/// In a thread of its own, which takes its namespace with it.
fn apart(propagation: MsFlags) {
    let tried = std::thread::spawn(move || no_command_changes_them(propagation)).join();
    tried.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn no_command_changes_mounts_of_a_host_that_shares_them() {
    // runc binds its own file onto itself for a moment
    need!(rrun);
    apart(MsFlags::MS_SHARED);
}

#[test]
fn no_command_changes_mounts_of_a_host_that_keeps_them_private() {
    need!(rrun);
    apart(MsFlags::MS_PRIVATE);
}
