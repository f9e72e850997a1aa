//! Signal dispositions. What the runtime ignores or blocks must not reach the container.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

use crate::error::{Doing, SysError};

/// Default disposition for every signal, nothing blocked. Rust ignores SIGPIPE at start, and a caller may have ignored
/// or blocked others.
pub fn reset_all() -> Result<(), SysError> {
    let changeable = |signal: &Signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP);
    Signal::iterator().filter(changeable).try_for_each(default_disposition)?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).doing("sigprocmask", "")
}

pub fn default_disposition(signal: Signal) -> Result<(), SysError> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of ours.
    unsafe { sigaction(signal, &default) }.map(drop).doing("sigaction", signal)
}
