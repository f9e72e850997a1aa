//! What hostile images and programs try: the runtime's own binary, its open files, and paths that mean something else.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::leftovers::{self, is_alive};
use crate::runtime::{self, eventually_within, on_rrun};
use crate::tty::ConsoleSocket;

/// A copy of the runtime that may be spoilt. Made by another process: a file that this one has open for writing may be
/// so in a child of another test for a moment, and then nobody can execute it.
fn copy_of_the_runtime(bundle: &Bundle) -> PathBuf {
    let copy = bundle.dir.join("runtime-copy");
    assert!(Command::new("cp").arg(runtime::path()).arg(&copy).status().unwrap().success());
    copy
}

fn command_of(copy: &Path, bundle: &Bundle, args: &[&str]) -> Command {
    let usual = bundle.command(args);
    let mut command = Command::new(copy);
    command.args(usual.get_args()).envs(usual.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(&bundle.dir);
    command
}

/// The attack: somebody holds the file that a process runs, and waits until it is no longer busy. While it runs
/// everything says ETXTBSY, which proves nothing.
struct Held(File);

impl Held {
    fn of(pid: i32) -> Self {
        Self(File::open(format!("/proc/{pid}/exe")).unwrap())
    }

    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    /// The ways in that worked.
    fn ways_in(&self, dir: &Path) -> Vec<&'static str> {
        let (path, other) = (self.path(), dir.join("other-name"));
        File::create(&other).unwrap();
        let bound = || Command::new("mount").arg("--bind").args([&path, &other]).stderr(Stdio::null()).status();
        let mut ways = Vec::new();
        if OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write_all(b"spoilt")).is_ok() {
            ways.push("write");
        }
        if OpenOptions::new().write(true).truncate(true).open(&path).is_ok() {
            ways.push("truncate");
        }
        if fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).is_ok() {
            ways.push("chmod");
        }
        if bound().is_ok_and(|status| status.success()) {
            if OpenOptions::new().write(true).open(&other).is_ok() {
                ways.push("bind and write");
            }
            nix::mount::umount(&other).unwrap();
        }
        ways
    }
}

fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    assert!(eventually_within(Duration::from_secs(5), || (!is_alive(pid)).then_some(())).is_some());
}

/// What an attacker gets of the init that waits for its start, and that is still the runtime.
fn attack_on_init(environment: &[(&str, &str)]) -> Vec<&'static str> {
    let bundle = Bundle::sleeping();
    let copy = copy_of_the_runtime(&bundle);
    let mut create = command_of(&copy, &bundle, &["create", &bundle.id]);
    runtime::run(create.envs(environment.iter().copied())).ok();
    let init = bundle.pid();
    let held = Held::of(init);
    end(init);
    let ways = held.ways_in(&bundle.dir);
    let same = fs::read(&copy).unwrap() == fs::read(runtime::path()).unwrap();
    assert!(same || !ways.is_empty(), "changed without a way in");
    ways
}

// CVE-2019-5736
#[test]
fn nobody_writes_to_the_runtime_through_its_init() {
    assert_eq!(attack_on_init(&[]), [""; 0]);
}

#[test]
fn nobody_writes_to_the_runtime_through_its_sealed_copy() {
    need!(rrun);
    // the mode is the copy's own, and the file's stays as it is
    let ways = attack_on_init(&[("RRUN_SEAL", "memfd")]);
    assert!(ways.iter().all(|way| *way == "chmod"), "{ways:?}");
}

#[test]
fn nobody_writes_to_the_runtime_through_a_foreground_run() {
    need!(rrun); // elsewhere it is no part of the protection: it does not enter the container
    let bundle = Bundle::sleeping();
    let copy = copy_of_the_runtime(&bundle);
    let mut run = command_of(&copy, &bundle, &["run", &bundle.id]).stdin(Stdio::null()).spawn().unwrap();
    bundle.wait_until("running");
    let held = Held::of(run.id() as i32);
    bundle.kill("KILL").ok();
    run.wait().unwrap();
    assert_eq!(held.ways_in(&bundle.dir), [""; 0]);
    assert!(fs::read(&copy).unwrap() == fs::read(runtime::path()).unwrap());
}

