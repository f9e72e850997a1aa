//! `process.scheduler` → what sched_setattr(2) gets.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::ProcessPlan;
use super::spec::given;
use super::spec::process::Scheduler as Written;

/// uapi/linux/sched.h. The kernel keeps the number of SCHED_ISO free and has no such policy.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const FLAGS: [(&str, u64); 7] = [
    (RESET_ON_FORK, 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const RESET_ON_FORK: &str = "SCHED_FLAG_RESET_ON_FORK";

/// In nanoseconds: sched(7).
const LEAST_RUNTIME: u64 = 1024;
const LONGEST: u64 = i64::MAX as u64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scheduler {
    pub policy: &'static str,
    #[serde(skip)]
    pub number: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

impl Scheduler {
    /// SCHED_FLAG_*
    pub fn flags(&self) -> u64 {
        let bit = |word: &&str| FLAGS.iter().find(|(known, _)| known == word).map_or(0, |(_, bit)| *bit);
        self.flags.iter().map(bit).sum()
    }

    pub fn is_real_time(&self) -> bool {
        matches!(self.policy, "SCHED_FIFO" | "SCHED_RR")
    }

    pub fn is_deadline(&self) -> bool {
        self.policy == "SCHED_DEADLINE"
    }

    /// fork(2) is EAGAIN then, since the time that was promised cannot be promised twice.
    pub fn forbids_fork(&self) -> bool {
        self.is_deadline() && !self.flags.contains(&RESET_ON_FORK)
    }
}

pub fn plan(written: &Written, warnings: &mut Vec<String>) -> Result<Scheduler> {
    let known = || POLICIES.map(|(name, _)| name).join(", ");
    let policy =
        given(&written.policy).with_context(|| format!("process.scheduler.policy: missing; use one of {}", known()))?;
    let Some((policy, number)) = POLICIES.into_iter().find(|(name, _)| *name == policy) else {
        bail!("process.scheduler.policy: {policy} is no policy; use one of {}", known());
    };
    let scheduler = Scheduler {
        policy,
        number,
        flags: flags(&written.flags)?,
        nice: written.nice.unwrap_or(0),
        priority: priority(policy, written.priority.unwrap_or(0))?,
        runtime: written.runtime.unwrap_or(0),
        deadline: written.deadline.unwrap_or(0),
        period: written.period.unwrap_or(0),
    };
    check_nice(&scheduler, warnings)?;
    check_times(&scheduler)?;
    for clamp in scheduler.flags.iter().filter(|flag| flag.contains("UTIL_CLAMP")) {
        warnings.push(format!("process.scheduler.flags: {clamp} clamps to 0: config.json has no field for its value"));
    }
    Ok(scheduler)
}

fn flags(words: &[String]) -> Result<Vec<&'static str>> {
    let mut flags = Vec::with_capacity(words.len());
    for (index, word) in words.iter().enumerate() {
        let Some((flag, _)) = FLAGS.into_iter().find(|(known, _)| known == word) else {
            let known = FLAGS.map(|(word, _)| word).join(", ");
            bail!("process.scheduler.flags[{index}]: {word} is no flag; use any of {known}");
        };
        if !flags.contains(&flag) {
            flags.push(flag);
        }
    }
    Ok(flags)
}

fn priority(policy: &str, priority: i32) -> Result<u32> {
    let allowed = if matches!(policy, "SCHED_FIFO" | "SCHED_RR") { 1..=99 } else { 0..=0 };
    match u32::try_from(priority).ok().filter(|priority| allowed.contains(priority)) {
        Some(priority) => Ok(priority),
        None if allowed.contains(&0) => {
            bail!("process.scheduler.priority: {priority} is for SCHED_FIFO and SCHED_RR; with {policy} leave it out")
        }
        None => bail!("process.scheduler.priority: {priority} is not from 1 to 99, as {policy} needs it"),
    }
}

fn check_nice(Scheduler { policy, nice, .. }: &Scheduler, warnings: &mut Vec<String>) -> Result<()> {
    ensure!((-20..=19).contains(nice), "process.scheduler.nice: {nice} is not from -20 to 19");
    if *nice != 0 && !matches!(*policy, "SCHED_OTHER" | "SCHED_BATCH") {
        warnings.push(format!("process.scheduler.nice: {nice} means nothing to {policy}"));
    }
    Ok(())
}

/// The kernel's own rules (`__checkparam_dl`), which it tells by one EINVAL.
fn check_times(scheduler: &Scheduler) -> Result<()> {
    let Scheduler { policy, runtime, deadline, period, .. } = *scheduler;
    let times = [("runtime", runtime), ("deadline", deadline), ("period", period)];
    if !scheduler.is_deadline() {
        return match times.into_iter().find(|(_, time)| *time != 0) {
            Some((name, time)) => {
                bail!("process.scheduler.{name}: {time} is for SCHED_DEADLINE; with {policy} leave it out")
            }
            None => Ok(()),
        };
    }
    for (name, time) in times {
        ensure!(time <= LONGEST, "process.scheduler.{name}: {time} ns is above {LONGEST}");
    }
    ensure!(deadline != 0, "process.scheduler.deadline: missing; SCHED_DEADLINE needs one, in nanoseconds");
    ensure!(runtime >= LEAST_RUNTIME, "process.scheduler.runtime: {runtime} ns is below {LEAST_RUNTIME}");
    ensure!(runtime <= deadline, "process.scheduler.runtime: {runtime} ns is above the deadline of {deadline}");
    ensure!(
        period == 0 || deadline <= period,
        "process.scheduler.deadline: {deadline} ns is above the period of {period}"
    );
    Ok(())
}

/// CAP_SYS_NICE: capability(7).
const SYS_NICE: u64 = 1 << caps::Capability::CAP_SYS_NICE as u64;

/// Hooks of startContainer are forked by init, with the program's rights; what forbids forks comes after them.
pub fn check_start_hooks(process: &ProcessPlan, in_user_namespace: bool) -> Result<()> {
    let forbids = process.scheduler.as_ref().is_some_and(Scheduler::forbids_fork);
    let may = !in_user_namespace && process.capabilities.effective & SYS_NICE != 0;
    ensure!(
        may || !forbids,
        "process.scheduler.policy: SCHED_DEADLINE forbids to fork, so it is set after hooks.startContainer, when init has \
         no CAP_SYS_NICE on the host; add {RESET_ON_FORK} to process.scheduler.flags, or the capability to \
         process.capabilities.effective of a container without user namespace"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(written: &str) -> Result<(Scheduler, Vec<String>), String> {
        let mut warnings = Vec::new();
        let scheduler = plan(&serde_json::from_str(written).unwrap(), &mut warnings);
        scheduler.map(|scheduler| (scheduler, warnings)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_policy_and_flag_of_the_spec() {
        for (policy, number) in POLICIES {
            let rest = match policy {
                "SCHED_FIFO" | "SCHED_RR" => r#","priority":99"#,
                "SCHED_DEADLINE" => r#","runtime":1024,"deadline":2000"#,
                _ => "",
            };
            let (planned, warnings) = planned(&format!(r#"{{"policy":"{policy}"{rest}}}"#)).unwrap();
            assert_eq!((planned.policy, planned.number, warnings.len()), (policy, number, 0));
        }
        for (flag, bit) in FLAGS {
            let written = format!(r#"{{"policy":"SCHED_OTHER","flags":["{flag}","{flag}"],"nice":-20}}"#);
            assert_eq!(planned(&written).unwrap().0.flags(), bit, "{flag}");
        }
    }

    #[test]
    fn what_has_no_effect_is_warned_of() {
        for (written, want) in [
            (r#"{"policy":"SCHED_IDLE","nice":5}"#, "process.scheduler.nice: 5 means nothing to SCHED_IDLE"),
            (
                r#"{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_UTIL_CLAMP_MAX"]}"#,
                "process.scheduler.flags: SCHED_FLAG_UTIL_CLAMP_MAX clamps to 0",
            ),
        ] {
            let (_, warnings) = planned(written).unwrap();
            assert!(warnings.len() == 1 && warnings[0].starts_with(want), "{warnings:?}");
        }
    }

    #[test]
    fn a_bad_value_is_named_with_what_is_allowed() {
        for (written, want) in [
            ("{}", "policy: missing; use one of SCHED_OTHER, SCHED_FIFO, "),
            (r#"{"policy":""}"#, "policy: missing"),
            (r#"{"policy":"FIFO"}"#, "policy: FIFO is no policy; use one of SCHED_OTHER, "),
            (r#"{"policy":"SCHED_OTHER","nice":20}"#, "nice: 20 is not from -20 to 19"),
            (r#"{"policy":"SCHED_BATCH","nice":-21}"#, "nice: -21 is not from -20 to 19"),
            (
                r#"{"policy":"SCHED_OTHER","priority":1}"#,
                "priority: 1 is for SCHED_FIFO and SCHED_RR; with SCHED_OTHER",
            ),
            (r#"{"policy":"SCHED_IDLE","priority":-1}"#, "priority: -1 is for SCHED_FIFO"),
            (r#"{"policy":"SCHED_FIFO"}"#, "priority: 0 is not from 1 to 99"),
            (r#"{"policy":"SCHED_RR","priority":100}"#, "priority: 100 is not from 1 to 99"),
            (r#"{"policy":"SCHED_RR","priority":-1}"#, "priority: -1 is not from 1 to 99"),
            (
                r#"{"policy":"SCHED_OTHER","flags":["SCHED_FLAG_RECLAIM","RESET"]}"#,
                "flags[1]: RESET is no flag; use any of SCHED_FLAG_RESET_ON_FORK, ",
            ),
            (r#"{"policy":"SCHED_OTHER","runtime":1}"#, "runtime: 1 is for SCHED_DEADLINE; with SCHED_OTHER leave"),
            (r#"{"policy":"SCHED_RR","priority":1,"period":7}"#, "period: 7 is for SCHED_DEADLINE"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":1024}"#, "deadline: missing"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":1023,"deadline":2000}"#, "runtime: 1023 ns is below 1024"),
            (r#"{"policy":"SCHED_DEADLINE","runtime":3000,"deadline":2000}"#, "runtime: 3000 ns is above the deadline"),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":3000,"period":2000}"#,
                "deadline: 3000 ns is above the period of 2000",
            ),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":18446744073709551615}"#,
                "deadline: 18446744073709551615 ns is above 9223372036854775807",
            ),
        ] {
            let error = planned(written).unwrap_err();
            assert!(error.starts_with(&format!("process.scheduler.{want}")), "{written}: {error}");
        }
    }

    #[test]
    fn only_a_deadline_without_reset_forbids_forks() {
        for (written, want) in [
            (r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":2000}"#, true),
            (
                r#"{"policy":"SCHED_DEADLINE","runtime":1024,"deadline":2000,"flags":["SCHED_FLAG_RESET_ON_FORK"]}"#,
                false,
            ),
            (r#"{"policy":"SCHED_FIFO","priority":1}"#, false),
        ] {
            assert_eq!(planned(written).unwrap().0.forbids_fork(), want, "{written}");
        }
    }
}
