//! linux.maskedPaths and linux.readonlyPaths: applied to what a path stands for now, by descriptor.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat, major, minor};

use super::Init;
use crate::error::Doing;
use crate::plan::labels::CONTEXT;
use crate::rootfs::{InRoot, Rootfs, Symlinks, kind_of};
use crate::sys::mount::{self, Attributes, Context as Filesystem, Mount, Reach};

/// What lies over masked paths, once attached. One mount serves all of a kind, by clones: a new tmpfs for each
/// directory would cost more than all the rest.
#[derive(Default)]
pub(super) struct Covers {
    file: Option<Mount>,
    directory: Option<Mount>,
}

/// The container's own, which may be anything by now (CVE-2025-31133), so it is looked at through the descriptor that
/// is cloned then.
fn null_device(rootfs: &Rootfs) -> Result<Mount> {
    let path = InRoot::new("/dev/null");
    let device = rootfs.open_errno(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Symlinks::Followed);
    let device = device.doing("open in rootfs", &path).context("a file is masked by the null device")?;
    let stat = fstat(&device).doing("fstat", &path)?;
    let number = (kind_of(&stat), major(stat.st_rdev), minor(stat.st_rdev));
    ensure!(number == (SFlag::S_IFCHR, 1, 3), "{path} of the container is not the null device, which masks a file");
    Ok(mount::clone_tree_of(device.as_fd(), Reach::One, &path)?)
}

fn empty_directory(label: Option<&str>) -> Result<Mount> {
    let tmpfs = Filesystem::new("tmpfs")?;
    tmpfs.set("nr_blocks", Some("1"))?;
    tmpfs.set("nr_inodes", Some("1"))?;
    if label.is_some() {
        tmpfs.set(CONTEXT, label)?;
    }
    Ok(tmpfs.mount(libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)?)
}

impl Init<'_> {
    pub(super) fn mask(&mut self, path: &InRoot) -> Result<()> {
        let Some(place) = self.rootfs()?.find(path)? else { return Ok(()) };
        let is_directory = kind_of(&fstat(&place).doing("fstat", path)?) == SFlag::S_IFDIR;
        let used = if is_directory { &self.covers.directory } else { &self.covers.file };
        let cover = match used {
            None if is_directory => empty_directory(self.plan()?.mount_label.as_deref())?,
            None => null_device(self.rootfs()?)?,
            Some(mount) => mount::clone_tree_of(mount.as_fd(), Reach::One, path)?,
        };
        mount::attach(&cover, place.as_fd(), path)?;
        let covers = &mut self.covers;
        *(if is_directory { &mut covers.directory } else { &mut covers.file }) = Some(cover);
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
