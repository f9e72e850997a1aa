//! `process` of config.json, and the whole of what `exec --process` reads.

use serde::Deserialize;

use super::List;
use super::document::from_object;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Process {
    pub terminal: Option<bool>,
    pub console_size: Option<ConsoleSize>,
    pub user: Option<User>,
    pub args: List<String>,
    pub env: List<String>,
    pub cwd: Option<String>,
    pub capabilities: Option<Capabilities>,
    pub rlimits: List<Rlimit>,
    pub no_new_privileges: Option<bool>,
    pub oom_score_adj: Option<i64>,
    pub apparmor_profile: Option<String>,
    pub selinux_label: Option<String>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
    /// By annotation.
    #[serde(skip)]
    pub keep_groups: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct ConsoleSize {
    pub height: Option<u64>,
    pub width: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct User {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub umask: Option<u32>,
    pub additional_gids: List<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Capabilities {
    pub bounding: List<String>,
    pub effective: List<String>,
    pub permitted: List<String>,
    pub inheritable: List<String>,
    pub ambient: List<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Scheduler {
    pub policy: Option<String>,
    pub nice: Option<i32>,
    pub priority: Option<i32>,
    pub flags: List<String>,
    pub runtime: Option<u64>,
    pub deadline: Option<u64>,
    pub period: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct IoPriority {
    pub class: Option<String>,
    pub priority: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct ExecCpuAffinity {
    pub initial: Option<String>,
    #[serde(rename = "final")]
    pub last: Option<String>,
}

from_object!(Process, ConsoleSize, User, Capabilities, Rlimit, Scheduler, IoPriority, ExecCpuAffinity);