// the control: without it the tests above could be passing for the wrong reason
#[test]
fn the_attack_works_on_a_process_that_is_not_protected() {
    let bundle = Bundle::new();
    let copy = copy_of_the_runtime(&bundle);
    // `features` does not enter a container, and waits here for somebody to read what it prints
    let (reader, mut writer) = std::io::pipe().unwrap();
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    writer.write_all(&[0; 4096]).unwrap();
    let mut unprotected = Command::new(&copy).arg("features").stdout(writer).spawn().unwrap();
    let pid = unprotected.id() as i32;
    let waits =
        || fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("pipe")).then_some(());
    eventually_within(Duration::from_secs(1), waits);
    let held = Held::of(pid);
    unprotected.kill().unwrap();
    unprotected.wait().unwrap();
    drop(reader);
    assert!(held.ways_in(&bundle.dir).contains(&"write"));
    assert!(fs::read(&copy).unwrap() != fs::read(runtime::path()).unwrap());
}

#[test]
fn the_runtime_as_the_containers_program_stays_whole() {
    for (program, content) in [("/proc/self/exe", ""), ("/prog", "#!/proc/self/exe\n")] {
        let mut bundle = Bundle::new();
        let copy = copy_of_the_runtime(&bundle);
        bundle.image_file("prog", content);
        bundle.args(&[program, "--version"]);
        let _ = runtime::run(&mut command_of(&copy, &bundle, &["run", &bundle.id]));
        assert!(fs::read(&copy).unwrap() == fs::read(runtime::path()).unwrap(), "{program}");
    }
}

// CVE-2016-9962: a user of the container cannot look into, or trace, the process that becomes its program
#[test]
fn a_waiting_init_belongs_to_root_whoever_its_program_is() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    bundle.create().ok();
    let proc = format!("/proc/{}", bundle.pid());
    assert!(fs::read_to_string(format!("{proc}/status")).unwrap().contains("\nUid:\t1000\t1000\t1000\t1000\n"));
    assert_eq!(fs::metadata(format!("{proc}/mem")).unwrap().uid(), 0, "it can be traced: it is dumpable");
}

// the same by somebody who is root too, with the same capabilities, on a host that shares its process numbers
#[test]
fn a_waiting_init_cannot_be_looked_into_with_the_rights_of_its_program() {
    need!(rrun); // with runc 1.1 it can
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let environ = format!("/proc/{}/environ", bundle.pid());
    let equal = ["setpriv", "--bounding-set", "-all,+chown,+kill,+net_bind_service", "--inh-caps", "-all"];
    let look =
        |path: &str| Command::new(equal[0]).args(&equal[1..]).args(["cat", path]).output().unwrap().status.success();
    assert!(!look(&environ), "it is dumpable");
    assert!(look("/proc/self/environ"), "this would fail for any process");
}

// CVE-2024-21626
#[test]
fn a_working_directory_behind_an_open_file_is_refused() {
    need!(rrun); // runc 1.1.5 is the one that has this hole
    let mut bundle = Bundle::sh("ls");
    for fd in 0..32 {
        bundle.set("/process/cwd", format!("/proc/self/fd/{fd}"));
        let runtime = bundle.command(&["run", &bundle.id]);
        let mut command = Command::new("bash");
        command
            .args(["-c", "exec 7</ 9</etc; exec \"$@\"", "bash"])
            .arg(runtime.get_program())
            .args(runtime.get_args());
        let output = runtime::run(command.current_dir(&bundle.dir));
        assert_eq!(output.code, 1, "fd {fd}: {output}");
        assert!(output.stdout.is_empty(), "fd {fd}: {output}");
    }
}

/// A directory of the host that an image points at. It must stay as it is.
fn outside(bundle: &Bundle) -> PathBuf {
    let outside = bundle.host_file("outside/victim", "untouched").parent().unwrap().to_path_buf();
    fs::set_permissions(outside.join("victim"), fs::Permissions::from_mode(0o640)).unwrap();
    outside
}

#[track_caller]
fn is_untouched(outside: &Path) {
    let names: Vec<_> = fs::read_dir(outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["victim"]);
    let victim = outside.join("victim");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    let file = fs::metadata(&victim).unwrap();
    assert_eq!((file.mode() & 0o7777, file.uid()), (0o640, 0));
}

fn replace_by_symlink(bundle: &Bundle, name: &str, target: &Path) {
    let path = bundle.rootfs(name);
    let _ = fs::remove_dir(&path);
    symlink(target, path).unwrap();
}

// CVE-2019-19921, CVE-2023-27561, CVE-2025-54867
#[test]
fn proc_and_sys_as_symlinks_are_refused() {
    for name in ["proc", "sys"] {
        let mut bundle = Bundle::sh("true");
        let outside = outside(&bundle);
        fs::create_dir_all(bundle.rootfs("fake/sys/net/ipv4")).unwrap();
        replace_by_symlink(&bundle, name, Path::new("/fake"));
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        let output = bundle.run();
        assert_eq!(output.code, 1, "{name}: {output}");
        assert!(output.stderr.contains(&format!("/{name}")) || !on_rrun(), "{output}");
        is_untouched(&outside);
        bundle.leaves_nothing();
    }
}

