//! config.md, "Linux mount options": each word by itself.

use std::process::Command;

use crate::bundle::Bundle;
use crate::mounted::{Mounted, mount_at};

/// What a mount of tmpfs shows that is made with `words`.
#[track_caller]
fn tmpfs(words: &[&str]) -> Mounted {
    let mut bundle = Bundle::new();
    bundle.mount("/m", "tmpfs", "tmpfs", words);
    let mut mounts = bundle.mounts();
    mounts.remove(mounts.iter().position(|mount| mount.point == "/m").expect("a mount at /m"))
}

fn shows(mount: &Mounted, option: &str) -> bool {
    mount.has(option) || mount.filesystem_has(option) || mount.propagation.iter().any(|p| p.starts_with(option))
}

/// `word` does what `option` shows, and does not without it.
#[track_caller]
fn sets(word: &str, option: &str) {
    assert!(shows(&tmpfs(&[word]), option), "{word} does not set {option}");
    assert!(!shows(&tmpfs(&[]), option), "{option} is set anyway");
}

/// As the kernel has it by default.
#[track_caller]
fn shown(word: &str, option: &str) {
    assert!(shows(&tmpfs(&[word]), option), "{word}");
}

/// `word` takes back what `before` did.
#[track_caller]
fn clears(word: &str, before: &str, option: &str) {
    assert!(shows(&tmpfs(&[before]), option), "{before} does not set {option}");
    assert!(!shows(&tmpfs(&[before, word]), option), "{word} does not clear {option}");
}

/// The kernel shows nothing of it: tmpfs, which refuses what it does not know, was not given it.
#[track_caller]
fn taken(word: &str) {
    assert!(tmpfs(&[word]).has("rw"), "{word}");
}

