//! execve(2) and execveat(2) on prepared arrays.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::errno::Errno;

/// A null-terminated array of strings that stay where they are.
struct Pointers(Vec<*const libc::c_char>);

impl Pointers {
    fn to(strings: &[CString]) -> Self {
        Self(strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect())
    }
}

/// Argument and environment arrays, built before the moment when nothing may fail any more.
pub struct Image {
    arguments: Pointers,
    environment: Pointers,
    // what the pointers point into
    strings: (Vec<CString>, Vec<CString>),
}

impl Image {
    pub fn new(arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        Self {
            arguments: Pointers::to(&arguments),
            environment: Pointers::to(&environment),
            strings: (arguments, environment),
        }
    }

    pub fn environment(&self) -> &[CString] {
        &self.strings.1
    }

    /// Returns only on failure.
    pub fn execve(&self, path: &CStr) -> Errno {
        // SAFETY: both arrays end with null and point into strings that `self` owns.
        unsafe { libc::execve(path.as_ptr(), self.arguments.0.as_ptr(), self.environment.0.as_ptr()) };
        Errno::last()
    }

    /// Executes the file that `fd` stands for. Returns only on failure.
    pub fn execveat(&self, fd: BorrowedFd) -> Errno {
        // SAFETY: as above; the empty path with AT_EMPTY_PATH means the descriptor itself.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd.as_raw_fd(),
                c"".as_ptr(),
                self.arguments.0.as_ptr(),
                self.environment.0.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::last()
    }
}
