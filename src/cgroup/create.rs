//! Makes the directories of a plan and performs its writes. Several containers may share the directories above theirs
//! and come and go at once, so one that another rrun makes or removes meanwhile is no error.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::Pid;

use super::directory::{Directory, above, open_error};
use super::perform::{shortfalls, write_all};
use super::recorded::{Recorded, oom_kills};
use super::remove::Holders;
use super::{CgroupPlan, HierarchyPlan, Version, cpuset, device_filter, refuse_occupied, subtree};
use crate::error::{Doing, SysError};
use crate::log;
use crate::sys::file;

/// Cgroups that no process has joined yet.
#[derive(Debug)]
pub struct NewCgroups<'a> {
    cgroups: Vec<NewCgroup<'a>>,
    /// In the order in which they were made, those above the container's own too.
    made: Vec<PathBuf>,
    paths: BTreeMap<String, PathBuf>,
}

#[derive(Debug)]
pub(super) struct NewCgroup<'a> {
    plan: &'a HierarchyPlan,
    top: Directory,
    pub directory: Directory,
}

/// For a process that is to be born in the v2 tree.
#[derive(Debug)]
pub struct UnifiedHandles {
    pub path: PathBuf,
    /// For CLONE_INTO_CGROUP.
    pub directory: OwnedFd,
    /// cgroup.procs, for a write of `0` where the kernel refuses that. Open before rrun enters any namespace.
    pub procs: OwnedFd,
}

/// By which a process joins.
#[derive(Debug)]
pub struct Doors {
    /// The `tasks` file of every v1 hierarchy: a single-threaded process joins by writing `0`. Also cgroup.procs of the
    /// v2 tree, where nobody can be born.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
    pub unified: Option<UnifiedHandles>,
}

/// How often cgroups that nobody is in yet may be removed by somebody else.
const MOST_LOSSES: usize = 10;

/// `inside`: the one process that may be there already, for which systemd has made some of them.
pub fn create(plan: &CgroupPlan, inside: Option<Pid>) -> Result<NewCgroups<'_>> {
    let mut new = NewCgroups { cgroups: Vec::new(), made: Vec::new(), paths: plan.paths() };
    match new.make(plan, inside) {
        Ok(()) => Ok(new),
        Err(error) => {
            remove_empty(&new.made);
            Err(error)
        }
    }
}

impl<'a> NewCgroups<'a> {
    /// For a container that stays in the cgroup of rrun.
    pub fn none() -> Self {
        Self { cgroups: Vec::new(), made: Vec::new(), paths: BTreeMap::new() }
    }

    fn make(&mut self, plan: &'a CgroupPlan, inside: Option<Pid>) -> Result<()> {
        let mut existed_before = false;
        for plan in &plan.hierarchies {
            let top = Directory::mounted(&plan.mountpoint, plan.version)?;
            let (directory, existed) = make_path(&top, &plan.path, &mut self.made)?;
            existed_before |= existed;
            self.cgroups.push(NewCgroup { plan, top, directory });
        }
        if existed_before {
            refuse_occupied(plan, inside)?;
        }
        if plan.in_subgroup {
            inside.map_or(Ok(()), |pid| self.move_down(pid))?;
        }
        for cgroup in &self.cgroups {
            cgroup.prepare_above()?;
        }
        Ok(())
    }

    /// Out of the unit's cgroup in the v2 tree, which holds no processes itself once it hands controllers down.
    fn move_down(&self, pid: Pid) -> Result<()> {
        let Some(tree) = self.cgroups.iter().find(|cgroup| cgroup.plan.version == Version::V2) else { return Ok(()) };
        let moved = tree.directory.write("cgroup.procs", &pid.to_string());
        Ok(moved.doing("write cgroup", format_args!("{}/cgroup.procs = {pid}", tree.directory.path.display()))?)
    }

    /// Limits that must stand before a process joins, and the files by which it does. systemd removes whatever is empty
    /// below the top of a v1 hierarchy, when its own need of a controller changes: what is not its own is `made_by_us`,
    /// and is made again.
    pub fn ready(&mut self, made_by_us: Option<&'a CgroupPlan>) -> Result<Doors> {
        let mut ready = self.open_doors();
        for _ in 0..MOST_LOSSES {
            let Some(plan) = made_by_us.filter(|_| ready.is_err() && self.has_lost_one()) else { break };
            self.cgroups.clear();
            ready = self.make(plan, None).and_then(|()| self.open_doors());
        }
        ready
    }

