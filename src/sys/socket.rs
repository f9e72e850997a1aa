//! Message sockets between parent and child, and descriptors sent over them: unix(7).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, recvmsg,
    sendmsg, socket, socketpair,
};
use nix::sys::stat::Mode;

use crate::error::{Doing, SysError};

/// Two ends that keep message borders and say when the other end is gone.
pub fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).doing("socketpair", "")
}

/// A listener whose queue is full makes us wait, but not for ever.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

pub fn connect_stream(path: &Path) -> Result<OwnedFd, SysError> {
    let connected = at(path, |address| connect_to(address, Instant::now() + PATIENCE));
    connected.doing("connect", path.display())
}

/// An address holds 107 bytes of a path: to a longer one the way is by its directory.
pub fn at<T>(path: &Path, act: impl FnOnce(&UnixAddr) -> Result<T, Errno>) -> Result<T, Errno> {
    match (UnixAddr::new(path), path.parent(), path.file_name()) {
        (Err(Errno::ENAMETOOLONG), Some(above), Some(name)) => {
            let above = open(above, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            act(&UnixAddr::new(&Path::new("/proc/self/fd").join(above.as_raw_fd().to_string()).join(name))?)
        }
        (address, ..) => act(&address?),
    }
}

/// A stream that does not block.
pub fn connect_to(address: &UnixAddr, deadline: Instant) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    loop {
        match connect(socket.as_raw_fd(), address) {
            Err(Errno::EAGAIN) if Instant::now() < deadline => sleep(PAUSE),
            result => return result.map(|()| socket),
        }
    }
}

/// Sends one message with at most one descriptor. A vanished reader is EPIPE, never a signal.
pub fn send(socket: BorrowedFd, bytes: &[u8], fd: Option<BorrowedFd>) -> Result<(), Errno> {
    let fds = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = fds.as_ref().map(|fds| ControlMessage::ScmRights(fds));
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], rights.as_slice(), MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// All of `bytes` over a stream, with one descriptor. A reader that does not read makes us wait, but not for ever.
pub fn send_whole(socket: BorrowedFd, bytes: &[u8], fd: BorrowedFd) -> Result<(), Errno> {
    let deadline = Instant::now() + PATIENCE;
    let (fds, mut sent) = ([fd.as_raw_fd()], 0);
    while sent < bytes.len() {
        // with the first byte
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if sent == 0 { &rights[..] } else { &[] };
        let part = [IoSlice::new(&bytes[sent..])];
        match sendmsg::<()>(socket.as_raw_fd(), &part, rights, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(length) => sent += length,
            Err(Errno::EAGAIN) if Instant::now() < deadline => sleep(PAUSE),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// One message and the descriptor that came with it; an empty message is the end of the other side.
pub fn receive(socket: BorrowedFd, buffer: &mut Vec<u8>) -> Result<Option<OwnedFd>, Errno> {
    // its length first: most are short, and room for the longest is four pages to be touched
    buffer.resize(recv(socket.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?.min(LONGEST), 0);
    if buffer.is_empty() {
        return Ok(None);
    }
    let mut space = nix::cmsg_space!([std::os::fd::RawFd; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel has just made this descriptor for us; nobody else knows it.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    let length = message.bytes;
    buffer.truncate(length);
    Ok(received)
}

/// Longer messages are cut by their sender.
pub const LONGEST: usize = 16 * 1024;

/// Whether the other end of `socket` is gone or has something to say.
pub fn is_readable(socket: &impl AsFd) -> Result<bool, Errno> {
    let mut fds = [nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN)];
    Ok(nix::poll::poll(&mut fds, nix::poll::PollTimeout::ZERO)? > 0)
}
