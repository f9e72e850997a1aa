//! process.rlimits, set by init before its credentials change.

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::Init;
use crate::error::SysError;
use crate::plan::Rlimit;
use crate::protocol::Ask;
use crate::sys::limits;

impl Init<'_> {
    /// In a user namespace nobody may raise a hard limit; a parent with root's rights can, from outside.
    pub(super) fn set_limits(&mut self) -> Result<()> {
        for limit in &self.process.rlimits {
            match limits::set(limit.resource, limit.soft, limit.hard, &limit.name) {
                Err(SysError { errno: Errno::EPERM, .. }) if self.parent_is_privileged() => {
                    self.handles.channel.request(&Ask::RaiseLimits)?;
                    return Ok(());
                }
                Err(error) => return explained(limit, error),
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

fn explained(limit: &Rlimit, error: SysError) -> Result<()> {
    let told = if error.errno == Errno::EPERM {
        let (_, hard) = limits::get(limit.resource, &limit.name)?;
        format!("hard limit {} is above the present {}", value(limit.hard), value(hard))
    } else {
        format!("soft {} hard {}", value(limit.soft), value(limit.hard))
    };
    Err(error).with_context(|| format!("{}: {told}", limit.name))
}

fn value(limit: u64) -> String {
    if limit == u64::MAX { "unlimited".into() } else { limit.to_string() }
}
