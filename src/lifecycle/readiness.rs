//! A start that returns when the program is ready, for a service manager that waits for it: sd_notify(3).

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Doing;
use crate::launch::interrupts::Interrupts;
use crate::notify::Readiness;

/// For the barrier that a sender may raise behind its READY=1: with the socket gone it would fail (systemd-notify(1)).
const LINGER: Duration = Duration::from_millis(100);

/// Without the lock, and without a deadline of its own: the manager has one. A container that ends before it is ready
/// has been started all the same.
pub(super) fn wait(mut readiness: Readiness, init: BorrowedFd, interrupts: Option<&Interrupts>) -> Result<()> {
    let mut until = None;
    while !readiness.is_settled() {
        let left = readiness.is_ready().then(|| {
            let until = *until.get_or_insert_with(|| Instant::now() + LINGER);
            until.saturating_duration_since(Instant::now())
        });
        // not left to poll: a sender that never stops always has something to say
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let mut fds: Vec<_> = [Some(readiness.as_fd()), Some(init), interrupts.map(AsFd::as_fd)]
            .into_iter()
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(0) | Err(Errno::EINTR) => continue,
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
