//! `delete`: ends what is left of a container and removes everything that was made for it, however far it got.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::Store;
use super::container::Container;
use super::hooks::{self, Runner};
use super::loan;
use super::managed;
use super::process::{self, PATIENCE, ends_within};
use super::root_cover;
use crate::cgroup::Holders;
use crate::error::{Matched, SysError};
use crate::hooks::{Outputs, Stop};
use crate::log;
use crate::plan::hooks::Hooks;
use crate::resctrl::Until;
use crate::state::directory::Directory;
use crate::state::{self, Process, Status};
use crate::sys::clone::pidfd_open;

pub fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    state::check_id(id)?;
    let gone = || if force { Ok(()) } else { Err(Matched::DoesNotExist.into()) };
    let Some(directory) = Directory::open(&store.root, id)? else { return gone() };
    match Container::in_directory(directory)? {
        Some(container) => delete_recorded(container, force),
        None => match remove_unrecorded(store, id, force)? {
            Unrecorded::Removed => gone(),
            Unrecorded::RecordedMeanwhile => delete(store, id, force),
        },
    }
}

/// By force, one that was up: that of `run`, or one whose start went wrong after its program had begun. If it has been
/// deleted meanwhile, and its id taken by another, nothing happens. `stop` ends a poststop hook.
pub(super) fn delete_up(container: &Container, stop: Option<&dyn Stop>) -> Result<()> {
    end_and_remove(container, true, stop)
}

fn delete_recorded(mut container: Container, force: bool) -> Result<()> {
    if !force && refuse_in_use(&container)? == Status::Created {
        end_unless_started(&container)?;
    }
    if !container.state.ready {
        // It could make more while we remove; and what it recorded last may be more than was read.
        process::end(&container, container.state.creator).context("the rrun that makes it")?;
        container = match Container::in_directory(container.directory)? {
            Some(latest) => latest,
            None => return Ok(()),
        };
    }
    end_and_remove(&container, force, None)
}

fn end_and_remove(container: &Container, force: bool, stop: Option<&dyn Stop>) -> Result<()> {
    if let Some(init) = container.state.init {
        kill_and_wait(container, init)?;
    }
    if force {
        end_stuck_creator(container)?;
    }
    if let Some(hooks) = remove(container)? {
        let outputs = hooks::outputs(&hooks.poststop, &container.state.hook_output).unwrap_or_else(|error| {
            log::warning(&format!("delete {}: {error:#}", container.state.id));
            Outputs::NONE
        });
        Runner::of_state(&container.state, &outputs, stop).poststop(&hooks);
    }
    Ok(())
}

/// Without force only what has not started yet, or is over.
fn refuse_in_use(container: &Container) -> Result<Status> {
    match container.status()? {
        status @ (Status::Stopped | Status::Created) => Ok(status),
        status => Err(Matched::NotStopped { id: container.state.id.clone(), status: status.word() }.into()),
    }
}

/// Under the lock, so that no `start` comes in between: an init that waits for one is killed before the lock is let go.
fn end_unless_started(container: &Container) -> Result<()> {
    let _lock = container.directory.lock()?;
    if refuse_in_use(container)? == Status::Created
        && let Some(init) = container.state.init
    {
        process::send(container, init, libc::SIGKILL)?;
    }
    Ok(())
}

/// For a killed init to end by itself.
const MOMENT_TO_END: Duration = Duration::from_millis(100);

/// Ends init. Without the lock: a stuck writer must not save it.
fn kill_and_wait(container: &Container, init: Process) -> Result<()> {
    let Some(pidfd) = process::open(container, init)? else { return Ok(()) };
    process::kill(&pidfd, init.pid)?;
    let cgroups = container.cgroups()?;
    if !cgroups.frozen()? && ends_within(&pidfd, MOMENT_TO_END)? {
        return Ok(());
    }
    // A process that a v1 freezer holds cannot die, nor can an init while one of its pid namespace is held: by a
    // `pause` that came in between, or in a cgroup below.
    let killed = cgroups.kill(PATIENCE);
    match ends_within(&pidfd, if killed.is_ok() { PATIENCE } else { Duration::ZERO })? {
        true => Ok(()),
        false => Err(killed
            .err()
            .map_or_else(|| Matched::InitStillRunning.into(), |why| why.context(Matched::InitStillRunning))),
    }
}

/// One that is stuck with the lock in its hands, after it has recorded all.
fn end_stuck_creator(container: &Container) -> Result<()> {
    let creator = container.state.creator;
    let holds = || container.directory.locked_by() == Some(creator.pid);
    if creator.pid() == Pid::this() || !holds() {
        return Ok(());
    }
    let Some(pidfd) = process::open(container, creator)? else { return Ok(()) };
    if !ends_within(&pidfd, MOMENT)? && holds() {
        process::kill(&pidfd, creator.pid)?;
        ends_within(&pidfd, PATIENCE)?;
    }
    Ok(())
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
        process::kill(&pidfd, holder)?;
        ends_within(&pidfd, PATIENCE)?;
    }
    Ok(())
}

/// Under the lock, and only if ROOT/ID is still this container's: who claims the id anew has a new directory. Who has
/// removed it has hooks to run, without the lock.
fn remove(container: &Container) -> Result<Option<Hooks>> {
    let directory = &container.directory;
    let _lock = directory.lock()?;
    if !directory.is_current()? {
        return Ok(None);
    }
    // Also kills who is left inside: without a pid namespace of its own init takes nobody with it, and of an init that
    // its killed creator could not record the cgroup is the only trace.
    match container.state.is_in_subgroup() {
        true => container.cgroups()?.above().remove(PATIENCE, Holders::Kill)?,
        false => container.cgroups()?.remove(PATIENCE, Holders::Kill)?,
    }
    managed::remove(&container.state).context("systemd")?;
    let until = if container.state.ready { Until::Up } else { Until::NotUp };
    root_cover::remove(&container.state)?;
    container.state.intel_rdt.as_ref().map(|group| group.remove(until)).transpose()?;
    if !container.state.net_devices.is_empty() {
        loan::settle(directory).context("linux.netDevices")?;
    }
    let hooks = hooks::recorded(directory, &container.state, &["poststop"]).unwrap_or_else(|error| {
        log::warning(&format!("delete {}: hooks.poststop: {error:#}", container.state.id));
        Hooks::default()
    });
    directory.remove()?;
    Ok(Some(hooks))
}

/// What became of a directory without a record.
enum Unrecorded {
    Removed,
    RecordedMeanwhile,
}

/// What a creator needs between its claim and its record, many times over.
const MOMENT: Duration = Duration::from_millis(200);

/// A directory without a record: its creator was killed before it could make anything else, or is stuck there.
fn remove_unrecorded(store: &Store, id: &str, force: bool) -> Result<Unrecorded> {
    if force && let Some(directory) = Directory::open(&store.root, id)? {
        end_stuck_holder(&directory)?;
    }
    let Some((directory, _lock)) = Directory::open_locked(&store.root, id)? else { return Ok(Unrecorded::Removed) };
    if directory.read_state()?.is_some() {
        return Ok(Unrecorded::RecordedMeanwhile);
    }
    directory.remove()?;
    Ok(Unrecorded::Removed)
}
