//! A program as text, for a person: one instruction a line, with the names of calls beside their numbers.

use std::fmt::Write;

use libc::sock_filter;

use super::calls::{Arch, Family, X32_BIT};
use super::interpret::code::{ALWAYS, AND, ANY_BIT_SET, EQUAL, GREATER, GREATER_OR_EQUAL, LOAD, RETURN};
use super::profile::{ACTIONS, Verdict, action};

/// `SCMP_ACT_ERRNO 38`
pub fn verdict(verdict: Verdict) -> String {
    // the plain name of two that mean the same
    let name =
        ACTIONS.iter().rev().find(|(_, known)| *known == action(verdict)).map_or("unknown action", |(name, _)| name);
    match verdict & libc::SECCOMP_RET_DATA {
        data if matches!(action(verdict), libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE) => {
            format!("{name} {data}")
        }
        _ => name.into(),
    }
}

pub fn disassemble(program: &[sock_filter], family: &Family) -> String {
    let mut text = String::new();
    let meanings = meanings(program, family);
    for (at, (instruction, meaning)) in program.iter().zip(&meanings).enumerate() {
        let target = |offset: u32| at + 1 + offset as usize;
        let operand = instruction.k;
        let jump = |word: &str| {
            let (yes, no) = (target(instruction.jt.into()), target(instruction.jf.into()));
            format!("{word:4} {:<12} {yes} else {no}", format!("{operand:#x}"))
        };
        let what = match u32::from(instruction.code) {
            LOAD => format!("load {}", field(operand)),
            AND => format!("and  {operand:#x}"),
            RETURN => format!("ret  {}", verdict(operand)),
            ALWAYS => format!("goto {}", target(operand)),
            EQUAL => jump("=="),
            GREATER => jump(">"),
            GREATER_OR_EQUAL => jump(">="),
            ANY_BIT_SET => jump("any"),
            code => format!("unknown {code:#x} {operand:#x}"),
        };
        let comment = comment(*meaning, instruction, family).map(|name| format!("  ; {name}")).unwrap_or_default();
        // a String takes whatever is written to it
        let _ = writeln!(text, "{at:4}  {what}{comment}");
    }
    text
}

fn field(offset: u32) -> String {
    match offset {
        0 => "number".into(),
        4 => "architecture".into(),
        8 | 12 => "instruction pointer".into(),
        _ => format!("argument {}, {} half", (offset - 16) / 8, if offset.is_multiple_of(8) { "low" } else { "high" }),
    }
}

/// What the accumulator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Nothing,
    Architecture,
    /// A number, of the architecture with this token.
    Number(u32),
    Argument,
}

/// Before each instruction. All jumps lead forward, so one pass is enough.
fn meanings(program: &[sock_filter], family: &Family) -> Vec<Meaning> {
    let mut meanings = vec![Meaning::Nothing; program.len()];
    let mut tokens = vec![family.own().token(); program.len()];
    for (at, instruction) in program.iter().enumerate() {
        let (held, token) = (meanings[at], tokens[at]);
        let after = match u32::from(instruction.code) {
            LOAD => match instruction.k {
                0 => Meaning::Number(token),
                4 => Meaning::Architecture,
                _ => Meaning::Argument,
            },
            _ => held,
        };
        let is_jump = u32::from(instruction.code) & 7 == libc::BPF_JMP;
        let always = u32::from(instruction.code) == ALWAYS;
        let targets = match (is_jump, always) {
            (true, true) => [instruction.k as usize; 2],
            (true, false) => [instruction.jt.into(), instruction.jf.into()],
            _ => [0; 2],
        };
        for (branch, target) in targets.into_iter().enumerate() {
            let Some(slot) = meanings.get_mut(at + 1 + target) else { continue };
            *slot = after;
            let told_apart = held == Meaning::Architecture && is_jump && !always && branch == 0;
            tokens[at + 1 + target] = if told_apart { instruction.k } else { token };
        }
    }
    meanings
}

fn comment(meaning: Meaning, instruction: &sock_filter, family: &Family) -> Option<String> {
    let is_compare = u32::from(instruction.code) & 7 == libc::BPF_JMP && instruction.jt != instruction.jf;
    match meaning {
        Meaning::Architecture if is_compare => {
            let named = family.members.iter().filter(|arch| arch.token() == instruction.k).map(|arch| arch.name());
            Some(named.collect::<Vec<_>>().join(", "))
        }
        Meaning::Number(token) if is_compare => {
            let x32 = instruction.k & X32_BIT != 0;
            let mut archs = family.members.iter().filter(|arch| arch.token() == token && (**arch == Arch::X32) == x32);
            archs.find_map(|arch| family.name(instruction.k, *arch)).map(String::from)
        }
        _ => None,
    }
}
