//! What this kernel and this host lack for a plan. Read, never tried.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::unistd::{AccessFlags, access};

use crate::error::{Doing, SysError};
use crate::hooks::check_program;
use crate::init::steps::Step;
use crate::init::{Joined, node_of_host};
use crate::launch::id_maps;
use crate::launch::stages::visit;
use crate::netdev;
use crate::plan::problems::Problems;
use crate::plan::{DeviceKind, Namespace, Plan, hooks::Hook, namespaces, seccomp, sysctl};
use crate::procfs::Proc;
use crate::resctrl::Group;

/// An error may be of several problems.
pub fn refuse_lacking(plan: &Plan, warnings: &mut Vec<String>) -> Result<()> {
    let mut problems = Problems::default();
    for kind in &plan.namespaces {
        problems.ok(namespace(*kind));
    }
    if let Some(maps) = plan.id_maps.as_ref().filter(|_| plan.has_new(Namespace::User)) {
        problems.ok(id_maps::refuse_without_helpers(maps));
    }
    if let Some(join) = plan.joined.iter().find(|join| join.kind == Namespace::User) {
        problems.ok(joined_maps(plan, &join.path));
    }
    if let Some(rdt) = &plan.intel_rdt {
        problems.ok(Group::find(rdt, &Proc::open()?).map(drop));
    }
    for device in plan.net_devices.chunks(1) {
        problems.ok(netdev::Devices::find(device).map(drop));
    }
    // in a user namespace only FIFOs can be made
    let bound = plan.devices.iter().filter(|device| plan.has(Namespace::User) && device.kind != DeviceKind::Fifo);
    for device in bound {
        problems.ok(node_of_host(device).with_context(|| Step::Device(device).to_string()));
    }
    if let Some(filter) = &plan.process.seccomp {
        problems.ok(actions(filter));
        let listener = filter.listener.as_ref().map_or(Ok(()), |listener| socket(&listener.path));
        problems.ok(listener.context("linux.seccomp.listenerPath"));
    }
    for (kind, list) in plan.hooks.by_kind() {
        // those of the start are of the image
        for hook in list.iter().filter(|_| kind != "startContainer") {
            match runnable(hook) {
                // then it is too late for anything but a warning
                Err(error) if kind == "poststop" => warnings.push(format!("{error:#}")),
                result => drop(problems.ok(result)),
            }
        }
    }
    problems.result(())
}

/// As a process that is in it has them; of one that nobody is in nothing can be told.
fn joined_maps(plan: &Plan, path: &Path) -> Result<()> {
    let proc = Proc::open()?;
    let Ok(namespace) = stat(path) else { return Ok(()) };
    let Some(inside) = proc.in_namespace(&namespace, Namespace::User.file())?.first().copied() else { return Ok(()) };
    id_maps::check_joined(&proc, inside, plan.id_maps.as_ref(), &plan.process).map(drop)
}

/// Whether they are there; what may be written to them only `create` finds out.
pub fn joined_sysctls(plan: &Plan, joined: &[Joined]) -> Result<()> {
    let mut problems = Problems::default();
    for one in &plan.sysctls {
        let Some(by) = joined.iter().find(|joined| sysctl::owner(&one.path) == Some(joined.kind)) else { continue };
        let path = Path::new("/proc/sys").join(&one.path);
        let look = || {
            let there = access(&path, AccessFlags::F_OK);
            there.doing("open", path.display()).with_context(|| Step::Sysctl(one).to_string())
        };
        problems.ok(visit(by.into(), look));
    }
    problems.result(())
}

fn namespace(kind: Namespace) -> Result<()> {
    let (name, file) = (namespaces::name(kind), kind.file());
    ensure!(
        Path::new("/proc/self/ns").join(file).exists(),
        "linux.namespaces: this kernel has no {name} namespaces; leave it out"
    );
    let sysctl = format!("user/max_{file}_namespaces");
    let most = fs::read_to_string(format!("/proc/sys/{sysctl}")).unwrap_or_default();
    ensure!(
        most.trim() != "0",
        "linux.namespaces: sysctl {} allows no {name} namespaces; raise it",
        sysctl.replace('/', ".")
    );
    Ok(())
}

/// What the kernel calls the actions, by SECCOMP_RET_*: seccomp(2).
const ACTIONS: [(u32, &str); 8] = [
    (libc::SECCOMP_RET_KILL_PROCESS, "kill_process"),
    (libc::SECCOMP_RET_KILL_THREAD, "kill_thread"),
    (libc::SECCOMP_RET_TRAP, "trap"),
    (libc::SECCOMP_RET_ERRNO, "errno"),
    (libc::SECCOMP_RET_USER_NOTIF, "user_notif"),
    (libc::SECCOMP_RET_TRACE, "trace"),
    (libc::SECCOMP_RET_LOG, "log"),
    (libc::SECCOMP_RET_ALLOW, "allow"),
];

fn actions(filter: &seccomp::Filter) -> Result<()> {
    const FILE: &str = "/proc/sys/kernel/seccomp/actions_avail";
    let available = fs::read_to_string(FILE)
        .map_err(|_| anyhow!("linux.seccomp: this kernel has no seccomp filters, or one before 4.14; leave it out"))?;
    for used in filter.verdicts() {
        let word = ACTIONS.iter().find(|(action, _)| *action == seccomp::profile::action(used)).map(|(_, word)| *word);
        if let Some(word) = word.filter(|word| !available.split_ascii_whitespace().any(|known| known == *word)) {
            bail!("linux.seccomp: this kernel has no action {word}; see {FILE}");
        }
    }
    Ok(())
}

fn socket(path: &Path) -> Result<()> {
    let found = fs::metadata(path).map_err(|error| SysError::new("connect", path.display(), errno(&error)))?;
    ensure!(found.file_type().is_socket(), "{} is no socket", path.display());
    Ok(())
}

/// Looked at as `create` looks, and never opened: a FIFO would keep us waiting, and a device may act on it.
fn runnable(hook: &Hook) -> Result<()> {
    let may = || access(hook.path.as_str(), AccessFlags::X_OK).doing("exec", &hook.path);
    check_program(&hook.path).and_then(|()| Ok(may()?)).with_context(|| format!("{}.path", hook.field))
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
