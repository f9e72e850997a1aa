//! `rrun kill`: a signal to a container.

use anyhow::Result;
use clap::Arg;

use super::words::Stop;
use super::{Call, Verb, id, matching, positional, signals, switch};
use crate::error::Wording;
use crate::lifecycle;

pub const VERB: Verb = Verb {
    stop: Stop::AfterId,
    wording: Wording::Unmatched,
    ..Verb::new("kill", "Send a signal to a container", args, run)
};

fn args() -> Vec<Arg> {
    vec![
        id(),
        positional("SIGNAL", "Name or number of the signal [default: TERM]"),
        switch("all", "Succeed even if the container is stopped").short('a'),
        matching::flag(),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let signal = signals::number(call.text("SIGNAL").as_deref().unwrap_or("TERM"))?;
    let (store, all) = (call.store()?, call.is_on("all"));
    matching::each(call, |id| lifecycle::kill(&store, id, signal, all))
}
