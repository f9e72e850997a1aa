//! `update`: other limits for a container that lives. Decided as at `create`, from the config that was stored then with
//! what is asked for laid over it; written where it differs or was named. All of it is done under the lock: what is
//! stored is what stands in the cgroups.

use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

use super::Store;
use super::container::Container;
use super::managed;
use crate::cgroup::{self, CgroupPlan, Write};
use crate::error::Matched;
use crate::host::cgroups::CgroupLayout;
use crate::log;
use crate::plan::spec::resources::Resources;
use crate::plan::update::Update;
use crate::procfs::Proc;
use crate::resctrl::Before;
use crate::state::directory::Directory;
use crate::state::{self, Status};

pub fn update(store: &Store, id: &str, update: &Update) -> Result<()> {
    state::check_id(id)?;
    let (directory, _lock) = Directory::open_locked(&store.root, id)?.ok_or(Matched::DoesNotExist)?;
    let container = Container::in_directory(directory)?.ok_or(Matched::DoesNotExist)?;
    match container.status()? {
        Status::Created | Status::Running | Status::Paused => {}
        Status::Creating => bail!("the container is still being created; wait until `create` has returned"),
        Status::Stopped => return Err(Matched::NotRunning.into()),
    }
    let config = container.directory.read_config()?.context("config.json: missing from the record")?;
    let mut config: Value = serde_json::from_slice(&config).context("stored config.json")?;
    let layout = CgroupLayout::detect(&Proc::open()?)?;
    let before = Planned::new(&config, &container, &layout, |_| false)?;
    update.lay_over(&mut config);
    let after = Planned::new(&config, &container, &layout, |write| update.names(&write.field))?;
    for warning in after.plan.warnings.iter().filter(|warning| before.is_news(warning, update)) {
        log::warning(warning);
    }
    // BFQ forgets the weights of disks when it is given the one of all
    let weighs = update.names("linux.resources.blockIO.weight");
    let follows = |write: &Write| weighs && write.field.starts_with("linux.resources.blockIO.weightDevice");
    let wanted = |write: &Write| update.names(&write.field) || !before.writes(write) || follows(write);
    // a systemd that does not answer is known before anything is written
    let mut told = managed::Told::new(&container.state).context("systemd")?;
    let schemas = set_schemas(&container, update)?;
    let put_back = || schemas.as_ref().map_or(Ok(()), Before::put_back);
    let updated = cgroup::update(&after.plan, wanted, after.check_memory);
    let updated = updated.or_else(|error| put_back().and(Err(error)))?;
    let mut tell = || told.as_mut().map_or(Ok(()), |told| told.tell(&container, &after.plan, wanted));
    let finish = || Ok(container.directory.replace_config(&serde_json::to_vec(&config)?)?);
    tell().context("systemd").and_then(|()| finish()).or_else(|error| {
        // all of them are tried, whatever becomes of one
        let files = updated.take_back();
        let systemd = told.map_or(Ok(()), |mut told| told.put_back(&container, &updated)).context("systemd");
        let undone = [files, systemd, put_back()];
        undone.into_iter().collect::<Result<()>>().map_err(|worse| {
            anyhow!("{error:#}; and a value that was set before it could not be taken back: {worse:#}")
        })?;
        Err(error)
    })
}

/// Not even looked at where none are given.
fn set_schemas<'a>(container: &'a Container, update: &Update) -> Result<Option<Before<'a>>> {
    let Some(schemas) = update.schemas() else { return Ok(None) };
    let group = container.state.intel_rdt.as_ref();
    let group = group.context("linux.intelRdt: the container was made without it; no schema can be set")?;
    group.set(schemas.l3_cache.as_deref(), schemas.mem_bw.as_deref()).map(Some)
}

/// What a config makes of the container's cgroups.
struct Planned {
    plan: CgroupPlan,
    /// `memory.checkBeforeUpdate`
    check_memory: bool,
}

impl Planned {
    /// `asked`: that it be written; else what has no cgroup is left out.
    fn new(
        config: &Value,
        container: &Container,
        layout: &CgroupLayout,
        asked: impl Fn(&Write) -> bool,
    ) -> Result<Self> {
        // of a unit only systemd knows the path
        let path = config.pointer("/linux/cgroupsPath").and_then(Value::as_str);
        let path = path.filter(|path| !path.is_empty() && container.state.unit.is_none());
        let path = path.or(container.state.unit.as_ref().map(|_| "/unit"));
        let resources = config.pointer("/linux/resources").cloned().unwrap_or_default();
        let resources: Option<Resources> = serde_json::from_value(resources).context("stored config.json")?;
        let resources = resources.unwrap_or_default();
        let plan = cgroup::plan(&container.state.id, path, &resources, layout)?;
        let mut plan = plan.at(&container.state.cgroup_paths, asked)?;
        plan.in_subgroup = container.state.is_in_subgroup();
        Ok(Self { plan, check_memory: resources.memory.check_before_update == Some(true) })
    }

    fn writes(&self, write: &Write) -> bool {
        self.plan.hierarchies.iter().any(|hierarchy| hierarchy.before.contains(write) || hierarchy.last.contains(write))
    }

    /// Once said, a warning is not repeated at each update of something else.
    fn is_news(&self, warning: &str, update: &Update) -> bool {
        let field = warning.split_once(": ").map_or(warning, |(field, _)| field);
        update.names(field) || !self.plan.warnings.iter().any(|old| old == warning)
    }
}
