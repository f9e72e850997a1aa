//! `rrun check`: whether a bundle would run here, with everything that is in its way.

use anyhow::{Result, bail};
use clap::Arg;

use super::{Call, Verb, positional, print, switch, value};
use crate::lifecycle::{self, CheckOptions, Finding, Verdict};

pub const VERB: Verb = Verb::new("check", "Say whether a bundle would run here, and all that is in its way", args, run);

fn args() -> Vec<Arg> {
    vec![
        positional("BUNDLE", "Directory with config.json and rootfs [default: .]"),
        value("format", "FORMAT", "text or json [default: text]").short('f'),
        value("config", "FILE", "Use FILE in place of BUNDLE/config.json"),
        switch("no-pivot", "As for create"),
    ]
}

/// 1 when there is a problem, which is no failure of the command: nothing goes to stderr.
fn run(call: &Call) -> Result<u8> {
    let json = match call.text("format").as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => bail!("invalid format option: {other} is neither text nor json"),
    };
    let bundle = call.path("BUNDLE")?.unwrap_or_else(|| ".".into());
    let options = CheckOptions {
        bundle,
        config: call.path("config")?,
        no_pivot: call.is_on("no-pivot"),
        cgroup_manager: call.global.cgroup_manager(),
    };
    let verdict = lifecycle::check(&options);
    let shown = if json { serde_json::to_string_pretty(&verdict)? + "\n" } else { text(&verdict) };
    print(&shown)?;
    Ok(u8::from(!verdict.ok))
}

/// One line each, and at last what it comes to.
fn text(verdict: &Verdict) -> String {
    let line = |kind: &str, finding: &Finding| {
        let field = finding.field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default();
        let remedy = finding.remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        format!("{kind}: {field}{}{remedy}\n", finding.reason)
    };
    let problems = verdict.problems.iter().map(|finding| line("problem", finding));
    let warnings = verdict.warnings.iter().map(|finding| line("warning", finding));
    let all: String = problems.chain(warnings).collect();
    let bundle = verdict.bundle.display();
    match verdict.problems.len() {
        0 => format!("{all}ok: {bundle} would run here\n"),
        1 => format!("{all}1 problem: {bundle} would not run here\n"),
        count => format!("{all}{count} problems: {bundle} would not run here\n"),
    }
}
