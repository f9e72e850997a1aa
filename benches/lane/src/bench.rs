//! What the scenarios of one layout share: who takes part, where, and what came out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::bundle::Bundles;
use crate::measure::{Pace, Sample, Stopwatch};
use crate::runtime::{Calls, Kind, Runtime};

pub struct Bench {
    pub layout: &'static str,
    pub rounds: usize,
    pub paces: Vec<Pace>,
    /// How many containers `list` lists.
    pub sizes: Vec<usize>,
    /// rrun first, then the floor, then peers that can run here.
    pub runtimes: Vec<Runtime>,
    pub programs: PathBuf,
    pub stopwatch: Stopwatch,
    pub bundles: Bundles,
    pub cgroups: String,
    pub dir: PathBuf,
    /// Stands in the id of each container and the name of each cgroup.
    pub mark: String,
    pub results: Vec<Measured>,
    pub counts: Vec<Count>,
}

/// What is one number and no time.
pub struct Count {
    pub layout: &'static str,
    pub what: &'static str,
    pub who: String,
    pub number: f64,
}

/// One runtime in one scenario.
pub struct Measured {
    pub layout: &'static str,
    pub pace: Pace,
    pub scenario: String,
    pub who: String,
    /// In the order of the rounds.
    pub samples: Vec<Sample>,
}

impl Bench {
    pub fn calls<'a>(&'a self, runtime: &'a Runtime, profiled: bool) -> Result<Calls<'a>> {
        self.calls_of(runtime, profiled, "")
    }

    /// On a container of its own, beside others of that runtime.
    pub fn calls_of<'a>(&'a self, runtime: &'a Runtime, profiled: bool, which: &str) -> Result<Calls<'a>> {
        let root = self.dir.join(runtime.label());
        fs::create_dir_all(&root)?;
        Ok(Calls {
            runtime,
            root,
            id: format!("{}-{}{which}", self.mark, runtime.label()),
            cgroups: &self.cgroups,
            rootfs: &self.bundles.rootfs,
            filter: profiled.then_some(&self.bundles.filter as &Path),
            // where v1 has no devices
            devices: (!self.cgroups.contains("/devices")).then_some(&self.bundles.devices as &Path),
        })
    }

    pub fn record(&mut self, pace: Pace, scenario: &str, who: &[String], samples: Vec<Vec<Sample>>) {
        let rows = who.iter().zip(samples).filter(|(_, samples)| !samples.is_empty());
        let rows = rows.map(|(who, samples)| Measured {
            layout: self.layout,
            pace,
            scenario: scenario.to_string(),
            who: who.clone(),
            samples,
        });
        self.results.extend(rows.collect::<Vec<_>>());
    }

    pub fn count(&mut self, what: &'static str, who: &str, number: f64) {
        self.counts.push(Count { layout: self.layout, what, who: who.to_string(), number });
    }

    /// One that hangs now and then is killed and cleaned up after; that round has no sample of it.
    pub fn run(&self, calls: &Calls, command: &[String]) -> Result<Sample> {
        let sample = self.stopwatch.time_unless_hung(command)?;
        if sample.is_none() {
            ensure!(matches!(calls.runtime.kind, Kind::Peer(..)), "{}: hangs", command.join(" "));
            self.stopwatch.watch(&calls.delete_force(), Duration::from_secs(20))?;
        }
        Ok(sample.unwrap_or(Sample::NONE))
    }

    pub fn names(&self) -> Vec<String> {
        self.runtimes.iter().map(|runtime| runtime.name.clone()).collect()
    }

    pub fn program(&self, name: &str) -> String {
        self.programs.join(name).to_string_lossy().into_owned()
    }
}
