//! Entering namespaces for the moment of a clone: the child is born in them, and rrun is back where it was. Performs
//! what `plan::choreography` decides, for `exec` too.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};

use super::serve::reap;
use crate::error::{Doing, SysError};
use crate::init::Joined;
use crate::plan::{Namespace, TimeOffset, time};
use crate::procfs::Proc;
use crate::sys::clone::{Child, pidfd_send_signal};

/// One setns(2).
pub struct Entry<'a> {
    /// A namespace's file, or a pidfd: then the namespaces of `kinds` that its process is in.
    pub by: BorrowedFd<'a>,
    pub kinds: Vec<Namespace>,
    /// For errors: what the user wrote.
    pub named: String,
}

/// What is entered around one clone.
#[derive(Default)]
pub struct Around<'a> {
    pub entries: Vec<Entry<'a>>,
    /// Of a new time namespace; without any, none is made.
    pub offsets: &'a [TimeOffset],
}

impl<'a> From<&'a Joined> for Entry<'a> {
    fn from(joined: &'a Joined) -> Self {
        Self { by: joined.fd.as_fd(), kinds: vec![joined.kind], named: joined.path.display().to_string() }
    }
}

impl Around<'_> {
    /// Every kind that rrun leaves for a moment.
    fn kinds(&self) -> impl Iterator<Item = Namespace> {
        let time = (!self.offsets.is_empty()).then_some(Namespace::Time);
        self.entries.iter().flat_map(|entry| entry.kinds.iter().copied()).chain(time)
    }
}

/// Runs `clone` inside. A rrun that cannot come back ends the child: it would go on in the container's namespaces.
pub fn within(around: &Around, clone: impl FnOnce() -> Result<Child, SysError>) -> Result<Child> {
    let own: Vec<Own> = around.kinds().map(Own::open).collect::<Result<_, _>>()?;
    let child = enter(around).and_then(|()| Ok(clone()?));
    // All of them, also after one has failed.
    let left = own.iter().map(Own::enter).fold(Ok(()), Result::and);
    let Err(error) = left else { return child };
    if let Ok(child) = child {
        // ESRCH: it has ended
        let _ = pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
        reap(&child)?;
    }
    Err(error).context("rrun's own namespaces")
}

fn enter(around: &Around) -> Result<()> {
    for Entry { by, kinds, named } in &around.entries {
        let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
        setns(by, flags).doing("setns", named)?;
    }
    if !around.offsets.is_empty() {
        new_time_namespace(around.offsets)?;
    }
    Ok(())
}

/// The namespace that the next child is born in: rrun itself stays where it is (time_namespaces(7)).
fn new_time_namespace(offsets: &[TimeOffset]) -> Result<()> {
    unshare(Namespace::Time.flag()).doing("unshare", "time")?;
    let proc = Proc::open()?;
    // One by one, so that an error names its clock.
    for TimeOffset { clock, secs, nanosecs } in offsets {
        let clock = time::name(*clock);
        let line = format!("{clock} {secs} {nanosecs}\n");
        let mut file = proc.open_file("self/timens_offsets", OFlag::O_WRONLY)?;
        let written = file.write_all(line.as_bytes()).doing("write timens_offsets", line.trim_end());
        written.with_context(|| format!("linux.timeOffsets.{clock}"))?;
    }
    Ok(())
}

/// The way back, open before rrun leaves.
struct Own {
    kind: Namespace,
    fd: OwnedFd,
}

impl Own {
    fn open(kind: Namespace) -> Result<Self, SysError> {
        let path = format!("/proc/self/ns/{}", kind.file());
        File::open(&path).map(|file| Self { kind, fd: file.into() }).doing("open", path)
    }

    fn enter(&self) -> Result<(), SysError> {
        match setns(&self.fd, self.kind.flag()) {
            Err(Errno::EINTR) => self.enter(),
            result => result.doing("setns", format_args!("/proc/self/ns/{}", self.kind.file())),
        }
    }
}
