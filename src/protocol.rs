//! Every word that parent and child say to each other while a container is set up, and what carries them.
//!
//! ```text
//! child                                parent
//! Born + a pidfd                     →   goes on with that process in place of the first
//! Console + the terminal's master  →   hands it to the caller
//! Listener(a number to be opened)  →   takes it by pidfd_getfd once Ready is seen, and hands it to the agent
//! MapMount + a mount               →   maps its ids
//! Socket + one                     →   speaks with CRIU by it, which the child becomes
//! MapIds, OpenMount, RaiseLimits,
//! Schedule, NetDevices             →   does it
//!                                  ←   done, and perhaps a descriptor; a parent that cannot ends the child instead
//! Failed(the whole chain of causes)    the last word
//! Ready (a read of an eventfd)     →   memory limit, state.json, pid file
//!                                  ←   commit byte: it is all recorded; end of file: it is not
//! end of the socket                    `exec`: execve has closed it
//! start FIFO: a byte is read       ←   `rrun start` writes 512
//!             256 more are read        startContainer hooks are done, if there are any
//!             e more bytes are read    a hook, or execve, failed with errno e
//! ```
//!
//! Ready is no message: after a seccomp filter is loaded only the calls that the program needs anyway are sure to
//! pass, and `read` is one. Design: docs/design.md, "Launching".

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Report, SysError};
use crate::sys::{file, socket};

#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// The master of the container's terminal comes with the message.
    Console,
    /// The seccomp filter is about to be loaded; its listener will have this number in the child.
    Listener(i32),
    /// The second process, of who joins a user namespace; its pidfd comes with the message. The first ends.
    Born,
    /// Of a child that becomes CRIU: the end that is rrun's comes with the message. CRIU takes descriptors that it is told of
    /// for those of the socket's maker.
    Socket,
    /// uid_map and gid_map, and what else can be written only then. Done when they stand.
    MapIds,
    /// A mount of the plan, by its place there, whose source the child cannot reach. The mount comes with the answer.
    OpenMount(usize),
    /// A mount of the plan, by its place there, comes with the message: its ids are to be mapped, which takes rights over
    /// its file system.
    MapMount(usize),
    /// process.rlimits, for a child that may not raise its own.
    RaiseLimits,
    /// process.scheduler and ioPriority, for a child that may not go above the usual.
    Schedule,
    /// linux.netDevices, which are the parent's to give.
    NetDevices,
    /// The hooks of the runtime's namespaces: everything is mounted, and nothing is switched yet. A request.
    RunHooks,
    /// What went wrong. Nothing follows.
    Failed(Report),
}

/// The parent's only answer.
const DONE: [u8; 1] = [1];

/// One end of the conversation.
pub struct Channel(OwnedFd);

impl Channel {
    /// The parent's end and the child's.
    pub fn pair() -> Result<(Self, Self), SysError> {
        socket::pair().map(|(a, b)| (Self(a), Self(b)))
    }

    pub fn ask(&self, ask: &Ask, fd: Option<BorrowedFd>) -> Result<()> {
        let mut bytes = serde_json::to_vec(ask)?;
        if bytes.len() > socket::LONGEST {
            bytes = serde_json::to_vec(&Ask::Failed(Report::text("the reason is too long to be told")))?;
        }
        socket::send(self.0.as_fd(), &bytes, fd).doing("sendmsg", "the parent")?;
        Ok(())
    }

    /// The next word and the descriptor that came with it; `None` when the child is gone.
    pub fn listen(&self) -> Result<Option<(Ask, Option<OwnedFd>)>> {
        let mut bytes = Vec::new();
        let receive = |bytes: &mut Vec<u8>| socket::receive(self.0.as_fd(), bytes);
        let fd = match receive(&mut bytes) {
            // The child died with words of ours unread: that is told once, and before what it said itself.
            Err(Errno::ECONNRESET) => receive(&mut bytes),
            result => result,
        }
        .doing("recvmsg", "the child")?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let ask = serde_json::from_slice(&bytes).context("the child's message")?;
        Ok(Some((ask, fd)))
    }

    /// Child: asks, and waits until the parent has done it. A parent that cannot do it ends the child instead.
    pub fn request(&self, ask: &Ask) -> Result<Option<OwnedFd>> {
        self.request_with(ask, None)
    }

    /// As `request`, with a descriptor.
    pub fn request_with(&self, ask: &Ask, fd: Option<BorrowedFd>) -> Result<Option<OwnedFd>> {
        self.ask(ask, fd)?;
        let mut byte = Vec::new();
        let fd = socket::receive(self.0.as_fd(), &mut byte).doing("recvmsg", "the parent")?;
        ensure!(byte == DONE, "the parent is gone");
        Ok(fd)
    }

    /// Parent: what was asked is done; a descriptor may come with that.
    pub fn answer(&self, fd: Option<BorrowedFd>) -> Result<(), SysError> {
        socket::send(self.0.as_fd(), &DONE, fd).doing("sendmsg", "the child")
    }

