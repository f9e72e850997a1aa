//! linux.maskedPaths and linux.readonlyPaths: applied to what a path stands for now, by descriptor.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::stat::{SFlag, fstat, major, minor};

use super::Init;
use crate::error::Doing;
use crate::rootfs::{InRoot, kind_of};
use crate::sys::mount::{self, Attributes, Context as Filesystem, Mount, Reach};

/// What hides a file. Taken from the host, whose /dev the container cannot have changed, and still checked
/// (CVE-2025-31133: a container's own /dev/null may be a symlink to anything).
pub(super) fn take_host_null() -> Result<Mount> {
    let null = mount::clone_tree(Path::new("/dev/null"), Reach::One)?;
    let stat = fstat(null.as_fd()).doing("fstat", "/dev/null")?;
    let device = (kind_of(&stat), major(stat.st_rdev), minor(stat.st_rdev));
    ensure!(device == (SFlag::S_IFCHR, 1, 3), "/dev/null of the host is not the null device");
    Ok(null)
}

/// What lies over masked paths. One mount serves all of a kind: the first is attached itself, and what is attached can
/// be cloned. A new tmpfs for each directory would cost more than all the rest.
#[derive(Default)]
pub(super) struct Covers {
    pub(super) file: Option<Cover>,
    directory: Option<Cover>,
}

pub(super) enum Cover {
    Prepared(Mount),
    Attached(Mount),
}

fn empty_directory() -> Result<Mount> {
    let tmpfs = Filesystem::new("tmpfs")?;
    tmpfs.set("nr_blocks", Some("1"))?;
    tmpfs.set("nr_inodes", Some("1"))?;
    Ok(tmpfs.mount(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)?)
}

impl Init<'_> {
    pub(super) fn mask(&mut self, path: &InRoot) -> Result<()> {
        let Some(place) = self.rootfs()?.find(path)? else { return Ok(()) };
        let is_directory = kind_of(&fstat(&place).doing("fstat", path)?) == SFlag::S_IFDIR;
        let covers = &mut self.covers;
        let (slot, new): (_, fn() -> Result<Mount>) =
            if is_directory { (&mut covers.directory, empty_directory) } else { (&mut covers.file, take_host_null) };
        let cover = match slot.take() {
            None => new()?,
            Some(Cover::Prepared(mount)) => mount,
            Some(Cover::Attached(mount)) => mount::clone_tree_of(mount.as_fd(), Reach::One, path)?,
        };
        mount::attach(&cover, place.as_fd(), path)?;
        *slot = Some(Cover::Attached(cover));
        Ok(())
    }

    /// With all that is mounted below: a writable mount there would undo it.
    pub(super) fn make_path_readonly(&mut self, path: &InRoot) -> Result<()> {
        let Some(place) = self.rootfs()?.find(path)? else { return Ok(()) };
        let tree = mount::clone_tree_of(place.as_fd(), Reach::Recursive, path)?;
        let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        mount::set_attributes(tree.as_fd(), readonly, Reach::Recursive, path)?;
        Ok(mount::attach(&tree, place.as_fd(), path)?)
    }
}
