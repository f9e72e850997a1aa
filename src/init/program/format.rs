//! What kind of file a program is, from its first bytes: elf(5), execve(2) on scripts, binfmt_misc. Pure.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    Elf { machine: u16, interpreter: Option<String> },
    Script { interpreter: String, carriage_return: bool },
    Unknown,
}

pub(super) fn of(head: &[u8]) -> Format {
    if head.starts_with(b"\x7fELF") {
        return elf(head).unwrap_or(Format::Unknown);
    }
    match head.strip_prefix(b"#!") {
        Some(rest) => script(rest).unwrap_or(Format::Unknown),
        None => Format::Unknown,
    }
}

impl Format {
    /// Nothing else has to be there, and be reached, for this host to run it.
    pub(super) fn stands_alone(&self) -> bool {
        match self {
            Self::Elf { machine, interpreter } => runs_here(*machine) && interpreter.is_none(),
            Self::Script { .. } => false,
            Self::Unknown => true,
        }
    }
}

/// `#!`, blanks, the interpreter up to a blank or the end of the line.
fn script(rest: &[u8]) -> Option<Format> {
    let line = rest.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let interpreter = line.trim_start_matches([' ', '\t']).split([' ', '\t']).next()?;
    if interpreter.is_empty() {
        return None;
    }
    // The CR belongs to the name as the kernel reads it: /bin/sh\r is another file than /bin/sh.
    Some(Format::Script { carriage_return: interpreter.ends_with('\r'), interpreter: interpreter.to_string() })
}

/// Numbers of an ELF file in its own byte order and width.
struct Elf<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    wide: bool,
}

impl Elf<'_> {
    fn number(&self, at: usize, width: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(width)?)?;
        let join = |number: u64, byte: &u8| number << 8 | *byte as u64;
        Some(if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) })
    }

    /// One that is 4 bytes wide in a 32-bit file and 8 in a 64-bit one, at the two places.
    fn word(&self, narrow_at: usize, wide_at: usize) -> Option<u64> {
        if self.wide { self.number(wide_at, 8) } else { self.number(narrow_at, 4) }
    }
}

const PT_INTERP: u64 = 3;

fn elf(head: &[u8]) -> Option<Format> {
    let elf = Elf { bytes: head, big_endian: *head.get(5)? == 2, wide: *head.get(4)? == 2 };
    let machine = elf.number(18, 2)? as u16;
    let table = elf.word(28, 32)? as usize;
    let (size_at, count_at) = if elf.wide { (54, 56) } else { (42, 44) };
    let (size, count) = (elf.number(size_at, 2)? as usize, elf.number(count_at, 2)? as usize);
    let interpreter = (0..count).find_map(|n| {
        let entry = table.checked_add(n.checked_mul(size)?)?;
        if elf.number(entry, 4)? != PT_INTERP {
            return None;
        }
        let start = elf.word(entry.checked_add(4)?, entry.checked_add(8)?)? as usize;
        let text = head.get(start..)?;
        let end = text.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&text[..end]).into_owned())
    });
    Some(Format::Elf { machine, interpreter })
}

/// e_machine numbers: elf(5) and the kernel's elf-em.h.
const MACHINES: &[(u16, &str)] = &[
    (3, "x86"),
    (8, "mips"),
    (20, "powerpc"),
    (21, "powerpc64"),
    (22, "s390x"),
    (40, "arm"),
    (62, "x86_64"),
    (183, "aarch64"),
    (243, "riscv64"),
    (258, "loongarch64"),
];

pub(super) fn machine_name(machine: u16) -> String {
    let known = MACHINES.iter().find(|(number, _)| *number == machine);
    known.map_or_else(|| format!("machine number {machine}"), |(_, name)| name.to_string())
}

/// This host's machine, or its 32-bit companion, which the kernel may run too.
pub(super) fn runs_here(machine: u16) -> bool {
    let name = machine_name(machine);
    let companion = match std::env::consts::ARCH {
        "x86_64" => "x86",
        "aarch64" => "arm",
        _ => "",
    };
    name == std::env::consts::ARCH || name == companion
}