    /// Parent: everything is recorded, the child may wait for its start.
    pub fn commit(&self) -> Result<(), SysError> {
        socket::send(self.0.as_fd(), &[0], None).doing("sendmsg", "the commit byte")
    }

    /// Child: true when the parent has recorded everything; false when it is gone.
    pub fn wait_for_commit(&self) -> bool {
        let mut byte = [0];
        matches!(nix::unistd::read(&self.0, &mut byte), Ok(1))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An eventfd that is full until the child reads it. The parent sees that as "writable".
pub struct Ready(OwnedFd);

/// The most an eventfd holds: eventfd(2). Then it is not writable.
const FULL: u64 = u64::MAX - 1;

impl Ready {
    pub fn new() -> Result<Self, SysError> {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).doing("eventfd", "")?;
        eventfd.write(FULL).doing("write", "eventfd")?;
        Ok(Self(eventfd.into()))
    }

    /// The child's copy of the same eventfd.
    pub fn try_clone(&self) -> Result<Self, SysError> {
        file::dup(&self.0).map(Self).doing("dup", "eventfd")
    }

    /// Parent.
    pub fn is_announced(&self) -> Result<bool, SysError> {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, PollTimeout::ZERO).map(|count| count > 0).doing("poll", "eventfd")
    }

    /// Child.
    pub fn announce(&self) -> Result<(), SysError> {
        nix::unistd::read(&self.0, &mut [0; 8]).map(drop).doing("read", "eventfd")
    }
}

impl AsFd for Ready {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What `start` writes at once: init reads one byte, and the rest marks the start as given until init has executed.
pub const START: [u8; 512] = [0; 512];

/// How many init reads when its hooks have run: more than any errno.
pub const HOOKS_DONE: usize = 256;

/// Tells what became of a start by the bytes that init left in the FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Executed,
    /// A startContainer hook.
    HookFailed,
    /// execve(2).
    Failed(Errno),
    /// Init ended without having read its start.
    NotRead,
    /// Init was ended while its startContainer hooks ran.
    EndedInHooks,
}

pub fn outcome(bytes_left: usize, has_hooks: bool) -> Outcome {
    match (START.len() - 1).checked_sub(bytes_left) {
        None => Outcome::NotRead,
        Some(0) if has_hooks => Outcome::EndedInHooks,
        Some(0 | HOOKS_DONE) => Outcome::Executed,
        Some(1..HOOKS_DONE) if has_hooks => Outcome::HookFailed,
        Some(errno) => Outcome::Failed(Errno::from_raw((errno % HOOKS_DONE) as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_left_tell_what_execve_said() {
        const NOEXEC: usize = libc::ENOEXEC as usize;
        for (left, has_hooks, want) in [
            (512, false, Outcome::NotRead),
            (512, true, Outcome::NotRead),
            (511, false, Outcome::Executed),
            (511, true, Outcome::EndedInHooks),
            (255, true, Outcome::Executed),
            (511 - NOEXEC, false, Outcome::Failed(Errno::ENOEXEC)),
            (511 - libc::ECANCELED as usize, true, Outcome::HookFailed),
            (255 - NOEXEC, true, Outcome::Failed(Errno::ENOEXEC)),
            (511 - libc::EHWPOISON as usize, false, Outcome::Failed(Errno::EHWPOISON)),
        ] {
            assert_eq!(outcome(left, has_hooks), want, "{left} {has_hooks}");
        }
    }

    #[test]
    fn words_cross_with_their_descriptor_and_an_end_is_seen() {
        let (parent, child) = Channel::pair().unwrap();
        child.ask(&Ask::Console, Some(child.as_fd())).unwrap();
        let (ask, fd) = parent.listen().unwrap().unwrap();
        assert!(matches!(ask, Ask::Console) && fd.is_some());
        drop((child, fd));
        assert!(parent.listen().unwrap().is_none());
        assert!(parent.commit().is_err());
    }

    #[test]
    fn last_words_are_heard_though_ours_were_not_read() {
        let (parent, child) = Channel::pair().unwrap();
        parent.commit().unwrap();
        child.ask(&Ask::Failed(Report::text("why")), None).unwrap();
        drop(child);
        assert!(matches!(parent.listen().unwrap(), Some((Ask::Failed(_), None))));
        assert!(parent.listen().unwrap().is_none());
    }

    #[test]
    fn a_request_waits_for_its_answer() {
        let (parent, child) = Channel::pair().unwrap();
        let asked = std::thread::spawn(move || (child.request(&Ask::Console), child.request(&Ask::Console)));
        assert!(parent.listen().unwrap().is_some());
        parent.answer(Some(std::io::stdin().as_fd())).unwrap();
        assert!(parent.listen().unwrap().is_some());
        drop(parent);
        let (first, second) = asked.join().unwrap();
        assert!(first.unwrap().is_some(), "a descriptor came with it");
        assert_eq!(second.unwrap_err().to_string(), "the parent is gone");
    }

    #[test]
    fn ready_is_seen_as_writable() {
        let ready = Ready::new().unwrap();
        assert!(!ready.is_announced().unwrap());
        ready.announce().unwrap();
        assert!(ready.is_announced().unwrap());
    }
}
