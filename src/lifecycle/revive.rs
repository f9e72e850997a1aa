//! Processes from images: where init would be launched, CRIU is. How the container comes up around them is not known here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use nix::unistd::Pid;

use super::images::{self, Images};
use crate::criu::program::{FIRST_GIVEN, Start};
use crate::criu::request::{self, Flags, Restored};
use crate::criu::{Session, Word};
use crate::launch::Prepared;
use crate::launch::image::{self, Finish};
use crate::launch::interrupts::Interrupts;
use crate::launch::serve::Duties;
use crate::log;
use crate::plan::{Namespace, Plan};
use crate::procfs::Proc;
use crate::rootfs::{InRoot, Rootfs, leads_to, open_host_directory};
use crate::sys::clone::{Child, pidfd_open};

const LOG: &str = "restore.log";

/// What a container is restored from.
pub struct Image<'a> {
    pub images: Images,
    pub flags: &'a Flags,
    pub start: Start,
}

/// A container that CRIU has begun to restore: its first process is there.
pub struct Revived<'p> {
    plan: &'p Plan,
    session: Session,
    pub child: Child,
}

impl Image<'_> {
    /// Leaves to the plan what a restore does.
    pub fn fit(&self, plan: &mut Plan) -> Result<()> {
        request::refuse_impossible(plan)?;
        if !plan.has_new(Namespace::Network) {
            // they are where they were moved to, as that namespace is
            plan.net_devices.clear();
        }
        plan.joined.iter().try_for_each(|join| request::refuse_joined(join.kind, &join.field))
    }

    /// `root` is a directory that CRIU has the rootfs at.
    pub fn revive<'p>(
        &self,
        plan: &'p Plan,
        mut prepared: Prepared,
        root: &Path,
        interrupts: &Interrupts,
    ) -> Result<Revived<'p>> {
        self.images.refuse_fifos()?;
        let config = images::config(plan)?;
        let pipes = request::pipes(&self.images.read_descriptors()?);
        let joins = std::mem::take(&mut prepared.joins);
        let given: Vec<_> = joins.iter().filter(|join| request::is_outside(join.kind)).collect();
        let fds: Vec<BorrowedFd> = given.iter().map(|join| join.fd.as_fd()).collect();
        let directories = self.images.directories();
        let (child, socket) = image::launch(plan, prepared, &self.start, root, &directories, &fds)?;
        let session = Session::with(child, socket, self.images.log(LOG)?);
        let begun = || -> Result<Child> {
            session.check_version(Some(interrupts))?;
            let mut inherited = pipes.clone();
            let outside = given.iter().zip(FIRST_GIVEN + directories.len() as i32..);
            inherited.extend(outside.map(|(join, number)| (request::outside(join.kind), number)));
            // by rrun's descriptor: the namespace that was looked at
            let file = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
            let others = joins.iter().filter(|join| !request::is_outside(join.kind));
            let rootfs = &plan.root.path;
            let restored = Restored {
                root: root.into(),
                mounts: request::restored_mounts(plan, |target| resolved(rootfs, target).ok().flatten()),
                inherited,
                joined: others.map(|join| (join.kind, file(&join.fd))).collect(),
                cgroups: request::cgroup_roots(&Proc::own()?.cgroups(session.pid())?),
            };
            let files = self.images.given_files(FIRST_GIVEN, LOG, config.clone());
            session.send(&request::restore(self.flags, &files, &restored))?;
            first_process(&session, interrupts)
        };
        match begun() {
            Ok(child) => Ok(Revived { plan, session, child }),
            Err(error) => {
                session.give_up();
                Err(error)
            }
        }
    }
}

/// It is there from the notice on that says so, in its namespaces, and has nothing of the container in them yet.
fn first_process(session: &Session, interrupts: &Interrupts) -> Result<Child> {
    loop {
        match session.next(Some(interrupts))? {
            Word::Notice { script, pid: Some(pid), .. } if script == NAMESPACES => {
                return Ok(Child { pid, pidfd: pidfd_open(pid)? });
            }
            Word::Notice { script, .. } => {
                log::debug(format_args!("criu: {script}"));
                session.go_on()?;
            }
            Word::Done => bail!("criu: it is done without having told of a process"),
        }
    }
}

/// What config.json says of namespaces, later commands rely on; images bring those that a container had.
fn has_namespaces(plan: &Plan, pid: Pid) -> Result<()> {
    use Namespace::{Ipc, Network, Pid as Processes, User, Uts};
    let proc = Proc::own()?;
    for kind in [User, Processes, Network, Ipc, Uts].into_iter().filter(|kind| !plan.joins(*kind)) {
        let has_own = !proc.share_namespace(pid, kind.file())?;
        ensure!(
            has_own == plan.has_new(kind),
            "linux.namespaces: the images {} {} namespace of their own, and config.json says otherwise; restore by the \
             config.json that they were made by",
            if has_own { "have a" } else { "have no" },
            kind.file()
        );
    }
    Ok(())
}

const NAMESPACES: &str = "setup-namespaces";

/// Where a destination leads to in the rootfs, as far as that is there by now.
fn resolved(rootfs: &Path, target: &InRoot) -> Result<Option<PathBuf>> {
    let top = open_host_directory(rootfs)?;
    let Some(place) = Rootfs::new(top).find(target)? else { return Ok(None) };
    Ok(leads_to(&place)?.strip_prefix(rootfs).ok().map(|inside| Path::new("/").join(inside)))
}

impl Revived<'_> {
    /// Until everything of it is there and nothing runs yet.
    pub fn serve(&self, interrupts: &Interrupts, duties: &mut impl Duties) -> Result<()> {
        let plan = self.plan;
        has_namespaces(plan, self.child.pid)?;
        if !plan.net_devices.is_empty() {
            duties.hand_over_net_devices()?;
        }
        if plan.has_new(Namespace::Network) {
            image::finish(&self.child, Finish::Loopback)?;
        }
        if plan.hooks.at_create() {
            duties.run_hooks()?;
        }
        loop {
            self.session.go_on()?;
            match self.session.next(Some(interrupts))? {
                Word::Notice { script, .. } if script == "post-restore" => break,
                Word::Notice { script, fd: Some(master), .. } if script == "orphan-pts-master" => {
                    duties.take_console(master)?;
                }
                Word::Notice { script, .. } => log::debug(format_args!("criu: {script}")),
                Word::Done => bail!("criu: it is done without having told of the end"),
            }
        }
        if plan.root.readonly {
            image::finish(&self.child, Finish::ReadonlyRoot)?;
        }
        if plan.process.no_new_privileges && !Proc::own()?.has_no_new_privs(self.child.pid)? {
            // only a process itself can give up rights
            log::warning("process.noNewPrivileges: this criu does not bring it back; a newer one may");
        }
        Ok(())
    }

    /// Everything is recorded: it may run.
    pub fn commit(&self, interrupts: &Interrupts) -> Result<()> {
        self.session.go_on()?;
        loop {
            match self.session.next(Some(interrupts))? {
                Word::Done => return self.session.end(),
                Word::Notice { .. } => self.session.go_on()?,
            }
        }
    }

    /// Before its processes are ended, which it holds.
    pub fn end(&self) {
        self.session.kill();
    }
}
