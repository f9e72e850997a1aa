//! The container's cgroups: `linux.cgroupsPath` and `linux.resources` → directories and limits.
//!
//! ```text
//! plan() ──▶ CgroupPlan (data) ──▶ create() ──▶ NewCgroups: apply_before, tasks to join by, apply_last
//! pure: one file a controller                   paths() ──▶ state.json ──▶ Recorded: kill, pids, freezer, remove
//! ```
//!
//! One controller, one file: each turns the spec's values into [`Write`]s and touches nothing. To add a value, add a
//! write there. Nothing here knows of namespaces, state or the container's processes other than by its cgroups.
//! Hosts with v1 hierarchies, with or without a v2 tree beside them; a v2 tree alone is refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::host::cgroups::{CgroupLayout, Unified};
use crate::plan::cgroup_paths::CgroupsPath;
use crate::plan::spec::resources::{DeviceRule, Resources};

pub use create::{NewCgroups, UnifiedHandles, create};
pub use device_filter::{DeviceFilter, attach as attach_device_filter};
pub use freeze::Freezer;
pub use recorded::Recorded;
pub use remove::Holders;
pub use write::Write;

mod blkio;
mod cpu;
mod cpuset;
mod device_filter;
mod devices;
mod hugetlb;
mod memory;
mod network;
mod pids;
mod rdma;
mod unified;
mod write;

mod create;
mod directory;
mod freeze;
mod perform;
mod recorded;
mod remove;
mod walk;

/// What is made and written, in which order. `rrun plan` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupPlan {
    /// The v1 hierarchies, then the v2 tree.
    pub hierarchies: Vec<HierarchyPlan>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    V1,
    V2,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HierarchyPlan {
    pub version: Version,
    /// Empty for the v2 tree.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub controllers: Vec<String>,
    pub mountpoint: PathBuf,
    /// The container's cgroup, below the mountpoint.
    pub path: PathBuf,
    /// v2: what each directory above must hand down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enable: Vec<String>,
    /// v1 cpu: for each directory above that has no real-time budget yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub realtime_above: Vec<Write>,
    /// Before init joins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Write>,
    /// v2, where no v1 hierarchy has the devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceFilter>,
    /// When init has set itself up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Write>,
}

impl HierarchyPlan {
    pub fn directory(&self) -> PathBuf {
        self.mountpoint.join(&self.path)
    }

    fn new(version: Version, controllers: &[String], mountpoint: &Path, path: PathBuf) -> Self {
        Self {
            version,
            controllers: controllers.to_vec(),
            mountpoint: mountpoint.to_path_buf(),
            path,
            enable: Vec::new(),
            realtime_above: Vec::new(),
            before: Vec::new(),
            devices: None,
            last: Vec::new(),
        }
    }
}

pub fn plan(id: &str, cgroups_path: Option<&str>, resources: &Resources, layout: &CgroupLayout) -> Result<CgroupPlan> {
    let mut draft = Draft::new(&CgroupsPath::new(id, cgroups_path)?, layout)?;
    let mut warnings = Vec::new();

    draft.before("cpu", cpu::v1(&resources.cpu, &mut warnings)?)?;
    draft.realtime_above(cpu::realtime(&resources.cpu)?);
    draft.before("cpuset", cpuset::v1(&resources.cpu)?)?;
    draft.before("pids", pids::v1(&resources.pids))?;
    draft.before("blkio", blkio::v1(&resources.block_io)?)?;
    draft.before("net_cls", network::class_v1(&resources.network))?;
    draft.before("net_prio", network::priorities_v1(&resources.network)?)?;
    match draft.tree_with("hugetlb") {
        Some(tree) => draft.in_tree(tree, "hugetlb", hugetlb::v2(&resources.hugepage_limits)?),
        None => draft.before("hugetlb", hugetlb::v1(&resources.hugepage_limits)?)?,
    }
    match draft.tree_with("rdma") {
        Some(tree) => draft.in_tree(tree, "rdma", rdma::both(&resources.rdma)?),
        None => draft.before("rdma", rdma::both(&resources.rdma)?)?,
    }
    draft.devices(&resources.devices)?;
    draft.before("memory", memory::v1_hierarchy(&resources.memory))?;
    draft.last("memory", memory::v1(&resources.memory, &mut warnings)?)?;
    for (controller, write) in unified::hybrid(&resources.unified, layout.v2.as_ref())? {
        let Some(tree) = draft.tree_with(&controller) else {
            bail!("{}: its {controller} controller is mounted as cgroup v1 here; use the field of v1", write.field);
        };
        draft.in_tree(tree, &controller, [write]);
    }
    Ok(CgroupPlan { hierarchies: draft.hierarchies, warnings })
}

