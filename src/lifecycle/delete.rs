//! `delete`: ends what is left of a container and removes everything that was made for it, however far it got.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use super::Store;
use super::container::Container;
use crate::cgroup::Holders;
use crate::error::{Doing, Matched, SysError};
use crate::state::directory::Directory;
use crate::state::{self, Process, Status};
use crate::sys::clone::{pidfd_open, pidfd_send_signal};

/// For a killed process to end, and for a cgroup to be let go.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    state::check_id(id)?;
    let gone = || if force { Ok(()) } else { Err(Matched::DoesNotExist.into()) };
    let Some(directory) = Directory::open(&store.root, id)? else { return gone() };
    let Some(container) = Container::in_directory(directory)? else {
        remove_unrecorded(store, id, force)?;
        return gone();
    };
    let status = container.status()?;
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Matched::NotStopped { id: id.into(), status: status.word() }.into());
    }
    if !container.state.ready {
        // It could make more while we remove.
        end(&container, container.state.creator).context("the rrun that makes it")?;
    }
    // What its creator recorded last.
    let Some(directory) = Directory::open(&store.root, id)? else { return Ok(()) };
    let Some(latest) = Container::in_directory(directory)? else {
        return remove_unrecorded(store, id, force);
    };
    if latest.state.creator != container.state.creator {
        // deleted and made anew meanwhile: not the one that was asked for
        return Ok(());
    }
    if let Some(init) = latest.state.init {
        kill_and_wait(&latest, init)?;
    }
    remove(store, id, &latest)
}

/// Ends init. Without the lock: a stuck writer must not save it.
fn kill_and_wait(container: &Container, init: Process) -> Result<()> {
    let Some(pidfd) = open_process(container, init)? else { return Ok(()) };
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).or_else(ignore_gone).doing("kill", init.pid)?;
    let cgroups = container.cgroups()?;
    if cgroups.frozen()? {
        // a process that a v1 freezer holds cannot die
        cgroups.kill(PATIENCE)?;
    }
    anyhow::ensure!(ends_within(&pidfd, PATIENCE)?, Matched::InitStillRunning);
    Ok(())
}

/// Kills one process, known by pid and start time, and waits for its end.
fn end(container: &Container, process: Process) -> Result<()> {
    let Some(pidfd) = open_process(container, process)? else { return Ok(()) };
    pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).or_else(ignore_gone).doing("kill", process.pid)?;
    anyhow::ensure!(ends_within(&pidfd, PATIENCE)?, "process {} does not end after SIGKILL", process.pid);
    Ok(())
}

fn ignore_gone(errno: Errno) -> Result<(), Errno> {
    if errno == Errno::ESRCH { Ok(()) } else { Err(errno) }
}

fn open_process(container: &Container, process: Process) -> Result<Option<OwnedFd>> {
    let pidfd = match pidfd_open(process.pid()) {
        Err(SysError { errno: Errno::ESRCH, .. }) => return Ok(None),
        result => result?,
    };
    Ok(container.is_alive(process)?.then_some(pidfd))
}

/// Whoever holds the lock of a container that has no record is its creator; the lock is its only trace.
fn end_stuck_holder(directory: &Directory) -> Result<()> {
    let Some(holder) = directory.locked_by() else { return Ok(()) };
    let pidfd = match pidfd_open(Pid::from_raw(holder)) {
        Err(SysError { errno: Errno::ESRCH, .. }) => return Ok(()),
        result => result?,
    };
    let ended = ends_within(&pidfd, MOMENT)?;
    if !ended && directory.read_state()?.is_none() && directory.locked_by() == Some(holder) {
        pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).or_else(ignore_gone).doing("kill", holder)?;
        ends_within(&pidfd, PATIENCE)?;
    }
    Ok(())
}

pub(super) fn ends_within(pidfd: &OwnedFd, patience: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut fds, timeout).doing("poll", "a process's end")? > 0)
}

/// Under the lock, and only if the record is still this container's.
fn remove(store: &Store, id: &str, container: &Container) -> Result<()> {
    let Some((directory, _lock)) = Directory::open_locked(&store.root, id)? else { return Ok(()) };
    match directory.read_state()? {
        Some(state) if state.creator != container.state.creator => return Ok(()),
        _ => {}
    }
    // Also kills who is left inside: without a pid namespace of its own init takes nobody with it, and of an init that
    // its killed creator could not record the cgroup is the only trace.
    container.cgroups()?.remove(PATIENCE, Holders::Kill)?;
    Ok(directory.remove()?)
}

/// What a creator needs between its claim and its record, many times over.
const MOMENT: Duration = Duration::from_millis(200);

/// A directory without a record: its creator was killed before it could make anything else, or is stuck there.
fn remove_unrecorded(store: &Store, id: &str, force: bool) -> Result<()> {
    if force && let Some(directory) = Directory::open(&store.root, id)? {
        end_stuck_holder(&directory)?;
    }
    let Some((directory, _lock)) = Directory::open_locked(&store.root, id)? else { return Ok(()) };
    match directory.read_state()? {
        None => Ok(directory.remove()?),
        Some(_) => anyhow::bail!("it was being made; try again"),
    }
}
