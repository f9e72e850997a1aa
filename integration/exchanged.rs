//! A volume that somebody else writes to while a container is created in it: a directory and a symlink out of the root
//! change places, again and again, between each look and each use (CVE-2019-19921, CVE-2021-30465, CVE-2024-45310).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::json;

use crate::bundle::Bundle;
use crate::runtime::rounds;

/// Exchanges two names until it is dropped.
struct Exchanging {
    enough: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Exchanging {
    fn of(one: PathBuf, other: PathBuf) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let seen = enough.clone();
        let exchange = move || {
            let mut times = 0;
            while !seen.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &one, AT_FDCWD, &other, RenameFlags::RENAME_EXCHANGE).unwrap();
                times += 1;
            }
            times
        };
        Self { enough, thread: Some(std::thread::spawn(exchange)) }
    }

    fn end(&mut self) -> usize {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.end();
    }
}

/// Everything below a directory of the host's: it begins with one file, and nothing may come to it.
fn names_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(names_below(&entry.path()));
        }
    }
    found
}

/// Creates containers while /volume/here is now a directory, now a symlink. What the change asks for succeeds or fails;
/// the program says where it is, and before that where the mounts are that the change asks for: all of them inside.
fn create_meanwhile(target: impl Fn(&Path) -> PathBuf, mounts: usize, change: impl Fn(&mut Bundle)) {
    need!(rrun); // CVE-2024-45310 is open in older runtimes
    let script = "grep -o ' /[^ ]* [^ ]* - tmpfs exchanged ' /proc/self/mountinfo | cut -d ' ' -f 2; pwd";
    let mut bundle = Bundle::sh(script);
    let outside = bundle.host_file("outside/victim", "untouched").parent().unwrap().to_path_buf();
    let volume = bundle.host_file("volume/here/file", "").parent().unwrap().parent().unwrap().to_path_buf();
    symlink(target(&outside), volume.join("there")).unwrap();
    bundle.bind(&volume, "/volume", &[]);
    change(&mut bundle);
    let mut exchanging = Exchanging::of(volume.join("here"), volume.join("there"));
    let mut succeeded = 0;
    for _ in rounds(25) {
        let output = bundle.run();
        if output.code == 0 {
            succeeded += 1;
            assert_eq!(output.stdout.lines().count(), mounts + 1, "{output}");
        }
        assert_eq!(names_below(&outside), [outside.join("victim")], "{output}");
        let in_proc = output.stdout.lines().any(|place| place.starts_with("/proc/"));
        assert!(!in_proc, "{output}");
    }
    assert!(exchanging.end() > 1000 && succeeded > 0, "{succeeded} succeeded");
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    bundle.leaves_nothing();
}

fn absolute(outside: &Path) -> PathBuf {
    outside.to_path_buf()
}

fn climbing(outside: &Path) -> PathBuf {
    Path::new("../../../../../../../../../..").join(outside.strip_prefix("/").unwrap())
}

#[test]
fn a_mount_is_made_below_the_root_whatever_changes_places() {
    for target in [absolute, climbing] {
        create_meanwhile(target, 2, |bundle| {
            bundle.mount("/volume/here/a/b", "tmpfs", "exchanged", &[]);
            bundle.mount("/volume/here", "tmpfs", "exchanged", &[]);
        });
    }
}

#[test]
fn no_mount_comes_into_proc_whatever_changes_places() {
    create_meanwhile(
        |_| "/proc/self/attr".into(),
        1,
        |bundle| {
            bundle.mount("/volume/here", "tmpfs", "exchanged", &[]);
        },
    );
}

#[test]
fn a_working_directory_is_made_below_the_root_whatever_changes_places() {
    create_meanwhile(climbing, 0, |bundle| {
        bundle.set("/process/cwd", "/volume/here/a/b");
    });
}

#[test]
fn a_device_is_made_below_the_root_whatever_changes_places() {
    create_meanwhile(climbing, 0, |bundle| {
        bundle.set("/linux/devices", json!([{"path": "/volume/here/a/null", "type": "c", "major": 1, "minor": 3}]));
    });
}

#[test]
fn what_is_hidden_stays_below_the_root_whatever_changes_places() {
    create_meanwhile(climbing, 0, |bundle| {
        bundle.set("/linux/maskedPaths", json!(["/volume/here/file", "/volume/here"]));
        bundle.set("/linux/readonlyPaths", json!(["/volume/here"]));
    });
}
