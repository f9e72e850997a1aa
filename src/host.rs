//! Facts about this machine, read once and handed to `plan` as data, so that a test can ask "what would be done on
//! cgroup v1, as a user, on an older kernel?" anywhere.

use anyhow::Result;
use caps::Capability;
use nix::sys::stat::stat;
use nix::unistd::{getegid, geteuid};
use serde::Serialize;

use crate::error::Doing;
use crate::host::cgroups::CgroupLayout;
use crate::host::security::Security;
use crate::procfs::Proc;
use crate::sys::credentials::last_capability;

pub mod cgroups;
pub mod mountpoints;
pub mod security;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Host {
    /// Without root's rights in the initial user namespace: an ordinary user, the root of another user namespace, or a
    /// root without CAP_SYS_ADMIN.
    pub rootless: bool,
    /// Effective ids of rrun.
    pub uid: u32,
    pub gid: u32,
    /// The user namespace that rrun is in forbids setgroups(2).
    pub no_setgroups: bool,
    /// Capabilities that rrun can hand on: those of its bounding and permitted sets. Bit n is capability n.
    pub capabilities: u64,
    /// The highest capability that this kernel knows.
    pub last_capability: u8,
    /// Signals that rrun, or its caller, ignores or has a handler for. Bit n is signal n + 1.
    #[serde(skip)]
    pub changed_signals: u64,
    pub cgroups: CgroupLayout,
    /// Of use only where labels are asked for, and only then looked at.
    pub security: Security,
}

/// PROC_USER_INIT_INO: the inode of the initial user namespace is fixed (include/linux/proc_ns.h).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

impl Host {
    /// What a process can be given; nothing of file systems.
    pub fn credentials(proc: &Proc) -> Result<Self> {
        let status = proc.own_status()?;
        Ok(Self {
            capabilities: status.permitted & status.bounding,
            last_capability: last_capability(status.bounding),
            changed_signals: status.not_default,
            ..Self::default()
        })
    }

    /// Runs at each create, so it reads what it must and asks nothing else.
    pub fn detect() -> Result<Self> {
        let proc = Proc::own()?;
        let cgroups = CgroupLayout::detect(proc)?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let mut host = Self { rootless: rootless()?, uid, gid, cgroups, ..Self::credentials(proc)? };
        host.rootless |= !host.may(Capability::CAP_SYS_ADMIN);
        host.no_setgroups = host.rootless && no_setgroups()?;
        Ok(host)
    }

    /// Whether rrun has this capability, in the user namespace that it runs in.
    pub fn may(&self, capability: Capability) -> bool {
        self.capabilities & capability.bitmask() != 0
    }
}

/// Whether an ordinary user made the user namespace that rrun is in: user_namespaces(7).
pub fn no_setgroups() -> Result<bool> {
    Ok(Proc::own()?.read("self/setgroups")?.starts_with(b"deny"))
}

/// Without root's rights in the initial user namespace.
pub fn rootless() -> Result<bool> {
    Ok(!geteuid().is_root() || !in_initial_user_namespace()?)
}

/// The link itself is magic, so it is asked by path; a forged answer would only change which errors are given.
fn in_initial_user_namespace() -> Result<bool> {
    const LINK: &str = "/proc/self/ns/user";
    Ok(stat(LINK).doing("stat", LINK)?.st_ino == INITIAL_USER_NAMESPACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_capabilities_elsewhere() {
        let host = Host::detect().unwrap();
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
        assert_eq!(host.last_capability.to_string(), last.trim());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let set = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        assert_eq!(host.capabilities, set("CapPrm:") & set("CapBnd:"));
    }
}
