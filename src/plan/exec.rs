//! `exec`: one more process for a container that is there. From the container's config, perhaps a process of the
//! caller's, and flags → [`ExecPlan`]. Makes no system call.

use anyhow::{Context, Result, anyhow};

use super::affinity::{self, Affinity};
use super::spec::given;
use super::{Descriptors, ProcessPlan, build, capabilities, labels, process, seccomp, spec};
use crate::host::Host;

#[derive(Debug)]
pub struct ExecPlan {
    /// The container's, by which its session keyring is named.
    pub id: String,
    pub process: ProcessPlan,
    pub affinity: Affinity,
    /// The container has a session keyring of its own.
    pub keyring: bool,
}

/// What the command line says about the process. Each wins over what it stands for.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub args: Vec<String>,
    /// Beside those of the process.
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub user: Option<User>,
    /// Beside those of the process.
    pub additional_gids: Vec<u32>,
    /// Beside those of the process.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    pub terminal: bool,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
}

/// `--user UID[:GID]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: Option<u32>,
}

/// Where the process comes from.
#[derive(Debug, Clone)]
pub enum Base {
    /// The container's own, with other arguments.
    Container,
    /// `--process FILE`, and the file's name.
    File(Box<spec::Process>, String),
}

impl Flags {
    pub fn have_labels(&self) -> bool {
        given(&self.apparmor_profile).or(given(&self.selinux_label)).is_some()
    }
}

impl Base {
    pub fn has_labels(&self) -> bool {
        matches!(self, Self::File(process, _) if labels::are_given_to(process))
    }
}

/// How the caller is connected to the process.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub detached: bool,
    pub console_socket: bool,
    pub descriptors: Descriptors,
}

/// What `create` recorded.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub id: &'a str,
    /// Of the config that it was made from.
    pub process: &'a spec::Process,
    /// Of the same config.
    pub linux: Option<&'a spec::Linux>,
    pub keyring: bool,
}

impl ExecPlan {
    pub fn build(
        target: Target,
        base: Base,
        flags: &Flags,
        manner: Manner,
        host: &Host,
        warnings: &mut Vec<String>,
    ) -> Result<ExecPlan> {
        let (process, file) = match base {
            // told when the container was made
            Base::Container => (instead_of_first(target.process, flags), None),
            Base::File(process, file) => (completed(*process, target.process), Some(file)),
        };
        let mut told = Vec::new();
        let planned = decide(&with_flags(process, flags), flags, host, &mut told);
        let planned = match &file {
            Some(file) => planned.with_context(|| format!("--process {file}")),
            None => planned,
        };
        let (mut process, affinity) = planned?;
        if let Some(file) = file {
            warnings.extend(told.into_iter().map(|warning| format!("--process {file}: {warning}")));
        }
        build::check_terminal(process.terminal.is_some(), manner.detached, manner.console_socket)?;
        process.keep(manner.descriptors);
        if let Some(linux) = target.linux {
            process.take_over(linux)?;
            if let Some(written) = &linux.seccomp {
                seccomp::add(&mut process, written, false, warnings)?;
            }
        }
        Ok(ExecPlan { id: target.id.into(), process, affinity, keyring: target.keyring })
    }
}

/// What another process of the container is like, if nobody says otherwise: as the first one, without its terminal.
fn instead_of_first(container: &spec::Process, flags: &Flags) -> spec::Process {
    let mut process = container.clone();
    process.args = flags.args.clone().into();
    process.terminal = None;
    process.console_size = None;
    process
}

/// A process of the caller's is whole but for what concerns the container more than the process. Limits, AppArmor
/// profile and no_new_privileges are the process's own, also when they are absent.
fn completed(mut process: spec::Process, container: &spec::Process) -> spec::Process {
    process.capabilities = process.capabilities.or_else(|| container.capabilities.clone());
    process.scheduler = process.scheduler.or_else(|| container.scheduler.clone());
    process.io_priority = process.io_priority.or_else(|| container.io_priority.clone());
    process.exec_cpu_affinity = process.exec_cpu_affinity.or_else(|| container.exec_cpu_affinity.clone());
    process.oom_score_adj = process.oom_score_adj.or(container.oom_score_adj);
    process.keep_groups = container.keep_groups;
    if given(&process.selinux_label).is_none() {
        process.selinux_label = container.selinux_label.clone();
    }
    let user = process.user.get_or_insert_default();
    user.umask = user.umask.or_else(|| container.user.as_ref()?.umask);
    process
}

fn with_flags(mut process: spec::Process, flags: &Flags) -> spec::Process {
    process.env.extend(flags.env.iter().cloned());
    process.cwd = flags.cwd.clone().or(process.cwd);
    // each has its own place in what is said of it
    if given(&flags.apparmor_profile).is_some() {
        process.apparmor_profile = None;
    }
    if given(&flags.selinux_label).is_some() {
        process.selinux_label = None;
    }
    let user = process.user.get_or_insert_default();
    if let Some(given) = flags.user {
        user.uid = Some(given.uid);
        user.gid = given.gid.or(user.gid);
    }
    user.additional_gids.extend(flags.additional_gids.iter().copied());
    if flags.terminal {
        process.terminal = Some(true);
    }
    if flags.no_new_privileges {
        process.no_new_privileges = Some(true);
    }
    process
}

fn decide(
    process: &spec::Process,
    flags: &Flags,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<(ProcessPlan, Affinity)> {
    let affinity = process.exec_cpu_affinity.as_ref().map(affinity::plan).transpose()?.unwrap_or_default();
    let mut planned = process::plan(process, host, warnings)?;
    if let Some(profile) = labels::apparmor("--apparmor", given(&flags.apparmor_profile), host)? {
        planned.apparmor_profile = Some(profile);
    }
    if let Some(label) = labels::selinux("--process-label", given(&flags.selinux_label), host)? {
        planned.selinux_label = Some(label);
    }
    for name in &flags.capabilities {
        add_capability(&mut planned, name, host).map_err(|error| anyhow!("--cap: {error}"))?;
    }
    Ok((planned, affinity))
}

/// Never to the inheritable set: the program could pass it on through files that have it in theirs (CVE-2022-29162).
/// An ambient capability has to be inheritable, so it becomes one only where it is that already.
fn add_capability(process: &mut ProcessPlan, name: &str, host: &Host) -> Result<()> {
    let bit = capabilities::required(name, host)?;
    let sets = &mut process.capabilities;
    sets.bounding |= bit;
    sets.permitted |= bit;
    sets.effective |= bit;
    sets.ambient |= bit & sets.inheritable;
    Ok(())
}

/// `UID[:GID]`, digits alone.
pub fn user(text: &str) -> Result<User, String> {
    let (uid, gid) = match text.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (text, None),
    };
    Ok(User { uid: id(uid)?, gid: gid.map(id).transpose()? })
}

/// 4294967295 is -1, by which the kernel leaves an id as it is: root's.
pub fn id(text: &str) -> Result<u32, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| digits && *number != u32::MAX);
    number.ok_or_else(|| format!("{text} is no id; write a number from 0 to 4294967294", text = shown(text)))
}

fn shown(text: &str) -> &str {
    if text.trim().is_empty() { "an empty word" } else { text }
}

#[cfg(test)]
mod tests;
