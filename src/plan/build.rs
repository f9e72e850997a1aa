//! config.json + options + facts of the host → the [`Plan`]. Puts together what the modules beside it decide; makes no
//! system call.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use caps::Capability;

use super::cgroup_paths::{self, CgroupsPath};
use super::devices::{self, Dev};
use super::id_maps::{self, User};
use super::mount_ids::Container;
use super::problems::Problems;
use super::spec::{Linux, Spec, given};
use super::{CgroupMount, Descriptors, JoinPlan, Namespace, Plan, Propagation, PropagationKind, RootPlan, RootSwitch};
use super::{
    annotations, hooks, intel_rdt, labels, mount_options, mounts, namespaces, net_devices, notify, process, scheduler,
    seccomp,
};
use super::{sysctl, time};
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
    let mut problems = Problems::default();
    let mut warnings: Vec<String> = annotations::left_out(&spec.annotations).collect();
    problems.ok(check_version(given(&spec.oci_version)));
    let annotations = problems.take(annotations(&spec.annotations));
    let absent = Linux::default();
    let linux = spec.linux.as_ref().unwrap_or(&absent);
    let (namespaces, joined) = namespaces::plan(&linux.namespaces, &mut problems);
    // Whatever is not rrun's own: it may be changed, and mounted in.
    let apart: Vec<_> = namespaces.iter().copied().chain(joined.iter().map(|join| join.kind)).collect();
    let user = match (namespaces.contains(&Namespace::User), apart.contains(&Namespace::User)) {
        (true, _) => User::New,
        (false, true) => User::Joined,
        (false, false) => User::Shared,
    };
    let admin = !host.rootless || host.may(Capability::CAP_SYS_ADMIN);
    problems.ensure(admin || user != User::Shared, NEEDS_USER_NAMESPACE);
    let id_maps = problems.take(id_maps::plan(linux, user, host));
    if user == User::New {
        problems.ok(refuse_joined_mounts(&joined));
    }
    let own_mounts = apart.contains(&Namespace::Mount);
    // In the host's they can be made by root alone, and taken away again.
    let mounting = !own_mounts && problems.ok(mounts_in_hosts(spec, linux, options, user)).is_some_and(|some| some);
    let cgroups_path = given(&linux.cgroups_path);
    problems.ok(CgroupsPath::new(&options.id, options.cgroup_of_unit.as_deref().or(cgroups_path)));
    let cgroup = || cgroup_mount(linux, options, host, &apart);
    let container = Container { user, maps: id_maps.as_ref(), rootless: host.rootless };
    let origin = mounts::Origin { bundle: &options.bundle, rootfs: &options.rootfs };
    let mut mounts = mounts::plan(&spec.mounts, origin, &container, cgroup, &mut warnings, &mut problems);
    let mount_label = problems.take(labels::of_mounts(linux, host.security, &mut warnings));
    if let Some(label) = &mount_label
        && let Some(option) = problems.ok(labels::option(linux))
    {
        labels::label(&mut mounts, label, option, user != User::Shared || host.rootless);
    }
    let dev = if !(own_mounts || mounting) || mounts::dev_is_bound(&mounts) { Dev::Host } else { Dev::Container };
    let domainname = problems.take(namespaces::uts_name("domainname", &spec.domainname, &apart));
    let inside = inside_of(host, user);
    let mut process = match &spec.process {
        Some(process) => process::draft(process, &inside, &mut warnings, &mut problems),
        None => process::absent(id_maps.as_ref(), &inside),
    };
    problems.ok(process.take_over(linux));
    let no_setgroups = user == User::Shared && host.no_setgroups;
    problems.ensure(!no_setgroups || process.additional_gids.is_empty(), id_maps::NO_GROUPS);
    if let Some(maps) = id_maps.as_ref().filter(|_| user == User::New) {
        problems.ok(id_maps::check_process(&maps.uids.ranges, &maps.gids.ranges, maps.setgroups, &process));
        problems.ok(id_maps::check_mounts(maps, &mounts, &apart));
    }
    let intel_rdt = |written| intel_rdt::plan(written, &options.id, host.rootless, &mut warnings);
    let intel_rdt = problems.take(linux.intel_rdt.as_ref().map(intel_rdt).transpose());
    let hooks = hooks::draft(spec, &mut problems);
    if !hooks.start_container.is_empty() {
        problems.ok(scheduler::check_start_hooks(&process, user != User::Shared));
    }
    let time_offsets = problems.take(time::plan(&linux.time_offsets, &namespaces, &joined));
    problems.ensure(admin || user == User::New || time_offsets.is_empty(), time::NEED_RIGHTS);
    let root = root(spec, linux, options, (own_mounts, mounting), &mut problems);
    let hostname = problems.take(namespaces::uts_name("hostname", &spec.hostname, &apart));
    let devices = problems.take(devices::plan(&linux.devices, dev, &mut warnings));
    let masked_paths = problems.take(paths("linux.maskedPaths", &linux.masked_paths));
    let readonly_paths = problems.take(paths("linux.readonlyPaths", &linux.readonly_paths));
    let sysctls = sysctl::plan(&linux.sysctl, &apart, domainname.as_deref(), &mut problems);
    let net_devices = problems.take(net_devices::plan(&linux.net_devices, &apart, admin));
    if let Some(written) = &linux.seccomp {
        let start_hooks = !hooks.start_container.is_empty();
        problems.ok(seccomp::add(&mut process, written, start_hooks, &mut warnings));
        if let Some(filter) = process.seccomp.as_mut().filter(|_| host.rootless) {
            filter.serve_user();
        }
    }
    let plan = Plan {
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        annotations,
        root,
        hostname,
        mounts,
        mount_label,
        devices,
        links: devices::links(dev),
        masked_paths,
        readonly_paths,
        sysctls,
        intel_rdt,
        net_devices,
        process,
        id_maps,
        rootless: host.rootless,
        admin,
        no_setgroups,
        hooks,
        no_new_keyring: options.no_new_keyring,
        cgroups_path: cgroups_path.map(String::from),
        domainname,
        time_offsets,
        namespaces,
        joined,
        warnings,
    };
    (plan, problems)
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

