//! config.json + options + facts of the host → the [`Plan`]. Puts together what the modules beside it decide; makes no
//! system call.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use caps::Capability;

use super::cgroup_paths::{self, CgroupsPath};
use super::devices::{self, Dev};
use super::hooks::{self, Hooks};
use super::id_maps::{self, IdMaps, User};
use super::intel_rdt::{self, IntelRdt};
use super::mount_ids::Container;
use super::problems::Problems;
use super::root::{self, MountsIn};
use super::spec::{Linux, Spec, given};
use super::{Descriptors, JoinPlan, MountPlan, Namespace, Plan, ProcessPlan};
use super::{annotations, labels, mounts, namespaces, net_devices, notify, process, scheduler, seccomp, sysctl, time};
use crate::error::Matched;
use crate::host::Host;
use crate::rootfs::InRoot;

/// What the command line says about the container.
#[derive(Debug, Clone)]
pub struct Options {
    pub id: String,
    /// Absolute, symlinks resolved.
    pub bundle: PathBuf,
    /// `root.path` made absolute, symlinks resolved.
    pub rootfs: PathBuf,
    pub no_pivot: bool,
    /// rrun ends before the container does: `create`, or `run --detach`.
    pub detached: bool,
    pub console_socket: bool,
    pub descriptors: Descriptors,
    pub no_new_keyring: bool,
    /// Where systemd will make the container's cgroup, absolute; `linux.cgroupsPath` names a unit then.
    pub cgroup_of_unit: Option<String>,
    /// Where the socket will be that takes the program's sd_notify(3).
    pub notify: Option<PathBuf>,
}

impl Plan {
    /// An error may be of several problems: see [`Problems`].
    pub fn build(spec: &Spec, options: &Options, host: &Host) -> Result<Plan> {
        let (plan, problems) = decide(spec, options, host);
        let mut plan = problems.result(plan).context("config.json")?;
        plan.process.keep(options.descriptors);
        if let Some(directory) = &options.notify {
            notify::add(&mut plan, directory)?;
        }
        check_terminal(plan.process.terminal.is_some(), options.detached, options.console_socket)?;
        Ok(plan)
    }

    /// Without what something is wrong with, and what that is: for whoever looks further and does nothing.
    pub fn draft(spec: &Spec, options: &Options, host: &Host) -> (Plan, Result<()>) {
        let (plan, problems) = decide(spec, options, host);
        (plan, problems.result(()).context("config.json"))
    }
}

fn decide(spec: &Spec, options: &Options, host: &Host) -> (Plan, Problems) {
    let absent = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&absent);
    let mut problems = Problems::default();
    problems.ok(check_version(given(&spec.oci_version)));
    let annotations = problems.take(annotations(&spec.annotations));
    let (namespaces, joined) = namespaces::plan(&linux.namespaces, &mut problems);
    let apart: Vec<_> = namespaces.iter().copied().chain(joined.iter().map(|join| join.kind)).collect();
    let mut draft = Draft {
        spec,
        linux,
        options,
        host,
        apart: &apart,
        user: User::of(&namespaces, &joined),
        admin: !host.rootless || host.may(Capability::CAP_SYS_ADMIN),
        problems,
        warnings: annotations::left_out(&spec.annotations, options.cgroup_of_unit.is_some()).collect(),
    };
    let id_maps = draft.id_maps(&joined);
    let mounts_in = draft.problems.ok(root::mounts_in(spec, &apart, draft.user, &options.rootfs));
    let mounts_in = mounts_in.unwrap_or(MountsIn::Nowhere);
    draft.problems.ok(CgroupsPath::new(&options.id, draft.cgroups_path()));
    let (mounts, mount_label) = draft.mounts(id_maps.as_ref());
    let bare = mounts_in == MountsIn::Nowhere || mounts::dev_is_bound(&mounts);
    let dev = if bare { Dev::Host } else { Dev::Container };
    let domainname = draft.problems.take(namespaces::uts_name("domainname", &spec.domainname, &apart));
    let process = draft.process(id_maps.as_ref(), &mounts);
    let intel_rdt = draft.intel_rdt();
    let hooks = draft.hooks(&process);
    let time_offsets = draft.problems.take(time::plan(&linux.time_offsets, &namespaces, &joined));
    draft.problems.ensure(draft.admin || draft.user == User::New || time_offsets.is_empty(), time::NEED_RIGHTS);
    let plan = Plan {
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        annotations,
        id_maps,
        rootless: host.rootless,
        admin: draft.admin,
        no_setgroups: draft.forbids_setgroups(),
        time_offsets,
        root: root::plan(spec, &options.rootfs, options.no_pivot, mounts_in, &mut draft.problems),
        hostname: draft.problems.take(namespaces::uts_name("hostname", &spec.hostname, &apart)),
        mounts,
        mount_label,
        devices: draft.problems.take(devices::plan(&linux.devices, dev, &mut draft.warnings)),
        links: devices::links(dev),
        masked_paths: draft.problems.take(paths("linux.maskedPaths", &linux.masked_paths)),
        readonly_paths: draft.problems.take(paths("linux.readonlyPaths", &linux.readonly_paths)),
        sysctls: sysctl::plan(&linux.sysctl, &apart, domainname.as_deref(), &mut draft.problems),
        domainname,
        net_devices: draft.problems.take(net_devices::plan(&linux.net_devices, &apart, draft.admin)),
        intel_rdt,
        // Last: it is checked against all that the process still does under it.
        process: draft.filtered(process, &hooks),
        hooks,
        no_new_keyring: options.no_new_keyring,
        cgroups_path: given(&linux.cgroups_path).map(String::from),
        namespaces,
        joined,
        warnings: draft.warnings,
    };
    (plan, draft.problems)
}

