//! `mounts` of config.json: where each goes, what it is made of, and what must not be mounted where.
//!
//! Only the text of a destination is looked at here. Where it leads through the image's symlinks is seen when it is
//! opened, and the rules about /proc are applied to that once more.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::mount_ids::{self, Container};
use super::mount_options::{self, FSCONFIG_MAX, Words};
use super::problems::Problems;
use super::spec::{self, given};
use super::{AttrChange, CgroupMount, MountIds, MountPlan, Parameter, Source, SourceLink};
use crate::rootfs::InRoot;

/// What may be mounted below /proc: files that lxcfs and its like replace by the container's view.
const INSIDE_PROC: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

/// Where on the host paths of the config are.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
}

pub fn plan(
    mounts: &[spec::Mount],
    origin: Origin,
    container: &Container,
    cgroup: impl Fn() -> Result<CgroupMount>,
    warnings: &mut Vec<String>,
    problems: &mut Problems,
) -> Vec<MountPlan> {
    let plans = mounts.iter().enumerate().map(|(index, mount)| {
        let field = format!("mounts[{index}]");
        let target = target(mount, &field, origin.rootfs, warnings)?;
        let words = mount_options::parse(&mount.options, &field)?;
        let source = source(mount, &words, &field, origin.bundle, &cgroup, warnings)?;
        check_proc(&target, &source, &field)?;
        check_links(&words, &source, &field)?;
        let ids = mount_ids::plan(mount, &words, &source, &field, container)?;
        Ok(assemble(field, target, source, ids, words))
    });
    problems.each(plans)
}

fn target(mount: &spec::Mount, field: &str, rootfs: &Path, warnings: &mut Vec<String>) -> Result<InRoot> {
    let destination = given(&mount.destination)
        .with_context(|| format!("{field}.destination: missing; add the path in the container"))?;
    if !destination.starts_with('/') {
        warnings.push(format!("{field}.destination: {destination} is not absolute; taken from /"));
    }
    let target = match below(rootfs, destination) {
        Some(inside) => InRoot::new(inside),
        None => InRoot::new(destination),
    };
    if target != InRoot::new(destination) {
        warnings.push(format!("{field}.destination: {destination} begins with root.path; taken as {target}"));
    }
    ensure!(!target.is_root(), "{field}.destination: {destination} is the root itself; use root.path for that");
    Ok(target)
}

/// A destination by its path on the host: callers of runc, which takes it so, write it where they mount what another
/// mount has brought into the rootfs. No image has a directory by the name of the place that it is unpacked at.
fn below<'d>(rootfs: &Path, destination: &'d str) -> Option<&'d Path> {
    Path::new(destination).strip_prefix(rootfs).ok().filter(|_| rootfs != Path::new("/"))
}

fn source(
    mount: &spec::Mount,
    words: &Words,
    field: &str,
    bundle: &Path,
    cgroup: impl Fn() -> Result<CgroupMount>,
    warnings: &mut Vec<String>,
) -> Result<Source> {
    let kind = given(&mount.kind);
    let tmpfs = kind == Some("tmpfs") && !words.bind && !words.remount;
    ensure!(!words.copy_up || tmpfs, "{field}.options: tmpcopyup fills a new tmpfs; this mount is none");
    if words.bind || kind == Some("bind") {
        // the kernel would not look at them either; but a lone word may be a misspelt one that was to protect something
        if let Some(word) = words.data.iter().find(|word| matches!(word, Parameter::Flag(_))) {
            bail!("{field}.options: {}: a bind mount takes no options of a file system; remove it", name(word));
        }
        for option in words.data.iter().chain(&words.superblock) {
            warnings.push(format!("{field}.options: {} is left out: a bind mount cannot change it", name(option)));
        }
        return match words.remount {
            true => Ok(Source::Remount { parameters: Vec::new() }),
            false => bind(mount, words, field, bundle),
        };
    }
    let parameters = || words.superblock.iter().chain(&words.data).cloned().collect();
    if words.remount {
        return Ok(Source::Remount { parameters: parameters() });
    }
    match kind {
        None => bail!("{field}.type: missing; give a file system, or `bind` among the options"),
        Some("cgroup" | "cgroup2") => {
            no_data(words, field, "a cgroup mount takes no options of a file system")?;
            if let Some(flag) = words.superblock.first() {
                bail!("{field}.options: {}: a cgroup mount takes no options of a file system; remove it", name(flag));
            }
            Ok(Source::Cgroup(cgroup()?))
        }
        Some(fstype) => Ok(filesystem(fstype, given(&mount.source), parameters(), words)),
    }
}

