//! What will be done, decided before anything is done: `config.json` + options + facts of the host → [`Plan`].
//!
//! Plain data, fully checked, made without one system call. Acting on a plan takes no decisions; where the kernel
//! may refuse one way, the plan holds the alternatives. `rrun plan` prints it, golden tests compare it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use self::choreography::Choreography;
use self::id_maps::IdMaps;
use crate::rootfs::InRoot;
use hooks::Hooks;

pub mod affinity;
pub mod annotations;
pub mod build;
pub mod capabilities;
pub mod cgroup_paths;
pub mod choreography;
pub mod devices;
pub mod exec;
pub mod hooks;
pub mod id_maps;
pub mod intel_rdt;
pub mod io_priority;
pub mod joined;
pub mod labels;
pub mod memory_policy;
pub mod mount_ids;
pub mod mount_options;
mod mount_plan;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod notify;
pub mod personality;
pub mod problems;
pub mod process;
mod root;
pub mod scheduler;
pub mod seccomp;
pub mod spec;
pub mod sub_cgroups;
pub mod sysctl;
pub mod time;
pub mod unit;
pub mod update;

pub use mount_plan::{
    AttrChange, CgroupHierarchy, CgroupMount, MountIds, MountMaps, MountPlan, Parameter, Source, SourceLink,
};

#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    pub id: String,
    /// Absolute, symlinks resolved.
    pub bundle: PathBuf,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Those that it gets anew. Types that are listed neither here nor in `joined` are shared with rrun.
    pub namespaces: Vec<Namespace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<JoinPlan>,
    /// Of a new user namespace; of a joined one those that it must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_maps: Option<IdMaps>,
    /// rrun is not root of the host: what only root may do is left out where nothing is lost.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rootless: bool,
    /// rrun may enter namespaces, and do for the child what a user namespace forbids.
    #[serde(skip)]
    pub admin: bool,
    /// The container's user namespace is rrun's own, which forbids setgroups(2).
    #[serde(skip)]
    pub no_setgroups: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub time_offsets: Vec<TimeOffset>,
    pub root: RootPlan,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    pub mounts: Vec<MountPlan>,
    /// Of the file systems that are not in the config. SELinux is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_label: Option<String>,
    pub devices: Vec<DevicePlan>,
    /// Symbolic links of `/dev`, made where nothing stands.
    pub links: Vec<LinkPlan>,
    pub masked_paths: Vec<InRoot>,
    pub readonly_paths: Vec<InRoot>,
    pub sysctls: Vec<Sysctl>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub net_devices: Vec<net_devices::NetDevice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<intel_rdt::IntelRdt>,
    pub process: ProcessPlan,
    #[serde(skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// The caller's session keyring is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_new_keyring: bool,
    /// `linux.cgroupsPath` as given; the cgroup floor turns it and `linux.resources` into directories and writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroups_path: Option<String>,
    /// What the spec lets a runtime leave out, each with its key and the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A type of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    User,
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    Cgroup,
    Time,
}

/// An existing namespace that the container is put into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JoinPlan {
    /// Where it stands, for errors: `linux.namespaces[2].path`.
    #[serde(skip)]
    pub field: String,
    #[serde(rename = "type")]
    pub kind: Namespace,
    pub path: PathBuf,
}

/// How far a clock of a new time namespace is off the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TimeOffset {
    pub clock: Clock,
    pub secs: i64,
    pub nanosecs: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    Monotonic,
    Boottime,
}

impl ProcessPlan {
    /// In a user namespace there are things that it may not do by itself.
    pub fn may_need_parent(&self) -> bool {
        !self.rlimits.is_empty() || self.scheduler.is_some() || self.io_priority.is_some()
    }

    /// Whether the process may be looked into before it becomes the program.
    pub fn is_dumpable(&self) -> bool {
        let listener = self.seccomp.as_ref().and_then(|filter| filter.listener.as_ref());
        listener.is_some_and(|listener| listener.by_user)
    }
}

impl Plan {
    /// Whether an ordinary user's `exec` may come to init while that waits for its start: it enters by what only a
    /// dumpable process shows its user. In a joined user namespace others would see it too, and what it holds of the host.
    pub fn admits_its_user(&self) -> bool {
        self.rootless && self.has_new(Namespace::User)
    }

    /// Another namespace of this type than rrun's, be it new or joined.
    pub fn has(&self, namespace: Namespace) -> bool {
        self.has_new(namespace) || self.joins(namespace)
    }

