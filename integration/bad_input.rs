//! Bad input gives one line that names the field and the reason, exit code 1, and leaves nothing: neither state nor
//! cgroup, mount or process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::refusals::Who::{Everybody, Rrun};
use crate::refusals::{Who, refuses};
use crate::runtime::on_rrun;

/// `name: who, |bundle| change => words of the line;` makes a test of each.
macro_rules! refused {
    ($($(#[$comment:meta])* $name:ident: $who:ident, |$bundle:ident| $change:expr => [$($word:expr),+];)+) => {$(
        $(#[$comment])*
        #[test]
        fn $name() {
            let mut bundle = Bundle::new();
            {
                let $bundle = &mut bundle;
                $change;
            }
            bundle.write_config();
            refuses($who, &bundle, &[$($word),+]);
        }
    )+};
}

fn text_config(text: &str) -> Bundle {
    let bundle = Bundle::new();
    fs::write(bundle.dir.join("config.json"), text).unwrap();
    bundle
}

#[test]
fn no_config() {
    refuses(Everybody, &Bundle::new(), &["config.json"]);
}

#[test]
fn no_bundle() {
    let bundle = Bundle::new();
    let output = bundle.call(&["create", "--bundle", "/no/such/bundle", &bundle.id]);
    assert!(output.error().contains("/no/such/bundle"), "{output}");
    bundle.leaves_nothing();
}

#[test]
fn broken_json() {
    refuses(
        Everybody,
        &text_config("{\n  \"ociVersion\": \"1.0.2\",\n  \"root\": }\n"),
        &["config.json", "line 3", "column 11"],
    );
    refuses(Everybody, &text_config(""), &["config.json"]);
    refuses(Everybody, &text_config("{} trailing"), &["config.json", "line 1"]);
}

#[test]
fn a_config_that_is_no_file() {
    let bundle = Bundle::new();
    fs::create_dir(bundle.dir.join("config.json")).unwrap();
    refuses(Everybody, &bundle, &["config.json"]);
    fs::remove_dir(bundle.dir.join("config.json")).unwrap();
    if on_rrun() {
        // the others wait for ever for somebody to write into it
        nix::unistd::mkfifo(&bundle.dir.join("config.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        refuses(Rrun, &bundle, &["config.json"]);
    }
}

refused! {
    wrong_type_of_args: Everybody, |b| b.set("/process/args", "sh") => ["process.args"];
    wrong_type_of_uid: Everybody, |b| b.set("/process/user/uid", "root") => ["process.user.uid"];
    wrong_type_deep_in_a_list: Everybody, |b| b.set("/mounts/1/options", json!({"a": 1})) => ["mounts[1].options"];
    wrong_type_of_limit: Everybody, |b| b.set("/linux/resources/memory/limit", "1G")
        => ["linux.resources.memory.limit"];
    wrong_type_of_all: Rrun, |b| b.config = json!([]) => ["config.json"];
    number_out_of_range: Everybody, |b| b.set("/process/user/uid", 1u64 << 33) => ["process.user.uid"];

    no_oci_version: Rrun, |b| b.unset("/ociVersion") => ["ociVersion"];
    garbage_as_oci_version: Rrun, |b| b.set("/ociVersion", "latest") => ["ociVersion", "latest"];
    unsupported_oci_version: Rrun, |b| b.set("/ociVersion", "2.0.0") => ["ociVersion", "2.0.0"];

    no_root: Everybody, |b| b.unset("/root") => ["root"];
    no_root_path: Everybody, |b| b.unset("/root/path") => ["root.path"];
    missing_rootfs: Everybody, |b| b.set("/root/path", "missing") => ["root.path", "missing"];
    rootfs_is_a_file: Everybody, |b| { b.host_file("file", ""); b.set("/root/path", "file") }
        => ["root.path", "file"];

    relative_cwd: Everybody, |b| b.set("/process/cwd", "tmp") => ["process.cwd", "tmp"];
    empty_cwd: Everybody, |b| b.set("/process/cwd", "") => ["process.cwd"];
    cwd_is_a_file: Everybody, |b| b.set("/process/cwd", "/bin/busybox") => ["process.cwd", "/bin/busybox"];
    empty_args: Everybody, |b| b.args(&[]) => ["process.args"];
    no_args: Everybody, |b| b.unset("/process/args") => ["process.args"];
    environment_without_equals_sign: Rrun, |b| b.set("/process/env/-", "NONSENSE") => ["process.env", "NONSENSE"];

    unknown_namespace: Everybody, |b| b.set("/linux/namespaces/-", json!({"type": "space"}))
        => ["linux.namespaces", "space"];
    duplicate_namespace: Everybody, |b| b.set("/linux/namespaces/-", json!({"type": "pid"}))
        => ["linux.namespaces", "pid"];
    hostname_without_uts: Everybody, |b| b.without_namespace("uts") => ["hostname", "uts"];
    hostname_too_long: Everybody, |b| b.set("/hostname", "x".repeat(65)) => ["hostname"];

    missing_mount_source: Everybody, |b| b.mount("/data", "bind", "/no/such/source", &["rbind"])
        => ["mounts[4]", "/no/such/source"];
    mount_without_destination: Everybody, |b| b.set("/mounts/-", json!({"type": "tmpfs", "source": "x"}))
        => ["mounts[4].destination"];
    unknown_file_system: Everybody, |b| b.mount("/data", "nosuchfs", "none", &[]) => ["mounts[4]", "nosuchfs"];
    option_unknown_to_the_file_system: Everybody, |b|
        b.mount("/data", "tmpfs", "tmpfs", &["nosuid", "sizzle=1k", "ro"])
        => ["mounts[4]", "sizzle"];
    bad_value_of_an_option: Everybody, |b| b.mount("/data", "tmpfs", "tmpfs", &["size=large"])
        => ["mounts[4]", "size"];
    data_for_a_bind: Rrun, |b| b.mount("/data", "bind", "rootfs", &["bind", "read-only"]) => ["mounts[4].options", "read-only"];
    directory_over_a_file: Everybody, |b| b.mount("/bin/busybox", "tmpfs", "tmpfs", &[])
        => ["mounts[4]", "/bin/busybox"];
    /// runc 1.1 looks at some kinds of mounts only
    destination_inside_proc: Rrun, |b| b.mount("/proc/self/attr", "tmpfs", "tmpfs", &[]) => ["mounts[4]", "/proc"];
    destination_inside_proc_by_a_symlink: Rrun,
        |b| { std::os::unix::fs::symlink("/proc/sys", b.rootfs("link")).unwrap(); b.mount("/link", "tmpfs", "tmpfs", &[]) }
        => ["mounts[4]", "/proc"];
    destination_inside_proc_by_dots: Rrun, |b| b.mount("/tmp/../proc/sys", "tmpfs", "tmpfs", &[])
        => ["mounts[4]", "/proc"];
    tmpfs_over_proc: Everybody, |b| b.mount("/proc", "tmpfs", "tmpfs", &[]) => ["mounts[4]", "/proc"];

    nul_in_cgroups_path: Everybody, |b| b.set("/linux/cgroupsPath", "/rt\u{0}x") => ["linux.cgroupsPath"];
    memory_limit_too_small: Everybody, |b| b.set("/linux/resources/memory/limit", 4096) => ["memory", "limit"];
    swap_below_memory: Everybody, |b| b.set("/linux/resources/memory", json!({"limit": 20 << 20, "swap": 10 << 20}))
        => ["linux.resources.memory.swap"];
    swap_without_memory: Rrun, |b| b.set("/linux/resources/memory", json!({"swap": 10 << 20}))
        => ["linux.resources.memory"];
    cpu_that_is_not_there: Everybody, |b| b.set("/linux/resources/cpu/cpus", "4000") => ["cpu", "4000"];
    period_too_long: Everybody, |b| b.set("/linux/resources/cpu", json!({"period": 2_000_000, "quota": 1000}))
        => ["cpu", "2000000"];
    device_rule_of_unknown_type: Everybody, |b|
        b.set("/linux/resources/devices/-", json!({"allow": true, "type": "z", "access": "r"}))
        => ["linux.resources.devices[1]"];

    /// REQUIRED by the spec
    device_rule_that_neither_allows_nor_denies: Rrun, |b|
        b.set("/linux/resources/devices/-", json!({"type": "c", "access": "r"}))
        => ["linux.resources.devices[1]", "allow"];
    weight_of_a_disk_without_a_weight: Rrun, |b|
        b.set("/linux/resources/blockIO/weightDevice", json!([{"major": 7, "minor": 0}]))
        => ["linux.resources.blockIO.weightDevice[0]: weighs nothing"];
    adapter_without_a_limit: Rrun, |b| b.set("/linux/resources/rdma", json!({"mlx5_1": {}}))
        => ["linux.resources.rdma"];
    annotation_without_a_name: Rrun, |b| b.set("/annotations", json!({"": "x"})) => ["annotations", "empty"];

    unknown_rlimit: Everybody, |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]))
        => ["process.rlimits", "RLIMIT_FUN"];
    duplicate_rlimit: Rrun, |b| b.set("/process/rlimits", json!([nofile(9), nofile(8)]))
        => ["process.rlimits", "RLIMIT_NOFILE"];
    soft_above_hard: Everybody, |b|
        b.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]))
        => ["process.rlimits[0]", "20", "10"];
    oom_score_out_of_range: Everybody, |b| b.set("/process/oomScoreAdj", 1001) => ["process.oomScoreAdj", "1001"];

    sysctl_of_the_host: Everybody, |b| b.set("/linux/sysctl", json!({"kernel.core_pattern": "x"}))
        => ["linux.sysctl", "kernel.core_pattern"];
    sysctl_of_a_shared_network: Everybody, |b|
        { b.without_namespace("network"); b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})) }
        => ["linux.sysctl", "net.ipv4.ip_forward"];
    sysctl_that_climbs: Everybody, |b| b.set("/linux/sysctl", json!({"net/../kernel/core_pattern": "x"}))
        => ["linux.sysctl"];
    sysctl_that_is_not_there: Everybody, |b| b.set("/linux/sysctl", json!({"net.no.such.key": "1"}))
        => ["linux.sysctl", "net.no.such.key"];
    sysctl_with_a_bad_value: Everybody, |b| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "many"}))
        => ["linux.sysctl", "net.ipv4.ip_forward"];

    device_of_unknown_type: Everybody, |b|
        b.set("/linux/devices", json!([{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]))
        => ["linux.devices[0]"];
    device_without_numbers: Rrun, |b| b.set("/linux/devices", json!([{"path": "/dev/x", "type": "c"}]))
        => ["linux.devices[0]", "major"];
    unknown_propagation: Everybody, |b| b.set("/linux/rootfsPropagation", "everywhere")
        => ["linux.rootfsPropagation", "everywhere"];
    /// CVE-2024-40635's class: as an id it means "leave as it is"
    uid_that_means_unchanged: Rrun, |b| b.set("/process/user/uid", u32::MAX) => ["process.user.uid"];

    nul_in_args: Rrun, |b| b.set("/process/args/-", "a\u{0}b") => ["process.args"];
    nul_in_env: Everybody, |b| b.set("/process/env/-", "A=\u{0}") => ["process.env"];
    nul_in_hostname: Rrun, |b| b.set("/hostname", "a\u{0}b") => ["hostname"];
    nul_in_a_mount: Everybody, |b| b.mount("/da\u{0}ta", "tmpfs", "tmpfs", &[]) => ["mounts[4].destination"];
    nul_in_a_masked_path: Everybody, |b| b.set("/linux/maskedPaths", json!(["/etc/\u{0}"])) => ["linux.maskedPaths"];
}

