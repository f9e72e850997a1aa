//! `--regex` of `kill` and `delete`, which crun has: the word in the id's place is an expression, and all containers whose
//! id matches it are meant. It does not know what is done to them.

use anyhow::{Context, Result, ensure};
use clap::Arg;
use regex_lite::Regex;

use super::{Call, switch};
use crate::error::{self, Matched};
use crate::lifecycle;
use crate::log;

pub const REGEX: &str = "regex";

pub fn flag() -> Arg {
    switch(REGEX, "ID is a regular expression: all whose id matches it").short('r')
}

/// On the one container that is named, or on all that match, one after another. One that fails keeps the others from
/// nothing, and is told as if it had been named alone.
pub fn each(call: &Call, act: impl Fn(&str) -> Result<()>) -> Result<u8> {
    if !call.is_on(REGEX) {
        return act(&call.id()).map(|()| 0);
    }
    let mut status = 0;
    let expression = expression(&call.id())?;
    for id in lifecycle::matching(&call.store()?, |id| expression.is_match(id))? {
        match act(&id).with_context(|| call.title_with(&id)) {
            // gone meanwhile: it matches nothing any more
            Err(error) if error.downcast_ref() == Some(&Matched::DoesNotExist) => {}
            Err(error) => {
                log::error(&error::line(&error, call.verb.wording));
                status = 1;
            }
            Ok(()) => {}
        }
    }
    Ok(status)
}

/// An empty one would mean every container, by an empty variable of a script.
fn expression(text: &str) -> Result<Regex> {
    ensure!(!text.is_empty(), "--regex: the expression is empty; write .* if all containers are meant");
    Regex::new(text).with_context(|| format!("--regex: {text} is no regular expression"))
}
