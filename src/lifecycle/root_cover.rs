//! What a container without a mount namespace has mounted: a copy of the rootfs' mount lies over the rootfs in the host's
//! namespace, and all its mounts are in that copy, so that they go with it. Before it is made, the mount below is
//! recorded; the copy is known by lying on that one.

use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Result, ensure};
use nix::mount::{MntFlags, umount2};

use crate::error::Doing;
use crate::host::mountpoints::mounted_on;
use crate::plan::{Plan, RootSwitch};
use crate::procfs::Proc;
use crate::rootfs::open_host_directory;
use crate::state::State;
use crate::sys::mount::{self, Attributes, Reach};

pub fn covered_by(plan: &Plan) -> Result<Option<u64>> {
    if plan.root.switch != RootSwitch::ChrootCovered {
        return Ok(None);
    }
    let place = open_host_directory(&plan.root.path)?;
    Ok(Some(Proc::open()?.mount_id(place.as_fd())?))
}

/// The copy with everything in it, if it is there. Who still uses it keeps it for himself.
pub fn remove(state: &State) -> Result<()> {
    let Some(covered) = state.covered_mount else { return Ok(()) };
    let (proc, rootfs) = (Proc::open()?, &state.rootfs);
    let Some(copy) = mounted_on(&proc.own_mountinfo()?, rootfs, covered) else { return Ok(()) };
    let place = open_host_directory(rootfs)?;
    ensure!(
        proc.mount_id(place.as_fd())? == copy,
        "{}: something is mounted over the container's root; unmount it, or delete the other container that has this rootfs",
        rootfs.display()
    );
    // The kernel takes away what is mounted in the same place of a shared mount's peers too, which are the host's.
    let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
    mount::set_attributes(place.as_fd(), private, Reach::Recursive, rootfs.display())?;
    // By its descriptor: who owns a directory on the way could have put a symlink there.
    let looked_at = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(umount2(looked_at.as_str(), MntFlags::MNT_DETACH).doing("umount", rootfs.display())?)
}
