//! `list` and `state` among more and more containers.

use anyhow::Result;

use crate::bench::Bench;
use crate::measure::{Pace, Sample, in_turns};
use crate::report;

const MOST_ROUNDS: usize = 10;

pub fn measure(bench: &mut Bench) -> Result<()> {
    let measured = grow(bench);
    // also when it was interrupted; what still stays, the end of the bench takes away
    for runtime in bench.runtimes.iter().filter(|runtime| !runtime.is_floor()) {
        for number in 0..bench.sizes.iter().copied().max().unwrap_or(0) {
            let calls = bench.calls_of(runtime, false, &format!("-list-{number}"))?;
            if calls.root.join(&calls.id).exists() && bench.stopwatch.time(&calls.delete_force()).is_err() {
                break;
            }
        }
    }
    measured
}

fn grow(bench: &mut Bench) -> Result<()> {
    // a network namespace for each would be most of the cost, and is none of what is measured
    let bundle = bench.bundles.make("list", &["pause"], false, |config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
    })?;
    let runtimes: Vec<_> = bench.runtimes.iter().filter(|runtime| !runtime.is_floor()).cloned().collect();
    let names: Vec<_> = runtimes.iter().map(|runtime| runtime.name.clone()).collect();
    let mut made = 0;
    for size in bench.sizes.clone() {
        for runtime in &runtimes {
            for number in made..size {
                let calls = bench.calls_of(runtime, false, &format!("-list-{number}"))?;
                bench.stopwatch.time(&calls.run_detached(&bundle))?;
            }
        }
        made = size;
        let rounds = bench.rounds.min(MOST_ROUNDS);
        let mut samples: [Vec<Vec<Sample>>; 2] = [vec![Vec::new(); runtimes.len()], vec![Vec::new(); runtimes.len()]];
        in_turns(rounds, &runtimes, |at, runtime| {
            let calls = bench.calls_of(runtime, false, "-list-0")?;
            samples[0][at].push(bench.stopwatch.time(&calls.list())?);
            samples[1][at].push(bench.stopwatch.time(&calls.simple("state"))?);
            Ok(())
        })?;
        for (verb, samples) in ["list", "state-among"].into_iter().zip(samples) {
            let scenario = format!("{verb}-{size}");
            bench.record(Pace::Hot, &scenario, &names, samples);
            report::scenario(bench, Pace::Hot, &scenario);
        }
    }
    Ok(())
}