// CVE-2026-41579: default devices made by path, through a symlink of the image
#[test]
fn dev_as_a_symlink_makes_nothing_on_the_host() {
    need!(rrun); // open in older runtimes
    let mut bundle = Bundle::sh("true");
    let outside = outside(&bundle);
    bundle.without_mount("/dev/pts").without_mount("/dev");
    for target in [outside.as_path(), Path::new("../../outside"), Path::new("../outside")] {
        replace_by_symlink(&bundle, "dev", target);
        let _ = bundle.run();
        is_untouched(&outside);
        fs::remove_file(bundle.rootfs("dev")).unwrap();
    }
}

// the same, through a volume
#[test]
fn dev_as_a_symlink_makes_nothing_in_a_volume() {
    need!(rrun); // open in older runtimes
    let mut bundle = Bundle::sh("true");
    let volume = bundle.host_file("volume/ptmx", "precious").parent().unwrap().to_path_buf();
    bundle.without_mount("/dev/pts").without_mount("/dev").bind(&volume, "/volume", &[]);
    replace_by_symlink(&bundle, "dev", Path::new("/volume"));
    bundle.run().refused(&["/dev/null", "symlink"]);
    let names: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((names, fs::read_to_string(volume.join("ptmx")).unwrap().as_str()), (vec!["ptmx".into()], "precious"));
    bundle.leaves_nothing();
}

// CVE-2026-88264
#[test]
fn dev_console_as_a_symlink_changes_nothing_on_the_host() {
    let mut bundle = Bundle::sh("echo to the console > /dev/console");
    let outside = outside(&bundle);
    bundle.without_mount("/dev/pts").without_mount("/dev").set("/process/terminal", true);
    bundle.mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666"]);
    for target in [outside.join("victim"), PathBuf::from("../../outside/victim")] {
        replace_by_symlink(&bundle, "dev/console", &target);
        let socket = ConsoleSocket::new(&bundle.dir);
        let _ = bundle.call(&["run", "-d", "--console-socket", socket.path.to_str().unwrap(), &bundle.id]);
        std::thread::sleep(Duration::from_millis(50));
        is_untouched(&outside);
        bundle.delete_force().ok();
        let _ = (fs::remove_file(bundle.rootfs("dev/console")), fs::remove_file(&socket.path));
    }
}

// CVE-2025-31133: what a mask binds over a path is a null device, not whatever the image has put at /dev/null
#[test]
fn a_mask_is_the_null_device_or_there_is_no_container() {
    need!(rrun); // runc 1.1.5 is one that has this hole
    let mut bundle = Bundle::sh("stat -c %t:%T /proc/version");
    let dev = bundle.host_file("dev/file", "").parent().unwrap().to_path_buf();
    symlink("/proc/sys/kernel/hostname", dev.join("null")).unwrap();
    bundle.without_mount("/dev/pts").without_mount("/dev").bind(&dev, "/dev", &[]);
    bundle.set("/linux/maskedPaths", json!(["/proc/version"]));
    let output = bundle.run();
    assert!(output.code != 0 || output.stdout == "1:3\n", "{output}");
}

// CVE-2025-52881: a sysctl is written to the kernel, whatever the image shows at /proc
#[test]
fn a_sysctl_is_written_to_the_kernel() {
    need!(rrun); // runc goes by the container's own /proc
    let mut bundle = Bundle::sh("cat /real/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_forward");
    bundle.image_file("proc/sys/net/ipv4/ip_forward", "fake\n");
    bundle.without_mount("/proc").mount("/real", "proc", "proc", &[]);
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    assert_eq!(bundle.run().ok(), "1\nfake\n");
}

#[test]
fn masks_and_read_only_paths_go_where_a_symlink_of_the_image_leads() {
    let mut bundle = Bundle::sh("cat /etc/real; (echo x > /etc/other/file) 2>/dev/null || echo read-only");
    let outside = outside(&bundle);
    bundle.image_file("etc/real", "secret");
    bundle.image_file("etc/other/file", "");
    symlink("/etc/real", bundle.rootfs("etc/mask")).unwrap();
    symlink("../../../../etc/other", bundle.rootfs("etc/ro")).unwrap();
    symlink(outside.join("victim"), bundle.rootfs("etc/out")).unwrap();
    bundle.set("/linux/maskedPaths", json!(["/etc/mask", "/etc/out"])).set("/linux/readonlyPaths", json!(["/etc/ro"]));
    assert_eq!(bundle.run().ok(), "read-only\n");
    is_untouched(&outside);
}

