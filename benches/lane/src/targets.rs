//! What rrun wants to reach, beside what was measured. CPU time decides, but where waiting is the matter.

use serde_json::{Value, json};

use crate::bench::{Bench, Measured};
use crate::measure::{Pace, Spread};
use crate::runtime::{Kind, Runtime};

#[derive(Clone, Copy)]
enum By {
    Cpu,
    Wall,
    Rss,
    /// Containers in a time: the inverse of the wall time of one.
    Rate,
}

/// rrun's share, at most (at least, of a rate).
struct Target {
    what: &'static str,
    scenario: &'static str,
    pace: Pace,
    by: By,
    /// crun and runc as Debian 12 has them, then crun 1.29 and runc 1.5, or later ones.
    old: [Option<f64>; 2],
    new: [Option<f64>; 2],
    /// Of the floor, or of a static program that prints a line.
    floor: Option<(&'static str, f64)>,
}

const fn target(
    what: &'static str,
    scenario: &'static str,
    old: [f64; 2],
    new: [f64; 2],
    floor: Option<(&'static str, f64)>,
) -> Target {
    let [crun, runc] = old;
    let [newer_crun, newer_runc] = new;
    let (old, new) = ([Some(crun), Some(runc)], [Some(newer_crun), Some(newer_runc)]);
    Target { what, scenario, pace: Pace::Hot, by: By::Cpu, old, new, floor }
}

const HELLO: &str = "hello";
const FLOOR: &str = "floor";

const TARGETS: [Target; 13] = [
    target("run", "run", [0.12, 0.09], [0.30, 0.08], Some((FLOOR, 1.25))),
    Target {
        by: By::Wall,
        old: [None; 2],
        new: [None; 2],
        ..target("run, wall", "run", [0.0; 2], [0.0; 2], Some((FLOOR, 1.35)))
    },
    Target {
        by: By::Wall,
        pace: Pace::Spaced,
        ..target("run, spaced, wall", "run", [0.25, 0.10], [0.25, 0.06], Some((FLOOR, 1.35)))
    },
    target("create", "create", [0.15, 0.15], [0.30, 0.10], Some((FLOOR, 1.35))),
    target("start", "start", [0.12, 0.06], [0.10, 0.06], Some((HELLO, 2.0))),
    target("state", "state", [0.12, 0.06], [0.10, 0.06], Some((HELLO, 2.0))),
    target("kill", "kill", [0.12, 0.06], [0.10, 0.06], Some((HELLO, 2.0))),
    target("exec", "exec", [0.20, 0.05], [0.20, 0.04], Some((FLOOR, 1.3))),
    target("delete", "delete", [0.20, 0.15], [0.20, 0.15], Some((FLOOR, 1.5))),
    Target { by: By::Rss, ..target("run, peak of memory", "run", [0.35, 0.15], [0.35, 0.12], None) },
    Target { by: By::Rate, ..target("8 at once, rate", "parallel-8", [6.0, 8.0], [3.0, 8.0], Some((FLOOR, 0.8))) },
    target("list of 300", "list-300", [0.3, 0.02], [0.3, 0.02], None),
    target("list of 1000", "list-1000", [0.3, 0.02], [0.3, 0.02], None),
];

/// Those on absolute numbers: of what was counted, or of the binary.
const MOST_BYTES: f64 = 1.6e6;
const MOST_MEMORY_KIB: f64 = 256.0;
const MOST_RSS_KIB: f64 = 1.3 * 1024.0;
const MOST_CALLS: f64 = 320.0;
const CALLS: &str = "system calls";
/// crun 1.8, runc 1.1; the floor.
const CALLS_SHARES: [(&str, f64); 3] = [("crun", 0.4), ("runc", 0.1), (FLOOR, 1.35)];

/// One target and how far it is.
pub struct Reached {
    layout: &'static str,
    what: String,
    /// Whom it is a share of, if it is one.
    of: String,
    is: f64,
    wanted: f64,
    met: bool,
}

impl Reached {
    pub fn json(&self) -> Value {
        let Self { layout, what, of, is, wanted, met } = self;
        json!({"layout": layout, "target": what, "of": of, "is": is, "wanted": wanted, "met": met})
    }
}

/// Those of which something was measured.
pub fn reached(bench: &Bench) -> Vec<Reached> {
    let mut all = Vec::new();
    let layout = bench.layout;
    let mut add = |what: &str, of: &str, is: f64, wanted: f64, met: bool| {
        all.push(Reached { layout, what: what.into(), of: of.into(), is, wanted, met });
    };
    let Some(rrun) = bench.runtimes.first() else { return all };
    for target in &TARGETS {
        let Some(own) = row(bench, target, &rrun.name) else { continue };
        for (who, want) in wanted(bench, target) {
            if let Some(other) = row(bench, target, &who) {
                let is = target.share(own, other);
                let met = if matches!(target.by, By::Rate) { is >= want } else { is <= want };
                add(target.what, &who, is, want, met);
            }
        }
    }
    let bytes = std::fs::metadata(&rrun.binary).map_or(f64::NAN, |data| data.len() as f64);
    add("bytes of the binary", "", bytes, MOST_BYTES, bytes <= MOST_BYTES);
    let hot_run = |row: &&Measured| (row.who.as_str(), row.scenario.as_str(), row.pace) == ("rrun", "run", Pace::Hot);
    if let Some(row) = bench.results.iter().find(hot_run) {
        let kib = row.spread(|sample| sample.rss_kib).median;
        add("run, KiB at most", "", kib, MOST_RSS_KIB, kib <= MOST_RSS_KIB);
    }
    let count = |what: &str, who: &str| bench.counts.iter().find(|c| c.what == what && c.who == who).map(|c| c.number);
    for what in ["KiB with Docker's profile", "KiB without"] {
        if let Some(kib) = count(what, "rrun") {
            add(&format!("limit of memory, {what}"), "", kib, MOST_MEMORY_KIB, kib <= MOST_MEMORY_KIB);
        }
    }
    let Some(calls) = count(CALLS, "rrun") else { return all };
    add("system calls in run", "", calls, MOST_CALLS, calls <= MOST_CALLS);
    for runtime in &bench.runtimes {
        let Some((_, want)) = CALLS_SHARES.iter().find(|(name, _)| *name == family(runtime)) else { continue };
        if let Some(theirs) = count(CALLS, &runtime.name) {
            let is = calls / theirs;
            add("system calls in run", &runtime.name, is, *want, is <= *want);
        }
    }
    all
}

pub fn print(bench: &Bench, all: &[Reached]) {
    println!("\ntargets, {} (rrun's share of CPU time where nothing else is said; median of the rounds)", bench.layout);
    for Reached { what, of, is, wanted, met, .. } in all {
        let of = if of.is_empty() { String::new() } else { format!("of {of}") };
        let is = if *is > 100.0 { format!("{is:.0}") } else { format!("{is:.3}") };
        println!("  {:<7} {what:<46} {of:<16} {is:>9}   wanted {wanted}", if *met { "met" } else { "missed" });
    }
}

fn family(runtime: &Runtime) -> &str {
    match &runtime.kind {
        Kind::Floor => FLOOR,
        Kind::Rrun => "rrun",
        Kind::Peer(name, _) => name,
    }
}

fn row<'a>(bench: &'a Bench, target: &Target, who: &str) -> Option<&'a Measured> {
    let fits = |row: &&Measured| row.scenario == target.scenario && row.pace == target.pace && row.who == who;
    bench.results.iter().find(fits)
}

