//! Which security modules this kernel has switched on. Looked at only where a config names a profile or a label, so that
//! a container without any asks nothing.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use serde::Serialize;

use crate::error::{Doing, SysError};

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Security {
    pub apparmor: bool,
    pub selinux: bool,
}

impl Security {
    pub fn detect() -> Result<Self> {
        let root = File::open("/").doing("open", "/")?;
        Self::below(root.as_fd()).context("security modules")
    }

    /// Of the host whose root this is.
    fn below(root: BorrowedFd) -> Result<Self, SysError> {
        let apparmor = read(root, "sys/module/apparmor/parameters/enabled")?.is_some_and(|text| text.starts_with(b"Y"));
        let mounts = read(root, "proc/self/mountinfo")?.unwrap_or_default();
        let selinux = manages_selinux(&mounts) && has_policy(read(root, "proc/self/attr/current")?.as_deref());
        Ok(Self { apparmor, selinux })
    }
}

/// A selinuxfs that may be written to: where SELinux is off there is none, and a container that has no say in labels is
/// given one that is read-only. libselinux looks at the same.
fn manages_selinux(mountinfo: &[u8]) -> bool {
    mountinfo.split(|byte| *byte == b'\n').any(|line| {
        let Some(separator) = line.windows(3).position(|bytes| bytes == b" - ") else { return false };
        let mut filesystem = line[separator + 3..].split(|byte| *byte == b' ');
        let mut options =
            line[..separator].split(|byte| *byte == b' ').nth(5).unwrap_or_default().split(|b| *b == b',');
        filesystem.next() == Some(b"selinuxfs") && options.all(|option| option != b"ro")
    })
}

/// Until one is loaded every process is called `kernel`.
fn has_policy(own_label: Option<&[u8]>) -> bool {
    own_label.is_some_and(|label| label.trim_ascii().strip_suffix(b"\0").unwrap_or(label.trim_ascii()) != b"kernel")
}

/// `None` where there is no such file. A module that is off may refuse to be read (EINVAL).
fn read(root: BorrowedFd, path: &str) -> Result<Option<Vec<u8>>, SysError> {
    let file = match openat(root, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(None),
        file => file.doing("open", format_args!("/{path}"))?,
    };
    let mut bytes = Vec::new();
    match File::from(file).take(u64::MAX).read_to_end(&mut bytes) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        result => result.doing("read", format_args!("/{path}")).map(|_| Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITH_SELINUX: &str = "22 1 0:20 / /proc rw - proc proc rw\n\
        30 23 0:22 / /sys/fs/selinux rw,nosuid,noexec,relatime shared:9 - selinuxfs selinuxfs rw\n";

    /// A host of which only these files are known.
    fn host(files: &[(&str, &str)]) -> Security {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Security::below(File::open(root.path()).unwrap().as_fd()).unwrap()
    }

    #[test]
    fn apparmor_says_whether_it_is_on() {
        const ENABLED: &str = "sys/module/apparmor/parameters/enabled";
        for (files, on) in [(&[][..], false), (&[(ENABLED, "Y\n")], true), (&[(ENABLED, "N\n")], false)] {
            assert_eq!(host(files), Security { apparmor: on, selinux: false }, "{files:?}");
        }
    }

    #[test]
    fn selinux_is_on_where_its_files_may_be_written_and_a_policy_is_loaded() {
        let label = "system_u:system_r:container_runtime_t:s0\0";
        let (mounts, current) = ("proc/self/mountinfo", "proc/self/attr/current");
        let readonly = WITH_SELINUX.replace("selinux rw", "selinux ro");
        for (files, on) in [
            (vec![(mounts, WITH_SELINUX), (current, label)], true),
            (vec![(mounts, WITH_SELINUX), (current, "kernel\0")], false),
            (vec![(mounts, WITH_SELINUX), (current, "kernel")], false),
            (vec![(mounts, WITH_SELINUX)], false),
            (vec![(mounts, &readonly), (current, label)], false),
            (vec![(mounts, "22 1 0:20 / /selinuxfs rw - tmpfs selinuxfs rw\n"), (current, label)], false),
            (vec![(mounts, ""), (current, "docker-default (enforce)\n")], false),
        ] {
            assert_eq!(host(&files), Security { apparmor: false, selinux: on }, "{files:?}");
        }
    }

    #[test]
    fn this_very_host_can_be_asked() {
        Security::detect().unwrap();
    }
}
