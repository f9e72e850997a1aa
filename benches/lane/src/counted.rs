//! What is counted: system calls and processes of `run`, and the smallest limit of memory under which it works.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::bench::Bench;
use crate::layout;
use crate::measure::End;
use crate::report;
use crate::runtime::Runtime;

pub fn calls(bench: &mut Bench) -> Result<()> {
    if Command::new("strace").arg("--version").output().is_err() {
        println!("\ncalls: this machine has no strace");
        return Ok(());
    }
    let bundle = bench.bundles.make("run", &["true"], true, |_| {})?;
    println!("\ncalls, {}: run with Docker's profile, by strace", bench.layout);
    for runtime in bench.runtimes.clone() {
        let trace = bench.dir.join("trace");
        let calls = bench.calls(&runtime, true)?;
        let command = calls.run(&bundle, &["/bin/program", "true"]);
        let traced = Command::new("strace").args(["-f", "-o"]).arg(&trace).args(&command).output()?;
        let said = String::from_utf8_lossy(&traced.stderr);
        ensure!(traced.status.success(), "strace {}: {said}", command.join(" "));
        let counted = Counted::of(&fs::read_to_string(&trace).context("the trace")?);
        bench.count("system calls", &runtime.name, counted.calls as f64);
        bench.count("threads and processes", &runtime.name, counted.processes as f64);
        bench.count("programs begun", &runtime.name, counted.programs as f64);
    }
    ["system calls", "threads and processes", "programs begun"].iter().for_each(|what| report::counts(bench, what));
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Counted {
    calls: usize,
    processes: usize,
    programs: usize,
}

impl Counted {
    /// A line is a call, unless it tells of a signal, of an end, or of the rest of a call that others interrupted.
    fn of(trace: &str) -> Self {
        let lines = trace.lines().filter_map(|line| line.split_once(char::is_whitespace));
        let lines: Vec<(&str, &str)> = lines.map(|(pid, rest)| (pid, rest.trim_start())).collect();
        let is_call = |rest: &str| !["<...", "---", "+++"].iter().any(|other| rest.starts_with(other));
        let begins = |rest: &str| rest.starts_with("execve") && !rest.contains(") = -1");
        Self {
            calls: lines.iter().filter(|(_, rest)| is_call(rest)).count(),
            processes: lines.iter().map(|(pid, _)| pid).collect::<BTreeSet<_>>().len(),
            programs: lines.iter().filter(|(_, rest)| begins(rest)).count(),
        }
    }
}

/// In between, the steps of the search.
const STEP_KIB: u64 = 64;
const MOST_KIB: u64 = 64 * 1024;
const TRIES: usize = 3;

pub fn memory(bench: &mut Bench) -> Result<()> {
    if !layout::has_memory(&bench.cgroups) {
        println!("\nmemory, {}: no controller of memory here", bench.layout);
        return Ok(());
    }
    println!("\nmemory, {}: smallest limit with which run succeeds, {TRIES} of {TRIES}", bench.layout);
    for profiled in [true, false] {
        let what = if profiled { "KiB with Docker's profile" } else { "KiB without" };
        for runtime in bench.runtimes.clone().iter().filter(|runtime| !runtime.is_floor()) {
            let smallest = smallest(|kib| works_with(bench, runtime, profiled, kib))?;
            bench.count(what, &runtime.name, smallest.map_or(f64::NAN, |kib| kib as f64));
        }
        report::counts(bench, what);
    }
    Ok(())
}

/// By doubling, then by halves; `None` if even the largest is too small.
fn smallest(mut works: impl FnMut(u64) -> Result<bool>) -> Result<Option<u64>> {
    let (mut fails, mut succeeds) = (0, STEP_KIB);
    while !works(succeeds)? {
        (fails, succeeds) = (succeeds, succeeds * 2);
        if succeeds > MOST_KIB {
            return Ok(None);
        }
    }
    while succeeds - fails > STEP_KIB {
        let middle = (fails + succeeds) / 2 / STEP_KIB * STEP_KIB;
        if works(middle)? { succeeds = middle } else { fails = middle }
    }
    Ok(Some(succeeds))
}

fn works_with(bench: &Bench, runtime: &Runtime, profiled: bool, kib: u64) -> Result<bool> {
    let limit = json!({"limit": kib * 1024});
    let bundle = bench.bundles.make("memory", &["true"], profiled, |config| {
        config["linux"]["resources"]["memory"] = limit;
    })?;
    let calls = bench.calls(runtime, profiled)?;
    for _ in 0..TRIES {
        let command = calls.run(&bundle, &["/bin/program", "true"]);
        if bench.stopwatch.watch(&command, Duration::from_secs(10))?.end != End::Well {
            // what it left must not be in the way of the next
            bench.stopwatch.watch(&calls.delete_force(), Duration::from_secs(10))?;
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_strace() {
        let trace = "10 execve(\"/a\", [\"/a\"], 0x7 /* 3 vars */) = 0\n10 clone3({flags=0} <unfinished ...>\n\
            11  read(3 <unfinished ...>\n10 <... clone3 resumed>) = 11\n11 <... read resumed>) = 1\n\
            11 execve(\"/b\", [], 0x7) = -1 ENOENT (No such file)\n11 exit_group(0) = ?\n11 +++ exited with 0 +++\n\
            10 --- SIGCHLD {si_signo=SIGCHLD} ---\n";
        assert_eq!(Counted::of(trace), Counted { calls: 5, processes: 2, programs: 1 });
    }

    #[test]
    fn the_smallest_is_found() {
        for (needed, want) in [(1, Some(64)), (64, Some(64)), (65, Some(128)), (700, Some(704)), (100_000, None)] {
            assert_eq!(smallest(|kib| Ok(kib >= needed)).unwrap(), want, "{needed}");
        }
    }
}
