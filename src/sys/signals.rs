//! Signal dispositions. What the runtime ignores or blocks must not reach the container.

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};

use super::clone::exit_now;
use crate::error::{Doing, SysError};

/// SIGRTMAX of the kernel: signal(7).
const LAST: libc::c_int = 64;

/// `struct sigaction` of the kernel, all zero: default disposition, no flags, empty mask.
#[repr(C, align(8))]
struct Default([u8; 64]);

pub const ALL: u64 = u64::MAX;

/// Default disposition for these signals, of which bit n is signal n + 1, and nothing blocked. rrun ignores
/// SIGPIPE (start.rs), and a caller may have ignored or blocked others.
pub fn reset(signals: u64) -> Result<(), SysError> {
    let default = Default([0; 64]);
    let changes = |signal: &libc::c_int| signals & 1 << (signal - 1) != 0;
    let fixed = |signal: &libc::c_int| matches!(*signal, libc::SIGKILL | libc::SIGSTOP);
    for signal in (1..=LAST).filter(|signal| changes(signal) && !fixed(signal)) {
        // By a raw call: libc keeps some real-time signals for itself and has no names for the others.
        // SAFETY: no kernel's sigaction is larger; the last argument is the size of its mask. No code of ours is run.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null_mut::<Default>(), 8)
        })
        .doing("sigaction", signal)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).doing("sigprocmask", "")
}

/// These end the process, also where it is the first of a pid namespace, to which the kernel sends nothing that it has no
/// handler for. An execve resets them.
pub fn end_at(signals: &[Signal]) -> Result<(), SysError> {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal)
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in signals {
        // SAFETY: the handler makes one system call and never returns.
        unsafe { sigaction(*signal, &action) }.map(drop).doing("sigaction", signal)?;
    }
    Ok(())
}

pub fn default_disposition(signal: Signal) -> Result<(), SysError> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default disposition runs no code of ours.
    unsafe { sigaction(signal, &default) }.map(drop).doing("sigaction", signal)
}

/// While it lives the signal is ignored: a pipe without a reader is then an errno and no end.
pub struct Ignored {
    signal: Signal,
    before: SigAction,
}

impl Ignored {
    pub fn new(signal: Signal) -> Result<Self, SysError> {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: nothing of ours is run by ignoring.
        let before = unsafe { sigaction(signal, &ignore) }.doing("sigaction", signal)?;
        Ok(Self { signal, before })
    }
}

impl Drop for Ignored {
    fn drop(&mut self) {
        // SAFETY: what was in force before; rrun has no handlers.
        let _ = unsafe { sigaction(self.signal, &self.before) };
    }
}