fn nofile(limit: u64) -> Value {
    json!({"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit})
}

#[test]
fn a_controller_that_the_host_has_not() {
    layout!(V1, Hybrid); // the v2 tree has all or is not mounted; v2 has no net_cls at all: cgroups.rs
    for (controller, field, value) in [
        ("net_cls", "/linux/resources/network/classID", json!(4097)),
        ("rdma", "/linux/resources/rdma", json!({"mlx5_1": {"hcaHandles": 3}})),
    ] {
        let mut bundle = Bundle::new();
        bundle.set(field, value);
        let output = crate::runtime::run(&mut without_hierarchy(controller, &bundle.command(&["create", &bundle.id])));
        if on_rrun() {
            output.refused(&["linux.resources", controller]);
        } else {
            assert_ne!(output.code, 0, "{output}");
        }
        bundle.leaves_nothing();
    }
}

#[test]
fn a_host_without_cgroups_is_not_the_fault_of_the_config() {
    need!(rrun); // runc finds its hierarchies elsewhere
    let bundle = Bundle::new();
    let create = bundle.command(&["create", &bundle.id]);
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", "umount -R -l /sys/fs/cgroup && exec \"$@\"", "sh"]);
    hidden.arg(create.get_program()).args(create.get_args()).current_dir(&bundle.dir);
    crate::runtime::run(&mut hidden).refused(&[&format!("create {}: this host has no cgroup file system", bundle.id)]);
    bundle.leaves_nothing();
}

