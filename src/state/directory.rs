//! ROOT/ID: the directory of one container and the files in it. Reached through a descriptor, replaced by rename.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, mkdirat, stat};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{UnlinkatFlags, mkfifoat, unlinkat};

use super::State;
use crate::error::{Doing, Inside, Matched, SysError};
use crate::rootfs::is_same_file;
use crate::sys::file;

const STATE: &str = "state.json";
const NEW_STATE: &str = "state.json.new";
const CONFIG: &str = "config.json";
const NEW_CONFIG: &str = "config.json.new";
const NOTIFY: &str = "notify";
const RESTORE: &str = "restore";
const START: &str = "start.fifo";
const START_ERROR: &str = "start.error";
/// Is there while an `update` has the container frozen.
const FROZEN: &str = "update.frozen";
const LENT: &str = "net_devices.json";
const NEW_LENT: &str = "net_devices.json.new";
/// Where network devices are lent from, and to.
const NETWORKS: [&str; 2] = ["network.home", "network.inside"];

/// linux/magic.h; libc has it in a type of its own for each C library.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Many times what is ever written: a damaged file must not take all memory.
const LONGEST: usize = 64 << 20;

/// Most records, and most configs, fit into this.
const AT_ONCE: usize = 32 << 10;

const OWNER_ONLY: Mode = Mode::from_bits_truncate(0o600);

pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
}

/// Whether the start channel has a reader: init, from its making to its execve.
pub enum StartChannel {
    Held(File),
    Closed,
}

