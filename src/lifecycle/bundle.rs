//! A bundle on disk → everything decided: config.json read once, the rootfs found, the plan and the cgroups' plan made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use nix::errno::Errno;

use super::Store;
use super::container::Container;
use super::given_file::{Pipes, read_whole};
use super::managed::{self, Found, Managed};
use super::{permitted, rootless};
use crate::cgroup::{self, CgroupPlan};
use crate::error::{Doing, SysError};
use crate::hooks::Stop;
use crate::host::Host;
use crate::host::security::Security;
use crate::plan::annotations::{self, Annotated};
use crate::plan::build::Options;
use crate::plan::problems;
use crate::plan::spec::document::is_within;
use crate::plan::spec::resources::Resources;
use crate::plan::spec::{Lenient, Spec};
use crate::plan::unit::CgroupManager;
use crate::plan::{Descriptors, Plan, cgroup_paths, labels};
use crate::state::directory::Directory;
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

/// What is wrong with it is told by its first problem.
pub fn decide<'s>(id: &str, bundle: &Path, config: Option<&Path>, manner: Manner<'s>) -> Result<Decided<'s>> {
    let bundle = open(bundle)?;
    let config = read_config(&config.map_or_else(|| bundle.join("config.json"), Path::to_path_buf))?;
    let mut spec = Spec::parse(&config)?;
    let (host, annotated) = detect(&mut spec)?;
    let annotated = annotated?;
    let (found, absent) = manager(id, &spec, &host, &manner)?;
    let rootfs = find_rootfs(&bundle, &spec)?;
    let first = |error| problems::all(error).swap_remove(0);
    let options = options(id, &bundle, &rootfs, &manner, found.as_ref())?;
    let plan = Plan::build(&spec, &options, &host).map_err(first)?;
    let resources = Resources::default();
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&resources);
    let mut cgroup = cgroups(&options, resources, &plan, &host).map_err(first)?;
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

/// The plan that a container was made by, from its record. Of its cgroups it has the names alone.
pub fn recorded(store: &Store, container: &Container) -> Result<Plan> {
    let (directory, state) = (&container.directory, &container.state);
    let config = directory.read_config()?.context("config.json: missing from the record")?;
    let options = Options {
        id: state.id.clone(),
        rootfs: state.rootfs.clone(),
        bundle: state.bundle.clone(),
        no_pivot: false,
        detached: false,
        console_socket: false,
        descriptors: Descriptors::default(),
        no_new_keyring: state.no_new_keyring,
        // of a unit only systemd knows the path
        cgroup_of_unit: state.unit.as_ref().map(|_| "/unit".into()),
        notify: directory.notify_directory()?.map(|_| Directory::notify_path(&store.root, &state.id)),
    };
    let mut spec = Spec::parse(&config)?;
    // what annotations have added was permitted when it was made, and matters to its processes alone
    let (host, _) = detect(&mut spec)?;
    Plan::build(&spec, &options, &host).context("the record")
}

/// What was found out about a bundle.
pub struct Examined {
    pub bundle: PathBuf,
    /// Without what something is wrong with.
    pub plan: Plan,
    pub cgroup: Option<CgroupPlan>,
    pub host: Host,
    pub problems: Vec<anyhow::Error>,
    /// Fields that have a value of a wrong type: that something is missing there is no problem of its own.
    lost: Vec<String>,
    /// There is a rootfs to look into.
    pub has_rootfs: bool,
}

/// As `decide`, and tells all of the problems. An error is one that hides all others. Systemd is not asked: of the unit
/// only its name is looked at.
pub fn examine(id: &str, bundle: &Path, config: Option<&Path>, manner: &Manner) -> Result<Examined> {
    let bundle = open(bundle)?;
    let config = read_config(&config.map_or_else(|| bundle.join("config.json"), Path::to_path_buf))?;
    let Lenient { value: mut spec, faults, lost } = Spec::parse_leniently(&config)?;
    let (host, annotated) = detect(&mut spec)?;
    let problems = faults.into_iter().map(|fault| fault.context("config.json")).collect();
    let rootfs = find_rootfs(&bundle, &spec);
    let mut options = options(id, &bundle, rootfs.as_deref().unwrap_or(&bundle), manner, None)?;
    let unit = match manner.cgroup_manager {
        CgroupManager::Systemd => unit_cgroup(id, &spec, &host).map(Some).context("config.json"),
        _ => Ok(None),
    };
    options.cgroup_of_unit = unit.as_ref().ok().cloned().flatten();
    let (plan, wrong) = Plan::draft(&spec, &options, &host);
    let resources = Resources::default();
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&resources);
    let cgroup = match manner.cgroup_manager {
        CgroupManager::Systemd if unit.is_err() => Ok(CgroupPlan::none()),
        _ => cgroups(&options, resources, &plan, &host),
    };
    let has_rootfs = rootfs.is_ok();
    let mut examined = Examined { bundle, plan, cgroup: None, host, problems, lost, has_rootfs };
    examined.note(annotated);
    examined.note(rootfs);
    examined.note(unit);
    examined.note(wrong);
    examined.cgroup = examined.note(cgroup);
    Ok(examined)
}

