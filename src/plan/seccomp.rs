//! `linux.seccomp` → the filter that the kernel runs at every system call of the container. Decides only; it is loaded
//! by init.
//!
//! ```text
//! config.json ─ profile ─▶ Profile ─ compile ─▶ Graph ─ layout ─▶ program ─ interpret ─▶ what init may still do
//!                          (checked)  rules: conflicts            (classic BPF)
//!               annotation ─ raw ──────────────────────────────────▶
//! ```
//!
//! A filter means what libseccomp's would mean as runc uses it; integration/seccomp compares the two.

use std::path::PathBuf;

use anyhow::{Result, bail};
use libc::sock_filter;
use serde::Serialize;

use self::calls::Family;
use self::own_calls::After;
use self::profile::{Flags, Profile};
use super::ProcessPlan;
use super::scheduler::Scheduler;
use super::spec::given;
use super::spec::seccomp::Seccomp;

pub mod calls;
mod compile;
pub mod disassemble;
mod graph;
pub mod interpret;
mod layout;
pub mod own_calls;
pub mod profile;
pub mod raw;
mod rules;

pub use compile::compile;

#[derive(Debug, Clone, Serialize)]
pub struct Filter {
    #[serde(skip)]
    pub program: Vec<sock_filter>,
    /// How many there are; what they do is for [`disassemble`] to say.
    instructions: usize,
    /// Of calls that no rule speaks of; this and the next are nothing in one that came as it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    default: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    architectures: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<&'static str>,
    /// Names that no architecture knows; they make no rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown_names: Vec<String>,
    /// Who decides about SCMP_ACT_NOTIFY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<Listener>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Listener {
    pub path: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<String>,
    /// An ordinary user takes it from the process, who may only look into one that is dumpable.
    #[serde(skip)]
    pub by_user: bool,
}

impl Listener {
    fn of(written: &Seccomp) -> Option<Self> {
        let metadata = given(&written.listener_metadata).map(String::from);
        given(&written.listener_path).map(|path| Self { path: path.into(), metadata, by_user: false })
    }
}

/// The filter, checked against what init still does under it.
pub fn add(process: &mut ProcessPlan, written: &Seccomp, start_hooks: bool, warnings: &mut Vec<String>) -> Result<()> {
    let filter = plan(written)?;
    let late_scheduler = start_hooks && process.scheduler.as_ref().is_some_and(Scheduler::forbids_fork);
    let after = After { no_new_privileges: process.no_new_privileges, start_hooks, late_scheduler };
    own_calls::check(&filter, after, warnings)?;
    process.seccomp = Some(filter);
    Ok(())
}

pub fn plan(written: &Seccomp) -> Result<Filter> {
    if let Some(program) = &written.program {
        return raw::plan(written, program);
    }
    let family = Family::native();
    let profile = Profile::check(written, family)?;
    let program = compile(&profile, family)?;
    let names = profile.rules.iter().flat_map(|rule| rule.names.iter().zip(&rule.calls));
    let unknown = names.filter(|(_, call)| call.is_none());
    let mut unknown_names: Vec<_> = unknown.map(|(name, _)| name.clone()).collect();
    unknown_names.sort();
    unknown_names.dedup();
    if let Some(name) = unknown_names.first().filter(|_| written.fail_unknown) {
        bail!("linux.seccomp.syscalls: {name} is no system call that rrun knows, which an annotation forbids");
    }
    Ok(Filter {
        instructions: program.len(),
        program,
        default: disassemble::verdict(profile.default),
        architectures: profile.architectures.iter().map(|arch| arch.name()).collect(),
        flags: profile.flags.words(),
        unknown_names,
        listener: Listener::of(written).filter(|_| profile.notifies),
    })
}

impl Filter {
    /// What it may return: the verdicts of its last instructions.
    pub fn verdicts(&self) -> impl Iterator<Item = u32> {
        let returns = (libc::BPF_RET | libc::BPF_K) as u16;
        self.program.iter().filter(move |instruction| instruction.code == returns).map(|instruction| instruction.k)
    }

    /// rrun runs as an ordinary user.
    pub fn serve_user(&mut self) {
        if let Some(listener) = &mut self.listener {
            listener.by_user = true;
        }
    }

    /// SECCOMP_FILTER_FLAG_*, the number that seccomp(2) gets
    pub fn flags(&self) -> u64 {
        let listener = if self.listener.is_some() { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
        self.flags.iter().fold(listener, |flags, word| flags | Flags::bit(word))
    }
}

#[cfg(test)]
mod tests;
