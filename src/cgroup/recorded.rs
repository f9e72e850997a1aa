//! Cgroups of a container as state.json recorded them: who is inside, are they frozen, kill them, remove it all. The
//! paths are all that is known, and any of the directories may be missing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::directory::{Directory, numbers_of_processes, processes, read_path, write};
use super::walk::{Visitor, walk};
use crate::error::SysError;
use crate::sys::clone::{pidfd_open, pidfd_send_signal};

/// Processes that are held by descriptors at once.
const AT_A_TIME: usize = 128;

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

    /// Those in which these lie: of a container in a subgroup, its unit's.
    pub fn above(&self) -> Self {
        let above = |cgroup: &RecordedCgroup| {
            let path = cgroup.path.parent().unwrap_or(&cgroup.path).to_path_buf();
            RecordedCgroup { path, controllers: cgroup.controllers.clone() }
        };
        Self { cgroups: self.cgroups.iter().map(above).collect() }
    }

    pub(super) fn of(&self, controller: &str) -> Option<&RecordedCgroup> {
        self.cgroups.iter().find(|cgroup| cgroup.controllers.iter().any(|own| own == controller))
    }

    /// Whether any of them is there.
    pub fn exist(&self) -> Result<bool> {
        for cgroup in &self.cgroups {
            if cgroup.open()?.is_some() {
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

    /// Whether there are processes inside that have no pid in rrun's pid namespace, as far as the kernel tells.
    pub fn has_unseen(&self) -> Result<bool> {
        let mut unseen = Unseen(false);
        if let Some(tree) = self.of("") {
            tree.walk(&mut unseen)?;
        }
        Ok(unseen.0)
    }

    /// Whether somebody froze this very container; one that only sits below a frozen cgroup is not.
    pub fn frozen(&self) -> Result<bool> {
        let state = self.read_file("freezer", "freezer.state")?;
        // absent in old kernels, where there is no telling who froze it
        let own = || self.read_file("freezer", "freezer.self_freezing");
        if state.is_some_and(|state| state.trim() != "THAWED") && own()?.is_none_or(|own| own.trim() != "0") {
            return Ok(true);
        }
        Ok(self.read_file("", "cgroup.freeze")?.is_some_and(|freeze| freeze.trim() == "1"))
    }

    /// One file, which every command asks for: by its path, with as few calls as can be. `None`: there is no such cgroup,
    /// or this kernel has no such file.
    fn read_file(&self, controller: &str, file: &str) -> Result<Option<String>> {
        let Some(cgroup) = self.of(controller) else { return Ok(None) };
        let path = cgroup.path.join(file);
        match read_path(&path) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
            Err(errno) => Err(SysError::new("read cgroup", path.display(), errno).into()),
        }
    }

    /// Undoes a freeze of the container itself; cgroups that it froze inside stay so.
    pub fn thaw(&self) -> Result<()> {
        for (controller, file, value) in [("freezer", "freezer.state", "THAWED"), ("", "cgroup.freeze", "0")] {
            if let Some(cgroup) = self.open(controller)? {
                match cgroup.write(file, value) {
                    Ok(()) | Err(Errno::ENOENT | Errno::ENODEV) => {}
                    Err(errno) => return Err(write_error(&cgroup, file, value, errno)),
                }
            }
        }
        Ok(())
    }

    /// How often the kernel killed inside for want of memory.
    pub fn oom_kills(&self) -> Result<u64> {
        if let Some(memory) = self.open("memory")? {
            return Ok(read(&memory, "memory.oom_control")?.as_deref().map_or(0, oom_kills_in));
        }
        Ok(self.open("")?.as_ref().map_or(0, oom_kills))
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
                bail!("processes {} live on after SIGKILL: {}", pids.join(", "), self.why_alive()?);
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// One round. In the v2 tree one write kills all at once, those that are just being forked too. On v1 alone, in a
    /// threaded cgroup and before Linux 5.14 a freezer keeps them from forking meanwhile. That of v1 holds even a killed
    /// process, so it is thawed afterwards.
    pub(super) fn kill_once(&self) -> Result<Vec<Pid>> {
        let at_once = self.open("")?.is_some_and(|tree| tree.write("cgroup.kill", "1").is_ok());
        if !at_once {
            let (controller, file, frozen) = match self.of("freezer") {
                Some(_) => ("freezer", "freezer.state", "FROZEN"),
                None => ("", "cgroup.freeze", "1"),
            };
            if let Some(freezer) = self.open(controller)? {
                // an old kernel, or one that is being removed: then the next round finds who got away
                let _ = freezer.write(file, frozen);
            }
        }
        let pids = self.pids()?;
        for some in pids.chunks(AT_A_TIME) {
            self.kill_some(some)?;
        }
        match self.of("freezer") {
            Some(freezer) => freezer.walk(&mut Set { file: "freezer.state", value: "THAWED" })?,
            None if at_once => {}
            None => self.thaw()?,
        }
        Ok(pids)
    }

    /// A pid may be another process's by now, so it is held by a pidfd first, and only who is still inside then is meant.
    fn kill_some(&self, pids: &[Pid]) -> Result<()> {
        let held: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, pidfd_open(*pid).ok()?))).collect();
        let inside = if held.is_empty() { Vec::new() } else { self.pids()? };
        for (pid, pidfd) in held.iter().filter(|(pid, _)| inside.binary_search(pid).is_ok()) {
            match pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL as i32) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(SysError::new("pidfd_send_signal", pid, errno).into()),
            }
        }
        Ok(())
    }

    fn why_alive(&self) -> Result<&'static str> {
        let above = match self.open("freezer")? {
            Some(freezer) => read(&freezer, "freezer.parent_freezing")?,
            None => None,
        };
        Ok(match above.is_some_and(|frozen| frozen.trim() == "1") {
            true => "a cgroup above the container's is frozen; thaw it",
            false => "the kernel holds them",
        })
    }

    pub(super) fn open(&self, controller: &str) -> Result<Option<Directory>> {
        self.of(controller).map_or(Ok(None), RecordedCgroup::open)
    }
}

