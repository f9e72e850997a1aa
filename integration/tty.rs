//! The other end of a terminal: a console socket as managers have one, and a terminal as a user sits at one.

use std::fs::File;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::termios::{Termios, tcgetattr};

use crate::runtime::eventually_within;

/// A machine may have much else to do; who waits in vain has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `--console-socket` or `--pidfd-socket` names.
pub struct ConsoleSocket {
    pub path: PathBuf,
    listener: UnixListener,
}

impl ConsoleSocket {
    pub fn new(dir: &Path) -> Self {
        Self::named(dir, "console.sock")
    }

    pub fn named(dir: &Path, name: &str) -> Self {
        let path = dir.join(name);
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { path, listener }
    }

    /// The terminal that a runtime has sent.
    #[track_caller]
    pub fn receive(&self) -> Master {
        Master::new(self.receive_named().1)
    }

    /// What a runtime has sent. It need not be there any more: managers accept after it has ended.
    #[track_caller]
    pub fn receive_named(&self) -> (String, OwnedFd) {
        let connection = eventually_within(PATIENCE, || self.listener.accept().ok()).expect("nobody connected").0;
        connection.set_nonblocking(false).unwrap();
        let (mut name, mut control) = ([0; 4096], cmsg_space!([i32; 8]));
        let mut parts = [IoSliceMut::new(&mut name)];
        let message =
            recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
        let bytes = message.bytes;
        let received: Vec<_> = message.cmsgs().unwrap().collect();
        let [ControlMessageOwned::ScmRights(fds)] = &received[..] else {
            panic!("not one message of fds: {received:?}")
        };
        let [fd] = fds[..] else { panic!("not one fd: {fds:?}") };
        assert!(bytes > 0, "a message without a name");
        let name = String::from_utf8_lossy(&name[..bytes]).into_owned();
        // SAFETY: the kernel made this descriptor for us just now, and nobody else owns it.
        #[allow(unsafe_code)]
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        (name, fd)
    }

    /// Forgets what was sent.
    pub fn drain(&self) {
        while self.listener.accept().is_ok() {}
    }
}

/// The side of a terminal that a person or a manager holds.
pub struct Master {
    file: File,
    heard: String,
}

impl Master {
    fn new(fd: OwnedFd) -> Self {
        let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL).unwrap());
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
        Self { file: fd.into(), heard: String::new() }
    }

    /// Waits for this text, in what was written since the last time.
    #[track_caller]
    pub fn hears(&mut self, text: &str) {
        assert!(self.hears_within(PATIENCE, text), "not {text:?} but {:?}", self.heard);
    }

    pub fn hears_within(&mut self, patience: Duration, text: &str) -> bool {
        let found = eventually_within(patience, || {
            self.listen();
            self.heard.find(text)
        });
        found.map(|at| self.heard.drain(..at + text.len())).is_some()
    }

    /// Everything up to the end, which comes when nobody holds the other side any more.
    pub fn rest(&mut self) -> String {
        eventually_within(PATIENCE, || self.listen().then_some(())).expect("somebody keeps the terminal open");
        self.heard.replace("\r\n", "\n")
    }

    /// True at the end.
    fn listen(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.file.read(&mut bytes) {
                Ok(0) => return true,
                Ok(n) => self.heard.push_str(&String::from_utf8_lossy(&bytes[..n])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(_) => return true, // EIO: the last slave is closed
            }
        }
    }

    /// Reads what is there, and forgets it.
    pub fn discard(&mut self) {
        self.listen();
        self.heard.clear();
    }

    pub fn types(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }
}

/// A terminal of the host.
pub struct Terminal {
    pub master: Master,
    slave: OwnedFd,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Self {
        let pair = openpty(None, None).unwrap();
        let terminal = Self { master: Master::new(pair.master), slave: pair.slave };
        terminal.resize(rows, columns);
        terminal
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let (rows, columns) = (rows.to_string(), columns.to_string());
        let mut stty = Command::new("stty");
        stty.args(["rows", &rows, "cols", &columns]).stdin(self.stdio());
        assert!(stty.status().unwrap().success());
    }

    pub fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    pub fn settings(&self) -> Termios {
        tcgetattr(self.slave.as_fd()).unwrap()
    }
}
