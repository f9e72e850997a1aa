//! Pseudo-terminals: ioctl_tty(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::error::{Doing, SysError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub rows: u16,
    pub columns: u16,
}

/// Opens the other end of a pseudo-terminal by its master alone: no path, so nothing can be put in its place.
pub fn open_peer(master: BorrowedFd) -> Result<OwnedFd, SysError> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let fd = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) })
        .doing("ioctl TIOCGPTPEER", "")?;
    // SAFETY: nobody else knows the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the other end be opened.
pub fn unlock(master: BorrowedFd) -> Result<(), SysError> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const locked) })
        .map(drop)
        .doing("ioctl TIOCSPTLCK", "")
}

/// Makes the terminal the controlling one of this session.
pub fn set_controlling(terminal: BorrowedFd) -> Result<(), SysError> {
    // SAFETY: TIOCSCTTY takes a number.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) })
        .map(drop)
        .doing("ioctl TIOCSCTTY", "")
}

pub fn size(terminal: BorrowedFd) -> Result<Size, SysError> {
    // SAFETY: all-zero is a valid winsize.
    let mut winsize: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: TIOCGWINSZ writes a winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, &raw mut winsize) })
        .doing("ioctl TIOCGWINSZ", "")?;
    Ok(Size { rows: winsize.ws_row, columns: winsize.ws_col })
}

pub fn set_size(terminal: BorrowedFd, size: Size) -> Result<(), SysError> {
    let winsize = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const winsize) })
        .map(drop)
        .doing("ioctl TIOCSWINSZ", "")
}
