//! A child that may not join a cgroup by itself waits until it has been put there. An ordinary user moves processes only
//! below a cgroup of his own that holds both places, and a login is outside of what his systemd has been given; systemd
//! moves them for him.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Pid, pipe2, read, write};

use crate::error::{Doing, SysError};

/// Has the process of that pid put where it belongs.
pub type Attach<'a> = &'a dyn Fn(Pid) -> anyhow::Result<()>;

/// Closed from the beginning: a pipe that is full. Whoever joins by a write of `0` waits at it as at any other file.
pub struct Gate {
    inside: OwnedFd,
}

/// The least that a pipe has.
const SIZE: usize = 4096;

impl Gate {
    /// And the end for the child.
    pub fn new() -> Result<(Self, OwnedFd), SysError> {
        let (inside, outside) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).doing("pipe2", "")?;
        fcntl(&outside, FcntlArg::F_SETPIPE_SZ(SIZE as i32)).doing("fcntl F_SETPIPE_SZ", "")?;
        loop {
            match write(&outside, &[0; SIZE]) {
                Err(Errno::EAGAIN) => break,
                result => drop(result.doing("write", "pipe")?),
            }
        }
        // what waits is the writer alone
        fcntl(&outside, FcntlArg::F_SETFL(OFlag::empty())).doing("fcntl F_SETFL", "")?;
        Ok((Self { inside }, outside))
    }

    pub fn open(self) -> Result<(), SysError> {
        let mut all = vec![0; SIZE * 64];
        read(self.inside.as_fd(), &mut all).map(drop).doing("read", "pipe")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn nobody_passes_before_it_is_open() {
        let (gate, outside) = Gate::new().unwrap();
        let (told, hear) = mpsc::channel();
        std::thread::spawn(move || told.send(write(&outside, b"0")));
        assert!(hear.recv_timeout(Duration::from_millis(50)).is_err(), "passed a closed gate");
        let kept = gate.inside.try_clone().unwrap();
        gate.open().unwrap();
        assert_eq!(hear.recv_timeout(Duration::from_secs(5)), Ok(Ok(1)));
        drop(kept);
    }
}
