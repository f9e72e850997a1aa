//! What is asked for by the environment, the machine it runs on, and one layout from its beginning to its end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::bundle::Bundles;
use crate::layout::{self, Layout};
use crate::leftovers::{self, Leftovers};
use crate::measure::{Pace, Stopwatch};
use crate::runtime::{Kind, Runtime};
use crate::{check, counted, growth, lifecycle, list, parallel, targets};

const SCENARIOS: [&str; 14] = [
    "check",
    "run",
    "run-plain",
    "create",
    "start",
    "state",
    "exec",
    "kill",
    "delete",
    "calls",
    "memory",
    "parallel",
    "growth",
    "list",
];
type Measure = fn(&mut Bench) -> Result<()>;

/// Those that are families of their own.
const MANY: [(&str, Measure); 5] = [
    ("calls", counted::calls),
    ("memory", counted::memory),
    ("parallel", parallel::measure),
    ("growth", growth::measure),
    ("list", list::measure),
];
/// Of directories and of containers.
const PREFIX: &str = "rrun-bench-";

pub struct Setting {
    scenarios: Vec<&'static str>,
    rounds: usize,
    pub layouts: Vec<Layout>,
    paces: Vec<Pace>,
    sizes: Vec<usize>,
}

fn words(variable: &str, default: &str) -> Vec<String> {
    let given = std::env::var(variable).ok().filter(|value| !value.trim().is_empty());
    given.as_deref().unwrap_or(default).split([',', ' ']).filter(|word| !word.is_empty()).map(String::from).collect()
}

impl Setting {
    pub fn from_environment() -> Result<Self> {
        let mut scenarios = Vec::new();
        for word in words("SCENARIOS", &SCENARIOS.join(",")) {
            let known = SCENARIOS.into_iter().find(|known| *known == word);
            scenarios.push(known.with_context(|| format!("SCENARIOS: {word} is none of {}", SCENARIOS.join(", ")))?);
        }
        let rounds: usize = words("ROUNDS", "40").concat().parse().context("ROUNDS: want a number")?;
        ensure!(rounds > 0, "ROUNDS: want at least 1");
        let layouts = words("LAYOUTS", "v1,v2").iter().map(|name| Layout::named(name)).collect::<Result<_>>()?;
        let pace = |word: &String| match word.as_str() {
            "hot" => Ok(Pace::Hot),
            "spaced" => Ok(Pace::Spaced),
            _ => Err(anyhow::anyhow!("PACES: {word} is none of hot, spaced")),
        };
        let paces = words("PACES", "hot,spaced").iter().map(pace).collect::<Result<_>>()?;
        let number = |word: &String| word.parse().with_context(|| format!("SIZES: {word} is no number"));
        let mut sizes: Vec<usize> = words("SIZES", "10,100,300,1000").iter().map(number).collect::<Result<_>>()?;
        sizes.sort_unstable();
        Ok(Self { scenarios, rounds, layouts, paces, sizes })
    }

    pub fn measure(&self, layout: Layout, all: &[Runtime], programs: &Path) -> Result<Vec<Value>> {
        let workplace = Workplace::new()?;
        let dir = workplace.dir.clone();
        let mut bench = Bench {
            layout: layout.name(),
            rounds: self.rounds,
            paces: self.paces.clone(),
            sizes: self.sizes.clone(),
            runtimes: all.to_vec(),
            programs: programs.into(),
            stopwatch: Stopwatch { program: programs.join("stopwatch"), errors: dir.join("errors") },
            bundles: Bundles::new(&dir, &programs.join("program"))?,
            cgroups: layout::cgroups()?,
            mark: workplace.mark.clone(),
            dir,
            results: Vec::new(),
            counts: Vec::new(),
        };
        println!("\n== {}: cgroups below {}", layout.name(), bench.cgroups);
        leave_out_who_cannot(&mut bench)?;
        let wanted = &self.scenarios[..];
        if wanted.contains(&"check") {
            check::compare(&bench)?;
        }
        lifecycle::run(&mut bench, wanted)?;
        lifecycle::phases(&mut bench, wanted)?;
        for (scenario, measure) in MANY {
            if wanted.contains(&scenario) {
                measure(&mut bench)?;
            }
        }
        let reached = targets::reached(&bench);
        targets::print(&bench, &reached);
        let rows = bench.results.iter().map(|row| row.json());
        let counts = bench.counts.iter().map(|count| count.json());
        Ok(rows.chain(counts).chain(reached.iter().map(|target| target.json())).collect())
    }
}

/// A peer that cannot make the plainest container here takes no part. rrun and the floor must.
fn leave_out_who_cannot(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundles.make("run", &["true"], true, |_| {})?;
    let mut kept = Vec::new();
    for runtime in &bench.runtimes {
        let calls = bench.calls(runtime, true)?;
        let tried = bench.stopwatch.time(&calls.run(&bundle, &["/bin/program", "true"]));
        match (&runtime.kind, tried) {
            (_, Ok(_)) => kept.push(runtime.clone()),
            (Kind::Peer(..), Err(error)) => println!("{} takes no part: {error:#}", runtime.name),
            (_, Err(error)) => return Err(error),
        }
    }
    bench.runtimes = kept;
    Ok(())
}

/// Everything that one layout makes bears its mark, and goes with it.
struct Workplace {
    dir: PathBuf,
    mark: String,
}

fn memory_directory() -> PathBuf {
    // no disk is measured
    Some(PathBuf::from("/dev/shm")).filter(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir)
}

impl Workplace {
    fn new() -> Result<Self> {
        let mark = format!("{PREFIX}{}", std::process::id());
        let dir = memory_directory().join(&mark);
        fs::create_dir(&dir).with_context(|| format!("mkdir {}", dir.display()))?;
        Ok(Self { dir, mark })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        Leftovers::remove(&self.mark, &self.dir);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Takes away what a bench left that was killed.
pub fn sweep() {
    for entry in fs::read_dir(memory_directory()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX) else { continue };
        let is_bench = || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == "lane");
        // one that nobody has waited for yet has ended too
        let alive = pid.parse().is_ok_and(leftovers::is_alive) && is_bench();
        if !alive {
            Leftovers::remove(&name, &entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

pub fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

pub fn machine(runtimes: &[Runtime]) -> Value {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default().trim().to_string();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, m)| m);
    let binary = |runtime: &Runtime| {
        let bytes = fs::metadata(&runtime.binary).map(|data| data.len()).unwrap_or(0);
        json!({"name": runtime.name, "path": runtime.binary, "bytes": bytes, "version": runtime.version()})
    };
    json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "processors": std::thread::available_parallelism().map(usize::from).unwrap_or(0),
        "model": model.unwrap_or("unknown"),
        "load": load(),
        "date": rrun::timestamp::seconds(std::time::SystemTime::now()),
        "runtimes": runtimes.iter().map(binary).collect::<Vec<_>>(),
    })
}

pub fn print(machine: &Value) {
    let text = |key: &str| machine[key].as_str().map(String::from).unwrap_or_else(|| machine[key].to_string());
    println!(
        "{}: Linux {}, {} processors ({}), load {}",
        text("date"),
        text("kernel"),
        text("processors"),
        text("model"),
        text("load"),
    );
    for runtime in machine["runtimes"].as_array().into_iter().flatten() {
        println!(
            "  {:<16} {:>9} bytes  {}",
            runtime["name"].as_str().unwrap_or_default(),
            runtime["bytes"],
            runtime["path"]
        );
    }
}
