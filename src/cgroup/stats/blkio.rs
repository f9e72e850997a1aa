//! Traffic of disks. v1 counts in the files of whichever scheduler or throttle is at work; v2 in one.

use anyhow::Result;
use serde::Serialize;

use super::pressure::Pressure;
use super::{Source, is_zero};
use crate::cgroup::Version;

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<Entry>,
    /// Readers know it by this name.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    io_queued_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_time_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_wait_time_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_merged_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_time_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sectors_recursive: Vec<Entry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct Entry {
    #[serde(skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    op: String,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

pub fn blkio(source: &Source) -> Result<Blkio> {
    match source.version {
        Version::V1 => v1(source),
        Version::V2 => Ok(v2(&source.read("io.stat")?.unwrap_or_default())),
    }
}

type Place = fn(&mut Blkio) -> &mut Vec<Entry>;

const SERVICED: Place = |blkio| &mut blkio.io_serviced_recursive;
const BYTES: Place = |blkio| &mut blkio.io_service_bytes_recursive;

/// Of a scheduler that counts everything: CFQ, or BFQ with CONFIG_BFQ_CGROUP_DEBUG.
const OF_A_SCHEDULER: [(&str, Place); 8] = [
    ("sectors_recursive", |blkio| &mut blkio.sectors_recursive),
    ("io_service_time_recursive", |blkio| &mut blkio.io_service_time_recursive),
    ("io_wait_time_recursive", |blkio| &mut blkio.io_wait_time_recursive),
    ("io_merged_recursive", |blkio| &mut blkio.io_merged_recursive),
    ("io_queued_recursive", |blkio| &mut blkio.io_queued_recursive),
    ("time_recursive", |blkio| &mut blkio.io_time_recursive),
    ("io_serviced_recursive", SERVICED),
    ("io_service_bytes_recursive", BYTES),
];
const RECURSIVE: [(&str, Place); 2] = [("io_serviced_recursive", SERVICED), ("io_service_bytes_recursive", BYTES)];
/// Before Linux 4.14, and not of cgroups below.
const OWN: [(&str, Place); 2] = [("io_serviced", SERVICED), ("io_service_bytes", BYTES)];

/// The first whose first file has anything to say is the one that is at work.
const COUNTERS: [(&str, &[(&str, Place)]); 5] = [
    ("blkio.bfq", &OF_A_SCHEDULER),
    ("blkio.bfq", &RECURSIVE),
    ("blkio", &OF_A_SCHEDULER),
    ("blkio.throttle", &RECURSIVE),
    ("blkio.throttle", &OWN),
];

fn v1(source: &Source) -> Result<Blkio> {
    let mut blkio = Blkio::default();
    for (prefix, files) in COUNTERS {
        let read = |file: &str| -> Result<Vec<Entry>> {
            let text = source.read(&format!("{prefix}.{file}"))?.unwrap_or_default();
            Ok(text.lines().filter_map(entry).collect())
        };
        if read(files[0].0)?.is_empty() {
            continue;
        }
        for (file, place) in files {
            *place(&mut blkio) = read(file)?;
        }
        break;
    }
    Ok(blkio)
}

/// `8:0 Read 4096` or `8:0 4096`; a line `Total 4096` is the sum of all.
fn entry(line: &str) -> Option<Entry> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (device, op, value) = match words[..] {
        [device, value] => (device, "", value),
        [device, op, value] => (device, op, value),
        _ => return None,
    };
    let (major, minor) = device_number(device)?;
    Some(Entry { major, minor, op: op.to_string(), value: value.parse().ok()? })
}

fn device_number(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`. A device without traffic may stand there alone.
fn v2(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device_number) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (place, op) = match key {
                "rbytes" => (BYTES, "Read"),
                "wbytes" => (BYTES, "Write"),
                "rios" => (SERVICED, "Read"),
                "wios" => (SERVICED, "Write"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            place(&mut blkio).push(Entry { major, minor, op: op.to_string(), value });
        }
    }
    blkio
}
