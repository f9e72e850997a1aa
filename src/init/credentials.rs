//! Who the program is: ids, groups, capabilities, in the order that capabilities(7) asks for.

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid};

use super::Init;
use crate::error::{Doing, SysError};
use crate::plan::Plan;
use crate::sys::credentials::{self, CapabilitySets};

/// Numbers of the capabilities in a set.
fn numbers(set: u64) -> impl Iterator<Item = u8> {
    (0..64).filter(move |number| set & 1 << number != 0)
}

impl Init<'_> {
    pub(super) fn set_no_new_privileges(&mut self) -> Result<()> {
        Ok(prctl::set_no_new_privs().doing("prctl PR_SET_NO_NEW_PRIVS", "")?)
    }

    pub(super) fn set_umask(&mut self, mask: u32) -> Result<()> {
        umask(Mode::from_bits_truncate(mask));
        Ok(())
    }

    /// The bounding set is what limits a root user: execve gives root all of it.
    pub(super) fn reduce_bounding_set(&mut self) -> Result<()> {
        let keep = self.process.capabilities.bounding;
        for capability in numbers(!keep) {
            match credentials::drop_from_bounding_set(capability) {
                // past the last one that the kernel knows
                Err(SysError { errno: Errno::EINVAL, .. }) => break,
                result => result?,
            }
        }
        Ok(())
    }

    /// Groups even when there are none: the caller's must go.
    pub(super) fn set_ids(&mut self) -> Result<()> {
        let process = self.process;
        credentials::keep_capabilities(true)?;
        self.set_groups(&process.additional_gids).context("additionalGids")?;
        credentials::set_gid(process.gid).context("gid")?;
        credentials::set_uid(process.uid).context("uid")?;
        // The kernel has set it to what sysctl fs.suid_dumpable says.
        let dumpable = process.is_dumpable() || self.plan.is_some_and(Plan::admits_its_user);
        Ok(prctl::set_dumpable(dumpable).doing("prctl PR_SET_DUMPABLE", "")?)
    }

    pub(super) fn set_capabilities(&mut self) -> Result<()> {
        let sets = self.process.capabilities;
        let (effective, permitted, inheritable) = (sets.effective, sets.permitted, sets.inheritable);
        credentials::capset(CapabilitySets { effective, permitted, inheritable })?;
        credentials::clear_ambient()?;
        for capability in numbers(sets.ambient) {
            credentials::raise_ambient(capability)?;
        }
        credentials::keep_capabilities(false)?;
        Ok(())
    }

    /// Runs `look` with the rights of the program's user on files, so that what it may not reach is not found.
    pub(super) fn as_the_user<T>(&self, look: impl FnOnce() -> T) -> Result<T> {
        let process = self.process;
        if process.uid == 0 && process.capabilities.effective & caps::Capability::CAP_DAC_OVERRIDE.bitmask() != 0 {
            // nothing is closed to it, as to us
            return Ok(look());
        }
        let before = credentials::capget()?;
        let overriding =
            1 << caps::Capability::CAP_DAC_OVERRIDE.index() | 1 << caps::Capability::CAP_DAC_READ_SEARCH.index();
        let effective = before.effective & !overriding | process.capabilities.effective & overriding;
        let groups: Vec<u32> =
            nix::unistd::getgroups().doing("getgroups", "")?.iter().map(|group| group.as_raw()).collect();
        let is_user = geteuid().as_raw() == process.uid && getegid().as_raw() == process.gid;
        if is_user && groups == process.additional_gids {
            // With the ids as they are, all else of the process stays too.
            credentials::capset(CapabilitySets { effective, ..before })?;
            let result = look();
            credentials::capset(before)?;
            ensure!(credentials::capget()? == before, "capabilities could not be restored");
            return Ok(result);
        }
        self.set_groups(&process.additional_gids)?;
        let gid = credentials::set_fsgid(process.gid);
        let uid = credentials::set_fsuid(process.uid);
        // setfsuid(2) may have dropped or given the two
        credentials::capset(CapabilitySets { effective, ..before })?;
        // each change of it makes the process as dumpable as fs.suid_dumpable says: proc_sys_fs(5)
        prctl::set_dumpable(false).doing("prctl PR_SET_DUMPABLE", "")?;
        let result = look();
        credentials::set_fsuid(uid);
        credentials::set_fsgid(gid);
        prctl::set_dumpable(false).doing("prctl PR_SET_DUMPABLE", "")?;
        credentials::capset(before)?;
        self.set_groups(&groups)?;
        ensure!(credentials::capget()? == before, "capabilities could not be restored");
        Ok(result)
    }
}
