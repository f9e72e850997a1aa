//! A process that does nothing but be there: systemd makes no scope without one, and init is to be born in a cgroup that
//! is finished; and the maps of a mount are those of a user namespace, which somebody makes. It ends with rrun at the latest.

use std::os::fd::AsFd;

use anyhow::Result;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, pause};

use super::serve::reap;
use crate::error::SysError;
use crate::sys::clone::{self, Child, exit_now, pidfd_open, pidfd_send_signal};
use crate::sys::socket::is_readable;

pub struct Holder(Child);

impl Holder {
    pub fn new() -> Result<Self, SysError> {
        Self::in_new(CloneFlags::empty())
    }

    /// In new namespaces.
    pub fn in_new(flags: CloneFlags) -> Result<Self, SysError> {
        let parent = pidfd_open(getpid())?;
        let child = clone::spawn(flags, None, || {
            // what rrun waits for is not for a process that waits for nothing
            let tied = prctl::set_pdeathsig(Signal::SIGKILL);
            if tied.is_err() || is_readable(&parent) != Ok(false) {
                exit_now(1);
            }
            loop {
                pause();
            }
        })?;
        Ok(Self(child))
    }

    pub fn pid(&self) -> Pid {
        self.0.pid
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // ESRCH: somebody else has ended it
        let _ = pidfd_send_signal(self.0.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(&self.0);
    }
}
