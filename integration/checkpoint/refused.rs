//! What cannot be dumped or restored: one clear line, and all is as it was.

use serde_json::json;

use super::{checkpoint, count, counting, dump, goes_on, quietly, run};
use crate::bundle::Bundle;

#[test]
fn only_what_runs_can_be_dumped() {
    guest!();
    let bundle = Bundle::sleeping();
    checkpoint(&bundle, &[]).refused(&["container does not exist"]);
    bundle.create().ok();
    checkpoint(&bundle, &[]).refused(&["cannot be checkpointed in created state"]);
    bundle.start().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    checkpoint(&bundle, &[]).refused(&["cannot be checkpointed in stopped state"]);
    assert!(!bundle.dir.join("checkpoint").exists());
}

#[test]
fn flags_that_make_no_sense_are_told() {
    guest!();
    let bundle = counting();
    run(&bundle);
    let beside = bundle.dir.join("beside");
    for (flags, want) in [
        (&["--parent-path", beside.to_str().unwrap()][..], "--parent-path: "),
        (&["--parent-path", "../beside"], "--parent-path: "),
        (&["--page-server", "here"], "--page-server: here is no address"),
        (&["--manage-cgroups-mode", "hard"], "--manage-cgroups-mode: hard is not known; use one of soft, full"),
        (&["--network-lock", "off"], "--network-lock: off is not known"),
        (&["--empty-ns", "mount"], "--empty-ns: mount cannot be left empty"),
        (&["--lazy-pages", "--status-fd", "77"], "--status-fd: descriptor 77 is not open"),
    ] {
        checkpoint(&bundle, flags).refused(&[want]);
    }
    assert_eq!(bundle.status(), "running");
    goes_on(&bundle, count(&bundle));
}

// the file that stdout leads to is no file of the container's
#[test]
fn what_criu_cannot_take_along_is_told_in_its_words_and_goes_on() {
    guest!();
    let bundle = counting();
    bundle.run_detached().ok();
    let stood = count(&bundle);
    let output = checkpoint(&bundle, &[]);
    output.refused(&["criu: ", "; see ", "/checkpoint/dump.log"]);
    assert_eq!(bundle.status(), "running");
    goes_on(&bundle, stood);
}

#[test]
fn a_restore_wants_a_free_id_and_images() {
    guest!();
    let bundle = counting();
    let refused = |flags: &[&str], wants: &[&str]| {
        let args = [&["restore", "-d"], flags, &[bundle.id.as_str()]].concat();
        let (code, said) = quietly(&bundle, &args, None);
        assert_eq!(code, 1, "{said}");
        for want in wants {
            assert!(said.contains(want), "does not say `{want}`: {said}");
        }
    };
    refused(&[], &["--image-path: open ", "/checkpoint: "]);
    std::fs::create_dir(bundle.dir.join("checkpoint")).unwrap();
    refused(&[], &["criu: "]);
    bundle.leaves_nothing();
    run(&bundle);
    refused(&[], &["container with given ID already exists"]);
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_config_that_criu_cannot_follow_is_refused() {
    guest!();
    let mut bundle = counting();
    bundle.without_namespace("mount").unset("/mounts").unset("/linux/maskedPaths").unset("/linux/readonlyPaths");
    run(&bundle);
    checkpoint(&bundle, &[]).refused(&["linux.namespaces: criu needs a container with a mount namespace of its own"]);
}

#[test]
fn settings_for_criu_are_roots_to_permit() {
    guest!();
    need!(rrun);
    let mut bundle = counting();
    let settings = bundle.host_file("settings", "log-file=other.log\n");
    bundle.set("/annotations", json!({"org.criu.config": settings}));
    run(&bundle);
    checkpoint(&bundle, &[])
        .refused(&["annotations.org.criu.config: has criu do what a file says; root may permit it"]);
    std::fs::create_dir_all("/etc/rrun").unwrap();
    std::fs::write("/etc/rrun/annotations", "org.criu.config\n").unwrap();
    std::os::unix::fs::chown(&settings, Some(1000), None).unwrap();
    checkpoint(&bundle, &[]).refused(&["annotations.org.criu.config: ", "a file that root owns"]);
    std::os::unix::fs::chown(&settings, Some(0), None).unwrap();
    dump(&bundle, &[]);
    std::fs::remove_file("/etc/rrun/annotations").unwrap();
    assert!(bundle.dir.join("checkpoint/other.log").exists());
}

#[test]
fn a_host_without_criu_says_what_to_install() {
    guest!();
    need!(rrun);
    let bundle = counting();
    run(&bundle);
    let mut command = bundle.command(&["checkpoint", &bundle.id]);
    let output = crate::runtime::run(command.env("PATH", bundle.dir.to_str().unwrap()));
    output.refused(&["criu: not in ", "install the package criu"]);
    assert_eq!(bundle.status(), "running");
}