    fn open_doors(&self) -> Result<Doors> {
        self.apply_before()?;
        Ok(Doors { tasks: self.tasks()?, unified: self.unified()? })
    }

    fn has_lost_one(&self) -> bool {
        let is_lost =
            |cgroup: &NewCgroup| matches!(cgroup.directory.read("cgroup.procs"), Err(Errno::ENOENT | Errno::ENODEV));
        self.cgroups.iter().any(is_lost)
    }

    fn apply_before(&self) -> Result<()> {
        for cgroup in &self.cgroups {
            write_all(&cgroup.directory, &cgroup.plan.before)?;
            shortfalls(&cgroup.directory, &cgroup.plan.before).iter().for_each(|warning| log::warning(warning));
            if let Some(uid) = cgroup.plan.owner {
                subtree::delegate(&cgroup.directory, uid)?;
            }
            if let Some(filter) = &cgroup.plan.devices {
                device_filter::attach(cgroup.directory.as_fd(), filter)?;
            }
        }
        Ok(())
    }

    /// What must not limit the set-up of init itself.
    pub fn apply_last(&self) -> Result<()> {
        self.cgroups.iter().try_for_each(NewCgroup::apply_last)
    }

    fn tasks(&self) -> Result<Vec<(PathBuf, OwnedFd)>> {
        let tree = |cgroup: &&NewCgroup| cgroup.plan.version == Version::V2;
        let joined = self.cgroups.iter().filter(|cgroup| !tree(cgroup) || cgroup.lets_nobody_be_born());
        let open = |cgroup: &NewCgroup| {
            let file = if tree(&cgroup) { "cgroup.procs" } else { "tasks" };
            Ok((cgroup.directory.path.clone(), cgroup.directory.open_to_join(file)?))
        };
        joined.map(open).collect()
    }

    fn unified(&self) -> Result<Option<UnifiedHandles>> {
        let tree = self.cgroups.iter().find(|cgroup| cgroup.plan.version == Version::V2);
        let Some(cgroup) = tree.filter(|cgroup| !cgroup.lets_nobody_be_born()) else { return Ok(None) };
        Ok(Some(UnifiedHandles {
            path: cgroup.directory.path.clone(),
            directory: file::dup(&cgroup.directory).map_err(|errno| open_error(&cgroup.directory, errno))?,
            procs: cgroup.directory.open_to_join("cgroup.procs")?,
        }))
    }

    /// By controller, for state.json.
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// Takes back everything that was made, the directories above too where nobody else uses them.
    pub fn undo(&self, deadline: Duration, holders: Holders) -> Result<()> {
        let removed = Recorded::new(&self.paths)?.remove(deadline, holders);
        remove_empty(&self.made);
        removed
    }
}

impl<'a> NewCgroup<'a> {
    /// A limit of 0 processes is one (spec 1.3): the kernel clones nobody into it, and lets a process move in. Of a limit
    /// of 1, what holds systemd's scope until init is there has taken that.
    fn lets_nobody_be_born(&self) -> bool {
        self.plan.before.iter().any(|write| write.file == "pids.max" && matches!(&*write.value, "0" | "1"))
    }

    /// One that stands already.
    pub fn open(plan: &'a HierarchyPlan) -> Result<Self> {
        let top = Directory::mounted(&plan.mountpoint, plan.version)?;
        let directory = top.below(&plan.path).map_err(|errno| open_error(&top, errno))?;
        Ok(Self { plan, top, directory })
    }

    pub fn prepare_above(&self) -> Result<()> {
        if self.plan.controllers.iter().any(|controller| controller == "cpuset") {
            fill_cpuset(&self.top, &self.directory, &self.plan.path)?;
        }
        if !self.plan.realtime_above.is_empty() {
            self.give_realtime_above()?;
        }
        if self.plan.version == Version::V2 {
            subtree::prepare(&self.top, &self.directory, self.plan)?;
        }
        Ok(())
    }

    /// v1 takes no quota of CPU time beyond that of the cgroup above. Of a subgroup that is the unit's, which systemd sets
    /// again when it is told of the new one.
    pub fn lift_quota_above(&self) -> Result<()> {
        let above = self.plan.path.parent().unwrap_or(Path::new(""));
        let above = self.top.below(above).map_err(|errno| open_error(&self.top, errno))?;
        let lifted = above.write("cpu.cfs_quota_us", "-1");
        Ok(lifted.doing("write cgroup", format_args!("{}/cpu.cfs_quota_us = -1", above.path.display()))?)
    }

