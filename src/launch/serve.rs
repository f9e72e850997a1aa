//! Answers the child until it is ready or has failed.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;

use super::Launched;
use super::interrupts::Interrupts;
use crate::error::{Doing, SysError};
use crate::protocol::Ask;
use crate::sys::clone::{Child, End, pidfd_getfd, wait_for_end};

/// A mount of a dead server can block; whoever waits for us gets an answer all the same.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Between two looks whether the filter is loaded that a listener was announced for: the moment itself makes no sound.
const LOADING: Duration = Duration::from_millis(1);

/// How far the child is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Set up, it waits to hear that it is recorded.
    Ready,
    /// The program runs: execve has closed the child's end of the socket.
    Executed,
}

/// What the parent does for the child.
pub trait Duties {
    fn take_console(&mut self, master: OwnedFd) -> Result<()>;
    /// Of the child's seccomp filter.
    fn take_listener(&mut self, _listener: OwnedFd) -> Result<()> {
        bail!("nobody waits for a listener")
    }
    fn map_ids(&mut self) -> Result<()> {
        bail!("only a new container has id maps")
    }
    fn open_mount(&mut self, _index: usize) -> Result<OwnedFd> {
        bail!("only a new container has mounts")
    }
    fn map_mount(&mut self, _index: usize, _mount: OwnedFd) -> Result<()> {
        bail!("only a new container has mounts")
    }
    fn raise_limits(&mut self) -> Result<()> {
        bail!("only a new container is helped with its limits")
    }
    fn schedule(&mut self) -> Result<()> {
        bail!("only a container's process is scheduled")
    }
    fn hand_over_net_devices(&mut self) -> Result<()> {
        bail!("only a new container gets network devices")
    }
    /// prestart and createRuntime.
    fn run_hooks(&mut self) -> Result<()> {
        bail!("only a new container has hooks")
    }
}

/// `patience` is how long the child may take; `None` is for ever.
pub fn serve(
    launched: &Launched,
    interrupts: &Interrupts,
    until: Until,
    patience: Option<Duration>,
    duties: &mut impl Duties,
) -> Result<()> {
    let mut deadline = from_now(patience);
    let mut listener = None;
    loop {
        let seen = wait(launched, interrupts, until, deadline, listener.map(|_| LOADING))?;
        // The socket first: what was said before Ready comes before it.
        if seen.said {
            match answer(launched, duties)? {
                Heard::Request => {}
                // Their own deadlines have ended them: what is left to do has its time anew.
                Heard::RunHooks => deadline = from_now(patience),
                Heard::Listener(number) => listener = Some(number),
                Heard::End if until == Until::Executed && launched.ready.is_announced()? => return Ok(()),
                Heard::End => bail!("its process ended during set-up: {}", how_it_ended(&launched.child)?),
            }
        } else if seen.interrupted {
            if let Some(signal) = interrupts.end_asked()? {
                bail!("ended by {signal} during set-up; everything is taken back");
            }
        } else if seen.ready {
            if let Some(number) = listener {
                duties.take_listener(pidfd_getfd(launched.child.pidfd.as_fd(), number)?)?;
            }
            return Ok(());
        } else if let Some(number) = listener
            // Not loaded yet. Once it is, the child may wait for an answer before it can say that it is ready.
            && let Ok(taken) = pidfd_getfd(launched.child.pidfd.as_fd(), number)
        {
            listener = None;
            duties.take_listener(taken)?;
        }
    }
}

/// What the child said, as far as it matters to who waits for the next.
enum Heard {
    /// Done, and answered.
    Request,
    RunHooks,
    /// The number that its seccomp listener will have.
    Listener(RawFd),
    /// Nothing more will be said.
    End,
}

fn answer(launched: &Launched, duties: &mut impl Duties) -> Result<Heard> {
    let mut opened = None;
    match launched.channel.listen()? {
        None => return Ok(Heard::End),
        Some((Ask::Failed(report), _)) => return Err(report.into_error()),
        Some((Ask::Socket, _)) => bail!("the child is to become a program, and not criu"),
        Some((Ask::Born, _)) => bail!("the child says twice that it has a second process"),
        Some((Ask::Listener(number), _)) => return Ok(Heard::Listener(number)),
        // nobody waits for an answer
        Some((Ask::Console, Some(master))) => return duties.take_console(master).map(|()| Heard::Request),
        Some((Ask::Console, None)) => bail!("the child sent no terminal"),
        Some((Ask::RunHooks, _)) => {
            duties.run_hooks()?;
            return match launched.channel.answer(None) {
                // ended meanwhile: how, is told in the next round
                Err(SysError { errno: Errno::EPIPE | Errno::ECONNRESET, .. }) => Ok(Heard::RunHooks),
                result => Ok(result.map(|()| Heard::RunHooks)?),
            };
        }
        Some((Ask::MapIds, _)) => duties.map_ids()?,
        Some((Ask::OpenMount(index), _)) => opened = Some(duties.open_mount(index)?),
        Some((Ask::MapMount(index), Some(mount))) => duties.map_mount(index, mount)?,
        Some((Ask::MapMount(_), None)) => bail!("the child sent no mount"),
        Some((Ask::RaiseLimits, _)) => duties.raise_limits()?,
        Some((Ask::Schedule, _)) => duties.schedule()?,
        Some((Ask::NetDevices, _)) => duties.hand_over_net_devices()?,
    }
    launched.channel.answer(opened.as_ref().map(AsFd::as_fd))?;
    Ok(Heard::Request)
}

struct Seen {
    said: bool,
    ready: bool,
    interrupted: bool,
}

/// `None`: never.
fn from_now(patience: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(patience?)
}

/// Until something is seen, but no longer than `most`.
fn wait(
    launched: &Launched,
    interrupts: &Interrupts,
    until: Until,
    deadline: Option<Instant>,
    most: Option<Duration>,
) -> Result<Seen> {
    let ready = if until == Until::Ready { PollFlags::POLLOUT } else { PollFlags::empty() };
    let mut fds = [
        PollFd::new(launched.channel.as_fd(), PollFlags::POLLIN),
        PollFd::new(launched.ready.as_fd(), ready),
        PollFd::new(interrupts.as_fd(), PollFlags::POLLIN),
    ];
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let timeout = left.into_iter().chain(most).min();
    let timeout = timeout.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    let nothing = poll(&mut fds, timeout).doing("poll", "the child")? == 0;
    if nothing && left.is_some_and(|left| left.is_zero()) {
        bail!("set-up did not end in time: a file system that it needs may not answer");
    }
    let [said, ready, interrupted] = fds.map(|fd| fd.any().unwrap_or(false));
    Ok(Seen { said, ready, interrupted })
}

/// Waits for the end of a child that is known to end.
pub fn reap(child: &Child) -> Result<End, SysError> {
    loop {
        match wait_for_end(child.pidfd.as_fd()) {
            Err(Errno::EINTR) => continue,
            result => return result.doing("waitid", child.pid),
        }
    }
}

fn how_it_ended(child: &Child) -> Result<String> {
    Ok(match reap(child).context("init")? {
        End::Exited(code) => format!("exit status {code}"),
        End::Killed(number) => match Signal::try_from(number) {
            Ok(Signal::SIGSYS) => "killed by SIGSYS: linux.seccomp forbids a call that it still needs".into(),
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {number}"),
        },
    })
}
