//! Ties to the parent: init dies with it until everything is recorded, and tells it when that may happen.

use std::os::fd::AsFd;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::Init;
use crate::error::{Doing, SysError};
use crate::rootfs::Rootfs;
use crate::sys::{clone, fds, signals, socket};

impl Init<'_> {
    /// getppid() proves nothing in a new pid namespace (it is 0), so the parent's pidfd is asked. The kernel clears the
    /// death signal when ids change.
    pub(super) fn die_with_parent(&mut self) -> Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).doing("prctl PR_SET_PDEATHSIG", "")?;
        match socket::is_readable(&self.handles.parent) {
            Ok(true) => clone::exit_now(1),
            // RLIMIT_NOFILE 0 forbids poll(2) itself; the end of the protocol socket will tell
            Ok(false) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(SysError::new("poll", "the parent", errno).into()),
        }
    }

    /// From here on the protocol socket is the guard: its end of file, before the commit byte, ends init.
    pub(super) fn outlive_parent(&mut self) -> Result<()> {
        prctl::set_pdeathsig(None).doing("prctl PR_SET_PDEATHSIG", "clear")?;
        let left = prctl::get_pdeathsig().doing("prctl PR_GET_PDEATHSIG", "")?;
        ensure!(left.is_none(), "the parent-death signal could not be cleared");
        Ok(())
    }

    /// Really closed, not only close-on-exec: nothing of the host stays reachable while init waits for its start
    /// (CVE-2024-21626), but for the files that root lets startContainer hooks write to. Those of ours that stay are
    /// close-on-exec; none has a number that the program was promised, since all of those were open when rrun began.
    pub(super) fn close_other_descriptors(&mut self) -> Result<()> {
        signals::reset(self.process.reset_signals)?;
        if self.handles.start.is_some() {
            // whoever waits for a start can be asked to end, as the program could
            signals::end_at(&[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM])?;
        }
        let handles = &self.handles;
        let mut keep = vec![handles.channel.as_fd(), handles.ready.as_fd()];
        if let Some(start) = &handles.start {
            keep.extend([start.channel.as_fd(), start.error.as_fd()]);
            let hooks = self.plan.is_some_and(|plan| !plan.hooks.start_container.is_empty());
            keep.extend(hooks.then(|| start.hook_outputs.fds()).into_iter().flatten());
        }
        // the user has a working directory to look for
        keep.extend(self.rootfs.as_ref().filter(|_| self.cwd_pending).map(Rootfs::as_fd));
        Ok(fds::close_all_but(self.process.descriptors.end(), &keep)?)
    }

    /// The parent records what is left to record and commits; if it dies before, so does init.
    pub(super) fn announce_ready(&mut self) -> Result<()> {
        self.handles.ready.announce()?;
        if !self.handles.channel.wait_for_commit() {
            clone::exit_now(1);
        }
        Ok(())
    }

    pub(super) fn wait_for_start(&mut self) -> Result<()> {
        let mut byte = [0];
        let start = self.handles.start.as_ref().context("there is no start to wait for")?;
        match nix::unistd::read(&start.channel, &mut byte).doing("read", "start.fifo")? {
            1 => Ok(()),
            _ => bail!("the start channel is closed"),
        }
    }
}
