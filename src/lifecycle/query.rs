//! `state`, `list`, `ps` and `plan`: what is, and what would be done.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;
use nix::unistd::{Pid, Uid, User};
use serde::Serialize;

use super::bundle::{Manner, decide};
use super::container::Container;
use super::view::StateView;
use super::{Store, bundle};
use crate::cgroup::{CgroupPlan, UnitPlan};
use crate::error::{Doing, SysError};
use crate::plan::unit::CgroupManager;
use crate::plan::{Namespace, Plan};
use crate::state::directory::Directory;
use crate::state::{self, Status};
use crate::{OCI_VERSION, log};

pub fn state(store: &Store, id: &str) -> Result<StateView> {
    view(&store.find(id)?)
}

/// By id. What cannot be read is left out, with a word about it.
pub fn list(store: &Store) -> Result<Vec<StateView>> {
    let ids = directories(store)?;
    let mut views = Vec::with_capacity(ids.len());
    let mut owners = BTreeMap::new();
    for (id, uid) in ids {
        match one_of_list(store, &id) {
            Ok(None) => {}
            Ok(Some(view)) => {
                // Each look-up of a name reads /etc/passwd.
                let owner = uid.map(|uid| owners.entry(uid).or_insert_with(|| owner(uid)).clone());
                views.push(StateView { owner: owner.unwrap_or_default(), ..view });
            }
            Err(error) => log::warning(&format!("list {id}: {error:#}")),
        }
    }
    Ok(views)
}

/// Ids that are `meant`: one that has no record yet, or none any more, too.
pub fn matching(store: &Store, meant: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let ids = directories(store)?.into_iter().map(|(id, _)| id);
    Ok(ids.filter(|id| meant(id) && state::check_id(id).is_ok()).collect())
}

/// Of containers, by id, each with its owner.
fn directories(store: &Store) -> Result<Vec<(String, std::io::Result<u32>)>> {
    let mut ids = Vec::new();
    let entries = match std::fs::read_dir(&store.root).doing("open", store.root.display()) {
        // nothing was ever made there
        Err(SysError { errno: Errno::ENOENT, .. }) => return Ok(ids),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry.doing("readdir", store.root.display())?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            ids.push((entry.file_name().to_string_lossy().into_owned(), entry.metadata().map(|m| m.uid())));
        }
    }
    ids.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(ids)
}

/// Every process in its cgroups and those below them, also those that an ended init left behind.
pub fn processes(store: &Store, id: &str) -> Result<Vec<i32>> {
    let container = store.find(id)?;
    let pids = match container.state.cgroup_paths.is_empty() {
        true => without_cgroups(&container)?,
        false => container.cgroups()?.pids()?,
    };
    Ok(pids.into_iter().map(Pid::as_raw).collect())
}

/// An ordinary user's container may have none: then who is in init's own pid namespace is known to be its.
fn without_cgroups(container: &Container) -> Result<Vec<Pid>> {
    let Some(init) = container.state.init else { return Ok(Vec::new()) };
    if !container.is_alive(init)? {
        return Ok(Vec::new());
    }
    match container.shares_pid_namespace() {
        true => Ok(vec![init.pid()]),
        false => Ok(container.proc().in_namespace_of(init.pid(), Namespace::Pid.file())?),
    }
}

fn one_of_list(store: &Store, id: &str) -> Result<Option<StateView>> {
    let Some(directory) = Directory::open(&store.root, id)? else { return Ok(None) };
    // one that is about to be made, or was never finished, has no record
    Container::in_directory(directory)?.as_ref().map(view).transpose()
}

fn owner(uid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    user.map_or_else(|| format!("#{uid}"), |user| user.name)
}

fn view(container: &Container) -> Result<StateView> {
    let status = container.status()?;
    let state = &container.state;
    let alive = !matches!(status, Status::Stopped);
    Ok(StateView {
        oci_version: OCI_VERSION.into(),
        id: state.id.clone(),
        pid: state.init.filter(|_| alive).map_or(0, |init| init.pid),
        status: status.word(),
        bundle: state.bundle.clone(),
        rootfs: state.rootfs.clone(),
        created: state.created.clone(),
        annotations: state.annotations.clone(),
        owner: String::new(),
    })
}

/// The container's part and the host's.
#[derive(Serialize)]
pub struct WholePlan {
    #[serde(flatten)]
    pub plan: Plan,
    cgroup: CgroupPlan,
    /// What systemd would be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<UnitPlan>,
}

/// Everything that `create` would do with the bundle; nothing is made.
pub fn plan(bundle: &Path, id: Option<&str>, no_pivot: bool, cgroup_manager: CgroupManager) -> Result<WholePlan> {
    // As `run` in the foreground would: a terminal needs no socket there.
    let manner = Manner { no_pivot, cgroup_manager, ..Manner::default() };
    let id = id.unwrap_or("plan");
    state::check_id(id)?;
    let bundle::Decided { plan, cgroup, managed, .. } = decide(id, bundle, None, manner)?;
    Ok(WholePlan { plan, cgroup, unit: managed.map(|managed| managed.plan) })
}
