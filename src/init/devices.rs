//! Device nodes and the links of /dev. Relative to a descriptor of the directory they lie in: an image whose /dev is a
//! symlink cannot send them elsewhere, into a volume of the host's for one (CVE-2026-41579).

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, makedev, minor, mknodat};
use nix::unistd::{AccessFlags, Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};

use super::Init;
use crate::error::Doing;
use crate::plan::{DeviceKind, DevicePlan, LinkPlan, LinkWhen, Namespace};
use crate::rootfs::{InRoot, Place, Symlinks, kind_of, stat_in};
use crate::sys::mount::{self, Mount, Reach};

impl Init<'_> {
    fn place_of<'p>(&self, path: &'p InRoot) -> Result<(OwnedFd, &'p OsStr)> {
        self.rootfs()?.parent_of(path).map_err(|error| match error.errno {
            Errno::ELOOP => symlink_above(path),
            _ => error.into(),
        })
    }

    pub(super) fn make_device(&mut self, device: &DevicePlan) -> Result<()> {
        let (dir, name) = self.place_of(&device.path)?;
        let (kind, number) = (file_type(device.kind), makedev(device.major, device.minor));
        match mknodat(&dir, name, kind, Mode::from_bits_truncate(device.mode), number) {
            // The spec: one that is there must be the same device. It is left as it is.
            Err(Errno::EEXIST) => return check_existing(device, &dir, name),
            // rrun may not make nodes, but the host has the same one
            Err(Errno::EPERM) if self.plan()?.has(Namespace::Mount) => return self.bind_device(device),
            result => result.doing("mknod", &device.path)?,
        }
        if (device.uid, device.gid) != (0, 0) {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            fchownat(&dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).doing("chown", &device.path)?;
        }
        Ok(())
    }

    fn bind_device(&self, device: &DevicePlan) -> Result<()> {
        let node = node_of_host(device)?;
        let place = self.rootfs()?.mountpoint(&device.path, Place::File, Symlinks::Refused)?;
        Ok(mount::attach(&node, place.fd.as_fd(), &device.path)?)
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

/// What stands in for a device that may not be made: the same one, at its path on the host.
pub fn node_of_host(device: &DevicePlan) -> Result<Mount> {
    let path = format!("{}", device.path);
    let node = mount::clone_tree(Path::new(&path), Reach::One).context("mknod is not permitted; bind the host's")?;
    let stat = fstat(node.as_fd()).doing("fstat", &path)?;
    ensure!(is_device(&stat, device), "mknod is not permitted, and {path} of the host is {}", describe(&stat));
    Ok(node)
}

pub fn symlink_above(path: &InRoot) -> anyhow::Error {
    anyhow!("the image has a symlink above {path}; devices go into real directories only")
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
    refuse_other(device, &stat)
}

pub fn refuse_other(device: &DevicePlan, stat: &FileStat) -> Result<()> {
    ensure!(
        is_device(stat, device),
        "it is already there as {}, not as {}; remove it from the image or correct the entry",
        describe(stat),
        named(file_type(device.kind), device.major, device.minor)
    );
    Ok(())
}

fn is_device(stat: &FileStat, device: &DevicePlan) -> bool {
    let same_number = device.kind == DeviceKind::Fifo || stat.st_rdev == makedev(device.major, device.minor);
    kind_of(stat) == file_type(device.kind) && same_number
}

fn describe(stat: &FileStat) -> String {
    named(kind_of(stat), major(stat.st_rdev), minor(stat.st_rdev))
}

fn named(kind: SFlag, major: u64, minor: u64) -> String {
    match kind {
        SFlag::S_IFCHR => format!("character device {major}:{minor}"),
        SFlag::S_IFBLK => format!("block device {major}:{minor}"),
        SFlag::S_IFIFO => "a FIFO".into(),
        SFlag::S_IFLNK => "a symlink".into(),
        SFlag::S_IFDIR => "a folder".into(),
        _ => "a file".into(),
    }
}
