//! The mounts of the config. Each is made detached, gets its attributes, and is attached onto a descriptor: between the
//! look at a destination and the mount nothing can be put in its place (CVE-2021-30465).

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::symlinkat;

use super::Init;
use super::labels::label_root;
use crate::error::{Doing, SysError};
use crate::log;
use crate::plan::{AttrChange, MountPlan, Parameter, RootSwitch, Source, SourceLink};
use crate::protocol::Ask;
use crate::rootfs::{Found, InRoot, Place, Symlinks, kind_of};
use crate::sys::mount::{self, Attributes, Context as Filesystem, Mount, Reach};

/// Of every procfs: include/linux/proc_ns.h.
const PROC_ROOT_INODE: u64 = 1;

impl From<AttrChange> for Attributes {
    fn from(change: AttrChange) -> Self {
        Self { set: change.set, clear: change.clear, propagation: 0 }
    }
}

impl Init<'_> {
    pub(super) fn mount(&mut self, plan: &MountPlan) -> Result<()> {
        let target = &plan.target;
        let mount = match &plan.source {
            Source::Remount { parameters } => return self.remount(plan, parameters),
            Source::Cgroup(cgroup) => return self.mount_cgroup(plan, cgroup),
            Source::Bind { from, recursive, symlink } => {
                let tree = self.open_source(plan, from, *recursive, *symlink)?;
                if *symlink == SourceLink::Copied && is_symlink(&tree)? {
                    return self.copy_symlink(&tree, target);
                }
                if self.plan()?.root.switch == RootSwitch::ChrootCovered {
                    // or what is mounted in it would come to the host's too, and stay there
                    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
                    mount::set_attributes(tree.as_fd(), slave, Reach::Recursive, target)?;
                }
                self.map_ids(plan, &tree)?;
                self.attach(plan, tree, target)?
            }
            Source::Filesystem { fstype, device, parameters, copy_up } => {
                let place = self.directory_for(fstype, target, plan.target_nofollow)?;
                let mount = new_filesystem(plan, fstype, device, parameters, &place)?;
                if *copy_up {
                    // a FIFO in its place would keep us waiting
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                    super::copy_up::copy(&self.rootfs()?.open(target, flags)?, &mount).context("tmpcopyup")?;
                }
                mount::attach(&mount, place.fd.as_fd(), target)?;
                if let Some(label) = &plan.label {
                    label_root(&mount, label).context("linux.mountLabel")?;
                }
                mount
            }
        };
        self.finish(plan, mount)
    }

    /// By ourselves if we can: then the kernel locks what the host has set on that mount. In a user namespace we may not
    /// get there, and must not uncover what lies below other mounts (EINVAL); a parent with root's rights may.
    fn open_source(&self, plan: &MountPlan, from: &Path, recursive: bool, symlink: SourceLink) -> Result<Mount> {
        match clone_source(from, recursive, symlink) {
            Err(SysError { errno: Errno::EACCES | Errno::EINVAL, .. }) if self.parent_is_privileged() => {
                let opened = self.handles.channel.request(&Ask::OpenMount(self.index_of(plan)?))?;
                Ok(Mount::from(opened.context("the parent sent no mount")?))
            }
            result => Ok(result?),
        }
    }

    fn index_of(&self, plan: &MountPlan) -> Result<usize> {
        let index = self.plan()?.mounts.iter().position(|mount| std::ptr::eq(mount, plan));
        index.context("the mount is not in the plan")
    }

    /// By the parent, before the mount is attached: it takes rights over the file system, which nobody in a user
    /// namespace has, and a user namespace with these maps.
    fn map_ids(&self, plan: &MountPlan, tree: &Mount) -> Result<()> {
        if plan.ids.is_some() {
            self.handles.channel.request_with(&Ask::MapMount(self.index_of(plan)?), Some(tree.as_fd()))?;
        }
        Ok(())
    }

    /// A symlink of the host's made anew; the same one may stand there already.
    fn copy_symlink(&self, source: &Mount, target: &InRoot) -> Result<()> {
        let leads = |fd: BorrowedFd| readlinkat(fd, c"").doing("readlink", target);
        let to = leads(source.as_fd())?;
        let parent = self.rootfs()?.parent_of(target).map_err(|error| match error.errno {
            Errno::ELOOP => anyhow::anyhow!(
                "the image has a symlink above {target}, and none is followed to make another; mount it where that leads"
            ),
            _ => error.into(),
        });
        let (dir, name) = parent?;
        match symlinkat(to.as_os_str(), &dir, name) {
            Err(Errno::EEXIST) => {}
            result => return Ok(result.doing("symlink", target)?),
        }
        let there =
            self.rootfs()?.open_errno(target, OFlag::O_PATH, Symlinks::NotTheLast).doing("open in rootfs", target)?;
        let kind = kind_of(&fstat(&there).doing("fstat", target)?);
        let same = kind == SFlag::S_IFLNK && leads(there.as_fd())? == to;
        ensure!(same, "{target} is there already, and no symlink to {}; remove it from the image", to.display());
        Ok(())
    }

    /// Binds need a place of their own kind: a directory onto a directory, anything else onto a file.
    fn attach(&self, plan: &MountPlan, tree: Mount, target: &InRoot) -> Result<Mount> {
        let is_directory = kind_of(&fstat(tree.as_fd()).doing("fstat", "the source")?) == SFlag::S_IFDIR;
        let place = if is_directory { Place::Directory } else { Place::File };
        let found = if is_proc(target) {
            ensure!(is_procfs(tree.as_fd())?, "{target} cannot be mounted because it is not of type proc");
            let inode = fstat(tree.as_fd()).doing("fstat", "the source")?.st_ino;
            if inode != PROC_ROOT_INODE {
                log::warning(&format!("{}: {target}: only a part of a procfs is bound there", plan.field));
            }
            self.rootfs()?.mountpoint(target, place, Symlinks::Refused)?
        } else {
            let found = self.rootfs()?.mountpoint(target, place, followed(plan.target_nofollow))?;
            self.refuse_inside_proc(target, &found)?;
            found
        };
        let onto_directory = kind_of(&fstat(&found.fd).doing("fstat", target)?) == SFlag::S_IFDIR;
        refuse_other_kind(is_directory, onto_directory, target)?;
        set_words(plan, &tree)?;
        mount::attach(&tree, found.fd.as_fd(), target)?;
        Ok(tree)
    }

    /// proc and sysfs go onto a real directory only: later writes of ours must reach the real thing.
    fn directory_for(&self, fstype: &str, target: &InRoot, nofollow: bool) -> Result<Found> {
        let kernel_files = matches!(fstype, "proc" | "sysfs");
        let symlinks = if kernel_files { Symlinks::Refused } else { followed(nofollow) };
        let found = self.rootfs()?.mountpoint(target, Place::Directory, symlinks);
        let found = found.map_err(|error| match error.errno {
            Errno::ELOOP if kernel_files => symlink_above(target, fstype),
            _ => error.into(),
        })?;
        if !kernel_files {
            self.refuse_inside_proc(target, &found)?;
        }
        Ok(found)
    }

    /// What lies in a procfs is the kernel's: a file put there could take our writes of labels and sysctls
    /// (CVE-2019-16884, CVE-2025-52881). Judged by the place itself: its path may lead there through a symlink.
    pub(super) fn refuse_inside_proc(&self, target: &InRoot, found: &Found) -> Result<()> {
        if !is_procfs(found.fd.as_fd())? {
            return Ok(());
        }
        let direct = self.rootfs()?.open_errno(target, OFlag::O_PATH, Symlinks::Refused).is_ok();
        let allowed = direct && crate::plan::mounts::is_allowed_inside_proc(target);
        ensure!(allowed, "{target} cannot be mounted because it is inside /proc; mount it elsewhere");
        Ok(())
    }

    fn remount(&mut self, plan: &MountPlan, parameters: &[Parameter]) -> Result<()> {
        let target = &plan.target;
        let place = self.rootfs()?.open(target, OFlag::O_PATH)?;
        if !parameters.is_empty() {
            let filesystem = Filesystem::of(place.as_fd(), target)?;
            set_all(&filesystem, parameters)?;
            explained(&filesystem, filesystem.reconfigure())?;
        }
        mount::set_attributes_if(&place, plan.attributes.into(), Reach::One, target)?;
        self.finish(plan, Mount::from(place))
    }

    /// What every kind of mount shares once it is attached.
    pub(super) fn finish(&mut self, plan: &MountPlan, mount: Mount) -> Result<()> {
        mount::set_attributes_if(&mount, plan.recursive.into(), Reach::Recursive, &plan.target)?;
        for propagation in &plan.propagation {
            mount::set_attributes(mount.as_fd(), propagation.attributes(), propagation.reach(), &plan.target)?;
        }
        if plan.readonly_at_end {
            self.late_readonly.push(mount);
        }
        Ok(())
    }
}