/// The command in a mount namespace where no hierarchy with `controller` is mounted: some hosts have them all.
fn without_hierarchy(controller: &str, command: &Command) -> Command {
    let script = format!("for dir in /sys/fs/cgroup/*{controller}*; do umount -l $dir 2>/dev/null; done; exec \"$@\"");
    let mut hidden = Command::new("unshare");
    hidden.args(["--mount", "sh", "-c", &script, "sh"]).arg(command.get_program()).args(command.get_args());
    hidden.current_dir(command.get_current_dir().unwrap());
    hidden.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    hidden
}

#[test]
fn huge_pages_of_a_size_that_is_not_there() {
    let mut bundle = Bundle::new();
    bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "3MB", "limit": 1}]));
    let _ = bundle.command(&[]);
    refuses(Rrun, &bundle, &["linux.resources.hugepageLimits[0]", "3MB"]);
}

/// The program is looked at when the container is created, by what is in the image.
mod program {
    use super::*;

    #[track_caller]
    fn cannot_be_executed(who: Who, bundle: &Bundle, words: &[&str]) {
        let _ = bundle.command(&[]);
        refuses(who, bundle, words);
    }

    /// The program `/prog` of the image.
    fn with_program(content: impl AsRef<[u8]>) -> Bundle {
        let mut bundle = Bundle::new();
        bundle.image_file("prog", content);
        bundle.args(&["/prog"]);
        bundle
    }

