//! `check`: all that is in the way of a bundle, told at once, with nothing made. That it tells whatever `create` refuses
//! is part of every test of a refusal: `refusals::foreseen`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::runtime::{self, Output};

fn check(bundle: &Bundle, flags: &[&str]) -> Output {
    bundle.write_config();
    runtime::run(&mut bundle.command_on_config_as_it_is(&[&["check"], flags].concat()))
}

fn verdict(bundle: &Bundle) -> Value {
    let output = check(bundle, &["--format", "json"]);
    let verdict: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output}"));
    assert_eq!(output.code, i32::from(verdict["ok"] == false), "{output}");
    verdict
}

fn fields(findings: &Value) -> Vec<&str> {
    findings.as_array().unwrap().iter().map(|finding| finding["field"].as_str().unwrap_or("")).collect()
}

#[test]
fn a_good_bundle_is_said_to_be_one() {
    need!(rrun);
    for bundle in [Bundle::new(), mapped(Bundle::new())] {
        let output = check(&bundle, &[]);
        assert_eq!(output.ok(), format!("ok: {} would run here\n", bundle.dir.display()));
        bundle.leaves_nothing();
        bundle.run().ok();
    }
}

/// Eight of the config alone, and as many that only this host and this image tell.
#[test]
fn every_problem_is_told_at_once() {
    need!(rrun);
    let mut bundle = Bundle::new();
    bundle.set("/hostname", "x".repeat(65)).set("/process/user/uid", u32::MAX).set("/process/umask", 0);
    bundle.set("/process/oomScoreAdj", 2000).set("/linux/rootfsPropagation", "everywhere");
    bundle.set("/linux/maskedPaths", json!(["relative"])).set("/linux/resources/cpu", json!({"period": 7}));
    bundle.set("/linux/devices", json!([{"path": "/dev/x", "type": "z"}])).set("/annotations/a", 1);
    bundle.set("/process/cwd", "/bin/busybox").args(&["no-such-program"]);
    bundle.bind(Path::new("/no/such/source"), "/data", &[]).mount("/more", "tmpfs", "tmpfs", &["sizzle=1"]);
    bundle.mount("/bin/busybox", "tmpfs", "tmpfs", &[]).mount("/none", "nosuchfs", "none", &[]);
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "many", "kernel.core_pattern": "x"}));
    bundle.set("/hooks/poststart", json!([{"path": "/no/such/hook"}]));
    let verdict = verdict(&bundle);
    let found = fields(&verdict["problems"]);
    let mut wanted = vec![
        "annotations.a",
        "hooks.poststart[0].path",
        "hostname",
        "linux.devices[0].type",
        "linux.maskedPaths[0]",
        "linux.resources.cpu.period",
        "linux.rootfsPropagation",
        "linux.sysctl",
        "mounts[4]",
        "mounts[5]",
        "mounts[6]",
        "mounts[7]",
        "process.args",
        "process.oomScoreAdj",
        "process.user.uid",
    ];
    wanted.retain(|wanted| !found.contains(wanted));
    assert!(wanted.is_empty(), "{wanted:?} are not in {verdict:#}");
    let texts = verdict["problems"].to_string();
    for words in ["kernel.core_pattern", "ip_forward", "/bin/busybox", "write it from /", "nosuchfs"] {
        assert!(texts.contains(words), "{words}: {verdict:#}");
    }
    assert_eq!(found.len(), 17, "{verdict:#}");
    bundle.leaves_nothing();
}

#[test]
fn a_warning_is_no_problem() {
    need!(rrun);
    let mut bundle = Bundle::new();
    bundle.set("/process/capabilities/bounding/-", "CAP_MOON").set("/process/rlimits", json!([]));
    bundle.set("/hooks/poststop", json!([{"path": "/no/such/hook"}]));
    let output = check(&bundle, &[]);
    assert!(output.ok().contains("warning: process.capabilities.bounding: CAP_MOON: not known"), "{output}");
    assert!(output.stdout.contains("warning: hooks.poststop[0].path: exec /no/such/hook"), "{output}");
    let verdict = verdict(&bundle);
    assert_eq!((&verdict["ok"], verdict["problems"].as_array().unwrap().len()), (&json!(true), 0), "{verdict:#}");
    assert_eq!(fields(&verdict["warnings"]), ["hooks.poststop[0].path", "process.capabilities.bounding"]);
}

/// To open one would wait for its writer, and some devices act on it.
#[test]
fn what_is_no_program_is_told_without_being_opened() {
    need!(rrun);
    let mut bundle = Bundle::new();
    let fifo = bundle.dir.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    bundle.set("/hooks/prestart", json!([{"path": fifo}, {"path": "/dev/null"}]));
    let output = check(&bundle, &[]);
    assert_eq!(output.stdout.matches(" is no regular file; name a program\n").count(), 2, "{output}");
}

