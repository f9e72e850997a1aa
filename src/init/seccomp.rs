//! The seccomp filter. Nothing here may need a call once it is loaded.

use anyhow::Result;
use nix::fcntl::{FcntlArg, fcntl};

use super::Init;
use crate::error::Doing;
use crate::plan::seccomp::Filter;
use crate::protocol::Ask;
use crate::sys::seccomp;

impl Init<'_> {
    /// A listener's number is told before: afterwards no call but `read` is sure to pass, and that may have to wait for
    /// the listener's answer. The parent takes it as soon as it is there.
    pub(super) fn load_filter(&self, filter: &Filter) -> Result<()> {
        if filter.listener.is_some() {
            self.handles.channel.ask(&Ask::Listener(self.next_descriptor()?), None)?;
        }
        Ok(seccomp::load(&filter.program, filter.flags())?)
    }

    /// The number that the next descriptor gets: the lowest that is free.
    fn next_descriptor(&self) -> Result<i32> {
        let copy = fcntl(&self.handles.channel, FcntlArg::F_DUPFD_CLOEXEC(0)).doing("fcntl F_DUPFD_CLOEXEC", "")?;
        nix::unistd::close(copy).doing("close", copy)?;
        Ok(copy)
    }
}
