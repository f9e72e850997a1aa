//! The program of a container that is not there: what of the plan a process outside can try, and when what it says proves
//! nothing.

use std::cell::Cell;
use std::path::Path;

use anyhow::Error;

use super::image::{Executable, Image};
use crate::host::Host;
use crate::init::look_up;
use crate::plan::id_maps::host_id;
use crate::plan::{MountPlan, Namespace, Plan};
use crate::rootfs::InRoot;

/// The plan for a process of the host: users by their ids there, and no more than it may try.
pub fn seen_from_outside(plan: &Plan, host: &Host, has_rootfs: bool) -> Plan {
    let mut seen = plan.clone();
    let process = &mut seen.process;
    let mapped = plan.has(Namespace::User);
    if mapped {
        let maps = plan.id_maps.as_ref();
        let outside = |ranges: Option<&[_]>, id| ranges.and_then(|ranges| host_id(ranges, id)).unwrap_or(0);
        process.uid = outside(maps.map(|maps| &maps.uids.ranges[..]), process.uid);
        process.gid = outside(maps.map(|maps| &maps.gids.ranges[..]), process.gid);
        // of groups only the first counts then
        process.additional_gids.clear();
        // those that are raised from outside are no matter of the process
        process.rlimits.clear();
        process.scheduler = None;
        process.io_priority = None;
    }
    if plan.rootless {
        // one that may not be lowered stays, with a warning
        process.oom_score_adj = None;
    }
    let may_look = !plan.rootless || process.uid == host.uid;
    if !has_rootfs || !may_look {
        process.args.clear();
    }
    seen
}

/// What the finished tree says of the program, where that can be told.
pub enum Seen {
    /// It is there; also if it is so by a mount.
    There {
        by_mount: bool,
    },
    Unfit(Error),
    Unknown,
}

pub fn seen(plan: &Plan, image: &Image) -> Seen {
    let Some(name) = plan.process.args.first() else { return Seen::Unknown };
    if plan.hooks.at_create() {
        return Seen::Unknown;
    }
    let (by_mount, unknown) = (Cell::new(covering(plan).is_some()), Cell::new(false));
    let found = look_up(name, Path::new(&plan.process.cwd), &plan.process.env, |path| match image.executable(path) {
        Executable::No(errno) => Err(errno),
        Executable::Yes => Ok(()),
        Executable::OfVolume => {
            by_mount.set(true);
            Ok(())
        }
        // here it ends: whether it is this one only the container tells
        Executable::Unknown => {
            unknown.set(true);
            Ok(())
        }
    });
    match found {
        Err(error) => Seen::Unfit(error.context("process.args")),
        Ok(_) if unknown.get() => Seen::Unknown,
        Ok(_) => Seen::There { by_mount: by_mount.get() },
    }
}

/// The first mount that the program may lie in, by its path or one that PATH has.
fn covering(plan: &Plan) -> Option<&MountPlan> {
    let name = plan.process.args.first()?;
    let cwd = Path::new(&plan.process.cwd);
    let path = plan.process.env.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let places: Vec<InRoot> = match name.contains('/') {
        true => vec![InRoot::new(cwd.join(name))],
        false => path.into_iter().flat_map(|path| path.split(':')).map(|dir| InRoot::new(cwd.join(dir))).collect(),
    };
    let covers = |mount: &&MountPlan| places.iter().any(|place| place.as_path().starts_with(mount.target.as_path()));
    plan.mounts.iter().find(covers)
}

/// Where a mount covers the place, or a hook may bring the program, only the finished container can tell.
pub fn reason_to_doubt(plan: &Plan, failure: &Error) -> Option<String> {
    let text = format!("{failure:#}");
    if text.starts_with("process.scheduler") && text.contains("EPERM") {
        return Some("it depends on the container's cgroups".into());
    }
    if !is_of_program(failure) {
        return None;
    }
    if plan.hooks.at_create() {
        return Some("a hook may bring it".into());
    }
    let named = || plan.mounts.iter().find(|mount| text.contains(&format!("{}/", mount.target)));
    let mount = covering(plan).or_else(named)?;
    Some(format!("what {} mounts on {} may hold it", mount.field, mount.target))
}

pub fn is_of_program(failure: &Error) -> bool {
    format!("{failure:#}").starts_with("process.args")
}
