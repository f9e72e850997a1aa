//! One command measured, many of them in turns, and what is said of the numbers.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// What no command of the bench takes even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longer than the kernel takes for a grace period of RCU: who waits for one shows only then.
const SPACE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Milliseconds; of CPU time those of the command and of all that it waited for.
    pub wall: f64,
    pub cpu: f64,
    pub rss_kib: f64,
    pub faults: f64,
}

/// How close commands follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Hot,
    Spaced,
}

impl Sample {
    /// Of a round that gave nothing: others' rounds keep their places beside it.
    pub const NONE: Self = Self { wall: f64::NAN, cpu: f64::NAN, rss_kib: f64::NAN, faults: f64::NAN };

    pub fn is_none(&self) -> bool {
        self.cpu.is_nan()
    }
}

impl Pace {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Spaced => "spaced",
        }
    }

    pub fn wait(self) {
        if self == Self::Spaced {
            std::thread::sleep(SPACE);
        }
    }
}

pub struct Stopwatch {
    pub program: PathBuf,
    /// Where a command's stderr goes.
    pub errors: PathBuf,
}

/// How a command ended, and what it took.
pub struct Outcome {
    pub end: End,
    pub sample: Sample,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Well,
    /// Its status, and what it said.
    Failed(String),
    /// It was killed, by its pid.
    Hung,
}

impl Stopwatch {
    pub fn watch(&self, command: &[String], deadline: Duration) -> Result<Outcome> {
        check_interrupt()?;
        let mut stopwatch = Command::new(&self.program);
        stopwatch.arg(deadline.as_millis().to_string()).arg(&self.errors).args(command);
        let output = stopwatch.output().context("the stopwatch")?;
        let line = String::from_utf8_lossy(&output.stdout);
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[status, wall, user, system, rss, faults] = &fields[..] else { bail!("the stopwatch says {line}") };
        let number = |field: &str| field.parse::<f64>().with_context(|| format!("the stopwatch says {line}"));
        let cpu = (number(user)? + number(system)?) / 1000.0;
        let sample = Sample { wall: number(wall)? / 1000.0, cpu, rss_kib: number(rss)?, faults: number(faults)? };
        let said = || std::fs::read_to_string(&self.errors).unwrap_or_default();
        let end = match status {
            "0" => End::Well,
            "hung" => End::Hung,
            status => End::Failed(format!("{status}: {}", said().trim_end())),
        };
        Ok(Outcome { end, sample })
    }

    /// Fails if the command does.
    pub fn time(&self, command: &[String]) -> Result<Sample> {
        self.time_unless_hung(command)?.with_context(|| format!("{}: hangs", command.join(" ")))
    }

    /// Fails if the command does; `None` if it hung.
    pub fn time_unless_hung(&self, command: &[String]) -> Result<Option<Sample>> {
        let outcome = self.watch(command, DEADLINE)?;
        match outcome.end {
            End::Well => Ok(Some(outcome.sample)),
            End::Hung => Ok(None),
            End::Failed(said) => {
                // a signal from the terminal reaches the command too
                check_interrupt()?;
                bail!("{}: {said}", command.join(" "))
            }
        }
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// So that what was made is taken away.
pub fn catch_interrupts() -> Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    for number in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { signal(number, SigHandler::Handler(interrupt)) }?;
    }
    Ok(())
}

pub fn check_interrupt() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Everybody once a round, in an order that rotates: what the machine does besides meets all of them alike.
pub fn in_turns<T>(rounds: usize, all: &[T], mut each: impl FnMut(usize, &T) -> Result<()>) -> Result<()> {
    for round in 0..rounds {
        for at in 0..all.len() {
            let at = (at + round) % all.len();
            each(at, &all[at])?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub p10: f64,
    pub median: f64,
    pub p90: f64,
}

impl Spread {
    pub fn of(numbers: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.filter(|number| !number.is_nan()).collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| match sorted.len() {
            0 => f64::NAN,
            many => sorted[((many - 1) as f64 * share).round() as usize],
        };
        Self { p10: at(0.1), median: at(0.5), p90: at(0.9) }
    }

    /// Of ratios, round by round.
    pub fn of_ratios(these: impl Iterator<Item = f64>, those: impl Iterator<Item = f64>) -> Self {
        Self::of(these.zip(those).filter(|(_, that)| *that > 0.0).map(|(this, that)| this / that))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        for (numbers, p10, median, p90) in [
            (vec![1.0], 1.0, 1.0, 1.0),
            (vec![3.0, 1.0, 2.0], 1.0, 2.0, 3.0),
            ((0..=10).map(f64::from).collect(), 1.0, 5.0, 9.0),
            (vec![f64::NAN, 2.0], 2.0, 2.0, 2.0),
        ] {
            assert_eq!(Spread::of(numbers.iter().copied()), Spread { p10, median, p90 }, "{numbers:?}");
        }
        let ratios = Spread::of_ratios([1.0, 2.0, 3.0].into_iter(), [2.0, 4.0, 3.0].into_iter());
        assert_eq!(ratios, Spread { p10: 0.5, median: 0.5, p90: 1.0 });
    }

    #[test]
    fn everybody_is_first_in_turn() {
        let mut order = Vec::new();
        in_turns(3, &['a', 'b', 'c'], |_, name| {
            order.push(*name);
            Ok(())
        })
        .unwrap();
        assert_eq!(order.iter().collect::<String>(), "abcbcacab");
    }
}
