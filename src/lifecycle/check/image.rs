//! The container's tree before there is one: the image as it lies there, and over it what each mount brings. Volumes of
//! the host are looked into, a new tmpfs is empty; of other file systems nothing is known beforehand.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Doing, SysError};
use crate::init;
use crate::plan::id_maps::{IdMap, IdMaps, host_id};
use crate::plan::mounts::is_allowed_inside_proc;
use crate::plan::{DevicePlan, MountPlan, Source, SourceLink};
use crate::rootfs::{InRoot, MOST_SYMLINKS, Rootfs, Symlinks, kind_of, open_host_directory};

pub struct Image<'p> {
    rootfs: Rootfs,
    /// Of a new user namespace: then root inside is not root here.
    maps: Option<&'p IdMaps>,
    /// In the order of the mounts.
    covers: Vec<Cover>,
}

/// What is mounted.
pub struct Mounted {
    pub is_directory: bool,
    /// Of the host's.
    pub volume: Option<OwnedFd>,
}

struct Cover {
    place: InRoot,
    by: By,
    /// Also for the mounts that come after it.
    readonly: bool,
    noexec: bool,
}

/// Whether a file can be executed, as far as that can be told without its user.
pub enum Executable {
    Yes,
    /// Yes, and it is not the image's own.
    OfVolume,
    No(Errno),
    Unknown,
}

enum By {
    Volume(Rootfs),
    /// A new tmpfs.
    Nothing,
    Procfs,
    Sysfs,
    Unknown,
}

/// What is at a place.
enum Seen {
    There(OwnedFd, FileStat),
    Missing,
    Unknown,
}

