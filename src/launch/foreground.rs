//! A container in the foreground: signals are passed on, the terminal is relayed, the exit status becomes ours.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::isatty;

use super::interrupts::Interrupts;
use super::serve::reap;
use crate::error::{Doing, SysError};
use crate::log;
use crate::notify::Readiness;
use crate::rootfs::kind_of;
use crate::sys::clone::{Child, End, ended_child, pidfd_send_signal};
use crate::sys::{fds, tty};

/// The caller's terminal in raw mode, put back when dropped.
pub struct RawTerminal {
    terminal: OwnedFd,
    before: Termios,
}

impl RawTerminal {
    /// The first of stderr, stdout and stdin that is a terminal, else the controlling one.
    fn take() -> Result<Self, SysError> {
        let [stdin, stdout, stderr] = fds::stdio();
        let standard = [stderr, stdout, stdin].into_iter().find(|fd| isatty(fd).unwrap_or(false));
        let terminal = match standard {
            Some(fd) => fd.try_clone_to_owned().doing("dup", "the terminal")?,
            None => File::options().read(true).write(true).open("/dev/tty").doing("open", "/dev/tty")?.into(),
        };
        let before = tcgetattr(&terminal).doing("tcgetattr", "the terminal")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // ends of lines are made here, not in the container: what goes into a file or a pipe has none of a terminal's
        raw.output_flags = before.output_flags;
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).doing("tcsetattr", "the terminal")?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing better can be done where the terminal is gone.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// The container's terminal beside the caller's.
pub struct Relay {
    master: File,
    caller: RawTerminal,
    stdin_open: bool,
    stdout: Stdout,
    /// A caller that stops reading has read enough; the container goes on.
    stdout_open: bool,
    /// Every process of the container has closed its terminal. One may open it again, so it is looked at now and then.
    resting: bool,
    /// Typed, but not yet taken by the container.
    to_container: Vec<u8>,
    /// Shown, but not yet taken by the caller.
    to_caller: Vec<u8>,
}

/// Beyond it nothing is read from the one side until the other reads.
const MOST_WAITING: usize = 64 * 1024;
const REST_MILLISECONDS: u8 = 250;
const AT_ONCE: usize = 8192;
/// More than the kernel holds of what was written to a terminal (drivers/tty/tty_buffer.c).
const MOST_IN_TERMINAL: usize = 1 << 20;
/// For a caller to go on reading once the container has ended: milliseconds.
const CALLERS_PATIENCE: u16 = 5_000;
/// What a pipe or a socket takes when poll(2) says that it takes something: pipe(7).
const WITHOUT_WAITING: usize = libc::PIPE_BUF;

impl Relay {
    pub fn new(master: OwnedFd) -> Result<Self> {
        fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing("fcntl", "the container's terminal")?;
        let mut inside = tcgetattr(&master).doing("tcgetattr", "the container's terminal")?;
        inside.output_flags.remove(OutputFlags::ONLCR);
        tcsetattr(&master, SetArg::TCSANOW, &inside).doing("tcsetattr", "the container's terminal")?;
        let relay = Self {
            master: master.into(),
            caller: RawTerminal::take()?,
            stdin_open: true,
            stdout: Stdout::unblocked()?,
            stdout_open: true,
            resting: false,
            to_container: Vec::new(),
            to_caller: Vec::new(),
        };
        relay.copy_size()?;
        Ok(relay)
    }

    fn copy_size(&self) -> Result<(), SysError> {
        tty::set_size(self.master.as_fd(), tty::size(self.caller.terminal.as_fd())?)
    }

    /// What is of interest on the container's side.
    fn asked(&self) -> (BorrowedFd<'_>, PollFlags) {
        let mut asked = PollFlags::empty();
        asked.set(PollFlags::POLLIN, self.to_caller.len() < MOST_WAITING);
        asked.set(PollFlags::POLLOUT, !self.to_container.is_empty());
        (self.master.as_fd(), asked)
    }