fn new_filesystem(
    plan: &MountPlan,
    fstype: &str,
    device: &str,
    parameters: &[Parameter],
    place: &Found,
) -> Result<Mount> {
    let filesystem = configured(fstype, device, parameters)?;
    let has_mode = parameters.iter().any(|p| matches!(p, Parameter::Value(key, _) if key == "mode"));
    if fstype == "tmpfs" && !has_mode && !place.created {
        // as mount(8) users expect: a tmpfs over /tmp stays 1777
        let mode = fstat(&place.fd).doing("fstat", &plan.target)?.st_mode & 0o7777;
        filesystem.set("mode", Some(&format!("{mode:o}")))?;
    }
    explained(&filesystem, filesystem.mount(plan.attributes.set))
}

/// A file system with its options, of which nothing is made yet.
pub fn configured(fstype: &str, device: &str, parameters: &[Parameter]) -> Result<Filesystem> {
    let filesystem = Filesystem::new(fstype)?;
    if !device.is_empty() {
        filesystem.set("source", Some(device))?;
    }
    set_all(&filesystem, parameters)?;
    Ok(filesystem)
}

pub(super) fn set_all(filesystem: &Filesystem, parameters: &[Parameter]) -> Result<()> {
    for parameter in parameters {
        let (key, value) = match parameter {
            Parameter::Flag(key) => (key, None),
            Parameter::Value(key, value) => (key, Some(value.as_str())),
        };
        explained(filesystem, filesystem.set(key, value))?;
    }
    Ok(())
}

