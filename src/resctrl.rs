//! `linux.intelRdt`: a container's group in the resctrl file system (Documentation/arch/x86/resctrl.rst): looked for,
//! made, joined and removed. What it is to be is decided in `plan::intel_rdt`.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::error::{Doing, SysError};
use crate::host::mountpoints::mountpoints;
use crate::plan::intel_rdt::{IntelRdt, L3, MB, ROOT, check_existing, line_of};
use crate::procfs::Proc;
use crate::state::RdtGroup;

pub mod stats;

/// The group of a container to be.
pub struct Group<'p> {
    plan: &'p IntelRdt,
    mount: PathBuf,
    is_new: bool,
    /// By this process; another may have been faster.
    made: Cell<bool>,
}

/// For whoever makes a group of the same name at the same time to say what it is.
const MOMENT_TO_BE_WRITTEN: Duration = Duration::from_millis(500);

impl<'p> Group<'p> {
    /// Looks and changes nothing.
    pub fn find(plan: &'p IntelRdt, proc: &Proc) -> Result<Self> {
        let mount = mountpoints(&proc.own_mountinfo()?, &["resctrl"]).into_iter().next();
        let mount = mount.context(
            "linux.intelRdt: no resctrl file system is mounted here; mount it on /sys/fs/resctrl, if processor and kernel \
             have it, or remove the field",
        )?;
        Self::find_at(plan, mount)
    }

    fn find_at(plan: &'p IntelRdt, mount: PathBuf) -> Result<Self> {
        let group = Self { plan, is_new: false, mount, made: Cell::new(false) };
        let is_new = match fs::read_to_string(group.path().join("schemata")).doing("read", group.path().display()) {
            Err(SysError { errno: Errno::ENOENT, .. }) => true,
            schemata => {
                check_existing(plan, &schemata?, group.granularity())?;
                false
            }
        };
        ensure!(
            !is_new || !plan.named || !plan.lines().is_empty(),
            "linux.intelRdt.closID: resctrl has no group {}; make it, or say by a schema what it is to be",
            plan.group
        );
        if let Some(monitor) = group.monitor().filter(|monitor| monitor.exists()) {
            anyhow::bail!("linux.intelRdt.enableMonitoring: {} is there already; remove it", monitor.display());
        }
        Ok(Self { is_new, ..group })
    }

    fn path(&self) -> PathBuf {
        match self.plan.group.as_str() {
            ROOT => self.mount.clone(),
            name => self.mount.join(name),
        }
    }

    fn monitor(&self) -> Option<PathBuf> {
        self.plan.monitor.as_ref().map(|name| self.path().join("mon_groups").join(name))
    }

    /// Of bandwidth, in percent.
    fn granularity(&self) -> u64 {
        let told = fs::read_to_string(self.mount.join("info/MB/bandwidth_gran")).ok();
        told.and_then(|told| told.trim().parse().ok()).unwrap_or(1)
    }

    /// What `delete` will need, to be recorded before anything is made.
    pub fn record(&self) -> RdtGroup {
        let (ours, passing) = (self.is_new && !self.plan.named, self.is_new && self.plan.named);
        RdtGroup { path: self.path(), ours, passing, monitor: self.monitor() }
    }

    /// Takes back what was made when it fails.
    pub fn make(&self) -> Result<()> {
        let mut made = Vec::new();
        self.make_all(&mut made).inspect_err(|_| {
            // Alone that: another create may have made the same name meanwhile.
            for group in made.iter().rev() {
                let _ = fs::remove_dir(group);
            }
        })
    }

    fn make_all(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let path = self.path();
        if self.is_new {
            match fs::create_dir(&path).doing("mkdir resctrl", path.display()) {
                Err(SysError { errno: Errno::EEXIST, .. }) if self.plan.named => self.is_written_as_meant()?,
                result => {
                    result.context("linux.intelRdt.closID")?;
                    made.push(path.clone());
                    self.made.set(true);
                }
            }
        }
        for (field, line) in self.plan.lines() {
            write_line(&path, line).context(field)?;
        }
        if let Some(monitor) = self.monitor() {
            let monitored = fs::create_dir(&monitor).doing("mkdir resctrl", monitor.display());
            monitored.context("linux.intelRdt.enableMonitoring")?;
            made.push(monitor);
        }
        Ok(())
    }

