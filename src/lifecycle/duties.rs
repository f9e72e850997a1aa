//! What the parent does for a child that sets itself up.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::loan::Loan;
use super::seccomp_agent::Agent;
use crate::error::{Doing, SysError};
use crate::init::{clone_source, scheduling, stdio};
use crate::launch::id_maps;
use crate::launch::lock_flags::locked;
use crate::launch::mount_ids::IdMapper;
use crate::launch::serve::Duties;
use crate::log;
use crate::plan::id_maps::host_id;
use crate::plan::{Namespace, Plan, ProcessPlan, Source, hooks};
use crate::procfs::Proc;
use crate::state::{Process, State, Status};
use crate::sys::{limits, socket};

/// Hands a terminal to the caller, or keeps it for the foreground.
pub struct Console {
    pub socket: Option<OwnedFd>,
    pub kept: Option<OwnedFd>,
}

impl Duties for Console {
    /// One message with some data and one descriptor; nobody may be reading yet, so no answer is waited for.
    fn take_console(&mut self, master: OwnedFd) -> Result<()> {
        match &self.socket {
            Some(socket) => socket::send(socket.as_fd(), b"/dev/pts/ptmx", Some(master.as_fd()))
                .doing("sendmsg", "the console socket")?,
            None => self.kept = Some(master),
        }
        Ok(())
    }
}

/// For a new container.
pub struct Parent<'a> {
    pub plan: &'a Plan,
    pub proc: &'a Proc,
    pub child: Pid,
    pub console: Console,
    pub agent: Option<Agent<'a>>,
    pub id_mapper: IdMapper<'a>,
    pub hooks: &'a dyn Fn() -> Result<()>,
    pub net_devices: Option<&'a Loan<'a>>,
    /// By their names on the host, those that they have inside.
    pub handed_over: BTreeMap<String, String>,
}

impl Parent<'_> {
    /// Of an ordinary user's child only while it asks for its id maps: only then its files in /proc are the user's. To
    /// go below the present value is root's right.
    pub fn set_oom_score(&self) -> Result<()> {
        let Some(value) = self.plan.process.oom_score_adj else { return Ok(()) };
        match self.proc.write_oom_score_adj(self.child, value) {
            Err(error @ SysError { errno: Errno::EACCES, .. }) if self.plan.rootless => {
                log::warning(&format!("process.oomScoreAdj: {error}: left as it is"));
                Ok(())
            }
            result => result.context("process.oomScoreAdj"),
        }
    }
}

impl Duties for Parent<'_> {
    fn take_console(&mut self, master: OwnedFd) -> Result<()> {
        self.console.take_console(master)
    }

    fn map_ids(&mut self) -> Result<()> {
        let plan = self.plan;
        let user = match &plan.id_maps {
            Some(maps) if plan.has_new(Namespace::User) => {
                self.set_oom_score()?;
                id_maps::write(self.proc, self.child, maps)?;
                host_id(&maps.uids.ranges, plan.process.uid)
            }
            expected => {
                if !plan.rootless {
                    self.set_oom_score()?;
                }
                host_id(
                    &id_maps::check_joined(self.proc, self.child, expected.as_ref(), &plan.process)?,
                    plan.process.uid,
                )
            }
        };
        // Root inside does not own what its caller gave it.
        match user.filter(|_| plan.admin && plan.process.terminal.is_none()) {
            Some(user) => stdio::give_to(user),
            None => Ok(()),
        }
    }

    fn take_listener(&mut self, listener: OwnedFd) -> Result<()> {
        let Plan { id, bundle, annotations, .. } = self.plan;
        let (status, pid) = (Status::Creating.word(), Some(self.child.as_raw()));
        let state = hooks::State { oci_version: crate::OCI_VERSION, id, status, pid, bundle, annotations };
        self.agent.take().map_or(Ok(()), |agent| agent.hand_over(&listener, self.child, state))
    }

    fn open_mount(&mut self, index: usize) -> Result<OwnedFd> {
        let Some(mount) = self.plan.mounts.get(index) else { bail!("the child asks for a mount that is not planned") };
        let Source::Bind { from, recursive, symlink } = &mount.source else {
            bail!("{}: has no source to open", mount.field)
        };
        let opened = || {
            let tree = clone_source(from, *recursive, *symlink)?;
            locked(&tree, self.proc.open_namespace(self.child, Namespace::User.file())?.as_fd())
        };
        opened().with_context(|| format!("{}: bind onto {}", mount.field, mount.target))
    }

    fn map_mount(&mut self, index: usize, tree: OwnedFd) -> Result<()> {
        let planned = self.plan.mounts.get(index).and_then(|mount| Some((mount, mount.ids.as_ref()?)));
        let Some((mount, ids)) = planned else { bail!("the child asks for ids that are not planned") };
        let mapped = self.id_mapper.map(self.proc, self.child, ids, tree.as_fd(), &mount.target);
        mapped.with_context(|| format!("{}: bind onto {}", mount.field, mount.target))
    }

    fn run_hooks(&mut self) -> Result<()> {
        (self.hooks)()
    }

    fn raise_limits(&mut self) -> Result<()> {
        raise_limits(self.child, &self.plan.process)
    }

    fn schedule(&mut self) -> Result<()> {
        schedule(self.child, &self.plan.process)
    }

    fn hand_over_net_devices(&mut self) -> Result<()> {
        let Some(loan) = self.net_devices else { bail!("the child asks for devices that are not planned") };
        self.handed_over = loan.hand_over(self.proc, self.child)?;
        Ok(())
    }
}

/// For a process of `exec`.
pub struct ExecParent<'a> {
    pub container: &'a State,
    pub init: Process,
    pub process: &'a ProcessPlan,
    pub child: Pid,
    pub console: Console,
    pub agent: Option<Agent<'a>>,
}

impl Duties for ExecParent<'_> {
    fn take_console(&mut self, master: OwnedFd) -> Result<()> {
        self.console.take_console(master)
    }

    fn take_listener(&mut self, listener: OwnedFd) -> Result<()> {
        let State { id, bundle, annotations, .. } = self.container;
        let (status, pid) = (Status::Running.word(), Some(self.init.pid));
        let state = hooks::State { oci_version: crate::OCI_VERSION, id, status, pid, bundle, annotations };
        self.agent.take().map_or(Ok(()), |agent| agent.hand_over(&listener, self.child, state))
    }

    fn raise_limits(&mut self) -> Result<()> {
        raise_limits(self.child, self.process)
    }

    fn schedule(&mut self) -> Result<()> {
        schedule(self.child, self.process)
    }
}

fn raise_limits(child: Pid, process: &ProcessPlan) -> Result<()> {
    for limit in &process.rlimits {
        limits::set_of(child.as_raw(), limit.resource, limit.soft, limit.hard, &limit.name)
            .with_context(|| format!("process.rlimits: {}", limit.name))?;
    }
    Ok(())
}

/// The child leads a process group of its own.
fn schedule(child: Pid, process: &ProcessPlan) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        let set = scheduling::set_scheduler(child.as_raw(), scheduler);
        set.map_err(|error| scheduling::explained(scheduler, error.into())).context("process.scheduler")?;
    }
    match process.io_priority {
        Some(priority) => scheduling::set_io_priority(child.as_raw(), priority).context("process.ioPriority"),
        None => Ok(()),
    }
}
