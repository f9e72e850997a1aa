//! The parent's half of a start: one clone3, then the child is served until it is ready or has failed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::errno::Errno;

use crate::cgroup::UnifiedHandles;
use crate::error::{Doing, SysError};
use crate::init::{self, Handles, StartHandles};
use crate::plan::{Descriptors, Plan};
use crate::protocol::{Channel, Ready};
use crate::rootfs::open_host_directory;
use crate::sys::clone::{self, Child};
use crate::sys::fds;

pub mod choreography;
pub mod foreground;
pub mod id_maps;
pub mod interrupts;
pub mod seal;
pub mod serve;

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

/// What the parent made ready for the child.
pub struct Prepared {
    pub start: StartHandles,
    /// `tasks` of every v1 hierarchy.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
    /// The v2 directory that the child is born into.
    pub unified: Option<UnifiedHandles>,
}

/// A child that is setting itself up.
pub struct Launched {
    pub child: Child,
    pub channel: Channel,
    pub ready: Ready,
}

/// The kernel cannot clone into this cgroup: it is older than 5.7, or a sandbox or a threaded domain forbids it.
const CANNOT_CLONE_INTO: &[Errno] =
    &[Errno::ENOSYS, Errno::E2BIG, Errno::EINVAL, Errno::EACCES, Errno::EOPNOTSUPP, Errno::EBUSY];

pub fn launch(plan: &Plan, prepared: Prepared) -> Result<Launched> {
    let moves = choreography::choreography(&plan.namespaces);
    let (channel, childs_channel) = Channel::pair()?;
    let ready = Ready::new()?;
    let parent = clone::pidfd_open(nix::unistd::getpid())?;
    let childs_ready = ready.try_clone()?;
    let mut handles = Some(Handles {
        channel: childs_channel,
        ready: childs_ready,
        start: Some(prepared.start),
        parent,
        cgroups: prepared.tasks,
    });
    // Only the copy runs this, so `handles` stays with the original, which may have to try again.
    let spawn = |into: Option<BorrowedFd>, handles: &mut Option<Handles>| {
        clone::spawn(moves.clone, moves.new_time, into, || match handles.take() {
            Some(handles) => init::main(plan, handles),
            None => 1,
        })
    };
    // In a new user namespace the child may not get to the rootfs by its path.
    let _back = plan.id_maps.is_some().then(|| Stand::at(&plan.root.path)).transpose()?;
    let child = match prepared.unified {
        None => spawn(None, &mut handles)?,
        Some(UnifiedHandles { path, directory, procs }) => match spawn(Some(directory.as_fd()), &mut handles) {
            Err(SysError { errno, .. }) if CANNOT_CLONE_INTO.contains(&errno) => {
                if let Some(handles) = &mut handles {
                    handles.cgroups.push((path, procs));
                }
                spawn(None, &mut handles)?
            }
            result => result?,
        },
    };
    // They are the container's: a copy of ours would keep a pipe from its end for as long as rrun stays.
    fds::close_inherited(Descriptors::FIRST, plan.process.descriptors.end());
    Ok(Launched { child, channel, ready })
}
