//! The program of a container that is not there: what of the plan a process outside can try, and when what it says proves
//! nothing.

use std::path::Path;

use anyhow::Error;

use crate::host::Host;
use crate::plan::id_maps::host_id;
use crate::plan::{Namespace, Plan};
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
    let may_look = !plan.rootless || process.uid == host.uid;
    if !has_rootfs || !may_look {
        process.args.clear();
    }
    seen
}

/// Where a mount covers the place, or a hook may bring the program, only the finished container can tell.
pub fn reason_to_doubt(plan: &Plan, failure: &Error) -> Option<String> {
    let text = format!("{failure:#}");
    if text.starts_with("process.scheduler") && text.contains("EPERM") {
        return Some("it depends on the container's cgroups".into());
    }
    if !text.starts_with("process.args") {
        return None;
    }
    if plan.hooks.at_create() {
        return Some("a hook may bring it".into());
    }
    let name = plan.process.args.first()?;
    let cwd = Path::new(&plan.process.cwd);
    let path = plan.process.env.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let places: Vec<InRoot> = match name.contains('/') {
        true => vec![InRoot::new(cwd.join(name))],
        false => path.into_iter().flat_map(|path| path.split(':')).map(|dir| InRoot::new(cwd.join(dir))).collect(),
    };
    let covers = |target: &InRoot| {
        places.iter().any(|place| place.as_path().starts_with(target.as_path())) || text.contains(&format!("{target}/"))
    };
    let mount = plan.mounts.iter().find(|mount| covers(&mount.target))?;
    Some(format!("what {} mounts on {} may hold it", mount.field, mount.target))
}
