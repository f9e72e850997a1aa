//! The commands that managers call most: run whole, and create, start, state, exec, kill, delete one by one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bench::Bench;
use crate::measure::{Pace, Sample, in_turns};
use crate::patience::eventually_within;
use crate::report;
use crate::runtime::Calls;

/// The container's program in each bundle, as it is inside.
const PROGRAM: &str = "/bin/program";
const PHASES: [&str; 6] = ["create", "start", "state", "exec", "kill", "delete"];

pub fn run(bench: &mut Bench, wanted: &[&str]) -> Result<()> {
    for (scenario, profiled) in [("run", true), ("run-plain", false)] {
        if !wanted.contains(&scenario) {
            continue;
        }
        let bundle = bench.bundles.make(scenario, &["true"], profiled, |_| {})?;
        for pace in bench.paces.clone() {
            let mut samples = vec![Vec::new(); bench.runtimes.len()];
            in_turns(bench.rounds, &bench.runtimes, |at, runtime| {
                pace.wait();
                let calls = bench.calls(runtime, profiled)?;
                samples[at].push(bench.run(&calls, &calls.run(&bundle, &[PROGRAM, "true"]))?);
                Ok(())
            })?;
            let names = bench.names();
            bench.record(pace, scenario, &names, samples);
            report::scenario(bench, pace, scenario);
        }
    }
    Ok(())
}

pub fn phases(bench: &mut Bench, wanted: &[&str]) -> Result<()> {
    if !PHASES.iter().any(|phase| wanted.contains(phase)) {
        return Ok(());
    }
    let bundle = bench.bundles.make("pause", &["pause"], true, |_| {})?;
    // the least that a program can take stands beside them
    let mut names = bench.names();
    names.push("hello".into());
    let hello = [bench.program("hello")];
    for pace in bench.paces.clone() {
        let mut all: Vec<Vec<Vec<Sample>>> = vec![vec![Vec::new(); names.len()]; PHASES.len()];
        let turns: Vec<_> = bench.runtimes.iter().map(Some).chain([None]).collect();
        in_turns(bench.rounds, &turns, |at, runtime| {
            let samples = match runtime {
                Some(runtime) => {
                    let calls = bench.calls(runtime, true)?;
                    one_life(bench, &calls, &bundle, pace)?
                }
                None => {
                    pace.wait();
                    [bench.stopwatch.time(&hello)?; PHASES.len()]
                }
            };
            for (phase, sample) in samples.into_iter().enumerate() {
                // the floor has nothing to look up
                if !(PHASES[phase] == "state" && runtime.is_some_and(|runtime| runtime.is_floor())) {
                    all[phase][at].push(sample);
                }
            }
            Ok(())
        })?;
        for (phase, samples) in PHASES.into_iter().zip(all).filter(|(phase, _)| wanted.contains(phase)) {
            bench.record(pace, phase, &names, samples);
            report::scenario(bench, pace, phase);
        }
    }
    Ok(())
}

fn one_life(bench: &Bench, calls: &Calls, bundle: &std::path::Path, pace: Pace) -> Result<[Sample; PHASES.len()]> {
    let time = |command: Vec<String>| {
        pace.wait();
        bench.stopwatch.time(&command)
    };
    let mut create = time(calls.create(bundle, &[PROGRAM, "pause"]))?;
    let pid = calls.pid()?;
    create.cpu += cpu_of(pid)?;
    let start = time(calls.simple("start"))?;
    let state = if calls.runtime.is_floor() { Sample::default() } else { time(calls.simple("state"))? };
    let exec = time(calls.exec(&[PROGRAM, "true"]))?;
    let kill = time(calls.kill())?;
    let gone = || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    eventually_within(Duration::from_secs(10), gone).context("the container lives on after kill")?;
    let delete = time(calls.simple("delete"))?;
    let _ = fs::remove_file(calls.pid_file());
    Ok([create, start, state, exec, kill, delete])
}

/// What init has used so far, once it sleeps: nobody has waited for it, so it is in no sum of the command.
fn cpu_of(pid: i32) -> Result<f64> {
    let asleep = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.starts_with('S').then_some(())
    };
    eventually_within(Duration::from_secs(5), asleep).context("init does not wait for start")?;
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("init's threads")? {
        let schedstat = fs::read_to_string(thread?.path().join("schedstat")).context("init's time")?;
        let first = schedstat.split(' ').next().unwrap_or_default();
        nanoseconds += first.parse::<f64>().with_context(|| format!("schedstat: {schedstat}"))?;
    }
    Ok(nanoseconds / 1e6)
}
