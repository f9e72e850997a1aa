//! The parent's half of a start: one clone3, then the child is served until it is ready or has failed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;

use crate::cgroup::UnifiedHandles;
use crate::error::{Doing, SysError};
use crate::init::{self, Handles, Joined, StartHandles};
use crate::plan::choreography::Enter;
use crate::plan::{Descriptors, Namespace, Plan};
use crate::procfs::Proc;
use crate::protocol::{Ask, Channel, Ready};
use crate::rootfs::open_host_directory;
use crate::sys::clone::{self, Child, pidfd_send_signal};
use crate::sys::fds;

use self::gate::{Attach, Gate};
use self::stages::{Around, Entry};

pub mod foreground;
pub mod gate;
pub mod holder;
pub mod id_maps;
pub mod image;
pub mod interrupts;
pub mod join;
pub mod joined;
pub mod lock_flags;
pub mod mount_ids;
pub mod probe;
pub mod seal;
pub mod serve;
pub mod stages;

/// To join a user namespace takes two processes: the first tells of the second, and ends.
fn second(first: &Child, channel: &Channel) -> Result<Child> {
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    let said = loop {
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            Ok(0) => break Err(anyhow!("joining namespaces did not end within {} s", PATIENCE.as_secs())),
            result => break result.doing("poll", "the child").map_err(Into::into).and_then(|_| channel.listen()),
        }
    };
    if said.is_err() {
        // ESRCH: it has ended
        let _ = pidfd_send_signal(first.pidfd.as_fd(), libc::SIGKILL);
    }
    let end = serve::reap(first);
    match said? {
        Some((Ask::Born, Some(pidfd))) => Ok(Child { pid: Proc::open()?.pid_of(pidfd.as_fd())?, pidfd }),
        Some((Ask::Failed(report), _)) => Err(report.into_error()),
        _ => bail!("init ended while it joined namespaces: {:?}", end?),
    }
}

/// rrun's working directory, for as long as this lives.
struct Stand {
    before: OwnedFd,
}

impl Stand {
    fn at(path: &Path) -> Result<Self, SysError> {
        let before = open_host_directory(Path::new("."))?;
        nix::unistd::chdir(path).doing("chdir", path.display())?;
        Ok(Self { before })
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = nix::unistd::fchdir(&self.before);
    }
}

/// A child at a closed gate is let through when it is where it belongs; or ended.
fn put_in_place(child: &Child, waits: Option<(Attach, Gate)>) -> Result<()> {
    let Some((attach, gate)) = waits else { return Ok(()) };
    let attached = attach(child.pid).and_then(|()| Ok(gate.open()?));
    if attached.is_err() {
        // ESRCH: it has ended
        let _ = pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
        serve::reap(child)?;
    }
    attached.context("join cgroups")
}

/// What the parent made ready for the child.
pub struct Prepared<'a> {
    /// None for a container that comes from an image: it has been started before.
    pub start: Option<StartHandles>,
    /// `tasks` of every v1 hierarchy.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
    /// The v2 directory that the child is born into.
    pub unified: Option<UnifiedHandles>,
    /// Who puts the child there if it may not go by itself.
    pub attach: Option<Attach<'a>>,
    /// Of `joined::open`.
    pub joins: Vec<Joined>,
}

/// A child that is setting itself up.
pub struct Launched {
    pub child: Child,
    pub channel: Channel,
    pub ready: Ready,
}

/// For the few calls by which a process gets into namespaces.
const PATIENCE: Duration = Duration::from_secs(10);

/// The kernel cannot clone into this cgroup: it is older than 5.7, or a sandbox or a threaded domain forbids it.
const CANNOT_CLONE_INTO: &[Errno] =
    &[Errno::ENOSYS, Errno::E2BIG, Errno::EINVAL, Errno::EACCES, Errno::EOPNOTSUPP, Errno::EBUSY];

/// A child in its cgroup of the v2 tree. Where the kernel cannot have it born there, it joins by the door that it is told of,
/// and waits at a gate in its place if it may not.
fn born_in(
    unified: Option<UnifiedHandles>,
    gated: bool,
    mut spawn: impl FnMut(Option<BorrowedFd>, Option<(PathBuf, OwnedFd)>) -> Result<Child, SysError>,
) -> Result<(Child, Option<Gate>), SysError> {
    let Some(UnifiedHandles { path, directory, procs }) = unified else { return Ok((spawn(None, None)?, None)) };
    match spawn(Some(directory.as_fd()), None) {
        Err(SysError { errno, .. }) if CANNOT_CLONE_INTO.contains(&errno) => {
            let (gate, door) = match errno {
                Errno::EACCES if gated => Gate::new().map(|(gate, outside)| (Some(gate), outside))?,
                _ => (None, procs),
            };
            Ok((spawn(None, Some((path, door)))?, gate))
        }
        result => Ok((result?, None)),
    }
}

pub fn launch(plan: &Plan, prepared: Prepared) -> Result<Launched> {
    let choreography = plan.choreography();
    let by_parent = |joined: &Joined| choreography.around.contains(&Enter::Join(joined.kind));
    let (around, inside): (Vec<_>, Vec<_>) = prepared.joins.into_iter().partition(by_parent);
    let offsets: &[_] = if choreography.around.contains(&Enter::TimeOffsets) { &plan.time_offsets } else { &[] };
    let around = Around { entries: around.iter().map(Entry::from).collect(), offsets };
    let flags = choreography.clone.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    let (channel, childs_channel) = Channel::pair()?;
    let ready = Ready::new()?;
    let parent = clone::pidfd_open(nix::unistd::getpid())?;
    let childs_ready = ready.try_clone()?;
    let mut handles = Some(Handles {
        channel: childs_channel,
        ready: childs_ready,
        start: prepared.start,
        parent,
        cgroups: prepared.tasks,
        joins: inside,
        container: None,
    });
    // Only the copy runs this, so `handles` stays with the original, which may have to try again.
    let spawn = |into: Option<BorrowedFd>, handles: &mut Option<Handles>| {
        clone::spawn(flags, into, || match handles.take() {
            Some(handles) => init::main(plan, handles),
            None => 1,
        })
    };
    // In a user namespace the child may not get to the rootfs by its path.
    let _back = plan.has(Namespace::User).then(|| Stand::at(&plan.root.path)).transpose()?;
    let mut closed = None;
    let gated = prepared.attach.is_some();
    let child = stages::within(&around, || {
        let (child, gate) = born_in(prepared.unified, gated, |into, door| {
            if let Some(handles) = &mut handles {
                handles.cgroups.extend(door);
            }
            spawn(into, &mut handles)
        })?;
        closed = gate;
        Ok(child)
    })?;
    put_in_place(&child, prepared.attach.zip(closed))?;
    let child = match plan.joins(Namespace::User) {
        true => second(&child, &channel)?,
        false => child,
    };
    // They are the container's: a copy of ours would keep a pipe from its end for as long as rrun stays.
    fds::close_inherited(Descriptors::FIRST, plan.process.descriptors.end());
    Ok(Launched { child, channel, ready })
}
