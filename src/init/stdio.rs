//! Descriptors 0 to 2 of a container without a terminal: the caller's own, with the container's /dev/null for the
//! host's.

use std::os::fd::AsFd;

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
        for (number, fd) in fds::stdio().into_iter().enumerate() {
            if !is_null_device(&fstat(fd).doing("fstat", number)?) {
                continue;
            }
            // A container need not have one; and what it has may be anything (CVE-2026-88265).
            let path = InRoot::new("/dev/null");
            let Ok(place) = self.rootfs()?.open_errno(&path, OFlag::O_PATH, Symlinks::Refused) else { continue };
            if is_null_device(&fstat(&place).doing("fstat", &path)?) {
                let null = self.rootfs()?.open(&path, OFlag::O_RDWR)?;
                if is_null_device(&fstat(&null).doing("fstat", &path)?) {
                    fds::install(&null, number as i32)?;
                }
            }
        }
        Ok(())
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
