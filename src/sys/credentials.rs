//! Ids and capabilities of the calling thread, by raw calls: libc's wrappers would signal other threads first, and
//! rrun has none.

use nix::errno::Errno;

use crate::error::{Doing, SysError};

pub fn set_groups(groups: &[u32]) -> Result<(), SysError> {
    // SAFETY: pointer and length describe `groups`.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
        .map(drop)
        .doing("setgroups", format_args!("{groups:?}"))
}

/// Real, effective and saved group.
pub fn set_gid(gid: u32) -> Result<(), SysError> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop).doing("setresgid", gid)
}

/// Real, effective and saved user.
pub fn set_uid(uid: u32) -> Result<(), SysError> {
    // SAFETY: no pointers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop).doing("setresuid", uid)
}

/// The ids by which the file system judges this thread; returns the previous one. Never fails aloud.
pub fn set_fsuid(uid: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_setfsuid, uid) as u32 }
}

pub fn set_fsgid(gid: u32) -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::syscall(libc::SYS_setfsgid, gid) as u32 }
}

/// The three sets that capget(2) and capset(2) know; bit n is capability n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// _LINUX_CAPABILITY_VERSION_3: two words per set.
const VERSION_3: u32 = 0x2008_0522;

pub fn capget() -> Result<CapabilitySets, SysError> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut words = [Word::default(); 2];
    // SAFETY: version 3 takes a header and two words, both of which outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) })
        .doing("capget", "")?;
    let join = |part: fn(&Word) -> u32| part(&words[0]) as u64 | (part(&words[1]) as u64) << 32;
    Ok(CapabilitySets {
        effective: join(|w| w.effective),
        permitted: join(|w| w.permitted),
        inheritable: join(|w| w.inheritable),
    })
}

pub fn capset(sets: CapabilitySets) -> Result<(), SysError> {
    let header = Header { version: VERSION_3, pid: 0 };
    let word = |shift: u32| Word {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let words = [word(0), word(32)];
    // SAFETY: as in capget.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) })
        .map(drop)
        .doing("capset", "")
}

/// The highest capability that this kernel knows: beyond it prctl(2) refuses. None of `bounding` is above it, and mostly
/// it is among them.
pub fn last_capability(bounding: u64) -> u8 {
    let first = bounding.checked_ilog2().unwrap_or(0) as u8;
    let known = |n: &u8| prctl(libc::PR_CAPBSET_READ, *n as u64, 0).is_ok();
    (first + 1..64).take_while(known).last().unwrap_or(first)
}

pub fn drop_from_bounding_set(capability: u8) -> Result<(), SysError> {
    prctl(libc::PR_CAPBSET_DROP, capability as u64, 0).map(drop).doing("prctl PR_CAPBSET_DROP", capability)
}

pub fn clear_ambient() -> Result<(), SysError> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0)
        .map(drop)
        .doing("prctl PR_CAP_AMBIENT", "clear")
}

pub fn raise_ambient(capability: u8) -> Result<(), SysError> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability as u64)
        .map(drop)
        .doing("prctl PR_CAP_AMBIENT", capability)
}

/// Keeps the permitted set over a change of uid, until the next execve.
pub fn keep_capabilities(keep: bool) -> Result<(), SysError> {
    prctl(libc::PR_SET_KEEPCAPS, keep as u64, 0).map(drop).doing("prctl PR_SET_KEEPCAPS", keep)
}

fn prctl(option: libc::c_int, argument: u64, second: u64) -> Result<libc::c_int, Errno> {
    // SAFETY: the options above take numbers, no pointers; the rest must be 0.
    Errno::result(unsafe { libc::prctl(option, argument, second, 0u64, 0u64) })
}