#[test]
fn devices_with_dots_and_symlinks_in_their_path_stay_inside() {
    let mut bundle = Bundle::sh("ls /dev/out/node /up 2>/dev/null; true");
    let outside = outside(&bundle);
    symlink(&outside, bundle.rootfs("link")).unwrap();
    let device = |path: &str| json!({"path": path, "type": "c", "major": 1, "minor": 3});
    bundle.set("/linux/devices", json!([device("/dev/../../../../up"), device("/link/node")]));
    let _ = bundle.run();
    is_untouched(&outside);
    assert!(!bundle.dir.join("up").exists() && !Path::new("/up").exists());
}

// whatever becomes a path or a line of its own: refused, or harmless
#[test]
fn newlines_and_dots_in_strings_do_no_harm() {
    type Change = for<'a> fn(&'a mut Bundle, &str) -> &'a mut Bundle;
    let places: &[(&str, Change)] = &[
        ("linux.cgroupsPath", |b, text| b.set("/linux/cgroupsPath", format!("/{}{text}", b.id))),
        ("hostname", |b, text| b.set("/hostname", text)),
        ("annotations", |b, text| b.set("/annotations", json!({text: text}))),
        ("mounts.destination", |b, text| b.mount(&format!("/data{text}"), "tmpfs", "tmpfs", &[])),
        ("mounts.source", |b, text| b.mount("/data", "tmpfs", text, &[])),
        ("mounts.options", |b, text| b.mount("/data", "tmpfs", "tmpfs", &[text])),
        ("process.cwd", |b, text| b.set("/process/cwd", format!("/tmp{text}"))),
        ("process.env", |b, text| b.set("/process/env/-", format!("HOME={text}"))),
        ("linux.maskedPaths", |b, text| b.set("/linux/maskedPaths", json!([format!("/etc{text}")]))),
        ("linux.sysctl key", |b, text| b.set("/linux/sysctl", json!({format!("net.ipv4{text}"): "1"}))),
        ("linux.sysctl value", |b, text| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": format!("1{text}")}))),
        ("linux.devices", |b, text| {
            b.set("/linux/devices", json!([{"path": format!("/dev/x{text}"), "type": "c", "major": 1, "minor": 3}]))
        }),
    ];
    for text in ["\nx", "/../../../../../outside/x", "..", "\n0::/\n"] {
        for (place, change) in places {
            let mut bundle = Bundle::sh("true");
            let outside = outside(&bundle);
            change(&mut bundle, text);
            let output = bundle.run();
            assert!(output.code == 0 || output.stderr.lines().count() == 1 || !on_rrun(), "{place} {text:?}: {output}");
            is_untouched(&outside);
            bundle.delete_force().ok();
            bundle.leaves_nothing();
        }
    }
}

#[test]
fn the_program_finds_no_trace_of_the_runtime() {
    let bundle = Bundle::sh("cat /proc/self/mountinfo /proc/self/environ");
    let seen = bundle.run();
    for trace in [bundle.state_root.to_str().unwrap(), leftovers::VARIABLE] {
        assert!(!seen.ok().contains(trace), "{trace} is in {seen}");
    }
}

// CVE-2019-16884: what looks like /proc takes the writes of labels and sysctls
#[test]
fn only_a_procfs_goes_onto_proc() {
    let mut bundle = Bundle::new();
    let fake = bundle.host_file("fake/self/attr/exec", "");
    let fake = fake.ancestors().nth(3).unwrap().to_path_buf();
    bundle.without_mount("/proc").bind(&fake, "/proc", &[]);
    bundle.run().refused(&["/proc", "not of type proc"]);
}

#[test]
fn a_symlink_of_the_image_leads_no_mount_into_proc() {
    need!(rrun); // runc 1.1 looks at the source alone
    for (source, destination) in
        [("/proc/sys", "/toproc/self/attr"), ("/proc/sys", "/toproc/sys"), ("/proc/uptime", "/toproc/version")]
    {
        let mut bundle = Bundle::new();
        std::os::unix::fs::symlink("/proc", bundle.rootfs("toproc")).unwrap();
        bundle.bind(Path::new(source), destination, &[]);
        bundle.run().refused(&[destination, "inside /proc"]);
    }
}
