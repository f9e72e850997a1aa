//! `linux.resources.devices` on cgroup v2, which has no files for it: a program of eBPF that the kernel asks about each
//! open and mknod. What the rules mean is told by `devices`; here it is put into instructions and hung onto a cgroup.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use serde::{Serialize, Serializer};

use super::devices::{self, ALL, Group, KINDS, Kind, M, R, W};
use crate::error::{Doing, SysError};
use crate::plan::spec::resources::DeviceRule;
use crate::sys::bpf::{self, Instruction, Program};
use crate::{host, log};

const FIELD: &str = "linux.resources.devices";
/// By it our own programs are known from those of others, such as systemd.
const NAME: &CStr = c"rrun_devices";

/// What is allowed of which devices, in the order in which they are looked at: the first that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFilter(Vec<Group>);

impl DeviceFilter {
    pub fn new(rules: &[DeviceRule]) -> Result<Self> {
        let mut kept: Vec<Group> = Vec::new();
        // The wide ones come first. One that says what the next wider one says is left out.
        for group in devices::effective(rules)? {
            let without = kept.iter().rev().find(|wide| wide.is_wider_than(&group));
            if without.is_none_or(|wide| wide.allowed != group.allowed) {
                kept.push(group);
            }
        }
        kept.reverse();
        Ok(Self(kept))
    }

    pub fn allows_everything(&self) -> bool {
        self.0.iter().all(|group| group.allowed == ALL)
    }

    /// What is loaded.
    pub fn program(&self) -> Result<Vec<Instruction>> {
        let mut program = entry();
        for kind in KINDS {
            let mut section = Vec::new();
            for group in self.0.iter().filter(|group| group.kind == kind) {
                section.extend(decision(group)?);
            }
            program.push(unless(TYPE, number_of(kind), section.len())?);
            program.extend(section);
        }
        program.extend([set(RESULT, 0), EXIT]);
        Ok(program)
    }
}

/// As `rrun plan` prints it: `c 10:229 rw`.
impl Serialize for DeviceFilter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|group| group.shown().trim_end().to_string()))
    }
}

/// Hangs the filter onto a cgroup in place of an earlier one of ours. At no moment is more or less allowed than by one
/// of the two. Filters of others stay; the kernel allows what all of them allow.
pub fn attach(cgroup: BorrowedFd, filter: &DeviceFilter) -> Result<()> {
    match change(cgroup, filter) {
        // Without root's rights no device node can be made either: what is there, the host's file modes guard.
        Err(error) if is_denied(&error) && host::rootless()? => {
            log::debug(format_args!("{FIELD}: left out, as it takes root: {error:#}"));
            Ok(())
        }
        result => result.context(FIELD),
    }
}

fn change(cgroup: BorrowedFd, filter: &DeviceFilter) -> Result<()> {
    let old = bpf::attached(cgroup, NAME)?;
    if !filter.allows_everything() {
        let new = bpf::load_device_filter(&filter.program()?, NAME)?;
        match old.as_slice() {
            [old] => match bpf::replace(cgroup, &new, old) {
                // a kernel before 5.6
                Err(Errno::EINVAL) => bpf::attach(cgroup, &new),
                result => return Ok(result.doing("bpf attach", "the device filter")?),
            },
            _ => bpf::attach(cgroup, &new),
        }
        .doing("bpf attach", "the device filter")?;
    }
    old.iter().try_for_each(|old| detach(cgroup, old))
}

fn detach(cgroup: BorrowedFd, program: &Program) -> Result<()> {
    match bpf::detach(cgroup, program) {
        // somebody else was quicker
        Err(Errno::ENOENT) => Ok(()),
        result => Ok(result.doing("bpf detach", "the earlier device filter")?),
    }
}

fn is_denied(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SysError>().is_some_and(|error| error.errno == Errno::EPERM)
}

// The program. The kernel hands over struct bpf_cgroup_dev_ctx { access << 16 | type, major, minor } and reads the
// result from register 0: 1 allows.

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// include/uapi/linux/bpf_common.h and bpf.h: class, operation or size, and where the second operand is.
const LOAD_WORD: u8 = 0x61; // LDX | W | MEM
const SET: u8 = 0xb4; // ALU | MOV | K
const COPY: u8 = 0xbc; // ALU | MOV | X
const AND: u8 = 0x54; // ALU | AND | K
const SHIFT_RIGHT: u8 = 0x74; // ALU | RSH | K
const JUMP_IF_EQUAL: u8 = 0x15; // JMP | JEQ | K
const JUMP_UNLESS_EQUAL: u8 = 0x55; // JMP | JNE | K

const EXIT: Instruction = Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 };

fn entry() -> Vec<Instruction> {
    vec![
        load(TYPE, 0),
        Instruction { code: COPY, registers: ACCESS | TYPE << 4, offset: 0, immediate: 0 },
        with(AND, TYPE, 0xffff),
        with(SHIFT_RIGHT, ACCESS, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ]
}

/// For the devices of one group the verdict; for others it goes on behind.
fn decision(group: &Group) -> Result<Vec<Instruction>> {
    let mut decision = verdict(group.allowed);
    for (register, number) in [(MINOR, group.minor), (MAJOR, group.major)] {
        if let Some(number) = number {
            decision.insert(0, unless(register, number as i32, decision.len())?);
        }
    }
    Ok(decision)
}

/// Everything that is asked for must be allowed.
fn verdict(allowed: u8) -> Vec<Instruction> {
    if allowed == ALL {
        return vec![set(RESULT, 1), EXIT];
    }
    let jump = Instruction { code: JUMP_IF_EQUAL, registers: ACCESS, offset: 1, immediate: 0 };
    vec![with(AND, ACCESS, !kernels(allowed)), set(RESULT, 1), jump, set(RESULT, 0), EXIT]
}

/// BPF_DEVCG_ACC_*: MKNOD, READ, WRITE.
fn kernels(access: u8) -> i32 {
    [(M, 1), (R, 2), (W, 4)].iter().filter(|(bit, _)| access & bit != 0).map(|(_, bit)| bit).sum()
}

/// BPF_DEVCG_DEV_*
fn number_of(kind: Kind) -> i32 {
    match kind {
        Kind::Block => 1,
        Kind::Char => 2,
    }
}

fn load(register: u8, offset: i16) -> Instruction {
    Instruction { code: LOAD_WORD, registers: register | CONTEXT << 4, offset, immediate: 0 }
}

fn set(register: u8, value: i32) -> Instruction {
    with(SET, register, value)
}

fn with(code: u8, register: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate }
}

fn unless(register: u8, value: i32, skipped: usize) -> Result<Instruction> {
    match i16::try_from(skipped) {
        Ok(offset) => Ok(Instruction { code: JUMP_UNLESS_EQUAL, registers: register, offset, immediate: value }),
        Err(_) => bail!("{FIELD}: are too many for one program; use wide rules in place of single ones"),
    }
}

#[cfg(test)]
mod tests;
