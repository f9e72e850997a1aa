//! Processes and threads.

use anyhow::Result;
use serde::Serialize;

use super::{Source, is_zero};

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    /// Left out where there is none.
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

pub fn pids(source: &Source) -> Result<Pids> {
    let Some(current) = source.number("pids.current")? else {
        // a cgroup of v2 without the controller still lists who is in it
        let listed = source.read("cgroup.threads")?.unwrap_or_default();
        return Ok(Pids { current: listed.lines().count() as u64, limit: 0 });
    };
    let limit = source.number("pids.max")?.filter(|limit| *limit != u64::MAX);
    Ok(Pids { current, limit: limit.unwrap_or_default() })
}
