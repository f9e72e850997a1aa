//! What each command means. The command line turns words into these options and calls one function.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::plan::Descriptors;
use crate::plan::unit::CgroupManager;

mod bring_up;
mod bundle;
mod cgroups;
mod check;
mod checkpoint;
mod claim;
mod container;
mod delete;
mod duties;
mod events;
mod exec;
mod freeze;
pub mod given_file;
mod hooks;
mod images;
mod loan;
mod managed;
mod outside;
mod permitted;
mod pidfd_socket;
mod process;
mod query;
mod readiness;
mod restore;
mod revive;
mod root_cover;
mod rootless;
mod run;
mod seccomp_agent;
mod signal;
mod start;
mod update;
pub mod view;

pub use bring_up::Place;
pub use check::{CheckOptions, Finding, Verdict, check};
pub use checkpoint::{CheckpointOptions, checkpoint};
pub use delete::delete;
pub use events::{Event, Events, stats};
pub use exec::{ExecOptions, exec};
pub use freeze::{pause, resume};
pub use images::ImagePaths;
pub use query::{list, matching, plan, processes, state};
pub use restore::{RestoreOptions, restore};
pub use run::{create, run};
pub use signal::kill;
pub use start::start;
pub use update::update;

/// Where containers are recorded: one directory each.
#[derive(Debug, Clone)]
pub struct Store {
    pub root: PathBuf,
}

/// Options of `create`, and of `run` up to the start.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    pub id: String,
    /// Directory that holds config.json and, usually, the rootfs.
    pub bundle: PathBuf,
    /// Another file in place of BUNDLE/config.json.
    pub config: Option<PathBuf>,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
    pub descriptors: Descriptors,
    pub no_new_keyring: bool,
    pub cgroup_manager: CgroupManager,
    /// Where a service manager waits for the container to be ready: sd_notify(3).
    pub notify_socket: Option<OsString>,
}

#[derive(Debug, Clone)]
pub struct RunOptions {
    pub create: CreateOptions,
    pub detach: bool,
    /// Leave the stopped container in place.
    pub keep: bool,
    pub no_subreaper: bool,
}
