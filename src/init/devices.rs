//! Device nodes and the links of /dev. Relative to a descriptor of the directory they lie in: an image whose /dev is a
//! symlink cannot send them elsewhere, into a volume of the host's for one (CVE-2026-41579).

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use anyhow::{Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, major, makedev, minor, mknodat};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::Init;
use crate::error::Doing;
use crate::plan::{DeviceKind, DevicePlan, LinkPlan, LinkWhen};
use crate::rootfs::{InRoot, kind_of, stat_in};

impl Init<'_> {
    fn place_of<'p>(&self, path: &'p InRoot) -> Result<(OwnedFd, &'p OsStr)> {
        self.rootfs()?.parent_of(path).map_err(|error| match error.errno {
            Errno::ELOOP => anyhow!("the image has a symlink above {path}; devices go into real directories only"),
            _ => error.into(),
        })
    }

    pub(super) fn make_device(&mut self, device: &DevicePlan) -> Result<()> {
        let (dir, name) = self.place_of(&device.path)?;
        let (kind, number) = (file_type(device.kind), makedev(device.major, device.minor));
        match mknodat(&dir, name, kind, Mode::from_bits_truncate(device.mode), number) {
            // The spec: one that is there must be the same device. It is left as it is.
            Err(Errno::EEXIST) => return check_existing(device, &dir, name),
            result => result.doing("mknod", &device.path)?,
        }
        if (device.uid, device.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            fchownat(&dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).doing("chown", &device.path)?;
        }
        Ok(())
    }

    pub(super) fn make_link(&mut self, link: &LinkPlan) -> Result<()> {
        // /proc is still the host's here; both are the same kernel's.
        if link.when == LinkWhen::KcoreExists && nix::unistd::access("/proc/kcore", AccessFlags::F_OK).is_err() {
            return Ok(());
        }
        let (dir, name) = self.place_of(&link.path)?;
        if link.when == LinkWhen::Always && stat_in(&dir, name).doing("stat", &link.path)?.is_some() {
            unlinkat(&dir, name, UnlinkatFlags::NoRemoveDir).doing("unlink", &link.path)?;
        }
        match symlinkat(link.to.as_str(), &dir, name) {
            Err(Errno::EEXIST) => Ok(()),
            result => Ok(result.doing("symlink", &link.path)?),
        }
    }
}

fn file_type(kind: DeviceKind) -> SFlag {
    match kind {
        DeviceKind::Char => SFlag::S_IFCHR,
        DeviceKind::Block => SFlag::S_IFBLK,
        DeviceKind::Fifo => SFlag::S_IFIFO,
    }
}

fn check_existing(device: &DevicePlan, dir: &OwnedFd, name: &OsStr) -> Result<()> {
    let Some(stat) = stat_in(dir, name).doing("stat", &device.path)? else {
        bail!("{} vanished while it was made", device.path);
    };
    let same_kind = kind_of(&stat) == file_type(device.kind);
    let same_number = device.kind == DeviceKind::Fifo || stat.st_rdev == makedev(device.major, device.minor);
    ensure!(
        same_kind && same_number,
        "{} is already there as {}, not {:?} {}:{}; remove it from the image or correct the entry",
        device.path,
        describe(&stat),
        device.kind,
        device.major,
        device.minor
    );
    Ok(())
}

fn describe(stat: &FileStat) -> String {
    let kind = match kind_of(stat) {
        SFlag::S_IFCHR => "Char",
        SFlag::S_IFBLK => "Block",
        SFlag::S_IFIFO => return "Fifo".into(),
        SFlag::S_IFLNK => return "a symlink".into(),
        SFlag::S_IFDIR => return "a folder".into(),
        _ => return "a file".into(),
    };
    format!("{kind} {}:{}", major(stat.st_rdev), minor(stat.st_rdev))
}
