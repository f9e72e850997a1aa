//! The mount calls that work on descriptors: fsopen(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::error::{Doing, SysError};

/// A mount that is attached nowhere, or the place where one was attached: an O_PATH descriptor of its root.
#[derive(Debug)]
pub struct Mount(OwnedFd);

impl AsFd for Mount {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Of a mount that stands already: any descriptor of its root.
impl From<OwnedFd> for Mount {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Mount> for OwnedFd {
    fn from(mount: Mount) -> OwnedFd {
        mount.0
    }
}

/// How far a call reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    One,
    Recursive,
}

impl Reach {
    pub fn recursive(recursive: bool) -> Self {
        if recursive { Self::Recursive } else { Self::One }
    }

    fn at_flag(self) -> libc::c_uint {
        match self {
            Self::One => 0,
            Self::Recursive => libc::AT_RECURSIVE as libc::c_uint,
        }
    }
}

/// A clone of the mount at `path` (a host path), detached.
pub fn clone_tree(path: &Path, reach: Reach) -> Result<Mount, SysError> {
    clone_tree_at(path, reach.at_flag())
}

/// The same; where the path ends at a symlink, of that itself.
pub fn clone_tree_nofollow(path: &Path, reach: Reach) -> Result<Mount, SysError> {
    clone_tree_at(path, reach.at_flag() | libc::AT_SYMLINK_NOFOLLOW as libc::c_uint)
}

fn clone_tree_at(path: &Path, flags: libc::c_uint) -> Result<Mount, SysError> {
    let flags = libc::OPEN_TREE_CLONE as libc::c_uint | libc::OPEN_TREE_CLOEXEC as libc::c_uint | flags;
    let fd = path
        .with_nix_path(|path| open_tree(libc::AT_FDCWD, path, flags))
        .and_then(|result| result)
        .doing("open_tree", path.display())?;
    Ok(fd)
}

/// A clone of the mount that `fd` lies in, with `fd` as its root.
pub fn clone_tree_of(fd: BorrowedFd, reach: Reach, name: impl std::fmt::Display) -> Result<Mount, SysError> {
    let flags = libc::OPEN_TREE_CLONE as libc::c_uint
        | libc::OPEN_TREE_CLOEXEC as libc::c_uint
        | libc::AT_EMPTY_PATH as libc::c_uint
        | reach.at_flag();
    open_tree(fd.as_raw_fd(), c"", flags).doing("open_tree", name)
}

fn open_tree(dir: RawFd, path: &CStr, flags: libc::c_uint) -> Result<Mount, Errno> {
    // SAFETY: the path is a terminated string; the result is a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })?;
    // SAFETY: nobody else knows the descriptor.
    Ok(Mount(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// Attaches `mount` onto the place that `target` stands for.
pub fn attach(mount: &Mount, target: BorrowedFd, name: impl std::fmt::Display) -> Result<(), SysError> {
    move_mount(mount, target, c"", libc::MOVE_MOUNT_T_EMPTY_PATH).doing("move_mount", name)
}

/// Onto a name in a directory that nobody else could put anything into; a symlink there is not followed.
pub fn attach_in(
    mount: &Mount,
    directory: BorrowedFd,
    name: &str,
    shown: impl std::fmt::Display,
) -> Result<(), SysError> {
    name.with_nix_path(|name| move_mount(mount, directory, name, 0))
        .and_then(|result| result)
        .doing("move_mount", shown)
}

fn move_mount(mount: &Mount, to: BorrowedFd, path: &CStr, flags: libc::c_uint) -> Result<(), Errno> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | flags;
    let (from, to) = (mount.0.as_raw_fd(), to.as_raw_fd());
    // SAFETY: two descriptors and two terminated strings.
    Errno::result(unsafe { libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), to, path.as_ptr(), flags) })
        .map(drop)
}

/// A mount's root for reading and writing inside; a mount itself is an O_PATH descriptor.
pub fn reopen_directory(mount: &Mount) -> Result<OwnedFd, SysError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::openat(mount, c".", flags, Mode::empty()).doing("open", "the new mount")
}

/// What mount_setattr(2) changes. Clearing comes before setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// One of MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE, or 0.
    pub propagation: u64,
}

/// Shows the ids of a mount, which must be attached nowhere yet, as the maps of a user namespace say: an id that its file
/// system stores is looked up as one inside, and shown as the one of the host behind it (Linux 5.12).
pub fn map_ids(
    mount: BorrowedFd,
    namespace: BorrowedFd,
    reach: Reach,
    name: impl std::fmt::Display,
) -> Result<(), SysError> {
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | reach.at_flag();
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    mount_setattr(mount.as_raw_fd(), c"", flags, attr).doing("mount_setattr idmap", name)
}

