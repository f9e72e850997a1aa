//! Paths that cannot escape. Whatever lies inside a rootfs is untrusted; it is reached through [`Rootfs`] alone.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlink, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use serde::{Serialize, Serializer};

use crate::error::{Doing, SysError};
use crate::sys::file;

/// A path as the container sees it, without its leading `/` and without `..`; empty for `/` itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InRoot(PathBuf);

impl InRoot {
    /// `..` is resolved as a shell user expects, and stops at `/`.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let mut inside = PathBuf::new();
        for component in path.as_ref().components() {
            match component {
                Component::Normal(name) => inside.push(name),
                Component::ParentDir => {
                    inside.pop();
                }
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Self(inside)
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// The directory it lies in and its last name; `None` for `/`.
    pub fn split(&self) -> Option<(InRoot, &OsStr)> {
        Some((InRoot(self.0.parent()?.to_path_buf()), self.0.file_name()?))
    }

    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self::new(self.0.join(Self::new(name).0))
    }
}

impl fmt::Display for InRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(self.0.as_os_str().as_bytes()))
    }
}

impl Serialize for InRoot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A directory that nothing inside can lead out of: symlinks and `..` stop at it, magic links are refused.
#[derive(Debug)]
pub struct Rootfs {
    dir: OwnedFd,
}

/// What a path must be for something to be mounted or made there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Directory,
    File,
}

/// Whether symlinks inside the rootfs may be part of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symlinks {
    Followed,
    /// One that is last on the way stands for itself.
    NotTheLast,
    /// For proc and sysfs: an image must not choose where they go (CVE-2019-19921, CVE-2023-27561).
    Refused,
}

/// A place for a mount, and whether it had to be made.
pub struct Found {
    pub fd: OwnedFd,
    pub created: bool,
}

/// As many symlinks as the kernel follows in one path: path_resolution(7).
pub const MOST_SYMLINKS: usize = 40;
/// openat2(2) says EAGAIN when a rename races with `..`; an attacker can make that last.
const MOST_RACES: usize = 128;
const DIRECTORY_MODE: Mode = Mode::from_bits_truncate(0o755);
const FILE_MODE: Mode = Mode::from_bits_truncate(0o644);

impl Rootfs {
    pub fn new(dir: OwnedFd) -> Self {
        Self { dir }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    pub fn open(&self, path: &InRoot, flags: OFlag) -> Result<OwnedFd, SysError> {
        self.open_errno(path, flags, Symlinks::Followed).doing("open in rootfs", path)
    }

    /// As `open`, with the bare errno for callers that take some of them for an answer.
    pub fn open_errno(&self, path: &InRoot, flags: OFlag, symlinks: Symlinks) -> Result<OwnedFd, Errno> {
        let inside = if path.is_root() { Path::new(".") } else { path.as_path() };
        self.open_path(inside, flags, symlinks)
    }

    /// As a process inside would open it: `..` after a symlink means what the kernel takes it for.
    pub fn open_path(&self, path: &Path, flags: OFlag, symlinks: Symlinks) -> Result<OwnedFd, Errno> {
        let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if symlinks == Symlinks::Refused {
            resolve |= ResolveFlag::RESOLVE_NO_SYMLINKS;
        }
        let nofollow = if symlinks == Symlinks::NotTheLast { OFlag::O_NOFOLLOW } else { OFlag::empty() };
        let how = OpenHow::new().flags(flags | nofollow | OFlag::O_CLOEXEC).resolve(resolve);
        for _ in 0..MOST_RACES {
            match openat2(&self.dir, path, how) {
                Err(Errno::EAGAIN) => continue,
                result => return result,
            }
        }
        Err(Errno::EAGAIN)
    }

    /// What stands at `path`, symlinks followed inside; `None` where nothing does.
    pub fn find(&self, path: &InRoot) -> Result<Option<OwnedFd>, SysError> {
        match self.open_errno(path, OFlag::O_PATH, Symlinks::Followed) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
            Err(errno) => Err(SysError::new("open in rootfs", path, errno)),
        }
    }

