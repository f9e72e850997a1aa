//! Checkpoints and restores that rrun is killed in, at moments of its own system calls, or that are given what no criu
//! wrote: a container that was there goes on, one that came to be half goes away, and nothing else is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::Mode;
use serde_json::json;

use super::MOMENT;
use crate::bundle::Bundle;
use crate::leftovers::Leftovers;
use crate::runtime::{Output, eventually_within, few_rounds, run};
use crate::tracer::{At, Then, Who, trace};

/// What it counts is in a tmpfs, which is in the images.
fn counting() -> Bundle {
    let mut bundle = Bundle::sh("n=0; while :; do n=$((n+1)); echo $n >/dev/count; sleep 0.1; done");
    // older ones than 4.0 do not bring it back, of which rrun warns
    bundle.set("/process/noNewPrivileges", false);
    super::run(&bundle);
    bundle
}

fn checkpoint(bundle: &Bundle, options: &[&str]) -> Output {
    bundle.call(&[&["checkpoint", "--image-path", "images"], options, &[bundle.id.as_str()]].concat())
}

const RESTORE: [&str; 6] = ["restore", "--detach", "--image-path", "images", "--work-path", "work"];

fn restore(bundle: &Bundle) -> Output {
    bundle.call(&[&RESTORE[..], &[&bundle.id]].concat())
}

fn count(bundle: &Bundle) -> u32 {
    let file = PathBuf::from(format!("/proc/{}/root/dev/count", bundle.pid()));
    let read = || fs::read_to_string(&file).ok()?.trim().parse().ok();
    eventually_within(MOMENT, read).expect("it does not count")
}

#[track_caller]
fn goes_on(bundle: &Bundle, before: u32) -> u32 {
    let now = eventually_within(MOMENT, || Some(count(bundle)).filter(|now| *now > before + 2));
    now.unwrap_or_else(|| panic!("{} and no more than {before}", bundle.state()))
}

fn criu_has_ended(bundle: &Bundle) -> bool {
    let is_criu = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "criu");
    let ended = || !Leftovers::find(&bundle.id, &bundle.state_root).processes.iter().any(is_criu);
    eventually_within(MOMENT, || ended().then_some(())).is_some()
}

/// From the first call of so many to the last.
fn moments(calls: usize) -> impl Iterator<Item = At> {
    let parts = if few_rounds() { 6 } else { 30 };
    (0..parts).map(move |part| At { who: Who::Parent, call: 1 + calls.saturating_sub(1) * part / (parts - 1) })
}

#[test]
fn a_container_goes_on_when_its_checkpoint_is_killed() {
    guest!();
    let bundle = counting();
    let pid = bundle.pid();
    let mut number = count(&bundle);
    let command = ["checkpoint", "--leave-running", "--image-path", "images", &bundle.id];
    let whole = trace(&bundle.command(&command), None, None);
    assert_eq!(whole.exit_code, Some(0));
    for at in moments(whole.calls_of(Who::Parent)) {
        let broken = trace(&bundle.command(&command), None, Some((at, Then::Kill)));
        assert!(criu_has_ended(&bundle), "{at:?}");
        assert!(broken.hit.is_some() || broken.exit_code == Some(0), "{at:?}: {broken:?}");
        number = goes_on(&bundle, number);
        assert_eq!((bundle.status().as_str(), bundle.pid()), ("running", pid), "{at:?}");
    }
    checkpoint(&bundle, &[]).ok();
    bundle.leaves_nothing();
    restore(&bundle).ok();
    goes_on(&bundle, number);
}