/// As if systemd's own cgroup were the topmost.
fn unit_cgroup(id: &str, spec: &Spec, host: &Host) -> Result<String> {
    let cgroup = managed::unit(id, spec, host.rootless)?.cgroup()?;
    Ok(format!("/{}", cgroup.display()))
}

impl Examined {
    /// Each problem once.
    pub fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        let error = match result {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        for error in problems::all(error) {
            let text = format!("{error:#}");
            let field = text.strip_prefix("config.json: ").unwrap_or(&text);
            let told = self.lost.iter().any(|lost| is_within(field, lost))
                || self.problems.iter().any(|other| format!("{other:#}") == text);
            if !told {
                self.problems.push(error);
            }
        }
        None
    }
}

fn open(bundle: &Path) -> Result<PathBuf> {
    bundle.canonicalize().doing("open", bundle.display()).context("--bundle")
}

/// The host, and what the annotations have made of the config.
fn detect(spec: &mut Spec) -> Result<(Host, Result<Annotated>)> {
    let mut host = Host::detect()?;
    let annotated = annotations::apply(spec, host.rootless, permitted::annotations).context("config.json");
    if labels::are_given(spec) {
        host.security = Security::detect()?;
    }
    host.cgroups.require_any()?;
    Ok((host, annotated))
}

/// The systemd that is to own the cgroups, or why there is none and it does not matter.
fn manager<'s>(
    id: &str,
    spec: &Spec,
    host: &Host,
    manner: &Manner<'s>,
) -> Result<(Option<Found<'s>>, Option<anyhow::Error>)> {
    if manner.cgroup_manager != CgroupManager::Systemd {
        return Ok((None, None));
    }
    match Found::new(id, spec, host, manner.stop) {
        // then it is as for an ordinary user's own cgroups
        Err(error) if host.rootless && error.is::<Absent>() => Ok((None, Some(error))),
        found => Ok((Some(found.context("--systemd-cgroup")?), None)),
    }
}

fn options(id: &str, bundle: &Path, rootfs: &Path, manner: &Manner, found: Option<&Found>) -> Result<Options> {
    Ok(Options {
        id: id.to_string(),
        rootfs: rootfs.to_path_buf(),
        bundle: bundle.to_path_buf(),
        no_pivot: manner.no_pivot,
        detached: manner.detached,
        console_socket: manner.console_socket,
        descriptors: manner.descriptors,
        no_new_keyring: manner.no_new_keyring,
        cgroup_of_unit: found.map(Found::cgroup).transpose()?,
        notify: manner.notify.clone(),
    })
}

fn cgroups(options: &Options, resources: &Resources, plan: &Plan, host: &Host) -> Result<CgroupPlan> {
    let path = options.cgroup_of_unit.as_deref().or(plan.cgroups_path.as_deref());
    let mut cgroup = cgroup::plan(&options.id, path, resources, &host.cgroups).context("config.json")?;
    cgroup.in_subgroup = options.cgroup_of_unit.is_some() && annotations::subgroup(&plan.annotations).is_some();
    if plan.rootless {
        cgroup.forgo_devices();
    }
    if let Some(uid) = cgroup_paths::owner(plan) {
        cgroup.delegate_to(uid);
    }
    Ok(cgroup)
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

fn find_rootfs(bundle: &Path, spec: &Spec) -> Result<PathBuf> {
    let rootfs = bundle.join(spec.root_path()?);
    let found = rootfs.canonicalize().doing("open", rootfs.display()).context("config.json: root.path")?;
    ensure!(found.is_dir(), "config.json: root.path: {} is not a folder", rootfs.display());
    Ok(found)
}
