//! Cgroups of a container as state.json recorded them: who is inside, are they frozen, kill them, remove it all. The
//! paths are all that is known, and any of the directories may be missing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Version;
use super::directory::{Directory, processes, write};
use super::walk::{Visitor, walk};
use crate::error::SysError;
use crate::sys::clone::{pidfd_open, pidfd_send_signal};

#[derive(Debug)]
pub struct Recorded {
    /// By path, each once.
    pub(super) cgroups: Vec<RecordedCgroup>,
}

#[derive(Debug)]
pub(super) struct RecordedCgroup {
    pub path: PathBuf,
    controllers: Vec<String>,
}

/// A directory that is there, by way of its parent.
pub(super) struct Standing {
    pub parent: Directory,
    pub name: OsString,
    pub directory: Directory,
    version: Version,
}

impl Recorded {
    /// `paths` by controller, as [`super::CgroupPlan::paths`] gives them.
    pub fn new(paths: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let mut cgroups: Vec<RecordedCgroup> = Vec::new();
        for (controller, path) in paths {
            let mut parts = path.components();
            let plain =
                parts.next() == Some(Component::RootDir) && parts.all(|part| matches!(part, Component::Normal(_)));
            if !plain || path.parent().is_none() {
                bail!("cgroup {}: is not a path that rrun records", path.display());
            }
            match cgroups.iter_mut().find(|cgroup| cgroup.path == *path) {
                Some(cgroup) => cgroup.controllers.push(controller.clone()),
                None => cgroups.push(RecordedCgroup { path: path.clone(), controllers: vec![controller.clone()] }),
            }
        }
        Ok(Self { cgroups })
    }

    fn of(&self, controller: &str) -> Option<&RecordedCgroup> {
        self.cgroups.iter().find(|cgroup| cgroup.controllers.iter().any(|own| own == controller))
    }

    /// Whether any of them is there.
    pub fn exist(&self) -> Result<bool> {
        for cgroup in &self.cgroups {
            if cgroup.standing()?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every process inside, those in cgroups below too, once.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let mut inside = Inside::default();
        for cgroup in &self.cgroups {
            cgroup.walk(&mut inside)?;
        }
        inside.pids.sort_unstable();
        inside.pids.dedup();
        Ok(inside.pids.into_iter().map(Pid::from_raw).collect())
    }

    /// Whether somebody froze this very container; one that only sits below a frozen cgroup is not.
    pub fn frozen(&self) -> Result<bool> {
        if let Some(standing) = self.standing("freezer")? {
            let state = standing.read("freezer.state")?;
            // before 3.18 there is no telling who froze it
            let own = standing.read("freezer.self_freezing")?;
            if state.is_some_and(|state| state.trim() != "THAWED") && own.is_none_or(|own| own.trim() != "0") {
                return Ok(true);
            }
        }
        match self.standing("")? {
            Some(tree) => Ok(tree.read("cgroup.freeze")?.is_some_and(|freeze| freeze.trim() == "1")),
            None => Ok(false),
        }
    }

    pub fn thaw(&self) -> Result<()> {
        for (controller, file, value) in [("freezer", "freezer.state", "THAWED"), ("", "cgroup.freeze", "0")] {
            if let Some(cgroup) = self.of(controller) {
                cgroup.walk(&mut Set { file, value })?;
            }
        }
        Ok(())
    }

    /// How often the kernel killed inside for want of memory.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(standing) = self.standing("memory")? else { return Ok(0) };
        Ok(standing.read("memory.oom_control")?.as_deref().map_or(0, oom_kills))
    }

