//! `rrun update`: other limits for a container that lives.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Arg;
use serde_json::Value;

use super::{Call, Verb, id, value};
use crate::error::{Doing, Wording};
use crate::lifecycle;
use crate::lifecycle::given_file::{Pipes, read_whole};
use crate::plan::spec::document::MAX_BYTES;
use crate::plan::update::{Schemas, Update};

pub const VERB: Verb = Verb {
    wording: Wording::Unmatched,
    ..Verb::new("update", "Change the limits of a container that lives", args, run)
};

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A whole number.
    Number,
    /// One of disk traffic.
    Weight,
    /// A whole number that may be negative: without limit.
    Signed,
    /// With k, m, g or t behind it, by 1024; -1 is without limit.
    Bytes,
    /// CPUs or memory nodes, such as 0-3,7.
    List,
}

/// Flag, where its value stands in `linux.resources`, how it is written, help.
const FLAGS: [(&str, &str, &str, Kind, &str); 16] = [
    ("blkio-weight", "blockIO", "weight", Kind::Weight, "Share of disk traffic, 10 to 1000"),
    ("cpu-period", "cpu", "period", Kind::Number, "Length of a period of CPU time, in microseconds"),
    ("cpu-quota", "cpu", "quota", Kind::Signed, "CPU time in each period, in microseconds; -1: without limit"),
    ("cpu-burst", "cpu", "burst", Kind::Number, "CPU time that may be saved for later, in microseconds"),
    ("cpu-share", "cpu", "shares", Kind::Number, "Share of CPU time beside other containers, 2 to 262144"),
    ("cpu-rt-period", "cpu", "realtimePeriod", Kind::Number, "As --cpu-period, of real-time processes"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Signed, "As --cpu-quota, of real-time processes"),
    ("cpu-idle", "cpu", "idle", Kind::Signed, "1: run only when nobody else wants to"),
    ("cpuset-cpus", "cpu", "cpus", Kind::List, "CPUs to run on, such as 0-3,7"),
    ("cpuset-mems", "cpu", "mems", Kind::List, "Memory nodes to use"),
    ("memory", "memory", "limit", Kind::Bytes, "Limit of memory; -1: none"),
    ("memory-reservation", "memory", "reservation", Kind::Bytes, "What it may keep when memory is short"),
    ("memory-swap", "memory", "swap", Kind::Bytes, "Limit of memory and swap together; -1: none"),
    ("kernel-memory", "memory", "kernel", Kind::Bytes, "Ignored: the kernel counts it in --memory"),
    ("kernel-memory-tcp", "memory", "kernelTCP", Kind::Bytes, "Limit of buffers of TCP, on v1; -1: none"),
    ("pids-limit", "pids", "limit", Kind::Signed, "Most processes and threads; -1: without limit"),
];

fn args() -> Vec<Arg> {
    let resources =
        value("resources", "FILE", "Read linux.resources from FILE, or from stdin by -; other flags are left out");
    let mut args = vec![id(), resources.short('r')];
    args.extend(FLAGS.iter().map(|(flag, _, _, kind, help)| value(flag, kind.label(), help)));
    args.push(value("l3-cache-schema", "SCHEMA", "Share of the cache, such as L3:0=f"));
    args.push(value("mem-bw-schema", "SCHEMA", "Share of memory bandwidth, such as MB:0=20"));
    args
}

fn run(call: &Call) -> Result<u8> {
    let update = match call.value("resources") {
        Some(file) => {
            let shown = file.to_string_lossy();
            let text = read(file).with_context(|| format!("--resources {shown}"))?;
            Update::read(&text).with_context(|| format!("--resources {shown}"))?
        }
        None => by_flags(call)?,
    };
    lifecycle::update(&call.store()?, &call.id(), &update)?;
    Ok(0)
}

fn read(file: &OsStr) -> Result<Vec<u8>> {
    if file != "-" {
        return read_whole(Path::new(file), Pipes::Read);
    }
    let mut text = Vec::new();
    std::io::stdin().take(MAX_BYTES as u64 + 1).read_to_end(&mut text).doing("read", "stdin")?;
    Ok(text)
}

fn by_flags(call: &Call) -> Result<Update> {
    let mut update = Update::default();
    let (l3_cache, mem_bw) = (call.text("l3-cache-schema"), call.text("mem-bw-schema"));
    update.set_schemas(Schemas { l3_cache, mem_bw })?;
    for (flag, section, key, kind, _) in FLAGS {
        if let Some(text) = call.text(flag) {
            let value = kind.parse(&text).with_context(|| format!("--{flag}"))?;
            update.set(section, key, value);
        }
    }
    Ok(update)
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Number | Self::Weight | Self::Signed => "N",
            Self::Bytes => "BYTES",
            Self::List => "LIST",
        }
    }

    fn parse(self, text: &str) -> Result<Value> {
        Ok(match self {
            Self::Number => text.parse::<u64>().with_context(|| format!("{text} is not a whole number"))?.into(),
            Self::Weight => {
                text.parse::<u16>().with_context(|| format!("{text} is not a weight from 10 to 1000"))?.into()
            }
            Self::Signed => text.parse::<i64>().with_context(|| format!("{text} is not a whole number"))?.into(),
            Self::Bytes if text == "-1" => (-1).into(),
            Self::Bytes => match bytes(text) {
                Some(bytes) => bytes.into(),
                None => bail!("{text} is not a size such as 100m"),
            },
            Self::List => text.into(),
        })
    }
}

/// `512`, `64k`, `1.5g`, `2GiB`: what callers of old may write. By 1024 whatever the suffix.
fn bytes(text: &str) -> Option<i64> {
    let text = text.to_ascii_lowercase();
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let suffix = text[number.len()..].trim_start();
    let suffix = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(suffix);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == suffix)?;
    let unit = 1i64 << (10 * power);
    if let Ok(number) = number.parse::<i64>() {
        return number.checked_mul(unit).filter(|bytes| *bytes >= 0 && !text.starts_with('+'));
    }
    let digits = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !number.starts_with('.');
    let bytes = number.parse::<f64>().ok().filter(|_| digits)? * unit as f64;
    (bytes < i64::MAX as f64).then_some(bytes as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512b", Some(512)),
            ("64k", Some(64 << 10)),
            ("64K", Some(64 << 10)),
            ("64kb", Some(64 << 10)),
            ("64KiB", Some(64 << 10)),
            ("1.5g", Some(3 << 29)),
            ("2 T", Some(2 << 40)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("8388608t", None),
            ("99999999999.5t", None),
            ("-5", None),
            ("+5", None),
            ("-5m", None),
            ("m", None),
            ("", None),
            ("1x", None),
            ("1mm", None),
            ("1e3", None),
            ("0x10", None),
            (".5g", None),
            ("1.2.3", None),
            ("5ö", None),
        ] {
            assert_eq!(bytes(text), want, "{text}");
        }
    }

    #[test]
    fn what_is_no_value() {
        for (kind, text, says) in [
            (Kind::Number, "-1", "-1 is not a whole number"),
            (Kind::Weight, "70000", "70000 is not a weight"),
            (Kind::Number, "1.5", "1.5 is not a whole number"),
            (Kind::Signed, "x", "x is not a whole number"),
            (Kind::Bytes, "-2", "-2 is not a size"),
        ] {
            assert!(kind.parse(text).unwrap_err().to_string().starts_with(says), "{kind:?} {text}");
        }
        assert_eq!(
            (Kind::Signed.parse("-1").unwrap(), Kind::Bytes.parse("-1").unwrap()),
            (Value::from(-1), (-1).into())
        );
    }
}
