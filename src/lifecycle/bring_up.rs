//! The one path on which a container comes up: decided, recorded, made, served until it is ready, recorded as ready.
//! docs/design.md, "Launching", has the whole order and the reason for each place.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use super::bundle::{Decided, Manner, decide};
use super::claim::{Cgroups, Claim};
use super::delete::delete;
use super::duties::{Console, Parent};
use super::hooks::Runner;
use super::loan::Loan;
use super::managed::Managed;
use super::outside::Outside;
use super::pidfd_socket::Role;
use super::process::{PATIENCE, ends_within};
use super::rootless;
use super::{CreateOptions, Store};
use crate::cgroup::{self, CgroupPlan, Holders};
use crate::error::Matched;
use crate::init::StartHandles;
use crate::launch::holder::Holder;
use crate::launch::interrupts::Interrupts;
use crate::launch::mount_ids::IdMapper;
use crate::launch::serve::{self, Until, reap, serve};
use crate::launch::{Launched, Prepared, launch};
use crate::log;
use crate::notify;
use crate::plan::{Namespace, Plan, RootSwitch, hooks};
use crate::procfs::Proc;
use crate::resctrl::Group;
use crate::state::directory::Directory;
use crate::state::{Process, State};
use crate::sys::clone::{Child, pidfd_send_signal};
use crate::undo::Undo;

/// Who looks after the container once it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nobody, until it is started.
    Created,
    Detached,
    Foreground,
}

/// runtime.md, "Start": without `process` it is an error.
pub(super) const NOTHING_TO_START: &str = "config.json: process: missing; a container without one can be created, and not \
    started: add the program to run";

/// A container that waits for its start.
pub struct Up {
    pub child: Child,
    /// The terminal of a container in the foreground.
    pub console: Option<OwnedFd>,
}

pub fn bring_up(store: &Store, options: &CreateOptions, place: Place, interrupts: &Interrupts) -> Result<Up> {
    // The caller's would shape what we make; the container's own is set by init.
    umask(Mode::from_bits_truncate(0o022));
    let notify_socket = options.notify_socket.as_deref();
    notify_socket.map(notify::check).transpose()?;
    let manner = Manner {
        no_pivot: options.no_pivot,
        detached: place != Place::Foreground,
        console_socket: options.console_socket.is_some(),
        descriptors: options.descriptors,
        no_new_keyring: options.no_new_keyring,
        notify: notify_socket.map(|_| Directory::notify_path(&store.root, &options.id)),
        cgroup_manager: options.cgroup_manager,
        stop: Some(interrupts),
    };
    let Decided { plan, cgroup, managed, config, annotated } =
        decide(&options.id, &options.bundle, options.config.as_deref(), manner)?;
    ensure!(place == Place::Created || !plan.process.is_absent(), NOTHING_TO_START);
    // What can fail without having made anything comes first.
    refuse_taken(store, &options.id)?;
    let Outside { joins, net_devices, rdt, console_socket, pidfd_socket, agent, hook_outputs, pid_file } =
        Outside::open(&plan, options, &annotated)?;
    plan.warnings.iter().chain(&cgroup.warnings).for_each(|warning| log::warning(warning));

    let unit = managed.as_ref().map(Managed::record);
    let claim = Claim::new(
        store,
        &plan,
        Cgroups { manager: options.cgroup_manager, paths: cgroup.paths(), unit, rdt: rdt.as_ref().map(Group::record) },
        annotated.hook_output,
    )?;
    let runner = Runner::of_plan(&plan, &hook_outputs, Some(interrupts));
    let hooks = CreateHooks { plan: &plan, runner, begun: Cell::new(false) };
    let followed = Undo::new("hooks", || hooks.undo(&claim));
    let recorded = Undo::new("record of the container", || claim.forget());
    // What is recorded as ours is killed and removed by `delete`.
    cgroup::refuse_occupied(&cgroup, None)?;
    managed.as_ref().map_or(Ok(()), |managed| managed.refuse_foreign(&cgroup)).context("linux.cgroupsPath")?;
    claim.record_intent(&config)?;
    if notify_socket.is_some() {
        claim.directory.make_notify_directory()?;
    }
    log::debug(format_args!("{}: recorded in {}", options.id, claim.directory.path().display()));

    rdt.as_ref().map(Group::make).transpose()?;
    let rdt_made = rdt.as_ref().map(|group| Undo::new("resctrl group", || claim.if_ours(|| group.undo())));
    let none = CgroupPlan::none();
    let asked = managed.as_ref().map(|managed| managed.ask(&claim, &cgroup)).transpose();
    let remove_unit = |managed: &Managed| {
        let removed = claim.if_ours(|| managed.remove());
        removed.or_else(|error| claim.abandon().and(Err(error)))
    };
    let mut unit = managed.as_ref().filter(|_| asked.is_ok()).map(|m| Undo::new("unit", || remove_unit(m)));
    let made = asked.and_then(|holder| {
        let holder = holder.flatten();
        Ok((cgroup::create(&cgroup, holder.as_ref().map(Holder::pid))?, holder))
    });
    let (mut cgroups, holder) = match made {
        Err(error) if plan.rootless && rootless::is_refusal(&error) => {
            rootless::forgo_cgroups(&plan, &cgroup, error)?;
            drop(unit.take());
            claim.record_no_cgroups()?;
            (cgroup::create(&none, None)?, None)
        }
        result => result?,
    };
    let doors = cgroups.ready(managed.is_none().then_some(&cgroup));
    let holder = Cell::new(holder);
    let holders = holders_of_failed(&plan);
    let undo_cgroups = || claim.if_ours(|| cgroups.undo(PATIENCE, holders));
    let grouped = Undo::new("cgroups", || {
        drop(holder.take());
        undo_cgroups().inspect_err(|_| claim.keep())
    });
    let doors = doors?;
    let attach = |pid| managed.as_ref().map_or(Ok(()), |managed| managed.attach(pid));
    let prepared = Prepared {
        start: StartHandles {
            channel: claim.directory.make_start_channel()?,
            error: claim.directory.make_start_error()?,
            hook_outputs: hook_outputs.try_clone()?,
        },
        tasks: doors.tasks,
        unified: doors.unified,
        attach: unit.is_some().then_some(&attach),
        joins,
    };

    let loan = net_devices.as_ref().map(|devices| Loan { devices, claim: &claim });
    let take_back = |loan: &Loan| loan.take_back().inspect_err(|_| claim.keep());
    let handed_over = loan.as_ref().map(|loan| Undo::new("move of network devices", || take_back(loan)));
    let covers = plan.root.switch == RootSwitch::ChrootCovered;
    let covered = covers.then(|| Undo::new("mounts at the rootfs", || claim.uncover().inspect_err(|_| claim.keep())));
    let launched = launch(&plan, prepared)?;
    let Launched { child, channel, .. } = &launched;
    log::debug(format_args!("{}: init is process {}", options.id, child.pid));
    let running = Undo::new("init", || end(child).inspect_err(|_| claim.keep()));
    let proc = Proc::own()?;
    let start_time = proc.stat(child.pid)?.start_time;
    claim.record_init(Process { pid: child.pid.as_raw(), start_time })?;
    rdt.as_ref().map(|group| group.record().add(child.pid)).transpose()?;
    let init = child.pid;
    let run_hooks = || hooks.run(init);
    let console = Console { socket: console_socket, kept: None };
    let id_mapper = IdMapper::default();
    let mut parent = Parent {
        plan: &plan,
        proc,
        child: init,
        console,
        agent,
        id_mapper,
        hooks: &run_hooks,
        net_devices: loan.as_ref(),
        handed_over: BTreeMap::new(),
    };
    if !plan.has(Namespace::User) {
        parent.set_oom_score()?;
    }

    let patience = hooks::patience(serve::PATIENCE, &plan.hooks.create_container);
    serve(&launched, interrupts, Until::Ready, patience, &mut parent)
        .map_err(|error| told_of_oom(error, cgroups.paths()))?;
    let console = parent.console.kept;
    // init is in
    drop(holder.take());
    // As late as can be, so that setting up is not charged to a small limit.
    cgroups.apply_last()?;
    managed.as_ref().map_or(Ok(()), |managed| managed.set_last(&cgroup))?;
    claim.record_ready(parent.handed_over)?;
    if let Some(socket) = pidfd_socket {
        socket.send(Role::Init, child.pidfd.as_fd())?;
    }
    let told = pid_file.as_ref().map(|pid_file| Undo::new("pid file", || pid_file.remove()));
    if let Some(pid_file) = &pid_file {
        pid_file.write(child.pid.as_raw())?;
    }
    channel.commit()?;
    log::debug(format_args!("{}: set up, waits for its start", options.id));
    let more = [unit, handed_over, rdt_made, covered, told].into_iter().flatten();
    [followed, recorded, grouped, running].into_iter().chain(more).for_each(Undo::commit);
    if let Some(loan) = &loan {
        loan.end();
    }
    Ok(Up { child: launched.child, console })
}

