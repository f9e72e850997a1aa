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
mod tests {
    use super::super::write::shown;
    use super::*;

    fn cpu(change: impl FnOnce(&mut Cpu)) -> Cpu {
        let mut cpu = Cpu::default();
        change(&mut cpu);
        cpu
    }

    #[test]
    fn values() {
        for (cpu, want) in [
            (Cpu::default(), vec![]),
            (cpu(|c| c.shares = Some(0)), vec![]),
            (cpu(|c| c.shares = Some(2)), vec!["cpu.shares = 2"]),
            (cpu(|c| c.shares = Some(262_144)), vec!["cpu.shares = 262144"]),
            (cpu(|c| (c.quota, c.period) = (Some(0), Some(0))), vec![]),
            (cpu(|c| c.quota = Some(-1)), vec!["cpu.cfs_quota_us = -1; EINVAL: later"]),
            (cpu(|c| c.quota = Some(-5)), vec!["cpu.cfs_quota_us = -1; EINVAL: later"]),
            (
                cpu(|c| (c.quota, c.period) = (Some(1000), Some(1_000_000))),
                vec!["cpu.cfs_period_us = 1000000; EINVAL: later", "cpu.cfs_quota_us = 1000; EINVAL: later"],
            ),
            (cpu(|c| c.burst = Some(0)), vec!["cpu.cfs_burst_us = 0; EINVAL: later; ENOENT: leave"]),
            (
                cpu(|c| (c.burst, c.quota) = (Some(2000), Some(2000))),
                vec!["cpu.cfs_burst_us = 2000; EINVAL: later", "cpu.cfs_quota_us = 2000; EINVAL: later"],
            ),
            (
                cpu(|c| (c.burst, c.quota) = (Some(2000), Some(-1))),
                vec!["cpu.cfs_burst_us = 2000; EINVAL: later", "cpu.cfs_quota_us = -1; EINVAL: later"],
            ),
            (cpu(|c| c.idle = Some(0)), vec!["cpu.idle = 0; ENOENT: leave"]),
            (cpu(|c| c.idle = Some(1)), vec!["cpu.idle = 1"]),
            (
                cpu(|c| (c.idle, c.shares) = (Some(0), Some(512))),
                vec!["cpu.idle = 0; ENOENT: leave", "cpu.shares = 512"],
            ),
            (
                cpu(|c| (c.realtime_period, c.realtime_runtime) = (Some(1000), Some(1000))),
                vec!["cpu.rt_period_us = 1000; EINVAL: later", "cpu.rt_runtime_us = 1000; EINVAL: later"],
            ),
            (cpu(|c| (c.realtime_period, c.realtime_runtime) = (Some(0), Some(0))), vec![]),
            (cpu(|c| c.realtime_runtime = Some(-1)), vec!["cpu.rt_runtime_us = -1; EINVAL: later"]),
        ] {
            let mut warnings = Vec::new();
            let got = shown(v1(&cpu, &mut warnings));
            assert_eq!(got, Ok(want.iter().map(|w| w.to_string()).collect()), "{cpu:?}");
            assert_eq!(warnings, [""; 0], "{cpu:?}");
        }
    }

    #[test]
    fn bad_values() {
        for (cpu, says) in [
            (cpu(|c| c.shares = Some(1)), "linux.resources.cpu.shares: 1 is outside"),
            (cpu(|c| c.shares = Some(262_145)), "linux.resources.cpu.shares: 262145 is outside"),
            (cpu(|c| c.quota = Some(999)), "linux.resources.cpu.quota: 999 is below"),
            (cpu(|c| c.period = Some(999)), "linux.resources.cpu.period: 999 is outside"),
            (cpu(|c| c.period = Some(1_000_001)), "linux.resources.cpu.period: 1000001 is outside"),
            (cpu(|c| (c.burst, c.quota) = (Some(2001), Some(2000))), "linux.resources.cpu.burst: 2001 is more than"),
            (
                cpu(|c| (c.burst, c.quota) = (Some(u64::MAX), Some(5000))),
                "linux.resources.cpu.burst: 18446744073709551615 is more than",
            ),
            (cpu(|c| c.idle = Some(2)), "linux.resources.cpu.idle: 2 is neither"),
            (cpu(|c| c.idle = Some(-1)), "linux.resources.cpu.idle: -1 is neither"),
            (cpu(|c| c.realtime_runtime = Some(-2)), "linux.resources.cpu.realtimeRuntime: -2 is negative"),
            (
                cpu(|c| (c.realtime_period, c.realtime_runtime) = (Some(10), Some(11))),
                "linux.resources.cpu.realtimeRuntime: 11 is more than the period 10",
            ),
        ] {
            let error = shown(v1(&cpu, &mut Vec::new())).unwrap_err();
            assert!(error.starts_with(says), "{cpu:?}: {error}");
        }
    }