    #[test]
    fn an_interpreter_that_cannot_be_executed() {
        for (interpreter, words) in [("/etc/passwd", "permission denied"), ("/etc", "is a directory")] {
            let bundle = with_program(format!("#!{interpreter}\n"));
            bundle.image_file("etc/passwd", "");
            cannot_be_executed(Rrun, &bundle, &["process.args", interpreter, words]);
        }
    }

    #[test]
    fn not_in_path() {
        let mut bundle = Bundle::new();
        bundle.args(&["no-such-program"]);
        // docker and podman make exit code 127 of these words, and 126 of those below
        cannot_be_executed(Everybody, &bundle, &["exec: \"no-such-program\": executable file not found in $PATH"]);
    }

    #[test]
    fn missing() {
        let mut bundle = Bundle::new();
        bundle.args(&["/no/such/program"]);
        let line = "exec: \"/no/such/program\": stat /no/such/program: no such file or directory";
        cannot_be_executed(Everybody, &bundle, &[line]);
    }

    #[test]
    fn not_executable() {
        cannot_be_executed(Everybody, &with_program("text"), &["exec: \"/prog\": permission denied"]);
    }

    #[test]
    fn not_executable_for_this_user() {
        let mut bundle = with_program("#!/bin/sh\n");
        fs::set_permissions(bundle.rootfs("prog"), fs::Permissions::from_mode(0o700)).unwrap();
        bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        cannot_be_executed(Everybody, &bundle, &["exec: \"/prog\": permission denied"]);
    }

