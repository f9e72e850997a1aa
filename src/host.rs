//! Facts about this machine, read once and handed to `plan` as data, so that a test can ask "what would be done on
//! cgroup v1, as a user, on an older kernel?" anywhere.

use anyhow::{Context, Result};
use nix::sys::stat::stat;
use nix::unistd::geteuid;
use serde::Serialize;

use crate::error::Doing;
use crate::host::cgroups::CgroupLayout;
use crate::procfs::Proc;

pub mod cgroups;
pub mod mountpoints;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Host {
    /// Without root's rights in the initial user namespace.
    pub rootless: bool,
    /// Capabilities that rrun can hand on: those of its bounding and permitted sets. Bit n is capability n.
    pub capabilities: u64,
    /// The highest capability that this kernel knows.
    pub last_capability: u8,
    pub cgroups: CgroupLayout,
}

/// PROC_USER_INIT_INO: the inode of the initial user namespace is fixed (include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Host {
    /// Runs at each create, so it reads five small files and asks nothing else.
    pub fn detect() -> Result<Self> {
        let proc = Proc::open().context("facts of this host")?;
        let own = proc.own_capabilities()?;
        Ok(Self {
            rootless: !geteuid().is_root() || !in_initial_user_namespace()?,
            capabilities: own.permitted & own.bounding,
            last_capability: proc.last_capability()?,
            cgroups: CgroupLayout::detect(&proc)?,
        })
    }
}

/// The link itself is magic, so it is asked by path; a forged answer would only change which errors are given.
fn in_initial_user_namespace() -> Result<bool> {
    const LINK: &str = "/proc/self/ns/user";
    Ok(stat(LINK).doing("stat", LINK)?.st_ino == INITIAL_USER_NAMESPACE)
}
