//! Mounts of type `cgroup`: what the container sees of its own cgroups.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::Init;
use crate::error::{Doing, SysError};
use crate::plan::labels::CONTEXT;
use crate::plan::{CgroupHierarchy, CgroupMount, MountPlan, Namespace};
use crate::rootfs::{Place, Symlinks};
use crate::sys::mount::{self, Attributes, Context as Filesystem, Mount, Reach};

impl Init<'_> {
    pub(super) fn mount_cgroup(&mut self, plan: &MountPlan, cgroup: &CgroupMount) -> Result<()> {
        match cgroup {
            CgroupMount::V1 { hierarchies, links } => self.mount_v1(plan, hierarchies, links),
            CgroupMount::V2 { new, bind } => self.mount_v2(plan, *new, bind),
        }
    }

    /// The tmpfs that holds the hierarchies stays writable, as it does with other runtimes; what the options say is
    /// said of the hierarchies.
    fn mount_v1(
        &mut self,
        plan: &MountPlan,
        hierarchies: &[CgroupHierarchy],
        links: &[(String, String)],
    ) -> Result<()> {
        let target = &plan.target;
        let place = self.rootfs()?.mountpoint(target, Place::Directory, Symlinks::Followed)?;
        self.refuse_inside_proc(target, &place)?;
        let tmpfs = Filesystem::new("tmpfs")?;
        tmpfs.set("mode", Some("755"))?;
        if let Some(label) = &self.plan()?.mount_label {
            tmpfs.set(CONTEXT, Some(label))?;
        }
        let top = tmpfs.mount(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC)?;
        for hierarchy in hierarchies {
            let name = hierarchy.name.as_str();
            mkdirat(top.as_fd(), name, Mode::from_bits_truncate(0o755)).doing("mkdir", name)?;
        }
        for (from, to) in links {
            symlinkat(to.as_str(), top.as_fd(), from.as_str()).doing("symlink", from)?;
        }
        mount::attach(&top, place.fd.as_fd(), target)?;
        for hierarchy in hierarchies {
            let path = target.join(&hierarchy.name);
            let mount = self.clone_cgroup(&hierarchy.from)?;
            mount::set_attributes_if(&mount, plan.attributes.into(), Reach::One, &path)?;
            mount::attach_in(&mount, top.as_fd(), &hierarchy.name, &path)?;
        }
        self.finish(plan, top)
    }

    /// An ordinary user's container may have no cgroup of its own; then it is in the one above.
    fn clone_cgroup(&self, from: &Path) -> Result<Mount> {
        match (mount::clone_tree(from, Reach::Recursive), from.parent()) {
            (Err(SysError { errno: Errno::ENOENT, .. }), Some(above)) if self.plan()?.rootless => {
                Ok(mount::clone_tree(above, Reach::Recursive)?)
            }
            (result, _) => Ok(result?),
        }
    }

    fn mount_v2(&mut self, plan: &MountPlan, new: bool, bind: &Path) -> Result<()> {
        let target = &plan.target;
        let place = self.rootfs()?.mountpoint(target, Place::Directory, Symlinks::Followed)?;
        self.refuse_inside_proc(target, &place)?;
        let made = new.then(|| Filesystem::new("cgroup2").and_then(|cgroup2| cgroup2.mount(0)));
        let mount = match made {
            // not ours to mount anew: our user does not own the cgroup namespace
            None | Some(Err(SysError { errno: Errno::EPERM | Errno::EBUSY, .. })) => self.clone_cgroup(bind)?,
            Some(result) => result?,
        };
        if self.plan()?.rootless && !self.plan()?.has(Namespace::Cgroup) {
            // The whole tree of the host, where part of it may be the user's to write (CVE-2023-25809).
            let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
            mount::set_attributes(mount.as_fd(), readonly, Reach::Recursive, target)?;
        }
        mount::set_attributes_if(&mount, plan.attributes.into(), Reach::One, target)?;
        mount::attach(&mount, place.fd.as_fd(), target)?;
        self.finish(plan, mount)
    }
}
