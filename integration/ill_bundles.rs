//! Ill and hostile bundles: what `create` refuses of them `check` foresees by the same field, and what it takes `check`
//! does not refuse.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use serde_json::json;

use crate::bundle::Bundle;
use crate::leftovers::Leftovers;
use crate::mapped::{POD, in_pod_of, infra, mapped};
use crate::net_devices::Network;
use crate::runtime::run;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Runs,
    /// By both, and by this field.
    Refused(&'static str),
    /// By `create` alone: only the finished container tells.
    Unforeseen(&'static str),
}
use Verdict::{Refused, Runs, Unforeseen};

type Row = (&'static str, Verdict, fn(&mut Bundle));

fn refused_field(line: &str) -> Option<&str> {
    let line = line.strip_prefix("config.json: ").unwrap_or(line);
    line.split([':', ' ']).next()
}

/// Mounts of the bundle's own stay.
fn leaves_nothing(bundle: &Bundle) {
    let left = Leftovers::after(Duration::from_secs(5), &bundle.id, &bundle.state_root);
    assert_eq!(left, Leftovers { mounts: left.mounts.clone(), ..Leftovers::default() });
}

fn verdict(bundle: &Bundle) -> (Option<String>, Vec<String>, String) {
    bundle.write_config();
    let checked = run(&mut bundle.command_on_config_as_it_is(&["check"]));
    leaves_nothing(bundle);
    let created = run(&mut bundle.command_on_config_as_it_is(&["create", &bundle.id]));
    let refusal = match created.code {
        0 => None,
        _ => Some(created.stderr.trim().trim_start_matches(&format!("create {}: ", bundle.id)).to_string()),
    };
    bundle.delete_force().ok();
    leaves_nothing(bundle);
    let field = refusal.as_deref().and_then(refused_field).map(String::from);
    let problems = checked.stdout.lines().filter_map(|line| line.strip_prefix("problem: "));
    let problems: Vec<_> = problems.filter_map(refused_field).map(String::from).collect();
    (field, problems, format!("create: {refusal:?}\ncheck: {}", checked.stdout))
}

#[track_caller]
fn agrees(name: &str, want: Verdict, bundle: &Bundle) -> Result<(), String> {
    let (field, problems, said) = verdict(bundle);
    let got = match field.as_deref() {
        None if problems.is_empty() => want == Runs,
        None => false,
        Some(field) => match want {
            Runs => false,
            Refused(wanted) => field == wanted && problems.iter().any(|problem| problem == wanted),
            Unforeseen(wanted) => field == wanted && problems.is_empty(),
        },
    };
    if got { Ok(()) } else { Err(format!("{name}: {want:?}\n{said}")) }
}

fn tree(bundle: &Bundle, name: &str) -> std::path::PathBuf {
    let file = bundle.host_file(&format!("{name}/file"), "x");
    fs::create_dir(file.parent().unwrap().join("dir")).unwrap();
    symlink("nowhere/else", file.parent().unwrap().join("link")).unwrap();
    symlink("/bin/busybox", file.parent().unwrap().join("program")).unwrap();
    file.parent().unwrap().to_path_buf()
}

/// With a program in it.
fn volume(bundle: &Bundle) -> std::path::PathBuf {
    let program = bundle.host_file("volume/run", "#!/bin/busybox true\n");
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    program.parent().unwrap().to_path_buf()
}

fn node(path: &Path, minor: u64) {
    mknod(path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, minor)).unwrap();
}

fn device(bundle: &mut Bundle, path: &str) {
    bundle.set("/linux/devices", json!([{"path": path, "type": "c", "major": 1, "minor": 3}]));
}

const PLACES: &[Row] = &[
    ("a directory on a file of a volume", Refused("mounts[5]"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).mount("/data/file", "tmpfs", "tmpfs", &[]);
    }),
    ("a file on a directory of a volume", Refused("mounts[5]"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).bind(&tree.join("file"), "/data/dir", &[]);
    }),
    ("below a file of a volume", Refused("mounts[5]"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).mount("/data/file/x", "tmpfs", "tmpfs", &[]);
    }),
    ("a place of a volume", Runs, |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).mount("/data/dir/new", "tmpfs", "tmpfs", &[]);
    }),
    ("below a file that is mounted", Refused("mounts[5]"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree.join("file"), "/f", &[]).mount("/f/x", "tmpfs", "tmpfs", &[]);
    }),
    ("a file over a mounted file", Runs, |b| {
        let tree = tree(b, "tree");
        b.bind(&tree.join("file"), "/f", &[]).bind(&tree.join("file"), "/f", &[]);
    }),
    ("a tmpfs over a mounted file", Refused("mounts[5]"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree.join("file"), "/f", &[]).mount("/f", "tmpfs", "tmpfs", &[]);
    }),
    ("a new place in a read-only volume", Refused("mounts[5]"), |b| {
        let tree = b.host_tmpfs("ro", "ro");
        b.bind(&tree, "/data", &[]).mount("/data/new", "tmpfs", "tmpfs", &[]);
    }),
    ("a new place in a read-only tmpfs", Runs, |b| {
        b.mount("/data", "tmpfs", "tmpfs", &["ro"]).mount("/data/new", "tmpfs", "tmpfs", &[]);
    }),
    ("a new place in a volume mounted read-only", Refused("mounts[5]"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &["ro"]).mount("/data/new", "tmpfs", "tmpfs", &[]);
    }),
    ("a place that is there in a volume mounted read-only", Runs, |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &["ro"]).mount("/data/dir", "tmpfs", "tmpfs", &[]);
    }),
    ("a new place in sysfs", Refused("mounts[4]"), |b| {
        b.mount("/sys/nosuch", "tmpfs", "tmpfs", &[]);
    }),
    ("a place in sysfs", Runs, |b| {
        b.mount("/sys/firmware", "tmpfs", "tmpfs", &[]);
    }),
    ("a new place in proc", Refused("mounts[4].destination"), |b| {
        b.mount("/proc/nosuch", "tmpfs", "tmpfs", &[]);
    }),
    ("the root", Refused("mounts[4].destination"), |b| {
        b.mount("/", "tmpfs", "tmpfs", &[]);
    }),
    ("through a symlink of a volume", Runs, |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).mount("/data/link", "tmpfs", "tmpfs", &[]);
    }),
    ("an overlay of nothing", Refused("mounts[4]"), |b| {
        b.mount("/data", "overlay", "overlay", &["lowerdir=/no/such/lower"]);
    }),
];

