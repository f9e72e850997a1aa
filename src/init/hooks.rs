//! Hooks from where the child stands: it asks for those of the runtime's namespaces and runs those of its own.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::{Mode, umask};
use nix::unistd::getpid;

use super::Init;
use crate::error::{self, Doing, Wording};
use crate::hooks::{Outputs, Side, Surroundings, run_all};
use crate::plan::hooks::{Hook, state};
use crate::protocol::{Ask, HOOKS_DONE};

impl Init<'_> {
    pub(super) fn ask_for_runtime_hooks(&mut self) -> Result<()> {
        self.handles.channel.request(&Ask::RunHooks).map(drop)
    }

    /// By a path of the runtime's namespaces, which the child still sees: it has not switched its root.
    pub(super) fn run_container_hooks(&mut self) -> Result<()> {
        // rrun's own is 0 here, for what it makes itself
        let before = umask(Mode::from_bits_truncate(0o022));
        let hooks = &self.plan()?.hooks.create_container;
        let result = self.run_hooks(hooks, "creating", &[], Some(self.rootfs()?.as_fd()));
        umask(before);
        result
    }

    /// Nobody listens to the child any more: a failure is told as that of the program is.
    pub(super) fn run_start_hooks(&mut self) -> Result<()> {
        let start = self.handles.start.as_ref().context("there is no start to run hooks at")?;
        let environment = self.program.as_ref().map_or(&[][..], |program| program.image.environment());
        if let Err(error) = self.run_hooks(&self.plan()?.hooks.start_container, "created", environment, None) {
            start.fail(Errno::ECANCELED, &error::line(&error, Wording::Verbatim));
        }
        nix::unistd::read(&start.channel, &mut [0; HOOKS_DONE]).doing("read", "start.fifo")?;
        Ok(())
    }

    fn run_hooks(
        &self,
        hooks: &[Hook],
        status: &str,
        environment: &[CString],
        directory: Option<BorrowedFd>,
    ) -> Result<()> {
        let plan = self.plan()?;
        let outputs = self.handles.start.as_ref().map_or(&Outputs::NONE, |start| &start.hook_outputs);
        let state = &state(&plan.id, status, Some(getpid().as_raw()), &plan.bundle, &plan.annotations)?;
        run_all(hooks, &Surroundings { state, environment, directory, stop: None, side: Side::Container, outputs })
    }
}
