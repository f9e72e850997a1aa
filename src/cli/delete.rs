//! `rrun delete`: everything that rrun made for a container goes.

use anyhow::Result;
use clap::Arg;

use super::{Call, Verb, id, matching, switch};
use crate::error::Wording;
use crate::lifecycle;

pub const VERB: Verb =
    Verb { wording: Wording::Unmatched, ..Verb::new("delete", "Remove a stopped container", args, run) };

fn args() -> Vec<Arg> {
    vec![id(), switch("force", "Kill it first if it runs; succeed if it is not there").short('f'), matching::flag()]
}

fn run(call: &Call) -> Result<u8> {
    let (store, force) = (call.store()?, call.is_on("force"));
    matching::each(call, |id| lifecycle::delete(&store, id, force))
}
