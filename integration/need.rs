//! What a test needs of the machine or of the runtime. It never skips silently: without it a test prints
//! `SKIP test: needs …`, and with `STRICT=1` it fails.

use std::io::Write;
use std::path::Path;

use crate::{layout, runtime};

/// `need!(rrun, fuse)`: returns from the test when one of them is missing.
macro_rules! need {
    ($($what:ident $(($argument:expr))?),+) => {$(
        if !crate::need::$what($($argument)?) {
            crate::need::skip(concat!(stringify!($what) $(, " ", $argument)?));
            return;
        }
    )+};
}

/// Makes programs that no image has.
pub fn c_compiler() -> bool {
    std::process::Command::new("cc").arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Programs that are written for it.
pub fn x86_64() -> bool {
    cfg!(target_arch = "x86_64")
}

/// A file system that this process can serve, or leave unserved.
pub fn fuse() -> bool {
    Path::new("/dev/fuse").exists()
}

/// The controller of huge pages, in either tree, and pages of 2 MiB.
pub fn hugetlb() -> bool {
    let controllers = layout::mountpoint("unified").join("cgroup.controllers");
    let controllers = std::fs::read_to_string(controllers).unwrap_or_default();
    let is_mounted = controllers.contains("hugetlb") || Path::new("/sys/fs/cgroup/hugetlb").exists();
    is_mounted && Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists()
}

/// The helpers of the package uidmap.
pub fn newuidmap() -> bool {
    Path::new("/usr/bin/newuidmap").exists() && Path::new("/usr/bin/newgidmap").exists()
}

/// A runtime that tells its features: that is its own choice.
pub fn features() -> bool {
    runtime::features()["ociVersionMin"].is_string()
}

/// A namespace type that the runtime knows: peers lack some.
pub fn namespace(kind: &str) -> bool {
    runtime::features()["linux"]["namespaces"].as_array().is_some_and(|known| known.iter().any(|k| k == kind))
}

/// A mount option that the runtime knows.
pub fn mount_option(word: &str) -> bool {
    runtime::features()["mountOptions"].as_array().is_some_and(|known| known.iter().any(|k| k == word))
}

/// A program of the host's.
pub fn program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

/// The command of that name: crun has none.
pub fn events() -> bool {
    runtime::run(std::process::Command::new(runtime::path()).args(["events", "--help"])).code == 0
}

/// What no peer promises: an extra of rrun, or a demand of the spec that peers miss.
pub fn rrun() -> bool {
    runtime::on_rrun()
}

pub fn skip(what: &str) {
    let test = std::thread::current().name().unwrap_or("test").to_string();
    if std::env::var("STRICT").is_ok_and(|strict| strict == "1") {
        panic!("{test} needs {what}, and STRICT=1 takes no skips");
    }
    // not eprintln!: libtest captures that and shows it of failing tests only
    let _ = writeln!(std::io::stderr(), "SKIP {test}: needs {what}");
}