/// Refuses a cgroup that is another container's, before anything records it as ours: what is recorded is killed and
/// removed by `delete`.
pub fn refuse_occupied(plan: &CgroupPlan) -> Result<()> {
    // Mostly there is none of that name. One that cannot be looked at is told by what follows.
    if plan.hierarchies.iter().all(|hierarchy| matches!(hierarchy.directory().try_exists(), Ok(false))) {
        return Ok(());
    }
    let recorded = Recorded::new(&plan.paths())?;
    match recorded.pids()?.len() {
        0 => {}
        count => bail!("container's cgroup is not empty: {count} process(es) found; choose another linux.cgroupsPath"),
    }
    anyhow::ensure!(!recorded.frozen()?, "container's cgroup unexpectedly frozen; choose another linux.cgroupsPath");
    Ok(())
}

impl CgroupPlan {
    /// For a container that stays in the cgroup of rrun.
    pub fn none() -> Self {
        Self { hierarchies: Vec::new(), warnings: Vec::new() }
    }

    /// The first limit that is asked for. Rules about devices are none to an ordinary user, who can neither make nodes nor
    /// open what the host does not let him open.
    pub fn first_limit(&self) -> Option<&str> {
        let writes = self.hierarchies.iter().flat_map(|hierarchy| hierarchy.before.iter().chain(&hierarchy.last));
        writes.map(|write| write.field.as_ref()).find(|field| !field.starts_with("linux.resources.devices"))
    }

    /// Where state.json finds them again, by controller; the v2 tree's key is empty.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for hierarchy in &self.hierarchies {
            let names = if hierarchy.version == Version::V2 { &[String::new()][..] } else { &hierarchy.controllers };
            paths.extend(names.iter().map(|name| (name.clone(), hierarchy.directory())));
        }
        paths
    }
}

struct Draft<'a> {
    layout: &'a CgroupLayout,
    hierarchies: Vec<HierarchyPlan>,
}

impl<'a> Draft<'a> {
    fn new(path: &CgroupsPath, layout: &'a CgroupLayout) -> Result<Self> {
        if layout.v1.is_empty() {
            match layout.v2 {
                Some(_) => bail!("this host has cgroup v2 alone; support for that comes in a later version of rrun"),
                None => {
                    bail!("this host has no cgroup file system mounted; mount the hierarchies below /sys/fs/cgroup")
                }
            }
        }
        let mut hierarchies = Vec::new();
        for v1 in &layout.v1 {
            let path = path.in_hierarchy(v1)?;
            hierarchies.push(HierarchyPlan::new(Version::V1, &v1.controllers, &v1.mountpoint, path));
        }
        if let Some(tree) = &layout.v2 {
            // even without a controller there: the child is born into it, and all of it can be killed at once
            hierarchies.push(HierarchyPlan::new(Version::V2, &[], &tree.mountpoint, path.in_hybrid_tree(tree)?));
        }
        Ok(Self { layout, hierarchies })
    }

    /// The index of the hierarchy that has this controller.
    fn v1(&self, controller: &str) -> Option<usize> {
        self.hierarchies.iter().position(|hierarchy| hierarchy.controllers.iter().any(|own| own == controller))
    }

    /// The index of the v2 tree, if this controller is there.
    fn tree_with(&self, controller: &str) -> Option<usize> {
        let has = |tree: &Unified| tree.controllers.iter().any(|own| own == controller);
        let there = self.v1(controller).is_none() && self.layout.v2.as_ref().is_some_and(has);
        there.then(|| self.hierarchies.iter().position(|hierarchy| hierarchy.version == Version::V2)).flatten()
    }

    fn before(&mut self, controller: &str, writes: impl IntoIterator<Item = Write>) -> Result<()> {
        self.place(controller, writes, |hierarchy| &mut hierarchy.before)
    }

    fn last(&mut self, controller: &str, writes: impl IntoIterator<Item = Write>) -> Result<()> {
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
        match (self.v1(controller), self.tree_with(controller)) {
            (Some(home), _) => group(&mut self.hierarchies[home]).extend(writes),
            (None, Some(_)) => bail!(
                "{}: this host has its {controller} controller in the cgroup v2 tree, where rrun cannot set this yet",
                first.field
            ),
            (None, None) => {
                bail!("{}: this host has no {controller} controller mounted; mount it or leave this out", first.field)
            }
        }
        Ok(())
    }

    fn in_tree(&mut self, tree: usize, controller: &str, writes: impl IntoIterator<Item = Write>) {
        let tree = &mut self.hierarchies[tree];
        let before = tree.before.len();
        tree.before.extend(writes);
        if tree.before.len() > before && !tree.enable.iter().any(|own| own == controller) {
            tree.enable.push(controller.to_string());
        }
    }

    /// The v2 tree needs no controller for them.
    fn devices(&mut self, rules: &[DeviceRule]) -> Result<()> {
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

    fn realtime_above(&mut self, writes: Vec<Write>) {
        if let Some(cpu) = self.v1("cpu") {
            self.hierarchies[cpu].realtime_above = writes;
        }
    }
}

#[cfg(test)]
mod tests;
