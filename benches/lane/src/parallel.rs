//! How many containers a second, with more and more of them at once.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, anyhow, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::bench::Bench;
use crate::measure::{Pace, Sample, check_interrupt, in_turns};
use crate::report;
use crate::runtime::Runtime;

const AT_ONCE: [usize; 5] = [1, 2, 4, 8, 16];
const CONTAINERS: usize = 48;
const MOST_ROUNDS: usize = 5;

/// Times are of one container: all of a round divided by their number.
pub fn measure(bench: &mut Bench) -> Result<()> {
    let bundle = bench.bundles.make("run", &["true"], true, |_| {})?;
    let rounds = bench.rounds.min(MOST_ROUNDS);
    for at_once in AT_ONCE {
        let mut samples = vec![Vec::new(); bench.runtimes.len()];
        in_turns(rounds, &bench.runtimes, |at, runtime| {
            samples[at].push(all(bench, runtime, &bundle, at_once)?);
            Ok(())
        })?;
        let (scenario, names) = (format!("parallel-{at_once}"), bench.names());
        bench.record(Pace::Hot, &scenario, &names, samples);
        report::scenario(bench, Pace::Hot, &scenario);
    }
    Ok(())
}

fn all(bench: &Bench, runtime: &Runtime, bundle: &Path, at_once: usize) -> Result<Sample> {
    check_interrupt()?;
    let (cpu, since) = (cpu_of_children()?, Instant::now());
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..at_once).map(|worker| scope.spawn(move || some(bench, runtime, bundle, worker, at_once))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })?;
    let wall = since.elapsed().as_secs_f64() * 1000.0;
    let each = |all: f64| all / CONTAINERS as f64;
    let cpu = each(cpu_of_children()? - cpu);
    Ok(Sample { wall: each(wall), cpu, rss_kib: f64::NAN, faults: f64::NAN })
}

/// One worker's part, one after the other.
fn some(bench: &Bench, runtime: &Runtime, bundle: &Path, worker: usize, at_once: usize) -> Result<()> {
    let calls = bench.calls_of(runtime, true, &format!("-{worker}"))?;
    let command = calls.run(bundle, &["/bin/program", "true"]);
    for _ in (worker..CONTAINERS).step_by(at_once) {
        let mut run = Command::new(&command[0]);
        let status = run.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{}: {status}", command.join(" "));
    }
    Ok(())
}

fn cpu_of_children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok((usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1000.0)
}