/// Whether an entry of /proc/sys/fs/binfmt_misc takes a file that begins so: magic bytes under a mask, at an offset.
pub(super) fn takes(entry: &str, head: &[u8]) -> bool {
    let field = |name| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bytes = |hex: &str| -> Option<Vec<u8>> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
    };
    if !entry.starts_with("enabled") {
        return false;
    }
    let Some(magic) = field("magic ").and_then(bytes) else { return false };
    let mask = field("mask ").and_then(bytes).unwrap_or_else(|| vec![0xff; magic.len()]);
    let offset = field("offset ").and_then(|number| number.parse().ok()).unwrap_or(0);
    let Some(head) = head.get(offset..) else { return false };
    head.len() >= magic.len() && magic.iter().zip(&mask).zip(head).all(|((want, mask), is)| is & mask == want & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        for (head, want) in [
            ("#!/bin/sh\necho", Some(("/bin/sh", false))),
            ("#! /usr/bin/env python3\n", Some(("/usr/bin/env", false))),
            ("#!/bin/bash\r\n", Some(("/bin/bash\r", true))),
            ("#!/bin/bash -e\r\n", Some(("/bin/bash", false))),
            ("#!\n", None),
            ("", None),
            ("echo", None),
        ] {
            let want = want.map_or(Format::Unknown, |(interpreter, carriage_return)| Format::Script {
                interpreter: interpreter.into(),
                carriage_return,
            });
            assert_eq!(of(head.as_bytes()), want, "{head}");
        }
    }

    fn little_elf64(machine: u16, interpreter: Option<&str>) -> Vec<u8> {
        let mut file = vec![0; 64 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32] = 64;
        file[54] = 56;
        file[56] = 1;
        if let Some(interpreter) = interpreter {
            file[64] = PT_INTERP as u8;
            file[72] = 120;
            file.extend(interpreter.bytes().chain([0]));
        }
        file
    }

    #[test]
    fn elf_files() {
        for (machine, interpreter) in [(62, Some("/lib64/ld-linux-x86-64.so.2")), (183, None)] {
            let want = Format::Elf { machine, interpreter: interpreter.map(str::to_string) };
            assert_eq!(of(&little_elf64(machine, interpreter)), want);
        }
        let whole = little_elf64(62, Some("/lib/ld.so"));
        for length in 0..whole.len() {
            of(&whole[..length]); // cut short anywhere, it must not panic
        }
        let mut lies = little_elf64(62, Some("/lib/ld.so"));
        lies[32..40].fill(0xff);
        assert_eq!(of(&lies), Format::Elf { machine: 62, interpreter: None });
    }

    #[test]
    fn a_static_binary_for_this_host_needs_nothing_else() {
        let (own, _) = *MACHINES.iter().find(|(_, name)| *name == std::env::consts::ARCH).unwrap();
        assert!(of(&little_elf64(own, None)).stands_alone());
        for other in [&little_elf64(own, Some("/lib/ld.so"))[..], &little_elf64(22, None), b"#!/bin/sh\n"] {
            assert!(!of(other).stands_alone(), "{other:?}");
        }
    }

    #[test]
    fn binfmt_entries() {
        let entry = "enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic 7f454c4602\nmask ffffffff00\n";
        assert!(takes(entry, b"\x7fELF\x01.."));
        assert!(!takes(entry, b"\x7fEL"));
        assert!(!takes(&entry.replace("enabled", "disabled"), b"\x7fELF\x01"));
        assert!(!takes("enabled\nextension .exe\n", b"\x7fELF\x01"));
    }

    proptest::proptest! {
        /// The image holds the file: its header may say anything.
        #[test]
        fn no_program_is_beyond_reading(start in 0..3usize, rest in proptest::collection::vec(0..=u8::MAX, 0..256)) {
            let head = [[&b"\x7fELF"[..], b"#!", b""][start], &rest].concat();
            let _ = (of(&head).stands_alone(), takes("enabled\noffset 7\nmagic 00ff\nmask ff\n", &head));
        }
    }
}