fn no_data(words: &Words, field: &str, why: &str) -> Result<()> {
    match words.data.first() {
        Some(option) => bail!("{field}.options: {}: {why}; remove it", name(option)),
        None => Ok(()),
    }
}

fn name(parameter: &Parameter) -> &str {
    match parameter {
        Parameter::Flag(name) | Parameter::Value(name, _) => name,
    }
}

fn bind(mount: &spec::Mount, words: &Words, field: &str, bundle: &Path) -> Result<Source> {
    let from = given(&mount.source).with_context(|| format!("{field}.source: missing; a bind mount needs one"))?;
    let symlink = match (words.copy_symlink, words.source_nofollow) {
        (true, _) => SourceLink::Copied,
        (false, true) => SourceLink::Bound,
        (false, false) => SourceLink::Followed,
    };
    Ok(Source::Bind { from: bundle.join(from), recursive: words.recursive_bind, symlink })
}

/// What is said of symlinks, where there can be none, or one would lead writes of ours astray.
fn check_links(words: &Words, source: &Source, field: &str) -> Result<()> {
    let about_source = [("copy-symlink", words.copy_symlink), ("src-nofollow", words.source_nofollow)];
    if let Some((word, _)) = about_source.iter().find(|(_, given)| *given) {
        let bind = matches!(source, Source::Bind { .. });
        ensure!(bind, "{field}.options: {word}: only a bind mount has a source on the host; remove it");
    }
    let nofollow = [("src-nofollow", words.source_nofollow), ("dest-nofollow", words.destination_nofollow)];
    if let Some((word, _)) = nofollow.iter().find(|(_, given)| *given && words.copy_symlink) {
        bail!("{field}.options: {word} and copy-symlink exclude each other; keep one");
    }
    let fixed = match source {
        Source::Bind { .. } => None,
        Source::Filesystem { fstype, .. } => {
            Some(fstype.as_str()).filter(|fstype| matches!(*fstype, "proc" | "sysfs" | "devpts"))
        }
        Source::Cgroup(_) => Some("cgroup"),
        Source::Remount { .. } => Some("remount"),
    };
    match fixed.filter(|_| words.destination_nofollow) {
        Some(what) => bail!("{field}.options: dest-nofollow: not for a mount of type {what}; remove it"),
        None => Ok(()),
    }
}

fn filesystem(fstype: &str, device: Option<&str>, mut parameters: Vec<Parameter>, words: &Words) -> Source {
    let device = device.unwrap_or("none");
    // A file system on a block device must be opened read-only too: a read-only device refuses else, and its journal
    // is replayed. Without a device the superblock may be shared with the host (sysfs, debugfs): hands off.
    if device.starts_with('/') && words.attributes.set & libc::MOUNT_ATTR_RDONLY != 0 {
        parameters.push(Parameter::Flag("ro".into()));
    }
    if fstype == "overlay" {
        parameters = parameters.into_iter().flat_map(layers).collect();
    }
    Source::Filesystem { fstype: fstype.into(), device: device.into(), parameters, copy_up: words.copy_up }
}

