//! The table of descriptors: closing what must not reach the container.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use crate::error::{Doing, SysError};

/// Closes every descriptor from `first` up, except those in `keep`.
pub fn close_all_but(first: RawFd, keep: &[BorrowedFd]) -> Result<(), SysError> {
    let mut kept: Vec<RawFd> = keep.iter().map(|fd| fd.as_raw_fd()).filter(|fd| *fd >= first).collect();
    kept.sort_unstable();
    let mut from = first;
    for fd in kept {
        if fd > from {
            close_range(from, fd as u32 - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: RawFd, last: u32) -> Result<(), SysError> {
    // SAFETY: closes descriptors that the caller says nobody uses any more; it is called right before an execve or an
    // exit, so no owner's Drop runs on a number that was given away meanwhile.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first as u32, last, 0) })
        .map(drop)
        .doing("close_range", format_args!("{first}.."))
}

/// Whether `number` is open and comes from the caller: all that rrun opens is close-on-exec, and what outlived the execve
/// that started it is not.
pub fn is_inherited(number: RawFd) -> bool {
    // SAFETY: reads a flag of whatever the number stands for, if anything.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Closes this process's copies of descriptors that came from the caller.
pub fn close_inherited(first: RawFd, end: RawFd) {
    for number in (first..end).take_while(|number| is_inherited(*number)) {
        // SAFETY: no type owns what the caller left open.
        unsafe { libc::close(number) };
    }
}

/// The caller's stdin, stdout and stderr. Those that were closed at start are /dev/null (start.rs).
pub fn stdio() -> [BorrowedFd<'static>; 3] {
    // SAFETY: 0 to 2 are open for the whole life of the process; they are replaced (dup2), never closed.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Makes `fd` the descriptor `number` (0 to 2), without close-on-exec.
pub fn install(fd: &impl AsFd, number: RawFd) -> Result<(), SysError> {
    // SAFETY: dup2 replaces one of the standard descriptors, which no type owns.
    Errno::result(unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) }).map(drop).doing("dup2", number)
}

/// Bytes that wait in a pipe or FIFO: FIONREAD.
pub fn bytes_waiting(fd: BorrowedFd) -> Result<usize, SysError> {
    let mut waiting: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int.
    Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD as _, &raw mut waiting) })
        .doing("ioctl FIONREAD", "")?;
    Ok(waiting.max(0) as usize)
}

/// Makes these the descriptors from `first` on, without close-on-exec, and closes all behind them. For a process that is
/// about to execute another program.
pub fn install_all(first: RawFd, given: &[BorrowedFd]) -> Result<(), SysError> {
    let end = first + given.len() as RawFd;
    let mut moved = Vec::with_capacity(given.len());
    for fd in given {
        // beyond the numbers that are written over
        // SAFETY: numbers only; the copy is this process's until it executes, and closed then.
        let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, end) };
        moved.push(Errno::result(copy).doing("dup", fd.as_raw_fd())?);
    }
    for (number, copy) in (first..).zip(moved) {
        // SAFETY: nobody here uses what had that number any more: only the execve follows.
        Errno::result(unsafe { libc::dup2(copy, number) }).doing("dup2", number)?;
    }
    close_all_but(end, &[])
}

/// What the caller left open under `number` becomes ours. It may be a standard file.
pub fn take_inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: reads flags of whatever the number stands for, if anything; and no type owns what the caller left open.
    is_inherited(number).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}
