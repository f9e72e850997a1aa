//! Entering namespaces for the moment of a clone: the child is born in them, and rrun is back where it was. Performs
//! what `plan::choreography` decides, for `exec` too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};

use super::serve::reap;
use crate::error::{Doing, SysError};
use crate::init::{Joined, new_time_namespace};
use crate::plan::{Namespace, TimeOffset, namespaces};
use crate::procfs::Proc;
use crate::sys::clone::{Child, pidfd_send_signal};
use crate::sys::file;

/// One setns(2).
pub struct Entry<'a> {
    /// A namespace's file, or a pidfd: then the namespaces of `kinds` that its process is in.
    pub by: BorrowedFd<'a>,
    pub kinds: Vec<Namespace>,
    /// For errors: the field and its value, or what else it is known by.
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
        Self { by: joined.fd.as_fd(), kinds: vec![joined.kind], named: joined.to_string() }
    }
}

impl Around<'_> {
    /// Every kind that rrun leaves for a moment.
    fn kinds(&self) -> impl Iterator<Item = Namespace> {
        let time = (!self.offsets.is_empty()).then_some(Namespace::Time);
        self.entries.iter().flat_map(|entry| entry.kinds.iter().copied()).chain(time)
    }
}

/// Runs `clone` inside, and comes back.
pub fn within(around: &Around, clone: impl FnOnce() -> Result<Child, SysError>) -> Result<Child> {
    let own: Vec<Own> = around.kinds().map(Own::open).collect::<Result<_, _>>()?;
    let child = enter(around).and_then(|()| clone().map_err(|error| explained(around, error)));
    come_back(&own, child)
}

/// Does something in namespaces that already are, and comes back. A rrun that cannot has failed.
pub fn visit<T>(entry: Entry, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let around = Around { entries: vec![entry], offsets: &[] };
    let own: Vec<Own> = around.kinds().map(Own::open).collect::<Result<_, _>>()?;
    let result = enter(&around).and_then(|()| work());
    own.iter().map(Own::enter).fold(Ok(()), Result::and).context("rrun's own namespaces")?;
    result
}

/// A rrun that cannot come back ends the child and gives up: it would go on in the container's namespaces.
fn come_back(own: &[Own], child: Result<Child>) -> Result<Child> {
    // All of them, also after one has failed.
    let back = own.iter().map(Own::enter).fold(Ok(()), Result::and);
    let Err(error) = back else { return child };
    // Without a child something went wrong before, and that is the reason to tell: who may not go may not come back.
    let child = child?;
    // ESRCH: it has ended
    let _ = pidfd_send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    reap(&child)?;
    Err(error).context("rrun's own namespaces")
}

fn enter(around: &Around) -> Result<()> {
    for Entry { by, kinds, named } in &around.entries {
        let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
        let names: Vec<_> = kinds.iter().map(|kind| namespaces::name(*kind)).collect();
        setns(by, flags).doing("setns", names.join(",")).with_context(|| named.clone())?;
    }
    if !around.offsets.is_empty() {
        new_time_namespace(around.offsets, &Proc::open()?)?;
    }
    Ok(())
}

/// What the kernel means by "no memory": pid_namespaces(7), "the init process".
fn explained(around: &Around, error: SysError) -> anyhow::Error {
    let entered = around.entries.iter().find(|entry| entry.kinds.contains(&Namespace::Pid));
    match entered.filter(|_| error.errno == Errno::ENOMEM) {
        Some(Entry { named, .. }) => anyhow::Error::new(error)
            .context("nobody can be born in a pid namespace whose first process has ended")
            .context(named.clone()),
        None => error.into(),
    }
}

/// The way back, open before rrun leaves.
struct Own {
    kind: Namespace,
    fd: OwnedFd,
}

impl Own {
    fn open(kind: Namespace) -> Result<Self, SysError> {
        let path = format!("/proc/self/ns/{}", kind.file());
        file::open(path.as_str(), OFlag::O_RDONLY).map(|fd| Self { kind, fd }).doing("open", path)
    }

    fn enter(&self) -> Result<(), SysError> {
        match setns(&self.fd, self.kind.flag()) {
            Err(Errno::EINTR) => self.enter(),
            result => result.doing("setns", format_args!("/proc/self/ns/{}", self.kind.file())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::signal::kill;

    use super::*;
    use crate::sys::clone;

    // not silently: the parent would remove, record and run hooks in the container's namespaces
    #[test]
    fn without_a_way_back_nothing_is_launched() {
        let lost = |kind| Own { kind, fd: File::open("/dev/null").unwrap().into() };
        let own = [lost(Namespace::Network), lost(Namespace::Uts)];
        let child = clone::spawn(CloneFlags::empty(), None, || {
            nix::unistd::pause();
            1
        });
        let child = child.unwrap();
        let pid = child.pid;
        let error = come_back(&own, Ok(child)).err().unwrap();
        assert_eq!(format!("{error:#}"), "rrun's own namespaces: setns /proc/self/ns/net: invalid argument (EINVAL)");
        assert_eq!(kill(pid, None), Err(Errno::ESRCH), "the child runs on");
        let error = come_back(&own, Err(anyhow::anyhow!("clone3"))).err().unwrap();
        assert_eq!(error.to_string(), "clone3", "what went wrong first");
    }

    #[test]
    fn what_is_left_is_what_is_entered() {
        let null = File::open("/dev/null").unwrap();
        let entry = |kinds: &[Namespace]| Entry { by: null.as_fd(), kinds: kinds.to_vec(), named: String::new() };
        let offset = TimeOffset { clock: crate::plan::Clock::Boottime, secs: 1, nanosecs: 0 };
        for (entries, offsets, want) in [
            (vec![], &[][..], vec![]),
            (vec![], &[offset][..], vec![Namespace::Time]),
            (
                vec![entry(&[Namespace::Pid, Namespace::Time]), entry(&[Namespace::Ipc])],
                &[],
                vec![Namespace::Pid, Namespace::Time, Namespace::Ipc],
            ),
        ] {
            assert_eq!(Around { entries, offsets }.kinds().collect::<Vec<_>>(), want);
        }
    }
}
