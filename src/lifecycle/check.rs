//! `check`: whether a bundle would run here, and if not why: all there is to say, and nothing made. The plan is that of
//! `create`, kept where it can be after a problem; then the host is looked at, and what only trying tells is tried by a
//! process that is none of a container's (`launch::probe`). A problem is what `create` would refuse.

use std::path::PathBuf;

use anyhow::{Context, Error, Result};
use serde::Serialize;

use super::bring_up::NOTHING_TO_START;
use super::bundle::{Examined, Manner, examine};
use crate::cgroup;
use crate::error::{self, Wording};
use crate::launch::{joined, probe};
use crate::plan::unit::CgroupManager;

mod host;
mod image;
mod mounts;
mod program;

/// What is to be said of a bundle.
#[derive(Debug, Serialize)]
pub struct Verdict {
    pub bundle: PathBuf,
    /// It would run; also with warnings.
    pub ok: bool,
    pub problems: Vec<Finding>,
    /// What is left out or cannot be told beforehand.
    pub warnings: Vec<Finding>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Of config.json (`mounts[3].source`), or what else is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub reason: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

pub fn check(options: &CheckOptions) -> Verdict {
    // As `run` in the foreground would: a terminal needs no socket there.
    let manner = Manner { no_pivot: options.no_pivot, cgroup_manager: options.cgroup_manager, ..Manner::default() };
    let examined = examine(ID, &options.bundle, options.config.as_deref(), &manner);
    let (problems, warnings, bundle) = match examined {
        Ok(mut examined) => {
            let mut warnings = look_around(&mut examined);
            warnings.extend(examined.plan.warnings.iter().cloned());
            warnings.extend(examined.cgroup.iter().flat_map(|cgroup| cgroup.warnings.clone()));
            (examined.problems, warnings, examined.bundle)
        }
        Err(error) => (vec![error], Vec::new(), options.bundle.clone()),
    };
    let problems: Vec<_> = problems.iter().map(Finding::of_problem).collect();
    let warnings = warnings.iter().map(|warning| Finding::new(warning, None)).collect();
    Verdict { bundle, ok: problems.is_empty(), problems, warnings }
}

#[derive(Debug, Clone)]
pub struct CheckOptions {
    pub bundle: PathBuf,
    /// Another file in place of BUNDLE/config.json.
    pub config: Option<PathBuf>,
    pub no_pivot: bool,
    pub cgroup_manager: CgroupManager,
}

const FILE: &str = "config.json";

/// What a container is called that there will not be.
const ID: &str = "check";

/// Adds the problems with this host, and gives what cannot be told.
fn look_around(examined: &mut Examined) -> Vec<String> {
    let mut warnings = Vec::new();
    // arguments that are wrong are missing too, and told by then
    if examined.plan.process.is_absent() && examined.problems.is_empty() {
        warnings.push(NOTHING_TO_START.to_string());
    }
    let of_config = |result: Result<()>| result.context(FILE);
    let plan = examined.plan.clone();
    if let Some(joined) = examined.note(joined::open(&plan).context(FILE)) {
        examined.note(of_config(host::joined_sysctls(&plan, &joined)));
    }
    examined.note(of_config(host::refuse_lacking(&plan, &mut warnings)));
    if let Some(cgroup) = &examined.cgroup {
        let impossible = cgroup::refuse_impossible(cgroup);
        let occupied = cgroup::refuse_occupied(cgroup, None).context("linux.cgroupsPath");
        examined.note(of_config(impossible));
        examined.note(of_config(occupied));
    }
    let image = mounts::refuse_impossible(&plan, examined.has_rootfs).context(FILE);
    let image = examined.note(image).flatten();
    let seen = image.map_or(program::Seen::Unknown, |image| program::seen(&plan, &image));
    let tried = match probe::probe(program::seen_from_outside(&plan, &examined.host, examined.has_rootfs)) {
        Ok(failures) => failures,
        Err(error) => {
            warnings.push(format!("what only trying tells could not be tried: {error:#}"));
            Vec::new()
        }
    };
    for failure in tried {
        // what tries it sees the image alone
        let is_known = matches!(seen, program::Seen::There { by_mount: true } | program::Seen::Unfit(_));
        if is_known && program::is_of_program(&failure) {
            continue;
        }
        match program::reason_to_doubt(&plan, &failure) {
            Some(doubt) => warnings.push(format!("{failure:#}: {doubt}")),
            None => drop(examined.note::<()>(Err(failure))),
        }
    }
    if let program::Seen::Unfit(error) = seen {
        examined.note::<()>(Err(error));
    }
    warnings
}

impl Finding {
    fn of_problem(problem: &Error) -> Self {
        let text = error::line(problem, Wording::Verbatim);
        let (reason, remedy) = match text.rsplit_once("; ") {
            Some((reason, remedy)) => (reason, Some(remedy)),
            None => (text.as_str(), None),
        };
        Self::new(reason, remedy)
    }

    fn new(text: &str, remedy: Option<&str>) -> Self {
        let within = text.strip_prefix(&format!("{FILE}: ")).unwrap_or(text);
        // what concerns no value of it is about the file
        let text = if within.split_once(": ").is_some_and(|(field, _)| is_field(field)) { within } else { text };
        let (field, reason) = match text.split_once(": ").filter(|(field, _)| is_field(field)) {
            Some((field, reason)) => (Some(field), reason),
            None => (None, text),
        };
        Self { field: field.map(String::from), reason: reason.into(), remedy: remedy.map(String::from) }
    }
}

/// A path of config.json, or a flag: no blanks.
fn is_field(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_field_reason_and_remedy() {
        let finding = |field: Option<&str>, reason: &str, remedy: Option<&str>| Finding {
            field: field.map(String::from),
            reason: reason.into(),
            remedy: remedy.map(String::from),
        };
        for (error, want) in [
            (
                anyhow::anyhow!("process.cwd: x is not absolute; write it from /").context("config.json"),
                finding(Some("process.cwd"), "x is not absolute", Some("write it from /")),
            ),
            (
                anyhow::anyhow!("line 3, column 11: expected value").context("config.json"),
                finding(Some("config.json"), "line 3, column 11: expected value", None),
            ),
            (
                Error::new(error::SysError::new("fsopen", "x", nix::errno::Errno::ENODEV)).context("mounts[0]"),
                finding(
                    Some("mounts[0]"),
                    "fsopen x: no such device (ENODEV)",
                    Some("this kernel has no such file system type, or its module is not loaded"),
                ),
            ),
        ] {
            assert_eq!(Finding::of_problem(&error), want);
        }
    }
}