    /// Kills every process inside, frozen ones too, and waits until they are gone.
    pub fn kill(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            let pids = self.kill_once()?;
            if pids.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let pids: Vec<String> = pids.iter().map(Pid::to_string).collect();
                bail!("processes {} of the container live on after SIGKILL; the kernel holds them", pids.join(", "));
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// One round. In the v2 tree one write kills all at once, those that are just being forked too. On v1 alone the
    /// freezer keeps them from forking meanwhile. A v1 freezer holds even a killed process, so it is thawed afterwards.
    fn kill_once(&self) -> Result<Vec<Pid>> {
        let at_once = match self.standing("")? {
            Some(tree) => write(&tree.directory, "cgroup.kill", "1").is_ok(),
            None => false,
        };
        if !at_once && let Some(freezer) = self.standing("freezer")? {
            // an old kernel, or one that is being removed: then the next round finds who got away
            let _ = write(&freezer.directory, "freezer.state", "FROZEN");
        }
        let pids = self.pids()?;
        // A pid may name another process by now, so it is held by a pidfd first, and only who is still inside then is meant.
        let held: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, pidfd_open(*pid).ok()?))).collect();
        let inside = if held.is_empty() { Vec::new() } else { self.pids()? };
        for (pid, pidfd) in &held {
            if inside.binary_search(pid).is_ok() {
                match pidfd_send_signal(std::os::fd::AsFd::as_fd(pidfd), Signal::SIGKILL as i32) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(SysError::new("pidfd_send_signal", pid, errno).into()),
                }
            }
        }
        self.thaw()?;
        Ok(pids)
    }

    fn standing(&self, controller: &str) -> Result<Option<Standing>> {
        self.of(controller).map_or(Ok(None), RecordedCgroup::standing)
    }
}

impl RecordedCgroup {
    /// Opens it by way of its parent, which must be in the same mount of cgroup: so it is no mount's root, hence no
    /// hierarchy's top, where killing and removing would mean the whole machine.
    pub fn standing(&self) -> Result<Option<Standing>> {
        let (Some(above), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(None) };
        let (parent, version) = match Directory::at(above) {
            Ok(parent) => parent,
            Err(error) if missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let directory = match parent.below(Path::new(name)) {
            Ok(directory) => directory,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::EXDEV) => bail!("cgroup {}: is the top of a hierarchy, not a container's", self.path.display()),
            Err(errno) => return Err(SysError::new("open cgroup", self.path.display(), errno).into()),
        };
        let Some(version) = version else {
            bail!("cgroup {}: is not in a cgroup file system", self.path.display());
        };
        Ok(Some(Standing { parent, name: name.to_owned(), directory, version }))
    }

    fn walk(&self, visitor: &mut impl Visitor) -> Result<()> {
        let Some(standing) = self.standing()? else { return Ok(()) };
        match walk(&standing.directory, visitor) {
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            Err(errno) => Err(SysError::new("read cgroup", self.path.display(), errno).into()),
        }
    }

    /// Who keeps it from being removed.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let mut inside = Inside::default();
        self.walk(&mut inside)?;
        Ok(inside.pids)
    }
}

impl Standing {
    /// `None`: this kernel has no such file, or the cgroup has just gone.
    fn read(&self, file: &str) -> Result<Option<String>> {
        match self.directory.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => {
                let file = format!("{}/{file}", self.directory.path.display());
                Err(SysError::new("read cgroup", file, errno).into())
            }
        }
    }
}

fn missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SysError>().is_some_and(|error| error.errno == Errno::ENOENT)
}

/// Of memory.oom_control; the line came with 4.13.
fn oom_kills(text: &str) -> u64 {
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[derive(Default)]
struct Inside {
    pids: Vec<i32>,
}

impl Visitor for Inside {
    fn enter(&mut self, cgroup: BorrowedFd) -> Result<(), Errno> {
        self.pids.extend(processes(&cgroup)?);
        Ok(())
    }
}

/// Writes a value wherever the file is: the top of the v2 tree has no cgroup.freeze.
struct Set {
    file: &'static str,
    value: &'static str,
}

impl Visitor for Set {
    fn enter(&mut self, cgroup: BorrowedFd) -> Result<(), Errno> {
        match write(&cgroup, self.file, self.value) {
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            result => result,
        }
    }
}