/// Adds what the file system itself says about a refused option or mount.
fn explained<T>(filesystem: &Filesystem, result: Result<T, SysError>) -> Result<T> {
    result.map_err(|error| match filesystem.complaint() {
        Some(said) => anyhow::Error::new(error).context(said),
        None => error.into(),
    })
}

fn set_words(plan: &MountPlan, tree: &Mount) -> Result<(), SysError> {
    let clearing = |more| Attributes { clear: plan.attributes.clear | more, ..plan.attributes.into() };
    clear_what_may_be(plan.unnamed.clear, |more| {
        mount::set_attributes_if(tree, clearing(more), Reach::One, &plan.target)
    })
}

/// What a user namespace must not clear (MNT_LOCK_*) stays as it was, unless it is named. Linux 5.12 and 5.13 do not know
/// NOSYMFOLLOW in mount_setattr(2): there it stays too.
fn clear_what_may_be(unnamed: u64, clear: impl Fn(u64) -> Result<(), SysError>) -> Result<(), SysError> {
    const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
    let first = clear(unnamed);
    let known = match &first {
        Err(SysError { errno: Errno::EINVAL, .. }) if unnamed & NOSYMFOLLOW != 0 => unnamed & !NOSYMFOLLOW,
        _ => unnamed,
    };
    match if known == unnamed { first } else { clear(known) } {
        Err(SysError { errno: Errno::EPERM, .. }) if unnamed != 0 => clear(known & NOSYMFOLLOW),
        result => result,
    }
}

