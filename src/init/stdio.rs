//! Descriptors 0 to 2 of a container without a terminal: the caller's own, with the container's /dev/null for the
//! host's.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, SFlag, fstat, makedev};
use nix::unistd::{Uid, fchown};

use super::Init;
use crate::error::Doing;
use crate::rootfs::{InRoot, Symlinks, kind_of};
use crate::sys::fds;

fn is_null_device(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && stat.st_rdev == makedev(1, 3)
}

impl Init<'_> {
    /// The host's would stay open in the container, on the host's mount.
    pub(super) fn replace_dev_null(&mut self) -> Result<()> {
        let mut own = None;
        for (number, fd) in fds::stdio().into_iter().enumerate() {
            if !is_null_device(&fstat(fd).doing("fstat", number)?) {
                continue;
            }
            if own.is_none() {
                own = self.open_dev_null()?;
            }
            let Some(null) = &own else { break };
            fds::install(null, number as i32)?;
        }
        Ok(())
    }

    /// A container need not have one; and what it has may be anything (CVE-2026-88265).
    fn open_dev_null(&self) -> Result<Option<OwnedFd>> {
        let path = InRoot::new("/dev/null");
        let Ok(place) = self.rootfs()?.open_errno(&path, OFlag::O_PATH, Symlinks::Refused) else { return Ok(None) };
        if !is_null_device(&fstat(&place).doing("fstat", &path)?) {
            return Ok(None);
        }
        let null = self.rootfs()?.open(&path, OFlag::O_RDWR)?;
        Ok(is_null_device(&fstat(&null).doing("fstat", &path)?).then_some(null))
    }

    pub(super) fn own_stdio(&mut self, uid: u32) -> Result<()> {
        give_to(uid)
    }
}

/// So that the user may reopen them by /proc/self/fd or /dev/stdout. Pipes, sockets and terminals only: a regular file
/// is the caller's.
pub fn give_to(uid: u32) -> Result<()> {
    for (number, fd) in fds::stdio().into_iter().enumerate() {
        let stat = fstat(fd).doing("fstat", number)?;
        let transferable = match kind_of(&stat) {
            SFlag::S_IFIFO | SFlag::S_IFSOCK => true,
            SFlag::S_IFCHR => nix::unistd::isatty(fd).unwrap_or(false),
            _ => false,
        };
        if !transferable || stat.st_uid == uid {
            continue;
        }
        match fchown(fd.as_fd(), Some(Uid::from_raw(uid)), None) {
            Err(Errno::EPERM | Errno::EROFS | Errno::EINVAL) => {}
            result => result.doing("chown", format_args!("descriptor {number}"))?,
        }
    }
    Ok(())
}
