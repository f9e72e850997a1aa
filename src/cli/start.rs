//! `rrun start`: the program of a created container begins.

use anyhow::Result;

use super::{Call, Verb, id, notify_socket};
use crate::lifecycle;

pub const VERB: Verb = Verb::new("start", "Start a created container", || vec![id()], run);

fn run(call: &Call) -> Result<u8> {
    lifecycle::start(&call.store()?, &call.id(), notify_socket().as_deref())?;
    Ok(0)
}