    fn read_stdin(&mut self) -> Result<()> {
        let mut bytes = [0; 4096];
        match nix::unistd::read(fds::stdio()[0], &mut bytes) {
            Ok(0) | Err(Errno::EIO) => self.stdin_open = false,
            Ok(length) => self.to_container.extend_from_slice(&bytes[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(SysError::new("read", "stdin", errno).into()),
        }
        self.write_to_container()
    }

    fn write_to_container(&mut self) -> Result<()> {
        match self.master.write(&self.to_container) {
            Ok(length) => drop(self.to_container.drain(..length)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // nobody inside has the terminal open any more
            Err(_) => self.to_container.clear(),
        }
        Ok(())
    }

    /// False when there is nothing to read now, or never again.
    fn show_output(&mut self) -> Result<bool> {
        let mut bytes = [0; AT_ONCE];
        match self.master.read(&mut bytes) {
            Ok(length) if length > 0 => {
                self.to_caller.extend_from_slice(&bytes[..length]);
                self.write_to_caller();
                Ok(true)
            }
            // EIO: no process of the container has it open
            _ => Ok(false),
        }
    }

    fn write_to_caller(&mut self) {
        match self.stdout.write(&self.to_caller) {
            Ok(length) => drop(self.to_caller.drain(..length)),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.stdout_open = false,
        }
        if !self.stdout_open {
            self.to_caller.clear();
        }
    }

    /// What the container has written before it ended: to a caller who goes on reading, until a signal asks us to end.
    /// Others than the container may still write.
    fn finish(&mut self, interrupts: &Interrupts) -> Result<()> {
        let mut unread = MOST_IN_TERMINAL / AT_ONCE;
        loop {
            if unread > 0 {
                unread = if self.show_output()? { unread - 1 } else { 0 };
            }
            match (self.to_caller.is_empty(), unread) {
                (true, 0) => return Ok(()),
                (true, _) => continue,
                (false, _) => {}
            }
            let mut fds = [
                PollFd::new(self.stdout.file.as_fd(), PollFlags::POLLOUT),
                PollFd::new(interrupts.as_fd(), PollFlags::POLLIN),
            ];
            let seen = match poll(&mut fds, PollTimeout::from(CALLERS_PATIENCE)) {
                Err(Errno::EINTR) => continue,
                result => result.doing("poll", "stdout")?,
            };
            if seen == 0 || interrupts.end_asked()?.is_some() {
                log::warning("stdout: nobody reads it, and the container has ended; the end of its output is lost");
                return Ok(());
            }
            self.write_to_caller();
        }
    }
}

/// The caller's. One that nobody reads must not keep us from signals.
struct Stdout {
    file: File,
    /// Its own flags say that writing never waits.
    unblocked: bool,
}

impl Stdout {
    /// A pipe or a terminal is opened anew, since a flag on the caller's own would be the caller's too. Others, a socket
    /// for one, cannot be.
    fn unblocked() -> Result<Self, SysError> {
        let stdout = fds::stdio()[1];
        let is_pipe = kind_of(&fstat(stdout).doing("fstat", "stdout")?) == SFlag::S_IFIFO;
        let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match (is_pipe || isatty(stdout).unwrap_or(false)).then(|| open("/proc/self/fd/1", flags, Mode::empty())) {
            Some(Ok(own)) => Ok(Self { file: own.into(), unblocked: true }),
            _ => Ok(Self { file: stdout.try_clone_to_owned().doing("dup", "stdout")?.into(), unblocked: false }),
        }
    }

    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        if self.unblocked {
            return nix::unistd::write(&self.file, bytes);
        }
        match poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO)? {
            0 => Err(Errno::EAGAIN),
            _ => nix::unistd::write(&self.file, &bytes[..bytes.len().min(WITHOUT_WAITING)]),
        }
    }
}

/// Waits for the container's process and gives its exit status, or 128 and its signal's number.
pub fn wait(
    child: &Child,
    interrupts: &Interrupts,
    mut relay: Option<Relay>,
    mut readiness: Option<Readiness>,
) -> Result<i32> {
    loop {
        let notified = readiness.as_ref().map(Readiness::as_fd);
        let seen = poll_all(child, interrupts, notified, relay.as_ref())?;
        if let Some(readiness) = readiness.as_mut().filter(|_| seen.notified) {
            readiness.take();
        }
        if let Some(relay) = &mut relay {
            if seen.stdin {
                relay.read_stdin()?;
            }
            if seen.writable {
                relay.write_to_container()?;
            }
            if seen.takes {
                relay.write_to_caller();
            }
            let shows = seen.output && relay.to_caller.len() < MOST_WAITING;
            relay.resting = shows && !relay.show_output()? && seen.hung_up;
        }
        if seen.signal {
            pass_on(child, interrupts, relay.as_ref())?;
        }
        if seen.ended {
            break;
        }
    }
    if let Some(relay) = &mut relay {
        relay.finish(interrupts)?;
    }
    readiness.into_iter().for_each(Readiness::finish);
    Ok(match reap(child)? {
        End::Exited(code) => code,
        End::Killed(signal) => 128 + signal,
    })
}

#[derive(Default)]
struct Seen {
    ended: bool,
    signal: bool,
    notified: bool,
    /// The caller has room for more.
    takes: bool,
    stdin: bool,
    output: bool,
    writable: bool,
    hung_up: bool,
}

fn poll_all(
    child: &Child,
    interrupts: &Interrupts,
    notified: Option<BorrowedFd>,
    relay: Option<&Relay>,
) -> Result<Seen> {
    // Each has its place; what is not there is stood in for by what is asked nothing.
    let nothing = || PollFd::new(interrupts.as_fd(), PollFlags::empty());
    let active = relay.filter(|relay| !relay.resting);
    let rest = relay.is_some() && active.is_none();
    let asked = active.map(Relay::asked).filter(|(_, asked)| !asked.is_empty());
    let unshown = relay.filter(|relay| !relay.to_caller.is_empty());
    let typing = active.filter(|relay| relay.stdin_open && relay.to_container.len() < MOST_WAITING);
    let mut fds = [
        PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN),
        PollFd::new(interrupts.as_fd(), PollFlags::POLLIN),
        notified.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).unwrap_or_else(nothing),
        asked.map(|(fd, asked)| PollFd::new(fd, asked)).unwrap_or_else(nothing),
        typing.map(|_| PollFd::new(fds::stdio()[0], PollFlags::POLLIN)).unwrap_or_else(nothing),
        unshown.map(|relay| PollFd::new(relay.stdout.file.as_fd(), PollFlags::POLLOUT)).unwrap_or_else(nothing),
    ];
    let timeout = if rest { PollTimeout::from(REST_MILLISECONDS) } else { PollTimeout::NONE };
    match poll(&mut fds, timeout) {
        Err(Errno::EINTR) => return Ok(Seen::default()),
        result => result.doing("poll", "the container")?,
    };
    let events = |n: usize| fds[n].revents().unwrap_or(PollFlags::empty());
    Ok(Seen {
        ended: !events(0).is_empty(),
        signal: !events(1).is_empty(),
        notified: !events(2).is_empty(),
        output: events(3).intersects(PollFlags::POLLIN | PollFlags::POLLHUP),
        // also when what is typed finds nobody any more
        writable: events(3).intersects(PollFlags::POLLOUT | PollFlags::POLLHUP),
        hung_up: events(3).contains(PollFlags::POLLHUP),
        stdin: !events(4).is_empty(),
        takes: !events(5).is_empty(),
    })
}

/// Every signal but those that are about rrun itself.
fn pass_on(child: &Child, interrupts: &Interrupts, relay: Option<&Relay>) -> Result<()> {
    while let Some(number) = interrupts.next()? {
        match Signal::try_from(number) {
            Ok(Signal::SIGCHLD) => reap_others(child),
            Ok(Signal::SIGWINCH) => {
                if let Some(relay) = relay {
                    relay.copy_size()?;
                }
            }
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) => {}
            // it may have ended meanwhile
            _ => drop(pidfd_send_signal(child.pidfd.as_fd(), number)),
        }
    }
    Ok(())
}

/// rrun may be the reaper of processes that the container left behind. Init itself is left for `wait`.
fn reap_others(child: &Child) {
    while let Some(pid) = ended_child().filter(|pid| *pid != child.pid) {
        let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}