    /// On v2 a limit below what is in use is taken, and the kernel kills until it fits.
    fn apply_last(&self) -> Result<()> {
        let tree = self.plan.version == Version::V2 && !self.plan.last.is_empty();
        let seen =
            || if tree { (oom_kills(&self.directory), self.directory.read("memory.current").ok()) } else { (0, None) };
        let (before, in_use) = seen();
        write_all(&self.directory, &self.plan.last)?;
        // systemd removes the cgroup of a scope that nobody is in any more
        let is_gone = || tree && self.directory.read("cgroup.events").is_err();
        if seen().0 > before || is_gone() {
            let in_use = in_use.unwrap_or_default();
            bail!(
                "linux.resources.memory: the limit is too small to start: setting up took {} bytes, and the kernel \
                 killed init for it; give more",
                in_use.trim()
            );
        }
        Ok(())
    }

    /// A cgroup's real-time budget is part of its parent's, and a new one has none. One that has some is left alone.
    fn give_realtime_above(&self) -> Result<()> {
        for path in above(&self.plan.path).into_iter().skip(1) {
            let directory = self.top.below(path).map_err(|errno| open_error(&self.top, errno))?;
            if directory.read("cpu.rt_runtime_us").is_ok_and(|budget| budget.trim() == "0") {
                write_all(&directory, &self.plan.realtime_above)?;
            }
        }
        Ok(())
    }
}

impl Directory {
    pub(super) fn open_to_join(&self, file: &str) -> Result<OwnedFd> {
        let opened = self.open_to_write(file);
        Ok(opened.map_err(|errno| SysError::new("open", format_args!("{}/{file}", self.path.display()), errno))?.into())
    }
}

/// A new cpuset has no CPUs and no memory, and nobody can join it. Each empty one on the way gets what the nearest one
/// above has, from there down.
fn fill_cpuset(top: &Directory, own: &Directory, path: &Path) -> Result<()> {
    // From the container's own up; those in between are opened only when one below them is empty.
    let mut between: Vec<Directory> = Vec::new();
    let depth = path.iter().count();
    for (file, bare) in cpuset::FILES {
        let mut filled = None;
        for (n, path) in path.ancestors().enumerate() {
            if n > between.len() && n < depth {
                between.push(top.below(path).map_err(|errno| open_error(top, errno))?);
            }
            let (file, value) = read_cpuset(on_the_way(own, &between, top, n), file, bare)?;
            if !value.is_empty() {
                filled = Some((n, file, value));
                break;
            }
        }
        let Some((above, file, value)) = filled else {
            bail!("cgroup {}: has an empty {file}, so no cgroup below it can hold a process", top.path.display());
        };
        for directory in (0..above).rev().map(|n| on_the_way(own, &between, top, n)) {
            directory.write(file, &value).map_err(|errno| {
                SysError::new("write cgroup", format_args!("{}/{file} = {value}", directory.path.display()), errno)
            })?;
        }
    }
    Ok(())
}

/// The `n`th from the container's own up to the top.
fn on_the_way<'d>(own: &'d Directory, between: &'d [Directory], top: &'d Directory, n: usize) -> &'d Directory {
    match n {
        0 => own,
        n => between.get(n - 1).unwrap_or(top),
    }
}

/// With the name that the file has on this mount.
fn read_cpuset<'f>(directory: &Directory, file: &'f str, bare: &'f str) -> Result<(&'f str, String)> {
    let (file, text) = match directory.read(file) {
        Err(Errno::ENOENT) => (bare, directory.read(bare)),
        text => (file, text),
    };
    let text =
        text.map_err(|errno| SysError::new("read cgroup", format_args!("{}/{file}", directory.path.display()), errno))?;
    Ok((file, text.trim().to_string()))
}

/// How often the directories above may vanish while a path is made.
const MOST_RACES: usize = 100;

/// The directory, and whether it stood there before.
fn make_path(top: &Directory, path: &Path, made: &mut Vec<PathBuf>) -> Result<(Directory, bool)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        bail!("cgroup {}: is the top of its hierarchy, which cannot be a container's", top.path.display());
    };
    let mut errno = Errno::ENOENT;
    for _ in 0..MOST_RACES {
        let result = match parent.as_os_str().is_empty() {
            true => make(top, name, made),
            false => open_or_make(top, parent, made).and_then(|parent| make(&parent, name, made)),
        };
        match result {
            Ok(done) => return Ok(done),
            // another rrun has just removed it, or one above
            Err(Errno::ENOENT) => {}
            Err(Errno::ENOTDIR) => {
                bail!("linux.cgroupsPath: {} is a control file, not a cgroup", top.path.join(path).display())
            }
            Err(other) => {
                errno = other;
                break;
            }
        }
    }
    Err(SysError::new("mkdir cgroup", top.path.join(path).display(), errno).into())
}

