//! `linux.uidMappings` and `linux.gidMappings`: which ids of the host stand behind those inside of a new user namespace,
//! who may write that down, and what cannot work for an id that has none. Pure.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::spec::{IdMapping, Linux};
use super::{JoinPlan, MountPlan, Namespace, Parameter, ProcessPlan, Source};
use crate::host::Host;

/// How ids inside of a new user namespace are those of the host: user_namespaces(7).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdMaps {
    pub uids: IdMap,
    pub gids: IdMap,
    /// Whether groups can be set inside. An ordinary user who writes the map of groups has to give that up, or could
    /// drop a group by which a file forbids something (CVE-2014-8989).
    pub setgroups: bool,
    /// The child's files in /proc must be those of rrun's user while the maps are written: he has no right to others,
    /// even where his rrun may write any map.
    pub by_user: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdMap {
    pub ranges: Vec<IdRange>,
    pub writer: MapWriter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct IdRange {
    pub container: u32,
    pub host: u32,
    pub size: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MapWriter {
    /// Allowed anything by its capabilities, or just its own id.
    Rrun,
    /// newuidmap(1) or newgidmap(1), which ask /etc/subuid and /etc/subgid.
    Helper,
}

/// UID_GID_MAP_MAX_EXTENTS of the kernel.
const MOST_RANGES: usize = 340;
/// A map is written at once, in less than one page: user_namespaces(7).
const LONGEST: usize = 4095;

/// What the config says about user namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    Shared,
    New,
    Joined,
}

impl User {
    pub fn of(new: &[Namespace], joined: &[JoinPlan]) -> Self {
        match joined.iter().any(|join| join.kind == Namespace::User) {
            _ if new.contains(&Namespace::User) => Self::New,
            true => Self::Joined,
            false => Self::Shared,
        }
    }
}

/// The maps of a new user namespace. Those of one that is joined stand already: callers give them too, and they are
/// compared when it is entered.
pub fn plan(linux: &Linux, user: User, host: &Host) -> Result<Option<IdMaps>> {
    let uids = ranges("linux.uidMappings", &linux.uid_mappings)?;
    let gids = ranges("linux.gidMappings", &linux.gid_mappings)?;
    let both = [("linux.uidMappings", &uids), ("linux.gidMappings", &gids)];
    if user == User::Shared {
        return match both.iter().find(|(_, ranges)| !ranges.is_empty()) {
            Some((field, _)) => bail!("{field}: needs a user namespace; add one to linux.namespaces"),
            None => Ok(None),
        };
    }
    if user == User::New {
        for (field, ranges) in both {
            ensure!(!ranges.is_empty(), "{field}: missing; a new user namespace needs at least id 0 mapped");
        }
    } else {
        ensure!(
            uids.is_empty() == gids.is_empty(),
            "{}: missing; give both maps of the user namespace that is joined, or none",
            if uids.is_empty() { both[0].0 } else { both[1].0 }
        );
        if uids.is_empty() {
            return Ok(None);
        }
    }
    let privileged = host.may(caps::Capability::CAP_SETUID) && host.may(caps::Capability::CAP_SETGID);
    let map = |ranges: Vec<IdRange>, own: u32| {
        let only_own = matches!(ranges[..], [IdRange { host, size: 1, .. }] if host == own);
        let writer = if privileged || only_own { MapWriter::Rrun } else { MapWriter::Helper };
        IdMap { ranges, writer }
    };
    let (uids, gids) = (map(uids, host.uid), map(gids, host.gid));
    let setgroups = privileged || gids.writer == MapWriter::Helper;
    let by_user = host.uid != 0 || !privileged;
    Ok(Some(IdMaps { uids, gids, setgroups, by_user }))
}

pub fn ranges(field: &str, mappings: &[IdMapping]) -> Result<Vec<IdRange>> {
    ensure!(mappings.len() <= MOST_RANGES, "{field}: {} lines; the kernel takes at most {MOST_RANGES}", mappings.len());
    let mut ranges: Vec<IdRange> = Vec::with_capacity(mappings.len());
    for (index, mapping) in mappings.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let range = range(&field, mapping)?;
        for (other, earlier) in ranges.iter().enumerate() {
            for (name, own, before) in
                [("containerID", range.container, earlier.container), ("hostID", range.host, earlier.host)]
            {
                // no sum overflows: see `range`
                let apart = own >= before + earlier.size || before >= own + range.size;
                ensure!(
                    apart,
                    "{field}.{name}: {own} to {} overlaps with entry {other}; map each id once",
                    own + range.size - 1
                );
            }
        }
        ranges.push(range);
    }
    let length = lines(&ranges).len();
    ensure!(length <= LONGEST, "{field}: makes {length} bytes; the kernel takes at most {LONGEST}: merge some lines");
    Ok(ranges)
}

