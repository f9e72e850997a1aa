//! Time on processors, in nanoseconds.

use anyhow::Result;
use serde::Serialize;

use super::pressure::Pressure;
use super::{Source, is_zero};
use crate::cgroup::Version;

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: Usage,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    /// Of v1 alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

/// USER_HZ: 100 a second on every architecture that rrun is built for.
const NANOSECONDS_IN_A_TICK: u64 = 10_000_000;

pub fn usage(source: &Source) -> Result<Usage> {
    if source.version == Version::V2 {
        let stat = source.table("cpu.stat")?;
        let nanoseconds = |name: &str| stat.get(name).map_or(0, |us| us.saturating_mul(1000));
        let (total, kernel, user) = (nanoseconds("usage_usec"), nanoseconds("system_usec"), nanoseconds("user_usec"));
        return Ok(Usage { total, kernel, user, ..Usage::default() });
    }
    let stat = source.table("cpuacct.stat")?;
    let nanoseconds = |name: &str| stat.get(name).map_or(0, |ticks| ticks.saturating_mul(NANOSECONDS_IN_A_TICK));
    let percpu = source.read("cpuacct.usage_percpu")?.unwrap_or_default();
    let (percpu_user, percpu_kernel) = in_modes(&source.read("cpuacct.usage_all")?.unwrap_or_default());
    Ok(Usage {
        total: source.number("cpuacct.usage")?.unwrap_or_default(),
        percpu: percpu.split_ascii_whitespace().filter_map(|time| time.parse().ok()).collect(),
        percpu_kernel,
        percpu_user,
        kernel: nanoseconds("system"),
        user: nanoseconds("user"),
    })
}

/// By processor: in user mode, and in the kernel. After a line of titles: `cpu user system`.
fn in_modes(text: &str) -> (Vec<u64>, Vec<u64>) {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(line).unzip()
}

pub fn throttling(source: &Source) -> Result<Throttling> {
    let stat = source.table("cpu.stat")?;
    let of = |name: &str| stat.get(name).copied().unwrap_or_default();
    let throttled_time = match source.version {
        Version::V1 => of("throttled_time"),
        Version::V2 => of("throttled_usec").saturating_mul(1000),
    };
    Ok(Throttling { periods: of("nr_periods"), throttled_periods: of("nr_throttled"), throttled_time })
}
