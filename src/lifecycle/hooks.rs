//! Hooks that run beside the container, in rrun's own namespaces: at which moment, told what, and what a failure means.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

use crate::hooks::{Outputs, Side, Stop, Surroundings, run_all};
use crate::launch::seal;
use crate::log;
use crate::plan::Plan;
use crate::plan::hooks::{self, Hook, Hooks, OutputPaths};
use crate::plan::spec::Spec;
use crate::rootfs::open_host_directory;
use crate::state::directory::Directory;
use crate::state::{State, Status};

/// Runs the hooks of one container.
pub struct Runner<'a> {
    id: &'a str,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
    stop: Option<&'a dyn Stop>,
    outputs: &'a Outputs,
}

impl<'a> Runner<'a> {
    pub fn of_plan(plan: &'a Plan, outputs: &'a Outputs, stop: Option<&'a dyn Stop>) -> Self {
        Self { id: &plan.id, bundle: &plan.bundle, annotations: &plan.annotations, stop, outputs }
    }

    pub fn of_state(state: &'a State, outputs: &'a Outputs, stop: Option<&'a dyn Stop>) -> Self {
        Self { id: &state.id, bundle: &state.bundle, annotations: &state.annotations, stop, outputs }
    }

    /// In the bundle, as other runtimes have it. The deprecated prestart hooks are told what spec 1.0 had them told: there
    /// they ran when `create` was over.
    pub fn at_create(&self, hooks: &Hooks, pid: i32) -> Result<()> {
        let bundle = open_host_directory(self.bundle)?;
        self.run(&hooks.prestart, Status::Created, Some(pid), Some(&bundle))?;
        self.run(&hooks.create_runtime, Status::Creating, Some(pid), Some(&bundle))
    }

    pub fn poststart(&self, hooks: &Hooks, pid: i32) -> Result<()> {
        self.run(&hooks.poststart, Status::Running, Some(pid), None)
    }

    /// The container is gone whatever they do, so each gets its turn: runtime.md, "Lifecycle".
    pub fn poststop(&self, hooks: &Hooks) {
        for hook in &hooks.poststop {
            if let Err(error) = self.run(std::slice::from_ref(hook), Status::Stopped, None, None) {
                log::warning(&format!("{}: {error:#}", self.id));
            }
        }
    }

    fn run(&self, hooks: &[Hook], status: Status, pid: Option<i32>, directory: Option<&OwnedFd>) -> Result<()> {
        if hooks.is_empty() {
            return Ok(());
        }
        let surroundings = Surroundings {
            state: &hooks::state(self.id, status.word(), pid, self.bundle, self.annotations)?,
            environment: &seal::callers_environment()?,
            directory: directory.map(AsFd::as_fd),
            stop: self.stop,
            side: Side::Runtime,
            outputs: self.outputs,
        };
        run_all(hooks, &surroundings)
    }
}

/// What `hooks` write to. Without any there is nothing to be opened.
pub fn outputs<'a>(hooks: impl IntoIterator<Item = &'a Hook>, paths: &OutputPaths) -> Result<Outputs> {
    match hooks.into_iter().next() {
        Some(_) => Outputs::open(paths),
        None => Ok(Outputs::NONE),
    }
}

/// From the config that was recorded, since the bundle may be gone. It is read only if there are hooks of these kinds.
pub fn recorded(directory: &Directory, state: &State, kinds: &[&str]) -> Result<Hooks> {
    if !state.hooks.iter().any(|kind| kinds.contains(&kind.as_str())) {
        return Ok(Hooks::default());
    }
    let config = directory.read_config()?.context("config.json: missing from the record, and with it the hooks")?;
    hooks::plan(&Spec::parse(&config)?)
}
