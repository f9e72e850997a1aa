//! sd_notify(3) for the program of a container: when it says READY=1, whoever waits for rrun is told, and which process
//! the main one is. Nothing else is passed on: a container has no say in how the host looks after its service.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, recv, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{UnlinkatFlags, pipe2, unlinkat};

use crate::error::{Doing, SysError};
use crate::log;
use crate::plan::notify::{SOCKET, VARIABLE};
use crate::sys::socket::{self, send};

/// Who waits for rrun: its own NOTIFY_SOCKET.
pub struct Host {
    socket: OwnedFd,
}

/// A service manager that does not read for so long is not waited for: the container runs all the same.
const SEND_SECONDS: i64 = 10;
const BARRIER_PATIENCE: Duration = Duration::from_secs(30);

/// Whether `name` is an address: a path, or `@` and the name of an abstract socket (sd_notify(3)).
pub fn check(name: &OsStr) -> Result<()> {
    at(name, |_| Ok(()))
}

/// Like any socket's, the path may be longer than an address holds.
fn at<T>(name: &OsStr, act: impl FnOnce(&UnixAddr) -> Result<T, Errno>) -> Result<T> {
    let result = match name.as_bytes() {
        [b'/', ..] => socket::at(Path::new(name), act),
        [b'@', rest @ ..] if !rest.is_empty() => UnixAddr::new_abstract(rest).and_then(|address| act(&address)),
        _ => bail!("environment variable {VARIABLE}: {} is neither a path from / nor @ and a name", name.display()),
    };
    result.doing("connect", name.display()).with_context(|| format!("environment variable {VARIABLE}"))
}

impl Host {
    pub fn connect(name: &OsStr) -> Result<Self> {
        let open = || -> Result<OwnedFd, SysError> {
            let socket =
                socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).doing("socket", "")?;
            setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(SEND_SECONDS)).doing("setsockopt", "")?;
            Ok(socket)
        };
        let socket = open().with_context(|| format!("environment variable {VARIABLE}"))?;
        at(name, |address| connect(socket.as_raw_fd(), address))?;
        Ok(Self { socket })
    }

    fn tell(&self, line: &str, fd: Option<BorrowedFd>) -> Result<(), SysError> {
        send(self.socket.as_fd(), line.as_bytes(), fd).doing("sendmsg", VARIABLE)
    }
}

/// How far a container is on its way to be ready, as its service manager shall learn it.
pub struct Readiness {
    host: Host,
    main_pid: i32,
    socket: OwnedFd,
    heard: Heard,
    barrier: Option<Barrier>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Nothing,
    Ready,
    /// And a barrier of its own behind it, as systemd-notify(1) sends one: no more will come from it.
    Barrier,
}

/// Longer ones are no notification: systemd reads no more either.
const LONGEST: usize = 4096;
/// net.unix.max_dgram_qlen is 10, or some hundreds.
const MOST_WAITING: usize = 1024;

impl Readiness {
    /// Opens the socket for the container, in the directory that is mounted there. Anybody inside may write to it.
    pub fn await_from(directory: BorrowedFd, host: Host, main_pid: i32) -> Result<Self> {
        // left by a start that was killed
        match unlinkat(directory, SOCKET, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(SysError::new("unlink", SOCKET, errno).into()),
        }
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None).doing("socket", "")?;
        // The path itself may be longer than an address holds (108 bytes).
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        let before = umask(Mode::empty());
        let bound = UnixAddr::new(path.as_str()).and_then(|address| bind(socket.as_raw_fd(), &address));
        umask(before);
        bound.doing("bind", SOCKET)?;
        Ok(Self { host, main_pid, socket, heard: Heard::Nothing, barrier: None })
    }

    pub fn is_ready(&self) -> bool {
        self.heard >= Heard::Ready
    }

    pub fn is_settled(&self) -> bool {
        self.heard == Heard::Barrier
    }

    /// Takes one message; false when none waits. A host that cannot be told is no reason to end a container.
    pub fn take(&mut self) -> bool {
        // without room for descriptors the kernel closes those that come with it, which passes a barrier
        let mut message = [0; LONGEST];
        let length = match recv(self.socket.as_raw_fd(), &mut message, MsgFlags::empty()) {
            Ok(length) => length,
            Err(Errno::EINTR) => return true,
            Err(_) => return false,
        };
        let message = &message[..length];
        if !self.is_ready() && says(message, b"READY=1") {
            self.heard = Heard::Ready;
            self.barrier = self.tell().inspect_err(|error| log::warning(&format!("not told of READY=1: {error}"))).ok();
        } else if self.is_ready() && says(message, b"BARRIER=1") {
            self.heard = Heard::Barrier;
        }
        true
    }

    fn tell(&self) -> Result<Barrier, SysError> {
        self.host.tell("READY=1", None)?;
        self.host.tell(&format!("MAINPID={}", self.main_pid), None)?;
        Barrier::raise(&self.host)
    }

    /// The container has ended, or is ready: takes what it has said last, and waits until the host has taken all of it.
    pub fn finish(mut self) {
        let _ = (0..MOST_WAITING).take_while(|_| self.take()).count();
        match &self.barrier {
            None if !self.is_ready() => log::warning("the program ended before it said READY=1"),
            None => {}
            Some(barrier) if barrier.is_passed() => {}
            Some(_) => log::warning(&format!("{VARIABLE}: what was told there is not read")),
        }
    }
}

