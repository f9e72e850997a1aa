//! `rrun list`: all containers below the root directory.

use std::fmt::Write;

use anyhow::{Result, bail};
use clap::Arg;

use super::{Call, Verb, print, switch, value};
use crate::error::Doing;
use crate::lifecycle::{self, view::StateView};
use crate::log;

pub const VERB: Verb = Verb { stderr: log::Stderr::AllWarnings, ..Verb::new("list", "List all containers", args, run) };

fn args() -> Vec<Arg> {
    vec![
        value("format", "FORMAT", "table or json [default: table]").short('f'),
        switch("quiet", "Print ids only, one a line").short('q'),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let json = match call.text("format").as_deref() {
        None | Some("table") => false,
        Some("json") => true,
        Some(other) => bail!("invalid format option: {other} is neither table nor json"),
    };
    let root = call.global.root()?;
    if root.explicit {
        // The default one appears with the first container; one that was named is expected to be there.
        std::fs::read_dir(&root.path).doing("open", root.path.display())?;
    }
    let views = lifecycle::list(&call.store()?)?;
    print(&match () {
        () if call.is_on("quiet") => views.iter().map(|view| view.id.clone() + "\n").collect(),
        () if json && views.is_empty() => "null\n".to_string(), // callers of old know an empty list as this
        () if json => serde_json::to_string(&views)? + "\n",
        () => table(&views),
    })?;
    Ok(0)
}

/// Columns at least 12 wide, with 3 blanks between them: scripts cut them at header positions.
fn table(views: &[StateView]) -> String {
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let row = |view: &StateView| {
        let bundle = view.bundle.display().to_string();
        let (pid, status) = (view.pid.to_string(), view.status.to_string());
        [view.id.clone(), pid, status, bundle, view.created.clone(), view.owner.clone()]
    };
    let rows: Vec<_> = std::iter::once(header).chain(views.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count() + 3).max().unwrap_or(0).max(12);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for [cells @ .., last] in &rows {
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, "{cell:width$}");
        }
        let _ = writeln!(text, "{last}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let view = |id: &str, pid, status, bundle: &str| StateView {
            oci_version: crate::OCI_VERSION.into(),
            id: id.into(),
            pid,
            status,
            bundle: bundle.into(),
            rootfs: "/".into(),
            created: "2026-11-21T09:59:49.000000001Z".into(),
            annotations: Default::default(),
            owner: "root".into(),
        };
        assert_eq!(table(&[]), "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n");
        assert_eq!(
            table(&[view("c1", 0, "stopped", "/b"), view("a-longer-one", 1_234_567, "running", "/a/büñdle")]),
            "ID             PID         STATUS      BUNDLE      CREATED                          OWNER\n\
             c1             0           stopped     /b          2026-11-21T09:59:49.000000001Z   root\n\
             a-longer-one   1234567     running     /a/büñdle   2026-11-21T09:59:49.000000001Z   root\n"
        );
    }
}
