//! `rrun delete`: everything that rrun made for a container goes.

use anyhow::Result;
use clap::Arg;

use super::{Call, Verb, id, later, switch};
use crate::error::Wording;
use crate::lifecycle;

pub const VERB: Verb =
    Verb { wording: Wording::Unmatched, ..Verb::new("delete", "Remove a stopped container", args, run) };

fn args() -> Vec<Arg> {
    vec![
        id(),
        switch("force", "Kill it first if it runs; succeed if it is not there").short('f'),
        switch("regex", "Not in this version yet").short('r'),
    ]
}

fn run(call: &Call) -> Result<u8> {
    if call.is_on("regex") {
        return Err(later::flag("--regex"));
    }
    lifecycle::delete(&call.store()?, &call.id(), call.is_on("force"))?;
    Ok(0)
}
