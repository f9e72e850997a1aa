//! One container as it is recorded, and what can be seen of it.

use std::cell::OnceCell;

use anyhow::{Context, Result};

use super::Store;
use crate::cgroup::Recorded;
use crate::error::Matched;
use crate::procfs::Proc;
use crate::state::directory::{Directory, StartChannel};
use crate::state::{self, Observe, Process, State, Status};

pub struct Container {
    pub directory: Directory,
    pub state: State,
    /// Its creator was alive when `state` was the latest record.
    creator_alive: bool,
    proc: &'static Proc,
    cgroups: OnceCell<Recorded>,
}

impl Store {
    /// The container, or that it does not exist.
    pub(super) fn find(&self, id: &str) -> Result<Container> {
        state::check_id(id)?;
        let directory = Directory::open(&self.root, id)?.ok_or(Matched::DoesNotExist)?;
        Container::in_directory(directory)?.ok_or_else(|| Matched::DoesNotExist.into())
    }
}

impl Container {
    /// One that this very process has made, and recorded so.
    pub fn just_made(directory: Directory, state: State) -> Result<Self> {
        Ok(Self { directory, state, creator_alive: true, proc: Proc::own()?, cgroups: OnceCell::new() })
    }

    /// `None` before there is a record.
    pub fn in_directory(directory: Directory) -> Result<Option<Self>> {
        let Some(mut state) = directory.read_state()? else { return Ok(None) };
        let proc = Proc::own()?;
        let creator_alive = !state.ready && proc.alive(state.creator.pid(), state.creator.start_time)?;
        if !state.ready && !creator_alive {
            // It may have finished since we read; now that it has ended, the record is its last.
            let Some(last) = directory.read_state()? else { return Ok(None) };
            state = last;
        }
        Ok(Some(Self { directory, state, creator_alive, proc, cgroups: OnceCell::new() }))
    }

    pub fn status(&self) -> Result<Status> {
        state::status(&mut Seen(self))
    }

    pub fn is_alive(&self, process: Process) -> Result<bool> {
        Ok(self.proc.alive(process.pid(), process.start_time)?)
    }

    pub fn proc(&self) -> &'static Proc {
        self.proc
    }

    pub fn cgroups(&self) -> Result<&Recorded> {
        if self.cgroups.get().is_none() {
            let _ = self.cgroups.set(Recorded::new(&self.state.cgroup_paths)?);
        }
        self.cgroups.get().context("cgroups")
    }

    pub fn is_paused(&self) -> Result<bool> {
        Ok(self.cgroups()?.frozen()? && !self.undo_dead_update()?)
    }

    /// What an `update` froze that was killed before it could thaw it; a living one holds the lock. What cannot be thawed,
    /// by another user for one, is paused. False where it is somebody else's.
    fn undo_dead_update(&self) -> Result<bool> {
        let is_dead = || self.directory.locked_by().is_none_or(|pid| pid == nix::unistd::getpid().as_raw());
        if !self.directory.is_marked_frozen()? || !is_dead() {
            return Ok(false);
        }
        let undone = self.cgroups()?.thaw().and_then(|()| Ok(self.directory.unmark_frozen()?));
        Ok(undone.is_ok())
    }

    /// Without a pid namespace of its own, the end of init ends nobody else.
    pub fn shares_pid_namespace(&self) -> bool {
        !self.state.namespaces.iter().any(|name| name == "pid")
    }
}

/// What `status` asks, asked of this container.
struct Seen<'a>(&'a Container);

impl Observe for Seen<'_> {
    fn init_alive(&mut self) -> Result<bool> {
        self.0.state.init.map_or(Ok(false), |init| self.0.is_alive(init))
    }

    fn frozen(&mut self) -> Result<bool> {
        self.0.is_paused()
    }

    fn ready(&mut self) -> bool {
        self.0.state.ready
    }

    fn creator_alive(&mut self) -> Result<bool> {
        Ok(self.0.creator_alive)
    }

    fn start_channel_held(&mut self) -> Result<bool> {
        Ok(matches!(self.0.directory.start_channel()?, StartChannel::Held(_)))
    }
}
