//! A bundle on disk → everything decided: config.json read once, the rootfs found, the plan and the cgroups' plan made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use nix::errno::Errno;

use super::given_file::{Pipes, read_whole};
use super::managed::{Found, Managed};
use super::{permitted, rootless};
use crate::cgroup::{self, CgroupPlan};
use crate::error::{Doing, SysError};
use crate::hooks::Stop;
use crate::host::Host;
use crate::host::security::Security;
use crate::plan::annotations::{self, Annotated};
use crate::plan::build::Options;
use crate::plan::spec::Spec;
use crate::plan::spec::resources::Resources;
use crate::plan::unit::CgroupManager;
use crate::plan::{Descriptors, Plan, cgroup_paths, labels};
use crate::systemd::Absent;

/// How the container is to be run, as far as the plan depends on it.
#[derive(Default)]
pub struct Manner<'s> {
    pub no_pivot: bool,
    pub detached: bool,
    pub console_socket: bool,
    pub descriptors: Descriptors,
    pub no_new_keyring: bool,
    pub notify: Option<PathBuf>,
    pub cgroup_manager: CgroupManager,
    /// Who ends the wait for systemd.
    pub stop: Option<&'s dyn Stop>,
}

pub struct Decided<'s> {
    pub plan: Plan,
    pub cgroup: CgroupPlan,
    /// Where systemd owns the cgroups.
    pub managed: Option<Managed<'s>>,
    /// The bytes of config.json.
    pub config: Vec<u8>,
    pub annotated: Annotated,
}

pub fn decide<'s>(id: &str, bundle: &Path, config: Option<&Path>, manner: Manner<'s>) -> Result<Decided<'s>> {
    let bundle = bundle.canonicalize().doing("open", bundle.display()).context("--bundle")?;
    let config = read_config(&config.map_or_else(|| bundle.join("config.json"), Path::to_path_buf))?;
    let mut spec = Spec::parse(&config)?;
    let mut host = Host::detect()?;
    let annotated = annotations::apply(&mut spec, host.rootless, permitted::annotations).context("config.json")?;
    if labels::are_given(&spec) {
        host.security = Security::detect()?;
    }
    host.cgroups.require_any()?;
    let found = match manner.cgroup_manager {
        CgroupManager::Systemd => Some(Found::new(id, spec.cgroups_path(), &host, manner.stop)),
        _ => None,
    };
    let (found, absent) = match found {
        // then it is as for an ordinary user's own cgroups
        Some(Err(error)) if host.rootless && error.is::<Absent>() => (None, Some(error)),
        Some(found) => (Some(found.context("--systemd-cgroup")?), None),
        None => (None, None),
    };
    let options = Options {
        id: id.to_string(),
        rootfs: find_rootfs(&bundle, spec.root_path()?)?,
        bundle,
        no_pivot: manner.no_pivot,
        detached: manner.detached,
        console_socket: manner.console_socket,
        descriptors: manner.descriptors,
        no_new_keyring: manner.no_new_keyring,
        cgroup_of_unit: found.as_ref().map(Found::cgroup).transpose()?,
        notify: manner.notify,
    };
    let plan = Plan::build(&spec, &options, &host)?;
    let no_resources = Resources::default();
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&no_resources);
    let path = options.cgroup_of_unit.as_deref().or(plan.cgroups_path.as_deref());
    let mut cgroup = cgroup::plan(id, path, resources, &host.cgroups).context("config.json")?;
    if plan.rootless {
        cgroup.forgo_devices();
    }
    if let Some(uid) = cgroup_paths::owner(&plan) {
        cgroup.delegate_to(uid);
    }
    if let Some(error) = absent {
        rootless::forgo_cgroups(&plan, &cgroup, error)?;
        cgroup = CgroupPlan::none();
    }
    if manner.cgroup_manager == CgroupManager::Disabled {
        rootless::forgo_by_choice(&plan, &cgroup)?;
        cgroup = CgroupPlan::none();
    }
    let managed = found.map(|found| found.decide(&plan, &cgroup, &resources.devices)).transpose()?;
    Ok(Decided { plan, cgroup, managed, config, annotated })
}

fn read_config(path: &Path) -> Result<Vec<u8>> {
    match read_whole(path, Pipes::Refused) {
        Err(error) if error.downcast_ref().is_some_and(|error: &SysError| error.errno == Errno::ENOENT) => {
            let path = path.display();
            bail!("config.json: the bundle has no {path}; name a bundle with --bundle, or make one with `rrun spec`")
        }
        result => result.context("config.json"),
    }
}

fn find_rootfs(bundle: &Path, path: &str) -> Result<PathBuf> {
    let rootfs = bundle.join(path);
    let found = rootfs.canonicalize().doing("open", rootfs.display()).context("config.json: root.path")?;
    ensure!(found.is_dir(), "config.json: root.path: {} is not a folder", rootfs.display());
    Ok(found)
}
