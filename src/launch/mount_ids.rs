//! Id-mapped mounts, the parent's half: a user namespace with the maps, and mount_setattr(2) on what the child opened.
//!
//! The kernel takes a user namespace for a map. The container's serves where its maps are meant; for others a process is
//! made in a new one, given the maps, and ended: the descriptor keeps the namespace.

use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::statfs::fstatfs;
use nix::unistd::Pid;

use super::holder::Holder;
use crate::error::SysError;
use crate::plan::id_maps::{IdRange, lines};
use crate::plan::{MountIds, MountMaps, Namespace};
use crate::procfs::Proc;
use crate::sys::mount::{self, Reach};

/// Keeps the namespaces that were made: mounts of one container often have one map.
#[derive(Default)]
pub struct IdMapper<'p> {
    made: Vec<(&'p MountMaps, OwnedFd)>,
}

impl<'p> IdMapper<'p> {
    pub fn map(
        &mut self,
        proc: &Proc,
        child: Pid,
        ids: &'p MountIds,
        tree: BorrowedFd,
        target: impl Display,
    ) -> Result<()> {
        let made = self.made.iter().position(|(maps, _)| *maps == &ids.maps);
        let place = made.unwrap_or(self.made.len());
        if made.is_none() {
            let namespace = match &ids.maps {
                MountMaps::Container => proc.open_namespace(child, Namespace::User.file())?,
                MountMaps::Own { uids, gids } => user_namespace(proc, uids, gids)?,
            };
            self.made.push((&ids.maps, namespace));
        }
        let namespace = &self.made[place].1;
        let mapped = mount::map_ids(tree, namespace.as_fd(), Reach::recursive(ids.recursive), target);
        match mapped {
            Err(error @ SysError { errno: Errno::EINVAL, .. }) => {
                let below = if ids.recursive { ", or of a mount below it" } else { "" };
                Err(error).with_context(|| {
                    format!("this kernel cannot map ids of {}{below}; leave idmap out", file_system(tree))
                })
            }
            result => Ok(result?),
        }
    }
}

/// A user namespace that nobody is in.
fn user_namespace(proc: &Proc, uids: &[IdRange], gids: &[IdRange]) -> Result<OwnedFd> {
    let holder = Holder::in_new(CloneFlags::CLONE_NEWUSER)?;
    write_maps(proc, holder.pid(), uids, gids)?;
    Ok(proc.open_namespace(holder.pid(), Namespace::User.file())?)
}

fn write_maps(proc: &Proc, holder: Pid, uids: &[IdRange], gids: &[IdRange]) -> Result<()> {
    proc.write(holder, "uid_map", &lines(uids)).context("uidMappings")?;
    proc.write(holder, "gid_map", &lines(gids)).context("gidMappings")
}

/// Named with the kernel from which on its ids can be mapped, where that came late.
fn file_system(tree: BorrowedFd) -> String {
    // include/uapi/linux/magic.h
    const KNOWN: [(u32, &str); 11] = [
        (0x0102_1994, "tmpfs (it takes Linux 6.3)"),
        (0x794c_7630, "overlay (mounts of its layers can be mapped, since Linux 5.19)"),
        (0x9123_683e, "btrfs (it takes Linux 5.15)"),
        (0x5846_5342, "xfs"),
        (0xef53, "ext4"),
        (0x6573_5546, "fuse (it takes Linux 6.12 and a server that allows it)"),
        (0x6969, "nfs"),
        (0x9fa0, "proc"),
        (0x6265_6572, "sysfs"),
        (0x0027_e0eb, "cgroup"),
        (0x6367_7270, "cgroup2"),
    ];
    let Ok(found) = fstatfs(tree) else { return "this file system".into() };
    let found = found.filesystem_type().0 as u32;
    let name = KNOWN.iter().find(|(magic, _)| *magic == found);
    name.map_or_else(|| format!("a file system of type {found:#x}"), |(_, name)| (*name).into())
}
