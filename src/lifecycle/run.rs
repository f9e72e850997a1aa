//! `create` and `run`: the same way up; run goes on with the start, and in the foreground stays until the end.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use nix::sys::prctl;

use super::bring_up::{Origin, Place, Up, bring_up};
use super::container::Container;
use super::delete::delete_up;
use super::start::start_unready;
use super::{CreateOptions, RunOptions, Store, readiness};
use crate::error::Doing;
use crate::launch::foreground::{self, Relay};
use crate::launch::interrupts::Interrupts;
use crate::launch::seal;
use crate::notify::Readiness;
use crate::sys::clone::Child;
use crate::{log, notify, state};

pub fn create(store: &Store, options: &CreateOptions) -> Result<()> {
    state::check_id(&options.id)?;
    seal::ensure()?;
    let interrupts = Interrupts::take()?;
    bring_up(store, options, Place::Created, &interrupts, Origin::Program).map(drop)
}

/// The exit status of the container's process; 0 when detached.
pub fn run(store: &Store, options: &RunOptions) -> Result<i32> {
    let id = &options.create.id;
    state::check_id(id)?;
    seal::ensure()?;
    let interrupts = Interrupts::take()?;
    let place = if options.detach { Place::Detached } else { Place::Foreground };
    if place == Place::Foreground && !options.no_subreaper {
        // What init leaves behind is reaped by us, not by some init that knows nothing of it.
        prctl::set_child_subreaper(true).doing("prctl PR_SET_CHILD_SUBREAPER", "")?;
    }
    let host = options.create.notify_socket.as_deref().map(notify::Host::connect).transpose()?;
    let Up { container, child, console } = bring_up(store, &options.create, place, &interrupts, Origin::Program)?;
    let outcome = after_start(&container, &child, console, host, place, &interrupts);
    if outcome.is_ok() && (place == Place::Detached || options.keep) {
        return outcome;
    }
    take_away(&container, &interrupts, outcome)
}

/// A container that nobody is to find.
pub(super) fn take_away(container: &Container, interrupts: &Interrupts, outcome: Result<i32>) -> Result<i32> {
    match (delete_up(container, Some(interrupts)), outcome) {
        (Err(error), Err(outcome)) => {
            // the first thing that went wrong is what a user needs
            let id = &container.state.id;
            log::warning(&format!("{id}: what is left could not be removed: {error:#}"));
            Err(outcome)
        }
        (Err(error), Ok(_)) => Err(error),
        (Ok(()), outcome) => outcome,
    }
}

fn after_start(
    container: &Container,
    child: &Child,
    console: Option<OwnedFd>,
    host: Option<notify::Host>,
    place: Place,
    interrupts: &Interrupts,
) -> Result<i32> {
    let relay = console.map(Relay::new).transpose()?;
    let readiness = start_unready(container, host, interrupts)?;
    match place {
        Place::Created | Place::Detached => {
            let wait = |readiness| readiness::wait(readiness, child.pidfd.as_fd(), Some(interrupts));
            readiness.map_or(Ok(()), wait).map(|()| 0)
        }
        Place::Foreground => await_end(container, child, interrupts, relay, readiness),
    }
}

/// In the foreground: its exit status.
pub(super) fn await_end(
    container: &Container,
    child: &Child,
    interrupts: &Interrupts,
    relay: Option<Relay>,
    readiness: Option<Readiness>,
) -> Result<i32> {
    let status = foreground::wait(child, interrupts, relay, readiness)?;
    let kills = || container.cgroups()?.oom_kills();
    if status == KILLED && kills().is_ok_and(|kills| kills > 0) {
        let id = &container.state.id;
        log::warning(&format!("run {id}: killed for want of memory: see linux.resources.memory.limit"));
    }
    Ok(status)
}

/// 128 + SIGKILL
const KILLED: i32 = 137;