/// A plan in the making: what each part is decided from besides its own fields, and what was found to be wrong.
struct Draft<'a> {
    spec: &'a Spec,
    /// Empty where the config has none.
    linux: &'a Linux,
    options: &'a Options,
    host: &'a Host,
    /// Types of which the container has another namespace than rrun's, new or joined: what is in it may be changed.
    apart: &'a [Namespace],
    user: User,
    /// rrun has root's rights over the host's namespaces.
    admin: bool,
    problems: Problems,
    warnings: Vec<String>,
}

impl<'a> Draft<'a> {
    fn id_maps(&mut self, joined: &[JoinPlan]) -> Option<IdMaps> {
        self.problems.ensure(self.admin || self.user != User::Shared, NEEDS_USER_NAMESPACE);
        let maps = self.problems.take(id_maps::plan(self.linux, self.user, self.host));
        if self.user == User::New {
            self.problems.ok(refuse_joined_mounts(joined));
        }
        maps
    }

    /// Of systemd's unit, or as given.
    fn cgroups_path(&self) -> Option<&'a str> {
        self.options.cgroup_of_unit.as_deref().or(given(&self.linux.cgroups_path))
    }

    /// With the label that new file systems get.
    fn mounts(&mut self, id_maps: Option<&IdMaps>) -> (Vec<MountPlan>, Option<String>) {
        let Self { spec, linux, options, host, .. } = *self;
        let (path, own_view) = (self.cgroups_path(), self.apart.contains(&Namespace::Cgroup));
        let cgroup = || cgroup_paths::mount(&host.cgroups, &options.id, path, own_view);
        let container = Container { user: self.user, maps: id_maps, rootless: host.rootless };
        let origin = mounts::Origin { bundle: &options.bundle, rootfs: &options.rootfs };
        let mut mounts = mounts::plan(&spec.mounts, origin, &container, cgroup, &mut self.warnings, &mut self.problems);
        let label = self.problems.take(labels::of_mounts(linux, host.security, &mut self.warnings));
        if let Some(label) = &label
            && let Some(option) = self.problems.ok(labels::option(linux))
        {
            labels::label(&mut mounts, label, option, self.user != User::Shared || host.rootless);
        }
        (mounts, label)
    }

    /// Without its seccomp filter, which is checked against all the rest.
    fn process(&mut self, id_maps: Option<&IdMaps>, mounts: &[MountPlan]) -> ProcessPlan {
        let inside = self.host_from_inside();
        let mut process = match &self.spec.process {
            Some(process) => process::draft(process, &inside, &mut self.warnings, &mut self.problems),
            None => process::absent(id_maps, &inside),
        };
        self.problems.ok(process.take_over(self.linux));
        let possible = process.additional_gids.is_empty() || !self.forbids_setgroups();
        self.problems.ensure(possible, id_maps::NO_GROUPS);
        if let Some(maps) = id_maps.filter(|_| self.user == User::New) {
            let checked = id_maps::check_process(&maps.uids.ranges, &maps.gids.ranges, maps.setgroups, &process);
            self.problems.ok(checked);
            self.problems.ok(id_maps::check_mounts(maps, mounts, self.apart));
        }
        process
    }

    fn forbids_setgroups(&self) -> bool {
        self.user == User::Shared && self.host.no_setgroups
    }

    /// The host as a process in the container's user namespace finds it: there it has every capability at first.
    fn host_from_inside(&self) -> Cow<'a, Host> {
        match self.user {
            User::Shared => Cow::Borrowed(self.host),
            User::New | User::Joined => Cow::Owned(Host { capabilities: u64::MAX, ..self.host.clone() }),
        }
    }

    fn intel_rdt(&mut self) -> Option<IntelRdt> {
        let written = self.linux.intel_rdt.as_ref()?;
        self.problems.ok(intel_rdt::plan(written, &self.options.id, self.host.rootless, &mut self.warnings))
    }

    fn hooks(&mut self, process: &ProcessPlan) -> Hooks {
        let hooks = hooks::draft(self.spec, &mut self.problems);
        if !hooks.start_container.is_empty() {
            self.problems.ok(scheduler::check_start_hooks(process, self.user != User::Shared));
        }
        hooks
    }

    fn filtered(&mut self, mut process: ProcessPlan, hooks: &Hooks) -> ProcessPlan {
        if let Some(written) = &self.linux.seccomp {
            let start_hooks = !hooks.start_container.is_empty();
            self.problems.ok(seccomp::add(&mut process, written, start_hooks, &mut self.warnings));
        }
        if let Some(filter) = process.seccomp.as_mut().filter(|_| self.host.rootless) {
            filter.serve_user();
        }
        process
    }
}

