//! `checkpoint`: a container's processes are written into images by CRIU, and go on, or are gone with the container.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use super::container::Container;
use super::delete::delete_up;
use super::images::{self, ImagePaths, Images};
use super::{Store, bundle, process};
use crate::criu::program::Start;
use crate::criu::request::{self, Dumped, Flags};
use crate::criu::rpc::Features;
use crate::criu::{Session, Word};
use crate::error::Doing;
use crate::host;
use crate::launch::seal;
use crate::log;
use crate::plan::Plan;
use crate::procfs::Proc;
use crate::rootfs::{InRoot, Rootfs, kind_of, leads_to};
use crate::state::directory::Directory;
use crate::state::{Process, Status};

const LOG: &str = "dump.log";

pub struct CheckpointOptions {
    pub id: String,
    pub paths: ImagePaths,
    pub flags: Flags,
    /// Told by one byte when the pages can be fetched.
    pub status: Option<OwnedFd>,
}

pub fn checkpoint(store: &Store, options: CheckpointOptions) -> Result<()> {
    let CheckpointOptions { id, paths, flags, status } = options;
    ensure!(!host::rootless()?, NEEDS_ROOT);
    let start = Start::new(seal::callers_environment()?)?;
    let (container, init, before) = find(store, &id)?;
    let plan = bundle::recorded(store, &container)?;
    request::refuse_impossible(&plan)?;
    let config = images::config(&plan)?;
    let images = Images::make(&paths)?;
    flags.parent.as_deref().map(|parent| images.check_parent(parent)).transpose()?;
    let dumped = look_at(&container, init, &plan)?;
    let session = Session::begin(start, images.log(LOG)?)?;
    let request = request::dump(&flags, &images.files(LOG, config), &dumped);
    let outcome = prepare(&session, &flags, &images, init).and_then(|()| {
        session.send(&request)?;
        attend(&session, status)
    });
    match outcome {
        Ok(()) if flags.pre_dump => session.give_up(),
        Ok(()) => session.end()?,
        Err(error) => {
            session.give_up();
            return Err(thawed(&container, before, error));
        }
    }
    log::debug(format_args!("{id}: dumped into {}", paths.images.display()));
    if !flags.leave_running && !flags.pre_dump {
        // The images are what was asked for; what is left of the container, `delete` finds.
        if let Err(error) = delete_up(&container, None) {
            log::warning(&format!("checkpoint {id}: what is left could not be removed: {error:#}"));
        }
    }
    Ok(())
}

pub(super) const NEEDS_ROOT: &str = "criu needs root's rights on the host; call rrun as root";

/// Decided under the lock; the dump, which takes its time, is done without it.
fn find(store: &Store, id: &str) -> Result<(Container, Process, Status)> {
    crate::state::check_id(id)?;
    let (directory, _lock) = Directory::open_locked(&store.root, id)?.ok_or(crate::error::Matched::DoesNotExist)?;
    let container = Container::in_directory(directory)?.ok_or(crate::error::Matched::DoesNotExist)?;
    let status = container.status()?;
    match status {
        Status::Running | Status::Paused => {}
        other => bail!("container cannot be checkpointed in {} state; start it first", other.word()),
    }
    let init = container.state.init.context("no init is recorded")?;
    ensure!(process::open(&container, init)?.is_some(), "container cannot be checkpointed in stopped state");
    Ok((container, init, status))
}

fn prepare(session: &Session, flags: &Flags, images: &Images, init: Process) -> Result<()> {
    session.check_version(None)?;
    let wanted = Features { mem_track: flags.pre_dump.then_some(true), lazy_pages: flags.lazy_pages.then_some(true) };
    if wanted != Features::default() {
        session.check_features(&wanted, None)?;
    }
    if !flags.pre_dump {
        images.write_descriptors(&standard_files(init)?)?;
    }
    Ok(())
}

/// Where they lead to. Pipes of the caller's are replaced at a restore.
fn standard_files(init: Process) -> Result<Vec<String>> {
    let fds = Proc::own()?.open_file(&format!("{}/fd", init.pid), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let lead = |number: i32| nix::fcntl::readlinkat(&fds, number.to_string().as_str());
    // the program may have closed it
    Ok((0..=2)
        .map(|number| lead(number).map_or_else(|_| String::new(), |to| to.to_string_lossy().into_owned()))
        .collect())
}

fn attend(session: &Session, mut status: Option<OwnedFd>) -> Result<()> {
    loop {
        match session.next(None)? {
            Word::Done => return Ok(()),
            Word::Notice { script, .. } => {
                log::debug(format_args!("criu: {script}"));
                if script == "status-ready"
                    && let Some(status) = status.take()
                {
                    // whoever waited for it may be gone
                    let _ = nix::unistd::write(&status, &[0]);
                }
                session.go_on()?;
            }
        }
    }
}

/// A CRIU that was killed cannot thaw what it froze.
fn thawed(container: &Container, before: Status, error: anyhow::Error) -> anyhow::Error {
    let thaw = || -> Result<()> {
        let cgroups = container.cgroups()?;
        if before != Status::Paused && cgroups.frozen()? { cgroups.thaw() } else { Ok(()) }
    };
    match thaw() {
        Ok(()) => error,
        Err(left) => error.context(format!("it stays frozen: {left:#}")),
    }
}

/// What CRIU is told of the container.
fn look_at(container: &Container, init: Process, plan: &Plan) -> Result<Dumped> {
    let proc = container.proc();
    let root = proc.open_root(init.pid())?;
    let mut mounts = BTreeMap::new();
    for (target, _) in request::external_mounts(plan) {
        let place = resolved(&Rootfs::new(root.try_clone().doing("dup", "the container's root")?), &target)?;
        mounts.insert(place.unwrap_or_else(|| target.to_string().into()), target.to_string().into());
    }
    let rootfs = Rootfs::new(root);
    for path in &plan.masked_paths {
        let Some(masked) = rootfs.find(path)? else { continue };
        if kind_of(&fstat(&masked).doing("fstat", path)?) != SFlag::S_IFDIR {
            mounts.insert(leads_to(&masked)?, request::mask_name());
        }
    }
    let mut joined = Vec::new();
    for join in plan.joined.iter().filter(|join| request::is_outside(join.kind)) {
        if !proc.share_namespace(init.pid(), join.kind.file())? {
            let namespace = proc.open_namespace(init.pid(), join.kind.file())?;
            joined.push((join.kind, fstat(&namespace).doing("fstat", join.path.display())?.st_ino));
        }
    }
    let freezer = container.cgroups()?.freezer_path()?;
    Ok(Dumped { pid: init.pid, rootfs: container.state.rootfs.clone(), mounts, joined, freezer })
}

fn resolved(rootfs: &Rootfs, target: &InRoot) -> Result<Option<PathBuf>> {
    Ok(rootfs.find(target)?.map(|place| leads_to(&place)).transpose()?)
}
