//! A container being made, as its creator records it. Every write looks first, under the lock, whether the record is
//! still the creator's: `delete --force` may have come in between, and another `create` of the same id after it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Result, bail};

use super::container::Container;
use super::{Store, root_cover};
use crate::error::Matched;
use crate::plan::hooks::OutputPaths;
use crate::plan::unit::CgroupManager;
use crate::plan::{Plan, namespaces};
use crate::procfs::Proc;
use crate::state::directory::Directory;
use crate::state::{self, Process, RdtGroup, State, Unit};
use crate::timestamp;

pub struct Claim {
    pub directory: Directory,
    state: RefCell<State>,
    recorded: Cell<bool>,
    kept: Cell<bool>,
    forgotten: Cell<bool>,
}

/// Where a container's cgroups are to be, and who makes them.
pub struct Cgroups {
    pub manager: CgroupManager,
    pub paths: BTreeMap<String, PathBuf>,
    pub unit: Option<Unit>,
    /// Of resctrl, which groups processes too.
    pub rdt: Option<RdtGroup>,
}

impl Claim {
    /// Takes the id; nothing is recorded yet.
    pub fn new(store: &Store, plan: &Plan, cgroups: Cgroups, hook_output: OutputPaths) -> Result<Self> {
        let own = nix::unistd::getpid();
        let creator = Process { pid: own.as_raw(), start_time: Proc::own()?.stat(own)?.start_time };
        let state = State {
            format: state::FORMAT,
            id: plan.id.clone(),
            bundle: plan.bundle.clone(),
            rootfs: plan.root.path.clone(),
            created: timestamp::nanoseconds(SystemTime::now()),
            annotations: plan.annotations.clone(),
            creator,
            init: None,
            ready: false,
            cgroup_manager: cgroups.manager,
            cgroup_paths: cgroups.paths,
            unit: cgroups.unit,
            abandoned: false,
            namespaces: plan.namespaces.iter().map(|namespace| namespaces::name(*namespace).to_string()).collect(),
            no_new_keyring: plan.no_new_keyring,
            net_devices: plan.net_devices.iter().map(|plan| (plan.name.clone(), plan.inside.clone())).collect(),
            no_process: plan.process.is_absent(),
            intel_rdt: cgroups.rdt,
            covered_mount: root_cover::covered_by(plan)?,
            hooks: plan.hooks.kinds().map(String::from).collect(),
            hook_output,
            init_process_pid: None,
            namespace_paths: BTreeMap::new(),
            warnings: plan.warnings.clone(),
        };
        Ok(Self {
            directory: Directory::create(&store.root, &plan.id)?,
            state: RefCell::new(state),
            recorded: Cell::new(false),
            kept: Cell::new(false),
            forgotten: Cell::new(false),
        })
    }

    /// Before the first thing is made.
    pub fn record_intent(&self, config: &[u8]) -> Result<()> {
        let _lock = self.directory.lock()?;
        if !self.directory.is_current()? {
            bail!("the container was deleted while it was made");
        }
        if self.directory.read_state()?.is_some() {
            // deleted between our claim and our look at it, and claimed by another
            return Err(Matched::AlreadyExists.into());
        }
        self.directory.write_config(config)?;
        self.directory.write_state(&self.state.borrow())?;
        self.recorded.set(true);
        Ok(())
    }

    pub fn record_init(&self, init: Process) -> Result<()> {
        self.record(|state| {
            state.init = Some(init);
            state.init_process_pid = Some(init.pid);
            state.namespace_paths = namespaces::paths(init.pid());
        })
    }

    /// None could be made, and none were needed.
    pub fn record_no_cgroups(&self) -> Result<()> {
        self.record(|state| {
            state.cgroup_paths.clear();
            state.unit = None;
        })
    }

    /// Before the creator gives up on a unit that may come or not: the record stays, and whoever wants the id next may
    /// take all of it away.
    pub fn abandon(&self) -> Result<()> {
        self.keep();
        self.record(|state| state.abandoned = true)
    }

    /// With the names of network devices inside.
    pub fn record_ready(&self, net_devices: BTreeMap<String, String>) -> Result<()> {
        self.record(|state| {
            state.ready = true;
            state.net_devices = net_devices;
        })
    }

    fn record(&self, change: impl FnOnce(&mut State)) -> Result<()> {
        self.as_ours(|| {
            let mut state = self.state.borrow_mut();
            change(&mut state);
            self.directory.write_state(&state)
        })
    }

    /// Writes what only the creator may write.
    pub fn as_ours(&self, write: impl FnOnce() -> Result<()>) -> Result<()> {
        let _lock = self.directory.lock()?;
        if !self.is_ours()? {
            bail!("the container was deleted while it was made");
        }
        write()
    }

    /// Under the lock. Once our record is in this very directory, nobody else's comes there: who claims the id anew has
    /// a new one. Before, a directory without a record is ours too.
    fn is_ours(&self) -> Result<bool> {
        let creator = self.state.borrow().creator;
        let recorded = || self.directory.read_state();
        let current = self.directory.is_current()?;
        Ok(current && (self.recorded.get() || recorded()?.is_none_or(|state| state.creator == creator)))
    }

    /// Takes something back, unless it belongs to somebody else by now.
    pub fn if_ours(&self, take_back: impl FnOnce() -> Result<()>) -> Result<()> {
        let _lock = self.directory.lock()?;
        if self.is_ours()? { take_back() } else { Ok(()) }
    }

    /// What the container has mounted in the host's namespace.
    pub fn uncover(&self) -> Result<()> {
        self.if_ours(|| root_cover::remove(&self.state.borrow()))
    }

    /// Of something that could not be taken back: the record stays, by which `delete --force` finds it.
    pub fn keep(&self) {
        self.kept.set(true);
    }

    pub fn forget(&self) -> Result<()> {
        if self.kept.get() {
            return Ok(());
        }
        self.if_ours(|| {
            self.directory.remove()?;
            self.forgotten.set(true);
            Ok(())
        })
    }

    /// Whether it was us who took the record away: then nobody else can do what comes after that.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.get()
    }

    /// What has been made, as it is on record.
    pub fn into_container(self) -> Result<Container> {
        Container::just_made(self.directory, self.state.into_inner())
    }
}
