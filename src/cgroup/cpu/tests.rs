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
        (cpu(|c| (c.idle, c.shares) = (Some(0), Some(512))), vec!["cpu.idle = 0; ENOENT: leave", "cpu.shares = 512"]),
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
        (cpu(|c| (c.idle, c.shares) = (Some(0), Some(512))), vec!["cpu.idle = 0; ENOENT: leave", "cpu.weight = 59"]),
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
