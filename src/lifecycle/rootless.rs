//! What an ordinary user's container goes without.

use anyhow::{Result, bail};
use nix::errno::Errno;

use crate::cgroup::CgroupPlan;
use crate::error::SysError;
use crate::log;
use crate::plan::{Namespace, Plan};
use crate::systemd;

/// By its cgroup or by its pid namespace a container is ended whole.
const LEFT_BEHIND: &str = "without a cgroup and a pid namespace of its own only init is ended with the container: what \
    it leaves behind lives on; add a pid namespace to linux.namespaces";

/// An ordinary user has the cgroups that were given to him, often none; nothing is lost where none were asked for.
pub fn forgo_cgroups(plan: &Plan, cgroup: &CgroupPlan, error: anyhow::Error) -> Result<()> {
    const ADVICE: &str =
        "let systemd delegate one (systemd-run --user --scope -p Delegate=yes rrun ...), or leave it out";
    let given = plan.cgroups_path.as_ref().map(|_| "linux.cgroupsPath");
    match cgroup.first_limit().or(given) {
        Some(field) => Err(error.context(format!("config.json: {field}: needs a cgroup of this user's own; {ADVICE}"))),
        None => {
            log::warning(&format!("the container stays in the cgroup of rrun: {error:#}"));
            if !plan.has_new(Namespace::Pid) {
                log::warning(LEFT_BEHIND);
            }
            Ok(())
        }
    }
}

/// `--cgroup-manager disabled`: the caller wants none, and looks after the container in other ways.
pub fn forgo_by_choice(plan: &Plan, cgroup: &CgroupPlan) -> Result<()> {
    if let Some(field) = cgroup.first_limit() {
        bail!("config.json: {field}: needs a cgroup, and --cgroup-manager disabled makes none; leave one of both out");
    }
    if !plan.has_new(Namespace::Pid) {
        log::warning(LEFT_BEHIND);
    }
    Ok(())
}

/// The kernel's no to someone without rights, or that of a user's own systemd.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    let refused = |sys: &SysError| matches!(sys.errno, Errno::EACCES | Errno::EPERM | Errno::EROFS);
    error.chain().any(|cause| cause.downcast_ref().is_some_and(refused) || cause.is::<systemd::Refused>())
}