    /// Another `create` has made it just now, and may not have written to it yet.
    fn is_written_as_meant(&self) -> Result<()> {
        let since = Instant::now();
        loop {
            let file = self.path().join("schemata");
            let schemata = fs::read_to_string(&file).doing("read", file.display());
            let compared = schemata.map_err(anyhow::Error::from);
            match compared.and_then(|schemata| check_existing(self.plan, &schemata, self.granularity())) {
                Err(_) if since.elapsed() < MOMENT_TO_BE_WRITTEN => std::thread::sleep(Duration::from_millis(5)),
                result => return result,
            }
        }
    }

    /// Of a container that does not come up: also a group that would have stayed with its name, if it was made here.
    pub fn undo(&self) -> Result<()> {
        let (record, made) = (self.record(), self.made.get());
        RdtGroup { ours: record.ours && made, passing: record.passing && made, ..record }.remove(Until::NotUp)
    }
}

/// One write, as the kernel wants it: with its end of line, and alone. What is wrong with it the kernel tells in a file.
fn write_line(group: &Path, line: &str) -> Result<()> {
    let file = group.join("schemata");
    let open = fs::File::options().append(true).open(&file).doing("open", file.display());
    let written = open.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()).doing("write", line));
    let Err(error) = written else { return Ok(()) };
    // in the file system's root, whichever group it is
    let told = group.ancestors().take(2).find_map(|dir| fs::read_to_string(dir.join("info/last_cmd_status")).ok());
    match told.as_deref().map(str::trim).filter(|told| !told.is_empty() && *told != "ok") {
        Some(told) => Err(error).with_context(|| format!("resctrl says: {told}")),
        None => Err(error.into()),
    }
}

impl RdtGroup {
    /// Before it forks: a thread keeps the group of who made it.
    pub fn add(&self, pid: Pid) -> Result<()> {
        for group in [&self.path].into_iter().chain(&self.monitor) {
            let tasks = group.join("tasks");
            let file = fs::File::options().append(true).open(&tasks);
            let written = file.and_then(|mut file| file.write_all(pid.to_string().as_bytes()));
            written.doing("write resctrl", tasks.display()).context("linux.intelRdt")?;
        }
        Ok(())
    }

    /// Whoever is still in it is put into the one above by the kernel: so one with a name, which others may have joined,
    /// goes only when it is empty.
    pub fn remove(&self, until: Until) -> Result<()> {
        remove_one(self.monitor.as_deref())?;
        if self.ours || (self.passing && until == Until::NotUp && self.is_empty()) {
            remove_one(Some(&self.path))?;
        }
        Ok(())
    }

    /// Of processes, and of groups in which others are counted.
    fn is_empty(&self) -> bool {
        let tasks = fs::read_to_string(self.path.join("tasks")).unwrap_or_default();
        let mut monitors = fs::read_dir(self.path.join("mon_groups")).into_iter().flatten();
        tasks.trim().is_empty() && monitors.next().is_none()
    }

    /// `update`: writes these instead of what was there, or changes nothing. The result puts that back.
    pub fn set(&self, l3: Option<&str>, mb: Option<&str>) -> Result<Before<'_>> {
        let file = self.path.join("schemata");
        let present = fs::read_to_string(&file).doing("read", file.display()).context("linux.intelRdt")?;
        let mut before = Before { group: self, lines: Vec::new() };
        for (field, line) in [(L3, l3), (MB, mb)] {
            let Some(line) = line else { continue };
            if let Err(error) = write_line(&self.path, line).context(field) {
                before.put_back()?;
                return Err(error);
            }
            before.lines.extend(line_of(&present, line).map(String::from));
        }
        Ok(before)
    }
}

fn remove_one(group: Option<&Path>) -> Result<()> {
    let Some(group) = group else { return Ok(()) };
    match fs::remove_dir(group).doing("rmdir", group.display()) {
        Err(SysError { errno: Errno::ENOENT, .. }) => Ok(()),
        result => result.context("linux.intelRdt"),
    }
}

/// How far the container has come whose group is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    NotUp,
    Up,
}

/// Lines of `schemata` as they were.
pub struct Before<'a> {
    group: &'a RdtGroup,
    lines: Vec<String>,
}

impl Before<'_> {
    pub fn put_back(&self) -> Result<()> {
        self.lines.iter().try_for_each(|line| write_line(&self.group.path, line).context("linux.intelRdt"))
    }
}

#[cfg(test)]
mod tests;
