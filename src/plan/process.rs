//! `process`: what runs, as whom, with which limits. Serves the first process and any that is executed later.

use std::collections::BTreeMap;
use std::fmt::Display;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::id_maps::{IdMaps, IdRange, host_id};
use super::problems::Problems;
use super::spec::{self, given};
use super::{Descriptors, ProcessPlan, Rlimit, Terminal};
use super::{affinity, capabilities, io_priority, labels, memory_policy, personality, scheduler};
use crate::host::Host;

/// Managers rely on this when the field is absent (the spec: keep the caller's).
const UMASK: u32 = 0o022;

#[allow(clippy::unnecessary_cast)] // the constants are i32 in musl, u32 in glibc
const RLIMITS: [(&str, u32); 16] = [
    ("RLIMIT_AS", libc::RLIMIT_AS as u32),
    ("RLIMIT_CORE", libc::RLIMIT_CORE as u32),
    ("RLIMIT_CPU", libc::RLIMIT_CPU as u32),
    ("RLIMIT_DATA", libc::RLIMIT_DATA as u32),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE as u32),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS as u32),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK as u32),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE as u32),
    ("RLIMIT_NICE", libc::RLIMIT_NICE as u32),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE as u32),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC as u32),
    ("RLIMIT_RSS", libc::RLIMIT_RSS as u32),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO as u32),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME as u32),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING as u32),
    ("RLIMIT_STACK", libc::RLIMIT_STACK as u32),
];

/// NGROUPS_MAX: setgroups(2).
const MOST_GROUPS: usize = 65536;

pub fn plan(process: &spec::Process, host: &Host, warnings: &mut Vec<String>) -> Result<ProcessPlan> {
    let mut problems = Problems::default();
    let planned = draft(process, host, warnings, &mut problems);
    problems.result(planned)
}

/// As `plan`, without what something is wrong with.
pub fn draft(process: &spec::Process, host: &Host, warnings: &mut Vec<String>, problems: &mut Problems) -> ProcessPlan {
    let args = problems.take(args(&process.args));
    ProcessPlan { args, ..without_program(process, host, warnings, problems) }
}

/// Of a config without `process`: the spec lets such a container be created, and not started.
pub fn absent(maps: Option<&IdMaps>, host: &Host) -> ProcessPlan {
    // who waits must be somebody inside
    let id = |map: fn(&IdMaps) -> &[IdRange]| {
        let ranges = maps.map(map).filter(|ranges| host_id(ranges, 0).is_none());
        ranges.and_then(|ranges| Some(ranges.first()?.container))
    };
    let (uid, gid) = (id(|maps| &maps.uids.ranges), id(|maps| &maps.gids.ranges));
    let user = spec::process::User { uid, gid, ..Default::default() };
    let process = spec::Process { cwd: Some("/".into()), user: Some(user), ..Default::default() };
    without_program(&process, host, &mut Vec::new(), &mut Problems::default())
}

