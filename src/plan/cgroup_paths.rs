//! Where a container's cgroup lies: `linux.cgroupsPath` → one directory in each hierarchy of the host, and what a
//! mount of type `cgroup` shows of them. Nothing is made or asked here.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};

use super::id_maps::host_id;
use super::{CgroupHierarchy, CgroupMount, MountPlan, Namespace, Plan, Source};
use crate::host::cgroups::{CgroupLayout, Hierarchy, Unified};
use crate::rootfs::InRoot;

/// `linux.cgroupsPath`, cleaned; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupsPath {
    /// Absolute: from the top of what is mounted.
    FromTop(PathBuf),
    /// Relative, or absent and then the container's id: below the cgroup of rrun itself.
    BelowOwn(PathBuf),
}

/// NAME_MAX: one more and mkdir(2) says ENAMETOOLONG.
pub const LONGEST_NAME: usize = 255;
/// PATH_MAX with its final NUL: beyond it /proc/PID/cgroup cannot be read any more.
const LONGEST_PATH: usize = 4095;

impl CgroupsPath {
    pub fn new(id: &str, given: Option<&str>) -> Result<Self> {
        let given = given.filter(|path| !path.is_empty());
        let text = given.unwrap_or(id);
        if text.contains(['\0', '\n']) {
            bail!("linux.cgroupsPath: holds a NUL or a line break, which no cgroup's name can");
        }
        let path = InRoot::new(text).as_path().to_path_buf();
        if path.as_os_str().is_empty() {
            bail!("linux.cgroupsPath: {text} is not a cgroup of its own; name one below it");
        }
        if let Some(name) = path.iter().find(|name| name.len() > LONGEST_NAME) {
            bail!("linux.cgroupsPath: a name in it has {} bytes; the kernel takes at most {LONGEST_NAME}", name.len());
        }
        Ok(match given {
            Some(given) if given.starts_with('/') => Self::FromTop(path),
            _ => Self::BelowOwn(path),
        })
    }

    /// Below the mountpoint of a v1 hierarchy.
    pub fn in_hierarchy(&self, hierarchy: &Hierarchy) -> Result<PathBuf> {
        self.below(&hierarchy.mountpoint, || visible(&hierarchy.own, &hierarchy.root, &hierarchy.mountpoint))
    }

    /// Below the mountpoint of the v2 tree that stands beside v1 hierarchies.
    pub fn in_hybrid_tree(&self, tree: &Unified) -> Result<PathBuf> {
        self.below(&tree.mountpoint, || visible(&tree.own, &tree.root, &tree.mountpoint))
    }

    /// Below the mountpoint of a v2 tree that stands alone. There a cgroup with processes in it, such as rrun's own,
    /// cannot have children with controllers, so a relative path starts at its parent.
    pub fn in_only_tree(&self, tree: &Unified) -> Result<PathBuf> {
        self.below(&tree.mountpoint, || {
            let own = visible(&tree.own, &tree.root, &tree.mountpoint)?;
            Ok(own.parent().unwrap_or(own))
        })
    }

    fn below<'a>(&self, mountpoint: &Path, own: impl FnOnce() -> Result<&'a Path>) -> Result<PathBuf> {
        let path = match self {
            Self::FromTop(path) => path.clone(),
            Self::BelowOwn(path) => own()?.join(path),
        };
        let length = mountpoint.as_os_str().len() + 1 + path.as_os_str().len();
        if length > LONGEST_PATH {
            bail!("linux.cgroupsPath: makes a path of {length} bytes; the kernel takes at most {LONGEST_PATH}");
        }
        Ok(path)
    }
}

/// rrun's own cgroup as a path below the mountpoint. Inside a container the mount may begin further down than what
/// /proc/self/cgroup counts from, or elsewhere altogether; v2 tells of a cgroup that was removed under its processes.
fn visible<'a>(own: &'a str, root: &str, mountpoint: &Path) -> Result<&'a Path> {
    let below = Path::new(own).strip_prefix(root).ok();
    let inside = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    match below {
        Some(path) if inside(path) && !own.ends_with(" (deleted)") => Ok(path),
        _ => bail!(
            "linux.cgroupsPath: must be absolute here, since rrun's own cgroup {own} cannot be seen below {}",
            mountpoint.display()
        ),
    }
}

