//! Which cgroup hierarchies are mounted where, and where in each rrun itself is.

use std::path::PathBuf;

use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CgroupLayout {
    /// v1 hierarchies with a mount, in the order of /proc/self/cgroup.
    pub v1: Vec<Hierarchy>,
    /// The v2 tree: alone, or beside v1 ("hybrid", where it may hold some controllers or none).
    pub v2: Option<Unified>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// `["cpu", "cpuacct"]`, or `["name=systemd"]`.
    pub controllers: Vec<String>,
    pub mountpoint: PathBuf,
    /// The directory of the hierarchy that is mounted there; `/` unless rrun is inside a container.
    pub root: String,
    /// rrun's own cgroup in this hierarchy, from /proc/self/cgroup.
    pub own: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unified {
    pub mountpoint: PathBuf,
    pub root: String,
    pub own: String,
    /// cgroup.controllers of the tree's top.
    pub controllers: Vec<String>,
}
