//! CRIU at work: its program is found, started for one request, asked over a socket, and listened to until it is done. What
//! is asked for is decided in `request`; nothing here knows of records, cgroups or bundles.
//!
//! It is started as `criu swrk FD`, which serves who holds the other end of that socket, and ends. The socket is the only
//! tie between the two: a CRIU that cannot report its next step, since rrun was killed, takes back what it has done.

use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;
use prost::Message;

use crate::error::Doing;
use crate::hooks::Stop;
use crate::sys::clone::{Child, End, pidfd_send_signal, wait_for_end};
use crate::sys::socket;
use program::Start;
use rpc::{Features, Kind, Request, Response};
use told::Log;

pub mod program;
pub mod request;
pub mod rpc;
pub mod told;

/// The oldest that all of what is asked for works with: external pid namespaces and `status-ready` came with 3.15, other
/// labels at a restore with 3.16.
const OLDEST: (i32, i32) = (3, 16);

/// For CRIU to end when it has said its last word.
const PATIENCE: Duration = Duration::from_secs(10);

/// A CRIU that waits for a request, or works at one.
pub struct Session {
    child: Child,
    socket: OwnedFd,
    log: Log,
    ended: Cell<bool>,
}

/// What CRIU says while it works.
#[derive(Debug)]
pub enum Word {
    /// It waits for `go_on`.
    Notice {
        script: String,
        pid: Option<Pid>,
        fd: Option<OwnedFd>,
    },
    Done,
}

impl Session {
    /// A CRIU in rrun's own place: for a dump.
    pub fn begin(start: Start, log: Log) -> Result<Self> {
        let (socket, its_socket) = socket::pair()?;
        let child = start.beside(its_socket.as_fd())?;
        Ok(Self::with(child, socket, log))
    }

    /// One that somebody else has started, with the other end of `socket`.
    pub fn with(child: Child, socket: OwnedFd, log: Log) -> Self {
        Self { child, socket, log, ended: Cell::new(false) }
    }

    pub fn pid(&self) -> Pid {
        self.child.pid
    }

    /// One that is too old would do something else than it was asked for, since it skips what it does not know.
    pub fn check_version(&self, stop: Option<&dyn Stop>) -> Result<()> {
        self.send(&Request { keep_open: Some(true), ..Request::of(Kind::Version) })?;
        let version = self.hear(stop)?.0.version.unwrap_or_default();
        let (major, minor) = (version.major, version.minor);
        let (oldest_major, oldest_minor) = OLDEST;
        ensure!(
            (major, minor) >= OLDEST,
            "criu: version {major}.{minor} is too old; install {oldest_major}.{oldest_minor} or a newer one"
        );
        Ok(())
    }

    /// What depends on the kernel as much as on CRIU.
    pub fn check_features(&self, wanted: &Features, stop: Option<&dyn Stop>) -> Result<()> {
        let request =
            Request { keep_open: Some(true), features: Some(wanted.clone()), ..Request::of(Kind::FeatureCheck) };
        self.send(&request)?;
        let found = self.hear(stop)?.0.features.unwrap_or_default();
        let lacks = |wanted: Option<bool>, found: Option<bool>| wanted == Some(true) && found != Some(true);
        ensure!(
            !lacks(wanted.mem_track, found.mem_track),
            "--pre-dump: this kernel cannot tell criu which pages change"
        );
        ensure!(!lacks(wanted.lazy_pages, found.lazy_pages), "--lazy-pages: this kernel cannot give criu page faults");
        Ok(())
    }