/// What a mount of type `cgroup` becomes.
pub fn mount(
    layout: &CgroupLayout,
    id: &str,
    cgroups_path: Option<&str>,
    has_cgroup_namespace: bool,
) -> Result<CgroupMount> {
    let path = CgroupsPath::new(id, cgroups_path)?;
    if layout.v1.is_empty() {
        let Some(tree) = &layout.v2 else { bail!("this host has no cgroup file system mounted") };
        let shown = &tree.mountpoint;
        let bind = if has_cgroup_namespace { shown.join(path.in_only_tree(tree)?) } else { shown.clone() };
        return Ok(CgroupMount::V2 { new: has_cgroup_namespace, bind });
    }
    let names = directory_names(&layout.v1);
    let mut hierarchies = Vec::new();
    let mut links = Vec::new();
    for (hierarchy, name) in layout.v1.iter().zip(&names) {
        let from = hierarchy.mountpoint.join(path.in_hierarchy(hierarchy)?);
        hierarchies.push(CgroupHierarchy { name: name.clone(), from });
        let linked = hierarchy.controllers.iter().filter(|c| !c.starts_with("name=") && !names.contains(c));
        links.extend(linked.map(|controller| (controller.clone(), name.clone())));
    }
    Ok(CgroupMount::V1 { hierarchies, links })
}

/// Whom a container's cgroup is given to: the program's user on the host, if the container has a view of its own of cgroup
/// v2 and may write there. Root needs no gift.
pub fn owner(plan: &Plan) -> Option<u32> {
    let writable = |mount: &MountPlan| {
        let read_only = (mount.attributes.set | mount.recursive.set) & libc::MOUNT_ATTR_RDONLY != 0;
        matches!(mount.source, Source::Cgroup(CgroupMount::V2 { .. }))
            && mount.target.as_path() == Path::new("sys/fs/cgroup")
            && !read_only
    };
    let delegated = plan.has_new(Namespace::Cgroup) && plan.mounts.iter().any(writable);
    // An ordinary user gives nothing away. The ids of a joined user namespace are not known yet without its maps.
    if !delegated || plan.rootless {
        return None;
    }
    let host_uid = match &plan.id_maps {
        Some(maps) => host_id(&maps.uids.ranges, plan.process.uid),
        None => Some(plan.process.uid).filter(|_| !plan.has(Namespace::User)),
    };
    host_uid.filter(|uid| *uid != 0)
}

