//! Flags that every command takes: where containers are recorded, and where errors go.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::{ArgMatches, Command};

use super::{switch, value};
use crate::error::Doing;
use crate::log;
use crate::plan::unit::CgroupManager;
use crate::rootfs::InRoot;

pub fn command() -> Command {
    Command::new("rrun")
        .arg(
            value("root", "DIR", "Directory that records containers [default: /run/rrun, or $XDG_RUNTIME_DIR/rrun]")
                .short('r'),
        )
        .arg(value("log", "FILE", "Append errors and warnings to FILE").short('l'))
        .arg(value("log-format", "FORMAT", "text or json [default: text]"))
        .arg(value("log-level", "LEVEL", "error, warning or debug [default: warning]"))
        .arg(switch("debug", "As --log-level debug"))
        .arg(
            switch("systemd-cgroup", "Have systemd make cgroups; linux.cgroupsPath is SLICE:PREFIX:NAME then")
                .short('s'),
        )
        .arg(value("cgroup-manager", "NAME", "Who makes cgroups: cgroupfs, which is rrun itself, systemd, or disabled"))
        .arg(value("rootless", "WHEN", "auto, true or false, as others take it; rrun sees by itself what it may do"))
        .arg(value("criu", "PATH", "Ignored").hide(true))
        .no_binary_name(true)
        .args_override_self(true)
        .disable_help_flag(true)
}

#[derive(Debug, Clone)]
pub struct Global {
    root: Option<OsString>,
    log: Option<PathBuf>,
    format: log::Format,
    level: log::Level,
    systemd_cgroup: bool,
    cgroup_manager: Option<CgroupManager>,
}

/// The directory that records containers.
pub struct Root {
    pub path: PathBuf,
    /// Named by the caller, who then expects it to be there.
    pub explicit: bool,
    /// Below $XDG_RUNTIME_DIR, which may be cleaned up.
    runtime_dir: bool,
}

impl Global {
    pub fn new(matches: &ArgMatches) -> Result<Self, String> {
        // Looked at and left: what rrun may do it sees by itself.
        rootless(matches.get_one::<OsString>("rootless").map(|word| word.to_string_lossy()).as_deref())?;
        let value = |name| matches.get_one::<OsString>(name).filter(|value| !value.is_empty());
        let text = |name| value(name).map(|value| value.to_string_lossy().into_owned());
        Ok(Self {
            root: value("root").cloned(),
            log: value("log").map(|word| log_file(word)).transpose()?,
            format: format(text("log-format").as_deref())?,
            level: level(text("log-level").as_deref(), matches.get_flag("debug"))?,
            systemd_cgroup: matches.get_flag("systemd-cgroup"),
            cgroup_manager: cgroup_manager(text("cgroup-manager").as_deref())?,
        })
    }

    pub fn open_log(&self, stderr: log::Stderr) -> Result<()> {
        Ok(log::init(self.log.as_deref(), self.format, self.level, stderr)?)
    }

    pub fn root(&self) -> Result<Root> {
        if let Some(given) = &self.root {
            let path = absolute(Path::new(given))?;
            if path == Path::new("/") {
                bail!("--root: / holds the whole system; choose a directory for containers alone");
            }
            return Ok(Root { path, explicit: true, runtime_dir: false });
        }
        let (runtime_dir, user) = (std::env::var_os("XDG_RUNTIME_DIR"), std::env::var_os("USER"));
        let euid = nix::unistd::geteuid().as_raw();
        Ok(match default_below(euid, runtime_dir, user.as_deref(), in_user_namespace) {
            Some(dir) => Root { path: absolute(&dir)?.join("rrun"), explicit: false, runtime_dir: true },
            None => Root { path: "/run/rrun".into(), explicit: false, runtime_dir: false },
        })
    }

    /// It matters only where a container is made; callers add the flags to every command. The one that names a manager
    /// is the closer word.
    pub fn cgroup_manager(&self) -> CgroupManager {
        let usual = if self.systemd_cgroup { CgroupManager::Systemd } else { CgroupManager::Cgroupfs };
        self.cgroup_manager.unwrap_or(usual)
    }
}

impl Root {
    /// The sticky bit keeps the directory out of the cleaning of $XDG_RUNTIME_DIR (XDG base directory specification).
    pub fn keep_from_cleaning(&self) -> Result<()> {
        if self.runtime_dir {
            let mut directory = std::fs::DirBuilder::new();
            directory.recursive(true).mode(0o700).create(&self.path).doing("mkdir", self.path.display())?;
            let mode = PermissionsExt::from_mode(0o1700);
            std::fs::set_permissions(&self.path, mode).doing("chmod", self.path.display())?;
        }
        Ok(())
    }
}

/// As a user, or as the root of a user namespace who was another user before, containers belong to that user.
fn default_below(
    euid: u32,
    runtime_dir: Option<OsString>,
    user: Option<&OsStr>,
    in_user_namespace: impl FnOnce() -> bool,
) -> Option<PathBuf> {
    let runtime_dir = runtime_dir.filter(|dir| !dir.is_empty())?;
    let is_user = euid != 0 || (user != Some(OsStr::new("root")) && in_user_namespace());
    is_user.then(|| runtime_dir.into())
}

/// The initial user namespace maps all ids (user_namespaces(7)).
fn in_user_namespace() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// Without `.` and `..`, so that containers are found again from any directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).doing("getcwd", "")?;
    Ok(Path::new("/").join(InRoot::new(path).as_path()))
}

