//! The parent's half of `exec`: one clone3 into a container that runs.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sched::CloneFlags;

use super::gate::{Attach, Gate};
use super::stages::{self, Around, Entry};
use super::{CANNOT_CLONE_INTO, Launched, put_in_place, second};
use crate::cgroup::{InTree, Joinable, Tree};
use crate::error::{Doing, SysError};
use crate::init::{self, Container, Handles};
use crate::plan::exec::ExecPlan;
use crate::plan::{Descriptors, Namespace};
use crate::protocol::{Channel, Ready};
use crate::sys::clone::{self, Child};
use crate::sys::{fds, file};

/// What the parent made ready.
pub struct Prepared<'a> {
    pub container: Container,
    /// The child is born in init's, and clone3 tells the pid that the host sees.
    pub pid_namespace: bool,
    pub cgroups: Joinable,
    /// Who puts the child into the container's cgroup, if it may not go by itself.
    pub attach: Option<Attach<'a>>,
    /// Where init is in the v2 tree by now, for when no process can be put where the container was.
    pub present: &'a dyn Fn() -> Result<Option<Tree>>,
}

/// Who says that all is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commit {
    /// Nothing is to be recorded, so it is said beforehand.
    Given,
    /// The parent, when the child is ready.
    Later,
}

/// cgroups(7), "no internal processes".
const HOLDS_NONE: &str =
    "--cgroup: adding pid numbers to cgroups that pass controllers on is not possible; name one below";

pub fn join(plan: &ExecPlan, prepared: Prepared, commit: Commit) -> Result<Launched> {
    let Prepared { container, pid_namespace, cgroups, attach, present } = prepared;
    let (channel, childs_channel) = Channel::pair()?;
    if commit == Commit::Given {
        channel.commit()?;
    }
    let ready = Ready::new()?;
    let init = file::dup(&container.init).doing("dup", "pidfd")?;
    let entry = Entry { by: init.as_fd(), kinds: vec![Namespace::Pid], named: "init's pid namespace".into() };
    let around = Around { entries: pid_namespace.then_some(entry).into_iter().collect(), offsets: &[] };
    let forks = container.namespaces.contains(CloneFlags::CLONE_NEWPID);
    let mut handles = Some(Handles {
        channel: childs_channel,
        ready: ready.try_clone()?,
        start: None,
        parent: clone::pidfd_open(nix::unistd::getpid())?,
        cgroups: cgroups.tasks,
        joins: Vec::new(),
        container: Some(container),
    });
    // Only the copy runs this, so `handles` stays with the original, which may have to try again.
    let mut spawn = |into: Option<&Tree>, procs: Option<(PathBuf, OwnedFd)>| {
        if let Some(handles) = &mut handles {
            handles.cgroups.extend(procs);
        }
        let child = || match handles.take() {
            Some(handles) => init::exec_main(plan, handles),
            None => 1,
        };
        stages::within(&around, || clone::spawn(CloneFlags::empty(), into.map(Tree::as_fd), child))
    };
    let named = matches!(cgroups.tree, InTree::Named(_));
    let child = match cgroups.tree {
        InTree::Nowhere => spawn(None, None)?,
        InTree::At(tree) | InTree::Named(tree) => match spawn(Some(&tree), None) {
            Err(error) if attach.is_some() && errno_of(&error) == Some(Errno::EACCES) => {
                let (gate, outside) = Gate::new()?;
                let child = spawn(None, Some((PathBuf::from("the unit's"), outside)))?;
                put_in_place(&child, attach.map(|attach| (attach, gate)))?;
                child
            }
            Err(error) if named && errno_of(&error) == Some(Errno::EBUSY) => return Err(error).context(HOLDS_NONE),
            Err(error) if named && cannot_clone_into(&error) => spawn(None, Some(tree.procs()?))?,
            Err(error) if cannot_clone_into(&error) => spawn_in_present(present()?.unwrap_or(tree), &mut spawn)?,
            result => result?,
        },
        InTree::Gone(path) => match present()? {
            Some(tree) => spawn_in_present(tree, &mut spawn)?,
            None => bail!("cgroup {}: is missing, and init is in none that can be seen", path.display()),
        },
    };
    let child = if forks { second(&child, &channel)? } else { child };
    // They are the program's: a copy of ours would keep a pipe from its end for as long as rrun stays.
    fds::close_inherited(Descriptors::FIRST, plan.process.descriptors.end());
    Ok(Launched { child, channel, ready })
}

fn spawn_in_present(
    tree: Tree,
    spawn: &mut impl FnMut(Option<&Tree>, Option<(PathBuf, OwnedFd)>) -> Result<Child>,
) -> Result<Child> {
    match spawn(Some(&tree), None) {
        Err(error) if cannot_clone_into(&error) => spawn(None, Some(tree.procs()?)),
        result => result,
    }
}

fn errno_of(error: &anyhow::Error) -> Option<Errno> {
    error.downcast_ref::<SysError>().map(|error| error.errno)
}

/// Removed meanwhile, or as for a new container.
fn cannot_clone_into(error: &anyhow::Error) -> bool {
    errno_of(error).is_some_and(|errno| errno == Errno::ENODEV || CANNOT_CLONE_INTO.contains(&errno))
}
