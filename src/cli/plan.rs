//! `rrun plan`: what `create` would do with a bundle, and does not do. For dry runs and bug reports.

use std::path::Path;

use anyhow::Result;
use clap::Arg;

use super::{Call, Verb, positional, print, switch, value};
use crate::lifecycle;

pub const VERB: Verb = Verb::new("plan", "Print as JSON what would be done with a bundle", args, run);

fn args() -> Vec<Arg> {
    vec![
        positional("BUNDLE", "Directory with config.json and rootfs [default: .]"),
        value("id", "ID", "The id that the container would have"),
        switch("no-pivot", "As for create"),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let bundle = call.path("BUNDLE")?;
    let bundle = bundle.as_deref().unwrap_or(Path::new("."));
    let plan = lifecycle::plan(bundle, call.text("id").as_deref(), call.is_on("no-pivot"))?;
    print(&(serde_json::to_string_pretty(&plan)? + "\n"))?;
    Ok(0)
}
