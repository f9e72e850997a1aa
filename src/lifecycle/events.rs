//! `events`: what a container uses, again and again until it ends, and when it runs out of memory. It takes no lock and
//! changes nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::Store;
use super::container::Container;
use super::process;
use crate::cgroup::{Oom, OomWatch, Stats};
use crate::error::{Doing, Matched};
use crate::log;
use crate::state::Status;

pub fn stats(store: &Store, id: &str) -> Result<Stats> {
    stats_of(&living(store, id)?)
}

fn stats_of(container: &Container) -> Result<Stats> {
    let mut stats = container.cgroups()?.stats()?;
    if let Some(group) = &container.state.intel_rdt {
        stats.intel_rdt = group.stats()?;
    }
    Ok(stats)
}

/// Of a container that lives, paused or not started ones too.
fn living(store: &Store, id: &str) -> Result<Container> {
    let container = store.find(id)?;
    match container.status()? {
        Status::Stopped => Err(stopped(id)),
        Status::Creating => bail!("the container is still being created; wait until `create` has returned"),
        Status::Created | Status::Running | Status::Paused => Ok(container),
    }
}

fn stopped(id: &str) -> anyhow::Error {
    Matched::EventsOfStopped { id: id.to_string() }.into()
}

pub enum Event {
    Stats(Box<Stats>),
    OutOfMemory,
}

pub struct Events {
    container: Container,
    init: OwnedFd,
    oom: Option<OomWatch>,
    interval: Duration,
    /// Of the next stats; none in a time that ends.
    next: Option<Instant>,
}

impl Events {
    pub fn watch(store: &Store, id: &str, interval: Duration) -> Result<Self> {
        let container = living(store, id)?;
        let init = container.state.init.context("no init is recorded")?;
        let Some(init) = process::open(&container, init)? else { return Err(stopped(id)) };
        let oom = container.cgroups()?.watch_oom().unwrap_or_else(|error| {
            log::warning(&format!("events {id}: {error:#}"));
            None
        });
        Ok(Self { container, init, oom, interval, next: Instant::now().checked_add(interval) })
    }

    /// Waits for the next one; `None` when the container has ended or `reader` has gone away.
    pub fn next(&mut self, reader: BorrowedFd) -> Result<Option<Event>> {
        loop {
            let woken = self.wait(reader)?;
            if woken.reader_gone {
                return Ok(None);
            }
            // what ended the container may have been a want of memory, which is told first
            if woken.oom || woken.ended {
                match self.oom.as_mut().map_or(Ok(Oom::No), OomWatch::happened)? {
                    Oom::Yes => return Ok(Some(Event::OutOfMemory)),
                    Oom::Over => self.oom = None,
                    Oom::No => {}
                }
            }
            if woken.ended {
                return Ok(None);
            }
            if self.is_due() {
                match stats_of(&self.container) {
                    Ok(stats) => return Ok(Some(Event::Stats(Box::new(stats)))),
                    Err(error) => log::warning(&format!("events {}: {error:#}", self.container.state.id)),
                }
            }
        }
    }

    /// Until something happens or the next stats are due.
    fn wait(&self, reader: BorrowedFd) -> Result<Woken> {
        let left = self.next.map(|next| TimeSpec::from(next.saturating_duration_since(Instant::now())));
        // the end of who reads a pipe or a socket is told without being asked for
        let mut fds = vec![PollFd::new(self.init.as_fd(), PollFlags::POLLIN), PollFd::new(reader, PollFlags::empty())];
        fds.extend(self.oom.as_ref().map(OomWatch::poll_fd));
        match ppoll(&mut fds, left, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => Err(errno).doing("poll", "a container's end")?,
        }
        let told = |n: usize| fds.get(n).and_then(PollFd::revents).is_some_and(|events| !events.is_empty());
        Ok(Woken { ended: told(0), reader_gone: told(1), oom: told(2) })
    }

    /// Stats that nobody has had the time for are left out.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let Some(next) = self.next.filter(|next| *next <= now) else { return false };
        self.next = [next, now].into_iter().find_map(|from| from.checked_add(self.interval).filter(|next| *next > now));
        true
    }

    /// Whether the container has ended, or `writer` can take something, whichever is first.
    pub fn has_ended_before_writable(&self, writer: BorrowedFd) -> Result<bool> {
        let mut fds = [PollFd::new(writer, PollFlags::POLLOUT), PollFd::new(self.init.as_fd(), PollFlags::POLLIN)];
        ppoll(&mut fds, None, None).doing("poll", "stdout")?;
        Ok(fds[0].revents().is_none_or(|events| events.is_empty()))
    }
}

struct Woken {
    ended: bool,
    reader_gone: bool,
    oom: bool,
}
