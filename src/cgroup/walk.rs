//! Walks a cgroup and all below it. A container may have nested its own by the thousand, so neither the stack nor the
//! table of descriptors grows with the depth.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::directory::{open_directory, open_parent};

/// What is done on the way.
pub trait Visitor {
    /// At each cgroup, `top` too, before those below it.
    fn enter(&mut self, _cgroup: BorrowedFd) -> Result<(), Errno> {
        Ok(())
    }

    /// After all below it, with its parent and its name; not for `top`.
    fn leave(&mut self, _parent: BorrowedFd, _name: &CStr) -> Result<(), Errno> {
        Ok(())
    }
}

struct Level {
    name: CString,
    /// Those below it that are still to be walked.
    pending: Vec<CString>,
}

pub fn walk(top: &impl AsFd, visitor: &mut impl Visitor) -> Result<(), Errno> {
    let mut here = open_directory(top, Path::new("."))?;
    visitor.enter(here.as_fd())?;
    let mut levels = vec![Level { name: CString::default(), pending: children(&here)? }];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.pending.pop() {
            let child = match open_directory(&here, Path::new(as_os(&name))) {
                Err(Errno::ENOENT) => continue, // removed meanwhile
                child => child?,
            };
            here = child;
            visitor.enter(here.as_fd())?;
            levels.push(Level { name, pending: children(&here)? });
        } else if let Some(done) = levels.pop()
            && !levels.is_empty()
        {
            here = open_parent(&here)?;
            visitor.leave(here.as_fd(), &done.name)?;
        }
    }
    Ok(())
}

fn children(dir: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = match Dir::openat(dir, ".", flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == Some(Type::Directory) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn as_os(name: &CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}
