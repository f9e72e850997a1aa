//! Runs a filter on one call, as the kernel would: what becomes of the calls that init still makes, and the tests'
//! judge. Knows the instructions that filters use, and no others.

use libc::sock_filter;

use self::code::{ALWAYS, AND, ANY_BIT_SET, EQUAL, GREATER, GREATER_OR_EQUAL, LOAD, RETURN};
use super::profile::Verdict;

/// struct seccomp_data
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Data {
    pub number: u32,
    pub arch: u32,
    pub instruction_pointer: u64,
    pub arguments: [u64; 6],
}

impl Data {
    /// A 32-bit word, as a little-endian machine has it.
    fn word(&self, offset: u32) -> Option<u32> {
        let half = |whole: u64| if offset.is_multiple_of(8) { whole as u32 } else { (whole >> 32) as u32 };
        match offset {
            0 => Some(self.number),
            4 => Some(self.arch),
            8 | 12 => Some(half(self.instruction_pointer)),
            16..64 if offset.is_multiple_of(4) => Some(half(self.arguments[(offset as usize - 16) / 8])),
            _ => None,
        }
    }
}

/// What an instruction does: `code` of struct sock_filter, linux/bpf_common.h.
pub mod code {
    pub const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    pub const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
    pub const ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
    pub const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    pub const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
    pub const GREATER_OR_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    pub const ANY_BIT_SET: u32 = libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K;
    pub const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Instructions executed.
    pub steps: u32,
    /// Whether more than the number and the architecture was looked at.
    pub saw_arguments: bool,
}

/// `None`: the kernel would not have taken the program.
pub fn run(program: &[sock_filter], data: &Data) -> Option<Outcome> {
    let (mut at, mut steps, mut accumulator, mut saw_arguments) = (0_usize, 0, 0, false);
    loop {
        let instruction = program.get(at)?;
        let operand = instruction.k;
        steps += 1;
        at += 1;
        let holds = match u32::from(instruction.code) {
            LOAD => {
                accumulator = data.word(operand)?;
                saw_arguments |= operand >= 8;
                continue;
            }
            AND => {
                accumulator &= operand;
                continue;
            }
            ALWAYS => {
                at = at.checked_add(operand as usize)?;
                continue;
            }
            RETURN => return Some(Outcome { verdict: operand, steps, saw_arguments }),
            EQUAL => accumulator == operand,
            GREATER => accumulator > operand,
            GREATER_OR_EQUAL => accumulator >= operand,
            ANY_BIT_SET => accumulator & operand != 0,
            _ => return None,
        };
        at += usize::from(if holds { instruction.jt } else { instruction.jf });
    }
}
