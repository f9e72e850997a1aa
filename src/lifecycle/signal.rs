//! `kill`: a signal to init, or the end of everything in the container.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use std::os::fd::AsFd;

use super::Store;
use super::container::Container;
use super::delete::PATIENCE;
use crate::error::{Matched, SysError};
use crate::state::Process;
use crate::sys::clone::{pidfd_open, pidfd_send_signal};

pub fn kill(store: &Store, id: &str, signal: i32, all: bool) -> Result<()> {
    let container = store.find(id)?;
    if signal == libc::SIGKILL && container.shares_pid_namespace() {
        return kill_group(&container, all);
    }
    let sent = match container.state.init {
        Some(init) => send(&container, init, signal)?,
        None => false,
    };
    if !sent {
        // what `kill --all` asks for is already so
        return if all { Ok(()) } else { Err(Matched::NotRunning.into()) };
    }
    if signal == libc::SIGKILL {
        // A frozen process dies when it is thawed.
        container.cgroups()?.thaw()?;
    }
    Ok(())
}

/// Init's end does not end the others, so the cgroup is emptied; also when init is gone already.
fn kill_group(container: &Container, all: bool) -> Result<()> {
    let cgroups = container.cgroups()?;
    let alive = container.state.init.map_or(Ok(false), |init| container.is_alive(init))?;
    if !alive && !cgroups.exist()? {
        return if all { Ok(()) } else { Err(Matched::NotRunning.into()) };
    }
    cgroups.kill(PATIENCE)
}

/// False when that process has ended: its pid may already be another's, so the pidfd comes first and the look at the
/// start time second.
pub(super) fn send(container: &Container, process: Process, signal: i32) -> Result<bool> {
    let pidfd = match pidfd_open(process.pid()) {
        Err(SysError { errno: Errno::ESRCH, .. }) => return Ok(false),
        result => result.context("init")?,
    };
    if !container.is_alive(process)? {
        return Ok(false);
    }
    match pidfd_send_signal(pidfd.as_fd(), signal) {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(Errno::EINVAL) => bail!("the kernel knows no signal {signal}; see signal(7)"),
        Err(errno) => Err(SysError::new("pidfd_send_signal", process.pid, errno).into()),
    }
}
