//! The namespaces that a plan joins: opened once, before anything is made, and checked to be what the config says.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, bail};
use nix::sched::CloneFlags;
use nix::sys::stat::{fstat, stat};

use crate::error::Doing;
use crate::init::Joined;
use crate::plan::joined::refuse_as_own;
use crate::plan::{JoinPlan, Namespace, Plan, namespaces};
use crate::rootfs::is_same_file;
use crate::sys::namespace::kind_of;

/// Without those that are rrun's own: the container is in them anyway.
pub fn open(plan: &Plan) -> Result<Vec<Joined>> {
    let mut joins = Vec::with_capacity(plan.joined.len());
    for join in &plan.joined {
        let opened = open_one(join).with_context(|| join.field.clone())?;
        match is_own(&opened)? {
            true => refuse_as_own(plan, join)?,
            false => joins.push(opened),
        }
    }
    Ok(joins)
}

fn open_one(join: &JoinPlan) -> Result<Joined> {
    let path = join.path.display();
    // A FIFO in its place would keep us waiting, a terminal would become ours.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let fd = File::options().read(true).custom_flags(flags).open(&join.path).doing("open", &path)?;
    let wanted = namespaces::name(join.kind);
    let Some(flag) = kind_of(fd.as_fd()).doing("ioctl NS_GET_NSTYPE", &path)? else {
        bail!("{path} is no namespace; give a file such as /proc/PID/ns/{}", join.kind.file());
    };
    if flag != join.kind.flag() {
        bail!("{path} is a {} namespace, not {wanted}; correct the path or the type", name_of(flag));
    }
    Ok(Joined { kind: join.kind, field: join.field.clone(), path: join.path.clone(), fd: fd.into() })
}

fn name_of(flag: CloneFlags) -> &'static str {
    namespaces::by_flag(flag).map_or("different", namespaces::name)
}

/// The mount namespace of process 1 is taken for rrun's own: its root must not be replaced either, when rrun runs in
/// a service that has another.
fn is_own(joined: &Joined) -> Result<bool> {
    let own = format!("/proc/self/ns/{}", joined.kind.file());
    let found = fstat(&joined.fd).doing("fstat", joined.path.display())?;
    if is_same_file(&found, &stat(own.as_str()).doing("stat", own)?) {
        return Ok(true);
    }
    // hidden where procfs is mounted with hidepid
    let first = || stat("/proc/1/ns/mnt").is_ok_and(|first| is_same_file(&found, &first));
    Ok(joined.kind == Namespace::Mount && first())
}