/// `file:` is one of the prefixes of other runtimes; what the others lead to is not written to.
fn log_file(word: &OsStr) -> Result<PathBuf, String> {
    let bytes = word.as_bytes();
    if ["journald:", "syslog:"].iter().any(|prefix| bytes.starts_with(prefix.as_bytes())) {
        return Err(format!("--log: {}: rrun writes to files alone; give a path", word.display()));
    }
    match bytes.strip_prefix(b"file:") {
        Some(b"") => Err("--log: file: names no file; give a path".into()),
        Some(path) => Ok(OsStr::from_bytes(path).into()),
        None => Ok(word.into()),
    }
}

fn format(word: Option<&str>) -> Result<log::Format, String> {
    match word {
        None | Some("text") => Ok(log::Format::Text),
        Some("json") => Ok(log::Format::Json),
        Some(other) => Err(format!("invalid log-format: {other}")),
    }
}

/// Knows the levels of other runtimes' flags too; what rrun has no level for is the next one.
fn level(word: Option<&str>, debug: bool) -> Result<log::Level, String> {
    match word {
        None if debug => Ok(log::Level::Debug),
        None => Ok(log::Level::default()),
        Some("error" | "off") => Ok(log::Level::Error),
        Some("warning" | "warn" | "info") => Ok(log::Level::Warning),
        Some("debug" | "trace") => Ok(log::Level::Debug),
        Some(other) => Err(format!("invalid log-level: {other}")),
    }
}

fn cgroup_manager(name: Option<&str>) -> Result<Option<CgroupManager>, String> {
    let known = |name: &str| CgroupManager::ALL.iter().find(|(word, _)| *word == name).map(|(_, manager)| *manager);
    let parse = |name: &str| {
        known(name).ok_or_else(|| format!("--cgroup-manager: {name} is none of cgroupfs, systemd, disabled"))
    };
    name.map(parse).transpose()
}

fn rootless(when: Option<&str>) -> Result<(), String> {
    match when {
        None | Some("" | "auto") => Ok(()),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(()),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(()),
        Some(other) => Err(format!("--rootless: {other} is none of auto, true, false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_containers_are_recorded_by_default() {
        let (unasked, inside, outside) = (|| unreachable!("not asked"), || true, || false);
        let default = |euid, dir: Option<&str>, user: Option<&str>, namespace: &dyn Fn() -> bool| {
            default_below(euid, dir.map(OsString::from), user.map(OsStr::new), namespace)
        };
        let below = |dir| Some(PathBuf::from(dir));
        for (euid, dir, user, namespace, want) in [
            (1000, Some("/run/user/1000"), Some("u"), &unasked as &dyn Fn() -> bool, below("/run/user/1000")),
            (1000, Some("/run/user/1000"), Some("root"), &unasked, below("/run/user/1000")),
            (1000, Some(""), Some("u"), &unasked, None),
            (1000, None, Some("u"), &unasked, None),
            (0, Some("/run/user/0"), Some("root"), &unasked, None),
            (0, Some("/run/user/0"), None, &outside, None),
            (0, Some("/run/user/1000"), Some("u"), &inside, below("/run/user/1000")),
            (0, Some("/run/user/1000"), None, &inside, below("/run/user/1000")),
            (0, None, None, &unasked, None),
            (0, Some(""), None, &unasked, None),
        ] {
            assert_eq!(default(euid, dir, user, namespace), want, "{euid} {dir:?} {user:?}");
        }
    }

    #[test]
    fn words_of_global_flags() {
        assert_eq!(format(Some("xml")), Err("invalid log-format: xml".into()));
        assert_eq!(level(Some("error"), true), Ok(log::Level::Error), "--log-level wins over --debug");
        assert_eq!(level(None, true), Ok(log::Level::Debug));
        assert!(level(Some("loud"), false).is_err());
        assert!(rootless(Some("T")).is_ok() && rootless(Some("auto")).is_ok() && rootless(None).is_ok());
        assert!(rootless(Some("maybe")).is_err());
        assert!(cgroup_manager(Some("both")).is_err());
        assert_eq!(cgroup_manager(Some("disabled")), Ok(Some(CgroupManager::Disabled)));
    }

    #[test]
    fn a_log_is_a_file() {
        for (word, want) in [
            ("/var/log/x:y", Ok("/var/log/x:y")),
            ("log.json", Ok("log.json")),
            ("file:/tmp/x", Ok("/tmp/x")),
            ("file:x", Ok("x")),
            ("file:", Err("--log: file: names no file; give a path")),
            ("journald:c1", Err("--log: journald:c1: rrun writes to files alone; give a path")),
            ("syslog:c1", Err("--log: syslog:c1: rrun writes to files alone; give a path")),
        ] {
            let want = want.map(PathBuf::from).map_err(String::from);
            assert_eq!(log_file(OsStr::new(word)), want, "{word}");
        }
    }

    #[test]
    fn a_root_is_absolute_and_clean() {
        let here = std::env::current_dir().unwrap();
        for (path, want) in [("/a/./b/../c//", "/a/c".into()), ("/..", "/".into()), ("x/../y", here.join("y"))] {
            assert_eq!(absolute(Path::new(path)).unwrap(), want as PathBuf, "{path}");
        }
    }

    #[test]
    fn a_root_below_the_runtime_directory_is_kept_from_cleaning() {
        let dir = tempfile::tempdir().unwrap();
        for (name, runtime_dir) in [("kept", true), ("other", false)] {
            let root = Root { path: dir.path().join(name), explicit: false, runtime_dir };
            root.keep_from_cleaning().unwrap();
            let mode = root.path.metadata().ok().map(|found| found.permissions().mode() & 0o7777);
            assert_eq!(mode, runtime_dir.then_some(0o1700), "{name}");
        }
    }
}
