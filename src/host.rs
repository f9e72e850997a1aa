//! Facts about this machine, read once and handed to `plan` as data, so that a test can ask "what would be done on
//! cgroup v1, as a user, on an older kernel?" anywhere.

use serde::Serialize;

use crate::host::cgroups::CgroupLayout;

pub mod cgroups;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Host {
    /// Without root's rights in the initial user namespace.
    pub rootless: bool,
    /// Capabilities that rrun can hand on: those of its bounding and permitted sets. Bit n is capability n.
    pub capabilities: u64,
    /// The highest capability that this kernel knows.
    pub last_capability: u8,
    pub cgroups: CgroupLayout,
}
