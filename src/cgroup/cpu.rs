//! `linux.resources.cpu` without its cpuset: shares, bandwidth, idle, real-time budget.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::Cpu;

const SHARES: &str = "linux.resources.cpu.shares";
const PERIOD: &str = "linux.resources.cpu.period";
const QUOTA: &str = "linux.resources.cpu.quota";

const BANDWIDTH: &[(Errno, &str)] = &[(Errno::ENOENT, "this kernel is built without CONFIG_CFS_BANDWIDTH")];
const BURST: &[(Errno, &str)] = &[(Errno::ENOENT, "this kernel is older than 5.14, which brought it")];
const IDLE: &[(Errno, &str)] = &[(Errno::ENOENT, "this kernel is older than 5.15, which brought it")];
const REALTIME: &[(Errno, &str)] = &[
    (Errno::ENOENT, "this kernel is built without CONFIG_RT_GROUP_SCHED"),
    (Errno::EINVAL, "the cgroups above leave less real-time budget than this"),
];

pub fn v1(cpu: &Cpu, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes = realtime(cpu)?;
    writes.extend(idle_or(shares(cpu.shares)?, cpu.idle, warnings)?);
    writes.extend(burst(cpu, "cpu.cfs_burst_us")?);
    let write = |field: &'static str, file: &'static str, us: String| {
        Write::new(field, file, us).on(Errno::EINVAL, Otherwise::Later).meaning(BANDWIDTH)
    };
    writes.extend(period(cpu)?.map(|us| write(PERIOD, "cpu.cfs_period_us", us.to_string())));
    writes.extend(quota(cpu)?.map(|us| write(QUOTA, "cpu.cfs_quota_us", us.to_string())));
    Ok(writes)
}

pub fn v2(cpu: &Cpu, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    if let Some(first) = realtime(cpu)?.first() {
        bail!("{}: cgroup v2 has no real-time budgets; leave it out", first.field);
    }
    let weight =
        cpu.shares.filter(|shares| *shares != 0).map(|shares| Write::new(SHARES, "cpu.weight", weight(shares)));
    let mut writes = idle_or(weight, cpu.idle, warnings)?;
    writes.extend(burst(cpu, "cpu.max.burst")?);
    let max = match (quota(cpu)?, period(cpu)?) {
        (None, None) => None,
        // the kernel leaves the period as it is
        (Some(quota), None) => Some((QUOTA, amount(quota))),
        (None, Some(period)) => Some((PERIOD, format!("max {period}"))),
        (Some(quota), Some(period)) => Some((QUOTA, format!("{} {period}", amount(quota)))),
    };
    writes.extend(
        max.map(|(field, max)| {
            Write::new(field, "cpu.max", max).on(Errno::EINVAL, Otherwise::Later).meaning(BANDWIDTH)
        }),
    );
    Ok(writes)
}

fn amount(quota: i64) -> String {
    if quota < 0 { "max".into() } else { quota.to_string() }
}

/// From 2…1024…262144 to 1…100…10000 on a curve through all three, so that defaults meet: other runtimes take the same
/// one since 2025, when a straight line was seen to give small containers far too little.
fn weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// `cpu.idle` first: while it is 1 the kernel refuses any weight.
fn idle_or(weight: Option<Write>, own: Option<i64>, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes: Vec<Write> = idle(own)?.into_iter().collect();
    match (weight, own) {
        (Some(_), Some(1)) => warnings.push(format!("{SHARES}: has no effect with cpu.idle 1")),
        (weight, _) => writes.extend(weight),
    }
    Ok(writes)
}

/// The kernel moves a value outside these bounds to the nearest one without a word.
fn shares(shares: Option<u64>) -> Result<Option<Write>> {
    Ok(match shares {
        None | Some(0) => None,
        Some(shares @ 2..=262_144) => Some(Write::new(SHARES, "cpu.shares", shares)),
        Some(shares) => bail!("{SHARES}: {shares} is outside 2 to 262144"),
    })
}

fn idle(idle: Option<i64>) -> Result<Option<Write>> {
    Ok(match idle {
        None => None,
        Some(idle @ (0 | 1)) => Some(
            Write::new("linux.resources.cpu.idle", "cpu.idle", idle)
                .on_if(idle == 0, Errno::ENOENT, Otherwise::Leave)
                .meaning(IDLE),
        ),
        Some(idle) => bail!("linux.resources.cpu.idle: {idle} is neither 0 nor 1"),
    })
}

/// Quota, period and burst are each checked by the kernel against what stands in the other two.
fn burst(cpu: &Cpu, file: &'static str) -> Result<Option<Write>> {
    let Some(burst) = cpu.burst else { return Ok(None) };
    if let Some(quota) = cpu.quota.filter(|quota| *quota > 0 && burst > *quota as u64) {
        bail!("linux.resources.cpu.burst: {burst} is more than the quota {quota}");
    }
    Ok(Some(
        Write::new("linux.resources.cpu.burst", file, burst)
            .on(Errno::EINVAL, Otherwise::Later)
            .on_if(burst == 0, Errno::ENOENT, Otherwise::Leave)
            .meaning(BURST),
    ))
}

/// In microseconds, as the quota.
fn period(cpu: &Cpu) -> Result<Option<u64>> {
    match cpu.period {
        None | Some(0) => Ok(None),
        Some(period @ 1000..=1_000_000) => Ok(Some(period)),
        Some(period) => bail!("{PERIOD}: {period} is outside 1000 to 1000000 (microseconds)"),
    }
}

/// -1 is none.
fn quota(cpu: &Cpu) -> Result<Option<i64>> {
    match cpu.quota {
        None | Some(0) => Ok(None),
        Some(quota @ 1..1000) => bail!("{QUOTA}: {quota} is below 1000 microseconds"),
        Some(quota) => Ok(Some(quota.max(-1))),
    }
}

/// Also for the cgroups above that have no budget yet: none has more than its parent.
pub fn realtime(cpu: &Cpu) -> Result<Vec<Write>> {
    let period = cpu.realtime_period.filter(|period| *period != 0);
    let runtime = cpu.realtime_runtime.filter(|runtime| *runtime != 0);
    if let Some(runtime) = runtime.filter(|runtime| *runtime < -1) {
        bail!("linux.resources.cpu.realtimeRuntime: {runtime} is negative; -1 means without limit");
    }
    if let (Some(period), Some(runtime)) = (period, runtime)
        && runtime > 0
        && runtime as u64 > period
    {
        bail!("linux.resources.cpu.realtimeRuntime: {runtime} is more than the period {period}");
    }
    let write = |field: &'static str, file: &'static str, value: String| {
        Write::new(field, file, value).on(Errno::EINVAL, Otherwise::Later).meaning(REALTIME)
    };
    let period = period.map(|us| write("linux.resources.cpu.realtimePeriod", "cpu.rt_period_us", us.to_string()));
    let runtime = runtime.map(|us| write("linux.resources.cpu.realtimeRuntime", "cpu.rt_runtime_us", us.to_string()));
    Ok(period.into_iter().chain(runtime).collect())
}

#[cfg(test)]
mod tests;
