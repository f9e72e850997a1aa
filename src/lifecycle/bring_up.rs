//! The one path on which a container comes up: decided, recorded, made, served until it is ready, recorded as ready.
//! docs/design.md, "Launching", has the whole order and the reason for each place.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;

use super::bundle::{Decided, Manner, decide};
use super::cgroups::{self, Made};
use super::claim::{Cgroups, Claim};
use super::container::Container;
use super::delete::delete;
use super::duties::{Console, Parent};
use super::hooks::Runner;
use super::loan::Loan;
use super::managed::Managed;
use super::outside::{ForInit, Outside};
use super::pidfd_socket::Role;
use super::process::{PATIENCE, ends_within};
use super::revive::{Image, Revived};
use super::seccomp_agent::Agent;
use super::{CreateOptions, Store};
use crate::cgroup::{self, CgroupPlan, Doors, Holders};
use crate::error::Matched;
use crate::hooks::Outputs;
use crate::init::StartHandles;
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
    pub container: Container,
    pub child: Child,
    /// The terminal of a container in the foreground.
    pub console: Option<OwnedFd>,
}

/// Where its processes come from.
#[derive(Clone, Copy)]
pub enum Origin<'a> {
    Program,
    Image(&'a Image<'a>),
}

pub fn bring_up(
    store: &Store,
    options: &CreateOptions,
    place: Place,
    interrupts: &Interrupts,
    origin: Origin,
) -> Result<Up> {
    // The caller's would shape what we make; the container's own is set by init.
    umask(Mode::from_bits_truncate(0o022));
    let manner = manner(store, options, place, interrupts)?;
    let Decided { mut plan, cgroup, managed, config, annotated } =
        decide(&options.id, &options.bundle, options.config.as_deref(), manner)?;
    ensure!(place == Place::Created || !plan.process.is_absent(), NOTHING_TO_START);
    if let Origin::Image(image) = origin {
        image.fit(&mut plan)?;
    }
    // What can fail without having made anything comes first.
    refuse_taken(store, &options.id)?;
    let Outside { rdt, hook_outputs, for_init } = Outside::open(&plan, options, &annotated)?;
    log::warnings_of(plan.warnings.iter().chain(&cgroup.warnings), plan.process.terminal.is_some());

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
    if options.notify_socket.is_some() {
        claim.directory.make_notify_directory()?;
    }
    log::debug(format_args!("{}: recorded in {}", options.id, claim.directory.path().display()));

    let coming = Coming { plan: &plan, claim: &claim, hooks: &hooks, hook_outputs: &hook_outputs, interrupts, origin };
    let Running { child, console } = coming.in_groups(&cgroup, managed.as_ref(), rdt.as_ref(), for_init)?;
    [followed, recorded].into_iter().for_each(Undo::commit);
    Ok(Up { container: claim.into_container()?, child, console })
}

/// How the plan is to be made.
fn manner<'s>(store: &Store, options: &CreateOptions, place: Place, interrupts: &'s Interrupts) -> Result<Manner<'s>> {
    let notify_socket = options.notify_socket.as_deref();
    notify_socket.map(notify::check).transpose()?;
    Ok(Manner {
        no_pivot: options.no_pivot,
        detached: place != Place::Foreground,
        console_socket: options.console_socket.is_some(),
        descriptors: options.descriptors,
        no_new_keyring: options.no_new_keyring,
        notify: notify_socket.map(|_| Directory::notify_path(&store.root, &options.id)),
        cgroup_manager: options.cgroup_manager,
        stop: Some(interrupts),
    })
}

/// A container that is recorded, and not there yet. What each part has made is taken back when a later one fails.
struct Coming<'a> {
    plan: &'a Plan,
    claim: &'a Claim,
    hooks: &'a CreateHooks<'a>,
    hook_outputs: &'a Outputs,
    interrupts: &'a Interrupts,
    origin: Origin<'a>,
}

/// Its first process, which is rrun's child, and who makes a container of it.
enum Begun<'p> {
    Program(Launched),
    Image(Revived<'p>),
}