/// As on the host, where programs expect them; by controllers where two mountpoints have the same last name.
fn directory_names(hierarchies: &[Hierarchy]) -> Vec<String> {
    let last = |h: &Hierarchy| h.mountpoint.file_name().map(|name| name.to_string_lossy().into_owned());
    hierarchies
        .iter()
        .map(|hierarchy| {
            let unique = |name: &String| hierarchies.iter().filter(|h| last(h).as_ref() == Some(name)).count() == 1;
            last(hierarchy)
                .filter(unique)
                .unwrap_or_else(|| hierarchy.controllers.join(",").trim_start_matches("name=").to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn hierarchy(controllers: &[&str], mountpoint: &str, root: &str, own: &str) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|c| c.to_string()).collect(),
            mountpoint: mountpoint.into(),
            root: root.into(),
            own: own.into(),
        }
    }

    fn tree(root: &str, own: &str) -> Unified {
        Unified { mountpoint: "/sys/fs/cgroup".into(), root: root.into(), own: own.into(), controllers: vec![] }
    }

    #[test]
    fn where_a_container_is_put() {
        for (given, root, own, want) in [
            (Some("/docker/c1"), "/", "/user/me", "docker/c1"),
            (Some("/c1"), "/", "/", "c1"),
            (Some("/c1"), "/pod", "/pod/x", "c1"),
            (Some("/c1"), "/pod", "/elsewhere", "c1"),
            (Some("pods/c1"), "/", "/user/me", "user/me/pods/c1"),
            (Some("pods/c1"), "/pod", "/pod/x", "x/pods/c1"),
            (Some("pods/c1"), "/pod", "/pod", "pods/c1"),
            (None, "/", "/", "the-id"),
            (None, "/", "/user/me", "user/me/the-id"),
            (Some(""), "/", "/user/me", "user/me/the-id"),
            (Some("/a/../../b/./c//"), "/", "/", "b/c"),
            (Some("../../a"), "/", "/user/me", "user/me/a"),
            (Some("system.slice:rrun:c1"), "/", "/", "system.slice:rrun:c1"),
        ] {
            let at = CgroupsPath::new("the-id", given).unwrap();
            let got = at.in_hierarchy(&hierarchy(&["cpu"], "/sys/fs/cgroup/cpu", root, own)).unwrap();
            assert_eq!(got, Path::new(want), "{given:?} root {root} own {own}");
        }
    }

    #[test]
    fn a_tree_alone_starts_at_the_parent_of_rruns_own_cgroup() {
        for (given, own, alone, beside) in [
            (None, "/", "the-id", "the-id"),
            (None, "/user/me", "user/the-id", "user/me/the-id"),
            (Some("a/b"), "/me", "a/b", "me/a/b"),
            (Some("/a/b"), "/me", "a/b", "a/b"),
        ] {
            let at = CgroupsPath::new("the-id", given).unwrap();
            assert_eq!(at.in_only_tree(&tree("/", own)).unwrap(), Path::new(alone), "{given:?} {own}");
            assert_eq!(at.in_hybrid_tree(&tree("/", own)).unwrap(), Path::new(beside), "{given:?} {own}");
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        let long = "x".repeat(256);
        for (given, says) in [
            ("/", "not a cgroup of its own"),
            (".", "not a cgroup of its own"),
            ("/a/../..", "not a cgroup of its own"),
            ("/a\0b", "NUL or a line break"),
            ("/a\nb", "NUL or a line break"),
            (long.as_str(), "has 256 bytes"),
        ] {
            let error = CgroupsPath::new("the-id", Some(given)).unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: ") && error.contains(says), "{given:?}: {error}");
        }
        let deep = CgroupsPath::new("the-id", Some(&"/abc".repeat(1100))).unwrap();
        let error = deep.in_hierarchy(&hierarchy(&["cpu"], "/c", "/", "/")).unwrap_err().to_string();
        assert!(error.contains("a path of 4402 bytes"), "{error}");
        for (root, own) in
            [("/pod", "/elsewhere"), ("/pod", "/podium"), ("/", "/../x"), ("/..", "/"), ("/", "/x (deleted)")]
        {
            let relative = CgroupsPath::new("the-id", None).unwrap();
            let error = relative.in_hierarchy(&hierarchy(&["cpu"], "/c", root, own)).unwrap_err().to_string();
            assert!(error.contains("must be absolute here"), "root {root} own {own}: {error}");
        }
    }

    #[test]
    fn a_mount_shows_every_hierarchy_under_the_hosts_names() {
        let layout = CgroupLayout {
            v1: vec![
                hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", "/", "/"),
                hierarchy(&["name=systemd"], "/sys/fs/cgroup/systemd", "/", "/me"),
            ],
            v2: Some(tree("/", "/")),
        };
        let shown = |path, namespace| serde_json::to_value(mount(&layout, "c1", path, namespace).unwrap()).unwrap();
        let links = json!([["cpu", "cpu,cpuacct"], ["cpuacct", "cpu,cpuacct"]]);
        let bound = json!({"v1": {"links": links, "hierarchies": [
            {"name": "cpu,cpuacct", "from": "/sys/fs/cgroup/cpu,cpuacct/c1"},
            {"name": "systemd", "from": "/sys/fs/cgroup/systemd/me/c1"},
        ]}});
        assert_eq!(shown(None, false), bound);
        assert_eq!(shown(None, true), bound);
    }

    #[test]
    fn equal_last_names_are_told_apart() {
        let v1 = vec![hierarchy(&["cpu"], "/a/cg", "/", "/"), hierarchy(&["name=systemd"], "/b/cg", "/", "/")];
        assert_eq!(directory_names(&v1), ["cpu", "systemd"]);
    }

    #[test]
    fn a_mount_on_a_host_with_v2_alone() {
        let layout = CgroupLayout { v1: vec![], v2: Some(tree("/", "/user/me")) };
        for (namespace, want) in [(false, "/sys/fs/cgroup"), (true, "/sys/fs/cgroup/user/c1")] {
            let CgroupMount::V2 { new, bind } = mount(&layout, "c1", None, namespace).unwrap() else { panic!() };
            assert_eq!((new, bind.as_os_str()), (namespace, want.as_ref()));
        }
        assert!(mount(&CgroupLayout::default(), "c1", None, false).is_err());
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_hierarchy(given in "(/|\\.|\\.\\.|[a-c]){1,24}", own in "(/[a-c]){0,3}") {
            let hierarchy = hierarchy(&["cpu"], "/cg", "/", if own.is_empty() { "/" } else { &own });
            let Ok(at) = CgroupsPath::new("id", Some(&given)) else { return Ok(()) };
            let path = at.in_hierarchy(&hierarchy).unwrap();
            prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))), "{given}: {}", path.display());
            if !given.starts_with('/') {
                prop_assert!(path.starts_with(own.trim_start_matches('/')) && path != Path::new(own.trim_start_matches('/')));
            }
        }
    }
}
