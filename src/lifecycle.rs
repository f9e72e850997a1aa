//! What each command means. The command line turns words into these options and calls one function.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Matched;
use crate::lifecycle::view::StateView;

pub mod view;

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
    pub pid_file: Option<PathBuf>,
    pub no_pivot: bool,
}

#[derive(Debug, Clone)]
pub struct RunOptions {
    pub create: CreateOptions,
    pub detach: bool,
    /// Leave the stopped container in place.
    pub keep: bool,
    pub no_subreaper: bool,
}

pub fn create(_store: &Store, _options: &CreateOptions) -> Result<()> {
    todo!()
}

/// The exit status of the container's process; 0 when detached.
pub fn run(_store: &Store, _options: &RunOptions) -> Result<i32> {
    todo!()
}

pub fn start(_store: &Store, _id: &str) -> Result<()> {
    todo!()
}

pub fn kill(_store: &Store, _id: &str, _signal: i32, _all: bool) -> Result<()> {
    Err(Matched::NotRunning.into())
}

pub fn delete(_store: &Store, _id: &str, _force: bool) -> Result<()> {
    Err(Matched::DoesNotExist.into())
}

pub fn state(_store: &Store, _id: &str) -> Result<StateView> {
    Err(Matched::DoesNotExist.into())
}

pub fn list(_store: &Store) -> Result<Vec<StateView>> {
    Ok(Vec::new())
}

pub fn plan(_bundle: &Path, _id: Option<&str>, _no_pivot: bool) -> Result<serde_json::Value> {
    todo!()
}
