//! `rrun start`: the program of a created container begins.

use anyhow::Result;

use super::{Call, Verb, id, later};
use crate::lifecycle;

pub const VERB: Verb = Verb::new("start", "Start a created container", || vec![id()], run);

fn run(call: &Call) -> Result<u8> {
    later::refuse_notify_socket()?;
    lifecycle::start(&call.store()?, &call.id())?;
    Ok(0)
}
