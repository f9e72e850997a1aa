//! Runs hooks, one after another, in whichever namespaces the caller is. It does not know kinds or moments: what to run
//! comes from the plan, the state and the surroundings from the caller.
//!
//! A hook is waited for as a process: one that leaves a child behind, which keeps its output open, delays nobody.

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{fchdir, getpid, getppid, pipe2, setsid};

use crate::error::{Doing, SysError, shortened_to};
use crate::plan::hooks::Hook;
use crate::procfs::Proc;
use crate::rootfs::kind_of;
use crate::sys::clone::{self, Child, End, pidfd_open, pidfd_send_signal, wait_for_end};
use crate::sys::exec::Image;
use crate::sys::{fds, signals};

mod outputs;

pub use outputs::Outputs;

/// Something that may end a hook before its time, such as a signal to rrun.
pub trait Stop {
    /// Readable when `asked` should be asked.
    fn fd(&self) -> BorrowedFd<'_>;
    /// By what, if the hook is to end.
    fn asked(&self) -> Result<Option<String>>;
}

/// What all hooks of one moment have in common.
pub struct Surroundings<'a> {
    /// The JSON that each reads on its stdin.
    pub state: &'a str,
    /// Of a hook that has none in the plan.
    pub environment: &'a [CString],
    /// The working directory, if it is not the caller's.
    pub directory: Option<BorrowedFd<'a>>,
    pub stop: Option<&'a dyn Stop>,
    pub side: Side,
    pub outputs: &'a Outputs,
}

/// Whose namespaces a hook runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Runtime,
    /// /proc may name other processes there, or none. What a failed hook leaves behind goes with init, or by the cgroup.
    Container,
}

/// In order; the first that fails is the last.
pub fn run_all(hooks: &[Hook], surroundings: &Surroundings) -> Result<()> {
    hooks.iter().try_for_each(|hook| run(hook, surroundings))
}

pub fn run(hook: &Hook, surroundings: &Surroundings) -> Result<()> {
    run_one(hook, surroundings).with_context(|| hook.failed())
}

fn run_one(hook: &Hook, surroundings: &Surroundings) -> Result<()> {
    check_program(&hook.path)?;
    // A caller may ignore it, and then the kernel would not keep the exit status for us.
    signals::default_disposition(Signal::SIGCHLD)?;
    let _unread_stdin_is_no_error = signals::Ignored::new(Signal::SIGPIPE)?;
    let mut running = Running::start(hook, surroundings)?;
    let deadline = hook.timeout_seconds.and_then(|s| Instant::now().checked_add(Duration::from_secs(s)));
    let outcome = running.attend(deadline, surroundings.stop);
    if !matches!(outcome, Ok(Outcome::Ended)) {
        running.kill(surroundings.side)?;
    }
    let end = running.reap()?;
    match (outcome?, end) {
        (Outcome::Ended, End::Exited(0)) => Ok(()),
        (Outcome::Ended, end) => Err(running.failure(hook, end)),
        (Outcome::TimedOut, _) => {
            let seconds = hook.timeout_seconds.unwrap_or_default();
            bail!("{} ran past its timeout of {seconds} s and was killed{}", hook.path, running.said())
        }
        (Outcome::Stopped(by), _) => bail!("{}: ended by {by}", hook.path),
    }
}

/// Before the fork, for a clear word; and kernels before 5.8 wait for the writer of a FIFO that they are to execute.
pub fn check_program(path: &str) -> Result<()> {
    let kind = kind_of(&stat(path).doing("exec", path)?);
    match kind {
        SFlag::S_IFREG => Ok(()),
        _ => bail!("{path} is no regular file; name a program"),
    }
}

enum Outcome {
    Ended,
    TimedOut,
    Stopped(String),
}

/// The last of a hook's output is kept; the rest is read and forgotten, so that the hook goes on.
const KEPT: usize = 64 * 1024;
/// A pipe holds 16 pages: pipe(7).
const AT_ONCE: usize = 4096;
const MOST_IN_PIPE: usize = 16;
/// In milliseconds.
const KILLED_WITHIN: u16 = 10_000;
/// As much of it as an error shows.
const SHOWN: usize = 400;