const DEVICES: &[Row] = &[
    ("another number", Refused("linux.devices[0]"), |b| {
        node(&b.rootfs("/mine"), 5);
        device(b, "/mine");
    }),
    ("the same number", Runs, |b| {
        node(&b.rootfs("/mine"), 3);
        device(b, "/mine");
    }),
    ("a file", Refused("linux.devices[0]"), |b| {
        b.image_file("mine", "x");
        device(b, "/mine");
    }),
    ("a symlink", Refused("linux.devices[0]"), |b| {
        symlink("/bin/busybox", b.rootfs("/mine")).unwrap();
        device(b, "/mine");
    }),
    ("a FIFO", Refused("linux.devices[0]"), |b| {
        mkfifo(&b.rootfs("/mine"), Mode::from_bits_truncate(0o600)).unwrap();
        device(b, "/mine");
    }),
    ("a symlink above", Refused("linux.devices[0]"), |b| {
        symlink("/tmp", b.rootfs("/way")).unwrap();
        device(b, "/way/mine");
    }),
    ("below a file", Refused("linux.devices[0]"), |b| {
        device(b, "/bin/busybox/mine");
    }),
    ("in a volume with another number", Refused("linux.devices[0]"), |b| {
        let tree = tree(b, "tree");
        node(&tree.join("mine"), 5);
        b.bind(&tree, "/data", &[]);
        device(b, "/data/mine");
    }),
    ("in a volume", Runs, |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]);
        device(b, "/data/mine");
    }),
    ("in a tmpfs", Runs, |b| device(b, "/dev/deep/mine")),
    ("in sysfs", Refused("linux.devices[0]"), |b| device(b, "/sys/mine")),
    ("in proc", Refused("linux.devices[0]"), |b| device(b, "/proc/mine")),
];

