//! A process that tries what the child of a container would do, and tells what fails. It makes nothing but itself.

use anyhow::Result;
use nix::sched::CloneFlags;

use super::serve::reap;
use super::stages::{self, Around};
use crate::init::{Handles, probe};
use crate::plan::{Namespace, Plan, sysctl};
use crate::protocol::{Ask, Channel, Ready};
use crate::sys::clone;

/// What sysctls belong to, but for user namespaces: those take maps.
const WITH_SYSCTLS: [Namespace; 3] = [Namespace::Network, Namespace::Ipc, Namespace::Uts];

/// Sysctls of namespaces that are joined are not tried: they would be written.
pub fn probe(mut plan: Plan) -> Result<Vec<anyhow::Error>> {
    let new: Vec<Namespace> = WITH_SYSCTLS.into_iter().filter(|kind| plan.admin && plan.has_new(*kind)).collect();
    plan.sysctls.retain(|one| sysctl::owner(&one.path).is_some_and(|kind| new.contains(&kind)));
    let flags = if plan.sysctls.is_empty() { &[][..] } else { &new };
    let flags = flags.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    let (channel, childs_channel) = Channel::pair()?;
    let mut handles = Some(Handles {
        channel: childs_channel,
        ready: Ready::new()?,
        start: None,
        parent: clone::pidfd_open(nix::unistd::getpid())?,
        cgroups: Vec::new(),
        joins: Vec::new(),
        container: None,
    });
    let mut failures = Vec::new();
    let mut spawn = || clone::spawn(flags, None, || handles.take().map_or(1, |handles| probe::main(&plan, handles)));
    let offsets = if plan.admin { &plan.time_offsets[..] } else { &[] };
    let child = match stages::within(&Around { entries: Vec::new(), offsets }, &mut spawn) {
        Err(error) if !offsets.is_empty() => {
            failures.push(error.context("config.json"));
            spawn()?
        }
        child => child?,
    };
    drop(handles);
    while let Some((said, _)) = channel.listen()? {
        if let Ask::Failed(report) = said {
            failures.push(report.into_error());
        }
    }
    reap(&child)?;
    Ok(failures)
}
