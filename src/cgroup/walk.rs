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
    entries(dir, Type::Directory)
}

/// The names of the files of one cgroup.
pub fn files(dir: &impl AsFd) -> Result<Vec<String>, Errno> {
    Ok(entries(dir, Type::File)?.iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

fn entries(dir: &impl AsFd, kind: Type) -> Result<Vec<CString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut entries = match Dir::openat(dir.as_fd(), ".", flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type() == Some(kind) && name != c"." && name != c".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn as_os(name: &CStr) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name.to_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, create_dir, create_dir_all};

    #[derive(Default)]
    struct Seen {
        entered: usize,
        left: Vec<String>,
    }

    impl Visitor for Seen {
        fn enter(&mut self, _: BorrowedFd) -> Result<(), Errno> {
            self.entered += 1;
            Ok(())
        }

        fn leave(&mut self, parent: BorrowedFd, name: &CStr) -> Result<(), Errno> {
            self.left.push(name.to_str().unwrap().to_string());
            nix::unistd::unlinkat(parent, name, nix::unistd::UnlinkatFlags::RemoveDir)
        }
    }

    #[test]
    fn the_deepest_are_left_first() {
        let dir = tempfile::tempdir().unwrap();
        create_dir_all(dir.path().join("a/b/c")).unwrap();
        create_dir_all(dir.path().join("a/d")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        let mut seen = Seen::default();
        walk(&File::open(dir.path()).unwrap(), &mut seen).unwrap();
        assert_eq!(seen.entered, 5);
        let at = |name: &str| seen.left.iter().position(|left| left == name).unwrap();
        assert_eq!(seen.left.len(), 4);
        assert!(at("c") < at("b") && at("b") < at("a") && at("d") < at("a"), "{:?}", seen.left);
        assert!(std::fs::read_dir(dir.path()).unwrap().count() == 1, "a link is no cgroup");
    }

    #[test]
    fn neither_depth_nor_breadth_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let mut here = open_directory(&File::open(dir.path()).unwrap(), Path::new(".")).unwrap();
        // deeper than a path can say and than descriptors are allowed
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&here, "d", Mode::from_bits_truncate(0o755)).unwrap();
            here = open_directory(&here, Path::new("d")).unwrap();
        }
        (0..500).for_each(|n| create_dir(dir.path().join(n.to_string())).unwrap());
        let mut seen = Seen::default();
        walk(&File::open(dir.path()).unwrap(), &mut seen).unwrap();
        assert_eq!((seen.entered, seen.left.len()), (3501, 3500));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