    // root is no more than its capabilities, and these do not reach past the mode of a file
    #[test]
    fn not_executable_for_this_root() {
        let bundle = with_program("#!/bin/sh\n");
        fs::set_permissions(bundle.rootfs("prog"), fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(bundle.rootfs("prog"), Some(1000), Some(1000)).unwrap();
        cannot_be_executed(Everybody, &bundle, &["exec: \"/prog\": permission denied"]);
    }

    #[test]
    fn directory() {
        let mut bundle = Bundle::new();
        bundle.args(&["/etc"]);
        // docker before 23.0 makes exit code 126 of the last words only
        cannot_be_executed(Everybody, &bundle, &["exec: \"/etc\": is a directory: permission denied"]);
    }

    /// The first bytes of an ELF file for a processor that this machine has not.
    fn foreign_elf() -> Vec<u8> {
        let (machine, _) = if cfg!(target_arch = "aarch64") { (62u16, "x86-64") } else { (183, "aarch64") };
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        elf.extend(machine.to_le_bytes());
        elf.resize(4096, 0);
        elf
    }

    #[test]
    fn wrong_architecture() {
        let machine = if cfg!(target_arch = "aarch64") { "x86" } else { "aarch64" };
        cannot_be_executed(Rrun, &with_program(foreign_elf()), &["/prog", machine]);
    }

    #[test]
    fn missing_interpreter() {
        cannot_be_executed(Rrun, &with_program("#!/opt/perl -w\n"), &["/prog", "/opt/perl"]);
    }

    // an editor of Windows: the kernel looks for a file whose name ends in CR
    #[test]
    fn carriage_return() {
        cannot_be_executed(Rrun, &with_program("#!/bin/sh\r\necho x\r\n"), &["/prog", "line ending"]);
    }

    #[test]
    fn missing_loader() {
        let program = fs::read("/bin/true").unwrap();
        let at = program.windows(7).position(|bytes| bytes == b"/ld-lin").expect("a host whose /bin/true is dynamic");
        let begin = program[..at].iter().rposition(|byte| *byte == 0).unwrap() + 1;
        let end = at + program[at..].iter().position(|byte| *byte == 0).unwrap();
        let loader = String::from_utf8(program[begin..end].to_vec()).unwrap();
        cannot_be_executed(Rrun, &with_program(&program), &["/prog", &loader]);
    }
}

#[test]
fn an_unknown_signal() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    for signal in ["SIGNAL", "SIGFUN", "12x"] {
        let output = bundle.kill(signal);
        assert_eq!(output.code, 1, "{output}");
        assert!(output.stderr.contains("unknown signal"), "{signal}: {output}");
    }
    assert_eq!(bundle.status(), "running");
}

#[test]
fn cgroups_of_a_systemd_that_does_not_run_are_refused() {
    need!(rrun);
    if std::path::Path::new("/run/systemd/system").exists() {
        return crate::need::skip("a machine without systemd");
    }
    let bundle = Bundle::new();
    bundle.call(&["--systemd-cgroup", "create", &bundle.id]).refused(&["--systemd-cgroup"]);
    bundle.leaves_nothing();
}

// what is done where there is one, the unit tests of src/resctrl.rs show on a directory in its place
#[test]
fn intel_rdt_needs_a_file_system_that_few_processors_have() {
    if std::fs::read_to_string("/proc/self/mounts").unwrap().contains(" resctrl ") {
        return crate::need::skip("a machine without resctrl");
    }
    for rdt in [json!({}), json!({"closID": "/"}), json!({"l3CacheSchema": "L3:0=f", "enableMonitoring": true})] {
        let mut bundle = Bundle::new();
        bundle.set("/linux/intelRdt", rdt).write_config();
        refuses(Rrun, &bundle, &["config.json: linux.intelRdt: no resctrl file system is mounted here; mount it"]);
    }
}

#[test]
fn a_long_value_is_shortened_and_its_reason_is_told() {
    let mut bundle = Bundle::new();
    bundle.args(&[&format!("/{}", "x".repeat(80_000))]);
    let output = bundle.create();
    if on_rrun() {
        output.refused(&["process.args", "…"]);
        assert!(output.stderr.len() < 8000, "{} bytes", output.stderr.len());
    }
}

#[test]
fn more_groups_than_the_kernel_takes() {
    need!(rrun); // runc 1.1 takes them as they come
    let mut bundle = Bundle::new();
    bundle.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": vec![1; 65537]}));
    bundle.create().error();
    bundle.leaves_nothing();
}

#[test]
fn a_pid_file_that_is_a_device() {
    need!(rrun); // others replace it
    let bundle = Bundle::new();
    let device = bundle.dir.join("device");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::sys::stat::mknod(&device, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 7)).unwrap();
    bundle.call(&["create", "--pid-file", device.to_str().unwrap(), &bundle.id]).refused(&["--pid-file", "regular"]);
    bundle.leaves_nothing();
}

#[test]
fn a_rootfs_that_root_of_its_user_namespace_may_not_enter() {
    need!(rrun); // the words
    let bundle = crate::mapped::mapped(Bundle::new());
    crate::mapped::give(&bundle.rootfs("/"), 7);
    fs::set_permissions(bundle.rootfs("/"), fs::Permissions::from_mode(0o700)).unwrap();
    bundle.write_config();
    let path = bundle.rootfs("/").canonicalize().unwrap();
    refuses(Rrun, &bundle, &["root.path: root of the user namespace may not enter it", path.to_str().unwrap()]);
}
