//! A filter that comes as it is, by an annotation: base64 of what seccomp(2) gets. It takes the place of all rules;
//! flags and listener of `linux.seccomp` stay. What is taken are the instructions that [`super::interpret`] knows, which
//! are those that compilers of filters use: so it is checked as one of rrun's own before anything is made.

use anyhow::{Context, Result, bail, ensure};
use libc::sock_filter;

use super::interpret::code::{ALWAYS, AND, ANY_BIT_SET, EQUAL, GREATER, GREATER_OR_EQUAL, LOAD, RETURN};
use super::profile::{self, action};
use super::{Filter, Listener};
use crate::plan::problems::Problems;
use crate::plan::spec::seccomp::Seccomp;

/// BPF_MAXINSNS
const LONGEST: usize = 4096;
/// sizeof(struct sock_filter)
const INSTRUCTION: usize = 8;
/// sizeof(struct seccomp_data)
const DATA: u32 = 64;

/// One that the kernel takes.
pub fn decode(text: &str) -> Result<Vec<sock_filter>> {
    let bytes = base64(text).context("is no base64; encode the bytes of the filter so")?;
    ensure!(
        !bytes.is_empty() && bytes.len().is_multiple_of(INSTRUCTION),
        "has {} bytes; a filter is made of instructions of {INSTRUCTION} bytes",
        bytes.len()
    );
    let program: Vec<_> = bytes.chunks_exact(INSTRUCTION).map(instruction).collect();
    ensure!(program.len() <= LONGEST, "has {} instructions; the kernel takes {LONGEST}", program.len());
    for (at, instruction) in program.iter().enumerate() {
        check(instruction, program.len() - at - 1).with_context(|| format!("instruction {at}"))?;
    }
    Ok(program)
}

/// In the byte order of the machine, as the kernel reads it.
fn instruction(bytes: &[u8]) -> sock_filter {
    let [c, d, jt, jf, k @ ..] = bytes else { unreachable!("a whole one") };
    let k = k.try_into().map(u32::from_ne_bytes).unwrap_or_default();
    sock_filter { code: u16::from_ne_bytes([*c, *d]), jt: *jt, jf: *jf, k }
}

/// `left`: how many follow it. All jumps lead forward, so a program ends when none leads out of it.
fn check(instruction: &sock_filter, left: usize) -> Result<()> {
    let sock_filter { code, jt, jf, k } = *instruction;
    let farthest = match u32::from(code) {
        RETURN => return Ok(()),
        LOAD => {
            ensure!(k < DATA && k.is_multiple_of(4), "loads a word at {k}, where a system call has none");
            0
        }
        AND => 0,
        ALWAYS => k as usize,
        EQUAL | GREATER | GREATER_OR_EQUAL | ANY_BIT_SET => jt.max(jf).into(),
        code => bail!(
            "has the code {code:#x}, which rrun does not take: it takes those that load, and, compare, jump, return"
        ),
    };
    ensure!(farthest < left, "leads out of the filter; the last one must return");
    Ok(())
}

pub(super) fn plan(written: &Seccomp, program: &[sock_filter]) -> Result<Filter> {
    let mut filter = Filter {
        instructions: program.len(),
        program: program.to_vec(),
        default: String::new(),
        architectures: Vec::new(),
        flags: Vec::new(),
        unknown_names: Vec::new(),
        listener: None,
    };
    let notifies = filter.verdicts().any(|verdict| action(verdict) == libc::SECCOMP_RET_USER_NOTIF);
    let mut problems = Problems::default();
    profile::check_listener(written, notifies, &mut problems);
    filter.flags = problems.take(profile::flags(written.flags.as_deref(), notifies)).words();
    filter.listener = Listener::of(written).filter(|_| notifies);
    problems.result(filter)
}

