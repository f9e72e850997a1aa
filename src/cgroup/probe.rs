//! What the kernel would refuse of a plan, as far as it can be read off beforehand.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::cpuset::numbers;
use super::{CgroupPlan, HierarchyPlan, Version, Write};
use crate::plan::problems::Problems;

/// A process and its page tables take more.
const LEAST_MEMORY: u64 = 16 << 10;

/// An error may be of several problems.
pub fn refuse_impossible(plan: &CgroupPlan) -> Result<()> {
    let mut problems = Problems::default();
    for hierarchy in &plan.hierarchies {
        for write in hierarchy.before.iter().chain(&hierarchy.last) {
            problems.ok(check(hierarchy, write));
        }
    }
    problems.result(())
}

fn check(hierarchy: &HierarchyPlan, write: &Write) -> Result<()> {
    let (field, value) = (&write.field, &write.value);
    match field.as_ref() {
        "linux.resources.cpu.cpus" | "linux.resources.cpu.mems" => {
            let of_v2 = if write.file.contains("cpus") { "cpuset.cpus.effective" } else { "cpuset.mems.effective" };
            let of_v1 = if write.file.contains("cpus") { "cpuset.effective_cpus" } else { "cpuset.effective_mems" };
            let file = if hierarchy.version == Version::V2 { of_v2 } else { of_v1 };
            let Some(available) = from_above(&hierarchy.directory(), file) else { return Ok(()) };
            let (Some(wanted), Some(there)) = (numbers(value), numbers(&available)) else { return Ok(()) };
            let missing: Vec<String> = wanted.difference(&there).map(u32::to_string).collect();
            ensure!(
                missing.is_empty(),
                "{field}: {value}: the cgroup above has {}; leave {} out",
                available.trim(),
                missing.join(",")
            );
        }
        "linux.resources.memory.limit" => {
            let too_small = value.parse().is_ok_and(|bytes: u64| bytes < LEAST_MEMORY);
            ensure!(!too_small, "{field}: {value} bytes hold no process; give more");
        }
        field if field.starts_with("linux.resources.hugepageLimits") => {
            let Some(size) = write.file.strip_prefix("hugetlb.").and_then(|rest| rest.split('.').next()) else {
                return Ok(());
            };
            if !page_sizes().iter().any(|known| known == size) {
                bail!("{field}: {size}: this host has no huge pages of that size; see /sys/kernel/mm/hugepages");
            }
        }
        _ => {}
    }
    Ok(())
}

/// Of the nearest cgroup that is there.
fn from_above(directory: &Path, file: &str) -> Option<String> {
    directory.ancestors().skip(1).find_map(|above| std::fs::read_to_string(above.join(file)).ok())
}

/// By the controller's names: `2MB`.
fn page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let kilobytes = entries.filter_map(|entry| {
        entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()
    });
    kilobytes.map(page_size).collect()
}

fn page_size(kilobytes: u64) -> String {
    match kilobytes {
        size if size >= 1 << 20 => format!("{}GB", size >> 20),
        size if size >= 1 << 10 => format!("{}MB", size >> 10),
        size => format!("{size}KB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_called_as_the_controller_calls_them() {
        for (kilobytes, want) in [(64, "64KB"), (2048, "2MB"), (32 << 10, "32MB"), (1 << 20, "1GB")] {
            assert_eq!(page_size(kilobytes), want);
        }
    }
}