impl<'p> Image<'p> {
    pub fn open(path: &Path, maps: Option<&'p IdMaps>) -> Result<Self> {
        let image = Self { rootfs: Rootfs::new(open_host_directory(path)?), maps, covers: Vec::new() };
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

    pub fn mount(&mut self, mount: &MountPlan, mounted: Mounted) -> Result<()> {
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
        match self.cover_above(&place) {
            Some(By::Procfs) => {
                let allowed = place == *target && is_allowed_inside_proc(target);
                ensure!(allowed, "{target} cannot be mounted because it is inside /proc; mount it elsewhere");
            }
            _ => match self.look(&place)? {
                Seen::There(_, stat) => {
                    init::refuse_other_kind(mounted.is_directory, kind_of(&stat) == SFlag::S_IFDIR, target)?;
                }
                Seen::Missing => self.can_be_made(target, &place)?,
                Seen::Unknown => {}
            },
        }
        let readonly = mount.attributes.set & libc::MOUNT_ATTR_RDONLY != 0 && !mount.readonly_at_end;
        let noexec = (mount.attributes.set | mount.recursive.set) & libc::MOUNT_ATTR_NOEXEC != 0;
        self.covers.push(Cover { place, by: By::of(mount, mounted), readonly, noexec });
        Ok(())
    }

    /// One that is there must be the same.
    pub fn device(&self, device: &DevicePlan) -> Result<()> {
        let path = &device.path;
        let Some((above, _)) = path.split() else { return Ok(()) };
        if self.resolve(&above, false)? != above {
            return Err(init::symlink_above_device(path));
        }
        match self.look(path)? {
            Seen::There(_, stat) => init::refuse_other_device(device, &stat),
            Seen::Missing => self.can_be_made(path, path),
            Seen::Unknown if matches!(self.cover_at(path), Some(By::Procfs)) => {
                Err(SysError::new("mknod", path, Errno::ENOENT).into())
            }
            Seen::Unknown => Ok(()),
        }
    }

    pub fn working_directory(&self, cwd: &str) -> Result<()> {
        let place = self.resolve(&InRoot::new(cwd), false)?;
        match self.look(&place)? {
            Seen::There(_, stat) if kind_of(&stat) != SFlag::S_IFDIR => {
                Err(SysError::new("open", cwd, Errno::ENOTDIR).into())
            }
            _ => Ok(()),
        }
    }

    pub fn executable(&self, path: &Path) -> Executable {
        let seen = self.resolve(&InRoot::new(path), false).and_then(|place| Ok((self.look(&place)?, place)));
        let (stat, place) = match seen {
            Ok((Seen::There(_, stat), place)) => (stat, place),
            Ok((Seen::Missing, _)) => return Executable::No(Errno::ENOENT),
            Ok((Seen::Unknown, _)) | Err(_) => return Executable::Unknown,
        };
        let cover = self.last_cover(&place);
        match kind_of(&stat) {
            SFlag::S_IFDIR => Executable::No(Errno::EISDIR),
            SFlag::S_IFREG if stat.st_mode & 0o111 == 0 => Executable::No(Errno::EACCES),
            SFlag::S_IFREG => match cover {
                Some(cover) if cover.noexec => Executable::No(Errno::EACCES),
                Some(_) => Executable::OfVolume,
                None => Executable::Yes,
            },
            _ => Executable::No(Errno::EACCES),
        }
    }

    /// What is missing is made in the nearest directory that is there.
    fn can_be_made(&self, target: &InRoot, place: &InRoot) -> Result<()> {
        let refused = |errno| Err(SysError::new("create in rootfs", target, errno).into());
        for above in place.as_path().ancestors().skip(1).map(InRoot::new) {
            match (self.look(&above)?, self.cover_at(&above)) {
                (Seen::Missing, _) => continue,
                (Seen::Unknown, Some(By::Procfs | By::Sysfs)) => return refused(Errno::EPERM),
                (Seen::Unknown, _) => return Ok(()),
                (Seen::There(_, stat), _) if kind_of(&stat) != SFlag::S_IFDIR => return refused(Errno::ENOTDIR),
                (Seen::There(..), Some(By::Nothing | By::Unknown)) => return Ok(()),
                (Seen::There(..), Some(By::Procfs | By::Sysfs)) => return refused(Errno::EPERM),
                (Seen::There(fd, stat), cover) => {
                    let is_readonly =
                        |fd: &OwnedFd| fstatvfs(fd).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
                    return match () {
                        () if is_readonly(&fd) || self.last_cover(&above).is_some_and(|cover| cover.readonly) => {
                            refused(Errno::EROFS)
                        }
                        // a volume may be there with other ids
                        () if cover.is_some() || self.lets_root(&stat, Mode::S_IWOTH) => Ok(()),
                        () => refused(Errno::EACCES),
                    };
                }
            }
        }
        Ok(())
    }

    /// The last mount there or above.
    fn cover_at(&self, place: &InRoot) -> Option<&By> {
        Some(&self.last_cover(place)?.by)
    }

    fn last_cover(&self, place: &InRoot) -> Option<&Cover> {
        self.covers.iter().rev().find(|cover| place.as_path().starts_with(cover.place.as_path()))
    }

    /// The last mount above.
    fn cover_above(&self, place: &InRoot) -> Option<&By> {
        let is_above = |cover: &InRoot| cover != place && place.as_path().starts_with(cover.as_path());
        Some(&self.covers.iter().rev().find(|cover| is_above(&cover.place))?.by)
    }

    /// `place` holds no symlink but perhaps the last.
    fn look(&self, place: &InRoot) -> Result<Seen> {
        let cover = self.last_cover(place);
        let (root, inside) = match cover {
            None => (&self.rootfs, place.clone()),
            Some(Cover { place: at, by, .. }) => {
                let inside = InRoot::new(place.as_path().strip_prefix(at.as_path()).unwrap_or(Path::new("")));
                match by {
                    By::Volume(root) => (root, inside),
                    By::Nothing if !inside.is_root() => return Ok(Seen::Missing),
                    // a directory in any case: that of the image stands for it
                    By::Nothing | By::Procfs | By::Sysfs if inside.is_root() => (&self.rootfs, InRoot::new("/")),
                    By::Sysfs if is_never_in_sysfs(&inside) => return Ok(Seen::Missing),
                    _ => return Ok(Seen::Unknown),
                }
            }
        };
        let fd = match inside.is_root() {
            true => root.as_fd().try_clone_to_owned().doing("dup", place)?,
            false => match root.open_errno(&inside, OFlag::O_PATH, Symlinks::NotTheLast) {
                Ok(fd) => fd,
                // it is made
                Err(Errno::ENOENT) => return Ok(Seen::Missing),
                Err(errno) => return Err(SysError::new("open in rootfs", place, errno).into()),
            },
        };
        let stat = fstat(&fd).doing("fstat", place)?;
        let of = fstat(root.as_fd()).doing("fstat", place)?;
        // what is mounted in a volume on the host may not come along
        match cover.is_some() && stat.st_dev != of.st_dev {
            true => Ok(Seen::Unknown),
            false => Ok(Seen::There(fd, stat)),
        }
    }

    /// Where a path leads through symlinks; what is missing or unknown stands for itself.
    pub fn resolve(&self, path: &InRoot, nofollow: bool) -> Result<InRoot> {
        let mut names: VecDeque<OsString> = path.as_path().iter().map(OsString::from).collect();
        let (mut way, mut symlinks) = (PathBuf::new(), 0);
        while let Some(name) = names.pop_front() {
            if name == ".." {
                way.pop();
                continue;
            }
            way.push(&name);
            let here = InRoot::new(&way);
            if names.is_empty() && nofollow {
                continue;
            }
            let Ok(Seen::There(fd, stat)) = self.look(&here) else { continue };
            if kind_of(&stat) != SFlag::S_IFLNK {
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

/// What the host's has not, but for networks, which are the container's.
fn is_never_in_sysfs(inside: &InRoot) -> bool {
    let of_network = inside.as_path().components().any(|part| part.as_os_str() == "net");
    !of_network && matches!(Path::new("/sys").join(inside.as_path()).try_exists(), Ok(false))
}

impl By {
    fn of(mount: &MountPlan, mounted: Mounted) -> Self {
        match (&mount.source, mounted.volume) {
            (Source::Bind { symlink: SourceLink::Followed, .. }, Some(volume)) => Self::Volume(Rootfs::new(volume)),
            (Source::Filesystem { copy_up: true, .. }, _) => Self::Unknown,
            (Source::Filesystem { fstype, .. }, _) => match fstype.as_str() {
                "proc" => Self::Procfs,
                "sysfs" => Self::Sysfs,
                "tmpfs" => Self::Nothing,
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}
