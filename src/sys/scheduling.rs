//! How the kernel shares processors, disks and memory nodes with a process, and which machine it tells it of:
//! sched_setattr(2), ioprio_set(2), set_mempolicy(2), personality(2).

use nix::errno::Errno;

use crate::error::{Doing, SysError};

/// struct sched_attr, as of Linux 5.3: sched_setattr(2).
#[repr(C)]
#[derive(Debug, Default)]
pub struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
    pub util_min: u32,
    pub util_max: u32,
}

/// Of another process, or with 0 of the caller.
pub fn sched_setattr(pid: i32, attr: SchedAttr, policy: &str) -> Result<(), SysError> {
    // Kernels before 5.3 take the longer one too, as long as what they do not know is 0.
    let attr = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attr };
    // SAFETY: the kernel reads `size` bytes of it.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const attr, 0) })
        .map(drop)
        .doing("sched_setattr", policy)
}

/// IOPRIO_WHO_PGRP: uapi/linux/ioprio.h
const PROCESS_GROUP: i32 = 2;

/// Of a process group, or with 0 of the caller's.
pub fn ioprio_set(group: i32, priority: i32, class: &str) -> Result<(), SysError> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS_GROUP, group, priority) })
        .map(drop)
        .doing("ioprio_set", class)
}

/// `mode` with its flags. Bit n of `nodes` is node n.
pub fn set_mempolicy(mode: i32, nodes: &[u64], name: &str) -> Result<(), SysError> {
    // The kernel takes one off: it looks at one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads as many bits as there are, which `nodes` holds; u64 is its unsigned long.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) })
        .map(drop)
        .doing("set_mempolicy", name)
}

pub fn personality(domain: i32) -> Result<(), SysError> {
    // SAFETY: a number only.
    Errno::result(unsafe { libc::personality(domain as libc::c_ulong) }).map(drop).doing("personality", domain)
}
