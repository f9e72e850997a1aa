//! `linux.resources.memory`. Written last of all, when init has set itself up: what that took is not charged to a
//! small limit before the user's program had a chance. v1 limits memory, and memory with swap; v2 memory, and swap.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::Memory;

const LIMIT: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";
const KERNEL: &str = "linux.resources.memory.kernel";
const KERNEL_TCP: &str = "linux.resources.memory.kernelTCP";
const OOM_KILLER: &str = "linux.resources.memory.disableOOMKiller";

const NO_SWAP_ACCOUNTING: &[(Errno, &str)] =
    &[(Errno::ENOENT, "this kernel does not account swap; boot it with swapaccount=1, or leave memory.swap out")];

pub fn v1(memory: &Memory, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let limit = bytes("limit", memory.limit)?;
    let swap = bytes("swap", memory.swap)?;
    let reservation = bytes("reservation", memory.reservation)?;
    let mut writes = limit_and_swap(limit, swap)?;
    if let Some(bytes) = reservation {
        writes.push(Write::new(RESERVATION, "memory.soft_limit_in_bytes", bytes));
    }
    writes.extend(swappiness(memory.swappiness)?);
    if memory.disable_oom_killer == Some(true) {
        writes.push(Write::new(OOM_KILLER, "memory.oom_control", 1));
    }
    if let Some(bytes) = bytes("kernelTCP", memory.kernel_tcp)? {
        let write = Write::new(KERNEL_TCP, "memory.kmem.tcp.limit_in_bytes", bytes);
        writes.push(write.on_if(bytes == -1, Errno::ENOENT, Otherwise::Leave));
    }
    warn_of_ignored(&[(KERNEL, memory.kernel)], memory.use_hierarchy, warnings);
    Ok(writes)
}

pub fn v2(memory: &Memory, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let (limit, swap) = (bytes("limit", memory.limit)?, bytes("swap", memory.swap)?);
    check(limit, swap)?;
    let swap = match (limit, swap) {
        (_, Some(-1)) | (Some(-1), None) => Some("max".to_string()),
        (Some(limit), Some(swap)) => Some((swap - limit).to_string()),
        _ => None,
    };
    let swap = swap.map(|bytes| {
        let nothing_lost = bytes == "max" || bytes == "0";
        Write::new(SWAP, "memory.swap.max", bytes)
            .on_if(nothing_lost, Errno::ENOENT, Otherwise::Leave)
            .meaning(NO_SWAP_ACCOUNTING)
    });
    let amount = |bytes: i64| if bytes == -1 { "max".to_string() } else { bytes.to_string() };
    let limit = limit.map(|bytes| Write::new(LIMIT, "memory.max", amount(bytes)));
    let reservation = bytes("reservation", memory.reservation)?;
    let low = reservation.map(|bytes| Write::new(RESERVATION, "memory.low", amount(bytes)));
    if let Some(write) = swappiness(memory.swappiness)? {
        bail!("{}: cgroup v2 has none of a cgroup's own; leave it out, or set sysctl vm.swappiness", write.field);
    }
    if memory.disable_oom_killer == Some(true) {
        bail!("{OOM_KILLER}: cgroup v2 always kills when its limit is reached; leave it out");
    }
    warn_of_ignored(&[(KERNEL, memory.kernel), (KERNEL_TCP, memory.kernel_tcp)], memory.use_hierarchy, warnings);
    Ok(swap.into_iter().chain(limit).chain(low).collect())
}

fn warn_of_ignored(limits: &[(&str, Option<i64>)], use_hierarchy: Option<bool>, warnings: &mut Vec<String>) {
    for (field, _) in limits.iter().filter(|(_, bytes)| !matches!(bytes, None | Some(-1 | 0))) {
        warnings.push(format!("{field}: is ignored, as the kernel counts it in memory.limit"));
    }
    if use_hierarchy == Some(false) {
        warnings
            .push("linux.resources.memory.useHierarchy: false is ignored; kernels since 5.11 know nothing else".into());
    }
}

/// Before it has children and before the rest; a kernel since 5.11 has it set.
pub fn v1_hierarchy(memory: &Memory) -> Option<Write> {
    let wanted = memory.use_hierarchy == Some(true);
    wanted.then(|| Write::new("linux.resources.memory.useHierarchy", "memory.use_hierarchy", 1))
}

/// -1 is "without limit", 0 is "not set".
fn bytes(name: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        None | Some(0) => Ok(None),
        Some(value @ -1..) => Ok(Some(value)),
        Some(value) => bail!("linux.resources.memory.{name}: {value} is negative; -1 means without limit"),
    }
}