/// The reading end of what a hook writes.
struct Output {
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Output {
    /// Reads what is there now. False when there is nothing more at the moment, or ever.
    fn read(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        let mut bytes = [0; AT_ONCE];
        match pipe.read(&mut bytes) {
            Ok(length) if length > 0 => {
                self.kept.extend_from_slice(&bytes[..length]);
                let excess = self.kept.len().saturating_sub(KEPT);
                self.kept.drain(..excess);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
            _ => {
                self.pipe = None;
                false
            }
        }
    }

    fn shown(&self) -> String {
        shortened_to(SHOWN, String::from_utf8_lossy(&self.kept).trim())
    }
}

struct Running<'a> {
    child: Child,
    /// Our end of its stdin, until all of the state is written or nobody reads it.
    input: Option<File>,
    unwritten: &'a [u8],
    stdout: Output,
    stderr: Output,
    /// The errno of an execve that failed, if the hook's process could not become the hook.
    refusal: File,
}

impl<'a> Running<'a> {
    fn start(hook: &Hook, surroundings: &Surroundings<'a>) -> Result<Self> {
        let image = image(hook, surroundings.environment)?;
        let path = CString::new(hook.path.as_str())?;
        let (stdin, input) = pipe()?;
        let (stdout, childs_stdout) = output(surroundings.outputs.stdout.as_ref())?;
        let (stderr, childs_stderr) = output(surroundings.outputs.stderr.as_ref())?;
        let (refusal, childs_refusal) = pipe()?;
        for ours in [Some(&input), stdout.pipe.as_ref(), stderr.pipe.as_ref()].into_iter().flatten() {
            fcntl(ours, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).doing("fcntl", "a hook's pipe")?;
        }
        let parent = getpid();
        let child = clone::fork(|| {
            let become_hook = || {
                setsid()?;
                // Whoever waits for it may be killed; and may be dead already, before it could be said.
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                if getppid() != parent {
                    clone::exit_now(1);
                }
                for (number, end) in [stdin.as_fd(), childs_stdout.as_fd(), childs_stderr.as_fd()].iter().enumerate() {
                    fds::install(end, number as i32).map_err(|error| error.errno)?;
                }
                if let Some(directory) = surroundings.directory {
                    fchdir(directory)?;
                }
                fds::close_all_but(3, &[childs_refusal.as_fd()]).map_err(|error| error.errno)?;
                signals::reset(signals::ALL).map_err(|error| error.errno)?;
                Err(image.execve(&path))
            };
            let errno: Result<(), Errno> = become_hook();
            let _ = (&childs_refusal).write(&(errno.err().unwrap_or(Errno::EIO) as i32).to_ne_bytes());
            127
        })?;
        Ok(Self { child, input: Some(input), unwritten: surroundings.state.as_bytes(), stdout, stderr, refusal })
    }

    /// Until the hook has ended, or must end.
    fn attend(&mut self, deadline: Option<Instant>, stop: Option<&dyn Stop>) -> Result<Outcome> {
        loop {
            self.write_state();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            // rounded up, so that the last poll does not become many
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            let [ended, stopped] = self.wait(timeout, stop)?;
            if ended {
                return Ok(Outcome::Ended);
            }
            if let Some(by) = stop.filter(|_| stopped).map(Stop::asked).transpose()?.flatten() {
                return Ok(Outcome::Stopped(by));
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Outcome::TimedOut);
            }
            self.stdout.read();
            self.stderr.read();
        }
    }

