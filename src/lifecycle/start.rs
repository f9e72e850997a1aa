//! `start`: lets init execute the user's program, and learns what became of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Store;
use super::bring_up::NOTHING_TO_START;
use super::container::Container;
use super::delete::delete_up;
use super::hooks::{self, Runner};
use super::process::{self, ends_within};
use super::readiness;
use crate::error::{Doing, Matched, strerror};
use crate::hooks::{Outputs, Stop};
use crate::log;
use crate::notify::{self, Readiness};
use crate::plan::hooks::{Hooks, patience};
use crate::protocol::{self, Outcome, START};
use crate::state::Status;
use crate::state::directory::{Directory, StartChannel};
use crate::state::lock::Lock;
use crate::sys::fds::bytes_waiting;

/// For init to read its start and execute.
const PATIENCE: Duration = Duration::from_secs(10);

/// Returns when the program runs; for a service manager at `notify_socket`, when it is ready.
pub fn start(store: &Store, id: &str, notify_socket: Option<&OsStr>) -> Result<()> {
    crate::state::check_id(id)?;
    let host = notify_socket.map(notify::Host::connect).transpose()?;
    let (directory, lock) = Directory::open_locked(&store.root, id)?.ok_or(Matched::DoesNotExist)?;
    let container = Container::in_directory(directory)?.ok_or(Matched::DoesNotExist)?;
    let given = start_and_follow(&container, lock, host, None)?;
    match given.readiness {
        Some(readiness) => readiness::wait(readiness, given.init.as_fd(), None),
        None => Ok(()),
    }
}

/// The same of one that this process has made, but it is left to the caller to wait until the program is ready. `stop`
/// ends the wait for hooks.
pub(super) fn start_unready(
    container: &Container,
    host: Option<notify::Host>,
    stop: &dyn Stop,
) -> Result<Option<Readiness>> {
    let lock = container.directory.lock()?;
    ensure!(container.directory.is_current()?, Matched::DoesNotExist);
    start_and_follow(container, lock, host, Some(stop)).map(|given| given.readiness)
}

/// The start, and the hooks that follow it.
fn start_and_follow<'a>(
    container: &'a Container,
    lock: Lock,
    host: Option<notify::Host>,
    stop: Option<&dyn Stop>,
) -> Result<Given<'a>> {
    let given = give(container, host)?;
    drop(lock);
    let pid = container.state.init.map_or(0, |init| init.pid);
    let runner = Runner::of_state(&container.state, &given.outputs, stop);
    let hooks = await_outcome(&given, stop)?.and_then(|()| runner.poststart(&given.hooks, pid));
    let Err(error) = hooks else { return Ok(given) };
    // runtime.md, "Lifecycle": it is stopped, and all that follows is done.
    if let Err(left) = delete_up(container, stop) {
        log::warning(&format!("start {}: what is left could not be removed: {left:#}", container.state.id));
    }
    Err(error)
}

/// A start that cannot be taken back any more.
struct Given<'a> {
    container: &'a Container,
    channel: File,
    init: OwnedFd,
    hooks: Hooks,
    /// What those that follow write to.
    outputs: Outputs,
    /// Where the program says that it is ready, if somebody waits for that.
    readiness: Option<Readiness>,
}