impl Directory {
    /// Claims the id: making its directory is what only one of two can do.
    pub fn create(root: &Path, id: &str) -> Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).doing("mkdir", root.display())?;
        let path = root.join(id);
        match nix::unistd::mkdir(&path, Mode::S_IRWXU) {
            Err(Errno::EEXIST) => return Err(Matched::AlreadyExists.into()),
            result => result.doing("mkdir", path.display())?,
        }
        Self::at(path)?.context("the container was deleted while it was made")
    }

    /// `None` where there is no such container.
    pub fn open(root: &Path, id: &str) -> Result<Option<Self>> {
        Self::at(root.join(id))
    }

    fn at(path: PathBuf) -> Result<Option<Self>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match file::open(&path, flags) {
            Ok(fd) => Ok(Some(Self { path, fd })),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(SysError::new("open container", path.display(), errno).into()),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether ROOT/ID is still this directory: it may have been deleted, and made anew by another.
    pub fn is_current(&self) -> Result<bool> {
        let ours = fstat(&self.fd).doing("fstat", self.path.display())?;
        match stat(&self.path) {
            Ok(theirs) => Ok(is_same_file(&ours, &theirs)),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(SysError::new("stat", self.path.display(), errno).into()),
        }
    }

    fn name<'a>(&'a self, file: &'a str) -> Inside<'a> {
        Inside(&self.path, file)
    }

    fn open_file(&self, name: &str, flags: OFlag) -> Result<File, Errno> {
        openat(&self.fd, name, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, OWNER_ONLY).map(File::from)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SysError> {
        // a FIFO in its place would keep us waiting
        let file = match self.open_file(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Err(Errno::ENOENT) => return Ok(None),
            file => file.doing("open", self.name(name))?,
        };
        Ok(Some(file::read(&file, AT_ONCE, LONGEST).doing("read", self.name(name))?))
    }

    /// `None` before the record is there: its creator was killed early, or is about to write it.
    pub fn read_state(&self) -> Result<Option<State>> {
        let Some(bytes) = self.read(STATE)? else { return Ok(None) };
        let state: State = serde_json::from_slice(&bytes).with_context(|| {
            format!("{}: the record is damaged; remove its folder when nothing of it runs", self.name(STATE))
        })?;
        ensure!(
            state.format <= super::FORMAT,
            "{}: written by a newer rrun (format {}); use that one",
            self.name(STATE),
            state.format
        );
        Ok(Some(state))
    }

    /// Readers see the old file or the new one, never a part. Under the lock, as the new file's name is fixed.
    pub fn write_state(&self, state: &State) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let file = self.open_file(NEW_STATE, flags).doing("create", self.name(NEW_STATE))?;
        // one write(2) for most; annotations may be of any length
        let mut file = BufWriter::with_capacity(AT_ONCE, file);
        serde_json::to_writer(&mut file, state)
            .map_err(io::Error::from)
            .and_then(|()| file.flush())
            .doing("write", self.name(NEW_STATE))?;
        renameat(&self.fd, NEW_STATE, &self.fd, STATE).doing("rename", self.name(STATE))?;
        Ok(())
    }

    /// The config that the container was made from: later commands need it when the bundle may be gone.
    pub fn write_config(&self, config: &[u8]) -> Result<(), SysError> {
        self.write(CONFIG, config)
    }

    /// `None` when the container is gone.
    pub fn read_config(&self) -> Result<Option<Vec<u8>>, SysError> {
        self.read(CONFIG)
    }

    /// For an `update`; as `write_state`.
    pub fn replace_config(&self, config: &[u8]) -> Result<(), SysError> {
        self.write(NEW_CONFIG, config)?;
        renameat(&self.fd, NEW_CONFIG, &self.fd, CONFIG).doing("rename", self.name(CONFIG))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SysError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC;
        let mut file = self.open_file(name, flags).doing("create", self.name(name))?;
        file.write_all(bytes).doing("write", self.name(name))
    }

    /// The FIFO that init reads its start from. Opened for both ways, so that whoever holds it is its reader and never
    /// sees an end of file.
    pub fn make_start_channel(&self) -> Result<File, SysError> {
        mkfifoat(&self.fd, START, OWNER_ONLY).doing("mkfifo", self.name(START))?;
        self.open_file(START, OFlag::O_RDWR).doing("open", self.name(START))
    }

    pub fn start_channel(&self) -> Result<StartChannel, SysError> {
        match self.open_file(START, OFlag::O_WRONLY | OFlag::O_NONBLOCK) {
            Ok(file) => Ok(StartChannel::Held(file)),
            // nobody reads any more; or it was never made
            Err(Errno::ENXIO | Errno::ENOENT) => Ok(StartChannel::Closed),
            Err(errno) => Err(SysError::new("open", self.name(START), errno)),
        }
    }

    pub fn make_start_error(&self) -> Result<File, SysError> {
        self.open_file(START_ERROR, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)
            .doing("create", self.name(START_ERROR))
    }

    /// The directory that is mounted in a container whose readiness somebody waits for.
    pub fn notify_path(root: &Path, id: &str) -> PathBuf {
        root.join(id).join(NOTIFY)
    }

    /// Any user of the container comes through it; on the host nobody comes to it.
    pub fn make_notify_directory(&self) -> Result<(), SysError> {
        mkdirat(&self.fd, NOTIFY, Mode::from_bits_truncate(0o755)).doing("mkdir", self.name(NOTIFY))
    }

    /// An empty one, on which a rootfs can be mounted while it is restored: in a namespace that nobody else sees.
    pub fn make_restore_directory(&self) -> Result<PathBuf, SysError> {
        mkdirat(&self.fd, RESTORE, Mode::from_bits_truncate(0o755)).doing("mkdir", self.name(RESTORE))?;
        Ok(self.path.join(RESTORE))
    }

    /// `None` where the container was made without one.
    pub fn notify_directory(&self) -> Result<Option<OwnedFd>, SysError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.fd, NOTIFY, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(directory)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(SysError::new("open", self.name(NOTIFY), errno)),
        }
    }

    /// Which network devices are on loan: until the container is up, whoever deletes it gives them back. As `write_state`.
    pub fn write_lent(&self, lent: &[u8]) -> Result<(), SysError> {
        self.write(NEW_LENT, lent)?;
        renameat(&self.fd, NEW_LENT, &self.fd, LENT).doing("rename", self.name(LENT))
    }

    pub fn read_lent(&self) -> Result<Option<Vec<u8>>, SysError> {
        self.read(LENT)
    }

    /// Network namespaces outlive their last process where they are mounted, and the devices in them too.
    pub fn hold_networks(&self, networks: [BorrowedFd; 2]) -> Result<(), SysError> {
        for (name, network) in NETWORKS.into_iter().zip(networks) {
            self.open_file(name, OFlag::O_WRONLY | OFlag::O_CREAT).doing("create", self.name(name))?;
            let source = format!("/proc/self/fd/{}", network.as_raw_fd());
            let target = self.by_descriptor(name);
            mount(Some(source.as_str()), target.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .doing("mount", self.name(name))?;
        }
        Ok(())
    }

    /// `None` where they were not held: then nothing was sent.
    pub fn held_networks(&self) -> Result<Option<[File; 2]>, SysError> {
        let mut held = Vec::new();
        for name in NETWORKS {
            let file = match self.open_file(name, OFlag::O_RDONLY) {
                Err(Errno::ENOENT) => return Ok(None),
                file => file.doing("open", self.name(name))?,
            };
            if fstatfs(&file).doing("fstatfs", self.name(name))?.filesystem_type() != NSFS_MAGIC {
                return Ok(None);
            }
            held.push(file);
        }
        Ok(held.try_into().ok())
    }

    /// The record goes first: devices whose container is up are not fetched.
    pub fn let_networks_go(&self) -> Result<(), SysError> {
        self.unlink(LENT)?;
        for name in NETWORKS {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            match umount2(self.by_descriptor(name).as_str(), flags) {
                // never made, or never mounted
                Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => self.unlink(name)?,
                Err(errno) => return Err(SysError::new("umount", self.name(name), errno)),
            }
        }
        Ok(())
    }

    /// That an `update` is about to freeze the container, until it has thawed it: one that is killed meanwhile cannot.
    pub fn mark_frozen(&self) -> Result<(), SysError> {
        self.write(FROZEN, b"")
    }

    pub fn unmark_frozen(&self) -> Result<(), SysError> {
        self.unlink(FROZEN)
    }

    pub fn is_marked_frozen(&self) -> Result<bool, SysError> {
        match self.open_file(FROZEN, OFlag::O_PATH) {
            Err(Errno::ENOENT) => Ok(false),
            file => file.doing("open", self.name(FROZEN)).map(|_| true),
        }
    }

    fn unlink(&self, name: &str) -> Result<(), SysError> {
        match unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            result => result.doing("unlink", self.name(name)),
        }
    }

    fn by_descriptor(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd())
    }

    /// What init could say of an execve that failed.
    pub fn read_start_error(&self) -> Result<String, SysError> {
        Ok(String::from_utf8_lossy(&self.read(START_ERROR)?.unwrap_or_default()).into_owned())
    }

    /// The record goes last: until then `delete` finds what is left. The config, just before: it names poststop hooks.
    pub fn remove(&self) -> Result<(), SysError> {
        let mut names = Vec::new();
        let mut dir = Dir::openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .doing("opendir", self.path.display())?;
        for entry in dir.iter() {
            let entry = entry.doing("readdir", self.path.display())?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name != "." && name != "..");
        names.sort_by_key(|name| (name == STATE, name == CONFIG));
        for name in names {
            match unlinkat(&self.fd, name.as_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(Errno::EISDIR) => self.remove_directory(&name)?,
                Err(errno) => return Err(SysError::new("unlink", self.name(&name), errno)),
            }
        }
        match unlinkat(nix::fcntl::AT_FDCWD, &self.path, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(SysError::new("rmdir", self.path.display(), errno)),
        }
    }

    /// With all that a container with every right may have put into it; std follows no symlink of it.
    fn remove_directory(&self, name: &str) -> Result<(), SysError> {
        match std::fs::remove_dir_all(self.by_descriptor(name)).doing("rmdir", self.name(name)) {
            Err(SysError { errno: Errno::ENOENT, .. }) => Ok(()),
            result => result,
        }
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_puts_beside_its_socket_goes_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        std::fs::create_dir_all(outside.join("kept")).unwrap();
        let directory = Directory::create(root.path(), "c1").unwrap();
        assert!(directory.notify_directory().unwrap().is_none());
        directory.make_notify_directory().unwrap();
        let notify = Directory::notify_path(root.path(), "c1");
        std::fs::create_dir_all(notify.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, notify.join("link")).unwrap();
        std::os::unix::fs::symlink(&outside, notify.join("a/link")).unwrap();
        assert!(directory.notify_directory().unwrap().is_some());
        directory.remove().unwrap();
        assert!(!root.path().join("c1").exists() && outside.join("kept").exists());
    }
}