const PROGRAM: &[Row] = &[
    ("missing", Refused("process.args"), |b| {
        b.args(&["nosuch"]);
    }),
    ("a directory", Refused("process.args"), |b| {
        b.args(&["/tmp"]);
    }),
    ("not executable", Refused("process.args"), |b| {
        fs::write(b.rootfs("/plain"), "x").unwrap();
        b.args(&["/plain"]);
    }),
    ("a circle of symlinks", Refused("process.args"), |b| {
        symlink("circle", b.rootfs("/circle")).unwrap();
        b.args(&["/circle"]);
    }),
    ("an interpreter that is missing", Refused("process.args"), |b| {
        b.image_file("script", "#!/no/such\n");
        b.args(&["/script"]);
    }),
    ("missing in a volume", Refused("process.args"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).args(&["/data/nosuch"]);
    }),
    ("of a volume", Runs, |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).args(&["/data/program"]);
    }),
    ("covered by a volume", Refused("process.args"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/bin", &[]).args(&["true"]);
    }),
    ("covered by a tmpfs", Refused("process.args"), |b| {
        b.mount("/bin", "tmpfs", "tmpfs", &[]).args(&["/bin/busybox"]);
    }),
    ("not executable in a volume", Refused("process.args"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).args(&["/data/file"]);
    }),
    ("of a volume from which nothing is executed", Refused("process.args"), |b| {
        let volume = volume(b);
        b.bind(&volume, "/data", &["noexec"]).args(&["/data/run"]);
    }),
    ("by PATH in a volume", Runs, |b| {
        let volume = volume(b);
        b.bind(&volume, "/data", &[]).set("/process/env", json!(["PATH=/nosuch:/data"])).args(&["run"]);
    }),
    ("by a symlink of the image into a volume", Runs, |b| {
        let volume = volume(b);
        symlink("/data", b.rootfs("/way")).unwrap();
        b.bind(&volume, "/data", &[]).args(&["/way/run"]);
    }),
    ("a network device that is missing", Refused("linux.netDevices.rt-nosuch"), |b| {
        b.set("/linux/netDevices", json!({"rt-nosuch": {}}));
    }),
    ("below proc", Unforeseen("process.args"), |b| {
        b.args(&["/proc/version"]);
    }),
    ("a directory to work in that is a file", Refused("process.cwd"), |b| {
        b.set("/process/cwd", "/bin/busybox");
    }),
    ("a directory to work in below a file", Refused("process.cwd"), |b| {
        b.set("/process/cwd", "/bin/busybox/x");
    }),
    ("a directory to work in that is a file of a volume", Refused("process.cwd"), |b| {
        let tree = tree(b, "tree");
        b.bind(&tree, "/data", &[]).set("/process/cwd", "/data/file");
    }),
    ("a limit above that of the kernel", Refused("process.rlimits"), |b| {
        b.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 1u64 << 40, "hard": 1u64 << 40}]));
    }),
];

