//! The host's cgroups come in three layouts. Which one this is, and what differs: where a container's own are, and how
//! they are frozen.
//!
//! A test that is about some layouts only says so by `layout!(V1, Hybrid)`; on others it is no test, so that is no skip
//! even with STRICT=1. In a guest `$LAYOUT` says which one it must be.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One hierarchy for each controller.
    V1,
    /// Hierarchies of v1, and a v2 tree beside them.
    Hybrid,
    V2,
}

macro_rules! layout {
    ($($which:ident),+) => {
        if !crate::layout::is_one_of(&[$(crate::layout::Layout::$which),+]) {
            return;
        }
    };
}

/// Returns from a test that starts daemons of the system's, which only a guest that is thrown away lets it do.
macro_rules! guest {
    () => {
        if !crate::layout::is_guest() {
            return;
        }
    };
}

/// As `layout!`, for what systemd has to make the cgroups for. Every guest is run by it.
macro_rules! systemd {
    () => {
        if !crate::layout::has_systemd() {
            return;
        }
    };
}

pub fn is_guest() -> bool {
    let is = std::env::var_os("LAYOUT").is_some();
    if !is {
        let test = std::thread::current().name().unwrap_or("test").to_string();
        let _ = writeln!(std::io::stderr(), "{test}: is about guests");
    }
    is
}

pub fn has_systemd() -> bool {
    let has = Path::new("/run/systemd/system").exists();
    if !has {
        assert!(std::env::var_os("LAYOUT").is_none(), "a guest without systemd");
        let test = std::thread::current().name().unwrap_or("test").to_string();
        let _ = writeln!(std::io::stderr(), "{test}: is about hosts that systemd runs");
    }
    has
}

pub fn layout() -> Layout {
    static LAYOUT: OnceLock<Layout> = OnceLock::new();
    *LAYOUT.get_or_init(|| {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let has = |wanted: &str| mounts.lines().any(|line| line.split(' ').nth(2) == Some(wanted));
        let layout = match (has("cgroup"), has("cgroup2")) {
            (true, true) => Layout::Hybrid,
            (true, false) => Layout::V1,
            (false, true) => Layout::V2,
            (false, false) => panic!("no cgroups are mounted: these tests make containers"),
        };
        if let Ok(wanted) = std::env::var("LAYOUT") {
            assert_eq!(format!("{layout:?}").to_lowercase(), wanted, "the cgroups of this guest");
        }
        layout
    })
}

pub fn is_one_of(layouts: &[Layout]) -> bool {
    let is = layouts.contains(&layout());
    if !is {
        let test = std::thread::current().name().unwrap_or("test").to_string();
        let _ = writeln!(std::io::stderr(), "{test}: is about cgroups that are {layouts:?}");
    }
    is
}

pub fn is_v2() -> bool {
    layout() == Layout::V2
}

/// Where the hierarchy of `controller` is mounted; `unified` is the v2 tree.
pub fn mountpoint(controller: &str) -> PathBuf {
    let top = Path::new("/sys/fs/cgroup");
    if is_v2() { top.into() } else { top.join(controller) }
}

/// `cgroup` is one of the freezer's hierarchy, or of v2.
pub fn set_frozen(cgroup: &Path, frozen: bool) {
    let (file, value) = match (is_v2(), frozen) {
        (false, true) => ("freezer.state", "FROZEN"),
        (false, false) => ("freezer.state", "THAWED"),
        (true, true) => ("cgroup.freeze", "1"),
        (true, false) => ("cgroup.freeze", "0"),
    };
    fs::write(cgroup.join(file), value).unwrap_or_else(|error| panic!("{}: {error}", cgroup.display()));
}

/// In the words of v1.
pub fn freezer_state(cgroup: &Path) -> &'static str {
    let read = |file: &str| fs::read_to_string(cgroup.join(file)).unwrap();
    if is_v2() {
        return match (read("cgroup.freeze").trim(), read("cgroup.events").contains("frozen 1")) {
            ("0", _) => "THAWED",
            (_, true) => "FROZEN",
            (_, false) => "FREEZING",
        };
    }
    match read("freezer.state").trim() {
        "THAWED" => "THAWED",
        "FROZEN" => "FROZEN",
        _ => "FREEZING",
    }
}
