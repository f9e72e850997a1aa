//! Huge pages, in bytes, by their size. Of the two counters the one of reserved pages is told where there is one.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;

use super::{Source, is_zero};
use crate::cgroup::Version;

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    /// The most that it was: v1.
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

pub fn hugetlb(source: &Source) -> Result<BTreeMap<String, Hugetlb>> {
    let files = source.files()?;
    sizes(&files).into_iter().map(|size| Ok((size.to_string(), of(source, size)?))).collect()
}

/// From `hugetlb.2MB.current`, `hugetlb.1GB.usage_in_bytes`.
fn sizes(files: &[String]) -> Vec<&str> {
    files.iter().filter_map(|file| size_in(file)).collect()
}

fn size_in(file: &str) -> Option<&str> {
    let (size, rest) = file.strip_prefix("hugetlb.")?.split_once('.')?;
    matches!(rest, "current" | "usage_in_bytes").then_some(size)
}

fn of(source: &Source, size: &str) -> Result<Hugetlb> {
    let number = |file: &str| -> Result<u64> {
        let reserved = source.number(&format!("hugetlb.{size}.rsvd.{file}"))?;
        match reserved {
            Some(reserved) => Ok(reserved),
            None => Ok(source.number(&format!("hugetlb.{size}.{file}"))?.unwrap_or_default()),
        }
    };
    if source.version == Version::V1 {
        let (usage, max) = (number("usage_in_bytes")?, number("max_usage_in_bytes")?);
        return Ok(Hugetlb { usage, max, failcnt: number("failcnt")? });
    }
    let events = source.table(&format!("hugetlb.{size}.events"))?;
    Ok(Hugetlb { usage: number("current")?, max: 0, failcnt: events.get("max").copied().unwrap_or_default() })
}
