//! What a container leaves on the machine when its runtime forgets something, found by one mark.
//!
//! The mark (`rt-PID-NNNN`, PID of the test process) is the container's id, the name of its cgroup and of the temporary
//! directory that holds bundle and state, and stands in the environment of every runtime process that a test starts.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::patience::eventually_within;

pub const PREFIX: &str = "rt-";
pub const VARIABLE: &str = "RT_MARK";

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    pub processes: Vec<i32>,
    pub cgroups: Vec<PathBuf>,
    pub mounts: Vec<PathBuf>,
    /// Entries of the runtime's `--root`.
    pub state: Vec<PathBuf>,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let processes: Vec<_> = self.processes.iter().map(|pid| format!("{pid} ({})", command_of(*pid))).collect();
        write!(f, "processes {processes:?} cgroups {:?} mounts {:?} state {:?}", self.cgroups, self.mounts, self.state)
    }
}

impl Leftovers {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn find(mark: &str, root: &Path) -> Self {
        Self { processes: processes(mark), cgroups: cgroups(mark), mounts: mounts(mark), state: entries(root) }
    }

    /// Empty, or what is still there after `patience`: the kernel takes its time to end processes.
    pub fn after(patience: Duration, mark: &str, root: &Path) -> Self {
        let gone = || Some(Self::find(mark, root)).filter(Self::is_empty);
        eventually_within(patience, gone).unwrap_or_else(|| Self::find(mark, root))
    }

    /// Takes away everything that bears `mark`. A v1 freezer is thawed first: frozen processes do not die.
    pub fn remove(mark: &str, root: &Path) {
        for cgroup in cgroups(mark) {
            let _ = fs::write(cgroup.join("freezer.state"), "THAWED");
        }
        let gone = || {
            for pid in processes(mark) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            for cgroup in cgroups(mark) {
                let _ = fs::remove_dir(cgroup);
            }
            for mount in mounts(mark) {
                let _ = umount2(&mount, MntFlags::MNT_DETACH);
            }
            for entry in entries(root) {
                let _ = fs::remove_dir_all(entry);
            }
            Some(()).filter(|()| Self::find(mark, root).is_empty())
        };
        eventually_within(Duration::from_secs(5), gone);
    }
}

/// Removes what test processes left that were killed. Their directories tell which they were.
pub fn sweep(temporary: &Path) {
    for dir in entries(temporary) {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<i32>().ok()) else {
            continue;
        };
        if !is_test_process(pid) {
            Leftovers::remove(&name, &dir.join("state"));
            let _ = fs::remove_dir_all(&dir);
        }
    }
}

/// Alive, and not another program that has got its number since. Cargo names them `integration-HASH`.
fn is_test_process(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with("integration-"))
}

/// Processes of the runtime, by their environment, and of the container, by their cgroup. Zombies are gone already.
fn processes(mark: &str) -> Vec<i32> {
    let (variable, member) = (format!("{VARIABLE}={mark}\0"), format!("/{mark}"));
    let marked = |pid: &i32| {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| String::from_utf8_lossy(&env).contains(&variable))
            || fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|cgroups| cgroups.contains(&member))
    };
    let pids = entries(Path::new("/proc")).into_iter().filter_map(|dir| dir.file_name()?.to_str()?.parse().ok());
    pids.filter(|pid| is_alive(*pid)).filter(marked).collect()
}

pub fn is_alive(pid: i32) -> bool {
    !matches!(status_letter(pid), None | Some('Z' | 'X'))
}

/// `R`, `S`, `Z` …: the field after the name, which may hold anything.
pub fn status_letter(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn command_of(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ").trim_end().to_string()
}

/// Deepest first, so that they can be removed in this order.
fn cgroups(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    hierarchies().iter().for_each(|hierarchy| collect(hierarchy, mark, &mut found));
    found
}

fn collect(dir: &Path, mark: &str, found: &mut Vec<PathBuf>) {
    // by the entry's own type: a stat of each of a thousand files takes longer than all else
    let children = fs::read_dir(dir).into_iter().flatten().flatten();
    for child in children.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()) {
        collect(&child, mark, found);
        if child.to_string_lossy().contains(&format!("/{mark}")) {
            found.push(child);
        }
    }
}

/// Where cgroup hierarchies of either version are mounted.
pub fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.filter(|f| matches!(f[2], "cgroup" | "cgroup2")).map(|f| PathBuf::from(f[1])).collect()
}

/// Mounts on the host, topmost first.
fn mounts(mark: &str) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().rev().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| point.contains(&format!("/{mark}"))).map(PathBuf::from).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect()
}
