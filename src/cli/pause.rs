//! `rrun pause`: freezes a container. It returns when every process is frozen.

use anyhow::Result;

use super::{Call, Verb, id};
use crate::error::Wording;
use crate::lifecycle;

pub const VERB: Verb = Verb {
    wording: Wording::Unmatched,
    ..Verb::new("pause", "Suspend all processes of a container", || vec![id()], run)
};

fn run(call: &Call) -> Result<u8> {
    lifecycle::pause(&call.store()?, &call.id())?;
    Ok(0)
}
