//! prlimit(2) by number: the names that libc gives to resources differ in type between targets.

use nix::errno::Errno;

use crate::error::{Doing, SysError};

#[repr(C)]
struct Limit {
    soft: u64,
    hard: u64,
}

pub fn set(resource: u32, soft: u64, hard: u64, name: &str) -> Result<(), SysError> {
    set_of(0, resource, soft, hard, name)
}

/// Of another process; 0 is the caller itself.
pub fn set_of(pid: i32, resource: u32, soft: u64, hard: u64, name: &str) -> Result<(), SysError> {
    let limit = Limit { soft, hard };
    let old = std::ptr::null_mut::<Limit>();
    // SAFETY: rlimit64 is two u64; it outlives the call, and the old value is not asked for.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, pid, resource, &raw const limit, old) })
        .map(drop)
        .doing("setrlimit", name)
}

/// Soft and hard.
pub fn get(resource: u32, name: &str) -> Result<(u64, u64), SysError> {
    let mut limit = Limit { soft: 0, hard: 0 };
    let new = std::ptr::null::<Limit>();
    // SAFETY: as above, the other way round.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, &raw mut limit) })
        .doing("getrlimit", name)?;
    Ok((limit.soft, limit.hard))
}