/// A list of overlay's layers that is too long for one value becomes one parameter a layer (Linux 6.7).
fn layers(parameter: Parameter) -> Vec<Parameter> {
    match parameter {
        Parameter::Value(key, value) if key == "lowerdir" && value.len() > FSCONFIG_MAX => split_layers(&value),
        other => vec![other],
    }
}

/// `:` separates layers, `::` stands before a layer of data alone, `\` takes the next character as it is.
fn split_layers(value: &str) -> Vec<Parameter> {
    let mut layers = vec![(false, String::new())];
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (c, layers.last_mut()) {
            (':', Some((data_only, layer))) if layer.is_empty() => *data_only = true,
            (':', _) => layers.push((false, String::new())),
            ('\\', Some((_, layer))) => layer.extend(chars.next()),
            (_, Some((_, layer))) => layer.push(c),
            (_, None) => {}
        }
    }
    let key = |data_only| if data_only { "datadir+" } else { "lowerdir+" };
    layers.into_iter().map(|(data_only, layer)| Parameter::Value(key(data_only).into(), layer)).collect()
}

/// A fresh proc, or one that is bound, on /proc itself; a few files below. Anything else could stand in for a file of
/// /proc that is written during the set-up (CVE-2019-16884, CVE-2019-19921).
fn check_proc(target: &InRoot, source: &Source, field: &str) -> Result<()> {
    let Some(inside) = inside_proc(target) else { return Ok(()) };
    if inside.as_os_str().is_empty() {
        return match source {
            Source::Filesystem { fstype, .. } if fstype != "proc" => {
                bail!("{field}.type: {fstype} cannot be mounted on {target}; only proc can")
            }
            Source::Cgroup(_) => bail!("{field}.type: cgroup cannot be mounted on {target}; only proc can"),
            _ => Ok(()),
        };
    }
    let allowed = is_allowed_inside_proc(target);
    ensure!(allowed, "{field}.destination: {target} cannot be mounted because it is inside /proc; remove it");
    Ok(())
}

/// Also asked about the place that a destination leads to, once that is open.
pub fn is_allowed_inside_proc(target: &InRoot) -> bool {
    inside_proc(target).is_some_and(|inside| INSIDE_PROC.iter().any(|name| inside == Path::new(name)))
}

fn inside_proc(target: &InRoot) -> Option<&Path> {
    target.as_path().strip_prefix("proc").ok()
}

fn assemble(field: String, target: InRoot, source: Source, ids: Option<MountIds>, words: Words) -> MountPlan {
    let Words { mut attributes, mut recursive, propagation, destination_nofollow: target_nofollow, .. } = words;
    let new = matches!(source, Source::Filesystem { .. });
    let tmpfs = matches!(&source, Source::Filesystem { fstype, .. } if fstype == "tmpfs");
    let bind = matches!(source, Source::Bind { .. });
    let unnamed = if bind { mount_options::unnamed(&attributes) } else { AttrChange::default() };
    let mut readonly_at_end = false;
    if tmpfs || target.as_path().starts_with("dev") {
        // below a new mount there is nothing yet, so its `rro` is a `ro`
        let changes = [Some(&mut attributes), new.then_some(&mut recursive)];
        for change in changes.into_iter().flatten() {
            readonly_at_end |= change.set & libc::MOUNT_ATTR_RDONLY != 0;
            change.set &= !libc::MOUNT_ATTR_RDONLY;
        }
    }
    MountPlan {
        field,
        target,
        source,
        attributes,
        unnamed,
        recursive,
        propagation,
        ids,
        target_nofollow,
        readonly_at_end,
        label: None,
    }
}

/// Whether the container's /dev is a directory of the host.
pub fn dev_is_bound(mounts: &[MountPlan]) -> bool {
    let dev = PathBuf::from("dev");
    mounts.iter().any(|mount| mount.target.as_path() == dev && matches!(mount.source, Source::Bind { .. }))
}

#[cfg(test)]
mod tests;