    /// A place for a mount: what stands there, else a new directory or empty file.
    pub fn mountpoint(&self, path: &InRoot, place: Place, symlinks: Symlinks) -> Result<Found, SysError> {
        match self.open_errno(path, OFlag::O_PATH, symlinks) {
            Ok(fd) => Ok(Found { fd, created: false }),
            Err(Errno::ENOENT) => Ok(Found { fd: self.make(path, place, symlinks)?, created: true }),
            Err(errno) => Err(SysError::new("open in rootfs", path, errno)),
        }
    }

    /// The directory at `path`, made with its parents where missing (0755).
    pub fn make_directory(&self, path: &InRoot, symlinks: Symlinks) -> Result<OwnedFd, SysError> {
        match self.open_errno(path, OFlag::O_PATH | OFlag::O_DIRECTORY, symlinks) {
            Err(Errno::ENOENT) => self.make(path, Place::Directory, symlinks),
            result => result.doing("open in rootfs", path),
        }
    }

    /// The directory that `path` lies in, made where missing, and the last name. No symlink leads there: what an image
    /// links to may be a volume of the host's (CVE-2026-41579). The name itself may be anything.
    pub fn parent_of<'p>(&self, path: &'p InRoot) -> Result<(OwnedFd, &'p OsStr), SysError> {
        let (parent, name) = path.split().ok_or(Errno::EISDIR).doing("open in rootfs", path)?;
        Ok((self.make_directory(&parent, Symlinks::Refused)?, name))
    }

    /// Walks by hand and makes what is missing, also behind dangling symlinks. Each directory on the way is held open,
    /// so `..` leads where we came from and never further up, whatever is renamed meanwhile (CVE-2024-45310).
    fn make(&self, path: &InRoot, place: Place, allowed: Symlinks) -> Result<OwnedFd, SysError> {
        let mut way: Vec<(OwnedFd, SFlag)> = Vec::new();
        let mut names: VecDeque<OsString> = path.as_path().iter().map(OsString::from).collect();
        let mut symlinks = 0;
        while let Some(name) = names.pop_front() {
            let here = way.last().map_or(&self.dir, |(fd, _)| fd);
            if name == ".." {
                way.pop();
                continue;
            }
            let wanted = if names.is_empty() { place } else { Place::Directory };
            let fd = make_and_open(here, &name, wanted).doing("create in rootfs", path)?;
            let kind = kind_of(&fstat(&fd).doing("fstat", path)?);
            if kind == SFlag::S_IFLNK && !(allowed == Symlinks::NotTheLast && names.is_empty()) {
                symlinks += 1;
                if symlinks > MOST_SYMLINKS || allowed == Symlinks::Refused {
                    return Err(SysError::new("create in rootfs", path, Errno::ELOOP));
                }
                let target = readlinkat(&fd, c"").doing("readlink in rootfs", path)?;
                let target = Path::new(&target);
                if target.is_absolute() {
                    way.clear();
                }
                for name in target.iter().rev().filter(|name| *name != "/" && *name != ".") {
                    names.push_front(name.to_os_string());
                }
                continue;
            }
            way.push((fd, kind));
        }
        match way.pop() {
            Some((_, kind)) if place == Place::Directory && kind != SFlag::S_IFDIR => {
                Err(SysError::new("create in rootfs", path, Errno::ENOTDIR))
            }
            Some((made, _)) => Ok(made),
            // a symlink to `/`
            None => file::dup(&self.dir).doing("dup", path),
        }
    }
}

