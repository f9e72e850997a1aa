//! The cgroups of a container that comes up: made by rrun or asked of systemd, finished when init is in them, and gone
//! without where an ordinary user has none.

use std::cell::Cell;

use anyhow::Result;
use nix::unistd::Pid;

use super::claim::Claim;
use super::managed::Managed;
use super::process::PATIENCE;
use super::rootless;
use crate::cgroup::{self, CgroupPlan, Doors, Holders, NewCgroups};
use crate::launch::holder::Holder;
use crate::plan::{Namespace, Plan};
use crate::undo::Undo;

/// Taken back by `undo`, and the unit when this is dropped, unless `keep` was called.
pub struct Made<'a, 's> {
    cgroups: NewCgroups<'a>,
    plan: &'a CgroupPlan,
    claim: &'a Claim,
    /// Who owns them, if that is systemd.
    managed: Option<&'a Managed<'s>>,
    /// Keeps the scope until init is in it.
    holder: Cell<Option<Holder>>,
    left: Holders,
    unit: Option<Undo<'a>>,
}

pub fn make<'a, 's>(
    plan: &Plan,
    cgroups: &'a CgroupPlan,
    managed: Option<&'a Managed<'s>>,
    claim: &'a Claim,
    left: Holders,
) -> Result<Made<'a, 's>> {
    let asked = managed.map(|managed| managed.ask(claim, cgroups)).transpose();
    let unit = managed.filter(|_| asked.is_ok());
    let unit = unit.map(|managed| Undo::new("unit", || remove_unit(managed, claim)));
    let made = asked.and_then(|holder| {
        let holder = holder.flatten();
        Ok((cgroup::create(cgroups, holder.as_ref().map(Holder::pid))?, holder))
    });
    match made {
        Ok((new, holder)) => {
            Ok(Made { cgroups: new, plan: cgroups, claim, managed, holder: Cell::new(holder), left, unit })
        }
        Err(error) if plan.rootless && rootless::is_refusal(&error) => {
            rootless::forgo_cgroups(plan, cgroups, error)?;
            drop(unit);
            claim.record_no_cgroups()?;
            let (holder, none) = (Cell::new(None), NewCgroups::none());
            Ok(Made { cgroups: none, plan: cgroups, claim, managed: None, holder, left, unit: None })
        }
        Err(error) => Err(error),
    }
}

fn remove_unit(managed: &Managed, claim: &Claim) -> Result<()> {
    let removed = claim.if_ours(|| managed.remove());
    removed.or_else(|error| claim.abandon().and(Err(error)))
}

/// Whatever is in the cgroups ends with init, or was never ours; but for what hooks inside have left, where init takes
/// nobody with it.
pub fn holders_of_failed(plan: &Plan) -> Holders {
    let stay = !plan.hooks.create_container.is_empty() && !plan.has_new(Namespace::Pid);
    if stay { Holders::Kill } else { Holders::Spare }
}

impl Made<'_, '_> {
    /// Ready to be joined.
    pub fn doors(&mut self) -> Result<Doors> {
        self.cgroups.ready(self.managed.is_none().then_some(self.plan))
    }

    /// systemd can put a process there that may not go by itself.
    pub fn can_attach(&self) -> bool {
        self.managed.is_some()
    }

    pub fn attach(&self, pid: Pid) -> Result<()> {
        self.managed.map_or(Ok(()), |managed| managed.attach(pid))
    }

    /// Once init is in. Limits of memory come as late as can be, so that setting up is not charged to a small one.
    pub fn finish(&self) -> Result<()> {
        drop(self.holder.take());
        self.cgroups.apply_last()?;
        self.managed.map_or(Ok(()), |managed| managed.set_last(self.plan))
    }

    /// A set-up that the kernel killed for memory says so.
    pub fn told_of_oom(&self, error: anyhow::Error) -> anyhow::Error {
        match cgroup::Recorded::new(self.cgroups.paths()).and_then(|cgroups| cgroups.oom_kills()) {
            Ok(kills) if kills > 0 => {
                error.context("out of memory: linux.resources.memory.limit is too small to start")
            }
            _ => error,
        }
    }

    pub fn undo(&self) -> Result<()> {
        drop(self.holder.take());
        let removed = self.claim.if_ours(|| self.cgroups.undo(PATIENCE, self.left));
        removed.inspect_err(|_| self.claim.keep())
    }

    pub fn keep(self) {
        self.unit.into_iter().for_each(Undo::commit);
    }
}
