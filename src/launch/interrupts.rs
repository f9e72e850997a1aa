//! Signals to rrun itself, taken as events: nothing runs at an arbitrary point, so nothing half-made stays behind.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Doing, SysError};
use crate::hooks::Stop;
use crate::sys::signals;

/// While it lives every signal waits for `next`. The child undoes the mask before its program runs.
pub struct Interrupts {
    signals: SignalFd,
    before: SigSet,
}

impl Interrupts {
    pub fn take() -> Result<Self, SysError> {
        // A caller may ignore it, and then the kernel would not keep the exit status of init for us.
        signals::default_disposition(Signal::SIGCHLD)?;
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before)).doing("sigprocmask", "")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&SigSet::all(), flags).doing("signalfd", "")?;
        Ok(Self { signals, before })
    }

    /// The number of a signal that waits; real-time signals have no name.
    pub fn next(&self) -> Result<Option<i32>, SysError> {
        loop {
            match self.signals.read_signal() {
                Ok(signal) => return Ok(signal.map(|signal| signal.ssi_signo as i32)),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(SysError::new("read", "signalfd", errno)),
            }
        }
    }

    /// A signal that asks rrun to end.
    pub fn end_asked(&self) -> Result<Option<Signal>, SysError> {
        while let Some(number) = self.next()? {
            let ends = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
            if let Some(signal) = ends.into_iter().find(|signal| *signal as i32 == number) {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }
}

/// A signal that ends rrun ends the hook that it waits for.
impl Stop for Interrupts {
    fn fd(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn asked(&self) -> Result<Option<String>> {
        Ok(self.end_asked()?.map(|signal| signal.to_string()))
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // What the mask was is a valid mask.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}
