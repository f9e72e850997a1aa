//! Sources and places of mounts, looked at in the image as it lies there. What a mount covers is not looked into: there
//! nothing can be told beforehand.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::Pid;

use crate::error::{Doing, SysError};
use crate::init;
use crate::init::steps::Step;
use crate::launch::mount_ids::IdMapper;
use crate::plan::id_maps::{IdMap, IdMaps, host_id};
use crate::plan::mounts::is_allowed_inside_proc;
use crate::plan::problems::Problems;
use crate::plan::{MountIds, MountMaps, MountPlan, Namespace, Plan, Source, SourceLink};
use crate::procfs::Proc;
use crate::rootfs::{InRoot, Rootfs, Symlinks, kind_of, open_host_directory};

/// An error may be of several problems.
pub fn refuse_impossible(plan: &Plan, has_rootfs: bool) -> Result<()> {
    let mut problems = Problems::default();
    let maps = plan.id_maps.as_ref().filter(|_| plan.has_new(Namespace::User));
    let image = if has_rootfs { Image::open(&plan.root.path, maps).map(Some) } else { Ok(None) };
    let mut image = problems.take(image.context("root.path"));
    for mount in &plan.mounts {
        let source = problems.ok(source(plan, mount).with_context(|| Step::Mount(mount).to_string()));
        if source.is_some() {
            problems.ok(ids(plan, mount).with_context(|| Step::Mount(mount).to_string()));
        }
        let (Some(image), Some(is_directory)) = (&mut image, source) else { continue };
        problems.ok(image.mount(mount, is_directory).with_context(|| Step::Mount(mount).to_string()));
    }
    if let Some(image) = &image {
        problems.ok(image.working_directory(&plan.process.cwd));
    }
    problems.result(())
}

/// Whether what is mounted is a directory.
fn source(plan: &Plan, mount: &MountPlan) -> Result<bool> {
    match &mount.source {
        Source::Bind { from, symlink, .. } => {
            let nofollow = if *symlink == SourceLink::Followed { OFlag::empty() } else { OFlag::O_NOFOLLOW };
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | nofollow;
            let fd = openat(AT_FDCWD, from, flags, Mode::empty()).doing("open_tree", from.display())?;
            Ok(kind_of(&fstat(&fd).doing("fstat", from.display())?) == SFlag::S_IFDIR)
        }
        // a user namespace of the container's gives the right to some of them, which nobody here has
        Source::Filesystem { fstype, device, parameters, .. } if !plan.rootless => {
            init::configured(fstype, device, parameters).map(|_| true)
        }
        _ => Ok(true),
    }
}

/// Maps the ids of a mount that goes nowhere. Those of a namespace that is joined are left to `create`.
fn ids(plan: &Plan, mount: &MountPlan) -> Result<()> {
    let (Some(ids), Source::Bind { from, recursive, symlink }) = (&mount.ids, &mount.source) else { return Ok(()) };
    let maps = match (&ids.maps, &plan.id_maps) {
        (MountMaps::Container, Some(IdMaps { uids, gids, .. })) => {
            MountMaps::Own { uids: uids.ranges.clone(), gids: gids.ranges.clone() }
        }
        (MountMaps::Container, None) => return Ok(()),
        (own, _) => own.clone(),
    };
    let ids = MountIds { maps, recursive: ids.recursive };
    let tree = init::clone_source(from, *recursive, *symlink)?;
    IdMapper::default().map(&Proc::open()?, Pid::this(), &ids, tree.as_fd(), &mount.target)
}

/// The image, and what of it is covered.
struct Image<'p> {
    rootfs: Rootfs,
    /// Of a new user namespace: then root inside is not root here.
    maps: Option<&'p IdMaps>,
    /// Where they lead, in the order of the mounts, and whether it is a procfs that is there.
    covered: Vec<(InRoot, bool)>,
}

/// As many symlinks as the kernel follows in one path: path_resolution(7).
const MOST_SYMLINKS: usize = 40;

impl<'p> Image<'p> {
    fn open(path: &Path, maps: Option<&'p IdMaps>) -> Result<Self> {
        let image = Self { rootfs: Rootfs::new(open_host_directory(path)?), maps, covered: Vec::new() };
        match image.lets_root(&fstat(image.rootfs.as_fd()).doing("fstat", "the rootfs")?, Mode::S_IXOTH) {
            true => Ok(image),
            false => Err(SysError::new("open", path.display(), Errno::EACCES)).context(init::NOT_THEIRS),
        }
    }

    /// Whether root inside may do it (a bit for others): by its rights there, if the owner is of the namespace, else by the
    /// mode.
    fn lets_root(&self, stat: &FileStat, bit: Mode) -> bool {
        let Some(IdMaps { uids, gids, .. }) = self.maps else { return true };
        let is_mapped =
            |map: &IdMap, id| map.ranges.iter().any(|range| id >= range.host && id - range.host < range.size);
        let is_root = |map: &IdMap, id| host_id(&map.ranges, 0) == Some(id);
        let shift = match () {
            () if is_mapped(uids, stat.st_uid) && is_mapped(gids, stat.st_gid) => return true,
            () if is_root(uids, stat.st_uid) => 6,
            () if is_root(gids, stat.st_gid) => 3,
            () => 0,
        };
        stat.st_mode >> shift & bit.bits() != 0
    }

