//! A user namespace from inside: its maps asked for, and its ids taken on. Nothing is mounted, and no file of the
//! container is touched, before that.

use anyhow::Result;
use nix::sys::prctl;

use super::Init;
use crate::error::Doing;
use crate::plan::id_maps::IdMaps;
use crate::protocol::Ask;
use crate::sys::credentials;

impl Init<'_> {
    /// Parents that may not just write any file of /proc need us dumpable for it, and so does newuidmap(1). Nobody else
    /// is in our namespaces yet, and what rrun holds of the host is its user's anyway.
    pub(super) fn ask_for_id_maps(&mut self, maps: &IdMaps) -> Result<()> {
        if !maps.privileged {
            set_dumpable(true)?;
        }
        self.handles.channel.request(&Ask::MapIds)?;
        set_dumpable(false)
    }

    /// Root of the namespace, without the groups of rrun's caller. The kernel clears the parent-death signal here, and
    /// may have made us dumpable.
    pub(super) fn become_root(&mut self, uid: u32, gid: u32) -> Result<()> {
        self.set_groups(&[])?;
        credentials::set_gid(gid)?;
        credentials::set_uid(uid)?;
        set_dumpable(false)?;
        self.die_with_parent()
    }

    /// It is outside of the container's user namespace, with rights there that nobody inside has.
    pub(super) fn parent_is_privileged(&self) -> bool {
        self.plan.and_then(|plan| plan.id_maps.as_ref()).is_some_and(|maps| maps.privileged)
    }

    /// Where the user namespace forbids it, rrun's caller's groups stay: the plan has seen to it that none were asked for.
    pub(super) fn set_groups(&self, groups: &[u32]) -> Result<()> {
        if self.may_set_groups {
            credentials::set_groups(groups)?;
        }
        Ok(())
    }
}

fn set_dumpable(dumpable: bool) -> Result<()> {
    Ok(prctl::set_dumpable(dumpable).doing("prctl PR_SET_DUMPABLE", dumpable)?)
}