fn without_program(
    process: &spec::Process,
    host: &Host,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> ProcessPlan {
    problems.ok(check_affinity(process));
    let user = process.user.clone().unwrap_or_default();
    let gids = if process.keep_groups { &[][..] } else { &user.additional_gids };
    if gids.len() < user.additional_gids.len() {
        warnings.push("process.user.additionalGids: left out: those of rrun's caller stay, by annotation".into());
    }
    let scheduler = process.scheduler.as_ref().map(|written| scheduler::plan(written, warnings)).transpose();
    ProcessPlan {
        args: Vec::new(),
        env: problems.take(env(&process.env)),
        cwd: problems.take(cwd(&process.cwd)),
        uid: problems.take(id(&"process.user.uid", user.uid.unwrap_or(0))),
        gid: problems.take(id(&"process.user.gid", user.gid.unwrap_or(0))),
        additional_gids: problems.take(groups(gids)),
        keep_groups: process.keep_groups,
        umask: problems.take(umask(user.umask)),
        capabilities: problems.take(capabilities::plan(process.capabilities.as_ref(), host, warnings)),
        rlimits: problems.take(rlimits(&process.rlimits, warnings)),
        no_new_privileges: process.no_new_privileges == Some(true),
        apparmor_profile: problems.take(labels::apparmor(
            "process.apparmorProfile",
            given(&process.apparmor_profile),
            host,
        )),
        selinux_label: problems.take(labels::selinux("process.selinuxLabel", given(&process.selinux_label), host)),
        oom_score_adj: problems.take(oom_score_adj(process.oom_score_adj)),
        scheduler: problems.take(scheduler),
        io_priority: problems.take(process.io_priority.as_ref().map(io_priority::plan).transpose()),
        memory_policy: None,
        personality: None,
        terminal: problems.take(terminal(process)),
        descriptors: Descriptors::default(),
        seccomp: None,
        reset_signals: host.changed_signals,
    }
}

fn groups(gids: &[u32]) -> Result<Vec<u32>> {
    let count = gids.len();
    ensure!(
        count <= MOST_GROUPS,
        "process.user.additionalGids: {count} entries; the kernel takes at most {MOST_GROUPS}"
    );
    let numbered = gids.iter().enumerate();
    numbered.map(|(index, gid)| id(&format_args!("process.user.additionalGids[{index}]"), *gid)).collect()
}

impl ProcessPlan {
    /// The config has no `process`.
    pub fn is_absent(&self) -> bool {
        self.args.is_empty()
    }

    /// What the container has for each of its processes.
    pub fn take_over(&mut self, linux: &spec::Linux) -> Result<()> {
        self.memory_policy = linux.memory_policy.as_ref().map(memory_policy::plan).transpose()?;
        self.personality = linux.personality.as_ref().map(personality::plan).transpose()?;
        Ok(())
    }

    /// LISTEN_PID is left to the child, who alone knows its number inside.
    pub fn keep(&mut self, descriptors: Descriptors) {
        self.descriptors = descriptors;
        if descriptors.listen > 0 {
            set_variable(&mut self.env, "LISTEN_FDS", &descriptors.listen.to_string());
        }
    }
}

/// In the place of the one that is there, if any.
pub fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let variable = format!("{name}={value}");
    match env.iter().position(|other| other.split_once('=').is_some_and(|(other, _)| other == name)) {
        Some(place) => env[place] = variable,
        None => env.push(variable),
    }
}

/// `execCPUAffinity` says nothing about the first process, so it is only looked at.
fn check_affinity(process: &spec::Process) -> Result<()> {
    let Some(affinity) = &process.exec_cpu_affinity else { return Ok(()) };
    affinity::plan(affinity).map(drop)
}

fn args(args: &[String]) -> Result<Vec<String>> {
    ensure!(!args.is_empty(), "process.args: empty; add the program to run");
    ensure!(!args[0].is_empty(), "process.args[0]: empty; add the program to run");
    Ok(args.to_vec())
}

/// Of entries with one name the last counts, in the place of the first.
fn env(entries: &[String]) -> Result<Vec<String>> {
    let mut places = BTreeMap::new();
    let mut env: Vec<&str> = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let name = match entry.split_once('=') {
            Some(("", _)) => bail!("process.env[{index}]: {entry} has no name before the ="),
            Some((name, _)) => name,
            None if entry.is_empty() => bail!("process.env[{index}]: is empty; write NAME=VALUE or remove it"),
            None => bail!("process.env[{index}]: {entry} has no =; write NAME=VALUE"),
        };
        let place = *places.entry(name).or_insert(env.len());
        match env.get_mut(place) {
            Some(before) => *before = entry,
            None => env.push(entry),
        }
    }
    Ok(env.into_iter().map(String::from).collect())
}

fn cwd(cwd: &Option<String>) -> Result<String> {
    let cwd = given(cwd).context("process.cwd: missing; add an absolute path")?;
    ensure!(cwd.starts_with('/'), "process.cwd: {cwd} is not absolute; write it from /");
    Ok(cwd.into())
}

