//! `--pid-file`: init's pid for the caller.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Doing, SysError};

/// A directory for a caller's `--pid-file`, opened while its path still means what the caller meant.
pub struct PidFile {
    dir: OwnedFd,
    path: PathBuf,
}

impl PidFile {
    pub fn prepare(path: &Path) -> Result<Self> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        ensure!(path.file_name().is_some(), "--pid-file {}: names no file", path.display());
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = open(parent, flags, Mode::empty()).doing("open", parent.display()).context("--pid-file")?;
        // An empty file made by the caller is normal; a device or a folder is a mistake that rename(2) would make worse.
        let regular = path.metadata().map_or(true, |metadata| metadata.is_file());
        ensure!(regular, "--pid-file {}: is there, and is no regular file", path.display());
        Ok(Self { dir, path: path.to_path_buf() })
    }

    /// Digits alone, as callers parse it strictly; complete before its name is there.
    pub fn write(&self, pid: i32) -> Result<()> {
        let name = self.path.file_name().context("--pid-file")?;
        let mut new = std::ffi::OsString::from(".");
        new.push(name);
        new.push(format!(".{}", std::process::id()));
        // A file of that name is left by a killed rrun that had our pid; or it is a trap, in a folder that others write.
        let unlink = || unlinkat(&self.dir, new.as_os_str(), UnlinkatFlags::NoRemoveDir);
        let _ = unlink();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o644);
        let file = openat(&self.dir, new.as_os_str(), flags, mode).doing("create", self.path.display());
        let file = file.context("--pid-file")?;
        let written = File::from(file).write_all(pid.to_string().as_bytes()).doing("write", self.path.display());
        let renamed = || renameat(&self.dir, new.as_os_str(), &self.dir, name).doing("rename", self.path.display());
        let done = written.and_then(|()| renamed());
        if done.is_err() {
            let _ = unlink();
        }
        done.context("--pid-file")
    }

    pub fn remove(&self) -> Result<()> {
        let name = self.path.file_name().context("--pid-file")?;
        match unlinkat(&self.dir, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(SysError::new("unlink", self.path.display(), errno).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named_with_its_flag() {
        let error = PidFile::prepare(Path::new("/proc/x")).unwrap().write(1).unwrap_err();
        assert!(format!("{error:#}").starts_with("--pid-file: create /proc/x: "), "{error:#}");
    }
}