/// `None`: something else is in it. Padding may be left out.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut held, mut bits) = (0_u32, 0);
    for letter in text.trim_ascii().trim_end_matches('=').bytes() {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    // of a letter that is cut off
    (bits < 6).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::own_calls::{After, check as check_own_calls};
    use super::*;

    /// `code jt jf k`
    fn encoded(program: &[(u16, u8, u8, u32)]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let bytes = program.iter().flat_map(|(code, jt, jf, k)| {
            code.to_ne_bytes().into_iter().chain([*jt, *jf]).chain(k.to_ne_bytes()).collect::<Vec<_>>()
        });
        let bytes: Vec<u8> = bytes.collect();
        let letters = bytes.chunks(3).flat_map(|chunk| {
            let whole = chunk.iter().fold(0, |whole, byte| whole << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            (0..=chunk.len()).map(move |n| char::from(LETTERS[(whole >> (18 - 6 * n) & 63) as usize]))
        });
        letters.collect()
    }

    const LOAD_NUMBER: (u16, u8, u8, u32) = (0x20, 0, 0, 0);
    const ALLOW: (u16, u8, u8, u32) = (0x06, 0, 0, libc::SECCOMP_RET_ALLOW);

    fn refusing(number: i64, verdict: u32) -> Vec<sock_filter> {
        decode(&encoded(&[LOAD_NUMBER, (0x15, 0, 1, number as u32), (0x06, 0, 0, verdict), ALLOW])).unwrap()
    }

    #[test]
    fn bytes_by_four_letters() {
        for (text, want) in [
            ("", Some(&b""[..])),
            ("YQ==", Some(b"a")),
            ("YWI", Some(b"ab")),
            ("YWJj\n", Some(b"abc")),
            ("//79+A==", Some(b"\xff\xfe\xfd\xf8")),
            ("Y", None),
            ("YW-j", None),
            ("YQ==YQ==", None),
        ] {
            assert_eq!(base64(text).as_deref(), want, "{text:?}");
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_before() {
        for (program, want) in [
            ("", "has 0 bytes"),
            ("BgAAAAAA", "has 6 bytes"),
            ("#", "is no base64"),
            (&encoded(&vec![ALLOW; 4097]), "has 4097 instructions"),
            (&encoded(&[LOAD_NUMBER]), "instruction 0: leads out of the filter"),
            (&encoded(&[(0x20, 0, 0, 64), ALLOW]), "instruction 0: loads a word at 64"),
            (&encoded(&[(0x20, 0, 0, 2), ALLOW]), "instruction 0: loads a word at 2"),
            (&encoded(&[LOAD_NUMBER, (0x15, 0, 1, 0), ALLOW]), "instruction 1: leads out"),
            (&encoded(&[(0x05, 0, 0, u32::MAX), ALLOW]), "instruction 0: leads out"),
            (&encoded(&[(0x28, 0, 0, 0), ALLOW]), "instruction 0: has the code 0x28"),
            (&encoded(&[(0x16, 0, 0, 0)]), "instruction 0: has the code 0x16"),
        ] {
            let error = format!("{:#}", decode(program).unwrap_err());
            assert!(error.starts_with(want), "{error}");
        }
        assert_eq!(decode(&encoded(&[LOAD_NUMBER, (0x15, 0, 1, 0), ALLOW, ALLOW])).unwrap().len(), 4);
    }

    #[test]
    fn what_init_still_calls_is_looked_at_as_in_any_filter() {
        let after = After { no_new_privileges: true, start_hooks: false, late_scheduler: false };
        for (number, verdict, want) in [
            (libc::SYS_read, libc::SECCOMP_RET_KILL_PROCESS, Some("linux.seccomp: read gets SCMP_ACT_KILL_PROCESS")),
            (libc::SYS_mkdir, libc::SECCOMP_RET_KILL_PROCESS, None),
        ] {
            let filter = plan(&Seccomp::default(), &refusing(number, verdict)).unwrap();
            let checked = check_own_calls(&filter, after, &mut Vec::new());
            let error = checked.err().map(|error| error.to_string());
            assert_eq!(error.is_some(), want.is_some(), "{error:?}");
            assert!(want.is_none_or(|want| error.unwrap().starts_with(want)));
        }
    }

    #[test]
    fn flags_and_listener_are_those_of_the_config() {
        let written = |value: serde_json::Value| serde_json::from_value::<Seccomp>(value).unwrap();
        let asking = refusing(libc::SYS_mkdir, libc::SECCOMP_RET_USER_NOTIF);
        let log = written(json!({"flags": ["SECCOMP_FILTER_FLAG_LOG"], "listenerPath": "/run/agent"}));
        let filter = plan(&log, &asking).unwrap();
        assert_eq!(filter.flags(), libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
        assert_eq!(filter.listener.unwrap().path.to_str(), Some("/run/agent"));
        let silent = plan(&log, &refusing(libc::SYS_mkdir, libc::SECCOMP_RET_ERRNO)).unwrap();
        assert!(silent.listener.is_none(), "nobody is asked");
        let error = plan(&Seccomp::default(), &asking).unwrap_err().to_string();
        assert!(error.starts_with("linux.seccomp.listenerPath: missing"), "{error}");
    }
}