/// Of a bind mount.
pub fn clone_source(from: &Path, recursive: bool, symlink: SourceLink) -> Result<Mount, SysError> {
    let reach = Reach::recursive(recursive);
    match symlink {
        SourceLink::Followed => mount::clone_tree(from, reach),
        SourceLink::Bound | SourceLink::Copied => mount::clone_tree_nofollow(from, reach),
    }
}

pub(super) fn followed(nofollow: bool) -> Symlinks {
    if nofollow { Symlinks::NotTheLast } else { Symlinks::Followed }
}

fn is_symlink(tree: &Mount) -> Result<bool> {
    Ok(kind_of(&fstat(tree.as_fd()).doing("fstat", "the source")?) == SFlag::S_IFLNK)
}

fn is_proc(target: &InRoot) -> bool {
    target.as_path() == std::path::Path::new("proc")
}

pub fn symlink_above(target: &InRoot, fstype: &str) -> anyhow::Error {
    anyhow::anyhow!("the image has a symlink at or above {target}; {fstype} must be mounted on ordinary directory")
}

/// move_mount(2) would only say EINVAL, and managers look for the words of ENOTDIR.
pub fn refuse_other_kind(source_is_directory: bool, target_is_directory: bool, target: &InRoot) -> Result<()> {
    let object = match (source_is_directory, target_is_directory) {
        (true, false) => format!("a folder onto the file {target}"),
        (false, true) => format!("a file onto the folder {target}"),
        _ => return Ok(()),
    };
    Err(SysError::new("bind", object, Errno::ENOTDIR).into())
}

fn is_procfs(fd: std::os::fd::BorrowedFd) -> Result<bool> {
    let statfs = fstatfs(fd).doing("fstatfs", "a mount's place")?;
    Ok(statfs.filesystem_type() == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn what_the_kernel_does_not_let_us_clear_stays() {
        const RO: u64 = libc::MOUNT_ATTR_RDONLY;
        const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
        for (what, unknown, locked, unnamed, want) in [
            ("all", 0, 0, RO | NOSYMFOLLOW, &[RO | NOSYMFOLLOW][..]),
            ("locked by the host", 0, RO, RO | NOSYMFOLLOW, &[RO | NOSYMFOLLOW, NOSYMFOLLOW]),
            ("Linux 5.12", NOSYMFOLLOW, 0, RO | NOSYMFOLLOW, &[RO | NOSYMFOLLOW, RO]),
            ("Linux 5.12, locked", NOSYMFOLLOW, RO, RO | NOSYMFOLLOW, &[RO | NOSYMFOLLOW, RO, 0]),
            ("nothing unnamed", 0, 0, 0, &[0]),
        ] {
            let asked = RefCell::new(Vec::new());
            let kernel = |clear| {
                asked.borrow_mut().push(clear);
                let refused = [(unknown, Errno::EINVAL), (locked, Errno::EPERM)];
                let errno = refused.into_iter().find(|(bits, _)| clear & bits != 0).map(|(_, errno)| errno);
                errno.map_or(Ok(()), |errno| Err(SysError::new("mount_setattr", "x", errno)))
            };
            assert!(clear_what_may_be(unnamed, kernel).is_ok(), "{what}");
            assert_eq!(*asked.borrow(), want, "{what}");
        }
        let refused = |errno| clear_what_may_be(0, |_| Err(SysError::new("mount_setattr", "x", errno))).unwrap_err();
        assert_eq!((refused(Errno::EPERM).errno, refused(Errno::EINVAL).errno), (Errno::EPERM, Errno::EINVAL));
    }
}