    pub fn send(&self, request: &Request) -> Result<()> {
        match socket::send(self.socket.as_fd(), &request.encode_to_vec(), None) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.gone()),
            result => Ok(result.doing("sendmsg", "criu")?),
        }
    }

    /// The next word, for as long as it takes: its work has no limit but the size of a container.
    pub fn next(&self, stop: Option<&dyn Stop>) -> Result<Word> {
        let (response, fd) = self.hear(stop)?;
        match (Kind::try_from(response.kind), response.notice) {
            (Ok(Kind::Notify), Some(notice)) => Ok(Word::Notice {
                script: notice.script.unwrap_or_default(),
                pid: notice.pid.filter(|pid| *pid > 0).map(Pid::from_raw),
                fd,
            }),
            (Ok(Kind::Dump | Kind::PreDump | Kind::Restore), _) => Ok(Word::Done),
            _ => bail!("criu: an answer of kind {}, which was not asked for", response.kind),
        }
    }

    pub fn go_on(&self) -> Result<()> {
        self.send(&Request { notify_success: Some(true), ..Request::of(Kind::Notify) })
    }

    fn hear(&self, stop: Option<&dyn Stop>) -> Result<(Response, Option<OwnedFd>)> {
        self.wait(stop)?;
        let mut bytes = Vec::new();
        let fd = match socket::receive(self.socket.as_fd(), &mut bytes) {
            Err(Errno::ECONNRESET) => None,
            result => result.doing("recvmsg", "criu")?,
        };
        if bytes.is_empty() {
            return Err(self.gone());
        }
        let response = Response::decode(bytes.as_slice()).context("criu: its answer")?;
        match response.success {
            true => Ok((response, fd)),
            false => Err(self.refusal(&response)),
        }
    }

    /// Until it has said something, or has ended.
    fn wait(&self, stop: Option<&dyn Stop>) -> Result<()> {
        loop {
            let mut fds = vec![
                PollFd::new(self.socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN),
            ];
            fds.extend(stop.map(|stop| PollFd::new(stop.fd(), PollFlags::POLLIN)));
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.doing("poll", "criu")?,
            };
            let [said, ended] = [0, 1].map(|n: usize| fds[n].any().unwrap_or(false));
            if said {
                return Ok(());
            }
            if ended {
                // what it said last comes before its end
                return match socket::is_readable(&self.socket).doing("poll", "criu")? {
                    true => Ok(()),
                    false => Err(self.gone()),
                };
            }
            if let Some(by) = stop.map(Stop::asked).transpose()?.flatten() {
                bail!("ended by {by}");
            }
        }
    }

    fn refusal(&self, response: &Response) -> anyhow::Error {
        let told = response.message.clone().filter(|message| !message.is_empty());
        let errno = response.errno.filter(|errno| *errno > 0).map(Errno::from_raw);
        self.log.explain(told, errno.map(|errno| format!("{errno:?}")))
    }

    fn gone(&self) -> anyhow::Error {
        let how = match self.await_end(PATIENCE) {
            Ok(Some(End::Exited(status))) => format!("it ended with exit status {status}"),
            Ok(Some(End::Killed(signal))) => format!("it was killed by signal {signal}"),
            _ => "it does not speak any more".into(),
        };
        self.log.explain(None, Some(how))
    }

    /// `None`: it has not ended, or was waited for already.
    fn await_end(&self, patience: Duration) -> Result<Option<End>> {
        if self.ended.get() {
            return Ok(None);
        }
        let mut fds = [PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        if poll(&mut fds, timeout).doing("poll", "criu")? == 0 {
            return Ok(None);
        }
        self.ended.set(true);
        match wait_for_end(self.child.pidfd.as_fd()) {
            Err(Errno::EINTR) => Ok(None),
            result => Ok(Some(result.doing("waitid", "criu")?)),
        }
    }

    /// After `Done`. Of a pre-dump it waits for another request, so it is not asked how it ended.
    pub fn end(&self) -> Result<()> {
        match self.await_end(PATIENCE)? {
            Some(End::Exited(0)) => Ok(()),
            Some(End::Exited(status)) => Err(self.log.explain(None, Some(format!("exit status {status}")))),
            Some(End::Killed(signal)) => Err(anyhow!("criu: killed by signal {signal} after it was done")),
            None => bail!("criu: it was done, and does not end"),
        }
    }

    /// Ends it, if it has not ended.
    pub fn kill(&self) {
        if !self.ended.get() {
            // ESRCH: it has ended
            let _ = pidfd_send_signal(self.child.pidfd.as_fd(), libc::SIGKILL);
            let _: Result<_> = self.await_end(PATIENCE);
        }
    }

    /// Leaves it to take back what it has done, since it cannot tell anybody; and ends it where that takes long.
    pub fn give_up(&self) {
        // ENOTCONN: its end is closed already
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let _: Result<_> = self.await_end(PATIENCE);
        self.kill();
    }
}
