//! Which processors and memory nodes: settings of v1 more than counts. With v2 readers get none, as from runc.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;

use super::Source;
use crate::cgroup::Version;
use crate::cgroup::cpuset;

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    cpus: BTreeSet<u32>,
    cpu_exclusive: u64,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    mems: BTreeSet<u32>,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

pub fn cpuset(source: &Source) -> Result<Cpuset> {
    if source.version == Version::V2 {
        return Ok(Cpuset::default());
    }
    // mounted with the option noprefix the files have short names
    let read = |file: &str| match source.read(&format!("cpuset.{file}"))? {
        None => source.read(file),
        text => Ok(text),
    };
    let number = |file: &str| Ok::<_, anyhow::Error>(read(file)?.and_then(|text| super::number(&text)).unwrap_or(0));
    let list =
        |file: &str| Ok::<_, anyhow::Error>(cpuset::numbers(&read(file)?.unwrap_or_default()).unwrap_or_default());
    Ok(Cpuset {
        cpus: list("cpus")?,
        cpu_exclusive: number("cpu_exclusive")?,
        mems: list("mems")?,
        mem_hardwall: number("mem_hardwall")?,
        mem_exclusive: number("mem_exclusive")?,
        memory_migrate: number("memory_migrate")?,
        memory_spread_page: number("memory_spread_page")?,
        memory_spread_slab: number("memory_spread_slab")?,
        memory_pressure: number("memory_pressure")?,
        sched_load_balance: number("sched_load_balance")?,
        sched_relax_domain_level: read("sched_relax_domain_level")?
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_default(),
    })
}
