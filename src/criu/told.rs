//! What CRIU's log says of a failure, as part of one line. The log holds texts of the container's making, such as names of
//! files, and is read as such.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};

use crate::error::shortened_to;
use crate::sys::file;

/// As much of the end of a log as is looked through.
const LAST: usize = 256 << 10;
/// As much of a line as an error shows.
const SHOWN: usize = 400;

/// What to do, by a part of what CRIU says.
const HINTS: [(&str, &str); 1] = [(
    "Failed to copy sharing",
    "a volume cannot be restored that gets the host's later mounts: give it rprivate in its options",
)];

/// Where CRIU writes what it does.
pub struct Log {
    /// Of the images, or that of `--work-path`.
    pub directory: OwnedFd,
    pub path: PathBuf,
    pub name: &'static str,
}

impl Log {
    /// `told` by CRIU itself, and what else is known of its end.
    pub fn explain(&self, told: Option<String>, how: Option<String>) -> anyhow::Error {
        let logged = self.end().as_deref().and_then(reason);
        let why = logged.or(told.map(|told| one_line(&told))).or(how).unwrap_or_else(|| "it does not say why".into());
        let hint = HINTS.iter().find(|(said, _)| why.contains(said)).map(|(_, hint)| format!("; {hint}"));
        let log = self.path.join(Path::new(self.name));
        anyhow!("criu: {why}{}; see {}", hint.unwrap_or_default(), log.display())
    }

    fn end(&self) -> Option<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let log = openat(&self.directory, self.name, flags, Mode::empty()).ok()?;
        let size = lseek(&log, 0, Whence::SeekEnd).ok()?;
        lseek(&log, size.saturating_sub(LAST as i64).max(0), Whence::SeekSet).ok()?;
        file::read(&log, 32 << 10, LAST).ok()
    }
}

/// The last error that says more than that all of it has failed.
fn reason(log: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(log);
    let errors = || text.lines().rev().filter_map(error_in);
    let telling = errors().find(|error| !error.ends_with("FAILED.") && !error.ends_with("failed"));
    telling.or_else(|| errors().next()).map(one_line)
}

/// `(00.123456)      1: Error (criu/mount.c:1133): mnt: …` → what stands behind the place in CRIU's source.
fn error_in(line: &str) -> Option<&str> {
    let (_, error) = line.split_once("Error (")?;
    Some(error.split_once("): ").map_or(error, |(_, text)| text).trim())
}

fn one_line(text: &str) -> String {
    shortened_to(SHOWN, text.replace(char::is_control, " ").trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::open_host_directory;

    const FAILED: &str = "(00.01) Error (criu/cr-dump.c:1788): Dumping FAILED.\n";

    #[test]
    fn the_last_error_that_tells_something() {
        for (log, want) in [
            ("", None),
            ("(00.000053) Version: 3.17.1\n(00.01) Warn  (criu/x.c:1): a\n", None),
            (FAILED, Some("Dumping FAILED.")),
            ("(00.01)  1: Error (criu/files.c:2): Can't look\tup /a\n", Some("Can't look up /a")),
            (&format!("(0) Error (a.c:1): first\n(0) Error (b.c:1): mnt: no 5\n(0) Info\n{FAILED}"), Some("mnt: no 5")),
            ("Error (", Some("")),
        ] {
            assert_eq!(reason(log.as_bytes()).as_deref(), want, "{log}");
        }
    }

    #[test]
    fn a_log_that_is_missing_or_long_is_no_trouble() {
        let dir = tempfile::tempdir().unwrap();
        let directory = || open_host_directory(dir.path()).unwrap();
        let log = || Log { directory: directory(), path: dir.path().into(), name: "dump.log" };
        let shown = |told: Option<&str>, how: Option<&str>| {
            let line = log().explain(told.map(String::from), how.map(String::from)).to_string();
            line.split("; see ").next().unwrap().to_string()
        };
        assert_eq!(shown(None, None), "criu: it does not say why");
        assert_eq!(shown(None, Some("exit status 1")), "criu: exit status 1");
        assert_eq!(shown(Some("its\nword"), Some("exit status 1")), "criu: its word");
        let sharing =
            log().explain(Some("mnt-v2: Failed to copy sharing from source /a to 3".into()), None).to_string();
        assert!(sharing.contains("to 3; a volume") && sharing.contains("give it rprivate"), "{sharing}");
        let line = format!("(0) Error (a.c:1): {}\n", "x".repeat(5000));
        std::fs::write(dir.path().join("dump.log"), format!("{}\n{line}", "y".repeat(LAST))).unwrap();
        let told = shown(Some("its word"), None);
        assert!(told.starts_with("criu: xxx") && told.contains('…') && told.len() < 500, "{told}");
    }
}
