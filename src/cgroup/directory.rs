//! A cgroup's directory, held open. Everything below a mount of cgroup is reached by name from such a handle, never
//! out of it, over a link or onto another mount.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};

use super::Version;
use crate::error::{Doing, SysError};
use crate::sys::file;

#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// For errors.
    pub path: PathBuf,
}

/// Room for the list of every process that a kernel can have.
const LARGEST_FILE: u64 = 64 << 20;
const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);
const INSIDE: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_SYMLINKS)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS)
    .union(ResolveFlag::RESOLVE_NO_XDEV);

impl Directory {
    /// A directory that should be in a cgroup file system. Which one is told, if it is.
    pub fn at(path: &Path) -> Result<(Self, Option<Version>)> {
        // openat: musl's open would set close-on-exec a second time
        let fd = openat(AT_FDCWD, path, HANDLE, Mode::empty()).doing("open", path.display())?;
        let version = match fstatfs(&fd).doing("fstatfs", path.display())?.filesystem_type() {
            CGROUP_SUPER_MAGIC => Some(Version::V1),
            CGROUP2_SUPER_MAGIC => Some(Version::V2),
            _ => None,
        };
        Ok((Self { fd, path: path.to_path_buf() }, version))
    }

    /// The top of a hierarchy.
    pub fn mounted(mountpoint: &Path, wanted: Version) -> Result<Self> {
        match Self::at(mountpoint)? {
            (directory, Some(version)) if version == wanted => Ok(directory),
            _ => bail!("{}: is not the cgroup file system that /proc/self/mountinfo says", mountpoint.display()),
        }
    }

    /// `path` may have several parts; an empty one means the directory itself.
    pub fn below(&self, path: &Path) -> Result<Self, Errno> {
        let inside = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Self { fd: open_inside(&self.fd, inside, HANDLE)?, path: self.path.join(path) })
    }

    pub fn read(&self, file: &str) -> Result<String, Errno> {
        read(&self.fd, file)
    }

    pub fn open_to_read(&self, file: &str) -> Result<File, Errno> {
        open_inside(&self.fd, Path::new(file), OFlag::O_RDONLY | OFlag::O_CLOEXEC).map(File::from)
    }

    pub fn open_to_write(&self, file: &str) -> Result<File, Errno> {
        open_inside(&self.fd, Path::new(file), OFlag::O_WRONLY | OFlag::O_CLOEXEC).map(File::from)
    }

    pub fn write(&self, file: &str, value: &str) -> Result<(), Errno> {
        write_once(&self.open_to_write(file)?, value)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

pub fn open_directory(dir: &impl AsFd, name: &Path) -> Result<OwnedFd, Errno> {
    open_inside(dir, name, HANDLE)
}

/// Up again from a directory that was reached from above. v1 lets a directory change its name, never its parent.
pub fn open_parent(dir: &impl AsFd) -> Result<OwnedFd, Errno> {
    openat2(dir, "..", OpenHow::new().flags(HANDLE).resolve(ResolveFlag::RESOLVE_NO_XDEV))
}

fn open_inside(dir: &impl AsFd, name: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat2(dir, name, OpenHow::new().flags(flags).resolve(INSIDE))
}

/// The kernel gives them in parts, of which one may be short before the end; any other file as a whole.
const LISTS: [&str; 3] = ["cgroup.procs", "cgroup.threads", "tasks"];

pub fn read(dir: &impl AsFd, file: &str) -> Result<String, Errno> {
    let opened = open_inside(dir, Path::new(file), OFlag::O_RDONLY | OFlag::O_CLOEXEC)?;
    if LISTS.contains(&file) { read_to_end(opened) } else { read_all(opened) }
}

fn read_to_end(file: OwnedFd) -> Result<String, Errno> {
    let mut bytes = Vec::with_capacity(256);
    // `take` keeps std from asking for the size first, which such files do not have
    match File::from(file).take(LARGEST_FILE).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8(bytes).map_err(|_| Errno::EILSEQ),
        Err(error) => Err(errno_of(&error)),
    }
}

/// A file of a cgroup by its whole path, of which rrun knows that no part was a symlink when it recorded it.
pub fn read_path(path: &Path) -> Result<String, Errno> {
    let file = openat(AT_FDCWD, path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    match fstatfs(&file)?.filesystem_type() {
        CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC => read_all(file),
        // something else is mounted there now
        _ => Err(Errno::ENOENT),
    }
}

fn read_all(file: OwnedFd) -> Result<String, Errno> {
    String::from_utf8(file::read(&file, 256, LARGEST_FILE as usize)?).map_err(|_| Errno::EILSEQ)
}

pub fn write(dir: &impl AsFd, file: &str, value: &str) -> Result<(), Errno> {
    write_once(&File::from(open_inside(dir, Path::new(file), OFlag::O_WRONLY | OFlag::O_CLOEXEC)?), value)
}

/// The kernel takes each write(2) for a whole value.
pub fn write_once(mut file: &File, value: &str) -> Result<(), Errno> {
    match file.write(value.as_bytes()) {
        Ok(length) if length == value.len() => Ok(()),
        Ok(_) => Err(Errno::EIO),
        Err(error) => Err(errno_of(&error)),
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

pub fn open_error(directory: &Directory, errno: Errno) -> SysError {
    SysError::new("open cgroup", directory.path.display(), errno)
}

/// The directories above `path`, from the top of the hierarchy down.
pub fn above(path: &Path) -> Vec<&Path> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above
}

/// The process ids in cgroup.procs.
pub fn processes(dir: &impl AsFd) -> Result<Vec<i32>, Errno> {
    Ok(numbers_of_processes(dir)?.into_iter().filter(|pid| *pid > 0).collect())
}

/// Processes outside of rrun's pid namespace are 0 in the v2 tree; v1 does not tell them.
pub fn numbers_of_processes(dir: &impl AsFd) -> Result<Vec<i32>, Errno> {
    let text = match read(dir, "cgroup.procs") {
        // a threaded cgroup of v2 knows only threads; those of a process's leader have its number
        Err(Errno::EOPNOTSUPP) => read(dir, "cgroup.threads"),
        text => text,
    };
    match text {
        Ok(text) => Ok(text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()),
        // removed meanwhile
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(Vec::new()),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_part_after_part() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Directory::at(temporary.path()).unwrap().0;
        for list in LISTS {
            let path = temporary.path().join(list);
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            let writes = std::thread::spawn(move || {
                let mut fifo = File::options().write(true).open(path).unwrap();
                for part in ["1\n", "2\n"] {
                    fifo.write_all(part.as_bytes()).unwrap();
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            });
            assert_eq!(dir.read(list).as_deref(), Ok("1\n2\n"), "{list}");
            writes.join().unwrap();
        }
    }
}
