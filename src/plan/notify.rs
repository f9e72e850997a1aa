//! sd_notify(3) inside: where the container finds the socket that rrun listens on.

use std::path::Path;

use anyhow::{Result, ensure};

use super::process::set_variable;
use super::{AttrChange, MountPlan, Namespace, Plan, Source, SourceLink};
use crate::rootfs::InRoot;

/// Names the socket of whoever waits for readiness, of rrun as of the program.
pub const VARIABLE: &str = "NOTIFY_SOCKET";
/// The socket's name in its directory.
pub const SOCKET: &str = "notify.sock";
const INSIDE: &str = "/run/notify";

/// The directory and not the socket is mounted, since that is made by the start. As the last mount, so that none of the
/// config covers it.
pub fn add(plan: &mut Plan, directory: &Path) -> Result<()> {
    ensure!(
        plan.has(Namespace::Mount),
        "environment variable {VARIABLE}: its socket needs a new mount namespace; add one to linux.namespaces, or unset it"
    );
    let words = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NODEV;
    plan.mounts.push(MountPlan {
        field: VARIABLE.into(),
        target: InRoot::new(INSIDE),
        source: Source::Bind { from: directory.into(), recursive: false, symlink: SourceLink::Followed },
        attributes: AttrChange { set: words, clear: 0 },
        unnamed: AttrChange::default(),
        recursive: AttrChange::default(),
        propagation: Vec::new(),
        ids: None,
        target_nofollow: false,
        readonly_at_end: false,
        label: None,
    });
    set_variable(&mut plan.process.env, VARIABLE, &format!("{INSIDE}/{SOCKET}"));
    Ok(())
}
