//! `pause` and `resume`. Decided under the lock; freezing, which may take its time, is done without it.

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Store;
use super::container::Container;
use super::process::{self, ends_within};
use crate::cgroup::Freezer;
use crate::error::Matched;
use crate::state::Status;
use crate::state::directory::Directory;

/// For every process to be frozen, and for every one to run again.
const PATIENCE: Duration = Duration::from_secs(10);
const A_MOMENT: Duration = Duration::from_millis(100);

pub fn pause(store: &Store, id: &str) -> Result<()> {
    let (directory, init, freezer) = decide_to_pause(store, id)?;
    let frozen = freezer.freeze(PATIENCE);
    // one that was killed, and thawed for that, may be on its way out
    let moment = if frozen.is_ok() { Duration::ZERO } else { A_MOMENT };
    if ends_within(&init, moment)? {
        // a freezer takes the empty cgroup, or those that an ended init left behind, as well
        freezer.thaw()?;
        return Err(Matched::NotRunning.into());
    }
    match frozen? {
        // from now on it is the caller's
        true => Ok(directory.unmark_frozen()?),
        false => bail!("its cgroup was removed meanwhile"),
    }
}

fn decide_to_pause(store: &Store, id: &str) -> Result<(Directory, OwnedFd, Freezer)> {
    crate::state::check_id(id)?;
    let (directory, _lock) = Directory::open_locked(&store.root, id)?.ok_or(Matched::DoesNotExist)?;
    let container = Container::in_directory(directory)?.ok_or(Matched::DoesNotExist)?;
    match container.status()? {
        Status::Running | Status::Created => {}
        Status::Creating => bail!("the container is still being created; wait until `create` has returned"),
        Status::Stopped => return Err(Matched::NotRunning.into()),
        Status::Paused => return Err(Matched::NotRunningButPaused.into()),
    }
    let init = container.state.init.context("no init is recorded")?;
    let Some(pidfd) = process::open(&container, init)? else { return Err(Matched::NotRunning.into()) };
    match container.cgroups()?.freezer()? {
        Some(freezer) => Ok((container.directory, pidfd, freezer)),
        None => bail!("its cgroup has been removed, so it cannot be frozen"),
    }
}

pub fn resume(store: &Store, id: &str) -> Result<()> {
    thaw(store, id)?.cgroups()?.await_thawed(PATIENCE)
}

fn thaw(store: &Store, id: &str) -> Result<Container> {
    crate::state::check_id(id)?;
    let (directory, _lock) = Directory::open_locked(&store.root, id)?.ok_or(Matched::DoesNotExist)?;
    let container = Container::in_directory(directory)?.ok_or(Matched::DoesNotExist)?;
    if container.status()? != Status::Paused {
        return Err(Matched::NotPaused.into());
    }
    container.cgroups()?.thaw()?; // at once: nothing is waited for
    Ok(container)
}