fn check(limit: Option<i64>, swap: Option<i64>) -> Result<()> {
    match (limit, swap) {
        (None | Some(-1), Some(swap @ 1..)) => {
            bail!("{SWAP}: is {swap}, but memory.limit is not set; set both, as swap counts memory too")
        }
        (Some(limit @ 1..), Some(swap @ 1..)) if swap < limit => {
            bail!("{SWAP}: {swap} is below memory.limit {limit}; swap counts memory too")
        }
        _ => Ok(()),
    }
}

/// The kernel holds limit ≤ limit with swap at any moment, so which one goes first depends on what stands there.
fn limit_and_swap(limit: Option<i64>, swap: Option<i64>) -> Result<Vec<Write>> {
    check(limit, swap)?;
    // without limit on memory means without limit on both, else the old one of both would stand in the way
    let swap = swap.or(limit.filter(|limit| *limit == -1));
    let limit = limit.map(|bytes| {
        Write::new(LIMIT, "memory.limit_in_bytes", bytes)
            .on(Errno::EINVAL, Otherwise::Later)
            .in_use("memory.max_usage_in_bytes")
    });
    let swap = swap.map(|bytes| {
        Write::new(SWAP, "memory.memsw.limit_in_bytes", bytes)
            .on(Errno::EINVAL, Otherwise::Later)
            .on_if(bytes == -1, Errno::ENOENT, Otherwise::Leave)
            .meaning(NO_SWAP_ACCOUNTING)
            .in_use("memory.memsw.max_usage_in_bytes")
    });
    Ok(limit.into_iter().chain(swap).collect())
}

/// `checkBeforeUpdate`, on v2: there the kernel takes a limit below what is in use, and kills. v1 refuses by itself.
/// `current` reads a file of the cgroup as a number.
pub fn check_before_update(writes: &[&Write], current: impl Fn(&str) -> Option<u64>) -> Result<()> {
    let limit = |file| {
        let write = writes.iter().find(|write| write.file == file)?;
        Some((write.value.parse::<u64>().ok()?, &*write.field))
    };
    let (memory, swap) = (limit("memory.max"), limit("memory.swap.max"));
    let (memory_used, swap_used) = (current("memory.current"), current("memory.swap.current"));
    // as the config has it, swap counts both
    let both = memory.zip(swap).map(|((memory, _), (swap, field))| (memory.saturating_add(swap), field));
    let both_used = memory_used.map(|memory| memory.saturating_add(swap_used.unwrap_or(0)));
    for (what, limit, used) in
        [("memory+swap", both, both_used), ("memory", memory, memory_used), ("swap", swap, swap_used)]
    {
        if let (Some((limit, field)), Some(used)) = (limit, used)
            && limit < used
        {
            bail!(
                "{field}: rejecting {what} limit {limit}: {used} bytes are in use, and memory.checkBeforeUpdate is set; \
                 give more"
            );
        }
    }
    Ok(())
}

