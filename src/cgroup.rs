//! The container's cgroups: `linux.cgroupsPath` and `linux.resources` → directories and limits.
//!
//! ```text
//! plan() ──▶ CgroupPlan (data) ──▶ create() ──▶ NewCgroups: apply_before, tasks to join by, apply_last
//! pure: one file a controller                   paths() ──▶ state.json ──▶ Recorded: kill, pids, freezer, stats, remove
//! ```
//!
//! One controller, one file: each turns the spec's values into [`Write`]s and touches nothing. To add a value, add a
//! write there. Nothing here knows of namespaces, state or the container's processes other than by its cgroups.
//! A controller is in a v1 hierarchy or in the v2 tree, each for itself: so v1, hybrid and v2 hosts are all alike here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use nix::unistd::Pid;
use serde::Serialize;

use crate::host::cgroups::CgroupLayout;
use crate::plan::cgroup_paths::CgroupsPath;
use crate::plan::problems::Problems;
use crate::plan::spec::resources::Resources;

use self::draft::Draft;

pub use create::{Doors, NewCgroups, UnifiedHandles, create};
pub use device_filter::{DeviceFilter, attach as attach_device_filter};
pub use freeze::Freezer;
pub use join::{InTree, Joinable, Tree, open_to_join};
pub use oom::{Oom, OomWatch};
pub use probe::refuse_impossible;
pub use recorded::Recorded;
pub use remove::Holders;
pub use stats::Stats;
pub use unit::{Surroundings, UnitPlan, changed_properties, is_overwritten};
pub use update::{Updated, update};
pub use write::Write;

mod blkio;
mod cpu;
mod cpuset;
mod device_filter;
mod device_properties;
mod devices;
mod draft;
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
mod join;
mod oom;
mod perform;
mod probe;
mod properties;
mod recorded;
mod remove;
mod stats;
mod subtree;
mod unit;
mod update;
mod walk;

/// What is made and written, in which order. `rrun plan` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupPlan {
    /// The v1 hierarchies, then the v2 tree.
    pub hierarchies: Vec<HierarchyPlan>,
    /// Each path lies below the cgroup of a unit, which is the container's too and holds nobody else.
    #[serde(skip)]
    pub in_subgroup: bool,
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
    /// v2, where no v1 hierarchy has the devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<DeviceFilter>,
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
            devices: None,
            last: Vec::new(),
            owner: None,
        }
    }
}

/// An error may be of several problems: see [`Problems`].
pub fn plan(id: &str, cgroups_path: Option<&str>, resources: &Resources, layout: &CgroupLayout) -> Result<CgroupPlan> {
    use Version::{V1, V2};
    let mut draft = Draft::new(&CgroupsPath::new(id, cgroups_path)?, layout)?;
    let mut problems = Problems::default();
    let mut warnings = Vec::new();

    let cpu = problems.take(match draft.version("cpu") {
        V1 => cpu::v1(&resources.cpu, &mut warnings),
        V2 => cpu::v2(&resources.cpu, &mut warnings),
    });
    problems.ok(draft.before("cpu", cpu));
    problems.ok(draft.realtime_above(&resources.cpu));
    let cpuset = problems.take(match draft.version("cpuset") {
        V1 => cpuset::v1(&resources.cpu),
        V2 => cpuset::v2(&resources.cpu),
    });
    problems.ok(draft.before("cpuset", cpuset));
    problems.ok(draft.before("pids", pids::both(&resources.pids)));
    let (blkio, block_io) = match draft.version("io") {
        V1 => ("blkio", blkio::v1(&resources.block_io)),
        V2 => ("io", blkio::v2(&resources.block_io)),
    };
    problems.ok(block_io.and_then(|writes| draft.before(blkio, writes)));
    problems.ok(draft.before("net_cls", network::class_v1(&resources.network)));
    problems.ok(network::priorities_v1(&resources.network).and_then(|writes| draft.before("net_prio", writes)));
    let hugetlb = problems.take(match draft.version("hugetlb") {
        V1 => hugetlb::v1(&resources.hugepage_limits),
        V2 => hugetlb::v2(&resources.hugepage_limits),
    });
    problems.ok(draft.before("hugetlb", hugetlb));
    problems.ok(rdma::both(&resources.rdma).and_then(|writes| draft.before("rdma", writes)));
    problems.ok(draft.devices(&resources.devices));
    let (hierarchy, memory) = match draft.version("memory") {
        V1 => (memory::v1_hierarchy(&resources.memory), memory::v1(&resources.memory, &mut warnings)),
        V2 => (None, memory::v2(&resources.memory, &mut warnings)),
    };
    problems.ok(draft.before("memory", hierarchy));
    problems.ok(memory.and_then(|writes| draft.last("memory", writes)));
    for (controller, write) in problems.take(unified::v2(&resources.unified, layout.v2.as_ref())) {
        problems.ok(match (draft.version(&controller), controller.as_str()) {
            (V1, _) => Err(anyhow!(
                "{}: its {controller} controller is mounted as cgroup v1 here; use that field",
                write.field
            )),
            (V2, "memory") => draft.last(&controller, [write]),
            (V2, _) => draft.before(&controller, [write]),
        });
    }
    problems.result(CgroupPlan { hierarchies: draft.hierarchies, in_subgroup: false, warnings })
}

