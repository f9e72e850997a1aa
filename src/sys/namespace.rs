//! Namespaces by descriptor: ioctl_ns(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::statfs::{FsType, fstatfs};

/// nix does not name it: it shares its bit with clone's exit signal, so only clone3, unshare and setns know it.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// NSFS_MAGIC of linux/magic.h.
const NSFS: FsType = FsType(0x6e73_6673);

/// NS_GET_NSTYPE of linux/nsfs.h: _IO(0xb7, 3).
const GET_TYPE: libc::c_ulong = 0xb703;

/// The kind of a namespace's file, as the flag that makes one; `None` when it is no namespace.
pub fn kind_of(fd: BorrowedFd) -> Result<Option<CloneFlags>, Errno> {
    // Looked at first: to some device the number could mean something.
    if fstatfs(fd)?.filesystem_type() != NSFS {
        return Ok(None);
    }
    // SAFETY: the call takes no pointer.
    let kind = Errno::result(unsafe { libc::ioctl(fd.as_raw_fd(), GET_TYPE as _) })?;
    Ok(Some(CloneFlags::from_bits_retain(kind)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn each_kind_is_known() {
        let kind = |path: &str| kind_of(File::open(path).unwrap().as_fd()).unwrap();
        for (file, want) in [
            ("pid", CloneFlags::CLONE_NEWPID),
            ("net", CloneFlags::CLONE_NEWNET),
            ("mnt", CloneFlags::CLONE_NEWNS),
            ("ipc", CloneFlags::CLONE_NEWIPC),
            ("uts", CloneFlags::CLONE_NEWUTS),
            ("user", CloneFlags::CLONE_NEWUSER),
            ("cgroup", CloneFlags::CLONE_NEWCGROUP),
            ("time", CLONE_NEWTIME),
        ] {
            assert_eq!(kind(&format!("/proc/self/ns/{file}")), Some(want), "{file}");
        }
        for other in ["/", "/proc/self/status", "/dev/null"] {
            assert_eq!(kind(other), None, "{other}");
        }
    }
}