/// Namespaces take root's rights, or a user namespace in which one has them.
const NEEDS_USER_NAMESPACE: &str = "linux.namespaces: without root's rights a container needs a user namespace; add one \
    with linux.uidMappings and linux.gidMappings, as `rrun spec --rootless` does, or run rrun as root";

/// It takes rights where that namespace comes from, which nobody in a new user namespace has.
fn refuse_joined_mounts(joined: &[JoinPlan]) -> Result<()> {
    match joined.iter().find(|join| join.kind == Namespace::Mount) {
        Some(join) => {
            bail!("{}: a mount namespace cannot be joined from a new user namespace; make both new", join.field)
        }
        None => Ok(()),
    }
}

fn annotations(annotations: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    ensure!(!annotations.contains_key(""), "annotations: a key is empty; name it or remove it");
    Ok(annotations.clone())
}

/// Semver with major 1: a minor one adds fields, and unknown fields are ignored.
fn check_version(version: Option<&str>) -> Result<()> {
    let version = version.context("ociVersion: missing; add the version of the spec, such as 1.3.0")?;
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let suffix = &version[core.len()..];
    let numbers: Vec<&str> = core.split('.').collect();
    let number = |part: &&str| !part.is_empty() && part.len() < 10 && part.bytes().all(|b| b.is_ascii_digit());
    let tail = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
    ensure!(
        numbers.len() == 3 && numbers.iter().all(number) && suffix.len() != 1 && suffix.bytes().all(tail),
        "ociVersion: {version} is no version; write MAJOR.MINOR.PATCH"
    );
    ensure!(numbers[0] == "1", "ociVersion: {version} is not supported; rrun knows 1.x");
    Ok(())
}

/// Each once, in the order given.
fn paths(field: &str, paths: &[String]) -> Result<Vec<InRoot>> {
    let one = |(index, path): (usize, &String)| {
        ensure!(!path.is_empty(), "{field}[{index}]: is empty; write an absolute path or remove it");
        ensure!(path.starts_with('/'), "{field}[{index}]: {path} is not absolute; write it from /");
        let inside = InRoot::new(path);
        ensure!(!inside.is_root(), "{field}[{index}]: {path} is the root itself");
        Ok(inside)
    };
    let mut problems = Problems::default();
    let mut planned = problems.each(paths.iter().enumerate().map(one));
    let mut seen = BTreeSet::new();
    planned.retain(|inside| seen.insert(inside.clone()));
    problems.result(planned)
}

/// A terminal whose user ends before the container must be handed to somebody; any other stays with rrun.
pub fn check_terminal(terminal: bool, detached: bool, console_socket: bool) -> Result<()> {
    match (terminal && detached, console_socket) {
        (true, false) => Err(Matched::TtyWithoutConsoleSocket.into()),
        (false, true) => Err(Matched::ConsoleSocketWithoutTty.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
