//! `linux.resources.cpu.cpus` and `mems`. A new v1 cpuset is empty, and nobody can join an empty one: create.rs
//! fills it from its parent before these are written.

use std::collections::BTreeSet;

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
    let [(cpus, bare_cpus), (mems, bare_mems)] = FILES;
    let cpus = write("linux.resources.cpu.cpus", &cpu.cpus, cpus, CPUS)?;
    let mems = write("linux.resources.cpu.mems", &cpu.mems, mems, MEMS)?;
    let or = |bare| move |write: Write| write.on(Errno::ENOENT, Otherwise::File(bare));
    Ok(cpus.map(or(bare_cpus)).into_iter().chain(mems.map(or(bare_mems))).collect())
}

/// v2 takes any number that the kernel could have, and leaves out what the cgroups above do not allow.
pub fn v2(cpu: &Cpu) -> Result<Vec<Write>> {
    let cpus = write("linux.resources.cpu.cpus", &cpu.cpus, FILES[0].0, CPUS)?;
    let mems = write("linux.resources.cpu.mems", &cpu.mems, FILES[1].0, MEMS)?;
    let effective = |file| move |write: Write| write.effective(file);
    let cpus = cpus.map(effective("cpuset.cpus.effective"));
    Ok(cpus.into_iter().chain(mems.map(effective("cpuset.mems.effective"))).collect())
}

fn write(
    field: &'static str,
    list: &Option<String>,
    file: &'static str,
    meanings: &'static [(Errno, &'static str)],
) -> Result<Option<Write>> {
    let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { return Ok(None) };
    if !is_list(list) {
        bail!("{field}: {list} is not a list such as 0-3,7");
    }
    Ok(Some(Write::new(field, file, list).meaning(meanings)))
}

/// Whether two lists that a kernel has accepted hold the same numbers.
pub fn same(one: &str, other: &str) -> bool {
    match (numbers(one), numbers(other)) {
        (Some(one), Some(other)) => one == other,
        // with a pattern, which is rare: it is not worked out
        _ => true,
    }
}

/// More than any kernel has of CPUs or memory nodes.
const MOST_NUMBERS: u32 = 1 << 16;

/// `None`: it has a pattern, or is no list.
pub(super) fn numbers(list: &str) -> Option<BTreeSet<u32>> {
    let mut numbers = BTreeSet::new();
    for range in list.trim().split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (from.parse::<u32>().ok()?, to.parse::<u32>().ok()?);
        numbers.extend(from..=Some(to).filter(|to| *to < MOST_NUMBERS)?);
    }
    Some(numbers)
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
        let want = ["cpuset.cpus = 0-1", "cpuset.mems = 0"].map(String::from).to_vec();
        let both = cpu(Some("0-1"), Some("0"));
        assert_eq!(shown(v2(&both)), Ok(want));
        let effective: Vec<_> = v2(&both).unwrap().iter().map(|write| write.effective).collect();
        assert_eq!(effective, [Some("cpuset.cpus.effective"), Some("cpuset.mems.effective")]);
        assert_eq!(shown(v2(&cpu(Some(""), None))), Ok(vec![]));
        for (bad, says) in [
            (cpu(Some("x"), None), "linux.resources.cpu.cpus: x is not a list"),
            (cpu(None, Some("0-")), "linux.resources.cpu.mems: 0- is not a list"),
        ] {
            for error in [shown(v1(&bad)).unwrap_err(), shown(v2(&bad)).unwrap_err()] {
                assert!(error.starts_with(says), "{bad:?}: {error}");
            }
        }
    }

    #[test]
    fn lists_are_compared_by_their_numbers() {
        for (one, other, want) in [
            ("0-3", "0-3\n", true),
            ("0,1,2, 3", "0-3\n", true),
            ("0-3", "0-1\n", false),
            ("7", "\n", false),
            ("0-15:2/4", "0-1\n", true),
            ("0-4294967295", "0", true),
        ] {
            assert_eq!(same(one, other), want, "{one} {other:?}");
        }
    }
}
