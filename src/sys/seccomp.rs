//! seccomp(2): loads a filter. What it means is none of this module's business.

use libc::sock_filter;
use nix::errno::Errno;

use crate::error::{Doing, SysError};

/// Needs no_new_privs or CAP_SYS_ADMIN. The kernel opens a listener, if `flags` ask for one, under the lowest number that
/// is free, close-on-exec; it stays open until then: to close it would be a call that the filter judges.
pub fn load(program: &[sock_filter], flags: u64) -> Result<(), SysError> {
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `filter` and the program, and writes to neither.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags as libc::c_ulong, &raw const filter)
    })
    .map(drop)
    .doing("seccomp", "the filter")
}
