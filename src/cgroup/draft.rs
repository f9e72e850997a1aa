//! A plan in the making: finds for each controller the hierarchy that has it, and puts its writes there.

use anyhow::{Result, bail};

use super::device_filter::DeviceFilter;
use super::{HierarchyPlan, Version, Write, cpu, devices};
use crate::host::cgroups::{CgroupLayout, Unified};
use crate::plan::cgroup_paths::CgroupsPath;
use crate::plan::spec::resources::{Cpu, DeviceRule};

pub struct Draft<'a> {
    layout: &'a CgroupLayout,
    pub hierarchies: Vec<HierarchyPlan>,
}

impl<'a> Draft<'a> {
    pub fn new(path: &CgroupsPath, layout: &'a CgroupLayout) -> Result<Self> {
        let alone = layout.v1.is_empty();
        layout.require_any()?;
        let mut hierarchies = Vec::new();
        for v1 in &layout.v1 {
            let path = path.in_hierarchy(v1)?;
            hierarchies.push(HierarchyPlan::new(Version::V1, &v1.controllers, &v1.mountpoint, path));
        }
        if let Some(tree) = &layout.v2 {
            // even without a controller there: the child is born into it, and all of it can be killed at once
            let path = if alone { path.in_only_tree(tree)? } else { path.in_hybrid_tree(tree)? };
            let mut plan = HierarchyPlan::new(Version::V2, &[], &tree.mountpoint, path);
            if alone {
                plan.enable_also = tree.controllers.clone();
            }
            hierarchies.push(plan);
        }
        Ok(Self { layout, hierarchies })
    }

    /// The index of the hierarchy that has this controller.
    pub fn v1(&self, controller: &str) -> Option<usize> {
        self.hierarchies.iter().position(|hierarchy| hierarchy.controllers.iter().any(|own| own == controller))
    }

    /// The index of the v2 tree, if this controller is there.
    fn tree_with(&self, controller: &str) -> Option<usize> {
        let has = |tree: &Unified| tree.controllers.iter().any(|own| own == controller);
        let there = self.v1(controller).is_none() && self.layout.v2.as_ref().is_some_and(has);
        there.then(|| self.hierarchies.iter().position(|hierarchy| hierarchy.version == Version::V2)).flatten()
    }

    /// What a controller's values are to be converted for. One that is nowhere is refused when it is given a value.
    pub fn version(&self, controller: &str) -> Version {
        if self.tree_with(controller).is_some() { Version::V2 } else { Version::V1 }
    }

    pub fn before(&mut self, controller: &str, writes: impl IntoIterator<Item = Write>) -> Result<()> {
        self.place(controller, writes, |hierarchy| &mut hierarchy.before)
    }

    pub fn last(&mut self, controller: &str, writes: impl IntoIterator<Item = Write>) -> Result<()> {
        self.place(controller, writes, |hierarchy| &mut hierarchy.last)
    }

    fn place(
        &mut self,
        controller: &str,
        writes: impl IntoIterator<Item = Write>,
        group: fn(&mut HierarchyPlan) -> &mut Vec<Write>,
    ) -> Result<()> {
        let mut writes = writes.into_iter().peekable();
        let Some(first) = writes.peek() else { return Ok(()) };
        let Some(home) = self.v1(controller).or(self.tree_with(controller)) else {
            bail!("{}: this host has no {controller} controller mounted; mount it or leave this out", first.field);
        };
        let home = &mut self.hierarchies[home];
        group(home).extend(writes);
        if home.version == Version::V2 {
            home.enable_also.retain(|own| own != controller);
            if !home.enable.iter().any(|own| own == controller) {
                home.enable.push(controller.to_string());
            }
        }
        Ok(())
    }

    /// The v2 tree needs no controller for them.
    pub fn devices(&mut self, rules: &[DeviceRule]) -> Result<()> {
        if self.v1("devices").is_some() {
            return self.before("devices", devices::v1(rules)?);
        }
        let filter = DeviceFilter::new(rules)?;
        let tree = self.hierarchies.iter_mut().find(|hierarchy| hierarchy.version == Version::V2);
        match tree {
            _ if filter.allows_everything() => {}
            Some(tree) => tree.devices = Some(filter),
            None => {
                bail!("linux.resources.devices: this host has no devices controller to keep any from the container")
            }
        }
        Ok(())
    }

    pub fn realtime_above(&mut self, cpu: &Cpu) -> Result<()> {
        if let Some(home) = self.v1("cpu") {
            self.hierarchies[home].realtime_above = cpu::realtime(cpu)?;
        }
        Ok(())
    }
}
