//! A bundle on disk → everything decided: config.json read once, the rootfs found, the plan and the cgroups' plan made.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use nix::errno::Errno;

use super::given_file::{Pipes, read_whole};
use crate::cgroup::{self, CgroupPlan};
use crate::error::{Doing, SysError};
use crate::host::Host;
use crate::plan::build::Options;
use crate::plan::cgroup_paths;
use crate::plan::problems;
use crate::plan::spec::document::is_within;
use crate::plan::spec::{Lenient, Spec};
use crate::plan::spec::resources::Resources;
use crate::plan::{Descriptors, Plan};

/// How the container is to be run, as far as the plan depends on it.
#[derive(Default)]
pub struct Manner {
    pub no_pivot: bool,
    pub detached: bool,
    pub console_socket: bool,
    pub descriptors: Descriptors,
    pub no_new_keyring: bool,
    pub notify: Option<PathBuf>,
}

pub struct Decided {
    pub plan: Plan,
    pub cgroup: CgroupPlan,
    /// The bytes of config.json.
    pub config: Vec<u8>,
}

/// What is wrong with it is told by its first problem.
pub fn decide(id: &str, bundle: &Path, config: Option<&Path>, manner: Manner) -> Result<Decided> {
    let bundle = open(bundle)?;
    let config = read_config(&config.map_or_else(|| bundle.join("config.json"), Path::to_path_buf))?;
    let spec = Spec::parse(&config)?;
    let host = detect()?;
    let rootfs = find_rootfs(&bundle, &spec)?;
    let first = |error| problems::all(error).swap_remove(0);
    let options = options(id, &bundle, &rootfs, manner);
    let plan = Plan::build(&spec, &options, &host).map_err(first)?;
    let cgroup = cgroups(id, &spec, &plan, &host).map_err(first)?;
    Ok(Decided { plan, cgroup, config })
}

/// What was found out about a bundle.
pub struct Examined {
    pub bundle: PathBuf,
    /// Without what something is wrong with.
    pub plan: Plan,
    pub cgroup: Option<CgroupPlan>,
    pub problems: Vec<anyhow::Error>,
    /// Fields that have a value of a wrong type: that something is missing there is no problem of its own.
    lost: Vec<String>,
    /// There is a rootfs to look into.
    pub has_rootfs: bool,
}

/// As `decide`, and tells all of the problems. An error is one that hides all others.
pub fn examine(id: &str, bundle: &Path, config: Option<&Path>, manner: Manner) -> Result<Examined> {
    let bundle = open(bundle)?;
    let config = read_config(&config.map_or_else(|| bundle.join("config.json"), Path::to_path_buf))?;
    let Lenient { value: spec, faults, lost } = Spec::parse_leniently(&config)?;
    let host = detect()?;
    let problems = faults.into_iter().map(|fault| fault.context("config.json")).collect();
    let rootfs = find_rootfs(&bundle, &spec);
    let options = options(id, &bundle, rootfs.as_deref().unwrap_or(&bundle), manner);
    let (plan, wrong) = Plan::draft(&spec, &options, &host);
    let cgroup = cgroups(id, &spec, &plan, &host);
    let has_rootfs = rootfs.is_ok();
    let mut examined = Examined { bundle, plan, cgroup: None, problems, lost, has_rootfs };
    examined.note(rootfs);
    examined.note(wrong);
    examined.cgroup = examined.note(cgroup);
    Ok(examined)
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

fn detect() -> Result<Host> {
    let host = Host::detect()?;
    host.cgroups.require_any()?;
    Ok(host)
}

fn options(id: &str, bundle: &Path, rootfs: &Path, manner: Manner) -> Options {
    Options {
        id: id.to_string(),
        rootfs: rootfs.to_path_buf(),
        bundle: bundle.to_path_buf(),
        no_pivot: manner.no_pivot,
        detached: manner.detached,
        console_socket: manner.console_socket,
        descriptors: manner.descriptors,
        no_new_keyring: manner.no_new_keyring,
        notify: manner.notify,
    }
}

fn cgroups(id: &str, spec: &Spec, plan: &Plan, host: &Host) -> Result<CgroupPlan> {
    let absent = Resources::default();
    let resources = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()).unwrap_or(&absent);
    let mut cgroup = cgroup::plan(id, plan.cgroups_path.as_deref(), resources, &host.cgroups).context("config.json")?;
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