const MASKS: &[Row] = &[
    ("a mask below a file", Runs, |b| {
        b.set("/linux/maskedPaths", json!(["/bin/busybox/x"]));
    }),
    ("a mask through a circle", Refused("linux.maskedPaths"), |b| {
        symlink("circle", b.rootfs("/circle")).unwrap();
        b.set("/linux/maskedPaths", json!(["/circle/x"]));
    }),
    ("a mask of a FIFO", Runs, |b| {
        mkfifo(&b.rootfs("/fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        b.set("/linux/maskedPaths", json!(["/fifo"]));
    }),
    ("a read-only path through a circle", Refused("linux.readonlyPaths"), |b| {
        symlink("circle", b.rootfs("/circle")).unwrap();
        b.set("/linux/readonlyPaths", json!(["/circle/x"]));
    }),
    ("a root that is a file", Refused("root.path"), |b| {
        b.set("/root/path", "config.json");
    }),
    ("the host's root", Runs, |b| {
        b.set("/root/path", "rootfs/../rootfs");
    }),
    ("a user that has no map", Refused("process.user.uid"), |b| {
        let taken = std::mem::replace(b, Bundle::new());
        *b = mapped(taken);
        b.set("/process/user/uid", 70_000);
    }),
    ("a sysctl that is none", Refused("linux.sysctl"), |b| {
        b.set("/linux/sysctl", json!({"net.ipv4.nosuch": "1"}));
    }),
    ("a sysctl of a bad value", Refused("linux.sysctl"), |b| {
        b.set("/linux/sysctl", json!({"kernel.msgmax": "many"}));
    }),
];

/// systemd need not be there: of a unit its name is looked at.
#[test]
fn names_of_units() {
    need!(rrun);
    for (path, ok) in [
        ("system.slice:rrun:c1", true),
        ("no-slice", false),
        ("a.b:rrun:c1", false),
        ("system.slice:rrun:", false),
        ("system.slice:a/b:c1", false),
        ("system.slice::-.slice", false),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("/linux/cgroupsPath", path).write_config();
        let output = run(&mut bundle.command_on_config_as_it_is(&["--systemd-cgroup", "check"]));
        let told = output.stdout.contains("problem: linux.cgroupsPath: ");
        assert_eq!((output.code == 0, told), (ok, !ok), "{output}");
    }
}

fn all(rows: &[Row]) {
    need!(rrun);
    let mut wrong = Vec::new();
    for (name, want, change) in rows {
        let mut bundle = Bundle::new();
        change(&mut bundle);
        wrong.extend(agrees(name, *want, &bundle).err());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn places_of_mounts() {
    all(PLACES);
}

#[test]
fn devices() {
    all(DEVICES);
}

#[test]
fn programs_and_their_surroundings() {
    all(PROGRAM);
}

#[test]
fn masks_roots_and_sysctls() {
    all(MASKS);
}

/// By a path that names no process, too.
#[test]
fn joined_namespaces() {
    need!(rrun);
    let (pod, infra) = (Network::new(), infra());
    let in_network = |sysctl: serde_json::Value| {
        let mut bundle = Bundle::new();
        bundle.without_namespace("network");
        bundle.set("/linux/namespaces/-", json!({"type": "network", "path": pod.path()})).set("/linux/sysctl", sysctl);
        bundle
    };
    let pinned = |file: &str| {
        let mut bundle = in_pod_of(&infra, Bundle::new(), &POD);
        let pin = bundle.host_pin("pin", &format!("/proc/{}/ns/user", infra.pid()));
        let link = bundle.dir.join("link");
        symlink(&pin, &link).unwrap();
        let path = if file == "link" { link } else { pin };
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        let user = namespaces.iter_mut().find(|namespace| namespace["type"] == "user").unwrap();
        user["path"] = json!(path);
        bundle
    };
    let without_id = |file: &str| {
        let mut bundle = pinned(file);
        bundle.set("/process/user/uid", 70_000);
        bundle
    };
    let with_other_maps = |file: &str| {
        let mut bundle = pinned(file);
        let maps = json!([{"containerID": 0, "hostID": 5, "size": 9}]);
        bundle.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
        bundle
    };
    let rows = [
        ("a sysctl", Runs, in_network(json!({"net.ipv4.ip_forward": "1"}))),
        ("a sysctl that is none", Refused("linux.sysctl"), in_network(json!({"net.ipv4.nosuch": "1"}))),
        ("a sysctl of a bad value", Unforeseen("linux.sysctl"), in_network(json!({"net.ipv4.ip_forward": "many"}))),
        ("a pin", Runs, pinned("pin")),
        ("a symlink to a pin", Runs, pinned("link")),
        ("an id that a pin lacks", Refused("process.user.uid"), without_id("pin")),
        ("an id that a pin lacks, by a symlink", Refused("process.user.uid"), without_id("link")),
        ("other maps than a pin's", Refused("linux.uidMappings"), with_other_maps("pin")),
    ];
    let wrong: Vec<_> = rows.iter().filter_map(|(name, want, bundle)| agrees(name, *want, bundle).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
