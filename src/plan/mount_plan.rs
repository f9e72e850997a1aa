//! What each entry of `mounts` becomes: which mount, where it comes from, and all that is set of it. The types alone;
//! `mounts` decides.

use std::path::PathBuf;

use serde::Serialize;

use super::id_maps::IdRange;
use super::{Propagation, mount_options};
use crate::rootfs::InRoot;

#[derive(Debug, Clone, Serialize)]
pub struct MountPlan {
    /// Where it stands, for errors: `mounts[3]`.
    pub field: String,
    pub target: InRoot,
    pub source: Source,
    /// Words of one mount (`ro`, `nosuid`, …).
    #[serde(skip_serializing_if = "AttrChange::is_empty")]
    pub attributes: AttrChange,
    /// Of a bind mount with such words: what none of them names. Cleared, unless it is locked.
    #[serde(skip_serializing_if = "AttrChange::is_empty")]
    pub unnamed: AttrChange,
    /// Words of the whole tree (`rro`, `rnosuid`, …).
    #[serde(skip_serializing_if = "AttrChange::is_empty")]
    pub recursive: AttrChange,
    /// In the order given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub propagation: Vec<Propagation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<MountIds>,
    /// A symlink at the destination is itself the place.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub target_nofollow: bool,
    /// `ro` of a tmpfs, or of what lies below /dev: set when everything inside has been made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub readonly_at_end: bool,
    /// SELinux label that its root is given once it is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// Bits of MOUNT_ATTR_* that a mount gets and loses. Cleared bits are applied first, as mount_setattr(2) does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    pub set: u64,
    pub clear: u64,
}

impl Serialize for AttrChange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&mount_options::words(self))
    }
}

impl AttrChange {
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0
    }
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A new instance: fsopen, one fsconfig per parameter, fsmount.
    Filesystem {
        fstype: String,
        device: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        parameters: Vec<Parameter>,
        /// `tmpcopyup`: the new tmpfs starts with what the directory below it holds.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        copy_up: bool,
    },
    /// A clone of a mount of the host.
    Bind {
        from: PathBuf,
        recursive: bool,
        #[serde(skip_serializing_if = "SourceLink::is_followed")]
        symlink: SourceLink,
    },
    /// Type `cgroup` or `cgroup2`: what it becomes depends on the host's hierarchies and the cgroup namespace.
    Cgroup(CgroupMount),
    /// `remount`: changes what is mounted at the target already.
    Remount {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        parameters: Vec<Parameter>,
    },
}

/// What a source that is a symlink stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceLink {
    /// For what it leads to.
    Followed,
    /// For itself, which is bound.
    Bound,
    /// For itself, which is made anew at the target.
    Copied,
}

impl SourceLink {
    pub fn is_followed(&self) -> bool {
        *self == Self::Followed
    }
}

/// The ids that a mount shows in place of those on its file system: mount_setattr(2), MOUNT_ATTR_IDMAP (Linux 5.12).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MountIds {
    pub maps: MountMaps,
    /// Of the whole tree.
    pub recursive: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountMaps {
    /// Those of the container's user namespace, new or joined.
    Container,
    /// `container` is the id on the file system, `host` the one that is shown.
    Own { uids: Vec<IdRange>, gids: Vec<IdRange> },
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupMount {
    /// A tmpfs with one directory per hierarchy.
    V1 { hierarchies: Vec<CgroupHierarchy>, links: Vec<(String, String)> },
    /// In a cgroup namespace of the container's own a new mount of cgroup2, which shows it from there, and where the
    /// kernel refuses that (EPERM, EBUSY) a bind. Without such a namespace always a bind: a new mount made in the host's
    /// own would give its options, such as none, to every mount of cgroup2 on the host.
    V2 { new: bool, bind: PathBuf },
}

#[derive(Debug, Clone, Serialize)]
pub struct CgroupHierarchy {
    /// Directory name below the target, as on the host: `cpu,cpuacct`, `systemd`.
    pub name: String,
    /// The container's own directory on the host, which is bound. In a cgroup namespace it reads as the hierarchy's
    /// root, as a new mount would; but mounting a v1 hierarchy anew waits until every cgroup that is being removed
    /// anywhere on the host is gone.
    pub from: PathBuf,
}

/// One parameter of a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Parameter {
    Flag(String),
    Value(String, String),
}
