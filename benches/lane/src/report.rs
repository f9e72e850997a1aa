//! What is printed and written.

use serde_json::{Value, json};

use crate::bench::{Bench, Count, Measured};
use crate::measure::{Pace, Sample, Spread};

type Number = fn(&Sample) -> f64;
const CPU: Number = |sample| sample.cpu;
const WALL: Number = |sample| sample.wall;

impl Measured {
    pub fn spread(&self, number: Number) -> Spread {
        Spread::of(self.samples.iter().map(number))
    }

    /// Of `self` to `other`, round by round.
    fn ratio(&self, other: &Measured, number: Number) -> Spread {
        Spread::of_ratios(self.samples.iter().map(number), other.samples.iter().map(number))
    }

    pub fn cpu_ratio(&self, other: &Measured) -> Spread {
        self.ratio(other, CPU)
    }

    pub fn wall_ratio(&self, other: &Measured) -> Spread {
        self.ratio(other, WALL)
    }

    pub fn json(&self) -> Value {
        let spread = |spread: Spread| json!({"p10": spread.p10, "median": spread.median, "p90": spread.p90});
        json!({
            "layout": self.layout,
            "pace": self.pace.name(),
            "scenario": self.scenario,
            "who": self.who,
            "rounds": self.samples.len(),
            "cpu_ms": spread(self.spread(CPU)),
            "wall_ms": spread(self.spread(WALL)),
            "rss_kib": spread(self.spread(|sample| sample.rss_kib)),
            "faults": spread(self.spread(|sample| sample.faults)),
            "rss_kib_of_each": self.samples.iter().map(|sample| sample.rss_kib).collect::<Vec<_>>(),
            "cpu_ms_of_each": self.samples.iter().map(CPU).collect::<Vec<_>>(),
            "wall_ms_of_each": self.samples.iter().map(WALL).collect::<Vec<_>>(),
        })
    }
}

impl Count {
    pub fn json(&self) -> Value {
        json!({"layout": self.layout, "what": self.what, "who": self.who, "number": self.number})
    }
}

/// Numbers of one kind.
pub fn counts(bench: &Bench, what: &str) {
    let row = |count: &Count| format!("{} {}", count.who, count.number);
    let rows: Vec<_> = bench.counts.iter().filter(|count| count.what == what).map(row).collect();
    println!("  {what}: {}", rows.join(", "));
}

/// One scenario: a row for each who took part, and rrun's share of it.
pub fn scenario(bench: &Bench, pace: Pace, scenario: &str) {
    let rows: Vec<&Measured> = bench
        .results
        .iter()
        .filter(|row| row.layout == bench.layout && row.pace == pace && row.scenario == scenario)
        .collect();
    let Some(rrun) = rows.iter().find(|row| row.who == "rrun") else { return };
    let rounds = rrun.samples.len();
    println!("\n{scenario}, {}, {}, {rounds} rounds", bench.layout, pace.name());
    println!(
        "  {:<16} {:>22}   {:>24}   {:>6} {:>6}   {:>20}   {:>20}",
        "", "CPU ms (p10-p90)", "wall ms (p10-p90)", "KiB", "faults", "rrun's share, CPU", "wall"
    );
    for row in &rows {
        let range = |s: Spread, digits: usize| format!("{:.digits$} ({:.digits$}-{:.digits$})", s.median, s.p10, s.p90);
        let share = |spread: Spread| if row.who == "rrun" { String::new() } else { range(spread, 3) };
        println!(
            "  {:<16} {:>22}   {:>24}   {:>6} {:>6}   {:>20}   {:>20}",
            row.who,
            range(row.spread(CPU), 2),
            range(row.spread(WALL), 2),
            whole(row.spread(|sample| sample.rss_kib).median),
            whole(row.spread(|sample| sample.faults).median),
            share(rrun.cpu_ratio(row)),
            share(rrun.wall_ratio(row)),
        );
        let hung = row.samples.iter().filter(|sample| sample.is_none()).count();
        if hung > 0 {
            println!("  {:<16} hung in {hung} of {} rounds", "", row.samples.len());
        }
    }
}

fn whole(number: f64) -> String {
    if number.is_nan() { "-".into() } else { format!("{number:.0}") }
}
