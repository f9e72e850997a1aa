//! A container that comes from an image: CRIU is started where init would be, in the container's cgroups, and makes
//! processes that are rrun's children.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

use super::serve::reap;
use super::{Prepared, born_in, put_in_place};
use crate::criu::program::Start;
use crate::error::Doing;
use crate::init::{Handles, image};
use crate::plan::{Namespace, Plan};
use crate::protocol::{Ask, Channel, Ready};
use crate::sys::clone::{self, Child, End, pidfd_send_signal};
use crate::sys::mount::{self, Attributes, Reach};
use crate::sys::network;

/// CRIU in the container's cgroups, with the rootfs at `place`, which nobody else sees. It is given `directories`, and then
/// `given`, beside its socket, of which the other end is returned.
pub fn launch(
    plan: &Plan,
    prepared: Prepared,
    start: &Start,
    place: &Path,
    directories: &[&Path],
    given: &[BorrowedFd],
) -> Result<(Child, OwnedFd)> {
    let (channel, childs_channel) = Channel::pair()?;
    let mut handles = Some(Handles {
        channel: childs_channel,
        ready: Ready::new()?,
        start: None,
        parent: clone::pidfd_open(nix::unistd::getpid())?,
        cgroups: prepared.tasks,
        joins: Vec::new(),
        container: None,
    });
    let (child, gate) = born_in(prepared.unified, prepared.attach.is_some(), |into, door| {
        if let Some(handles) = &mut handles {
            handles.cgroups.extend(door);
        }
        clone::spawn(CloneFlags::CLONE_NEWNS, into, || match handles.take() {
            Some(handles) => image::main(plan, handles, place, directories, |socket, opened| {
                let given: Vec<_> = opened.iter().map(AsFd::as_fd).chain(given.iter().copied()).collect();
                drop(start.execute(socket.as_fd(), &given));
            }),
            None => 1,
        })
    })?;
    drop(handles);
    put_in_place(&child, prepared.attach.zip(gate))?;
    let failed = match hear(&channel) {
        Ok(socket) => return Ok((child, socket)),
        Err(error) => error,
    };
    // ESRCH: it has ended
    let _ = pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    reap(&child)?;
    Err(failed)
}

/// Its end of the channel is closed by execve: from there on it is in its place.
fn hear(channel: &Channel) -> Result<OwnedFd> {
    let socket = match channel.listen()? {
        Some((Ask::Socket, Some(socket))) => socket,
        Some((Ask::Failed(report), _)) => return Err(report.into_error()),
        Some(_) => bail!("the child asks for what it has no need of"),
        None => bail!("its process ended before it became criu"),
    };
    match channel.listen()? {
        None => Ok(socket),
        Some(_) => bail!("the child speaks on after its last word"),
    }
}

/// What CRIU leaves undone in namespaces that it has made, or made anew from an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A new network namespace has its loopback down.
    Loopback,
    /// CRIU has written into the root, so it could not be read-only.
    ReadonlyRoot,
}

/// By a child that goes in and ends: rrun itself would lose its working directory.
pub fn finish(container: &Child, what: Finish) -> Result<()> {
    let kind = if what == Finish::Loopback { Namespace::Network } else { Namespace::Mount };
    let child = clone::fork(|| {
        let work = || -> Result<()> {
            setns(&container.pidfd, kind.flag()).doing("setns", kind.file())?;
            match what {
                Finish::Loopback => Ok(network::bring_loopback_up()?),
                Finish::ReadonlyRoot => {
                    let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
                    Ok(mount::set_attributes_at(Path::new("/"), readonly, Reach::One)?)
                }
            }
        };
        work().is_err().into()
    })?;
    let end = reap(&child)?;
    ensure!(
        end == End::Exited(0),
        "{}",
        match what {
            Finish::Loopback => "the container's loopback interface cannot be brought up",
            Finish::ReadonlyRoot => "root.readonly: the container's root cannot be made read-only",
        }
    );
    Ok(())
}
