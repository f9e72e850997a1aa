//! `exec`: one more process in a container, from what `create` recorded alone: its bundle may be gone. Takes no lock,
//! since it changes nothing that is recorded; that the container is still there is looked at again from inside.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};

use super::bring_up::end;
use super::container::Container;
use super::duties::{Console, ExecParent};
use super::given_file::{Pipes, read_whole};
use super::managed;
use super::permitted;
use super::pidfd_socket::{PidfdSocket, Role};
use super::process::{self, ends_within};
use super::seccomp_agent::Agent;
use super::{Place, Store};
use crate::cgroup::{self, Tree};
use crate::error::{Doing, Matched};
use crate::host::security::Security;
use crate::host::{self, Host};
use crate::init::{self, join::run_on, stdio};
use crate::launch::Launched;
use crate::launch::foreground::{self, Relay};
use crate::launch::id_maps;
use crate::launch::interrupts::Interrupts;
use crate::launch::join::{Commit, Prepared, join};
use crate::launch::seal;
use crate::launch::serve::{self, Until, serve};
use crate::log;
use crate::plan::annotations;
use crate::plan::exec::{Base, ExecPlan, Flags, Manner, Target};
use crate::plan::id_maps::host_id;
use crate::plan::spec::{self, Spec};
use crate::plan::sub_cgroups::SubCgroups;
use crate::plan::{Descriptors, Namespace, labels};
use crate::procfs::Proc;
use crate::state::pid_file::PidFile;
use crate::state::{self, Process, Status};
use crate::sys::{file, socket};
use crate::undo::Undo;

#[derive(Debug, Clone)]
pub struct ExecOptions {
    pub id: String,
    /// Of `--process`.
    pub process: Option<PathBuf>,
    pub flags: Flags,
    pub sub_cgroups: SubCgroups,
    pub place: Place,
    pub console_socket: Option<PathBuf>,
    pub pidfd_socket: Option<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub ignore_paused: bool,
    pub descriptors: Descriptors,
}

/// A container that runs, held by the pidfd of its init.
struct Running {
    container: Container,
    process: Process,
    init: OwnedFd,
}

impl Running {
    /// Once it is exiting nobody can join its namespaces, however long it may take to end.
    fn is_ending(&self) -> Result<bool> {
        let exiting = Proc::own()?.stat(self.process.pid()).is_ok_and(|stat| stat.is_exiting);
        Ok(exiting || ends_within(&self.init, Duration::ZERO)?)
    }
}

/// The exit status of the process; 0 when detached.
pub fn exec(store: &Store, options: &ExecOptions) -> Result<i32> {
    state::check_id(&options.id)?;
    seal::ensure()?;
    let interrupts = Interrupts::take()?;
    // Of files that we make for the caller; the process gets its own.
    umask(Mode::from_bits_truncate(0o022));
    let running = find(store, options)?;
    let outcome = exec_in(&running, options, &interrupts);
    match outcome {
        // whatever went wrong, this is why
        Err(_) if running.is_ending()? => Err(Matched::ExecStopped.into()),
        outcome => outcome,
    }
}

fn find(store: &Store, options: &ExecOptions) -> Result<Running> {
    let container = store.find(&options.id)?;
    let Some(process) = container.state.init.filter(|_| container.state.ready) else {
        match container.status()? {
            Status::Creating => bail!("the container is still being created; wait until `create` has returned"),
            _ => return Err(Matched::ExecStopped.into()),
        }
    };
    let Some(init) = process::open(&container, process)? else { return Err(Matched::ExecStopped.into()) };
    if !options.ignore_paused && container.is_paused()? {
        return Err(Matched::ExecPaused.into());
    }
    Ok(Running { container, process, init })
}

