//! linux.sysctl, through a private procfs: the container's own /proc may be anything (CVE-2025-52881).

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::Init;
use crate::error::{Doing, SysError};
use crate::plan::Sysctl;
use crate::rootfs::kind_of;
use crate::sys::mount::Context as Filesystem;

impl Init<'_> {
    pub(super) fn write_sysctl(&mut self, sysctl: &Sysctl) -> Result<()> {
        let path = format!("sys/{}", sysctl.path);
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(OFlag::O_WRONLY | OFlag::O_CLOEXEC).resolve(resolve);
        let procfs = self.procfs.as_ref().context("no procfs")?;
        let file = match openat2(procfs, path.as_str(), how) {
            Err(Errno::ENOENT) => Err(SysError::new("open", format!("/proc/{path}"), Errno::ENOENT))
                .context("this kernel has no such sysctl, or its module is not loaded")?,
            result => result.doing("open", format_args!("/proc/{path}"))?,
        };
        let magic = fstatfs(&file).doing("fstatfs", &path)?.filesystem_type();
        let regular = kind_of(&fstat(&file).doing("fstat", &path)?) == SFlag::S_IFREG;
        ensure!(magic == PROC_SUPER_MAGIC && regular, "/proc/{path} is no sysctl");
        let value = sysctl.value.as_bytes();
        let written =
            nix::unistd::write(&file, value).doing("write", format_args!("{} to /proc/{path}", sysctl.value))?;
        ensure!(written == value.len(), "the value {} was taken in part only", sysctl.value);
        Ok(())
    }

    pub(super) fn open_private_procfs(&mut self) -> Result<()> {
        let flags = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let mount = Filesystem::new("proc")?.mount(flags)?;
        let magic = fstatfs(mount.as_fd()).doing("fstatfs", "procfs")?.filesystem_type();
        ensure!(magic == PROC_SUPER_MAGIC, "a new procfs is none");
        self.procfs = Some(mount.into());
        Ok(())
    }
}