    /// Whether the hook has ended, and whether somebody wants it to.
    fn wait(&self, timeout: PollTimeout, stop: Option<&dyn Stop>) -> Result<[bool; 2]> {
        let mut fds = vec![PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        fds.extend(stop.map(|stop| PollFd::new(stop.fd(), PollFlags::POLLIN)));
        fds.extend(self.input.iter().map(|input| PollFd::new(input.as_fd(), PollFlags::POLLOUT)));
        let outputs = [&self.stdout.pipe, &self.stderr.pipe];
        fds.extend(outputs.into_iter().flatten().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => return Ok([false; 2]),
            result => result.doing("poll", "the hook")?,
        };
        let seen = |n: usize| fds.get(n).and_then(PollFd::any).unwrap_or(false);
        Ok([seen(0), stop.is_some() && seen(1)])
    }

    /// As much as it takes now. A hook that does not want to know is as good.
    fn write_state(&mut self) {
        while let Some(input) = &mut self.input {
            match input.write(self.unwritten) {
                Ok(length) => self.unwritten = &self.unwritten[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.unwritten = &[],
            }
            if self.unwritten.is_empty() {
                self.input = None;
            }
        }
    }

    /// All of its session. Its leader is not reaped yet, so that number is nobody else's.
    fn kill(&self, side: Side) -> Result<()> {
        let _ = pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
        let _ = killpg(self.child.pid, Signal::SIGKILL);
        if side == Side::Runtime {
            kill_session(&self.child);
        }
        // A user's hook may be a program of root's, which the user may not kill.
        let mut fds = [PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        let ended = poll(&mut fds, KILLED_WITHIN).doing("poll", "the hook")?;
        ensure!(ended > 0, "process {} does not end after SIGKILL", self.child.pid);
        Ok(())
    }

    fn reap(&mut self) -> Result<End> {
        let end = loop {
            match wait_for_end(self.child.pidfd.as_fd()) {
                Err(Errno::EINTR) => continue,
                end => break end.doing("waitid", "the hook")?,
            }
        };
        // What the hook itself has said is there by now. No more than that: somebody else may go on writing.
        for output in [&mut self.stdout, &mut self.stderr] {
            let _ = (0..MOST_IN_PIPE).all(|_| output.read());
        }
        Ok(end)
    }

    fn failure(&mut self, hook: &Hook, end: End) -> anyhow::Error {
        let mut errno = [0; 4];
        if self.refusal.read(&mut errno).is_ok_and(|length| length == errno.len()) {
            let errno = Errno::from_raw(i32::from_ne_bytes(errno));
            return SysError::new("exec", &hook.path, errno).into();
        }
        let how = match end {
            End::Exited(status) => format!("exit status {status}"),
            End::Killed(number) => match Signal::try_from(number) {
                Ok(Signal::SIGSYS) => "killed by SIGSYS: bad system call, which linux.seccomp forbids".into(),
                Ok(signal) => format!("killed by {signal}"),
                Err(_) => format!("killed by signal {number}"),
            },
        };
        anyhow!("{}: {how}{}", hook.path, self.said())
    }

    fn said(&self) -> String {
        let outputs = [("stdout", self.stdout.shown()), ("stderr", self.stderr.shown())];
        let told = outputs.iter().filter(|(_, text)| !text.is_empty());
        told.map(|(name, text)| format!(", {name}: {text}")).collect()
    }
}

/// Reading end, writing end; neither reaches a hook but as what it is installed as.
fn pipe() -> Result<(File, File)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).doing("pipe2", "a hook's")?;
    Ok((read.into(), write.into()))
}

/// What rrun reads of it, if anything, and what the hook writes to.
fn output(file: Option<&File>) -> Result<(Output, File)> {
    let (pipe, childs) = match file {
        Some(file) => (None, file.try_clone().doing("dup", "a hook's output")?),
        None => pipe().map(|(read, write)| (Some(read), write))?,
    };
    Ok((Output { pipe, kept: Vec::new() }, childs))
}

fn image(hook: &Hook, environment: &[CString]) -> Result<Image> {
    let strings = |strings: &[String]| -> Result<Vec<CString>> {
        strings.iter().map(|s| CString::new(s.as_str()).context("a NUL byte")).collect()
    };
    let environment = hook.env.as_deref().map_or_else(|| Ok(environment.to_vec()), strings)?;
    Ok(Image::new(strings(&hook.args)?, environment))
}

/// Who has left the process group, but not the session. Looked for again until nobody is found, since they may fork;
/// not for ever, since they may fork faster.
fn kill_session(leader: &Child) {
    const MOST_ROUNDS: usize = 100;
    let Ok(proc) = Proc::open() else { return };
    for _ in 0..MOST_ROUNDS {
        let Ok(members) = proc.session(leader.pid) else { return };
        let others: Vec<_> = members.into_iter().filter(|pid| *pid != leader.pid).collect();
        for pid in &others {
            // the pidfd first, then the look: it may be another process by now
            let Ok(pidfd) = pidfd_open(*pid) else { continue };
            if proc.stat(*pid).is_ok_and(|stat| stat.session == leader.pid) {
                let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
        }
        if others.is_empty() {
            return;
        }
    }
}