fn range(field: &str, mapping: &IdMapping) -> Result<IdRange> {
    let given = |name: &str, value: Option<u32>| value.with_context(|| format!("{field}.{name}: missing"));
    let size = given("size", mapping.size)?;
    ensure!(size > 0, "{field}.size: 0 maps nothing; give at least 1");
    let first = |name: &str, value: Option<u32>| {
        let first = given(name, value)?;
        // 2^32 - 1 is no id: it stands for "leave as it is"
        ensure!(
            first.checked_add(size).is_some(),
            "{field}.{name}: {first} and size {size} go beyond the last id, {}",
            u32::MAX - 1
        );
        Ok(first)
    };
    Ok(IdRange {
        container: first("containerID", mapping.container_id)?,
        host: first("hostID", mapping.host_id)?,
        size,
    })
}

/// As they are written to uid_map and gid_map.
pub fn lines(ranges: &[IdRange]) -> String {
    ranges.iter().map(|range| format!("{range}\n")).collect()
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.container, self.host, self.size)
    }
}

/// What uid_map and gid_map say. `None` for what is no such text.
pub fn parse(text: &str) -> Option<Vec<IdRange>> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(str::parse::<u32>);
        let mut next = || numbers.next()?.ok();
        let range = IdRange { container: next()?, host: next()?, size: next()? };
        numbers.next().is_none().then_some(range)
    };
    text.lines().map(line).collect()
}

/// The id of the host behind one inside.
pub fn host_id(ranges: &[IdRange], id: u32) -> Option<u32> {
    let inside = |range: &&IdRange| id >= range.container && id - range.container < range.size;
    ranges.iter().find(inside).map(|range| range.host + (id - range.container))
}

/// The same ids behind the same ids, however they are split and ordered.
pub fn same(a: &[IdRange], b: &[IdRange]) -> bool {
    merged(a) == merged(b)
}

fn merged(ranges: &[IdRange]) -> Vec<IdRange> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable_by_key(|range| range.container);
    let mut merged: Vec<IdRange> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match merged.last_mut() {
            Some(last)
                if last.container.checked_add(last.size) == Some(range.container)
                    && last.host.checked_add(last.size) == Some(range.host) =>
            {
                last.size = last.size.saturating_add(range.size);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Every id of the process has one on the host.
pub fn check_process(uids: &[IdRange], gids: &[IdRange], setgroups: bool, process: &ProcessPlan) -> Result<()> {
    let check = |field: &str, ranges: &[IdRange], id: u32, list: &str| {
        let mapped = host_id(ranges, id).is_some();
        ensure!(mapped, "process.user.{field}: {id} is not mapped in the user namespace; add it to linux.{list}");
        Ok(())
    };
    check("uid", uids, process.uid, "uidMappings")?;
    check("gid", gids, process.gid, "gidMappings")?;
    for (index, gid) in process.additional_gids.iter().enumerate() {
        check(&format!("additionalGids[{index}]"), gids, *gid, "gidMappings")?;
    }
    ensure!(setgroups || process.additional_gids.is_empty(), NO_GROUPS);
    Ok(())
}

pub const NO_GROUPS: &str = "process.user.additionalGids: cannot be set in this user namespace, since an ordinary user \
    wrote its map of groups; remove them, or map a range of gids, which newgidmap writes";

/// What the kernel would refuse with no more than a number.
pub fn check_mounts(maps: &IdMaps, mounts: &[MountPlan], apart: &[Namespace]) -> Result<()> {
    for mount in mounts {
        let Source::Filesystem { fstype, parameters, .. } = &mount.source else { continue };
        let field = &mount.field;
        let needed = match fstype.as_str() {
            "proc" => Some((Namespace::Pid, "pid")),
            "sysfs" => Some((Namespace::Network, "network")),
            "mqueue" => Some((Namespace::Ipc, "ipc")),
            _ => None,
        };
        if let Some((_, name)) = needed.filter(|(kind, _)| !apart.contains(kind)) {
            bail!(
                "{field}.type: {fstype} in a new user namespace needs a new {name} namespace too; add one, or bind the \
                 host's"
            );
        }
        for parameter in parameters {
            let Parameter::Value(key, value) = parameter else { continue };
            let (ranges, list) = match key.as_str() {
                "uid" => (&maps.uids.ranges, "uidMappings"),
                "gid" => (&maps.gids.ranges, "gidMappings"),
                _ => continue,
            };
            let unmapped = value.parse().is_ok_and(|id| host_id(ranges, id).is_none());
            ensure!(
                !unmapped,
                "{field}.options: {key}={value} is not mapped in the user namespace; remove it, or add it to linux.{list}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
