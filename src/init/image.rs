//! The half of a restore that a child does before it becomes CRIU: in the container's cgroups, and in a mount namespace of
//! its own, so that nothing of it is left on the host. CRIU mounts what its images say; the places for that are made here,
//! as they were when the container was created.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, umask};

use super::mounts::followed;
use super::{Handles, Init, clone_source, tell_of_panics};
use crate::error::{Doing, Report};
use crate::plan::{MountPlan, Plan, Source};
use crate::protocol::Ask;
use crate::rootfs::{InRoot, Place, Rootfs, Symlinks, kind_of, open_host_directory};
use crate::sys::mount::{self, Attributes, Reach};
use crate::sys::{file, socket};

/// Runs the child. `become_criu` gets the socket and `directories`, opened where CRIU will be, since it mounts things in them;
/// it returns only when that fails, and nobody can be told any more.
pub fn main(
    plan: &Plan,
    handles: Handles,
    place: &Path,
    directories: &[&Path],
    become_criu: impl FnOnce(OwnedFd, Vec<OwnedFd>),
) -> i32 {
    tell_of_panics(&handles.channel);
    umask(Mode::from_bits_truncate(0o022));
    let mut init = Init::new(Some(plan), &plan.process, handles);
    let ready = init.prepare_image(place).and_then(|()| init.speak(directories));
    match ready {
        Ok((socket, opened)) => become_criu(socket, opened),
        // The parent may be gone; then nobody is left to be told.
        Err(error) => drop(init.handles.channel.ask(&Ask::Failed(Report::of(&error)), None)),
    }
    // Its descriptors may be closed by now, and their owners would close them again.
    std::mem::forget(init);
    127
}

impl Init<'_> {
    fn prepare_image(&mut self, place: &Path) -> Result<()> {
        self.join_cgroups()?;
        let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
        mount::set_attributes_at(Path::new("/"), slave, Reach::Recursive)?;
        self.show_rootfs(place, Reach::Recursive)?;
        self.make_places()?;
        self.rootfs = None;
        umount2(place, MntFlags::MNT_DETACH).doing("umount2", place.display())?;
        // CRIU wants a mount whose parent nothing lies over, which a rootfs that is a mount itself would not be.
        self.show_rootfs(place, Reach::One)
    }

    fn speak(&self, directories: &[&Path]) -> Result<(OwnedFd, Vec<OwnedFd>)> {
        let open = |path: &&Path| file::open(*path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).doing("open", path.display());
        let opened = directories.iter().map(open).collect::<Result<_, _>>()?;
        let (ours, parents) = socket::pair()?;
        self.handles.channel.ask(&Ask::Socket, Some(parents.as_fd()))?;
        Ok((ours, opened))
    }

    fn show_rootfs(&mut self, place: &Path, reach: Reach) -> Result<()> {
        let root = &self.plan()?.root.path;
        let tree = mount::clone_tree(root, reach)?;
        mount::attach(&tree, open_host_directory(place)?.as_fd(), root.display())?;
        self.rootfs = Some(Rootfs::new(tree.into()));
        Ok(())
    }

    /// What is bound is mounted for the time being, as there may be places in it. What lies on a tmpfs comes with its image.
    fn make_places(&mut self) -> Result<()> {
        let mounts = &self.plan()?.mounts;
        let on_tmpfs = |target: &InRoot| {
            let above =
                |mount: &&MountPlan| target != &mount.target && target.as_path().starts_with(mount.target.as_path());
            mounts.iter().filter(above).any(|mount| match &mount.source {
                Source::Filesystem { fstype, .. } => fstype == "tmpfs",
                Source::Cgroup(_) => true,
                _ => false,
            })
        };
        for mount in mounts.iter().filter(|mount| !on_tmpfs(&mount.target)) {
            self.make_place(mount).with_context(|| format!("{}: mount onto {}", mount.field, mount.target))?;
        }
        Ok(())
    }

    fn make_place(&self, plan: &MountPlan) -> Result<()> {
        let (target, rootfs) = (&plan.target, self.rootfs()?);
        match &plan.source {
            Source::Filesystem { fstype, .. } if matches!(fstype.as_str(), "proc" | "sysfs") => {
                rootfs.mountpoint(target, Place::Directory, Symlinks::Refused)?;
            }
            Source::Filesystem { .. } => {
                rootfs.mountpoint(target, Place::Directory, followed(plan.target_nofollow))?;
            }
            Source::Bind { from, recursive, symlink } => {
                let tree = clone_source(from, *recursive, *symlink)?;
                let kind = kind_of(&fstat(&tree).doing("fstat", from.display())?);
                if kind == SFlag::S_IFLNK {
                    return Ok(());
                }
                let place = if kind == SFlag::S_IFDIR { Place::Directory } else { Place::File };
                let found = rootfs.mountpoint(target, place, followed(plan.target_nofollow))?;
                mount::attach(&tree, found.fd.as_fd(), target)?;
            }
            // on a sysfs, or on a tmpfs of its own
            Source::Cgroup(_) | Source::Remount { .. } => {}
        }
        Ok(())
    }
}
