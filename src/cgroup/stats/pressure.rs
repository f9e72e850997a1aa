//! How long processes had to wait for a resource: PSI of cgroup v2, which has come with Linux 4.20.

use anyhow::Result;
use serde::Serialize;

use super::Source;

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Some of them waited.
    some: Waited,
    /// All of them did.
    full: Waited,
}

/// Shares in percent of the last seconds, and microseconds in all.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Waited {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

pub fn pressure(tree: &Source, file: &str) -> Result<Option<Pressure>> {
    Ok(tree.read(file)?.map(|text| parse(&text)))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn parse(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let waited = match words.next() {
            Some("some") => &mut pressure.some,
            Some("full") => &mut pressure.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let share = || value.parse::<f64>().ok().filter(|share| share.is_finite()).unwrap_or_default();
            match key {
                "avg10" => waited.avg10 = share(),
                "avg60" => waited.avg60 = share(),
                "avg300" => waited.avg300 = share(),
                "total" => waited.total = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    pressure
}
