//! Controllers that runc's events do not tell of: rdma, whose files are the same on both versions, and misc.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{Source, is_zero, number};

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Rdma {
    #[serde(rename = "rdma_limit", skip_serializing_if = "Vec::is_empty")]
    limit: Vec<Device>,
    #[serde(rename = "rdma_current", skip_serializing_if = "Vec::is_empty")]
    current: Vec<Device>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Device {
    device: String,
    #[serde(skip_serializing_if = "is_zero")]
    hca_handles: u32,
    #[serde(skip_serializing_if = "is_zero")]
    hca_objects: u32,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Misc {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    /// How often the limit was met.
    #[serde(skip_serializing_if = "is_zero")]
    events: u64,
}

pub fn rdma(source: &Source) -> Result<Rdma> {
    let devices = |file: &str| Ok::<_, anyhow::Error>(devices(&source.read(file)?.unwrap_or_default()));
    Ok(Rdma { limit: devices("rdma.max")?, current: devices("rdma.current")? })
}

/// `mlx5_0 hca_handle=2 hca_object=max`: the kernel counts in 31 bits, and `max` is the largest of 32.
fn devices(text: &str) -> Vec<Device> {
    let device = |line: &str| {
        let (name, values) = line.split_once(' ')?;
        let of = |key: &str| {
            let value = values.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            value.and_then(number).map_or(0, |value| value.try_into().unwrap_or(u32::MAX))
        };
        Some(Device { device: name.to_string(), hca_handles: of("hca_handle"), hca_objects: of("hca_object") })
    };
    text.lines().filter_map(device).collect()
}

/// By the resource: `sev 3` in misc.current, `sev.max 1` in misc.events.
pub fn misc(source: &Source) -> Result<BTreeMap<String, Misc>> {
    let mut misc: BTreeMap<String, Misc> = BTreeMap::new();
    for (resource, usage) in source.table("misc.current")? {
        misc.entry(resource).or_default().usage = usage;
    }
    for (name, events) in source.table("misc.events")? {
        if let Some(resource) = name.strip_suffix(".max") {
            misc.entry(resource.to_string()).or_default().events = events;
        }
    }
    Ok(misc)
}