fn open_or_make(top: &Directory, path: &Path, made: &mut Vec<PathBuf>) -> Result<Directory, Errno> {
    // mostly it is there
    match top.below(path) {
        Err(Errno::ENOENT) => {}
        result => return result,
    }
    let mut here = top.below(Path::new(""))?;
    for name in path {
        here = make(&here, name, made)?.0;
    }
    Ok(here)
}

fn make(parent: &Directory, name: &OsStr, made: &mut Vec<PathBuf>) -> Result<(Directory, bool), Errno> {
    let existed = match mkdirat(parent.as_fd(), name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            made.push(parent.path.join(name));
            false
        }
        Err(Errno::EEXIST) => true,
        Err(errno) => return Err(errno),
    };
    Ok((parent.below(Path::new(name))?, existed))
}

/// Whatever somebody else uses meanwhile stays.
fn remove_empty(made: &[PathBuf]) {
    for path in made.iter().rev() {
        // rmdir(2) of a cgroup refuses one with processes or children
        let _ = std::fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, read_to_string, write};

    /// A plain directory stands in for a hierarchy's top.
    fn top() -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        let top = Directory::at(dir.path()).unwrap().0;
        (dir, top)
    }

    #[test]
    fn what_is_missing_is_made_and_known_for_undoing() {
        let (dir, top) = top();
        create_dir_all(dir.path().join("a")).unwrap();
        let mut made = Vec::new();
        let (directory, existed) = make_path(&top, Path::new("a/b/c"), &mut made).unwrap();
        assert_eq!((directory.path.as_path(), existed), (dir.path().join("a/b/c").as_path(), false));
        assert_eq!(made, [dir.path().join("a/b"), dir.path().join("a/b/c")]);
        assert!(make_path(&top, Path::new("a/b/c"), &mut Vec::new()).unwrap().1, "existed");
        create_dir_all(dir.path().join("a/b/another")).unwrap();
        remove_empty(&made);
        assert!(!dir.path().join("a/b/c").exists() && dir.path().join("a/b/another").exists());
    }

    #[test]
    fn nothing_is_made_over_files_links_or_at_the_top() {
        let (dir, top) = top();
        write(dir.path().join("tasks"), "").unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        for (path, says) in [
            ("tasks", "is a control file"),
            ("tasks/c1", "is a control file"),
            ("link", "(ELOOP)"),
            ("link/c1", "(ELOOP)"),
            ("", "is the top of its hierarchy"),
        ] {
            let error = make_path(&top, Path::new(path), &mut Vec::new()).unwrap_err();
            assert!(format!("{error:#}").contains(says), "{path}: {error:#}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn empty_cpusets_are_filled_from_the_nearest_above() {
        let (dir, top) = top();
        for (path, cpus, mems) in [("", "0-3\n", "0\n"), ("a", "0-1\n", "\n"), ("a/b", "\n", "\n"), ("a/b/c1", "", "")]
        {
            create_dir_all(dir.path().join(path)).unwrap();
            write(dir.path().join(path).join("cpuset.cpus"), cpus).unwrap();
            write(dir.path().join(path).join("mems"), mems).unwrap();
        }
        fill_cpuset(&top, &top.below(Path::new("a/b/c1")).unwrap(), Path::new("a/b/c1")).unwrap();
        let read = |file: &str| read_to_string(dir.path().join(file)).unwrap().trim().to_string();
        let cpus = ["a/cpuset.cpus", "a/b/cpuset.cpus", "a/b/c1/cpuset.cpus"].map(read);
        assert_eq!(cpus, ["0-1", "0-1", "0-1"]);
        assert_eq!(["a/mems", "a/b/mems", "a/b/c1/mems"].map(read), ["0", "0", "0"], "of a mount with noprefix");
    }

    #[test]
    fn the_directories_above_from_the_top_down() {
        assert_eq!(above(Path::new("a/b/c1")), ["", "a", "a/b"].map(Path::new));
        assert_eq!(above(Path::new("c1")), [Path::new("")]);
    }
}