/// The host as a process in the container's user namespace finds it: there it has every capability at first.
fn inside_of(host: &Host, user: User) -> Cow<'_, Host> {
    match user {
        User::Shared => Cow::Borrowed(host),
        User::New | User::Joined => Cow::Owned(Host { capabilities: u64::MAX, ..host.clone() }),
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

/// Whether there is something to mount without a mount namespace.
fn mounts_in_hosts(spec: &Spec, linux: &Linux, options: &Options, user: User) -> Result<bool> {
    let needing = [
        ("mounts", !spec.mounts.is_empty()),
        ("linux.devices", !linux.devices.is_empty()),
        ("root.readonly", spec.root.as_ref().is_some_and(|root| root.readonly == Some(true))),
        // its /dev/console is a mount
        ("process.terminal", spec.process.as_ref().is_some_and(|process| process.terminal == Some(true))),
    ];
    let never = [
        // who sees the host's mounts can unmount what hides them
        ("linux.maskedPaths", !linux.masked_paths.is_empty()),
        ("linux.readonlyPaths", !linux.readonly_paths.is_empty()),
        // it would be that of the host's own root
        ("linux.rootfsPropagation", given(&linux.rootfs_propagation).is_some()),
    ];
    let found = needing.iter().find(|(_, set)| *set);
    let refused = if user == User::Shared { None } else { found };
    if let Some((field, _)) = never.iter().find(|(_, set)| *set).or(refused) {
        bail!("{field}: needs a new mount namespace; add one to linux.namespaces");
    }
    if let Some((field, _)) = found.filter(|_| options.rootfs == Path::new("/")) {
        bail!(
            "{field}: would be that of the host, since root.path is its root; add a mount namespace to linux.namespaces"
        );
    }
    Ok(found.is_some())
}

fn cgroup_mount(linux: &Linux, options: &Options, host: &Host, namespaces: &[Namespace]) -> Result<CgroupMount> {
    let own_view = namespaces.contains(&Namespace::Cgroup);
    let path = options.cgroup_of_unit.as_deref().or(given(&linux.cgroups_path));
    cgroup_paths::mount(&host.cgroups, &options.id, path, own_view)
}

fn root(
    spec: &Spec,
    linux: &Linux,
    options: &Options,
    (own_mounts, mounting): (bool, bool),
    problems: &mut Problems,
) -> RootPlan {
    let propagation = root_propagation(given(&linux.rootfs_propagation), options.no_pivot);
    let (propagation, propagation_after) = problems.ok(propagation).unwrap_or((ONE_WAY, None));
    let cut_off =
        propagation.recursive && matches!(propagation.kind, PropagationKind::Private | PropagationKind::Slave);
    let switch = match (own_mounts, options.no_pivot) {
        (false, _) if mounting => RootSwitch::ChrootCovered,
        (false, _) => RootSwitch::Chroot,
        (true, true) => RootSwitch::MoveMount,
        (true, false) => RootSwitch::PivotRoot,
    };
    RootPlan {
        path: options.rootfs.clone(),
        readonly: spec.root.as_ref().is_some_and(|root| root.readonly == Some(true)),
        switch,
        propagation,
        isolate_parent: own_mounts && !cut_off,
        propagation_after,
    }
}

/// What is mounted on the host reaches the container, and nothing the other way.
const ONE_WAY: Propagation = Propagation { kind: PropagationKind::Slave, recursive: true };

/// What the whole tree is set to before the first mount, and the container's root after the switch. `shared` is needed
/// at both times: before, so that what is bound from the host keeps its peers there (a volume that passes mounts on);
/// after, since the rootfs lies on a private mount by then. Nothing can be bound from an unbindable tree, so that comes
/// after only.
fn root_propagation(word: Option<&str>, no_pivot: bool) -> Result<(Propagation, Option<Propagation>)> {
    use PropagationKind::{Private, Shared, Slave, Unbindable};
    let Some(word) = word else { return Ok((ONE_WAY, None)) };
    let Some(given) = mount_options::propagation(word) else {
        let known = mount_options::propagation_words();
        bail!("linux.rootfsPropagation: {word} is no propagation; use one of {known}");
    };
    match given.kind {
        Private if no_pivot => bail!("linux.rootfsPropagation: {word} is not safe with --no-pivot; use rslave"),
        Private | Slave => Ok((given, None)),
        Shared => Ok((given, Some(given))),
        Unbindable => Ok((ONE_WAY, Some(given))),
    }
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
    let mut planned: Vec<InRoot> = Vec::with_capacity(paths.len());
    for inside in problems.each(paths.iter().enumerate().map(one)) {
        if !planned.contains(&inside) {
            planned.push(inside);
        }
    }
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
mod tests;
