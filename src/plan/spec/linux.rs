//! `linux` of config.json.

use serde::Deserialize;

use super::document::from_object;
use super::resources::Resources;
use super::seccomp::Seccomp;
use super::{IdMapping, List, Table};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Linux {
    pub namespaces: List<Namespace>,
    pub uid_mappings: List<IdMapping>,
    pub gid_mappings: List<IdMapping>,
    pub time_offsets: Table<TimeOffset>,
    pub devices: List<Device>,
    pub net_devices: Table<NetDevice>,
    pub cgroups_path: Option<String>,
    pub resources: Option<Resources>,
    pub intel_rdt: Option<IntelRdt>,
    pub memory_policy: Option<MemoryPolicy>,
    pub sysctl: Table<String>,
    pub seccomp: Option<Seccomp>,
    pub rootfs_propagation: Option<String>,
    pub masked_paths: List<String>,
    pub readonly_paths: List<String>,
    pub mount_label: Option<String>,
    pub personality: Option<Personality>,
    /// By annotation: the option of mount(8) that gets `mount_label`.
    #[serde(skip)]
    pub mount_context: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub path: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct TimeOffset {
    pub secs: Option<i64>,
    pub nanosecs: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Device {
    pub path: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct NetDevice {
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct IntelRdt {
    #[serde(rename = "closID")]
    pub clos_id: Option<String>,
    pub schemata: List<String>,
    pub l3_cache_schema: Option<String>,
    pub mem_bw_schema: Option<String>,
    pub enable_monitoring: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct MemoryPolicy {
    pub mode: Option<String>,
    pub nodes: Option<String>,
    pub flags: List<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Personality {
    pub domain: Option<String>,
    pub flags: List<String>,
}

from_object!(Linux, Namespace, TimeOffset, Device, NetDevice, IntelRdt, MemoryPolicy, Personality);
