//! What one more process needs to join the cgroups of a container that runs. As few calls as can be: `exec` is what
//! probes are made of.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;

use super::Version;
use super::directory::Directory;
use crate::error::{Doing, SysError};
use crate::host::cgroups::CgroupLayout;
use crate::plan::sub_cgroups::SubCgroups;
use crate::procfs::Proc;
use crate::sys::file;

/// Opened by the parent: a process in a user namespace may not open them itself.
pub struct Joinable {
    /// `tasks` of every v1 hierarchy; a single-threaded process joins by writing `0`.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
    pub tree: InTree,
}

/// The container's place in the v2 tree.
pub enum InTree {
    /// There is no such tree, or it is not used.
    Nowhere,
    At(Tree),
    /// By the caller: there or nowhere.
    Named(Tree),
    Gone(PathBuf),
}

/// A directory of the v2 tree, for CLONE_INTO_CGROUP.
pub struct Tree(Directory);

impl Tree {
    /// `cgroup.procs`, where the kernel refuses to clone into it.
    pub fn procs(&self) -> Result<(PathBuf, OwnedFd)> {
        Ok((self.0.path.clone(), self.0.open_to_join("cgroup.procs")?))
    }

    /// Where a process of the container is now: its programs may have moved themselves down and made the directory
    /// that was recorded one that holds no processes.
    pub fn of(pid: Pid, proc: &Proc) -> Result<Option<Self>> {
        let theirs = proc.read(&format!("{pid}/cgroup"))?;
        let Some(tree) = CgroupLayout::parse(&proc.own_mountinfo()?, &theirs)?.v2 else { return Ok(None) };
        let Ok(path) = Path::new(&tree.own).strip_prefix(&tree.root) else { return Ok(None) };
        let top = Directory::mounted(&tree.mountpoint, Version::V2)?;
        let directory = top.below(path).map_err(|errno| SysError::new("open cgroup", path.display(), errno))?;
        Ok(Some(Self(directory)))
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `paths` by controller, as state.json has them: root's, below a cgroup mount, and no cgroup holds links.
pub fn open_to_join(paths: &BTreeMap<String, PathBuf>, below: &SubCgroups) -> Result<Joinable> {
    let mut hierarchies: Vec<(&Path, Vec<&str>)> = Vec::with_capacity(paths.len());
    for (controller, path) in paths {
        match hierarchies.iter_mut().find(|(other, _)| other == path) {
            Some((_, controllers)) => controllers.push(controller),
            None => hierarchies.push((path, vec![controller])),
        }
    }
    if let Some(unknown) = below.controllers().find(|name| name.is_empty() || !paths.contains_key(*name)) {
        bail!(
            "--cgroup: unknown controller {unknown}: the container has no cgroup of it; name others, or the path alone"
        );
    }
    let mut joinable = Joinable { tasks: Vec::with_capacity(hierarchies.len()), tree: InTree::Nowhere };
    let v1 = hierarchies.iter().any(|(_, controllers)| *controllers != [""]);
    for (path, controllers) in hierarchies {
        let sub = below.in_hierarchy(&controllers);
        match (controllers == [""], sub) {
            (false, None) => joinable.tasks.push((path.to_path_buf(), open_tasks(path)?)),
            (false, Some(sub)) => {
                let directory = open_below(path, sub)?;
                joinable.tasks.push((directory.path.clone(), directory.open_to_join("tasks")?));
            }
            (true, Some(sub)) if !v1 || path.join(sub).exists() => {
                joinable.tree = InTree::Named(Tree(open_below(path, sub)?));
            }
            // Beside v1 hierarchies the tree mostly has no controllers, and whoever makes cgroups below makes none here.
            (true, _) => {
                joinable.tree = match Directory::at(path) {
                    Ok((directory, Some(Version::V2))) => InTree::At(Tree(directory)),
                    _ => InTree::Gone(path.to_path_buf()),
                }
            }
        }
    }
    Ok(joinable)
}

fn open_tasks(path: &Path) -> Result<OwnedFd> {
    let path = path.join("tasks");
    let shown = path.display();
    let tasks = file::open(&path, OFlag::O_WRONLY).doing("open", &shown)?;
    let magic = fstatfs(&tasks).doing("fstatfs", &shown)?.filesystem_type();
    ensure!(magic == CGROUP_SUPER_MAGIC, "{shown}: lies in no cgroup file system");
    Ok(tasks)
}

fn open_below(path: &Path, sub: &Path) -> Result<Directory> {
    let (own, version) = Directory::at(path)?;
    ensure!(version.is_some(), "{}: lies in no cgroup file system", path.display());
    match own.below(sub) {
        Err(Errno::ENOENT) => Err(SysError::new("open cgroup", path.join(sub).display(), Errno::ENOENT))
            .context("--cgroup: make it before adding pid numbers to it"),
        result => Ok(result.map_err(|errno| SysError::new("open cgroup", path.join(sub).display(), errno))?),
    }
}
