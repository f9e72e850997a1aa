//! Processes of a container, held by a pidfd: a pid alone may name another process by now.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::container::Container;
use crate::error::{Doing, SysError};
use crate::state::Process;
use crate::sys::clone::{pidfd_open, pidfd_send_signal};

/// For a killed process to end, and for a cgroup to be let go.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// `None` when it has ended. The pidfd comes first and the look at the start time second.
pub(super) fn open(container: &Container, process: Process) -> Result<Option<OwnedFd>> {
    let pidfd = match pidfd_open(process.pid()) {
        Err(SysError { errno: Errno::ESRCH, .. }) => return Ok(None),
        result => result?,
    };
    Ok(container.is_alive(process)?.then_some(pidfd))
}

/// False when it has ended.
pub(super) fn send(container: &Container, process: Process, signal: i32) -> Result<bool> {
    let Some(pidfd) = open(container, process)? else { return Ok(false) };
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(Errno::EINVAL) => bail!("the kernel knows no signal {signal}; see signal(7)"),
        Err(errno) => Err(SysError::new("pidfd_send_signal", process.pid, errno).into()),
    }
}

/// SIGKILL; one that has ended meanwhile is as good.
pub(super) fn kill(pidfd: &OwnedFd, pid: i32) -> Result<(), SysError> {
    match pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(Errno::ESRCH) => Ok(()),
        result => result.doing("kill", pid),
    }
}

/// Kills it and waits for its end.
pub(super) fn end(container: &Container, process: Process) -> Result<()> {
    let Some(pidfd) = open(container, process)? else { return Ok(()) };
    kill(&pidfd, process.pid)?;
    ensure!(ends_within(&pidfd, PATIENCE)?, "process {} does not end after SIGKILL", process.pid);
    Ok(())
}

pub(super) fn ends_within(pidfd: &OwnedFd, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut fds, timeout).doing("poll", "a process's end")? > 0)
}
