//! `rrun resume`: undoes `pause`.

use anyhow::Result;

use super::{Call, Verb, id};
use crate::error::Wording;
use crate::lifecycle;

pub const VERB: Verb = Verb {
    wording: Wording::Unmatched,
    ..Verb::new("resume", "Let the processes of a paused container run on", || vec![id()], run)
};

fn run(call: &Call) -> Result<u8> {
    lifecycle::resume(&call.store()?, &call.id())?;
    Ok(0)
}
