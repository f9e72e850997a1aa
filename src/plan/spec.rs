//! config.json as it is written: own types under the spec's names. What a value means, and whether it makes sense, is
//! decided in the modules beside this one; here it only has to have the right type.
//!
//! Unknown keys are ignored (the spec demands it), `null` stands for absent, a key given twice is an error.

use anyhow::{Context, Result};
use serde::Deserialize;

use document::from_object;
pub use document::{Lenient, List, Table};
pub use linux::Linux;
pub use process::Process;

pub mod document;
pub mod linux;
pub mod process;
pub mod resources;
pub mod seccomp;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Spec {
    pub oci_version: Option<String>,
    pub root: Option<Root>,
    pub process: Option<Process>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub mounts: List<Mount>,
    pub hooks: Option<Hooks>,
    pub annotations: Table<String>,
    pub linux: Option<Linux>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Root {
    pub path: Option<String>,
    pub readonly: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Mount {
    pub destination: Option<String>,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub source: Option<String>,
    pub options: List<String>,
    pub uid_mappings: List<IdMapping>,
    pub gid_mappings: List<IdMapping>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: Option<u32>,
    #[serde(rename = "hostID")]
    pub host_id: Option<u32>,
    pub size: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Hooks {
    pub prestart: List<Hook>,
    pub create_runtime: List<Hook>,
    pub create_container: List<Hook>,
    pub start_container: List<Hook>,
    pub poststart: List<Hook>,
    pub poststop: List<Hook>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Hook {
    pub path: Option<String>,
    /// With `args[0]`; absent: the path alone.
    pub args: Option<Vec<String>>,
    /// Absent is not empty: what a hook without `env` gets depends on its kind.
    pub env: Option<Vec<String>>,
    pub timeout: Option<i64>,
}

from_object!(Spec, Root, Mount, IdMapping, Hooks, Hook);

impl Spec {
    pub fn parse(text: &[u8]) -> Result<Spec> {
        document::read(text).context("config.json")
    }

    /// As `parse`, and what is of a wrong type is left out.
    pub fn parse_leniently(text: &[u8]) -> Result<Lenient<Spec>> {
        document::read_leniently(text).context("config.json")
    }

    /// `root.path` as written; relative to the bundle.
    pub fn cgroups_path(&self) -> Option<&str> {
        given(&self.linux.as_ref()?.cgroups_path)
    }

    pub fn root_path(&self) -> Result<&str> {
        let root = self.root.as_ref().context("root: missing; add the directory of the root file system as root.path");
        root.and_then(|root| given(&root.path).context("root.path: missing; add the directory of the root file system"))
            .context("config.json")
    }
}

/// An empty string means "not set" throughout the spec.
pub fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
