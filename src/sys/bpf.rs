//! bpf(2), as far as device filters of cgroup v2 need it: load a program, see and change which ones a cgroup has.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::limits;
use crate::error::{Doing, SysError};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 1 << 1;
/// Since Linux 5.6.
const F_REPLACE: u32 = 1 << 2;

/// What the kernel takes at most on one cgroup (BPF_CGROUP_MAX_PROGS).
const MOST_PROGRAMS: usize = 64;
const NAME_SIZE: usize = 16;

/// One instruction in the kernel's layout (struct bpf_insn).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// The destination in the lower four bits, the source in the upper ones.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// A loaded program. It lives as long as a descriptor or a cgroup holds it.
#[derive(Debug)]
pub struct Program(OwnedFd);

// The members of union bpf_attr that are used. The kernel takes a shorter one for one that ends in zeros.

#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME_SIZE],
}

#[repr(C)]
struct Attach {
    cgroup: i32,
    program: i32,
    kind: u32,
    flags: u32,
    replaced: i32,
}

#[repr(C)]
struct Query {
    cgroup: i32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    /// Rounds up to the alignment.
    unused: u32,
}

#[repr(C)]
struct ById {
    id: u32,
    next: u32,
    flags: u32,
}

#[repr(C)]
struct InfoOf {
    program: i32,
    size: u32,
    info: u64,
}

/// The beginning of struct bpf_prog_info, up to the name.
#[repr(C)]
#[derive(Default)]
struct Info {
    before: [u64; 8],
    name: [u8; NAME_SIZE],
}

/// A device filter. What the verifier does not like about it stands in the error.
pub fn load_device_filter(instructions: &[Instruction], name: &CStr) -> Result<Program, SysError> {
    let mut loaded = load(instructions, name, &mut []);
    if loaded.as_ref().is_err_and(|errno| *errno == Errno::EPERM) {
        loaded = with_locked_memory(|| load(instructions, name, &mut []));
    }
    loaded.map_err(|errno| {
        let mut log = vec![0; 1 << 16];
        let words = match errno {
            Errno::EINVAL | Errno::EACCES => {
                load(instructions, name, &mut log).map_or_else(|_| last_line(&log), |_| None)
            }
            _ => None,
        };
        SysError::new("bpf load", words.unwrap_or_else(|| name.to_string_lossy().into_owned()), errno)
    })
}

fn load(instructions: &[Instruction], name: &CStr, log: &mut [u8]) -> Result<Program, Errno> {
    let mut load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: [0; NAME_SIZE],
    };
    let name = &name.to_bytes()[..name.count_bytes().min(NAME_SIZE - 1)];
    load.name[..name.len()].copy_from_slice(name);
    // SAFETY: instructions, license and log are as long as is said, and outlive the call.
    unsafe { bpf_to_fd(PROG_LOAD, &mut load) }
}

/// Kernels before 5.11 count programs against RLIMIT_MEMLOCK. Only meanwhile: the container inherits rrun's limits.
fn with_locked_memory<T>(load: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    const RLIMIT_MEMLOCK: u32 = 8;
    const NAME: &str = "RLIMIT_MEMLOCK";
    let (soft, hard) = limits::get(RLIMIT_MEMLOCK, NAME).map_err(|error| error.errno)?;
    limits::set(RLIMIT_MEMLOCK, u64::MAX, u64::MAX, NAME).map_err(|error| error.errno)?;
    let loaded = load();
    limits::set(RLIMIT_MEMLOCK, soft, hard, NAME).map_err(|error| error.errno)?;
    loaded
}

/// Of the verifier's log, where a summary follows what is wrong.
fn last_line(log: &[u8]) -> Option<String> {
    let text = CStr::from_bytes_until_nul(log).ok()?.to_string_lossy();
    let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("processed "));
    lines.next_back().map(|line| format!("({})", line.trim()))
}

/// Adds a program to those that the cgroup has, all of which must allow a device.
pub fn attach(cgroup: BorrowedFd, program: &Program) -> Result<(), Errno> {
    change(PROG_ATTACH, cgroup, program, F_ALLOW_MULTI, None)
}

