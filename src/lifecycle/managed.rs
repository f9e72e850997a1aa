//! Containers whose cgroups systemd owns: the unit that is asked for when one is made, and that goes with it. What the
//! unit is to be, the plan says; when it is asked for, `bring_up`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;

use super::claim::Claim;
use super::container::Container;
use super::permitted;
use crate::cgroup::{self, CgroupPlan, Surroundings, UnitPlan, Updated, Write};
use crate::hooks::Stop;
use crate::host::Host;
use crate::launch::holder::Holder;
use crate::plan::Plan;
use crate::plan::annotations::{PERMITTED, subgroup};
use crate::plan::spec::Spec;
use crate::plan::spec::resources::DeviceRule;
use crate::plan::unit::Unit;
use crate::state::{self, State};
use crate::systemd::{Absent, Address, Manager, Property, Unsure, Value, Whose, annotation};

/// A systemd that answers, and the unit that a container is to have there.
pub struct Found<'s> {
    unit: Unit,
    manager: Manager<'s>,
    of_user: bool,
}

impl<'s> Found<'s> {
    pub fn new(id: &str, spec: &Spec, host: &Host, stop: Option<&'s dyn Stop>) -> Result<Self> {
        let of_user = host.rootless;
        let unit = unit(id, spec, of_user).context("config.json")?;
        if of_user && !host.cgroups.v1.is_empty() {
            bail!(Absent::new("a user's own systemd has cgroups to give on cgroup v2 alone, and this host has v1"));
        }
        let whose = if of_user { Whose::User } else { Whose::System };
        let manager = Manager::connect(&whose, stop)?;
        Ok(Self { unit, manager, of_user })
    }

    /// Of the container in the unit to be, from the top of every hierarchy.
    pub fn cgroup(&self) -> Result<String> {
        let group = Path::new("/").join(self.manager.control_group.trim_start_matches('/'));
        // all of it came from texts
        Ok(group.join(self.unit.cgroup()?).to_string_lossy().into_owned())
    }

    pub fn decide(self, plan: &Plan, cgroup: &CgroupPlan, devices: &[DeviceRule]) -> Result<Managed<'s>> {
        let Self { unit, manager, of_user } = self;
        // a kernel without one has no driver to name
        let known = std::fs::read_to_string("/proc/devices").unwrap_or_default();
        let around = Surroundings {
            container: &plan.id,
            version: manager.version,
            of_user,
            bfq: has_bfq(),
            known_devices: &known,
            annotated: annotated(&plan.annotations).context("config.json")?,
        };
        let plan = UnitPlan::new(unit, cgroup, devices, &around).context("config.json")?;
        Ok(Managed { plan, of_user, manager: RefCell::new(manager) })
    }
}

/// That a config asks for.
pub fn unit(id: &str, spec: &Spec, of_user: bool) -> Result<Unit> {
    Unit::new(id, spec.cgroups_path(), of_user)?.with_subgroup(subgroup(&spec.annotations))
}

/// What annotations ask for. They come from whoever describes the container, and some properties have the host do things;
/// a user's own systemd would do them as that user, so nobody is excepted.
fn annotated(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    let mut permits = None;
    for (key, text) in annotations {
        let Some(name) = key.strip_prefix(annotation::PREFIX) else { continue };
        if permits.is_none() {
            permits = Some(permitted::annotations()?);
        }
        let is_permitted = permits.iter().flat_map(|text| text.lines()).any(|line| line.trim() == key);
        ensure!(
            is_permitted,
            "annotations.{key}: sets a property of a unit of the host's; root may permit it by a line {key} in {PERMITTED}"
        );
        properties.push(annotation::property(name, text).with_context(|| format!("annotations.{key}"))?);
    }
    Ok(properties)
}

/// A container's unit, decided and not yet asked for.
pub struct Managed<'s> {
    pub plan: UnitPlan,
    of_user: bool,
    manager: RefCell<Manager<'s>>,
}

