//! Sources and places of mounts, and what else `create` makes or looks for in the container's tree.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::Pid;

use super::image::{Image, Mounted};
use crate::error::Doing;
use crate::init;
use crate::init::steps::Step;
use crate::launch::mount_ids::IdMapper;
use crate::plan::id_maps::IdMaps;
use crate::plan::problems::Problems;
use crate::plan::{MountIds, MountMaps, MountPlan, Namespace, Plan, Source, SourceLink};
use crate::procfs::Proc;
use crate::rootfs::kind_of;

/// What the container's tree will be. An error may be of several problems.
pub fn refuse_impossible(plan: &Plan, has_rootfs: bool) -> Result<Option<Image<'_>>> {
    let mut problems = Problems::default();
    let maps = plan.id_maps.as_ref().filter(|_| plan.has_new(Namespace::User));
    let image = if has_rootfs { Image::open(&plan.root.path, maps).map(Some) } else { Ok(None) };
    let mut image = problems.take(image.context("root.path"));
    for mount in &plan.mounts {
        let source = problems.ok(source(plan, mount).with_context(|| Step::Mount(mount).to_string()));
        if source.is_some() {
            problems.ok(ids(plan, mount).with_context(|| Step::Mount(mount).to_string()));
        }
        let (Some(image), Some(source)) = (&mut image, source) else { continue };
        problems.ok(image.mount(mount, source).with_context(|| Step::Mount(mount).to_string()));
    }
    if let Some(image) = &image {
        for device in &plan.devices {
            problems.ok(image.device(device).with_context(|| Step::Device(device).to_string()));
        }
        for (path, step) in plan.masked_paths.iter().map(|path| (path, Step::Mask(path))) {
            problems.ok(image.resolve(path, false).with_context(|| step.to_string()));
        }
        for (path, step) in plan.readonly_paths.iter().map(|path| (path, Step::ReadonlyPath(path))) {
            problems.ok(image.resolve(path, false).with_context(|| step.to_string()));
        }
        let cwd = &plan.process.cwd;
        problems.ok(image.working_directory(cwd).with_context(|| Step::EnterDirectory(cwd).to_string()));
    }
    problems.result(image)
}

const DIRECTORY: Mounted = Mounted { is_directory: true, volume: None };

fn source(plan: &Plan, mount: &MountPlan) -> Result<Mounted> {
    match &mount.source {
        Source::Bind { from, symlink, .. } => {
            let nofollow = if *symlink == SourceLink::Followed { OFlag::empty() } else { OFlag::O_NOFOLLOW };
            let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | nofollow;
            let fd = openat(AT_FDCWD, from, flags, Mode::empty()).doing("open_tree", from.display())?;
            let is_directory = kind_of(&fstat(&fd).doing("fstat", from.display())?) == SFlag::S_IFDIR;
            Ok(Mounted { is_directory, volume: Some(fd) })
        }
        // a user namespace of the container's gives the right to some of them, which nobody here has
        Source::Filesystem { fstype, device, parameters, .. } if !plan.rootless => {
            init::configured(fstype, device, parameters).map(|_| DIRECTORY)
        }
        _ => Ok(DIRECTORY),
    }
}

/// Maps the ids of a mount that goes nowhere. Those of a namespace that is joined are left to `create`.
fn ids(plan: &Plan, mount: &MountPlan) -> Result<()> {
    let (Some(ids), Source::Bind { from, recursive, symlink }) = (&mount.ids, &mount.source) else { return Ok(()) };
    let maps = match (&ids.maps, &plan.id_maps) {
        (MountMaps::Container, Some(IdMaps { uids, gids, .. })) => {
            MountMaps::Own { uids: uids.ranges.clone(), gids: gids.ranges.clone() }
        }
        (MountMaps::Container, None) => return Ok(()),
        (own, _) => own.clone(),
    };
    let ids = MountIds { maps, recursive: ids.recursive };
    let tree = init::clone_source(from, *recursive, *symlink)?;
    IdMapper::default().map(&Proc::open()?, Pid::this(), &ids, tree.as_fd(), &mount.target)
}
