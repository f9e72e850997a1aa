//! The container's terminal: from its own /dev/pts, never the caller's (CVE-2025-52565, TIOCSTI).

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat, major};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Uid, fchown};

use super::Init;
use crate::error::Doing;
use crate::plan::Terminal;
use crate::protocol::Ask;
use crate::rootfs::{InRoot, Place, Symlinks, kind_of};
use crate::sys::mount::{self, Reach};
use crate::sys::{fds, tty};

/// statfs(2)
const DEVPTS_SUPER_MAGIC: FsType = FsType(0x1cd1);
/// Unix98 pseudo-terminals: the kernel's devices.txt.
const PTY_MAJORS: std::ops::RangeInclusive<u64> = 136..=143;

impl Init<'_> {
    pub(super) fn open_terminal(&mut self, terminal: Terminal) -> Result<()> {
        let master = self.open_master().context("a terminal needs a devpts mounted at /dev/pts")?;
        tty::unlock(master.as_fd())?;
        let peer = tty::open_peer(master.as_fd())?;
        ensure!(
            PTY_MAJORS.contains(&major(fstat(&peer).doing("fstat", "the terminal")?.st_rdev)),
            "what /dev/pts gave is not a pseudo-terminal"
        );
        if let Some((rows, columns)) = terminal.size {
            tty::set_size(master.as_fd(), tty::Size { rows, columns })?;
        }
        fchown(&peer, Some(Uid::from_raw(self.process.uid)), None).doing("chown", "the terminal")?;
        self.handles.channel.ask(&Ask::Console, Some(master.as_fd()))?;
        tty::set_controlling(peer.as_fd())?;
        for number in 0..3 {
            fds::install(&peer, number)?;
        }
        Ok(())
    }

    fn open_master(&self) -> Result<OwnedFd> {
        let path = InRoot::new("/dev/pts/ptmx");
        let check = |fd: &OwnedFd| -> Result<()> {
            let magic = fstatfs(fd).doing("fstatfs", &path)?.filesystem_type();
            ensure!(magic == DEVPTS_SUPER_MAGIC, "{path} lies on another file system than devpts");
            Ok(())
        };
        // Before it is opened for real: to open some other device may already do something.
        check(&self.rootfs()?.open(&path, OFlag::O_PATH)?)?;
        let master = self.rootfs()?.open(&path, OFlag::O_RDWR | OFlag::O_NOCTTY)?;
        check(&master)?;
        Ok(master)
    }

    /// The spec: /dev/console is a bind mount of the terminal, which is the standard input by now.
    pub(super) fn bind_console(&mut self) -> Result<()> {
        let path = InRoot::new("/dev/console");
        let place = self.rootfs()?.mountpoint(&path, Place::File, Symlinks::Refused)?;
        self.refuse_inside_proc(&path, &place)?;
        let kind = kind_of(&fstat(&place.fd).doing("fstat", &path)?);
        ensure!(kind != SFlag::S_IFDIR, "{path} is a folder; the terminal cannot be bound onto it");
        let clone = mount::clone_tree_of(fds::stdio()[0], Reach::One, "the terminal")?;
        Ok(mount::attach(&clone, place.fd.as_fd(), &path)?)
    }
}
