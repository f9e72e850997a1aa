//! The container's root: made a mount of its own, entered, and the host's let go.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::fstat;
use nix::unistd::{chdir, chroot, fchdir, pivot_root};

use super::Init;
use crate::error::{Doing, SysError};
use crate::host::mountpoints::mountpoints;
use crate::plan::{Namespace, Propagation, PropagationKind, RootSwitch};
use crate::procfs::Proc;
use crate::rootfs::{InRoot, Rootfs, Symlinks, is_same_file, open_host_directory};
use crate::sys::mount::{self, Attributes, Context as Filesystem, Reach};

pub(super) fn propagation_bits(kind: PropagationKind) -> u64 {
    match kind {
        PropagationKind::Private => libc::MS_PRIVATE,
        PropagationKind::Shared => libc::MS_SHARED,
        PropagationKind::Slave => libc::MS_SLAVE,
        PropagationKind::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// Of a rootfs.
pub const NOT_THEIRS: &str = "root of the user namespace may not enter it; give the rootfs to the ids that are mapped, or let \
    everybody enter it (chmod +x)";

impl Propagation {
    pub(super) fn attributes(self) -> Attributes {
        Attributes { propagation: propagation_bits(self.kind), ..Attributes::default() }
    }

    pub(super) fn reach(self) -> Reach {
        Reach::recursive(self.recursive)
    }
}

impl Init<'_> {
    pub(super) fn prepare_root(&mut self) -> Result<()> {
        let plan = self.plan()?;
        let root = &plan.root;
        let covered = root.switch == RootSwitch::ChrootCovered;
        if root.switch == RootSwitch::Chroot {
            self.rootfs = Some(Rootfs::new(open_host_directory(&root.path)?));
            return Ok(());
        }
        if !covered {
            mount::set_attributes_at(Path::new("/"), root.propagation.attributes(), root.propagation.reach())?;
        }
        if root.isolate_parent {
            isolate_mount_of(&root.path, root.propagation.kind)?;
        }
        // In a user namespace we may not get there by its path; the parent stood there when it made us.
        let here = plan.has(Namespace::User) && plan.has_new(Namespace::Mount);
        let place = match open_host_directory(if here { Path::new(".") } else { &root.path }) {
            Err(SysError { errno: Errno::EACCES, .. }) if here => {
                Err(SysError::new("open", root.path.display(), Errno::EACCES)).context(NOT_THEIRS)?
            }
            place => place?,
        };
        let tree = mount::clone_tree_of(place.as_fd(), Reach::Recursive, root.path.display())?;
        let (before, after) = (fstat(&place).doing("fstat", "root")?, fstat(tree.as_fd()).doing("fstat", "root")?);
        ensure!(is_same_file(&before, &after), "the rootfs was replaced while it was opened");
        if covered {
            // what is mounted in the copy stays in it
            let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
            mount::set_attributes(tree.as_fd(), private, Reach::Recursive, root.path.display())?;
        }
        mount::attach(&tree, place.as_fd(), root.path.display())?;
        self.rootfs = Some(Rootfs::new(OwnedFd::from(tree)));
        Ok(())
    }

    pub(super) fn make_working_directory(&mut self, cwd: &str) -> Result<()> {
        let rootfs = self.rootfs()?;
        // One that exists may be reached through symlinks as the kernel takes them.
        match rootfs.open_path(Path::new(cwd), OFlag::O_PATH | OFlag::O_DIRECTORY, Symlinks::Followed) {
            Err(Errno::ENOENT) => rootfs.make_directory(&InRoot::new(cwd), Symlinks::Followed).map(drop)?,
            result => result.map(drop).doing("open in rootfs", cwd)?,
        }
        Ok(())
    }

    pub(super) fn switch_root(&mut self, switch: RootSwitch) -> Result<()> {
        let rootfs = self.rootfs()?;
        match switch {
            RootSwitch::PivotRoot => pivot(rootfs)?,
            RootSwitch::MoveMount => move_onto_root(rootfs, &self.plan()?.root.path)?,
            RootSwitch::Chroot | RootSwitch::ChrootCovered => {
                fchdir(rootfs.as_fd()).doing("fchdir", "rootfs")?;
                chroot(".").doing("chroot", "rootfs")?;
            }
        }
        chdir("/").doing("chdir", "/")?;
        Ok(())
    }

    pub(super) fn set_root_propagation(&mut self, propagation: Propagation) -> Result<()> {
        Ok(mount::set_attributes_at(Path::new("/"), propagation.attributes(), propagation.reach())?)
    }

    pub(super) fn make_root_readonly(&mut self) -> Result<()> {
        let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        Ok(mount::set_attributes(self.rootfs()?.as_fd(), readonly, Reach::One, "/")?)
    }

    pub(super) fn make_mounts_readonly(&mut self) -> Result<()> {
        let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        for mount in self.late_readonly.drain(..) {
            mount::set_attributes(mount.as_fd(), readonly, Reach::One, "a mount inside")?;
        }
        Ok(())
    }

    /// By a descriptor opened inside: `cwd` may be a symlink to a descriptor of the host's (CVE-2024-21626).
    pub(super) fn enter_directory(&mut self, cwd: &str) -> Result<()> {
        match self.open_working_directory(cwd) {
            // root may be nobody to a network file system; the user tries again
            Err(SysError { errno: Errno::EACCES, .. }) if self.process.uid != 0 => {
                self.cwd_pending = true;
                Ok(())
            }
            result => {
                result?;
                check_working_directory()
            }
        }
    }

    /// Without a call where there is nothing to do: a filter may be loaded by now.
    pub(super) fn enter_directory_as_user(&mut self, cwd: &str) -> Result<()> {
        if self.cwd_pending {
            self.open_working_directory(cwd)?;
            check_working_directory()?;
            self.rootfs = None;
        }
        Ok(())
    }

    fn open_working_directory(&self, cwd: &str) -> Result<(), SysError> {
        let Some(rootfs) = &self.rootfs else { return Err(SysError::new("chdir", cwd, Errno::EBADF)) };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        let fd = rootfs.open_path(Path::new(cwd), flags, Symlinks::Followed).doing("chdir", cwd)?;
        fchdir(&fd).doing("chdir", cwd)
    }
}

fn check_working_directory() -> Result<()> {
    let path = nix::unistd::getcwd().doing("getcwd", "")?;
    // A path outside of the root reads "(unreachable)/…".
    ensure!(path.is_absolute(), "the working directory lies outside of the container: {}", path.display());
    Ok(())
}

/// With (".", "."): the old root is stacked upon the new one, and taken off again. Nothing has to be made inside.
fn pivot(rootfs: &Rootfs) -> Result<()> {
    let old = open_host_directory(Path::new("/"))?;
    fchdir(rootfs.as_fd()).doing("fchdir", "rootfs")?;
    pivot_root(".", ".").doing("pivot_root", "rootfs")?;
    fchdir(&old).doing("fchdir", "the old root")?;
    // What is taken off here must stay on the host.
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    mount::set_attributes(old.as_fd(), slave, Reach::Recursive, "the old root")?;
    umount2(".", MntFlags::MNT_DETACH).doing("umount2", "the old root")?;
    Ok(())
}

/// For hosts that run from an initramfs. The host's proc and sysfs mounts stay below, reachable by a privileged
/// process that leaves the chroot: they are taken off or covered first.
fn move_onto_root(rootfs: &Rootfs, inside: &Path) -> Result<()> {
    // /proc is still the host's here
    let mountinfo = Proc::open()?.own_mountinfo()?;
    for point in mountpoints(&mountinfo, &["proc", "sysfs"]).iter().filter(|point| !point.starts_with(inside)) {
        let private = Attributes { propagation: libc::MS_PRIVATE, ..Attributes::default() };
        mount::set_attributes_at(point, private, Reach::One)?;
        if umount2(point.as_path(), MntFlags::MNT_DETACH).is_err() {
            cover(point)?;
        }
    }
    fchdir(rootfs.as_fd()).doing("fchdir", "rootfs")?;
    nix::mount::mount(Some("."), "/", None::<&str>, nix::mount::MsFlags::MS_MOVE, None::<&str>)
        .doing("mount MS_MOVE", "rootfs")?;
    chroot(".").doing("chroot", "rootfs")?;
    Ok(())
}

fn cover(point: &Path) -> Result<()> {
    let empty = Filesystem::new("tmpfs")?.mount(libc::MOUNT_ATTR_RDONLY)?;
    let place = open_host_directory(point)?;
    Ok(mount::attach(&empty, place.as_fd(), point.display())?)
}

/// Lets nothing out of the mount that holds `path`. Only its root may be named, so the way up is tried: EINVAL is "not a
/// mount's root".
fn isolate_mount_of(path: &Path, word: PropagationKind) -> Result<()> {
    // A slave carries nothing out either, and a rootfs that is to be one goes on hearing of the host's mounts.
    let propagation = if word == PropagationKind::Slave { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    let isolated = Attributes { propagation, ..Attributes::default() };
    for place in path.ancestors() {
        match mount::set_attributes_at(place, isolated, Reach::One) {
            Err(SysError { errno: Errno::EINVAL, .. }) => continue,
            result => return Ok(result?),
        }
    }
    Err(SysError::new("mount_setattr", path.display(), Errno::EINVAL)).context("cut off the rootfs's mount")
}
