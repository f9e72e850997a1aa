//! Which cgroup hierarchies are mounted where, and where in each rrun itself is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::OFlag;
use serde::Serialize;

use crate::error::Doing;
use crate::procfs::Proc;
use crate::sys::file;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CgroupLayout {
    /// v1 hierarchies with a mount, in the order of /proc/self/cgroup.
    pub v1: Vec<Hierarchy>,
    /// The v2 tree: alone, or beside v1 ("hybrid", where it may hold some controllers or none).
    pub v2: Option<Unified>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hierarchy {
    /// `["cpu", "cpuacct"]`, or `["name=systemd"]`.
    pub controllers: Vec<String>,
    pub mountpoint: PathBuf,
    /// The directory of the hierarchy that is mounted there; `/` unless rrun is inside a container.
    pub root: String,
    /// rrun's own cgroup in this hierarchy, from /proc/self/cgroup.
    pub own: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unified {
    pub mountpoint: PathBuf,
    pub root: String,
    pub own: String,
    /// cgroup.controllers of the tree's top.
    pub controllers: Vec<String>,
}

impl CgroupLayout {
    /// What no container can do without.
    pub fn require_any(&self) -> Result<()> {
        let none = self.v1.is_empty() && self.v2.is_none();
        ensure!(!none, "this host has no cgroup file system mounted; mount cgroup2 on /sys/fs/cgroup");
        Ok(())
    }

    pub fn detect(proc: &Proc) -> Result<Self> {
        let mut layout = Self::parse(&proc.own_mountinfo()?, &proc.own_cgroups()?)?;
        if let Some(tree) = &mut layout.v2 {
            let file = tree.mountpoint.join("cgroup.controllers");
            let read = || file::read(&file::open(&file, OFlag::O_RDONLY)?, 256, 4096);
            let text = read().doing("read", file.display())?;
            tree.controllers = String::from_utf8_lossy(&text).split_ascii_whitespace().map(String::from).collect();
        }
        Ok(layout)
    }

    /// `own` is /proc/self/cgroup. The controllers of the v2 tree stand in neither file.
    pub fn parse(mountinfo: &[u8], own: &[u8]) -> Result<Self> {
        let mounts = cgroup_mounts(mountinfo);
        let mut layout = Self::default();
        for line in own.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let (controllers, own) = membership(line)?;
            if controllers.is_empty() {
                layout.v2 = best(&mounts, |mount| mount.version == Version::V2).map(|mount| Unified {
                    mountpoint: mount.mountpoint.clone(),
                    root: mount.root.clone(),
                    own,
                    controllers: Vec::new(),
                });
            } else if let Some(mount) = best(&mounts, |mount| mount.holds(&controllers)) {
                layout.v1.push(Hierarchy {
                    controllers,
                    mountpoint: mount.mountpoint.clone(),
                    root: mount.root.clone(),
                    own,
                });
            }
        }
        Ok(layout)
    }
}

/// A line of /proc/PID/cgroup, `4:cpu,cpuacct:/user/me`: controllers and path. The path may hold colons.
fn membership(line: &[u8]) -> Result<(Vec<String>, String)> {
    let text = std::str::from_utf8(line).context("/proc/self/cgroup: holds a path that is not UTF-8")?;
    let mut fields = text.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        bail!("/proc/self/cgroup: a line without its three fields: {text}");
    };
    Ok((controllers.split(',').filter(|name| !name.is_empty()).map(String::from).collect(), path.to_string()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

#[derive(Debug)]
struct CgroupMount<'a> {
    version: Version,
    root: String,
    mountpoint: PathBuf,
    /// Of the superblock: `rw,cpu,cpuacct`.
    options: &'a [u8],
}

impl CgroupMount<'_> {
    /// One controller tells: it is in one hierarchy only.
    fn holds(&self, controllers: &[String]) -> bool {
        self.version == Version::V1
            && self.options.split(|byte| *byte == b',').any(|option| option == controllers[0].as_bytes())
    }
}

/// A hierarchy can be mounted in many places, such as inside some chroot. The usual place first, then a mount of the
/// whole, then the first one.
fn best<'m, 'a>(mounts: &'m [CgroupMount<'a>], wanted: impl Fn(&CgroupMount) -> bool) -> Option<&'m CgroupMount<'a>> {
    mounts.iter().filter(|mount| wanted(mount)).min_by_key(|mount| {
        let usual = mount.mountpoint.starts_with(Path::new("/sys/fs/cgroup"));
        (!usual, mount.root != "/")
    })
}

/// A host has thousands of mounts and a dozen of cgroup, and this runs at each create: the fs type is searched for in
/// the whole text, and only its lines are looked at. Spaces in names are written \040, so a match is no name.
fn cgroup_mounts(mountinfo: &[u8]) -> Vec<CgroupMount<'_>> {
    const SEPARATOR: &[u8] = b" - cgroup";
    let mut mounts: Vec<CgroupMount> = Vec::new();
    let mut from = 0;
    while let Some(at) = find(&mountinfo[from..], SEPARATOR) {
        let at = from + at;
        let start = mountinfo[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let end = mountinfo[at..].iter().position(|byte| *byte == b'\n').map_or(mountinfo.len(), |length| at + length);
        if let Some(mount) = cgroup_mount(&mountinfo[start..at], &mountinfo[at + SEPARATOR.len()..end]) {
            // a later mount on the same place hides the earlier one
            mounts.retain(|earlier| earlier.mountpoint != mount.mountpoint);
            mounts.push(mount);
        }
        from = end;
    }
    mounts
}

/// `before` the separator: ids, root, mountpoint, options; `after` it: the rest of the type, the source, the options.
fn cgroup_mount<'a>(before: &[u8], after: &'a [u8]) -> Option<CgroupMount<'a>> {
    let mut fields = before.split(|byte| *byte == b' ').skip(3);
    let (root, mountpoint) = (fields.next()?, fields.next()?);
    let mut fields = after.split(|byte| *byte == b' ');
    let version = match fields.next()? {
        b"" => Version::V1,
        b"2" => Version::V2,
        _ => return None,
    };
    Some(CgroupMount {
        version,
        root: String::from_utf8(unescaped(root)).ok()?,
        mountpoint: OsString::from_vec(unescaped(mountpoint)).into(),
        options: fields.nth(1)?,
    })
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
pub(super) fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let (byte, next) = match rest {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', next @ ..] => {
                ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), next)
            }
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = next;
    }
    bytes
}

/// Where `needle` begins: only spaces are looked at twice.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|byte| *byte == needle[0]) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests;
