//! What belongs to new and joined namespaces: cgroups joined before theirs is made, names, loopback, session and keyring.

use std::ffi::CString;
use std::io::Write;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CpuSet, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

use super::Init;
use super::user::set_dumpable;
use crate::error::{Doing, SysError};
use crate::log;
use crate::plan::{Namespace, TimeOffset, namespaces, time};
use crate::procfs::Proc;
use crate::protocol::Ask;
use crate::sys::{keyring, network};

/// KEY_USR_SEARCH of keyctl_setperm(3): processes of the same user that did not inherit the ring, as those of `exec`,
/// may find it.
const USER_MAY_SEARCH: u32 = 0x0008_0000;

impl Init<'_> {
    /// By writing `0`, "myself", to `tasks`: a pid in `cgroup.procs` makes the kernel wait for an RCU grace period,
    /// 5 to 10 ms. Possible since this process has one thread.
    pub(super) fn join_cgroups(&mut self) -> Result<()> {
        for (path, tasks) in &self.handles.cgroups {
            nix::unistd::write(tasks, b"0").doing("join cgroup", path.display())?;
        }
        Ok(())
    }

    /// All that its cpuset leaves it: a caller that is pinned pins itself.
    pub(super) fn run_on_all_processors(&mut self) -> Result<()> {
        let mut all = CpuSet::new();
        (0..CpuSet::count()).try_for_each(|cpu| all.set(cpu)).doing("sched_setaffinity", "all")?;
        Ok(sched_setaffinity(Pid::from_raw(0), &all).doing("sched_setaffinity", "all")?)
    }

    pub(super) fn new_namespace(&mut self, kind: Namespace) -> Result<()> {
        Ok(unshare(kind.flag()).doing("unshare", namespaces::name(kind))?)
    }

    /// None is left to be joined where it is rrun's own: this process is in it already.
    pub(super) fn join_namespace(&mut self, kind: Namespace) -> Result<()> {
        if let Some(joined) = self.handles.joins.iter().find(|joined| joined.kind == kind) {
            let set = setns(&joined.fd, kind.flag()).doing("setns", namespaces::name(kind));
            set.with_context(|| joined.to_string())?;
        }
        Ok(())
    }

    /// An ordinary user's container. A process with one thread may enter what it has made for its children: setns(2).
    pub(super) fn new_clocks(&mut self) -> Result<()> {
        let (plan, proc) = (self.plan()?, Proc::open()?);
        // As for the id maps: its files in /proc are its own then, and nobody else is in the new namespaces yet.
        set_dumpable(true)?;
        new_time_namespace(&plan.time_offsets, &proc)?;
        set_dumpable(false)?;
        let made = proc.open_namespace("self", "time_for_children")?;
        Ok(setns(&made, Namespace::Time.flag()).doing("setns", "time")?)
    }

    pub(super) fn new_session(&mut self) -> Result<()> {
        nix::unistd::setsid().doing("setsid", "")?;
        Ok(())
    }

    /// A keyring of the container's own, so that it does not see the caller's keys: session-keyring(7).
    pub(super) fn join_session_keyring(&mut self, id: &str) -> Result<()> {
        let name = CString::new(format!("_ses.{id}"))?;
        let key = match keyring::join_session_keyring(&name) {
            // a kernel without keyrings has none to protect
            Err(SysError { errno: Errno::ENOSYS, .. }) => return Ok(()),
            // A user has few keys, and those of the ring that stays are his own.
            Err(error) if error.errno == Errno::EDQUOT && self.plan.is_some_and(|plan| plan.rootless) => {
                log::warning(&format!("session keyring: {error}: the container shares its caller's"));
                return Ok(());
            }
            result => result?,
        };
        let permissions = keyring::permissions(key)?;
        Ok(keyring::set_permissions(key, permissions | USER_MAY_SEARCH)?)
    }

    pub(super) fn set_hostname(&mut self, name: &str) -> Result<()> {
        Ok(nix::unistd::sethostname(name).doing("sethostname", name)?)
    }

    pub(super) fn set_domainname(&mut self, name: &str) -> Result<()> {
        Ok(crate::sys::network::set_domainname(name)?)
    }

    /// The parent takes them from its own network namespace, where nobody inside has rights.
    pub(super) fn ask_for_net_devices(&mut self) -> Result<()> {
        self.handles.channel.request(&Ask::NetDevices).map(drop)
    }

    pub(super) fn bring_loopback_up(&mut self) -> Result<()> {
        Ok(network::bring_loopback_up()?)
    }
}

/// The namespace that the next child is born in: this process stays where it is (time_namespaces(7)).
pub fn new_time_namespace(offsets: &[TimeOffset], proc: &Proc) -> Result<()> {
    unshare(Namespace::Time.flag()).doing("unshare", "time")?;
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