impl RecordedCgroup {
    /// The directory above, if there is one, which must be in a cgroup file system too. So this is no hierarchy's top,
    /// where killing and removing would mean the whole machine.
    pub fn above(&self) -> Result<Option<(Directory, &OsStr)>> {
        let (Some(above), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(None) };
        match Directory::at(above) {
            Ok((above, Some(_))) => Ok(Some((above, name))),
            Ok((_, None)) if !self.path.exists() => Ok(None),
            Ok((_, None)) => bail!("cgroup {}: is not inside of a cgroup hierarchy", self.path.display()),
            Err(error) if missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `None` where it is missing.
    fn open(&self) -> Result<Option<Directory>> {
        let Some((above, name)) = self.above()? else { return Ok(None) };
        match above.below(Path::new(name)) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(SysError::new("open cgroup", self.path.display(), errno).into()),
        }
    }

    fn walk(&self, visitor: &mut impl Visitor) -> Result<()> {
        let Some(directory) = self.open()? else { return Ok(()) };
        match walk(&directory, visitor) {
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

/// `None`: this kernel has no such file, or the cgroup has just gone.
pub(super) fn read(cgroup: &Directory, file: &str) -> Result<Option<String>> {
    match cgroup.read(file) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(SysError::new("read cgroup", cgroup.path.join(file).display(), errno).into()),
    }
}

pub(super) fn write_error(cgroup: &Directory, file: &str, value: &str, errno: Errno) -> anyhow::Error {
    SysError::new("write cgroup", format_args!("{}/{file} = {value}", cgroup.path.display()), errno).into()
}

fn missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SysError>().is_some_and(|error| error.errno == Errno::ENOENT)
}

/// In a cgroup of the v2 tree and those below.
pub(super) fn oom_kills(tree: &Directory) -> u64 {
    tree.read("memory.events").as_deref().map_or(0, oom_kills_in)
}

/// Of memory.oom_control, where the line came with 4.13, and of v2's memory.events.
pub(super) fn oom_kills_in(text: &str) -> u64 {
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

struct Unseen(bool);

impl Visitor for Unseen {
    fn enter(&mut self, cgroup: BorrowedFd) -> Result<(), Errno> {
        self.0 |= numbers_of_processes(&cgroup)?.contains(&0);
        Ok(())
    }
}

/// Writes a value in each cgroup.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oom_kills_are_counted() {
        for (text, want) in [
            ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
            ("oom_kill_disable 0\nunder_oom 0\n", 0),
            ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n", 1),
            ("oom_kill x\n", 0),
            ("", 0),
        ] {
            assert_eq!(oom_kills_in(text), want, "{text:?}");
        }
    }
}