fn wanted(bench: &Bench, target: &Target) -> Vec<(String, f64)> {
    let of_peers = bench.runtimes.iter().filter_map(|runtime| match &runtime.kind {
        Kind::Peer(name, version) => {
            let at = ["crun", "runc"].iter().position(|known| known == name)?;
            let shares = if is_new(name, version) { target.new } else { target.old };
            Some((runtime.name.clone(), shares[at]?))
        }
        _ => None,
    });
    of_peers.chain(target.floor.map(|(who, share)| (who.to_string(), share))).collect()
}

/// crun since 1.20 and runc since 1.3 have the same gaits as 1.29 and 1.5.
fn is_new(name: &str, version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= if name == "crun" { (1, 20) } else { (1, 3) }
}

impl Target {
    fn share(&self, own: &Measured, other: &Measured) -> f64 {
        match self.by {
            By::Cpu => own.cpu_ratio(other).median,
            By::Wall => own.wall_ratio(other).median,
            By::Rate => 1.0 / own.wall_ratio(other).median,
            By::Rss => {
                let rss = |row: &Measured| Spread::of(row.samples.iter().map(|sample| sample.rss_kib)).median;
                rss(own) / rss(other)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_column() {
        for (name, version, want) in [
            ("crun", "1.8.1", false),
            ("crun", "1.29.1", true),
            ("runc", "1.1.5", false),
            ("runc", "1.5.0-rc.1", true),
            ("runc", "2.0", true),
        ] {
            assert_eq!(is_new(name, version), want, "{name} {version}");
        }
    }
}