pub fn set_attributes(
    mount: BorrowedFd,
    attributes: Attributes,
    reach: Reach,
    name: impl std::fmt::Display,
) -> Result<(), SysError> {
    let flags = libc::AT_EMPTY_PATH as libc::c_uint | reach.at_flag();
    mount_setattr(mount.as_raw_fd(), c"", flags, attributes.into()).doing("mount_setattr", name)
}

/// As `set_attributes`, without a call where nothing changes.
pub fn set_attributes_if(
    mount: &impl AsFd,
    attributes: Attributes,
    reach: Reach,
    name: impl std::fmt::Display,
) -> Result<(), SysError> {
    if attributes == Attributes::default() {
        return Ok(());
    }
    set_attributes(mount.as_fd(), attributes, reach, name)
}

/// The same by a host path; the path must be where a mount is attached.
pub fn set_attributes_at(path: &Path, attributes: Attributes, reach: Reach) -> Result<(), SysError> {
    path.with_nix_path(|path| mount_setattr(libc::AT_FDCWD, path, reach.at_flag(), attributes.into()))
        .and_then(|result| result)
        .doing("mount_setattr", path.display())
}

impl From<Attributes> for libc::mount_attr {
    fn from(attributes: Attributes) -> Self {
        let Attributes { set, clear, propagation } = attributes;
        Self { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 }
    }
}

fn mount_setattr(dir: RawFd, path: &CStr, flags: libc::c_uint, attr: libc::mount_attr) -> Result<(), Errno> {
    // SAFETY: the path is terminated; `attr` and its size agree and outlive the call.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_mount_setattr, dir, path.as_ptr(), flags, &raw const attr, size_of_val(&attr))
    })
    .map(drop)
}

/// A file system that is being configured.
pub struct Context {
    fd: OwnedFd,
    fstype: String,
}

impl Context {
    pub fn new(fstype: &str) -> Result<Self, SysError> {
        let name = CString::new(fstype).map_err(|_| Errno::EINVAL).doing("fsopen", fstype)?;
        // SAFETY: a terminated string; the result is a new descriptor.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, name.as_ptr(), libc::FSOPEN_CLOEXEC) })
            .doing("fsopen", fstype)?;
        // SAFETY: nobody else knows the descriptor.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, fstype: fstype.to_string() })
    }

    /// For the file system of an existing mount.
    pub fn of(mount: BorrowedFd, name: impl std::fmt::Display) -> Result<Self, SysError> {
        let flags = libc::FSPICK_CLOEXEC | libc::FSPICK_EMPTY_PATH;
        // SAFETY: a descriptor and an empty, terminated string; the result is a new descriptor.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) })
            .doing("fspick", &name)?;
        // SAFETY: nobody else knows the descriptor.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, fstype: name.to_string() })
    }

    /// `key=value`, or the flag `key`.
    pub fn set(&self, key: &str, value: Option<&str>) -> Result<(), SysError> {
        let shown = || format!("{}: option {key}{}", self.fstype, value.map(|v| format!("={v}")).unwrap_or_default());
        let command = if value.is_some() { libc::FSCONFIG_SET_STRING } else { libc::FSCONFIG_SET_FLAG };
        let strings = CString::new(key).and_then(|key| Ok((key, value.map(CString::new).transpose()?)));
        let (key, value) = strings.map_err(|_| Errno::EINVAL).doing("fsconfig", shown())?;
        self.configure(command as _, Some(&key), value.as_deref())
            .map_err(|errno| SysError::new("fsconfig", shown(), errno))
    }

    /// The mount, attached nowhere yet.
    pub fn mount(&self, attributes: u64) -> Result<Mount, SysError> {
        self.configure(libc::FSCONFIG_CMD_CREATE as _, None, None).doing("fsconfig create", &self.fstype)?;
        // SAFETY: numbers only; the result is a new descriptor.
        let fd = Errno::result(unsafe {
            libc::syscall(libc::SYS_fsmount, self.fd.as_raw_fd(), libc::FSMOUNT_CLOEXEC, attributes)
        })
        .doing("fsmount", &self.fstype)?;
        // SAFETY: nobody else knows the descriptor.
        Ok(Mount(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    pub fn reconfigure(&self) -> Result<(), SysError> {
        self.configure(libc::FSCONFIG_CMD_RECONFIGURE as _, None, None).doing("fsconfig reconfigure", &self.fstype)
    }

    fn configure(&self, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>) -> Result<(), Errno> {
        let pointer = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: null or terminated strings that outlive the call.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_fsconfig, self.fd.as_raw_fd(), command, pointer(key), pointer(value), 0)
        })
        .map(drop)
    }

    /// What the file system says about the last failure (`e tmpfs: Unknown parameter 'x'`), without the level.
    pub fn complaint(&self) -> Option<String> {
        let mut text = [0u8; 1024];
        let length = nix::unistd::read(&self.fd, &mut text).ok()?;
        let text = String::from_utf8_lossy(&text[..length]);
        let line = text.lines().next()?.trim();
        Some(line.split_once(' ').map_or(line, |(_, rest)| rest).to_string())
    }
}
