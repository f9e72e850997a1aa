//! `linux.seccomp` of config.json.

use serde::Deserialize;

use super::List;
use super::document::from_object;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Seccomp {
    pub default_action: Option<String>,
    pub default_errno_ret: Option<u32>,
    pub architectures: List<String>,
    /// Absent is not empty: absent lets the runtime choose.
    pub flags: Option<Vec<String>>,
    pub listener_path: Option<String>,
    pub listener_metadata: Option<String>,
    pub syscalls: List<Syscall>,
    /// By annotation: a name that rrun does not know is an error.
    #[serde(skip)]
    pub fail_unknown: bool,
    /// By annotation: a filter in place of the rules.
    #[serde(skip)]
    pub program: Option<Vec<libc::sock_filter>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Syscall {
    pub names: List<String>,
    pub action: Option<String>,
    pub errno_ret: Option<u32>,
    pub args: List<Argument>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", default)]
pub struct Argument {
    pub index: Option<u32>,
    pub value: Option<u64>,
    pub value_two: Option<u64>,
    pub op: Option<String>,
}

from_object!(Seccomp, Syscall, Argument);
