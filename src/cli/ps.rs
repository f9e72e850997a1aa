//! `rrun ps`: the processes of a container, as pids or as the host's ps(1) shows them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgAction};

use super::words::Stop;
use super::{Call, Verb, id, positional, print, value};
use crate::error::Doing;
use crate::{lifecycle, log};

pub const VERB: Verb = Verb {
    stop: Stop::AfterId,
    stderr: log::Stderr::ErrorOnly,
    ..Verb::new("ps", "List the processes of a container", args, run)
};

fn args() -> Vec<Arg> {
    vec![
        value("format", "FORMAT", "table or json [default: table]").short('f'),
        id(),
        positional("OPTIONS", "What the host's ps is called with, for a table [default: -ef]")
            .action(ArgAction::Append)
            .num_args(0..),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let json = match call.text("format").as_deref() {
        None | Some("table") => false,
        Some("json") => true,
        Some(other) => bail!("invalid format option: {other} is neither table nor json"),
    };
    let pids = lifecycle::processes(&call.store()?, &call.id())?;
    print(&match () {
        () if json && pids.is_empty() => "null\n".to_string(), // as in `list`
        () if json => serde_json::to_string(&pids)? + "\n",
        () => rows_of(&host_ps(&call.words("OPTIONS"))?, &pids)?,
    })?;
    Ok(0)
}

/// All processes of the host.
fn host_ps(options: &[OsString]) -> Result<String> {
    let mut ps = Command::new("ps");
    match options {
        [] => ps.arg("-ef"),
        options => ps.args(options),
    };
    let output = ps.stdin(Stdio::null()).output().doing("execute", "ps").context("install procps, or ask for json")?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr).trim().to_string();
        let told = told.lines().next().unwrap_or("it does not say why").to_string();
        bail!("ps: {}", told.strip_prefix("error: ").unwrap_or(&told));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The header, and the lines that have one of `pids` in its column PID. Columns are counted in words, so those in front
/// of it must not hold blanks.
fn rows_of(table: &str, pids: &[i32]) -> Result<String> {
    let pids: BTreeSet<_> = pids.iter().map(i32::to_string).collect();
    let header = table.lines().next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|word| word == "PID") else {
        bail!("couldn't find PID field in ps output");
    };
    let of_ours = |line: &&str| line.split_whitespace().nth(column).is_some_and(|pid| pids.contains(pid));
    let rows = table.lines().skip(1).filter(of_ours);
    Ok(std::iter::once(header).chain(rows).flat_map(|line| [line, "\n"]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_their_column_pid() {
        let table = "UID   PID  PPID CMD\nroot    1     0 init 7\nroot    7     1 sh -c 1\nroot   17     7 x\n7     8     1 y\n";
        for (pids, want) in [
            (&[7][..], "UID   PID  PPID CMD\nroot    7     1 sh -c 1\n"),
            (&[1, 17], "UID   PID  PPID CMD\nroot    1     0 init 7\nroot   17     7 x\n"),
            (&[], "UID   PID  PPID CMD\n"),
            (&[99], "UID   PID  PPID CMD\n"),
        ] {
            assert_eq!(rows_of(table, pids).unwrap(), want, "{pids:?}");
        }
        assert_eq!(rows_of("  PID\n   70\n    7", &[7]).unwrap(), "  PID\n    7\n");
    }

    #[test]
    fn a_table_needs_its_column_pid() {
        for table in ["", "COMMAND\nsh\n", "PPID TPID\n1 2\n"] {
            let error = rows_of(table, &[1]).unwrap_err().to_string();
            assert_eq!(error, "couldn't find PID field in ps output", "{table:?}");
        }
    }
}