/// 4294967295 is -1, which setresuid(2) and chown(2) take for "leave as it is": the host's root would stay.
pub fn id(field: &dyn Display, id: u32) -> Result<u32> {
    ensure!(id != u32::MAX, "{field}: {id} means no id to the kernel; choose another");
    Ok(id)
}

fn umask(umask: Option<u32>) -> Result<u32> {
    let umask = umask.unwrap_or(UMASK);
    ensure!(umask <= 0o777, "process.user.umask: {umask} is above 511 (octal 0777)");
    Ok(umask)
}

/// Soft limits below which hardly any program begins. execve(2) has given up what was there before by the time that it
/// meets them: it cannot fail any more, and the kernel kills by SIGSEGV without a word.
const HARDLY_ENOUGH: [(&str, u64); 3] = [("RLIMIT_AS", 1 << 20), ("RLIMIT_DATA", 64 << 10), ("RLIMIT_STACK", 64 << 10)];

fn rlimits(rlimits: &[spec::process::Rlimit], warnings: &mut Vec<String>) -> Result<Vec<Rlimit>> {
    let mut planned: Vec<Rlimit> = Vec::with_capacity(rlimits.len());
    let mut problems = Problems::default();
    for (index, rlimit) in rlimits.iter().enumerate() {
        let one = rlimit_plan(&format!("process.rlimits[{index}]"), rlimit, &planned);
        let one = problems.ok(one);
        let is_low = |one: &Rlimit| HARDLY_ENOUGH.iter().any(|(name, least)| one.name == *name && one.soft < *least);
        warnings.extend(one.as_ref().filter(|one| is_low(one)).map(|one| {
            format!(
                "process.rlimits[{index}].soft: {} of {} bytes may be too little for any program: the kernel ends one \
                 that it has no room for by SIGSEGV",
                one.name, one.soft
            )
        }));
        planned.extend(one);
    }
    problems.result(planned)
}

fn rlimit_plan(field: &str, rlimit: &spec::process::Rlimit, before: &[Rlimit]) -> Result<Rlimit> {
    let name = given(&rlimit.kind).with_context(|| format!("{field}.type: missing"))?;
    let Some((_, resource)) = RLIMITS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<_> = RLIMITS.iter().map(|(name, _)| *name).collect();
        bail!("{field}.type: {name} is no rlimit; use one of {}", known.join(", "));
    };
    ensure!(before.iter().all(|other| other.name != name), "{field}.type: {name} is listed twice; keep one");
    let soft = rlimit.soft.with_context(|| format!("{field}.soft: missing; add the limit of {name}"))?;
    let hard = rlimit.hard.with_context(|| format!("{field}.hard: missing; add the limit of {name}"))?;
    ensure!(soft <= hard, "{field}.soft: {soft} is above the hard limit {hard}");
    Ok(Rlimit { name: name.into(), resource: *resource, soft, hard })
}

fn oom_score_adj(value: Option<i64>) -> Result<Option<i32>> {
    match value {
        Some(value) if !(-1000..=1000).contains(&value) => {
            bail!("process.oomScoreAdj: {value} is not from -1000 to 1000")
        }
        value => Ok(value.map(|value| value as i32)),
    }
}

fn terminal(process: &spec::Process) -> Result<Option<Terminal>> {
    if process.terminal != Some(true) {
        return Ok(None);
    }
    let side = |name: &str, value: Option<u64>| {
        let value = value.with_context(|| format!("process.consoleSize.{name}: is missing; set it, or remove both"))?;
        u16::try_from(value).map_err(|_| anyhow!("process.consoleSize.{name}: {value} is above 65535"))
    };
    let Some(size) = &process.console_size else { return Ok(Some(Terminal { size: None })) };
    let (rows, columns) = (side("height", size.height)?, side("width", size.width)?);
    Ok(Some(Terminal { size: (rows != 0 && columns != 0).then_some((rows, columns)) }))
}

#[cfg(test)]
mod tests;
