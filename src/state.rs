//! What is recorded of a container: ROOT/ID/state.json, written before the first thing is made, so that whatever a
//! killed rrun leaves can be found and removed. Status is never stored, it is observed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::error::Matched;
use crate::plan::hooks::OutputPaths;
use crate::plan::unit::CgroupManager;

pub mod directory;
pub mod lock;
pub mod pid_file;

/// Raised when an older rrun could not read what this one writes.
pub const FORMAT: u32 = 1;

/// Names are those that other tools read from runc's file, where it has the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub format: u32,
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: PathBuf,
    /// RFC 3339, UTC, nanoseconds.
    pub created: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The rrun that makes, or made, the container.
    pub creator: Process,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Process>,
    /// Everything is set up and recorded; init waits for its start, or has had it.
    pub ready: bool,
    pub cgroup_manager: CgroupManager,
    /// Controller → directory of the host; the key of a v2 tree is empty.
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// Of systemd's, which it was asked for after this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Nobody knows whether the unit is there: systemd did not answer its creator, which has given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub abandoned: bool,
    /// Types of the namespaces that are the container's own.
    pub namespaces: Vec<String>,
    /// Of `create`; what is executed later keeps its caller's session keyring too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_new_keyring: bool,
    /// Names on the host of devices that were moved into its network namespace, and their names there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, String>,
    /// The config has no `process`, so there is nothing to be started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_process: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<RdtGroup>,
    /// Without a mount namespace: the kernel's number of the host's mount that a copy with the container's mounts is put
    /// onto, at the rootfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub covered_mount: Option<u64>,
    /// The kinds that the container has hooks of. They stand in config.json; most containers have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    #[serde(default, skip_serializing_if = "OutputPaths::is_empty")]
    pub hook_output: OutputPaths,
    /// For other tools, which look for these where runc has them: init's pid, and its namespaces by the kernel's words
    /// (`NEWNET`). rrun itself reads `init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_process_pid: Option<i32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_paths: BTreeMap<String, PathBuf>,
    /// What the spec let rrun leave out, for a person who looks for it later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl State {
    /// The cgroups above those on record are the unit's, and go with the container.
    pub fn is_in_subgroup(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.subgroup.is_some())
    }
}

/// A group of the resctrl file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RdtGroup {
    pub path: PathBuf,
    /// It goes with the container.
    pub ours: bool,
    /// Has a name of its own and was not there: it stays once the container is up, and goes if it never is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub passing: bool,
    /// The container's own for monitoring, which goes with it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

/// A unit of systemd's, and where that is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    /// Of a user's own systemd: the address of its bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// The last part of each of the container's paths: above it is the unit's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subgroup: Option<String>,
}

/// A process for good: pids are used again, but not with the same start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since boot: field 22 of proc_pid_stat(5).
    pub start_time: u64,
}

impl Process {
    pub fn pid(self) -> Pid {
        Pid::from_raw(self.pid)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What can be seen of a container; the later ones are asked only where the earlier ones leave it open.
pub trait Observe {
    fn init_alive(&mut self) -> anyhow::Result<bool>;
    fn frozen(&mut self) -> anyhow::Result<bool>;
    fn ready(&mut self) -> bool;
    fn creator_alive(&mut self) -> anyhow::Result<bool>;
    fn start_channel_held(&mut self) -> anyhow::Result<bool>;
}

pub fn status(container: &mut impl Observe) -> anyhow::Result<Status> {
    Ok(if !container.ready() {
        // Before `ready` there may be no init yet.
        match container.creator_alive()? {
            true => Status::Creating,
            false => Status::Stopped,
        }
    } else if !container.init_alive()? {
        Status::Stopped
    } else if container.frozen()? {
        Status::Paused
    } else if container.start_channel_held()? {
        Status::Created
    } else {
        Status::Running
    })
}

/// NAME_MAX: an id becomes a directory's name.
const LONGEST_ID: usize = 255;

/// Letters, digits, `_`, `+`, `-` and `.`; it becomes a path, a cgroup's name and a keyring's.
pub fn check_id(id: &str) -> Result<(), Matched> {
    if id.is_empty() {
        return Err(Matched::IdEmpty);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if !id.chars().all(allowed) || matches!(id, "." | "..") || id.len() > LONGEST_ID {
        return Err(Matched::IdFormat);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        for (id, want) in [
            ("c1", Ok(())),
            ("a_b+c-d.e", Ok(())),
            (".x", Ok(())),
            ("", Err(Matched::IdEmpty)),
            (".", Err(Matched::IdFormat)),
            ("..", Err(Matched::IdFormat)),
            ("a/b", Err(Matched::IdFormat)),
            ("../x", Err(Matched::IdFormat)),
            ("a\nb", Err(Matched::IdFormat)),
            ("ä", Err(Matched::IdFormat)),
        ] {
            assert_eq!(check_id(id), want, "{id}");
        }
        assert!(check_id(&"x".repeat(255)).is_ok());
        assert!(check_id(&"x".repeat(256)).is_err());
    }

    struct Seen {
        alive: bool,
        frozen: bool,
        ready: bool,
        creator: bool,
        held: bool,
    }

    impl Observe for Seen {
        fn init_alive(&mut self) -> anyhow::Result<bool> {
            Ok(self.alive)
        }
        fn frozen(&mut self) -> anyhow::Result<bool> {
            Ok(self.frozen)
        }
        fn ready(&mut self) -> bool {
            self.ready
        }
        fn creator_alive(&mut self) -> anyhow::Result<bool> {
            Ok(self.creator)
        }
        fn start_channel_held(&mut self) -> anyhow::Result<bool> {
            Ok(self.held)
        }
    }

    #[test]
    fn status_from_what_is_seen() {
        // alive, frozen, ready, creator, held
        for (seen, want) in [
            ([true, false, true, false, true], Status::Created),
            ([true, false, true, true, true], Status::Created),
            ([true, false, true, false, false], Status::Running),
            ([true, true, true, false, false], Status::Paused),
            ([true, true, true, false, true], Status::Paused),
            ([false, true, true, false, true], Status::Stopped),
            ([false, false, true, true, false], Status::Stopped),
            ([true, false, false, true, true], Status::Creating),
            ([false, false, false, true, false], Status::Creating),
            ([false, false, false, false, false], Status::Stopped),
            ([true, false, false, false, true], Status::Stopped),
        ] {
            let [alive, frozen, ready, creator, held] = seen;
            let got = status(&mut Seen { alive, frozen, ready, creator, held }).unwrap();
            assert_eq!(got, want, "{seen:?}");
        }
    }
}
