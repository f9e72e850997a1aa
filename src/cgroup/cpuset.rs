//! `linux.resources.cpu.cpus` and `mems`. A new v1 cpuset is empty, and nobody can join an empty one: create.rs
//! fills it from its parent before these are written.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::Cpu;

/// The two files, and their names on a mount with the option `noprefix`.
pub const FILES: [(&str, &str); 2] = [("cpuset.cpus", "cpus"), ("cpuset.mems", "mems")];

const CPUS: &[(Errno, &str)] = &[
    (Errno::EACCES, "not all of these CPUs are in the parent cgroup"),
    (Errno::EINVAL, "this host lacks some of these CPUs, or another cgroup has them for itself"),
    (Errno::ERANGE, "this host lacks some of these CPUs"),
];
const MEMS: &[(Errno, &str)] = &[
    (Errno::EACCES, "not all of these memory nodes are in the parent cgroup"),
    (Errno::EINVAL, "this host lacks some of these memory nodes, or another cgroup has them for itself"),
    (Errno::ERANGE, "this host lacks some of these memory nodes"),
];

pub fn v1(cpu: &Cpu) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    for (field, list, (file, bare), meanings) in [
        ("linux.resources.cpu.cpus", &cpu.cpus, FILES[0], CPUS),
        ("linux.resources.cpu.mems", &cpu.mems, FILES[1], MEMS),
    ] {
        let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
        if !is_list(list) {
            bail!("{field}: {list} is not a list such as 0-3,7");
        }
        writes.push(Write::new(field, file, list).on(Errno::ENOENT, Otherwise::File(bare)).meaning(meanings));
    }
    Ok(writes)
}

/// The kernel's list format (cpuset(7)): numbers and ranges; a range may end in `:used/group`.
fn is_list(list: &str) -> bool {
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let element = |element: &str| {
        let (range, pattern) = element.split_once(':').map_or((element, None), |(range, rest)| (range, Some(rest)));
        let range = match range.split_once('-') {
            Some((from, to)) => number(from).zip(number(to)).is_some_and(|(from, to)| from <= to),
            None => number(range).is_some() && pattern.is_none(),
        };
        let pattern = pattern.is_none_or(|pattern| {
            let numbers = pattern.split_once('/').and_then(|(used, group)| number(used).zip(number(group)));
            numbers.is_some_and(|(used, group)| used <= group && group > 0)
        });
        range && pattern
    };
    list.split(',').all(|part| element(part.trim_matches(' ')))
}

#[cfg(test)]
mod tests {
    use super::super::write::shown;
    use super::*;

    #[test]
    fn lists() {
        for (list, good) in [
            ("0", true),
            ("0-3", true),
            ("0-3,7", true),
            ("0-3, 7", true),
            ("1,1", true),
            ("0-15:2/4", true),
            ("3-0", false),
            ("0-3,^2", false),
            ("0-", false),
            ("-1", false),
            ("a", false),
            ("+1", false),
            (",", false),
            ("0,", false),
            (" ", false),
            ("0\n1", false),
            ("0-3\0", false),
            ("0-15:5/4", false),
            ("0-15:2", false),
            ("4:1/2", false),
            ("99999999999", false),
        ] {
            assert_eq!(is_list(list), good, "{list:?}");
        }
    }

    #[test]
    fn values() {
        let cpu = |cpus: Option<&str>, mems: Option<&str>| Cpu {
            cpus: cpus.map(Into::into),
            mems: mems.map(Into::into),
            ..Cpu::default()
        };
        for (cpu, want) in [
            (cpu(None, None), vec![]),
            (cpu(Some(""), Some("")), vec![]),
            (cpu(Some("0-1"), None), vec!["cpuset.cpus = 0-1; ENOENT: cpus"]),
            (cpu(Some("0"), Some("0")), vec!["cpuset.cpus = 0; ENOENT: cpus", "cpuset.mems = 0; ENOENT: mems"]),
        ] {
            assert_eq!(shown(v1(&cpu)), Ok(want.iter().map(|w| w.to_string()).collect()), "{cpu:?}");
        }
        for (bad, says) in [
            (cpu(Some("x"), None), "linux.resources.cpu.cpus: x is not a list"),
            (cpu(None, Some("0-")), "linux.resources.cpu.mems: 0- is not a list"),
        ] {
            let error = shown(v1(&bad)).unwrap_err();
            assert!(error.starts_with(says), "{bad:?}: {error}");
        }
    }
}
