//! What stands in the container's /dev: the nodes that every container has, those of `linux.devices`, and the links.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use super::problems::Problems;
use super::spec::{self, given};
use super::{DeviceKind, DevicePlan, LinkPlan, LinkWhen};
use crate::rootfs::InRoot;

/// Made for everyone (spec, config-linux.md "Default Devices"); all are of major 1 or 5 and open to all users.
const DEFAULT: [(&str, u64, u64); 6] = [
    ("dev/null", 1, 3),
    ("dev/zero", 1, 5),
    ("dev/full", 1, 7),
    ("dev/random", 1, 8),
    ("dev/urandom", 1, 9),
    ("dev/tty", 5, 0),
];

const LINKS: [(&str, &str, LinkWhen); 6] = [
    ("dev/fd", "/proc/self/fd", LinkWhen::Missing),
    ("dev/stdin", "/proc/self/fd/0", LinkWhen::Missing),
    ("dev/stdout", "/proc/self/fd/1", LinkWhen::Missing),
    ("dev/stderr", "/proc/self/fd/2", LinkWhen::Missing),
    ("dev/core", "/proc/kcore", LinkWhen::KcoreExists),
    ("dev/ptmx", "pts/ptmx", LinkWhen::Always),
];

const MODE: u32 = 0o666;

/// The kernel's dev_t: 12 bits and 20 bits.
const MAJOR_MAX: i64 = (1 << 12) - 1;
const MINOR_MAX: i64 = (1 << 20) - 1;

/// Who owns the container's /dev.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dev {
    Container,
    /// A directory of the host is bound there: nothing is made in it.
    Host,
}

pub fn plan(devices: &[spec::linux::Device], dev: Dev, warnings: &mut Vec<String>) -> Result<Vec<DevicePlan>> {
    let listed = listed(devices, dev, warnings)?;
    let mut planned = Vec::with_capacity(DEFAULT.len() + listed.len());
    if dev == Dev::Container {
        let default = DEFAULT.iter().map(default_device);
        planned.extend(default.filter(|one| listed.iter().all(|other| other.path != one.path)));
    }
    planned.extend(listed);
    Ok(planned)
}

fn default_device(&(path, major, minor): &(&str, u64, u64)) -> DevicePlan {
    let (field, path) = ("default device".into(), InRoot::new(path));
    DevicePlan { field, path, kind: DeviceKind::Char, major, minor, mode: MODE, uid: 0, gid: 0 }
}

pub fn links(dev: Dev) -> Vec<LinkPlan> {
    let link = |&(path, to, when): &(&str, &str, _)| LinkPlan { path: InRoot::new(path), to: to.into(), when };
    match dev {
        Dev::Container => LINKS.iter().map(link).collect(),
        Dev::Host => Vec::new(),
    }
}

/// `linux.devices` in its order. Of two with one path the last counts.
fn listed(devices: &[spec::linux::Device], dev: Dev, warnings: &mut Vec<String>) -> Result<Vec<DevicePlan>> {
    let mut planned: Vec<Option<DevicePlan>> = Vec::with_capacity(devices.len());
    let mut paths = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    let mut left_to_host = 0;
    let mut problems = Problems::default();
    let read = |(index, device)| device_plan(device, &format!("linux.devices[{index}]"));
    for one in problems.each(devices.iter().enumerate().map(read)) {
        if dev == Dev::Host && one.path.as_path().starts_with("dev") {
            left_to_host += 1;
            continue;
        }
        // always the link to the container's own devpts
        if one.path.as_path().to_str() == Some("dev/ptmx") {
            continue;
        }
        let before = paths.insert(one.path.clone(), planned.len());
        if let Some(before) = before.and_then(|index| planned[index].take()) {
            warnings.push(format!("{}.path: {} is given twice; {} counts", one.field, one.path, one.field));
            numbers.retain(|_, path| *path != before.path);
        }
        if one.kind != DeviceKind::Fifo {
            let number = (one.kind == DeviceKind::Block, one.major, one.minor);
            if let Some(other) = numbers.insert(number, one.path.clone()) {
                let field = &one.field;
                warnings
                    .push(format!("{field}: {} is the same device {}:{} as {other}", one.path, one.major, one.minor));
            }
        }
        planned.push(Some(one));
    }
    if left_to_host > 0 {
        warnings.push(format!("linux.devices: {left_to_host} below /dev left out: /dev is bound from the host"));
    }
    problems.result(planned.into_iter().flatten().collect())
}

fn device_plan(device: &spec::linux::Device, field: &str) -> Result<DevicePlan> {
    let path = given(&device.path).with_context(|| format!("{field}.path: missing; add the path in the container"))?;
    ensure!(path.starts_with('/'), "{field}.path: {path} is not absolute");
    let inside = InRoot::new(path);
    ensure!(!inside.is_root(), "{field}.path: {path} is the root itself");
    let kind = match given(&device.kind) {
        Some("c" | "u") => DeviceKind::Char,
        Some("b") => DeviceKind::Block,
        Some("p") => DeviceKind::Fifo,
        Some(other) => bail!("{field}.type: {other} is no type of device; use c, b, u or p"),
        None => bail!("{field}.type: missing; use c, b, u or p"),
    };
    let number = |name: &str, value: Option<i64>, max: i64| match value {
        _ if kind == DeviceKind::Fifo => Ok(0),
        Some(value) if (0..=max).contains(&value) => Ok(value.unsigned_abs()),
        Some(value) => bail!("{field}.{name}: {value} is not from 0 to {max}"),
        None => bail!("{field}.{name}: missing; a device of this type needs one"),
    };
    let id = |name: &str, value: Option<u32>| super::process::id(&format_args!("{field}.{name}"), value.unwrap_or(0));
    Ok(DevicePlan {
        major: number("major", device.major, MAJOR_MAX)?,
        minor: number("minor", device.minor, MINOR_MAX)?,
        // it may carry the type of file too
        mode: device.file_mode.unwrap_or(MODE) & 0o7777,
        uid: id("uid", device.uid)?,
        gid: id("gid", device.gid)?,
        field: field.into(),
        path: inside,
        kind,
    })
}

#[cfg(test)]
mod tests;
