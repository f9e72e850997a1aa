//! `rrun plan`: what `create` would do with a bundle, and does not do. For dry runs and bug reports.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Arg;

use super::{Call, Verb, positional, print, switch, value};
use crate::lifecycle;
use crate::plan::seccomp::calls::Family;
use crate::plan::seccomp::disassemble::disassemble;

pub const VERB: Verb = Verb::new("plan", "Print as JSON what would be done with a bundle", args, run);

fn args() -> Vec<Arg> {
    vec![
        positional("BUNDLE", "Directory with config.json and rootfs [default: .]"),
        value("id", "ID", "The id that the container would have"),
        switch("no-pivot", "As for create"),
        switch("seccomp", "Print the instructions of the seccomp filter instead"),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let bundle = call.path("BUNDLE")?;
    let bundle = bundle.as_deref().unwrap_or(Path::new("."));
    let plan =
        lifecycle::plan(bundle, call.text("id").as_deref(), call.is_on("no-pivot"), call.global.cgroup_manager())?;
    if call.is_on("seccomp") {
        let filter = plan.plan.process.seccomp.as_ref().context("linux.seccomp: missing; there is no filter")?;
        print(&disassemble(&filter.program, Family::native()))?;
        return Ok(0);
    }
    print(&(serde_json::to_string_pretty(&plan)? + "\n"))?;
    Ok(0)
}
