//! The container's cgroups: `linux.cgroupsPath` and `linux.resources` → directories and limits.
//!
//! ```text
//! plan() ──▶ CgroupPlan (data) ──▶ create() ──▶ NewCgroups: apply_before, tasks to join by, apply_last
//! pure: one file a controller                   paths() ──▶ state.json ──▶ Recorded: kill, pids, freezer, remove
//! ```
//!
//! One controller, one file: each turns the spec's values into [`Write`]s and touches nothing. To add a value, add a
//! write there. Nothing here knows of namespaces, state or the container's processes other than by its cgroups.
//! A controller is in a v1 hierarchy or in the v2 tree, each for itself: so v1, hybrid and v2 hosts are all alike here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::host::cgroups::{CgroupLayout, Unified};
use crate::plan::cgroup_paths::CgroupsPath;
use crate::plan::spec::resources::{Cpu, Resources};

pub use create::{NewCgroups, UnifiedHandles, create};
pub use freeze::Freezer;
pub use recorded::Recorded;
pub use remove::Holders;
pub use write::Write;

mod blkio;
mod cpu;
mod cpuset;
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
mod subtree;
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
    /// What they hand down where nothing is in the way: for statistics, for `update`, for cgroups made inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enable_also: Vec<String>,
    /// v1 cpu: for each directory above that has no real-time budget yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub realtime_above: Vec<Write>,
    /// Before init joins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<Write>,
    /// When init has set itself up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Write>,
    /// v2: the user of the host who may make cgroups below it, where the container sees it as its own and writable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
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
            enable_also: Vec::new(),
            realtime_above: Vec::new(),
            before: Vec::new(),
            last: Vec::new(),
            owner: None,
        }
    }
}

pub fn plan(id: &str, cgroups_path: Option<&str>, resources: &Resources, layout: &CgroupLayout) -> Result<CgroupPlan> {
    use Version::{V1, V2};
    let mut draft = Draft::new(&CgroupsPath::new(id, cgroups_path)?, layout)?;
    let mut warnings = Vec::new();

    let cpu = match draft.version("cpu") {
        V1 => cpu::v1(&resources.cpu, &mut warnings)?,
        V2 => cpu::v2(&resources.cpu, &mut warnings)?,
    };
    draft.before("cpu", cpu)?;
    draft.realtime_above(&resources.cpu)?;
    let cpuset = match draft.version("cpuset") {
        V1 => cpuset::v1(&resources.cpu)?,
        V2 => cpuset::v2(&resources.cpu)?,
    };
    draft.before("cpuset", cpuset)?;
    draft.before("pids", pids::both(&resources.pids))?;
    match draft.version("io") {
        V1 => draft.before("blkio", blkio::v1(&resources.block_io)?)?,
        V2 => draft.before("io", blkio::v2(&resources.block_io)?)?,
    }
    draft.before("net_cls", network::class_v1(&resources.network))?;
    draft.before("net_prio", network::priorities_v1(&resources.network)?)?;
    let hugetlb = match draft.version("hugetlb") {
        V1 => hugetlb::v1(&resources.hugepage_limits)?,
        V2 => hugetlb::v2(&resources.hugepage_limits)?,
    };
    draft.before("hugetlb", hugetlb)?;
    draft.before("rdma", rdma::both(&resources.rdma)?)?;
    let devices = devices::v1(&resources.devices)?;
    if draft.v1("devices").is_some() {
        draft.before("devices", devices)?;
    } else if devices::restricts(&devices) {
        bail!("linux.resources.devices: this host has no devices controller mounted to keep any from the container");
    }
    match draft.version("memory") {
        V1 => {
            draft.before("memory", memory::v1_hierarchy(&resources.memory))?;
            draft.last("memory", memory::v1(&resources.memory, &mut warnings)?)?;
        }
        V2 => draft.last("memory", memory::v2(&resources.memory, &mut warnings)?)?,
    }
    for (controller, write) in unified::v2(&resources.unified, layout.v2.as_ref())? {
        match (draft.version(&controller), controller.as_str()) {
            (V1, _) => {
                bail!("{}: its {controller} controller is mounted as cgroup v1 here; use that field", write.field)
            }
            (V2, "memory") => draft.last(&controller, [write])?,
            (V2, _) => draft.before(&controller, [write])?,
        }
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
    /// Where state.json finds them again, by controller; the v2 tree's key is empty.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for hierarchy in &self.hierarchies {
            let names = if hierarchy.version == Version::V2 { &[String::new()][..] } else { &hierarchy.controllers };
            paths.extend(names.iter().map(|name| (name.clone(), hierarchy.directory())));
        }
        paths
    }

    /// The container's own user may then make cgroups below its own: systemd in a container does.
    pub fn delegate_to(&mut self, host_uid: u32) {
        for tree in self.hierarchies.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            tree.owner = Some(host_uid);
        }
    }
}

struct Draft<'a> {
    layout: &'a CgroupLayout,
    hierarchies: Vec<HierarchyPlan>,
}

impl<'a> Draft<'a> {
    fn new(path: &CgroupsPath, layout: &'a CgroupLayout) -> Result<Self> {
        let alone = layout.v1.is_empty();
        if alone && layout.v2.is_none() {
            bail!("this host has no cgroup file system mounted; mount cgroup2 on /sys/fs/cgroup");
        }
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
    fn v1(&self, controller: &str) -> Option<usize> {
        self.hierarchies.iter().position(|hierarchy| hierarchy.controllers.iter().any(|own| own == controller))
    }

    /// The index of the v2 tree, if this controller is there.
    fn tree_with(&self, controller: &str) -> Option<usize> {
        let has = |tree: &Unified| tree.controllers.iter().any(|own| own == controller);
        let there = self.v1(controller).is_none() && self.layout.v2.as_ref().is_some_and(has);
        there.then(|| self.hierarchies.iter().position(|hierarchy| hierarchy.version == Version::V2)).flatten()
    }

    /// What a controller's values are to be converted for. One that is nowhere is refused when it is given a value.
    fn version(&self, controller: &str) -> Version {
        if self.tree_with(controller).is_some() { Version::V2 } else { Version::V1 }
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

    fn realtime_above(&mut self, cpu: &Cpu) -> Result<()> {
        if let Some(home) = self.v1("cpu") {
            self.hierarchies[home].realtime_above = cpu::realtime(cpu)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