/// Puts a program in the place of another, at once. Kernels before 5.6 say EINVAL.
pub fn replace(cgroup: BorrowedFd, program: &Program, replaced: &Program) -> Result<(), Errno> {
    change(PROG_ATTACH, cgroup, program, F_ALLOW_MULTI | F_REPLACE, Some(replaced))
}

pub fn detach(cgroup: BorrowedFd, program: &Program) -> Result<(), Errno> {
    change(PROG_DETACH, cgroup, program, 0, None)
}

fn change(
    command: libc::c_int,
    cgroup: BorrowedFd,
    program: &Program,
    flags: u32,
    replaced: Option<&Program>,
) -> Result<(), Errno> {
    let mut attach = Attach {
        cgroup: cgroup.as_raw_fd(),
        program: program.0.as_raw_fd(),
        kind: CGROUP_DEVICE,
        flags,
        replaced: replaced.map_or(0, |replaced| replaced.0.as_raw_fd()),
    };
    // SAFETY: numbers only.
    unsafe { bpf(command, &mut attach) }.map(drop)
}

/// The device filters of the cgroup itself that have this name; those above it are not meant.
pub fn attached(cgroup: BorrowedFd, name: &CStr) -> Result<Vec<Program>, SysError> {
    let mut ids = [0u32; MOST_PROGRAMS];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd(),
        kind: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        unused: 0,
    };
    // SAFETY: `ids` has as many places as is said, and outlives the call.
    unsafe { bpf(PROG_QUERY, &mut query) }.doing("bpf query", "device filters")?;
    let mut programs = Vec::new();
    for id in &ids[..ids.len().min(query.count as usize)] {
        let program = match open(*id) {
            // detached by its owner meanwhile
            Err(Errno::ENOENT) => continue,
            program => program.doing("bpf open", id)?,
        };
        if program.has_name(name).doing("bpf info", id)? {
            programs.push(program);
        }
    }
    Ok(programs)
}

fn open(id: u32) -> Result<Program, Errno> {
    // SAFETY: numbers only.
    unsafe { bpf_to_fd(PROG_GET_FD_BY_ID, &mut ById { id, next: 0, flags: 0 }) }
}

impl Program {
    fn has_name(&self, name: &CStr) -> Result<bool, Errno> {
        let mut info = Info::default();
        let size = size_of_val(&info) as u32;
        let mut of = InfoOf { program: self.0.as_raw_fd(), size, info: &raw mut info as u64 };
        // SAFETY: `info` has the size that is said, all of its bits may be anything, and it outlives the call.
        unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut of) }?;
        Ok(CStr::from_bytes_until_nul(&info.name).is_ok_and(|own| own == name))
    }
}

/// # Safety
/// What `attr` points to must be as long as it says.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> Result<libc::c_long, Errno> {
    // SAFETY: the size is that of `attr`; what it points to is the caller's word.
    Errno::result(unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) })
}

/// # Safety
/// As `bpf`, and the command must be one that returns a new descriptor.
unsafe fn bpf_to_fd<T>(command: libc::c_int, attr: &mut T) -> Result<Program, Errno> {
    // SAFETY: the caller's word.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made it (close-on-exec, as all of bpf's), and nobody else knows it.
    Ok(Program(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_last_word_before_its_summary() {
        for (log, want) in [
            (&b"0: (b7) r0 = 1\nR1 !read_ok\nprocessed 1 insns (limit 1000000)\n\0"[..], Some("(R1 !read_ok)")),
            (b"\0\0", None),
            (b"no end", None),
        ] {
            assert_eq!(last_line(log).as_deref(), want);
        }
    }

    /// Offsets of include/uapi/linux/bpf.h.
    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!((std::mem::offset_of!(Load, log), std::mem::offset_of!(Load, name)), (32, 48));
        assert_eq!((std::mem::offset_of!(Query, ids), std::mem::offset_of!(Query, count)), (16, 24));
        assert_eq!((std::mem::offset_of!(Attach, replaced), std::mem::offset_of!(InfoOf, info)), (16, 8));
        assert_eq!(std::mem::offset_of!(Info, name), 64);
    }
}