#[test]
fn nothing_is_left_of_a_restore_that_is_killed() {
    guest!();
    let bundle = counting();
    let number = count(&bundle);
    checkpoint(&bundle, &[]).ok();
    let command = [&RESTORE[..], &[&bundle.id]].concat();
    let whole = trace(&bundle.command(&command), None, None);
    assert_eq!(whole.exit_code, Some(0));
    for at in moments(whole.calls_of(Who::Parent)) {
        bundle.delete_force().ok();
        bundle.leaves_nothing();
        let broken = trace(&bundle.command(&command), None, Some((at, Then::Kill)));
        assert!(broken.hit.is_some() || broken.exit_code == Some(0), "{at:?}: {broken:?}");
        assert!(criu_has_ended(&bundle), "{at:?}");
    }
    bundle.delete_force().ok();
    bundle.leaves_nothing();
    restore(&bundle).ok();
    goes_on(&bundle, number);
}

/// Every one is refused in a line, and takes back what it has made.
#[test]
fn images_that_no_criu_wrote() {
    guest!();
    let bundle = counting();
    checkpoint(&bundle, &[]).ok();
    let (good, images) = (bundle.dir.join("good"), bundle.dir.join("images"));
    fs::rename(&images, &good).unwrap();
    let write =
        |name: &'static str, bytes: &'static [u8]| move |images: &Path| fs::write(images.join(name), bytes).unwrap();
    let remove = |name: &'static str| move |images: &Path| fs::remove_file(images.join(name)).unwrap();
    let fifo = |name: &'static str| {
        move |images: &Path| {
            fs::remove_file(images.join(name)).unwrap();
            nix::unistd::mkfifo(&images.join(name), Mode::from_bits_truncate(0o600)).unwrap();
        }
    };
    type Spoil<'a> = &'a dyn Fn(&Path);
    let spoil: [(&str, Spoil); 13] = [
        ("no inventory", &remove("inventory.img")),
        ("half an inventory", &write("inventory.img", b"\x0b\x0e\x9e\x58\x03")),
        ("an inventory that nobody writes", &fifo("inventory.img")),
        ("no tree", &remove("pstree.img")),
        ("a tree of something else", &write("pstree.img", &[0x5a; 300])),
        ("no files", &remove("files.img")),
        ("no process", &remove("core-1.img")),
        ("no memory", &remove("pages-1.img")),
        ("no JSON", &write("descriptors.json", b"[\"pipe:[7]\"")),
        ("an object", &write("descriptors.json", b"{\"a\": 1}")),
        ("numbers", &write("descriptors.json", b"[0, 1, 2]")),
        ("endless descriptors", &fifo("descriptors.json")),
        ("nothing", &|images| fs::remove_dir_all(images).unwrap()),
    ];
    for (what, spoil) in spoil {
        run(Command::new("cp").arg("-a").args([&good, &images])).ok();
        spoil(&images);
        let refused = restore(&bundle);
        assert!(refused.code == 1 && refused.stderr.lines().count() == 1, "{what}: {refused}");
        assert!(bundle.status_if_any().is_none(), "{what}: {}", bundle.state());
        bundle.leaves_nothing();
        let _ = fs::remove_dir_all(&images);
    }
}

/// A bundle that asks for other namespaces than those that the processes were in.
#[test]
fn images_of_another_bundle() {
    guest!();
    let mut bundle = counting();
    checkpoint(&bundle, &[]).ok();
    let config = bundle.config.clone();
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    let user = json!({"uidMappings": map, "gidMappings": map});
    for (what, change) in [("user", user), ("pid", json!({})), ("mount", json!({}))] {
        if what == "user" {
            bundle.set("/linux/namespaces/-", json!({"type": what}));
        } else {
            bundle.without_namespace(what);
        }
        for (name, value) in change.as_object().unwrap() {
            bundle.set(&format!("/linux/{name}"), value.clone());
        }
        let refused = restore(&bundle);
        assert!(refused.code == 1 && refused.stderr.lines().count() == 1, "{what}: {refused}");
        assert!(bundle.status_if_any().is_none(), "{what}");
        bundle.leaves_nothing();
        bundle.config = config.clone();
    }
    restore(&bundle).ok();
}
