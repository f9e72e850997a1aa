//! Locks what the host has set on a mount, such as `ro`, before it goes to a container with a user namespace.
//!
//! The kernel locks the flags of mounts only where a mount namespace is copied for another user namespace (lock_mnt_tree of
//! the kernel). What the parent opens for a child that cannot reach it would go there without, and root inside could make
//! it writable. So it is taken through such a copy, by a process that ends at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use super::serve::reap;
use crate::error::{Doing, SysError};
use crate::rootfs::kind_of;
use crate::sys::clone;
use crate::sys::mount::{self, Attributes, Context as Filesystem, Mount, Reach};
use crate::sys::socket;

/// In the mount namespaces of that process: a directory that every host has, and a name in what is mounted there.
const PLACE: &str = "/proc";
const NAME: &str = "it";

/// `tree`, attached nowhere, as it would be found in a mount namespace of that user namespace.
pub fn locked(tree: &Mount, user: BorrowedFd) -> Result<OwnedFd> {
    let (hears, tells) = socket::pair()?;
    let mut hears_too = Some(hears.try_clone().doing("dup", "socket")?);
    let helper = clone::spawn(CloneFlags::empty(), None, || {
        hears_too = None;
        let told = match take_through(tree, user) {
            Ok(locked) => socket::send(tells.as_fd(), b"locked", Some(locked.as_fd())),
            Err(error) => socket::send(tells.as_fd(), error.to_string().as_bytes(), None),
        };
        told.is_err().into()
    })?;
    drop((hears_too, tells));
    let mut said = Vec::new();
    let received = socket::receive(hears.as_fd(), &mut said).doing("recvmsg", "the locked mount");
    reap(&helper)?;
    received?.with_context(|| format!("the flags of the host cannot be locked: {}", String::from_utf8_lossy(&said)))
}

fn take_through(tree: &Mount, user: BorrowedFd) -> Result<Mount, SysError> {
    unshare(CloneFlags::CLONE_NEWNS).doing("unshare", "mount")?;
    // nothing that follows is the host's
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    mount::set_attributes_at(Path::new("/"), slave, Reach::Recursive)?;
    let stage = Filesystem::new("tmpfs")?.mount(0)?;
    let inside = mount::reopen_directory(&stage)?;
    let is_directory = kind_of(&fstat(tree.as_fd()).doing("fstat", "the source")?) == SFlag::S_IFDIR;
    let made = match is_directory {
        true => mkdirat(&inside, NAME, Mode::S_IRWXU),
        false => make_file(&inside),
    };
    made.doing("make", NAME)?;
    let place = crate::rootfs::open_host_directory(Path::new(PLACE))?;
    mount::attach(&stage, place.as_fd(), PLACE)?;
    mount::attach_in(tree, inside.as_fd(), NAME, PLACE)?;
    setns(user, CloneFlags::CLONE_NEWUSER).doing("setns", "user")?;
    unshare(CloneFlags::CLONE_NEWNS).doing("unshare", "mount")?;
    mount::clone_tree_nofollow(&Path::new(PLACE).join(NAME), Reach::Recursive)
}

fn make_file(directory: &OwnedFd) -> Result<(), Errno> {
    let flags = OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(directory, NAME, flags, Mode::S_IRUSR).map(drop)
}