// a mount or a hook may bring it
#[test]
fn what_only_the_finished_container_has_is_not_missed() {
    need!(rrun);
    let mut bundle = Bundle::new();
    let program = bundle.host_file("tools/program", "#!/bin/sh\necho ran\n");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.bind(program.parent().unwrap(), "/opt", &[]).args(&["/opt/program"]);
    let ok = format!("ok: {} would run here\n", bundle.dir.display());
    assert_eq!(check(&bundle, &[]).ok(), ok);
    assert_eq!(bundle.run().ok(), "ran\n");
    bundle.set("/mounts/4/options", json!(["bind"])).mount("/opt", "overlay", "overlay", &["lowerdir=/usr:/etc"]);
    let output = check(&bundle, &[]);
    assert!(output.ok().contains("warning: process.args: exec: \"/opt/program\""), "{output}");
    assert!(output.stdout.contains("mounts[4] mounts on /opt"), "{output}");
    bundle.unset("/mounts/5").unset("/mounts/4").set("/hooks/createRuntime", json!([{"path": "/bin/true"}]));
    assert!(check(&bundle, &[]).ok().contains("a hook may bring it"));
}

// without CAP_SYS_RESOURCE it can only go up
#[test]
fn a_lower_oom_score_without_the_right_to_it_is_foreseen() {
    need!(rrun);
    let mut bundle = Bundle::new();
    let without = |bundle: &Bundle, args: &[&str]| {
        bundle.write_config();
        let rrun = bundle.command_on_config_as_it_is(args);
        let mut command = std::process::Command::new("setpriv");
        command.args(["--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", "--"]);
        command
            .arg(rrun.get_program())
            .args(rrun.get_args())
            .current_dir(rrun.get_current_dir().unwrap_or(&bundle.dir));
        crate::runtime::run(&mut command)
    };
    for (value, refused) in [(-1000, true), (1000, false)] {
        bundle.set("/process/oomScoreAdj", value);
        let output = without(&bundle, &["check"]);
        assert_eq!(output.stdout.contains("problem: process.oomScoreAdj: "), refused, "{output}");
        let output = without(&bundle, &["create", &bundle.id]);
        assert_eq!(output.code != 0 && output.stderr.contains("process.oomScoreAdj: "), refused, "{output}");
        bundle.delete_force().ok();
    }
    // rrun's own rights
    bundle.set("/process/oomScoreAdj", -1000);
    assert_eq!(check(&bundle, &[]).code == 0, bundle.create().code == 0);
}

#[test]
fn places_are_followed_through_the_image() {
    need!(rrun);
    let mut bundle = Bundle::new();
    std::os::unix::fs::symlink("/bin/busybox", bundle.rootfs("to-file")).unwrap();
    std::os::unix::fs::symlink("../etc", bundle.rootfs("to-etc")).unwrap();
    std::os::unix::fs::symlink("loop", bundle.rootfs("loop")).unwrap();
    bundle.mount("/to-file", "tmpfs", "tmpfs", &[]).mount("/to-etc/new", "tmpfs", "tmpfs", &[]);
    bundle.mount("/loop/x", "tmpfs", "tmpfs", &[]).mount("/to-etc/new/file", "tmpfs", "tmpfs", &[]);
    let verdict = verdict(&bundle);
    assert_eq!(fields(&verdict["problems"]), ["mounts[4]", "mounts[6]"], "{verdict:#}");
    let mut bundle = Bundle::new();
    bundle.mount("/data", "tmpfs", "tmpfs", &[]).set("/process/cwd", "/data/made");
    assert_eq!(check(&bundle, &[]).code, 0);
}

#[test]
fn a_bundle_that_is_none_is_a_problem_like_any() {
    need!(rrun);
    let bundle = Bundle::new();
    let output = bundle.call(&["check", "--format", "json", "/no/such/bundle"]);
    assert_eq!((output.code, output.stderr.as_str()), (1, ""), "{output}");
    let verdict: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(fields(&verdict["problems"]), ["--bundle"], "{output}");
    let output = bundle.call(&["check", "--format", "xml"]);
    assert!(output.error().contains("xml is neither text nor json"), "{output}");
}

/// What managers write runs where its volumes, hooks and namespaces are: what is missing is named, and nothing else.
#[test]
fn configs_of_managers_lack_only_what_is_theirs() {
    need!(rrun);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if !entry.to_str().unwrap().ends_with(".config.json") {
            continue;
        }
        let mut bundle = Bundle::new();
        let path = bundle.config["linux"]["cgroupsPath"].clone();
        bundle.config = serde_json::from_slice(&fs::read(&entry).unwrap()).unwrap();
        bundle.set("/root/path", "rootfs").set("/linux/cgroupsPath", path);
        let verdict = verdict(&bundle);
        for problem in verdict["problems"].as_array().unwrap() {
            let (field, reason) = (problem["field"].as_str().unwrap_or(""), problem["reason"].as_str().unwrap());
            let known = match field {
                "process.args" => reason.contains("exec: \""),
                "process.rlimits" => reason.contains("is above the present"),
                field if field.starts_with("hooks.") => reason.contains("exec /"),
                field if field.starts_with("mounts[") => {
                    reason.contains("open_tree /") && reason.contains("no such file or directory")
                }
                field if field.starts_with("linux.namespaces[") => reason.contains("open /"),
                field if field.starts_with("linux.resources.") => reason.contains("this host has no"),
                "root.path" => reason.contains("root of the user namespace"),
                _ => false,
            };
            assert!(known, "{}: {problem:#}", entry.display());
        }
        count += 1;
    }
    assert!(count >= 20, "only {count} configs");
}