fn says(message: &[u8], word: &[u8]) -> bool {
    message.split(|byte| *byte == b'\n').any(|line| line == word)
}

/// To poll: readable when there is something to take.
impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A descriptor that the host closes when it has read everything before it: sd_notify_barrier(3). Until then the sender
/// should not end, or the host cannot tell whose words they were.
struct Barrier {
    closed: OwnedFd,
    deadline: Instant,
}

impl Barrier {
    fn raise(host: &Host) -> Result<Self, SysError> {
        let (closed, given) = pipe2(OFlag::O_CLOEXEC).doing("pipe2", "")?;
        host.tell("BARRIER=1", Some(given.as_fd()))?;
        Ok(Self { closed, deadline: Instant::now() + BARRIER_PATIENCE })
    }

    fn is_passed(&self) -> bool {
        loop {
            let mut fds = [PollFd::new(self.closed.as_fd(), PollFlags::empty())];
            let left = self.deadline.saturating_duration_since(Instant::now());
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_is_a_line_of_its_own() {
        for (message, want) in [
            ("READY=1", true),
            ("READY=1\n", true),
            ("STATUS=up\nREADY=1\nMAINPID=7", true),
            ("", false),
            ("READY=0", false),
            ("READY=", false),
            ("READY=11", false),
            ("STATUS=READY=1", false),
            (" READY=1", false),
        ] {
            assert_eq!(says(message.as_bytes(), b"READY=1"), want, "{message:?}");
        }
    }

    #[test]
    fn addresses_are_paths_and_abstract_names() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let deep = format!("{}/s", deep.display());
        for (name, want) in [
            ("/run/systemd/notify", Ok("/run/systemd/notify")),
            ("@org/x", Ok("@org/x")),
            (&deep, Ok("/proc/self/fd/")),
            ("@", Err("environment variable NOTIFY_SOCKET: @ is neither a path from / nor @ and a name")),
            ("x", Err("environment variable NOTIFY_SOCKET: x is neither a path from / nor @ and a name")),
        ] {
            let shown = |address: &UnixAddr| match address.path() {
                Some(path) => path.display().to_string(),
                None => format!("@{}", String::from_utf8_lossy(address.as_abstract().unwrap_or_default())),
            };
            match (at(OsStr::new(name), |address| Ok(shown(address))), want) {
                (Ok(got), Ok(want)) => assert!(got.starts_with(want), "{name}: {got}"),
                (got, want) => assert_eq!(got.unwrap_err().to_string(), want.unwrap_err(), "{name}"),
            }
        }
        let long = check(OsStr::new(&format!("/{}", "x".repeat(200)))).unwrap_err();
        assert!(format!("{long:#}").contains("file name too long"), "{long:#}");
    }

    #[test]
    fn a_barrier_is_passed_when_its_other_end_is_closed() {
        let (closed, given) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let mut barrier = Barrier { closed, deadline: Instant::now() + Duration::from_millis(20) };
        assert!(!barrier.is_passed());
        drop(given);
        barrier.deadline = Instant::now() + Duration::from_secs(60);
        assert!(barrier.is_passed());
    }
}