    /// What is missing is made in the nearest directory that is there.
    fn can_be_made(&self, target: &InRoot, place: &InRoot) -> Result<()> {
        for above in place.as_path().ancestors().skip(1).map(InRoot::new) {
            let Ok(fd) = self.rootfs.open_errno(&above, OFlag::O_PATH, Symlinks::NotTheLast) else { continue };
            return match self.lets_root(&fstat(&fd).doing("fstat", &above)?, Mode::S_IWOTH) {
                true => Ok(()),
                false => Err(SysError::new("create in rootfs", target, Errno::EACCES).into()),
            };
        }
        Ok(())
    }

    fn mount(&mut self, mount: &MountPlan, is_directory: bool) -> Result<()> {
        if matches!(mount.source, Source::Remount { .. }) {
            return Ok(());
        }
        let target = &mount.target;
        let place = self.resolve(target, mount.target_nofollow)?;
        match &mount.source {
            Source::Filesystem { fstype, .. } if matches!(fstype.as_str(), "proc" | "sysfs") && place != *target => {
                return Err(init::symlink_above(target, fstype));
            }
            _ => {}
        }
        match self.cover_of(&place) {
            Some(true) => {
                let allowed = place == *target && is_allowed_inside_proc(target);
                ensure!(allowed, "{target} cannot be mounted because it is inside /proc; mount it elsewhere");
            }
            Some(false) => {}
            None => self.refuse_other_kind(target, &place, is_directory)?,
        }
        let of_proc = matches!(&mount.source, Source::Filesystem { fstype, .. } if fstype == "proc");
        self.covered.push((place, of_proc));
        Ok(())
    }

    fn refuse_other_kind(&self, target: &InRoot, place: &InRoot, is_directory: bool) -> Result<()> {
        match self.kind(place)? {
            Some(kind) => init::refuse_other_kind(is_directory, kind == SFlag::S_IFDIR, target),
            None => self.can_be_made(target, place),
        }
    }

    fn working_directory(&self, cwd: &str) -> Result<()> {
        let place = self.resolve(&InRoot::new(cwd), false)?;
        let is_covered = self.cover_of(&place).is_some() || self.covered.iter().any(|(covered, _)| *covered == place);
        if is_covered || place.is_root() {
            return Ok(());
        }
        match self.kind(&place)? {
            None | Some(SFlag::S_IFDIR) => Ok(()),
            Some(_) => Err(SysError::new("open", cwd, Errno::ENOTDIR)).with_context(|| format!("process.cwd {cwd}")),
        }
    }

    /// The last mount above a place, and whether it is a procfs.
    fn cover_of(&self, place: &InRoot) -> Option<bool> {
        let above = |covered: &&(InRoot, bool)| covered.0 != *place && place.as_path().starts_with(covered.0.as_path());
        self.covered.iter().rev().find(above).map(|(_, of_proc)| *of_proc)
    }

    fn kind(&self, place: &InRoot) -> Result<Option<SFlag>> {
        match self.rootfs.open_errno(place, OFlag::O_PATH, Symlinks::NotTheLast) {
            Ok(fd) => Ok(Some(kind_of(&fstat(&fd).doing("fstat", place)?))),
            // it is made
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(SysError::new("open in rootfs", place, errno).into()),
        }
    }

    /// Where a path leads through the symlinks of the image; what is missing or covered stands for itself.
    fn resolve(&self, path: &InRoot, nofollow: bool) -> Result<InRoot> {
        let mut names: VecDeque<OsString> = path.as_path().iter().map(OsString::from).collect();
        let (mut way, mut symlinks) = (PathBuf::new(), 0);
        while let Some(name) = names.pop_front() {
            if name == ".." {
                way.pop();
                continue;
            }
            way.push(&name);
            let here = InRoot::new(&way);
            let is_last = names.is_empty();
            if self.cover_of(&here).is_some() || (is_last && nofollow) {
                continue;
            }
            let Ok(fd) = self.rootfs.open_errno(&here, OFlag::O_PATH, Symlinks::NotTheLast) else { continue };
            if kind_of(&fstat(&fd).doing("fstat", &here)?) != SFlag::S_IFLNK {
                continue;
            }
            symlinks += 1;
            if symlinks > MOST_SYMLINKS {
                bail!(SysError::new("open in rootfs", path, Errno::ELOOP));
            }
            let to = readlinkat(fd.as_fd(), c"").doing("readlink in rootfs", &here)?;
            way.pop();
            if Path::new(&to).is_absolute() {
                way.clear();
            }
            for name in Path::new(&to).iter().rev().filter(|name| *name != "/" && *name != ".") {
                names.push_front(name.to_os_string());
            }
        }
        Ok(InRoot::new(way))
    }
}
