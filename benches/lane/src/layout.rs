//! Where cgroups are: the host's own way, or a mount namespace in which one version stands alone. The host's mounts are
//! never touched.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As it is.
    Host,
    /// v1 hierarchies without a v2 tree beside them.
    V1,
    /// The v2 tree alone.
    V2,
}

impl Layout {
    pub fn named(name: &str) -> Result<Self> {
        match name {
            "host" => Ok(Self::Host),
            "v1" => Ok(Self::V1),
            "v2" => Ok(Self::V2),
            _ => bail!("LAYOUTS: {name} is none of host, v1, v2"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }

    /// A layout without v1 hierarchies where there are none, or none but them, is the host's.
    pub fn is_possible(self) -> Result<bool> {
        let has = |kind: &str| Ok::<_, anyhow::Error>(mounts()?.iter().any(|mount| mount.kind == kind));
        Ok(match self {
            Self::Host => true,
            Self::V1 => has("cgroup")?,
            Self::V2 => has("cgroup2")?,
        })
    }

    /// For this process and all that it starts.
    pub fn enter(self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).context("mount /")?;
        match self {
            Self::Host => {}
            Self::V1 => {
                for tree in mounts()?.iter().filter(|mount| mount.kind == "cgroup2") {
                    umount2(tree.point.as_str(), MntFlags::MNT_DETACH).context("umount the v2 tree")?;
                }
            }
            Self::V2 => {
                umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH).context("umount /sys/fs/cgroup")?;
                mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), nothing)
                    .context("mount cgroup2")?;
            }
        }
        Ok(())
    }
}

struct Mount {
    point: String,
    kind: String,
    options: String,
}

fn mounts() -> Result<Vec<Mount>> {
    let table = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let line = |line: &str| {
        let mut fields = line.split(' ').skip(1).map(String::from);
        Some(Mount { point: fields.next()?, kind: fields.next()?, options: fields.next()? })
    };
    Ok(table.lines().filter_map(line).collect())
}

/// This process's own directory in each hierarchy, in which a container's is made: as the floor reads them.
pub fn cgroups() -> Result<String> {
    let own = fs::read_to_string("/proc/self/cgroup").context("/proc/self/cgroup")?;
    let mut parents = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let holds = |mount: &&Mount| match controllers {
            "" => mount.kind == "cgroup2",
            _ => {
                mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controllers.split(',').next().unwrap())
            }
        };
        let mounts = mounts()?;
        let Some(mount) = mounts.iter().find(holds) else { continue };
        let parent = format!("{}{}", mount.point, path.trim_end_matches('/'));
        parents.push(if controllers.is_empty() { format!("v2={parent}") } else { parent });
    }
    Ok(parents.join(","))
}

/// Whether limits of memory can be set.
pub fn has_memory(cgroups: &str) -> bool {
    cgroups.split(',').any(|parent| match parent.strip_prefix("v2=") {
        Some(tree) => fs::read_to_string(Path::new(tree).join("cgroup.controllers"))
            .is_ok_and(|names| names.split_whitespace().any(|name| name == "memory")),
        None => parent.contains("/memory"),
    })
}