    pub fn has_new(&self, namespace: Namespace) -> bool {
        self.namespaces.contains(&namespace)
    }

    pub fn joins(&self, namespace: Namespace) -> bool {
        self.joined.iter().any(|join| join.kind == namespace)
    }

    pub fn choreography(&self) -> Choreography {
        choreography::choreography(&self.namespaces, &self.joined, &self.time_offsets, self.admin)
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct RootPlan {
    /// Absolute host path, symlinks resolved by the caller.
    pub path: PathBuf,
    pub readonly: bool,
    pub switch: RootSwitch,
    /// What `/` of the new mount namespace is set to first.
    pub propagation: Propagation,
    /// The host's mounts may still be shared then: the one that holds the rootfs is made private before anything is
    /// attached below it, so that nothing reaches the host.
    pub isolate_parent: bool,
    /// What the container's `/` is set to after the switch (`shared` and `unbindable` only work there).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub propagation_after: Option<Propagation>,
}

/// How `/` becomes the rootfs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RootSwitch {
    PivotRoot,
    /// `--no-pivot`: the root of the host is an initramfs, where pivot_root(2) is EINVAL.
    MoveMount,
    /// No mount namespace, and nothing to mount.
    Chroot,
    /// No mount namespace: what there is to mount goes into a copy of the rootfs' mount, which covers the rootfs in the
    /// host's namespace until the container is deleted.
    ChrootCovered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Propagation {
    #[serde(rename = "type")]
    pub kind: PropagationKind,
    pub recursive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PropagationKind {
    Private,
    Shared,
    Slave,
    Unbindable,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DevicePlan {
    /// Where it stands, for errors: `linux.devices[2]`, or `default device`.
    pub field: String,
    pub path: InRoot,
    pub kind: DeviceKind,
    pub major: u64,
    pub minor: u64,
    /// Permission bits only.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    Char,
    Block,
    Fifo,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LinkPlan {
    pub path: InRoot,
    pub to: String,
    pub when: LinkWhen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkWhen {
    /// Left alone where something stands already.
    Missing,
    /// Replaces what stands there (`/dev/ptmx` must be the container's own).
    Always,
    /// `/dev/core`, only where /proc/kcore exists.
    KcoreExists,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sysctl {
    /// As in the config, for errors.
    pub key: String,
    /// Below /proc/sys: `net/ipv4/ip_forward`.
    pub path: String,
    pub value: String,
}

#[derive(Debug, Clone, Serialize)]
pub struct ProcessPlan {
    pub args: Vec<String>,
    /// Without duplicates: the last one wins and keeps the first one's place. HOME is looked up in the container's
    /// /etc/passwd when it is missing or empty.
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    /// Those of rrun's caller stay, by annotation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub keep_groups: bool,
    pub umask: u32,
    #[serde(serialize_with = "capabilities::names_of_sets")]
    pub capabilities: Capabilities,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<scheduler::Scheduler>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<io_priority::IoPriority>,
    /// The container's: what is executed in it later has the same. So with the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<memory_policy::MemoryPolicy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<personality::Personality>,
    /// Present when the process has a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
    #[serde(skip_serializing_if = "Descriptors::is_empty")]
    pub descriptors: Descriptors,
    /// The container's: what is executed in it later has the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<seccomp::Filter>,
    /// Those that the process would not find at their default otherwise. Bit n is signal n + 1.
    #[serde(skip)]
    pub reset_signals: u64,
}

/// Descriptors of the caller that the process keeps under their numbers, from 3 on: sockets by which systemd starts a
/// service (sd_listen_fds(3)), then those of `--preserve-fds`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Descriptors {
    pub listen: u32,
    pub preserve: u32,
}

impl Descriptors {
    /// The first one; those before are the standard ones.
    pub const FIRST: i32 = 3;

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The first number that is not among them.
    pub fn end(&self) -> i32 {
        let count = u64::from(self.listen) + u64::from(self.preserve);
        i32::try_from(count + Self::FIRST as u64).unwrap_or(i32::MAX)
    }
}

/// Bit n is the capability with number n (capability(7)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rlimit {
    /// `RLIMIT_NOFILE`
    pub name: String,
    /// The kernel's number (asm-generic/resource.h).
    #[serde(skip)]
    pub resource: u32,
    /// `u64::MAX` is "unlimited".
    pub soft: u64,
    pub hard: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Terminal {
    /// Rows and columns, when both are given and not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<(u16, u16)>,
}