/// Refuses a cgroup that is another container's, before anything records it as ours: what is recorded is killed and
/// removed by `delete`. One process may be inside: ours.
pub fn refuse_occupied(plan: &CgroupPlan, but: Option<Pid>) -> Result<()> {
    if !plan.is_there() {
        return Ok(());
    }
    let recorded = Recorded::new(&plan.paths())?;
    let recorded = if plan.in_subgroup { recorded.above() } else { recorded };
    match recorded.pids()?.into_iter().filter(|pid| Some(*pid) != but).count() {
        0 => {}
        count => bail!("container's cgroup is not empty: {count} process(es) found; choose another linux.cgroupsPath"),
    }
    anyhow::ensure!(
        !recorded.has_unseen()?,
        "container's cgroup is not empty: processes outside of rrun's pid namespace are in it; choose another linux.cgroupsPath"
    );
    anyhow::ensure!(!recorded.frozen()?, "container's cgroup unexpectedly frozen; choose another linux.cgroupsPath");
    Ok(())
}

const NO_CGROUP: &str = "make it anew where rrun may make one (for an ordinary user: in one that systemd delegates)";

impl CgroupPlan {
    /// Mostly there is none of that name. One that cannot be looked at counts, and is told by what follows.
    pub fn is_there(&self) -> bool {
        let mut directories = self.hierarchies.iter().map(HierarchyPlan::directory);
        !directories.all(|mut directory| {
            if self.in_subgroup {
                directory.pop();
            }
            matches!(directory.try_exists(), Ok(false))
        })
    }

    /// For a container that stays in the cgroup of rrun.
    pub fn none() -> Self {
        Self { hierarchies: Vec::new(), in_subgroup: false, warnings: Vec::new() }
    }

    /// The lists of v1, which only root of the host may write.
    pub fn forgo_devices(&mut self) {
        for hierarchy in self.hierarchies.iter_mut().filter(|hierarchy| hierarchy.version == Version::V1) {
            hierarchy.before.retain(|write| !write.field.starts_with("linux.resources.devices"));
        }
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

    /// Points it at cgroups that were made earlier: a path relative to rrun's own cgroup means another one today. Those
    /// hierarchies stay that the container is in; a value that is `asked` for in another one cannot be set.
    pub fn at(mut self, paths: &BTreeMap<String, PathBuf>, asked: impl Fn(&Write) -> bool) -> Result<Self> {
        for mut hierarchy in std::mem::take(&mut self.hierarchies) {
            let name =
                if hierarchy.version == Version::V2 { Some("") } else { hierarchy.controllers.first().map(|c| &**c) };
            let Some(path) = name.and_then(|name| paths.get(name)) else {
                match hierarchy.before.iter().chain(&hierarchy.last).find(|write| asked(write)) {
                    Some(write) => bail!("{}: the container has no cgroup of its own for it; {NO_CGROUP}", write.field),
                    None => continue,
                }
            };
            let Ok(path) = path.strip_prefix(&hierarchy.mountpoint) else {
                bail!("cgroup {}: is not below {} any more", path.display(), hierarchy.mountpoint.display());
            };
            hierarchy.path = path.to_path_buf();
            self.hierarchies.push(hierarchy);
        }
        Ok(self)
    }

    /// The container's own user may then make cgroups below its own: systemd in a container does.
    pub fn delegate_to(&mut self, host_uid: u32) {
        for tree in self.hierarchies.iter_mut().filter(|hierarchy| hierarchy.version == Version::V2) {
            tree.owner = Some(host_uid);
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod unseen;
