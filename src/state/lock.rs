//! The lock of a container: held around reading, deciding and recording, never across anything that waits.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat, major, minor};

use super::directory::Directory;
use crate::error::{Doing, SysError};

const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// Released when dropped. A descriptor of its own: a flock belongs to the open file, so it must not be one that a
/// child inherits and keeps.
pub struct Lock {
    _held: Flock<std::os::fd::OwnedFd>,
}

impl Directory {
    /// Opens ROOT/ID and locks it; `None` where there is no such container. What was locked may have been deleted and
    /// made anew while we waited: then it is done again with the new one.
    pub fn open_locked(root: &Path, id: &str) -> Result<Option<(Self, Lock)>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Some(directory) = Self::open(root, id)? else { return Ok(None) };
            let lock = directory.lock_until(deadline)?;
            if directory.is_current()? {
                return Ok(Some((directory, lock)));
            }
        }
    }

    /// The process that holds the lock at this moment.
    pub fn locked_by(&self) -> Option<i32> {
        holder_of(&self.as_fd())
    }

    pub fn lock(&self) -> Result<Lock> {
        self.lock_until(Instant::now() + PATIENCE)
    }

    fn lock_until(&self, deadline: Instant) -> Result<Lock> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut fd = openat(self.as_fd(), ".", flags, Mode::empty()).doing("open", self.path().display())?;
        loop {
            match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(Lock { _held: held }),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => fd = back,
                Err((back, Errno::EWOULDBLOCK)) => {
                    bail!("the container is locked by {}; wait for it or end it", holder(&back))
                }
                Err((_, errno)) => return Err(SysError::new("flock", self.path().display(), errno).into()),
            }
            sleep(PAUSE);
        }
    }
}

/// Who holds the lock, from proc_locks(5).
fn holder_of(fd: &impl AsFd) -> Option<i32> {
    let stat = fstat(fd).ok()?;
    let inode = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    holder_in(&std::fs::read_to_string("/proc/locks").ok()?, &inode)
}

/// Its pid and what it was called with.
fn holder(fd: &impl AsFd) -> String {
    match holder_of(fd) {
        Some(pid) => {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            format!("process {pid} ({})", words.join(" ").trim())
        }
        None => "another rrun".into(),
    }
}

/// `1: FLOCK  ADVISORY  WRITE 123 fe:00:456 0 EOF`; a line with `->` waits.
fn holder_in(locks: &str, inode: &str) -> Option<i32> {
    locks.lines().filter(|line| !line.contains("->")).find_map(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&inode)).then(|| fields[4].parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_named() {
        let locks = "1: POSIX  ADVISORY  WRITE 99 00:19:7 0 EOF\n2: FLOCK  ADVISORY  WRITE 123 00:19:7 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 124 00:19:7 0 EOF\n";
        assert_eq!(holder_in(locks, "00:19:7"), Some(123));
        assert_eq!(holder_in(locks, "00:19:8"), None);
    }

    #[test]
    fn a_directory_made_anew_is_another() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::create(root.path(), "c1").unwrap();
        let lock = first.lock().unwrap();
        assert!(Directory::create(root.path(), "c1").is_err(), "claimed twice");
        first.remove().unwrap();
        let second = Directory::create(root.path(), "c1").unwrap();
        assert!(!first.is_current().unwrap() && second.is_current().unwrap());
        assert!(Directory::open_locked(root.path(), "c1").unwrap().is_some(), "the old lock held the new directory");
        drop(lock);
    }
}