fn exec_in(running: &Running, options: &ExecOptions, interrupts: &Interrupts) -> Result<i32> {
    let state = &running.container.state;
    let proc = running.container.proc();
    let rootless = host::rootless()?;
    let WayIn { container, pid_namespace } = way_in(running, proc, rootless)?;
    let mapped = container.namespaces.contains(Namespace::User.flag());
    let plan = decide(&running.container, options, credentials(proc, mapped)?, rootless)?;
    let outside = Outside::open(&plan, options)?;
    if mapped {
        meet_user_namespace(running, proc, &plan)?;
    }
    let present = || Tree::of(running.process.pid(), proc);
    let attach = |pid| managed::attach(state, pid);
    let prepared = Prepared {
        attach: state.unit.is_some().then_some(&attach),
        cgroups: cgroup::open_to_join(&state.cgroup_paths, &options.sub_cgroups)?,
        present: &present,
        pid_namespace,
        container,
    };
    if let Some(cpus) = &plan.affinity.initial {
        run_on(cpus).context("process.execCPUAffinity.initial")?;
    }
    let relayed = options.place == Place::Foreground && plan.process.terminal.is_some();
    // What is said beforehand must not come between a request and its answer.
    let asks = mapped && plan.process.may_need_parent();
    let commit = match relayed || asks || state.intel_rdt.is_some() || outside.wait_for_ready() {
        true => Commit::Later,
        false => Commit::Given,
    };
    let launched = join(&plan, prepared, commit)?;
    let child = &launched.child;
    log::debug(format_args!("{}: process {} is on its way", options.id, child.pid));
    let started = Undo::new("process", || end(child));
    state.intel_rdt.as_ref().map(|group| group.add(child.pid)).transpose()?;
    let coming = Coming { running, options, plan: &plan, interrupts, launched: &launched, commit };
    let relay = coming.serve(outside)?;
    started.commit();
    match options.place {
        Place::Created | Place::Detached => Ok(0),
        Place::Foreground => foreground::wait(child, interrupts, relay, None),
    }
}

/// What the caller of `exec` is told of, or is asked for.
struct Outside<'p> {
    console_socket: Option<OwnedFd>,
    pidfd_socket: Option<PidfdSocket>,
    pid_file: Option<PidFile>,
    agent: Option<Agent<'p>>,
}

impl<'p> Outside<'p> {
    fn open(plan: &'p ExecPlan, options: &ExecOptions) -> Result<Self> {
        let console_socket = options.console_socket.as_deref().map(socket::connect_stream).transpose();
        let console_socket = console_socket.context("--console-socket")?;
        let pidfd_socket = PidfdSocket::connect(options.pidfd_socket.as_deref())?;
        let pid_file = options.pid_file.as_deref().map(PidFile::prepare).transpose()?;
        Ok(Self { console_socket, pidfd_socket, pid_file, agent: Agent::connect(&plan.process)? })
    }

    /// The pid is on file before the program runs; and the listener of a filter goes with execve.
    fn wait_for_ready(&self) -> bool {
        self.pid_file.is_some() || self.agent.is_some()
    }
}

/// A process that is on its way into the container.
struct Coming<'a> {
    running: &'a Running,
    options: &'a ExecOptions,
    plan: &'a ExecPlan,
    interrupts: &'a Interrupts,
    launched: &'a Launched,
    commit: Commit,
}

impl Coming<'_> {
    /// Until the program runs. Returns its terminal, if that stays with rrun.
    fn serve(&self, outside: Outside) -> Result<Option<Relay>> {
        let Self { running, options, launched, .. } = *self;
        let Outside { console_socket, pidfd_socket, pid_file, agent } = outside;
        let child = &launched.child;
        let mut parent = ExecParent {
            container: &running.container.state,
            init: running.process,
            process: &self.plan.process,
            child: child.pid,
            console: Console { socket: console_socket, kept: None },
            agent,
        };
        // A frozen container lets nobody through until it is thawed.
        let patience = (!options.ignore_paused).then_some(serve::PATIENCE);
        if self.commit == Commit::Later {
            serve(launched, self.interrupts, Until::Ready, patience, &mut parent)?;
        }
        let relay = parent.console.kept.take().map(Relay::new).transpose()?;
        let told = pid_file.as_ref().map(|pid_file| Undo::new("pid file", || pid_file.remove()));
        if let Some(pid_file) = &pid_file {
            pid_file.write(child.pid.as_raw())?;
        }
        if self.commit == Commit::Later {
            launched.channel.commit()?;
        }
        serve(launched, self.interrupts, Until::Executed, patience, &mut parent)?;
        if let Some(socket) = pidfd_socket {
            socket.send(Role::Exec, child.pidfd.as_fd())?;
        }
        told.into_iter().for_each(Undo::commit);
        Ok(relay)
    }
}

/// In a user namespace a process has every capability at first.
fn credentials(proc: &Proc, mapped: bool) -> Result<Host> {
    let host = Host::credentials(proc)?;
    Ok(if mapped { Host { capabilities: u64::MAX, ..host } } else { host })
}

