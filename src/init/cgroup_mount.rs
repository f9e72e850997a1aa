//! Mounts of type `cgroup`: what the container sees of its own cgroups.

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use super::Init;
use crate::error::{Doing, SysError};
use crate::plan::{CgroupHierarchy, CgroupMount, MountPlan};
use crate::rootfs::{Place, Symlinks};
use crate::sys::mount::{self, Context as Filesystem, Reach};

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
            let mount = mount::clone_tree(&hierarchy.from, Reach::Recursive)?;
            mount::set_attributes_if(&mount, plan.attributes.into(), Reach::One, &path)?;
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let place = openat(&top, hierarchy.name.as_str(), flags, Mode::empty()).doing("open", &path)?;
            mount::attach(&mount, place.as_fd(), &path)?;
        }
        self.finish(plan, top)
    }

    fn mount_v2(&mut self, plan: &MountPlan, new: bool, bind: &Path) -> Result<()> {
        let target = &plan.target;
        let place = self.rootfs()?.mountpoint(target, Place::Directory, Symlinks::Followed)?;
        self.refuse_inside_proc(target, &place)?;
        let made = new.then(|| Filesystem::new("cgroup2").and_then(|cgroup2| cgroup2.mount(0)));
        let mount = match made {
            // not ours to mount anew: our user does not own the cgroup namespace
            None | Some(Err(SysError { errno: Errno::EPERM | Errno::EBUSY, .. })) => {
                mount::clone_tree(bind, Reach::Recursive)?
            }
            Some(result) => result?,
        };
        mount::set_attributes_if(&mount, plan.attributes.into(), Reach::One, target)?;
        mount::attach(&mount, place.fd.as_fd(), target)?;
        self.finish(plan, mount)
    }
}