impl Coming<'_> {
    /// Makes what processes are grouped by, and init in it.
    fn in_groups(
        &self,
        cgroup: &CgroupPlan,
        managed: Option<&Managed>,
        rdt: Option<&Group>,
        for_init: ForInit,
    ) -> Result<Running> {
        rdt.map(Group::make).transpose()?;
        let rdt_made = rdt.map(|group| Undo::new("resctrl group", || self.claim.if_ours(|| group.undo())));
        let left = match self.origin {
            Origin::Program => cgroups::holders_of_failed(self.plan),
            // which end with nobody before they run
            Origin::Image(_) => Holders::Kill,
        };
        let mut cgroups = cgroups::make(self.plan, cgroup, managed, self.claim, left)?;
        let doors = cgroups.doors();
        let grouped = Undo::new("cgroups", || cgroups.undo());
        let up = self.init(&cgroups, doors?, rdt, for_init)?;
        [grouped].into_iter().chain(rdt_made).for_each(Undo::commit);
        cgroups.keep();
        Ok(up)
    }

    /// Makes init, serves it until it is set up, and tells those who are to know of it.
    fn init(&self, cgroups: &Made, doors: Doors, rdt: Option<&Group>, for_init: ForInit) -> Result<Running> {
        let Self { plan, claim, .. } = *self;
        let ForInit { joins, net_devices, console_socket, pidfd_socket, agent, pid_file } = for_init;
        let attach = |pid| cgroups.attach(pid);
        let prepared = Prepared {
            start: self.start_handles()?,
            tasks: doors.tasks,
            unified: doors.unified,
            attach: cgroups.can_attach().then_some(&attach),
            joins,
        };
        let loan = net_devices.as_ref().map(|devices| Loan { devices, claim });
        let take_back = |loan: &Loan| loan.take_back().inspect_err(|_| claim.keep());
        let handed_over = loan.as_ref().map(|loan| Undo::new("move of network devices", || take_back(loan)));
        let covers = plan.root.switch == RootSwitch::ChrootCovered;
        let uncover = || claim.uncover().inspect_err(|_| claim.keep());
        let covered = covers.then(|| Undo::new("mounts at the rootfs", uncover));
        let begun = self.begin(prepared)?;
        let child = begun.child();
        log::debug(format_args!("{}: init is process {}", plan.id, child.pid));
        let running = Undo::new("init", || begun.end().inspect_err(|_| claim.keep()));
        let start_time = Proc::own()?.stat(child.pid)?.start_time;
        claim.record_init(Process { pid: child.pid.as_raw(), start_time })?;
        rdt.map(|group| group.record().add(child.pid)).transpose()?;

        let served = self.serve(&begun, console_socket, agent, loan.as_ref());
        let Served { console, net_devices } = served.map_err(|error| cgroups.told_of_oom(error))?;
        cgroups.finish()?;
        claim.record_ready(net_devices)?;
        if let Some(socket) = pidfd_socket {
            socket.send(Role::Init, child.pidfd.as_fd())?;
        }
        let told = pid_file.as_ref().map(|pid_file| Undo::new("pid file", || pid_file.remove()));
        if let Some(pid_file) = &pid_file {
            pid_file.write(child.pid.as_raw())?;
        }
        begun.commit(self.interrupts)?;
        log::debug(format_args!("{}: set up", plan.id));
        [running].into_iter().chain([handed_over, covered, told].into_iter().flatten()).for_each(Undo::commit);
        if let Some(loan) = &loan {
            loan.end();
        }
        Ok(Running { child: begun.into_child(), console })
    }

    /// None for processes that have had their start.
    fn start_handles(&self) -> Result<Option<StartHandles>> {
        let directory = &self.claim.directory;
        let handles = || -> Result<StartHandles> {
            Ok(StartHandles {
                channel: directory.make_start_channel()?,
                error: directory.make_start_error()?,
                hook_outputs: self.hook_outputs.try_clone()?,
            })
        };
        matches!(self.origin, Origin::Program).then(handles).transpose()
    }

    fn begin(&self, prepared: Prepared) -> Result<Begun<'_>> {
        match self.origin {
            Origin::Program => launch(self.plan, prepared).map(Begun::Program),
            Origin::Image(image) => {
                let root = self.claim.directory.make_restore_directory()?;
                image.revive(self.plan, prepared, &root, self.interrupts).map(Begun::Image)
            }
        }
    }

    /// Until init is set up.
    fn serve(
        &self,
        begun: &Begun,
        console_socket: Option<OwnedFd>,
        agent: Option<Agent>,
        loan: Option<&Loan>,
    ) -> Result<Served> {
        let init = begun.child().pid;
        let run_hooks = || self.hooks.run(init);
        let mut parent = Parent {
            plan: self.plan,
            proc: Proc::own()?,
            child: init,
            console: Console { socket: console_socket, kept: None },
            agent,
            id_mapper: IdMapper::default(),
            hooks: &run_hooks,
            net_devices: loan,
            handed_over: BTreeMap::new(),
        };
        match begun {
            Begun::Program(launched) => {
                if !self.plan.has(Namespace::User) {
                    parent.set_oom_score()?;
                }
                let patience = hooks::patience(serve::PATIENCE, &self.plan.hooks.create_container);
                serve(launched, self.interrupts, Until::Ready, patience, &mut parent)?;
            }
            Begun::Image(revived) => revived.serve(self.interrupts, &mut parent)?,
        }
        Ok(Served { console: parent.console.kept, net_devices: parent.handed_over })
    }
}

impl Begun<'_> {
    fn child(&self) -> &Child {
        match self {
            Self::Program(launched) => &launched.child,
            Self::Image(revived) => &revived.child,
        }
    }

    fn into_child(self) -> Child {
        match self {
            Self::Program(launched) => launched.child,
            Self::Image(revived) => revived.child,
        }
    }

    /// It waits to hear that all is recorded.
    fn commit(&self, interrupts: &Interrupts) -> Result<()> {
        match self {
            Self::Program(launched) => Ok(launched.channel.commit()?),
            Self::Image(revived) => revived.commit(interrupts),
        }
    }

    fn end(&self) -> Result<()> {
        if let Self::Image(revived) = self {
            revived.end();
        }
        end(self.child())
    }
}

/// Init, set up, and its terminal.
struct Running {
    child: Child,
    console: Option<OwnedFd>,
}

/// What init has given us, and we it.
struct Served {
    console: Option<OwnedFd>,
    /// By their names on the host, those that they have inside.
    net_devices: BTreeMap<String, String>,
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
