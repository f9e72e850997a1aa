//! `tmpcopyup`: a new tmpfs starts with what the directory below it holds. By descriptors, symlinks never followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, Result, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, Whence, fchownat, lseek, symlinkat};
use xattr::FileExt;

use crate::error::Doing;
use crate::rootfs::kind_of;
use crate::sys::mount::{self, Mount};

/// Deeper trees are an attack on our stack, not data.
const DEEPEST: usize = 256;

/// Copies what `from` holds into the still detached `to`, and the mode and owner of `from` itself.
pub(super) fn copy(from: &OwnedFd, to: &Mount) -> Result<()> {
    let top = mount::reopen_directory(to)?;
    let stat = nix::sys::stat::fstat(from).doing("fstat", ".")?;
    copy_directory(from, &top, &stat, 0)
}

fn copy_directory(from: &OwnedFd, to: &OwnedFd, stat: &FileStat, depth: usize) -> Result<()> {
    ensure!(depth < DEEPEST, "directories are nested more than {DEEPEST} deep");
    let mut directory = Dir::from_fd(from.try_clone().doing("dup", ".")?).doing("opendir", ".")?;
    for entry in directory.iter() {
        let entry = entry.doing("readdir", ".")?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy_entry(from, to, name, depth).with_context(|| name.display().to_string())?;
        }
    }
    copy_attributes(&File::from(from.try_clone()?), &File::from(to.try_clone()?), stat)
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &OsStr, depth: usize) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW).doing("stat", "")?;
    let kind = kind_of(&stat);
    let safe = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match kind {
        SFlag::S_IFDIR => {
            mkdirat(to, name, Mode::S_IRWXU).doing("mkdir", "")?;
            let from =
                openat(from, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | safe, Mode::empty()).doing("open", "")?;
            let to = openat(to, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | safe, Mode::empty()).doing("open", "")?;
            copy_directory(&from, &to, &stat, depth + 1)
        }
        SFlag::S_IFREG => {
            let from =
                openat(from, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK | safe, Mode::empty()).doing("open", "")?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | safe;
            let to = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR).doing("create", "")?;
            let (from, to) = (File::from(from), File::from(to));
            copy_data(&from, &to, stat.st_size)?;
            copy_attributes(&from, &to, &stat)
        }
        SFlag::S_IFLNK => {
            let target = readlinkat(from, name).doing("readlink", "")?;
            symlinkat(target.as_os_str(), to, name).doing("symlink", "")?;
            own(to, name, &stat)
        }
        kind => {
            // devices, FIFOs and sockets
            mknodat(to, name, kind, Mode::from_bits_truncate(stat.st_mode), stat.st_rdev).doing("mknod", "")?;
            own(to, name, &stat)
        }
    }
}

/// Data only: a file of holes costs no memory, whatever size it claims.
fn copy_data(mut from: &File, mut to: &File, size: i64) -> Result<()> {
    to.set_len(size as u64).doing("truncate", "")?;
    let mut at = 0;
    loop {
        let data = match lseek(from, at, Whence::SeekData) {
            // nothing but a hole up to the end
            Err(Errno::ENXIO) => return Ok(()),
            data => data.doing("lseek", "")?,
        };
        at = lseek(from, data, Whence::SeekHole).doing("lseek", "")?;
        from.seek(SeekFrom::Start(data as u64)).doing("lseek", "")?;
        to.seek(SeekFrom::Start(data as u64)).doing("lseek", "")?;
        io::copy(&mut from.take((at - data) as u64), &mut to).doing("copy", "")?;
    }
}

fn own(dir: &OwnedFd, name: &OsStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).doing("chown", "")?)
}

/// Owner, mode and extended attributes; the mode after the owner, since a chown takes set-user-ID away.
fn copy_attributes(from: &File, to: &File, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    nix::unistd::fchown(to.as_fd(), Some(uid), Some(gid)).doing("chown", "")?;
    fchmod(to.as_fd(), Mode::from_bits_truncate(stat.st_mode & 0o7777)).doing("chmod", "")?;
    let names = match from.list_xattr() {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        names => names.doing("listxattr", "")?,
    };
    for name in names {
        let Some(value) = from.get_xattr(&name).doing("getxattr", name.display())? else { continue };
        match to.set_xattr(&name, &value) {
            // a tmpfs without that kind of attribute: nothing to keep
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            result => result.doing("setxattr", name.display())?,
        }
    }
    Ok(())
}
