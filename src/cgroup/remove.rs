//! Removes a container's cgroups, and what the container made below them. A cgroup stays busy for a moment after its
//! last process has ended, so it is tried again until a deadline.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::recorded::{Recorded, RecordedCgroup};
use super::walk::{Visitor, walk};
use crate::error::SysError;

/// What becomes of processes that are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holders {
    Kill,
    /// A create that fails has ended its own already; others may have joined the same cgroup meanwhile.
    Spare,
}

impl Recorded {
    /// Mostly nobody is inside any more and rmdir is all it takes; who still is gets killed. The directories above
    /// stay: another container may use them.
    pub fn remove(&self, patience: Duration, holders: Holders) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        let mut left: Vec<&RecordedCgroup> = self.cgroups.iter().collect();
        let mut failed: Option<Error> = None;
        loop {
            // one that cannot be removed is no reason to leave the others
            left.retain(|cgroup| match cgroup.remove_once() {
                Ok(gone) => !gone,
                Err(error) => {
                    failed.get_or_insert(error);
                    false
                }
            });
            if left.is_empty() {
                return failed.map_or(Ok(()), Err);
            }
            if Instant::now() >= deadline {
                return Err(failed.unwrap_or_else(|| still_held(left[0], patience)));
            }
            if holders == Holders::Kill {
                self.kill_once()?;
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }
}

impl RecordedCgroup {
    /// Whether it is gone.
    fn remove_once(&self) -> Result<bool> {
        // Mostly this is all; what is no cgroup, or has anything inside, is looked at below.
        if unlinkat(AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir).is_ok() {
            return Ok(true);
        }
        let Some((above, name)) = self.above()? else { return Ok(true) };
        let rmdir = || unlinkat(above.as_fd(), name, UnlinkatFlags::RemoveDir);
        let mut result = rmdir();
        if result == Err(Errno::EBUSY) {
            let below = above.below(Path::new(name)).and_then(|directory| walk(&directory, &mut RemoveBelow));
            result = below.and_then(|()| rmdir());
        }
        match result {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(true),
            Err(Errno::EBUSY) => Ok(false),
            Err(errno) => Err(SysError::new("rmdir cgroup", self.path.display(), errno).into()),
        }
    }
}

struct RemoveBelow;

impl Visitor for RemoveBelow {
    fn leave(&mut self, parent: BorrowedFd, name: &CStr) -> Result<(), Errno> {
        match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
            // still in use: the next round tries again
            Err(Errno::EBUSY | Errno::ENOENT) => Ok(()),
            result => result,
        }
    }
}

fn still_held(cgroup: &RecordedCgroup, patience: Duration) -> Error {
    let pids = cgroup.pids().unwrap_or_default();
    let holders = match pids.len() {
        0 => "the kernel, though no process is seen in it".to_string(),
        _ => format!("processes {}", pids.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")),
    };
    anyhow!("cgroup {}: still held after {} s by {holders}", cgroup.path.display(), patience.as_secs())
}
