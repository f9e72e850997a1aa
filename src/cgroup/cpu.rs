//! `linux.resources.cpu` without its cpuset: shares, bandwidth, idle, real-time budget.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::Cpu;

const BANDWIDTH: &[(Errno, &str)] = &[(Errno::ENOENT, "this kernel is built without CONFIG_CFS_BANDWIDTH")];
const BURST: &[(Errno, &str)] = &[(Errno::ENOENT, "this kernel is older than 5.14, which brought it")];
const IDLE: &[(Errno, &str)] = &[(Errno::ENOENT, "this kernel is older than 5.15, which brought it")];
const REALTIME: &[(Errno, &str)] = &[
    (Errno::ENOENT, "this kernel is built without CONFIG_RT_GROUP_SCHED"),
    (Errno::EINVAL, "the cgroups above leave less real-time budget than this"),
];

pub fn v1(cpu: &Cpu, warnings: &mut Vec<String>) -> Result<Vec<Write>> {
    let mut writes = realtime(cpu)?;
    writes.extend(idle(cpu.idle)?);
    match (shares(cpu.shares)?, cpu.idle) {
        (Some(_), Some(1)) => warnings.push("linux.resources.cpu.shares: has no effect with cpu.idle 1".into()),
        (shares, _) => writes.extend(shares),
    }
    writes.extend(bandwidth(cpu)?);
    Ok(writes)
}

/// The kernel moves a value outside these bounds to the nearest one without a word.
fn shares(shares: Option<u64>) -> Result<Option<Write>> {
    Ok(match shares {
        None | Some(0) => None,
        Some(shares @ 2..=262_144) => Some(Write::new("linux.resources.cpu.shares", "cpu.shares", shares)),
        Some(shares) => bail!("linux.resources.cpu.shares: {shares} is outside 2 to 262144"),
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

/// Each of the three is checked by the kernel against what stands in the other two.
fn bandwidth(cpu: &Cpu) -> Result<Vec<Write>> {
    let quota = cpu.quota.filter(|quota| *quota != 0);
    let mut writes = Vec::new();
    if let Some(burst) = cpu.burst {
        if let Some(quota) = quota.filter(|quota| *quota > 0 && burst > *quota as u64) {
            bail!("linux.resources.cpu.burst: {burst} is more than the quota {quota}");
        }
        writes.push(
            Write::new("linux.resources.cpu.burst", "cpu.cfs_burst_us", burst)
                .on(Errno::EINVAL, Otherwise::Later)
                .on_if(burst == 0, Errno::ENOENT, Otherwise::Leave)
                .meaning(BURST),
        );
    }
    match cpu.period {
        None | Some(0) => {}
        Some(period @ 1000..=1_000_000) => writes.push(
            Write::new("linux.resources.cpu.period", "cpu.cfs_period_us", period)
                .on(Errno::EINVAL, Otherwise::Later)
                .meaning(BANDWIDTH),
        ),
        Some(period) => bail!("linux.resources.cpu.period: {period} is outside 1000 to 1000000 (microseconds)"),
    }
    match quota {
        None => {}
        Some(quota @ 1..1000) => bail!("linux.resources.cpu.quota: {quota} is below 1000 microseconds"),
        Some(quota) => writes.push(
            Write::new("linux.resources.cpu.quota", "cpu.cfs_quota_us", quota.max(-1))
                .on(Errno::EINVAL, Otherwise::Later)
                .meaning(BANDWIDTH),
        ),
    }
    Ok(writes)
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
}
