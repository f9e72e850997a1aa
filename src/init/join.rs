//! The way of `exec` into a container that runs: through the pidfd of its init, which cannot come to mean another
//! process.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::{Pid, chdir, chroot, fchdir};

use super::Init;
use crate::error::{Doing, Matched, SysError};
use crate::plan::affinity::list;
use crate::procfs::Proc;
use crate::rootfs::{Rootfs, open_host_directory};
use crate::sys::{keyring, socket};

/// A container that runs, as the parent found it.
pub struct Container {
    /// pidfd.
    pub init: OwnedFd,
    /// Those of init that are not ours and that the child was not born in. With that of pids it forks once more.
    pub namespaces: CloneFlags,
    /// Init's root, where it has our mounts: otherwise the mount namespace brings its root along.
    pub root: Option<OwnedFd>,
    /// The host's.
    pub proc: Proc,
    /// Its user namespace is rrun's own, which forbids setgroups(2).
    pub no_setgroups: bool,
}

impl Init<'_> {
    fn container(&self) -> Result<&Container> {
        self.handles.container.as_ref().context("there is no container to join")
    }

    /// An ordinary user's rrun cannot enter a pid namespace: the child does, and only its own child is in it.
    fn forks(&self) -> Result<bool> {
        Ok(self.container()?.namespaces.contains(CloneFlags::CLONE_NEWPID))
    }

    /// Before the mounts of the container hide the host's /proc. A process that only tries it joins nothing.
    pub(super) fn set_oom_score(&mut self, value: i32) -> Result<()> {
        if self.handles.container.is_none() {
            return Ok(Proc::own()?.write_own_oom_score_adj(value)?);
        }
        if self.forks()? {
            return self.set_own_oom_score(value);
        }
        Ok(self.container()?.proc.write_own_oom_score_adj(value)?)
    }

    pub(super) fn run_on(&mut self, cpus: &[u32]) -> Result<()> {
        Ok(run_on(cpus)?)
    }

    /// All at once, so that what the one allows the other does not forbid: setns(2).
    pub(super) fn join_namespaces(&mut self) -> Result<()> {
        self.may_set_groups &= !self.container()?.no_setgroups;
        let Container { init, namespaces, .. } = self.container()?;
        if namespaces.is_empty() {
            return Ok(());
        }
        setns(init, *namespaces).doing("setns", "init")?;
        let (namespaces, forks) = (*namespaces, self.forks()?);
        if forks {
            self.fork_beside()?;
        }
        match namespaces.contains(CloneFlags::CLONE_NEWUSER) {
            true => self.become_root(),
            false => Ok(()),
        }
    }

    /// Whoever ends the container ends init first and then whoever is in its cgroups. So a process that has joined them
    /// and finds init alive will be found; one that does not is late, and must not stay.
    pub(super) fn check_container(&mut self) -> Result<()> {
        match socket::is_readable(&self.container()?.init) {
            Ok(ended) => ensure!(!ended, Matched::ExecStopped),
            // RLIMIT_NOFILE 0 forbids poll(2) itself
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(SysError::new("poll", "init", errno).into()),
        }
        Ok(())
    }

    pub(super) fn enter_root(&mut self) -> Result<()> {
        if let Some(root) = &self.container()?.root {
            fchdir(root).doing("fchdir", "the container's root")?;
            chroot(".").doing("chroot", "the container's root")?;
            chdir("/").doing("chdir", "/")?;
        }
        self.rootfs = Some(Rootfs::new(open_host_directory(Path::new("/"))?));
        Ok(())
    }

    /// That of the container, by its name. Its permissions were set when it was made.
    pub(super) fn share_session_keyring(&mut self, id: &str) -> Result<()> {
        let name = CString::new(format!("_ses.{id}"))?;
        match keyring::join_session_keyring(&name) {
            // a kernel without keyrings
            Ok(_) | Err(SysError { errno: Errno::ENOSYS, .. }) => Ok(()),
            // an ordinary user's container may have none of its own for that reason
            Err(SysError { errno: Errno::EDQUOT, .. }) if self.forks()? => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// sched_setaffinity(2), for the parent too.
pub fn run_on(cpus: &[u32]) -> Result<(), SysError> {
    let shown = list(cpus);
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu as usize)).doing("sched_setaffinity", &shown)?;
    sched_setaffinity(Pid::from_raw(0), &set).doing("sched_setaffinity", &shown)
}