/// The usual case of an id that is taken, told before anything else is looked at. Only `Claim::new` decides.
fn refuse_taken(store: &Store, id: &str) -> Result<()> {
    let Some(directory) = Directory::open(&store.root, id)? else { return Ok(()) };
    match directory.read_state() {
        Ok(Some(State { abandoned: true, .. })) => {
            delete(store, id, true).context("what an earlier `create` has given up is in the way")
        }
        _ => Err(Matched::AlreadyExists.into()),
    }
}

/// Whatever is in the cgroups ends with init, or was never ours; but for what hooks inside have left, where init takes
/// nobody with it.
fn holders_of_failed(plan: &Plan) -> Holders {
    let stay = !plan.hooks.create_container.is_empty() && !plan.has_new(Namespace::Pid);
    if stay { Holders::Kill } else { Holders::Spare }
}

/// What hooks of `create` have begun, those of poststop end.
struct CreateHooks<'a> {
    plan: &'a Plan,
    runner: Runner<'a>,
    begun: Cell<bool>,
}

impl CreateHooks<'_> {
    fn run(&self, init: Pid) -> Result<()> {
        self.begun.set(true);
        self.runner.at_create(&self.plan.hooks, init.as_raw())
    }

    /// Once: where the record stays, or went by another's hand, `delete` does it.
    fn undo(&self, claim: &Claim) -> Result<()> {
        if self.begun.get() && claim.is_forgotten() {
            self.runner.poststop(&self.plan.hooks);
        }
        Ok(())
    }
}

/// The child and, by its pid namespace or the parent-death signal, whatever it started.
pub(super) fn end(child: &Child) -> Result<()> {
    // ESRCH: ended and reaped already
    let _ = pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    if !ends_within(&child.pidfd, PATIENCE)? {
        bail!("process {} does not end after SIGKILL", child.pid);
    }
    let _ = reap(child);
    Ok(())
}

/// A set-up that the kernel killed for memory says so.
fn told_of_oom(error: anyhow::Error, cgroup_paths: &BTreeMap<String, PathBuf>) -> anyhow::Error {
    match cgroup::Recorded::new(cgroup_paths).and_then(|cgroups| cgroups.oom_kills()) {
        Ok(kills) if kills > 0 => error.context("out of memory: linux.resources.memory.limit is too small to start"),
        _ => error,
    }
}