/// Opens one name in a directory without following it; makes it if nothing stands there.
fn make_and_open(dir: &OwnedFd, name: &OsStr, place: Place) -> Result<OwnedFd, Errno> {
    let open = || openat(dir, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
    match open() {
        Err(Errno::ENOENT) => {}
        result => return result,
    }
    let made = match place {
        Place::Directory => mkdirat(dir, name, DIRECTORY_MODE),
        Place::File => {
            let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            openat(dir, name, flags, FILE_MODE).map(drop)
        }
    };
    match made {
        Ok(()) | Err(Errno::EEXIST) => open(),
        Err(errno) => Err(errno),
    }
}

pub fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The same file: device and inode agree.
pub fn is_same_file(a: &FileStat, b: &FileStat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// The path of what is open; where rrun's own root does not reach it, from the root of that tree on.
pub fn leads_to(place: &OwnedFd) -> Result<PathBuf, SysError> {
    let path = format!("/proc/self/fd/{}", place.as_raw_fd());
    Ok(readlink(path.as_str()).doing("readlink", &path)?.into())
}

/// Stats one name in a directory, a symlink itself; `None` where nothing stands.
pub fn stat_in(dir: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>, Errno> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory of the host by a path that the caller trusts.
pub fn open_host_directory(path: &Path) -> Result<OwnedFd, SysError> {
    openat(AT_FDCWD, path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .doing("open", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn rootfs() -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::new(open_host_directory(dir.path()).unwrap());
        (dir, rootfs)
    }

    #[test]
    fn what_is_missing_is_made_inside_whatever_symlinks_say() {
        for (links, path, want) in [
            (&[][..], "/a/b", "a/b"),
            (&[("a", "/etc")], "/a/b", "etc/b"),
            (&[("a", "../../../etc")], "/a/b", "etc/b"),
            (&[("a", "x/../y")], "/a", "y"),
            (&[("a", "b"), ("b", "/c")], "/a", "c"),
            (&[("a", "/")], "/a/q", "q"),
            (&[("a", "b"), ("b", "/c/..")], "/a", ""),
        ] {
            let (dir, rootfs) = rootfs();
            for (name, target) in links {
                symlink(target, dir.path().join(name)).unwrap();
            }
            rootfs.mountpoint(&InRoot::new(path), Place::Directory, Symlinks::Followed).unwrap();
            assert!(dir.path().join(want).is_dir(), "{links:?} {path}: no {want}");
        }
    }

    #[test]
    fn refuses_loops_files_on_the_way_and_symlinks_where_told() {
        let (dir, rootfs) = rootfs();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        symlink("/elsewhere", dir.path().join("proc")).unwrap();
        for (path, symlinks, errno) in [
            ("/a/x", Symlinks::Followed, Errno::ELOOP),
            ("/file/x", Symlinks::Followed, Errno::ENOTDIR),
            ("/proc", Symlinks::Refused, Errno::ELOOP),
        ] {
            let found = rootfs.mountpoint(&InRoot::new(path), Place::Directory, symlinks);
            assert_eq!(found.err().map(|e| e.errno), Some(errno), "{path}");
        }
    }

    #[test]
    fn a_symlink_that_appears_late_is_refused_as_well() {
        let (dir, rootfs) = rootfs();
        symlink("b", dir.path().join("a")).unwrap();
        let made = rootfs.make(&InRoot::new("/a/x"), Place::Directory, Symlinks::Refused);
        assert_eq!(made.err().map(|e| e.errno), Some(Errno::ELOOP));
        assert!(!dir.path().join("b").exists());
    }

    #[test]
    fn in_root_drops_what_leads_out() {
        for (path, want) in [
            ("/", "/"),
            ("", "/"),
            ("/etc", "/etc"),
            ("etc/", "/etc"),
            ("//proc/./sys", "/proc/sys"),
            ("/a/../../b", "/b"),
            ("../..", "/"),
            ("/proc/..", "/"),
        ] {
            assert_eq!(InRoot::new(path).to_string(), want, "{path}");
        }
        assert!(InRoot::new("/..").is_root());
    }

    proptest! {
        #[test]
        fn in_root_never_leaves_the_root(path in "(/|\\.|\\.\\.|[a-c]){0,24}") {
            let InRoot(inside) = InRoot::new(&path);
            prop_assert!(inside.components().all(|c| matches!(c, Component::Normal(_))), "{path} became {}", inside.display());
            prop_assert_eq!(InRoot::new(&inside), InRoot(inside), "not idempotent");
        }
    }
}
