//! process.rlimits, set by init before its credentials change.

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::Init;
use crate::plan::Rlimit;
use crate::sys::limits;

impl Init<'_> {
    pub(super) fn set_limits(&mut self) -> Result<()> {
        self.process.rlimits.iter().try_for_each(set)
    }
}

fn set(limit: &Rlimit) -> Result<()> {
    let Err(error) = limits::set(limit.resource, limit.soft, limit.hard, &limit.name) else { return Ok(()) };
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
