//! Memory, in bytes. Swap is as v1 counts it: together with memory.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::pressure::Pressure;
use super::{Source, is_zero};
use crate::cgroup::Version;

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: Entry,
    #[serde(skip_serializing_if = "is_zero")]
    swap: Entry,
    /// Of v1 alone; v2 counts it in `usage`.
    #[serde(skip_serializing_if = "is_zero")]
    kernel: Entry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_zero")]
    kernel_tcp: Entry,
    /// All of memory.stat.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Entry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    /// The most that it was.
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

pub fn memory(source: &Source) -> Result<Memory> {
    let raw = source.table("memory.stat")?;
    let cached = |name: &str| raw.get(name).copied().unwrap_or_default();
    if source.version == Version::V1 {
        return Ok(Memory {
            cache: cached("cache"),
            usage: v1(source, "memory")?,
            swap: v1(source, "memory.memsw")?,
            kernel: v1(source, "memory.kmem")?,
            kernel_tcp: v1(source, "memory.kmem.tcp")?,
            raw,
            psi: None,
        });
    }
    let failures = source.table("memory.events")?.get("max").copied().unwrap_or_default();
    let usage = Entry { failcnt: failures, ..v2(source, "memory")? };
    let swap = with_swap(&usage, v2(source, "memory.swap")?);
    Ok(Memory { cache: cached("file"), usage, swap, raw, ..Memory::default() })
}

fn v1(source: &Source, prefix: &str) -> Result<Entry> {
    let of = |file: &str| Ok::<_, anyhow::Error>(source.number(&format!("{prefix}.{file}"))?.unwrap_or_default());
    let (usage, limit) = (of("usage_in_bytes")?, of("limit_in_bytes")?);
    Ok(Entry { limit, usage, max: of("max_usage_in_bytes")?, failcnt: of("failcnt")? })
}

fn v2(source: &Source, prefix: &str) -> Result<Entry> {
    let of = |file: &str| Ok::<_, anyhow::Error>(source.number(&format!("{prefix}.{file}"))?.unwrap_or_default());
    // the peak: since Linux 5.19
    Ok(Entry { limit: of("max")?, usage: of("current")?, max: of("peak")?, failcnt: 0 })
}

/// The peak of the sum is not the sum of the peaks, and is not known. Nothing where swap is not counted.
fn with_swap(memory: &Entry, swap: Entry) -> Entry {
    match swap.limit {
        0 if swap == Entry::default() && memory.limit == 0 => swap,
        limit => Entry {
            limit: limit.saturating_add(memory.limit),
            usage: swap.usage.saturating_add(memory.usage),
            max: 0,
            failcnt: 0,
        },
    }
}