impl Managed<'_> {
    pub fn record(&self) -> state::Unit {
        let bus = self.of_user.then(|| self.manager.borrow().address().to_string());
        let Unit { name, subgroup, .. } = self.plan.unit.clone();
        state::Unit { name, bus, subgroup }
    }

    /// Before anything records the unit as the container's: what is recorded is stopped by `delete`. Where none of that name
    /// has a cgroup there is nobody to ask about.
    pub fn refuse_foreign(&self, cgroup: &CgroupPlan) -> Result<()> {
        if !cgroup.is_there() {
            return Ok(());
        }
        let mut manager = self.manager.borrow_mut();
        manager.refuse_foreign(&self.plan.unit.name, |description| self.plan.is_described(description))
    }

    /// Makes the unit. A scope lives as long as somebody is in it: the holder, until init is. Both are our children, so
    /// that their numbers cannot come to mean others while systemd is told them.
    pub fn ask(&self, claim: &Claim, cgroup: &CgroupPlan) -> Result<Option<Holder>> {
        let name = &self.plan.unit.name;
        let mut properties = self.plan.properties.clone();
        let holder = match self.plan.unit.is_slice() {
            true => None,
            false => {
                let holder = Holder::new().context("a process for the scope")?;
                properties.push(("PIDs".into(), Value::List("u", vec![Value::U32(holder.pid().as_raw() as u32)])));
                Some(holder)
            }
        };
        let pid = holder.as_ref().map(Holder::pid);
        let asked = self.manager.borrow_mut().start(name, &properties, |manager| {
            cgroup::refuse_occupied(cgroup, pid)?;
            manager.refuse_foreign(name, |description| self.plan.is_described(description))
        });
        match asked {
            Ok(()) => Ok(holder),
            Err(error) if error.is::<Unsure>() => {
                claim.abandon()?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// What would have limited init's own set-up.
    pub fn set_last(&self, cgroup: &CgroupPlan) -> Result<()> {
        if self.plan.last.is_empty() {
            return Ok(());
        }
        let mut manager = self.manager.borrow_mut();
        manager.set(&self.plan.unit.name, &self.plan.last)?;
        write_again(cgroup, manager.version)
    }

    pub fn attach(&self, pid: Pid) -> Result<()> {
        let unit = &self.plan.unit;
        self.manager.borrow_mut().attach(&unit.name, unit.subgroup.as_deref(), pid)
    }

    pub fn remove(&self) -> Result<()> {
        self.manager.borrow_mut().stop(&self.plan.unit.name)
    }
}

/// The systemd that a container's unit was asked from.
fn manager_of(unit: &state::Unit) -> Result<Manager<'static>> {
    let whose = match &unit.bus {
        None => Whose::System,
        Some(bus) => match Address::parse_list(OsStr::new(bus)).into_iter().next() {
            Some(address) => Whose::At(address),
            None => bail!("the record names no bus: {bus}"),
        },
    };
    Manager::connect(&whose, None)
}

/// Tells systemd what `update` has written. It is asked to answer before anything is written.
pub struct Told<'c> {
    name: &'c str,
    manager: Manager<'static>,
    /// It may have heard of the new values.
    is_told: bool,
}

impl<'c> Told<'c> {
    pub fn new(state: &'c State) -> Result<Option<Self>> {
        let Some(unit) = &state.unit else { return Ok(None) };
        match manager_of(unit) {
            Err(error) if error.is::<Absent>() => Ok(None),
            manager => Ok(Some(Self { name: &unit.name, manager: manager?, is_told: false })),
        }
    }

    pub fn tell(&mut self, container: &Container, plan: &CgroupPlan, wanted: impl Fn(&Write) -> bool) -> Result<()> {
        let properties = cgroup::changed_properties(plan, &wanted, self.manager.version, has_bfq())?;
        if properties.is_empty() {
            return Ok(());
        }
        self.set(container, &properties)?;
        write_again(plan, self.manager.version)
    }

    /// When the files have their old values again. What systemd then writes roughly is taken back once more.
    pub fn put_back(&mut self, container: &Container, updated: &Updated) -> Result<()> {
        let properties = updated.properties_before(self.manager.version, has_bfq());
        if !self.is_told || properties.is_empty() {
            return Ok(());
        }
        self.set(container, &properties)?;
        updated.take_back()
    }

    /// On v1 a systemd may write its list of devices anew with every change, from an empty one on. Nobody inside is to
    /// meet that.
    fn set(&mut self, container: &Container, properties: &[Property]) -> Result<()> {
        let cgroups = container.cgroups()?;
        let in_v1 = container.state.cgroup_paths.contains_key("devices");
        let freezer = if in_v1 && !cgroups.frozen()? { cgroups.freezer()? } else { None };
        let mut set = || {
            let result = self.manager.set(self.name, properties);
            // of one that has not answered there is no telling
            self.is_told |= result.is_ok();
            result
        };
        let Some(freezer) = &freezer else { return set() };
        container.directory.mark_frozen()?;
        let result = freezer.freeze(FREEZE_PATIENCE).and_then(|_| set());
        freezer.thaw()?;
        container.directory.unmark_frozen()?;
        result
    }
}

/// What systemd has just written otherwise: nothing that lies below the unit's own cgroup.
fn write_again(plan: &CgroupPlan, version: u32) -> Result<()> {
    if plan.in_subgroup {
        return Ok(());
    }
    cgroup::update(plan, |write| cgroup::is_overwritten(write, version), false).map(drop)
}

const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

fn has_bfq() -> bool {
    Path::new("/sys/module/bfq").exists()
}

/// One more process.
pub fn attach(state: &State, pid: Pid) -> Result<()> {
    state.unit.as_ref().map_or(Ok(()), |unit| manager_of(unit)?.attach(&unit.name, unit.subgroup.as_deref(), pid))
}

/// By `delete`, when nobody is inside any more. A systemd that is gone has taken its units along.
pub fn remove(state: &State) -> Result<()> {
    let Some(unit) = &state.unit else { return Ok(()) };
    match manager_of(unit) {
        Err(error) if error.is::<Absent>() => Ok(()),
        manager => manager?.stop(&unit.name),
    }
}