    #[test]
    fn shares_of_an_idle_cgroup_are_left_out_with_a_warning() {
        let mut warnings = Vec::new();
        let writes = v1(&cpu(|c| (c.idle, c.shares) = (Some(1), Some(512))), &mut warnings);
        assert_eq!(shown(writes), Ok(vec!["cpu.idle = 1".into()]));
        assert_eq!(warnings, ["linux.resources.cpu.shares: has no effect with cpu.idle 1"]);
    }

    #[test]
    fn values_of_v2() {
        for (cpu, want) in [
            (Cpu::default(), vec![]),
            (cpu(|c| (c.shares, c.quota, c.period) = (Some(0), Some(0), Some(0))), vec![]),
            (cpu(|c| c.shares = Some(1)), vec!["cpu.weight = 1"]),
            (cpu(|c| c.shares = Some(1024)), vec!["cpu.weight = 100"]),
            (cpu(|c| c.shares = Some(u64::MAX)), vec!["cpu.weight = 10000"]),
            (
                cpu(|c| (c.idle, c.shares) = (Some(0), Some(512))),
                vec!["cpu.idle = 0; ENOENT: leave", "cpu.weight = 59"],
            ),
            (cpu(|c| c.quota = Some(20_000)), vec!["cpu.max = 20000; EINVAL: later"]),
            (cpu(|c| c.quota = Some(-7)), vec!["cpu.max = max; EINVAL: later"]),
            (cpu(|c| c.period = Some(50_000)), vec!["cpu.max = max 50000; EINVAL: later"]),
            (cpu(|c| (c.quota, c.period) = (Some(20_000), Some(50_000))), vec!["cpu.max = 20000 50000; EINVAL: later"]),
            (cpu(|c| (c.quota, c.period) = (Some(-1), Some(1000))), vec!["cpu.max = max 1000; EINVAL: later"]),
            (
                cpu(|c| (c.burst, c.quota) = (Some(2000), Some(3000))),
                vec!["cpu.max.burst = 2000; EINVAL: later", "cpu.max = 3000; EINVAL: later"],
            ),
            (cpu(|c| c.burst = Some(0)), vec!["cpu.max.burst = 0; EINVAL: later; ENOENT: leave"]),
            (cpu(|c| (c.realtime_period, c.realtime_runtime) = (Some(0), Some(0))), vec![]),
        ] {
            let mut warnings = Vec::new();
            let got = shown(v2(&cpu, &mut warnings));
            assert_eq!(got, Ok(want.iter().map(|w| w.to_string()).collect()), "{cpu:?}");
            assert_eq!(warnings, [""; 0], "{cpu:?}");
        }
        let mut warnings = Vec::new();
        let writes = v2(&cpu(|c| (c.idle, c.shares) = (Some(1), Some(512))), &mut warnings);
        assert_eq!(shown(writes), Ok(vec!["cpu.idle = 1".into()]));
        assert_eq!(warnings, ["linux.resources.cpu.shares: has no effect with cpu.idle 1"]);
        for (cpu, says) in [
            (cpu(|c| c.quota = Some(999)), "linux.resources.cpu.quota: 999 is below"),
            (cpu(|c| c.period = Some(999)), "linux.resources.cpu.period: 999 is outside"),
            (cpu(|c| (c.burst, c.quota) = (Some(2001), Some(2000))), "linux.resources.cpu.burst: 2001 is more than"),
            (cpu(|c| c.idle = Some(2)), "linux.resources.cpu.idle: 2 is neither"),
            (cpu(|c| c.realtime_period = Some(9)), "linux.resources.cpu.realtimePeriod: cgroup v2 has no real-time"),
            (cpu(|c| c.realtime_runtime = Some(9)), "linux.resources.cpu.realtimeRuntime: cgroup v2 has no real-time"),
        ] {
            let error = shown(v2(&cpu, &mut Vec::new())).unwrap_err();
            assert!(error.starts_with(says), "{cpu:?}: {error}");
        }
    }

    #[test]
    fn shares_become_a_weight() {
        for (shares, want) in [
            (1, 1),
            (2, 1),
            (3, 2),
            (10, 4),
            (100, 17),
            (256, 35),
            (512, 59),
            (1024, 100),
            (2048, 174),
            (4096, 303),
            (22_000, 1204),
            (100_000, 4340),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(weight(shares), want, "{shares}");
        }
        assert!((2..262_144).all(|shares| weight(shares) <= weight(shares + 1)), "more shares never weigh less");
    }
}
