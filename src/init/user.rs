//! A user namespace from inside: maps asked for, ids taken on, and the second process of a container that joins one.
//! Nothing is mounted, and no file of the container is touched, before that.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::unistd::getpid;

use super::Init;
use crate::error::{Doing, SysError};
use crate::log;
use crate::plan::{Namespace, Plan};
use crate::procfs::Proc;
use crate::protocol::Ask;
use crate::sys::clone::{self, Twin};
use crate::sys::credentials;

impl Init<'_> {
    /// An ordinary user may go up only, which leaves the container more likely to be killed, and that is no harm.
    pub(super) fn set_own_oom_score(&mut self, value: i32) -> Result<()> {
        set_dumpable(true)?;
        match Proc::open()?.write_oom_score_adj(getpid(), value) {
            Err(error @ SysError { errno: Errno::EACCES, .. }) => {
                log::warning(&format!("process.oomScoreAdj: {error}: left as it is"));
            }
            result => result?,
        }
        set_dumpable(false)
    }

    /// Only a process born in it is in a new pid namespace, and what a user namespace is to own is made from inside.
    pub(super) fn fork_beside(&mut self) -> Result<()> {
        let again = self.plan.map(|plan| plan.choreography().again).unwrap_or_default();
        let flags = again.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
        if clone::fork_beside(flags)? == Twin::Original {
            clone::exit_now(0);
        }
        self.die_with_parent()?;
        // said by the new one, so that it comes before all else that it says
        let own = clone::pidfd_open(getpid())?;
        self.handles.channel.ask(&Ask::Born, Some(own.as_fd()))
    }

    /// Parents that may not just write any file of /proc need us dumpable for it, and so does newuidmap(1). Nobody else
    /// is in our new namespaces yet, and what rrun holds of the host is its user's anyway.
    pub(super) fn ask_for_id_maps(&mut self) -> Result<()> {
        let plan = self.plan()?;
        let by_user = plan.has_new(Namespace::User) && plan.id_maps.as_ref().is_some_and(|maps| maps.by_user);
        if by_user {
            set_dumpable(true)?;
        }
        self.handles.channel.request(&Ask::MapIds)?;
        set_dumpable(false)
    }

    /// Root of the namespace, or where that is not mapped the container's user; without the groups of rrun's caller but
    /// where they are kept. The kernel clears the parent-death signal here, and may have made us dumpable.
    pub(super) fn become_root(&mut self) -> Result<()> {
        let has_groups = |plan: &Plan| plan.id_maps.as_ref().is_some_and(|maps| maps.setgroups);
        let sure = self.plan.is_some_and(|plan| plan.has_new(Namespace::User) && has_groups(plan));
        match self.set_groups(&[]) {
            // forbidden in an ordinary user's namespace; the plan or the parent has seen that none are asked for
            Err(SysError { errno: Errno::EPERM, .. }) if !sure => self.may_set_groups = false,
            result => result?,
        }
        let (uid, gid) = (self.process.uid, self.process.gid);
        or_user(credentials::set_gid(0), || credentials::set_gid(gid)).context("process.user.gid")?;
        or_user(credentials::set_uid(0), || credentials::set_uid(uid)).context("process.user.uid")?;
        set_dumpable(false)?;
        self.die_with_parent()
    }

    /// It is outside of the container's user namespace, with rights there that nobody inside has.
    pub(super) fn parent_is_privileged(&self) -> bool {
        let joined = self.handles.container.as_ref().map(|container| container.namespaces);
        self.plan.is_some_and(|plan| plan.admin && plan.has(Namespace::User))
            || joined.is_some_and(|namespaces| namespaces.contains(Namespace::User.flag()))
    }

    /// Where the user namespace forbids it the groups of rrun's caller stay.
    pub(super) fn set_groups(&self, groups: &[u32]) -> Result<(), SysError> {
        if self.may_set_groups { credentials::set_groups(groups) } else { Ok(()) }
    }
}

/// EINVAL: id 0 is not mapped.
fn or_user(root: Result<(), SysError>, user: impl FnOnce() -> Result<(), SysError>) -> Result<(), SysError> {
    match root {
        Err(SysError { errno: Errno::EINVAL, .. }) => user(),
        result => result,
    }
}

pub(super) fn set_dumpable(dumpable: bool) -> Result<()> {
    Ok(prctl::set_dumpable(dumpable).doing("prctl PR_SET_DUMPABLE", dumpable)?)
}
