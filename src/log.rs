//! What rrun says besides its data: one error line for a failed command, warnings, debugging.
//!
//! Managers read the last error entry of the log file (containerd), or take the whole file as one JSON object (podman),
//! and during create and run rrun's stderr is the container's own, unless that has a terminal. So: one entry per failed
//! command; warnings stay in the file, and without one reach stderr only where a person looks at it or the container does
//! not write to it. Nothing here fails a command.

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
    /// Every warning, also beside a log: what a command could not show is part of its answer (`list`).
    AllWarnings,
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
    let open =
        |path| OpenOptions::new().append(true).create(true).mode(0o644).custom_flags(libc::O_NONBLOCK).open(path); // std adds O_CLOEXEC
    let file = destination.map(|path| open(path).doing("open", path.display())).transpose()?;
    let warn_aloud = match stderr {
        Stderr::ErrorOnly => false,
        Stderr::AllWarnings => level >= Level::Warning,
        Stderr::Warnings => file.is_none() && (level == Level::Debug || std::io::stderr().is_terminal()),
    };
    let _ = SINK.set(Sink { file, format, level, warn_aloud });
    Ok(())
}

/// The reason why the command failed: to the log, and bare to stderr.
pub fn error(line: &str) {
    say(Level::Error, format_args!("{line}"), OnStderr::AsEver);
}

/// What the spec lets rrun leave out, with its key.
pub fn warning(line: &str) {
    say(Level::Warning, format_args!("{line}"), OnStderr::AsEver);
}

/// Of a config. A process with a terminal of its own writes there, and stderr is rrun's alone, be it what it may.
pub fn warnings_of<'a>(warnings: impl IntoIterator<Item = &'a String>, terminal: bool) {
    let on_stderr = if terminal { OnStderr::WithoutLog } else { OnStderr::AsEver };
    warnings.into_iter().for_each(|line| say(Level::Warning, format_args!("{line}"), on_stderr));
}

/// Costs nothing where nobody asked for it.
pub fn debug(line: fmt::Arguments<'_>) {
    say(Level::Debug, line, OnStderr::AsEver);
}

#[derive(Clone, Copy)]
enum OnStderr {
    AsEver,
    WithoutLog,
}

fn say(level: Level, line: fmt::Arguments<'_>, on_stderr: OnStderr) {
    // Not yet opened: the words of the command line were wrong, or this very log was.
    const UNOPENED: Sink = Sink { file: None, format: Format::Text, level: Level::Error, warn_aloud: false };
    let sink = SINK.get().unwrap_or(&UNOPENED);
    let aloud = sink.warn_aloud || (matches!(on_stderr, OnStderr::WithoutLog) && sink.file.is_none());
    if sink.hears(level, aloud) {
        sink.put(level, &line.to_string(), SystemTime::now(), aloud, &mut std::io::stderr());
    }
}

impl Sink {
    fn hears(&self, level: Level, aloud: bool) -> bool {
        level == Level::Error || (level <= self.level && (self.file.is_some() || aloud))
    }

    /// One write(2) per entry, since several processes append to one file. A full disk must not stop a container.
    fn put(&self, level: Level, line: &str, time: SystemTime, aloud: bool, stderr: &mut impl Write) {
        let entry = entry(self.format, level, line, time);
        let said = match (&self.file, self.format, level) {
            (Some(_), _, Level::Error) | (None, Format::Text, Level::Error) => format!("{line}\n"),
            (Some(_), ..) if !aloud || level > Level::Warning => String::new(),
            (Some(_), ..) => format!("{}: {line}\n", word(level)),
            // who asked for debugging may read it by a program, as from the file
            (None, Format::Json, _) | (None, Format::Text, Level::Debug) => entry.clone(),
            (None, Format::Text, _) => format!("{}: {line}\n", word(level)),
        };
        if let Some(mut file) = self.file.as_ref() {
            let _ = file.write_all(entry.as_bytes());
        }
        let _ = stderr.write_all(said.as_bytes());
    }
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

    /// What stderr and the file hold after one line of each level.
    fn heard(file: bool, format: Format, level: Level, warn_aloud: bool) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let file = file.then(|| OpenOptions::new().append(true).create(true).open(&path).unwrap());
        let (sink, mut stderr) = (Sink { file, format, level, warn_aloud }, Vec::new());
        for level in
            [Level::Debug, Level::Warning, Level::Error].into_iter().filter(|level| sink.hears(*level, warn_aloud))
        {
            sink.put(level, word(level), UNIX_EPOCH, warn_aloud, &mut stderr);
        }
        (String::from_utf8(stderr).unwrap(), std::fs::read_to_string(path).unwrap_or_default())
    }

    #[test]
    fn who_hears_what() {
        use Format::*;
        let all = |format, levels: &[Level]| -> String {
            levels.iter().map(|level| entry(format, *level, word(*level), UNIX_EPOCH)).collect()
        };
        let (error, warning, debug) = (Level::Error, Level::Warning, Level::Debug);
        for (file, format, level, aloud, stderr, log) in [
            (false, Text, warning, false, "error\n".into(), &[][..]),
            (false, Text, debug, false, "error\n".into(), &[]),
            (false, Text, warning, true, "warning: warning\nerror\n".into(), &[]),
            (false, Text, debug, true, all(Text, &[debug]) + "warning: warning\nerror\n", &[]),
            (false, Json, warning, true, all(Json, &[warning, error]), &[]),
            (true, Text, error, false, "error\n".into(), &[error]),
            (true, Text, warning, false, "error\n".into(), &[warning, error]),
            (true, Json, debug, false, "error\n".into(), &[debug, warning, error]),
            (true, Json, debug, true, "warning: warning\nerror\n".into(), &[debug, warning, error]),
        ] {
            let want = (stderr, all(format, log));
            assert_eq!(heard(file, format, level, aloud), want, "{file} {format:?} {level:?} {aloud}");
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
