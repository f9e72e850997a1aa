//! `rrun state`: one container as JSON. Callers read stdout and stderr as one, so nothing else is printed.

use anyhow::Result;

use super::{Call, Verb, id, print_json};
use crate::lifecycle;
use crate::log;

pub const VERB: Verb = Verb {
    stderr: log::Stderr::ErrorOnly,
    ..Verb::new("state", "Print the state of a container as JSON", || vec![id()], run)
};

fn run(call: &Call) -> Result<u8> {
    let view = lifecycle::state(&call.store()?, &call.id())?;
    print_json(serde_json::to_string_pretty(&view)?)?;
    Ok(0)
}