/// Docker says "as the host" with -1 in an unsigned field.
fn swappiness(value: Option<u64>) -> Result<Option<Write>> {
    Ok(match value {
        None | Some(u64::MAX) => None,
        Some(value @ 0..=100) => Some(Write::new("linux.resources.memory.swappiness", "memory.swappiness", value)),
        Some(value) => bail!("linux.resources.memory.swappiness: {value} is more than 100"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::write::shown;
    use super::*;

    const TCP: &str = "memory.kmem.tcp.limit_in_bytes = 1";

    fn limits(limit: Option<i64>, swap: Option<i64>) -> Memory {
        Memory { limit, swap, ..Memory::default() }
    }

    #[test]
    fn limit_and_swap_together() {
        let limit = |bytes: i64| format!("memory.limit_in_bytes = {bytes}; EINVAL: later");
        let both = |bytes: i64| format!("memory.memsw.limit_in_bytes = {bytes}; EINVAL: later");
        let no_swap_limit = || "memory.memsw.limit_in_bytes = -1; EINVAL: later; ENOENT: leave".to_string();
        for (given, want) in [
            ((None, None), vec![]),
            ((Some(0), Some(0)), vec![]),
            ((Some(100), None), vec![limit(100)]),
            ((Some(100), Some(0)), vec![limit(100)]),
            ((Some(100), Some(100)), vec![limit(100), both(100)]),
            ((Some(100), Some(300)), vec![limit(100), both(300)]),
            ((Some(100), Some(-1)), vec![limit(100), no_swap_limit()]),
            ((Some(-1), None), vec![limit(-1), no_swap_limit()]),
            ((Some(-1), Some(-1)), vec![limit(-1), no_swap_limit()]),
            ((None, Some(-1)), vec![no_swap_limit()]),
        ] {
            let got = shown(v1(&limits(given.0, given.1), &mut Vec::new()));
            assert_eq!(got, Ok(want), "{given:?}");
        }
    }

    #[test]
    fn the_rest() {
        let memory = Memory {
            reservation: Some(-1),
            swappiness: Some(100),
            disable_oom_killer: Some(true),
            use_hierarchy: Some(true),
            check_before_update: Some(true),
            ..Memory::default()
        };
        let want = ["memory.soft_limit_in_bytes = -1", "memory.swappiness = 100", "memory.oom_control = 1"];
        let mut warnings = Vec::new();
        assert_eq!(shown(v1(&memory, &mut warnings)), Ok(want.map(String::from).to_vec()));
        assert_eq!(v1_hierarchy(&memory).unwrap().to_string(), "memory.use_hierarchy = 1");
        assert_eq!(warnings, [""; 0]);
        let off = Memory {
            swappiness: Some(u64::MAX),
            disable_oom_killer: Some(false),
            kernel: Some(0),
            kernel_tcp: Some(0),
            ..Memory::default()
        };
        assert_eq!(shown(v1(&off, &mut warnings)), Ok(vec![]));
        assert_eq!((v1_hierarchy(&off), warnings), (None, vec![]));
    }

    #[test]
    fn what_is_ignored_is_said() {
        let memory = Memory { kernel: Some(1), kernel_tcp: Some(1), use_hierarchy: Some(false), ..Memory::default() };
        for (version, want, ignored) in [
            (v1 as fn(&Memory, &mut Vec<String>) -> Result<Vec<Write>>, vec![TCP], &["kernel: ", "useHierarchy: "][..]),
            (v2, vec![], &["kernel: ", "kernelTCP: ", "useHierarchy: "][..]),
        ] {
            let mut warnings = Vec::new();
            assert_eq!(shown(version(&memory, &mut warnings)), Ok(want.into_iter().map(String::from).collect()));
            assert_eq!(warnings.len(), ignored.len());
            let named = ignored.iter().map(|name| format!("linux.resources.memory.{name}"));
            assert!(warnings.iter().zip(named).all(|(warning, name)| warning.starts_with(&name)), "{warnings:?}");
        }
    }

    #[test]
    fn buffers_of_tcp() {
        let shown = |bytes| {
            shown(v1(&Memory { kernel_tcp: Some(bytes), ..Memory::default() }, &mut Vec::new()))
                .map(|all| all.join(", "))
        };
        assert_eq!(shown(1).as_deref(), Ok(TCP));
        assert_eq!(shown(-1).as_deref(), Ok("memory.kmem.tcp.limit_in_bytes = -1; ENOENT: leave"));
        let error = "linux.resources.memory.kernelTCP: -2 is negative; -1 means without limit";
        assert_eq!(shown(-2), Err(error.to_string()));
    }

    #[test]
    fn a_limit_below_what_is_in_use() {
        let ram = |file: &str| (file == "memory.current").then_some(100);
        let both = |file: &str| ram(file).or((file == "memory.swap.current").then_some(50));
        type InUse<'a> = &'a dyn Fn(&str) -> Option<u64>;
        for (writes, in_use, want) in [
            (&[("memory.max", "100")][..], &ram as InUse, None),
            (&[("memory.max", "max")], &ram, None),
            (&[("memory.max", "99")], &ram, Some("f: rejecting memory limit 99: 100 bytes are in use")),
            (&[("memory.low", "1")], &ram, None),
            (&[("memory.swap.max", "1")], &ram, None),
            (&[("memory.swap.max", "1")], &both, Some("f: rejecting swap limit 1: 50 bytes are in use")),
            (
                &[("memory.max", "10"), ("memory.swap.max", "10")],
                &both,
                Some("f: rejecting memory+swap limit 20: 150 bytes are in use"),
            ),
            (&[("memory.max", "10"), ("memory.swap.max", "max")], &both, Some("f: rejecting memory limit 10: 100")),
            (&[("memory.max", "99"), ("memory.swap.max", "51")], &both, Some("f: rejecting memory limit 99: 100")),
            (&[("memory.max", "100"), ("memory.swap.max", "50")], &both, None),
        ] {
            let planned: Vec<_> = writes.iter().map(|(file, value)| Write::new("f", *file, value)).collect();
            let checked = check_before_update(&planned.iter().collect::<Vec<_>>(), in_use);
            let said = checked.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(
                said.starts_with(want.unwrap_or_default()) && said.is_empty() == want.is_none(),
                "{writes:?}: {said}"
            );
        }
    }

    #[test]
    fn bad_values() {
        for (memory, says) in [
            (limits(None, Some(300)), "linux.resources.memory.swap: is 300, but memory.limit is not set"),
            (limits(Some(0), Some(300)), "linux.resources.memory.swap: is 300, but memory.limit is not set"),
            (limits(Some(-1), Some(300)), "linux.resources.memory.swap: is 300, but memory.limit is not set"),
            (limits(Some(100), Some(99)), "linux.resources.memory.swap: 99 is below memory.limit 100"),
            (limits(Some(-2), None), "linux.resources.memory.limit: -2 is negative"),
            (limits(Some(1), Some(-2)), "linux.resources.memory.swap: -2 is negative"),
            (Memory { reservation: Some(-2), ..Memory::default() }, "linux.resources.memory.reservation: -2 is"),
            (Memory { swappiness: Some(101), ..Memory::default() }, "linux.resources.memory.swappiness: 101 is"),
        ] {
            let error = shown(v1(&memory, &mut Vec::new())).unwrap_err();
            assert!(error.starts_with(says), "{memory:?}: {error}");
        }
    }

    #[test]
    fn values_of_v2() {
        for (given, want) in [
            ((None, None), vec![]),
            ((Some(0), Some(0)), vec![]),
            ((Some(100), None), vec!["memory.max = 100"]),
            ((Some(100), Some(0)), vec!["memory.max = 100"]),
            ((Some(100), Some(100)), vec!["memory.swap.max = 0; ENOENT: leave", "memory.max = 100"]),
            ((Some(100), Some(300)), vec!["memory.swap.max = 200", "memory.max = 100"]),
            ((Some(100), Some(-1)), vec!["memory.swap.max = max; ENOENT: leave", "memory.max = 100"]),
            ((Some(-1), None), vec!["memory.swap.max = max; ENOENT: leave", "memory.max = max"]),
            ((Some(-1), Some(-1)), vec!["memory.swap.max = max; ENOENT: leave", "memory.max = max"]),
            ((None, Some(-1)), vec!["memory.swap.max = max; ENOENT: leave"]),
        ] {
            let got = shown(v2(&limits(given.0, given.1), &mut Vec::new()));
            assert_eq!(got, Ok(want.iter().map(|w| w.to_string()).collect()), "{given:?}");
        }
        let memory = Memory {
            reservation: Some(-1),
            swappiness: Some(u64::MAX),
            disable_oom_killer: Some(false),
            use_hierarchy: Some(true),
            check_before_update: Some(true),
            kernel: Some(1),
            ..Memory::default()
        };
        let mut warnings = Vec::new();
        assert_eq!(shown(v2(&memory, &mut warnings)), Ok(vec!["memory.low = max".into()]));
        assert!(matches!(&warnings[..], [one] if one.starts_with("linux.resources.memory.kernel: ")), "{warnings:?}");
        let reserved = Memory { reservation: Some(5), ..Memory::default() };
        assert_eq!(shown(v2(&reserved, &mut warnings)), Ok(vec!["memory.low = 5".into()]));
    }

    #[test]
    fn bad_values_of_v2() {
        for (memory, says) in [
            (limits(None, Some(300)), "linux.resources.memory.swap: is 300, but memory.limit is not set"),
            (limits(Some(-1), Some(300)), "linux.resources.memory.swap: is 300, but memory.limit is not set"),
            (limits(Some(100), Some(99)), "linux.resources.memory.swap: 99 is below memory.limit 100"),
            (limits(Some(-2), None), "linux.resources.memory.limit: -2 is negative"),
            (
                Memory { swappiness: Some(0), ..Memory::default() },
                "linux.resources.memory.swappiness: cgroup v2 has none",
            ),
            (Memory { swappiness: Some(101), ..Memory::default() }, "linux.resources.memory.swappiness: 101 is"),
            (
                Memory { disable_oom_killer: Some(true), ..Memory::default() },
                "linux.resources.memory.disableOOMKiller: cgroup v2 always kills",
            ),
        ] {
            let error = shown(v2(&memory, &mut Vec::new())).unwrap_err();
            assert!(error.starts_with(says), "{memory:?}: {error}");
        }
    }
}
