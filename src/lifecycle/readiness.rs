//! A start that returns when the program is ready, for a service manager that waits for it: sd_notify(3).

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Doing;
use crate::launch::interrupts::Interrupts;
use crate::notify::Readiness;

/// Without the lock, and without a deadline of its own: the manager has one. A container that ends before it is ready
/// has been started all the same.
pub(super) fn wait(mut readiness: Readiness, init: BorrowedFd, interrupts: Option<&Interrupts>) -> Result<()> {
    while let Some(socket) = readiness.awaited() {
        let mut fds: Vec<_> = [Some(socket), Some(init), interrupts.map(AsFd::as_fd)]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.doing("poll", "the container")?,
        };
        let seen: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
        if seen[1] {
            break;
        }
        if let Some(signal) = interrupts.map_or(Ok(None), Interrupts::end_asked)? {
            bail!("ended by {signal} while the program was not ready; everything is taken back");
        }
        if seen[0] {
            readiness.take();
        }
    }
    readiness.finish();
    Ok(())
}