/// Decides, under the lock, that this start is the one, and gives it.
fn give(container: &Container, host: Option<notify::Host>) -> Result<Given<'_>> {
    match container.status()? {
        Status::Created => {}
        Status::Creating => bail!("the container is still being created; wait until `create` has returned"),
        Status::Stopped => return Err(Matched::StartStopped.into()),
        Status::Running => return Err(Matched::StartRunning.into()),
        Status::Paused => return Err(Matched::StartPaused.into()),
    }
    ensure!(!container.state.no_process, NOTHING_TO_START);
    let init = container.state.init.context("no init is recorded")?;
    let Some(pidfd) = process::open(container, init)? else { return Err(Matched::StartStopped.into()) };
    let StartChannel::Held(mut channel) = container.directory.start_channel()? else {
        let ended = !container.is_alive(init)?;
        return Err(if ended { Matched::StartStopped } else { Matched::StartRunning }.into());
    };
    if bytes_waiting(channel.as_fd())? != 0 {
        return Err(Matched::StartRunning.into());
    }
    let hooks = hooks::recorded(&container.directory, &container.state, &["startContainer", "poststart"])?;
    let outputs = hooks::outputs(&hooks.poststart, &container.state.hook_output)?;
    let readiness = match (host, container.directory.notify_directory()?) {
        (Some(host), Some(directory)) => Some(Readiness::await_from(directory.as_fd(), host, init.pid)?),
        (Some(_), None) => {
            log::warning("created without NOTIFY_SOCKET: the program cannot say when it is ready");
            None
        }
        (None, _) => None,
    };
    // An empty FIFO takes it whole: less than PIPE_BUF, pipe(7).
    channel.write_all(&START).doing("write", "start.fifo")?;
    Ok(Given { container, channel, init: pidfd, hooks, outputs, readiness })
}

/// Init holds the FIFO until its execve, or its end. The inner error is that of a startContainer hook.
fn await_outcome(given: &Given, stop: Option<&dyn Stop>) -> Result<Result<()>> {
    let hooks = &given.hooks.start_container;
    // without hooks it is over in a moment, and a signal is the container's
    let stop = stop.filter(|_| !hooks.is_empty());
    let patience = patience(PATIENCE, hooks);
    let deadline = patience.and_then(|patience| Instant::now().checked_add(patience));
    loop {
        let mut fds = vec![
            PollFd::new(given.channel.as_fd(), PollFlags::empty()),
            PollFd::new(given.init.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(stop.map(|stop| PollFd::new(stop.fd(), PollFlags::POLLIN)));
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        match poll(&mut fds, timeout) {
            Err(Errno::EINTR) => continue,
            result => result.doing("poll", "init")?,
        };
        if fds[..2].iter().any(|fd| fd.any().unwrap_or(false)) {
            break;
        }
        if let Some(by) = stop.map(Stop::asked).transpose()?.flatten() {
            bail!("ended by {by} before init has executed the program");
        }
        if left.is_some_and(|left| left.is_zero()) {
            let seconds = patience.unwrap_or_default().as_secs();
            bail!("init did not execute the program within {seconds} s; the start stays given");
        }
    }
    let told = || given.container.directory.read_start_error();
    let outcome = protocol::outcome(bytes_waiting(given.channel.as_fd())?, !hooks.is_empty());
    let ended = ends_within(&given.init, Duration::ZERO)?;
    if ended && given.container.cgroups()?.oom_kills()? > 0 {
        bail!("out of memory: linux.resources.memory.limit is too small to start the program; give more");
    }
    match outcome {
        Outcome::Executed => Ok(Ok(())),
        Outcome::HookFailed => Ok(Err(match told()? {
            // its filter lets init say nothing, or a limit
            silent if silent.is_empty() => {
                anyhow!("hooks.startContainer: one of them failed{}", why_silent(given.container))
            }
            told => anyhow!(told),
        })),
        Outcome::NotRead => bail!("init was ended before it could execute the program"),
        Outcome::EndedInHooks => bail!("init was ended while its startContainer hooks ran"),
        Outcome::Failed(errno) => {
            let told = told()?;
            ensure!(told.is_empty(), "{told}");
            bail!("exec: {} ({errno:?}){}", strerror(errno), why_silent(given.container))
        }
    }
}

/// What keeps init from saying more goes for whatever the program writes, too.
fn why_silent(container: &Container) -> &'static str {
    let config = container.directory.read_config().ok().flatten().unwrap_or_default();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap_or_default();
    let limits = config.pointer("/process/rlimits").and_then(serde_json::Value::as_array);
    match limits.into_iter().flatten().any(|limit| limit["type"] == "RLIMIT_FSIZE") {
        true => "; RLIMIT_FSIZE of process.rlimits lets init say no more",
        false => "",
    }
}
