//! `process.execCPUAffinity`: on which processors `exec` runs, before it joins the container's cgroups and after.

use anyhow::{Context, Result};
use serde::Serialize;

use super::spec::given;
use super::spec::process::ExecCpuAffinity;

/// Numbers of processors.
pub type Cpus = Vec<u32>;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Affinity {
    /// Of who forks the process, outside of the container's cgroups.
    pub initial: Option<Cpus>,
    pub last: Last,
}

/// Once it is in the container's cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Last {
    /// Every one that the cpuset leaves: what the caller is pinned to must not pin the container.
    #[default]
    All,
    These(Cpus),
    /// What the kernel makes of the initial ones.
    LeftToKernel,
}

/// As many as fit cpu_set_t: sched_setaffinity(2).
const MOST: u32 = 1024;

pub fn plan(affinity: &ExecCpuAffinity) -> Result<Affinity> {
    let list = |name: &str, list: Option<&str>| {
        let cpus = list.map(|list| {
            numbers(list, MOST).with_context(|| {
                format!("process.execCPUAffinity.{name}: {list} is no list of CPUs below {MOST}; write it as 0-3,7")
            })
        });
        cpus.transpose()
    };
    let initial = list("initial", given(&affinity.initial))?;
    let last = match list("final", given(&affinity.last))? {
        Some(cpus) => Last::These(cpus),
        None if initial.is_some() => Last::LeftToKernel,
        None => Last::All,
    };
    Ok(Affinity { initial, last })
}

/// A list as the kernel writes it, of CPUs or memory nodes: `0-3,7`. Each is below `most`.
pub fn numbers(list: &str, most: u32) -> Option<Vec<u32>> {
    let number = |text: &str| text.trim().parse().ok().filter(|number| *number < most);
    let mut numbers = Vec::new();
    for part in list.split(',') {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last): (u32, u32) = (number(first)?, number(last)?);
                numbers.extend((first <= last).then_some(first..=last)?);
            }
            None => numbers.push(number(part)?),
        }
        // more than there are: it says the same again and again, and could fill the memory
        if numbers.len() > most as usize {
            return None;
        }
    }
    Some(numbers)
}

/// The same list again.
pub fn list(numbers: &[u32]) -> String {
    let runs = numbers.chunk_by(|number, next| number + 1 == *next);
    let runs = runs.map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        [one] => one.to_string(),
        [] => String::new(),
    });
    runs.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors() {
        for (list, want) in [
            ("0", Some(vec![0])),
            ("0-2,7", Some(vec![0, 1, 2, 7])),
            (" 1 - 2 , 4", Some(vec![1, 2, 4])),
            ("1023", Some(vec![1023])),
            ("1024", None),
            ("3-1", None),
            ("0-", None),
            ("", None),
            ("0,,1", None),
            ("-1", None),
            ("x", None),
        ] {
            assert_eq!(numbers(list, MOST), want, "{list:?}");
        }
    }

    #[test]
    fn a_list_that_repeats_itself_has_an_end() {
        assert!(numbers("0-1023", MOST).is_some());
        assert_eq!(numbers(&"0-1023,".repeat(1 << 20), MOST), None);
    }

    #[test]
    fn lists_are_told_as_they_are_written() {
        for text in ["0", "0-3,7", "1,3,5-1023"] {
            assert_eq!(list(&numbers(text, MOST).unwrap()), text);
        }
    }

    #[test]
    fn what_is_not_given_is_all_or_the_kernels() {
        let given = |initial: &str, last: &str| {
            let field = |text: &str| Some(text.to_string());
            plan(&ExecCpuAffinity { initial: field(initial), last: field(last) })
        };
        for (initial, last, want) in [
            ("", "", Affinity::default()),
            ("0", "", Affinity { initial: Some(vec![0]), last: Last::LeftToKernel }),
            ("", "1", Affinity { initial: None, last: Last::These(vec![1]) }),
            ("0", "1", Affinity { initial: Some(vec![0]), last: Last::These(vec![1]) }),
        ] {
            assert_eq!(given(initial, last).unwrap(), want, "{initial:?} {last:?}");
        }
        let error = given("0", "all").unwrap_err().to_string();
        assert!(error.starts_with("process.execCPUAffinity.final: all is no list of CPUs"), "{error}");
    }
}
