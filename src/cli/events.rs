//! `rrun events`: what a container uses, and when it runs out of memory, one JSON object a line.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Arg;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::{Call, Verb, id, print, switch, value};
use crate::cgroup::Stats;
use crate::error::Doing;
use crate::lifecycle::{self, Event, Events};
use crate::log;

pub const VERB: Verb = Verb {
    stderr: log::Stderr::ErrorOnly,
    ..Verb::new("events", "Show what a container uses, until it ends, and when it runs out of memory", args, run)
};

const USUAL: Duration = Duration::from_secs(5);

fn args() -> Vec<Arg> {
    vec![
        value("interval", "DURATION", "Time between stats, such as 500ms or 1m30s [default: 5s]"),
        switch("stats", "Show stats once, now"),
        id(),
    ]
}

/// A line. Of an event without data the key is left out.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Stats>,
}

fn run(call: &Call) -> Result<u8> {
    let (store, id) = (call.store()?, call.id());
    let interval = call.text("interval").map_or(Ok(USUAL), |text| interval(&text)).context("--interval")?;
    let line = |event: &Event| -> Result<String> {
        let (kind, data) = match event {
            Event::Stats(stats) => ("stats", Some(&**stats)),
            Event::OutOfMemory => ("oom", None),
        };
        Ok(serde_json::to_string(&Line { kind, id: &id, data })? + "\n")
    };
    if call.is_on("stats") {
        print(&line(&Event::Stats(Box::new(lifecycle::stats(&store, &id)?)))?)?;
        return Ok(0);
    }
    let (mut events, stdout) = (Events::watch(&store, &id, interval)?, std::io::stdout());
    while let Some(event) = events.next(stdout.as_fd())? {
        if !tell(line(&event)?.as_bytes(), stdout.as_fd(), &events)? {
            break;
        }
    }
    Ok(0)
}

/// What a pipe takes without blocking when poll(2) says that it takes something: pipe(7).
const AT_ONCE: usize = libc::PIPE_BUF;
/// For a reader to go on reading once the container has ended: milliseconds.
const PATIENCE: u16 = 5_000;

/// False when nobody reads any more. One who keeps the pipe open without reading is waited for only as long as the
/// container lives.
fn tell(line: &[u8], stdout: BorrowedFd, events: &Events) -> Result<bool> {
    for mut part in line.chunks(AT_ONCE) {
        while !part.is_empty() {
            if events.has_ended_before_writable(stdout)? && !is_writable(stdout)? {
                bail!("stdout: its reader has stopped to read, and the container has ended");
            }
            match nix::unistd::write(stdout, part) {
                Ok(length) => part = &part[length..],
                Err(Errno::EPIPE) => return Ok(false),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(errno) => Err(errno).doing("write", "stdout")?,
            }
        }
    }
    Ok(true)
}

fn is_writable(stdout: BorrowedFd) -> Result<bool> {
    Ok(poll(&mut [PollFd::new(stdout, PollFlags::POLLOUT)], PollTimeout::from(PATIENCE)).doing("poll", "stdout")? > 0)
}

fn interval(text: &str) -> Result<Duration> {
    match nanoseconds(text) {
        None => bail!("{text} is not a duration such as 5s, 100ms or 1m30s"),
        Some(time) if time <= 0 => bail!("duration interval must be greater than 0, not {text}"),
        Some(time) => Ok(Duration::from_nanos(time as u64)),
    }
}

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000), // the Greek letter, beside the sign
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// As callers' Go writes and reads a duration: numbers with their units behind each other, or a bare 0.
fn nanoseconds(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    match rest {
        "0" => return Some(0),
        "" => return None,
        _ => {}
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let number = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let (number, behind) = rest.split_at(rest.len() - number.len());
        let unit = behind.split(|c: char| c.is_ascii_digit() || c == '.').next()?;
        let (_, length) = UNITS.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(of_units(number, *length)?)?;
        rest = &behind[unit.len()..];
    }
    Some(sign * total)
}

/// `1.5` of a unit.
fn of_units(number: &str, unit: u64) -> Option<i64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
    let part = if part.is_empty() { 0. } else { format!("0.{part}").parse::<f64>().ok()? * unit as f64 };
    whole.checked_mul(unit as i64)?.checked_add(part as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("5s", Some(5_000_000_000)),
            ("100ms", Some(100_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("1h2m3.5s", Some(3_723_500_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("2us", Some(2_000)),
            ("2µs", Some(2_000)),
            ("2μs", Some(2_000)),
            ("7ns", Some(7)),
            ("+1s", Some(1_000_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("+", None),
            ("-", None),
            ("5", None),
            ("s", None),
            (".s", None),
            ("1..5s", None),
            ("1 s", None),
            ("1s ", None),
            ("1d", None),
            ("1S", None),
            ("1e3s", None),
            ("5s3", None),
            ("2562047h", Some(9_223_369_200_000_000_000)),
            ("2562048h", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(nanoseconds(text), want, "{text:?}");
        }
    }

    #[test]
    fn an_interval_is_some_time() {
        for (text, says) in [("0s", "must be greater than 0"), ("-5s", "must be greater than 0"), ("5", "is not a")] {
            assert!(interval(text).unwrap_err().to_string().contains(says), "{text}");
        }
        assert_eq!(interval("1ms").unwrap(), Duration::from_millis(1));
    }
}
