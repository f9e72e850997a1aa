//! Learns at once when memory runs out inside. v1 tells by an eventfd, v2 by a counter whose file can be polled.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::directory::Directory;
use super::recorded::{Recorded, oom_kills_in};
use crate::error::{Doing, SysError};

#[derive(Debug)]
pub enum OomWatch {
    /// Documentation/admin-guide/cgroup-v1/memory.rst, "OOM Control".
    V1 { told: EventFd, memory: Directory },
    /// memory.events, and what it said last of kills, here and in cgroups below.
    V2 { events: File, kills: u64 },
}

/// Since it was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oom {
    No,
    Yes,
    /// The cgroup has been removed: there is nothing more to come, and no use in waiting.
    Over,
}

const CONTROL: &str = "memory.oom_control";
const EVENTS: &str = "memory.events";

impl Recorded {
    /// `None`: the container has no cgroup in which memory is counted.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>> {
        if let Some(memory) = self.open("memory")? {
            let told = tell_by_eventfd(&memory).context("no news when memory runs out")?;
            return Ok(Some(OomWatch::V1 { told, memory }));
        }
        let Some(tree) = self.open("")? else { return Ok(None) };
        let events = match tree.open_to_read(EVENTS) {
            Err(Errno::ENOENT | Errno::ENODEV) => return Ok(None),
            events => events.doing("open", tree.path.join(EVENTS).display())?,
        };
        let kills = kills(&events).doing("read", tree.path.join(EVENTS).display())?.unwrap_or_default();
        Ok(Some(OomWatch::V2 { events, kills }))
    }
}

fn tell_by_eventfd(memory: &Directory) -> Result<EventFd, SysError> {
    let told = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).doing("eventfd", "")?;
    let control = memory.open_to_read(CONTROL).doing("open", memory.path.join(CONTROL).display())?;
    let line = format!("{} {}", told.as_raw_fd(), control.as_raw_fd());
    let file = "cgroup.event_control";
    memory.write(file, &line).doing("write", memory.path.join(file).display())?;
    Ok(told)
}

/// `None`: the cgroup is gone. To read from the beginning also makes the kernel tell of the next change.
fn kills(events: &File) -> Result<Option<u64>, Errno> {
    let mut text = [0; 512];
    match events.read_at(&mut text, 0) {
        Ok(length) => Ok(Some(oom_kills_in(&String::from_utf8_lossy(&text[..length])))),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

impl OomWatch {
    /// To be polled for what it asks; any answer is a reason to ask what [`OomWatch::happened`].
    pub fn poll_fd(&self) -> PollFd<'_> {
        match self {
            Self::V1 { told, .. } => PollFd::new(told.as_fd(), PollFlags::POLLIN),
            Self::V2 { events, .. } => PollFd::new(events.as_fd(), PollFlags::POLLPRI),
        }
    }

    pub fn happened(&mut self) -> Result<Oom> {
        match self {
            Self::V1 { told, memory } => {
                let count = match told.read() {
                    Err(Errno::EAGAIN) => 0,
                    count => count.doing("read", "eventfd")?,
                };
                Ok(meaning(count, memory.read(CONTROL).is_err()))
            }
            Self::V2 { events, kills: before } => match kills(events).doing("read", EVENTS)? {
                None => Ok(Oom::Over),
                Some(now) if now > std::mem::replace(before, now) => Ok(Oom::Yes),
                Some(_) => Ok(Oom::No),
            },
        }
    }
}

/// The removal of the cgroup is told once by the same eventfd, some time after its files have gone.
fn meaning(count: u64, removed: bool) -> Oom {
    match (count, removed) {
        (0, false) => Oom::No,
        (2.., _) | (1, false) => Oom::Yes,
        (_, true) => Oom::Over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_eventfd_means() {
        for (count, removed, want) in [
            (0, false, Oom::No),
            (1, false, Oom::Yes),
            (7, false, Oom::Yes),
            (0, true, Oom::Over),
            (1, true, Oom::Over),
            (2, true, Oom::Yes),
        ] {
            assert_eq!(meaning(count, removed), want, "{count} removed: {removed}");
        }
    }

    /// A plain file stands in for the kernel's.
    #[test]
    fn a_kill_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EVENTS);
        let says = |kills: u64| std::fs::write(&path, format!("high 1\nmax 7\noom 2\noom_kill {kills}\n")).unwrap();
        says(3);
        let events = File::open(&path).unwrap();
        let before = kills(&events).unwrap().unwrap();
        let mut watch = OomWatch::V2 { events, kills: before };
        assert_eq!(watch.happened().unwrap(), Oom::No, "what was before is no news");
        says(4);
        assert_eq!(watch.happened().unwrap(), Oom::Yes);
        assert_eq!(watch.happened().unwrap(), Oom::No);
    }
}