fn decide(container: &Container, options: &ExecOptions, mut host: Host, rootless: bool) -> Result<ExecPlan> {
    let config = container.directory.read_config()?.ok_or(Matched::DoesNotExist)?;
    let mut spec = Spec::parse(&config).context("the container's record")?;
    annotations::apply(&mut spec, rootless, permitted::annotations)?;
    let first = spec.process.unwrap_or_else(|| spec::Process { cwd: Some("/".into()), ..Default::default() });
    let base = match &options.process {
        None => Base::Container,
        Some(path) => {
            let shown = path.display().to_string();
            let read = || -> Result<spec::Process> { spec::document::read(&read_whole(path, Pipes::Read)?) };
            Base::File(Box::new(read().with_context(|| format!("--process {shown}"))?), shown)
        }
    };
    let manner = Manner {
        detached: options.place == Place::Detached,
        console_socket: options.console_socket.is_some(),
        descriptors: options.descriptors,
    };
    let (linux, keyring) = (spec.linux.as_ref(), !container.state.no_new_keyring);
    let target = Target { id: &options.id, process: &first, linux, keyring };
    if options.flags.have_labels() || labels::are_given_to(&first) || base.has_labels() {
        host.security = Security::detect()?;
    }
    let mut warnings = Vec::new();
    let mut plan = ExecPlan::build(target, base, &options.flags, manner, &host, &mut warnings)?;
    if let Some(filter) = plan.process.seccomp.as_mut().filter(|_| rootless) {
        filter.serve_user();
    }
    log::warnings_of(&warnings, plan.process.terminal.is_some());
    Ok(plan)
}

/// How a process gets into the container's namespaces.
struct WayIn {
    container: init::Container,
    /// It is born in that of pids, which the parent enters around the clone.
    pid_namespace: bool,
}

/// What is ours already is left out where that matters: to join the user namespace that one is in is an error, an
/// ordinary user may join none of the host's, and a mount namespace takes one to its root. Root need not look at the rest.
fn way_in(running: &Running, proc: &Proc, rootless: bool) -> Result<WayIn> {
    const KINDS: [(&str, CloneFlags, bool); 7] = [
        ("user", CloneFlags::CLONE_NEWUSER, true),
        ("mnt", CloneFlags::CLONE_NEWNS, true),
        // a kernel may have none
        ("time", crate::sys::namespace::CLONE_NEWTIME, true),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP, false),
        ("ipc", CloneFlags::CLONE_NEWIPC, false),
        ("net", CloneFlags::CLONE_NEWNET, false),
        ("uts", CloneFlags::CLONE_NEWUTS, false),
    ];
    let pid = running.process.pid();
    let mut namespaces = CloneFlags::empty();
    for (file, flag, matters) in KINDS {
        let looks = matters || rootless;
        if !(looks && proc.share_namespace(pid, file)?) {
            namespaces |= flag;
        }
    }
    let own_pids = !proc.share_namespace(pid, Namespace::Pid.file())?;
    // An ordinary user's rrun may not go there for a moment and come back.
    if own_pids && rootless {
        namespaces |= Namespace::Pid.flag();
    }
    let root = match namespaces.contains(CloneFlags::CLONE_NEWNS) {
        true => None,
        false => Some(root_of(running)?),
    };
    let mapped = namespaces.contains(Namespace::User.flag());
    let container = init::Container {
        init: file::dup(&running.init).doing("dup", "pidfd")?,
        namespaces,
        root,
        proc: proc.try_clone()?,
        no_setgroups: rootless && !mapped && host::no_setgroups()?,
    };
    Ok(WayIn { container, pid_namespace: own_pids && !rootless })
}

/// Its ids have to stand for some of the host's; and root inside does not own what its caller gave it.
fn meet_user_namespace(running: &Running, proc: &Proc, plan: &ExecPlan) -> Result<()> {
    let uids = id_maps::check_joined(proc, running.process.pid(), None, &plan.process)?;
    match host_id(&uids, plan.process.uid).filter(|_| plan.process.terminal.is_none()) {
        Some(user) => stdio::give_to(user),
        None => Ok(()),
    }
}

/// A magic link to where the process itself stands; it is alive, so its pid is its own.
fn root_of(running: &Running) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", running.process.pid);
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    Ok(File::options().read(true).custom_flags(flags).open(&path).doing("open", path)?.into())
}
