//! What rrun says besides its data: one error line for a failed command, warnings, debugging.
//!
//! Managers read the last error entry of the log file (containerd), or take the whole file as one JSON object (podman),
//! and during create and run rrun's stderr is the container's own. So: one entry per failed command; warnings stay in
//! the file, and without one reach stderr only where a person looks at it. Nothing here fails a command.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::error::{Doing, SysError};
use crate::timestamp;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    #[default]
    Warning,
    Debug,
}

/// Whether stderr may carry more than the error of a failed command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stderr {
    /// Callers parse it together with stdout (`state`, `list`, `features`).
    ErrorOnly,
    /// Where it is a terminal, or debugging was asked for.
    Warnings,
}

struct Sink {
    file: Option<File>,
    format: Format,
    level: Level,
    warn_aloud: bool,
}

static SINK: OnceLock<Sink> = OnceLock::new();

/// Opens the log, once per process. Until then, and without a destination, errors go to stderr alone.
pub fn init(destination: Option<&Path>, format: Format, level: Level, stderr: Stderr) -> Result<(), SysError> {
    let open = |path| OpenOptions::new().append(true).create(true).mode(0o644).open(path); // std adds O_CLOEXEC
    let file = destination.map(|path| open(path).doing("open", path.display())).transpose()?;
    let warn_aloud = match stderr {
        Stderr::ErrorOnly => false,
        Stderr::Warnings => file.is_none() && (level == Level::Debug || std::io::stderr().is_terminal()),
    };
    let _ = SINK.set(Sink { file, format, level, warn_aloud });
    Ok(())
}

/// The reason why the command failed: to the log, and bare to stderr.
pub fn error(line: &str) {
    let Some(sink) = SINK.get() else {
        return to_stderr(&format!("{line}\n"));
    };
    let text = entry(sink.format, Level::Error, line, SystemTime::now());
    match &sink.file {
        Some(file) => {
            append(file, &text);
            to_stderr(&format!("{line}\n"));
        }
        None if sink.format == Format::Json => to_stderr(&text),
        None => to_stderr(&format!("{line}\n")),
    }
}

/// What the spec lets rrun leave out, with its key.
pub fn warning(line: &str) {
    say(Level::Warning, format_args!("{line}"));
}

/// Costs nothing where nobody asked for it.
pub fn debug(line: fmt::Arguments<'_>) {
    say(Level::Debug, line);
}

fn say(level: Level, line: fmt::Arguments<'_>) {
    let Some(sink) = SINK.get().filter(|sink| level <= sink.level) else { return };
    if sink.file.is_none() && !sink.warn_aloud {
        return;
    }
    let line = line.to_string();
    let text = entry(sink.format, level, &line, SystemTime::now());
    match &sink.file {
        Some(file) => append(file, &text),
        None if sink.format == Format::Json => to_stderr(&text),
        None => to_stderr(&format!("{}: {line}\n", word(level))),
    }
}

/// One write(2) per entry: several processes append to one file. A full disk must not stop a container.
fn append(mut file: &File, text: &str) {
    let _ = file.write_all(text.as_bytes());
}

fn to_stderr(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Debug => "debug",
    }
}

/// One line in the form that managers read.
fn entry(format: Format, level: Level, message: &str, time: SystemTime) -> String {
    let (time, level) = (timestamp::seconds(time), word(level));
    match format {
        Format::Text => {
            let mut escaped = String::with_capacity(message.len());
            for c in message.chars() {
                match c {
                    '"' | '\\' => escaped.extend(['\\', c]),
                    c if c.is_control() => escaped.extend(c.escape_default()),
                    c => escaped.push(c),
                }
            }
            format!("time=\"{time}\" level={level} msg=\"{escaped}\"\n")
        }
        Format::Json => {
            format!("{{\"level\":\"{level}\",\"msg\":{},\"time\":\"{time}\"}}\n", serde_json::Value::from(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn entries_have_the_form_that_managers_read() {
        let time = UNIX_EPOCH + Duration::from_secs(1_795_255_189);
        for (format, level, message, want) in [
            (Format::Text, Level::Error, "a b", "time=\"2026-11-21T09:59:49Z\" level=error msg=\"a b\"\n"),
            (
                Format::Text,
                Level::Warning,
                "\"a\\b\"\n",
                "time=\"2026-11-21T09:59:49Z\" level=warning msg=\"\\\"a\\\\b\\\"\\n\"\n",
            ),
            (
                Format::Json,
                Level::Debug,
                "\"a\\b\"\n\u{1}é",
                "{\"level\":\"debug\",\"msg\":\"\\\"a\\\\b\\\"\\n\\u0001é\",\"time\":\"2026-11-21T09:59:49Z\"}\n",
            ),
        ] {
            assert_eq!(entry(format, level, message, time), want);
        }
    }

    proptest! {
        #[test]
        fn an_entry_is_one_line_and_its_message_comes_back(message in "\\PC*|[\\x00-\\x7f]*") {
            for format in [Format::Text, Format::Json] {
                let entry = entry(format, Level::Error, &message, UNIX_EPOCH);
                prop_assert!(entry.ends_with('\n') && entry.lines().count() == 1, "{entry}");
            }
            let json = entry(Format::Json, Level::Error, &message, UNIX_EPOCH);
            let back: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(back["msg"].as_str(), Some(message.as_str()));
        }
    }
}
