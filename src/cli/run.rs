//! `rrun run`: create and start in one; in the foreground the exit status is the container's.

use anyhow::Result;
use clap::Arg;

use super::{Call, Verb, create, switch};
use crate::lifecycle::{self, RunOptions};

pub const VERB: Verb = Verb::new("run", "Make a container from a bundle and start it", args, run);

fn args() -> Vec<Arg> {
    let mut args = create::shared_args();
    args.extend([
        switch("detach", "Leave the container running in the background").short('d'),
        switch("keep", "Keep the stopped container until it is deleted"),
        switch("no-subreaper", "Do not adopt the container's orphans"),
    ]);
    args
}

fn run(call: &Call) -> Result<u8> {
    let options = RunOptions {
        create: create::options(call)?,
        detach: call.is_on("detach"),
        keep: call.is_on("keep"),
        no_subreaper: call.is_on("no-subreaper"),
    };
    call.global.root()?.keep_from_cleaning()?;
    let status = lifecycle::run(&call.store()?, &options)?;
    Ok(u8::try_from(status).unwrap_or(u8::MAX))
}