/// `fn name: check(arguments);`
macro_rules! words {
    ($($(#[$comment:meta])* fn $name:ident: $check:ident($($argument:literal),+);)+) => {$(
        $(#[$comment])*
        #[test]
        fn $name() {
            $check($($argument),+);
        }
    )+};
}

words! {
    fn word_async: clears("async", "sync", "sync");
    fn word_atime: clears("atime", "noatime", "noatime");
    fn word_defaults: taken("defaults");
    fn word_dev: clears("dev", "nodev", "nodev");
    fn word_diratime: clears("diratime", "nodiratime", "nodiratime");
    fn word_dirsync: sets("dirsync", "dirsync");
    fn word_exec: clears("exec", "noexec", "noexec");
    fn word_iversion: taken("iversion");
    fn word_lazytime: sets("lazytime", "lazytime");
    fn word_loud: taken("loud");
    fn word_noatime: sets("noatime", "noatime");
    fn word_nodev: sets("nodev", "nodev");
    fn word_nodiratime: sets("nodiratime", "nodiratime");
    fn word_noexec: sets("noexec", "noexec");
    fn word_noiversion: taken("noiversion");
    fn word_nolazytime: clears("nolazytime", "lazytime", "lazytime");
    fn word_norelatime: taken("norelatime");
    fn word_nosuid: sets("nosuid", "nosuid");
    fn word_nosymfollow: sets("nosymfollow", "nosymfollow");
    fn word_relatime: shown("relatime", "relatime");
    fn word_ro: sets("ro", "ro");
    fn word_rw: clears("rw", "ro", "ro");
    fn word_silent: taken("silent");
    fn word_suid: clears("suid", "nosuid", "nosuid");
    fn word_symfollow: clears("symfollow", "nosymfollow", "nosymfollow");
    fn word_sync: sets("sync", "sync");
}

#[test]
fn word_strictatime() {
    let mount = tmpfs(&["strictatime"]);
    assert!(!mount.has("relatime") && !mount.has("noatime"), "{mount:?}");
    assert!(tmpfs(&[]).has("relatime"));
}

#[test]
fn word_nostrictatime() {
    assert!(tmpfs(&["strictatime", "nostrictatime"]).has("relatime"));
}

#[test]
fn word_remount() {
    let mut bundle = Bundle::new();
    bundle.mount("/m", "tmpfs", "tmpfs", &["rw"]).mount("/m", "tmpfs", "tmpfs", &["remount", "ro"]);
    let mounts = bundle.mounts();
    let there: Vec<_> = mounts.iter().filter(|mount| mount.point == "/m").collect();
    assert!(there.len() == 1 && there[0].has("ro"), "{there:?}");
}

/// A tree of two mounts of the host's, `outer` and `sub` in it.
fn tree(options: &str) -> Bundle {
    let mut bundle = Bundle::new();
    let outer = bundle.host_tmpfs("tree", "rw");
    bundle.host_tmpfs("tree/sub", options);
    let changed = Command::new("mount").args(["-o", &format!("remount,bind,{options}")]).arg(outer).status();
    assert!(changed.is_ok_and(|status| status.success()));
    bundle
}

#[track_caller]
fn bound(bundle: &mut Bundle, words: &[&str]) -> Vec<Mounted> {
    bundle.mount("/m", "none", "tree", words).mounts()
}

#[test]
fn word_bind() {
    let mounts = bound(&mut tree("rw"), &["bind"]);
    assert_eq!(mount_at(&mounts, "/m").fstype, "tmpfs");
    assert!(!mounts.iter().any(|mount| mount.point == "/m/sub"), "what is below came too");
}

#[test]
fn word_rbind() {
    let mounts = bound(&mut tree("rw"), &["rbind"]);
    assert_eq!(mount_at(&mounts, "/m/sub").fstype, "tmpfs");
}

/// What each mount of a bound tree shows of its propagation. The tree is in peer groups of the host's, and the root of
/// the container does not cut it off.
#[track_caller]
fn propagation(word: &str) -> Vec<String> {
    let mut bundle = tree("rw");
    for dir in ["tree", "tree/sub"] {
        let made = Command::new("mount").arg("--make-shared").arg(bundle.dir.join(dir)).status();
        assert!(made.is_ok_and(|status| status.success()));
    }
    bundle.set("/linux/rootfsPropagation", "slave");
    let mounts = bound(&mut bundle, &["rbind", word]);
    ["/m", "/m/sub"].map(|point| mount_at(&mounts, point).propagation.join(" ")).to_vec()
}

/// The mount of that word, and all below it if the word is one for the tree.
#[track_caller]
fn propagates(word: &str, is_so: fn(&str) -> bool) {
    let mounts = propagation(word);
    let reached = if word.starts_with('r') { &mounts[..] } else { &mounts[..1] };
    assert!(reached.iter().all(|mount| is_so(mount)), "{word}: {mounts:?}");
}

#[test]
fn word_shared() {
    propagates("shared", |mount| mount.contains("shared:"));
}

#[test]
fn word_rshared() {
    propagates("rshared", |mount| mount.contains("shared:"));
}

#[test]
fn word_slave() {
    propagates("slave", |mount| mount.contains("master:") && !mount.contains("shared:"));
}

#[test]
fn word_rslave() {
    propagates("rslave", |mount| mount.contains("master:") && !mount.contains("shared:"));
}

#[test]
fn word_private() {
    propagates("private", str::is_empty);
}

#[test]
fn word_rprivate() {
    propagates("rprivate", str::is_empty);
}

#[test]
fn word_unbindable() {
    propagates("unbindable", |mount| mount == "unbindable");
}

#[test]
fn word_runbindable() {
    propagates("runbindable", |mount| mount == "unbindable");
}

/// On a tree that has the opposite, as `host` mounted it: both mounts show `option`, or neither.
#[track_caller]
fn whole_tree(word: &str, host: &str, option: &str, is_set: bool) {
    let mounts = bound(&mut tree(host), &["rbind", word]);
    for point in ["/m", "/m/sub"] {
        assert_eq!(mount_at(&mounts, point).has(option), is_set, "{word} and {option} at {point}");
    }
}

words! {
    fn word_ratime: whole_tree("ratime", "noatime", "noatime", false);
    fn word_rdev: whole_tree("rdev", "nodev", "nodev", false);
    fn word_rdiratime: whole_tree("rdiratime", "nodiratime", "nodiratime", false);
    fn word_rexec: whole_tree("rexec", "noexec", "noexec", false);
    fn word_rnoatime: whole_tree("rnoatime", "rw", "noatime", true);
    fn word_rnodiratime: whole_tree("rnodiratime", "rw", "nodiratime", true);
    fn word_rnoexec: whole_tree("rnoexec", "rw", "noexec", true);
    fn word_rnorelatime: whole_tree("rnorelatime", "rw", "noatime", false);
    fn word_rnostrictatime: whole_tree("rnostrictatime", "strictatime", "noatime", false);
    fn word_rnosuid: whole_tree("rnosuid", "rw", "nosuid", true);
    fn word_rnosymfollow: whole_tree("rnosymfollow", "rw", "nosymfollow", true);
    fn word_rrelatime: whole_tree("rrelatime", "noatime", "relatime", true);
    fn word_rro: whole_tree("rro", "rw", "ro", true);
    fn word_rrw: whole_tree("rrw", "ro", "ro", false);
    fn word_rstrictatime: whole_tree("rstrictatime", "noatime", "noatime", false);
    fn word_rsuid: whole_tree("rsuid", "nosuid", "nosuid", false);
    fn word_rsymfollow: whole_tree("rsymfollow", "nosymfollow", "nosymfollow", false);
}

#[test]
fn a_word_of_mount_does_what_mount_says_of_it() {
    // rnodev, which the table of the spec leaves out
    whole_tree("rnodev", "rw", "nodev", true);
}

#[test]
fn an_unknown_word_reaches_the_file_system() {
    let mount = tmpfs(&["mode=711", "nr_inodes=99"]);
    assert!(mount.filesystem_has("mode=711") && mount.filesystem_has("nr_inodes=99"), "{mount:?}");
}
