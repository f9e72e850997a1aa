//! User namespaces made by root: ids inside stand for others on the host, and root inside is nobody there.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::mapped::{FIRST, SIZE, closed_directory, give, mapped, mapping};
use crate::mounted::mount_at;
use crate::procfs::{status, we_may_raise_limits};
use crate::refusals::Who::Rrun;
use crate::refusals::refuses;
use crate::runtime::on_rrun;
use crate::tty::ConsoleSocket;

fn sh(script: &str) -> Bundle {
    mapped(Bundle::sh(script))
}

#[test]
fn ids_inside_are_other_ids_outside() {
    let mut bundle = sh("id -u; id -g; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; sleep 1000");
    bundle.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7, 8]}));
    let output = bundle.run_detached();
    output.ok();
    let pid = bundle.pid();
    assert_eq!(status(pid, "Uid").unwrap(), "100005 100005 100005 100005");
    assert_eq!(status(pid, "Gid").unwrap(), "100006 100006 100006 100006");
    assert_eq!(status(pid, "Groups").unwrap(), "100007 100008");
    let said = || output.later().split_whitespace().map(String::from).collect::<Vec<_>>();
    let all = crate::runtime::eventually_within(crate::runtime::DEADLINE, || (said().len() == 9).then(said));
    assert_eq!(all.unwrap_or_else(said), ["5", "6", "0", "100000", "65536", "0", "100000", "65536", "allow"]);
}

#[test]
fn several_ranges_are_mapped() {
    let mut bundle = sh("cat /proc/self/uid_map | tr -s ' '; stat -c %u /bin/busybox");
    bundle
        .set("/linux/uidMappings", json!([mapping(0, FIRST, 10), mapping(5000, 300_000, 5), mapping(10, 200_000, 1)]));
    assert_eq!(bundle.run().ok(), " 0 100000 10\n 5000 300000 5\n 10 200000 1\n0\n");
}

/// As many as the kernel takes, in less than a page.
#[test]
fn three_hundred_and_forty_ranges_are_mapped() {
    let mut bundle = sh("wc -l < /proc/self/uid_map");
    let ranges: Vec<_> = (0..340).map(|n| mapping(n * 2, n * 2 + 1000, 1)).collect();
    give(&bundle.rootfs("/"), 1000);
    bundle.set("/linux/uidMappings", ranges);
    bundle.set("/linux/gidMappings", json!([mapping(0, 1000, 1)]));
    assert_eq!(bundle.run().ok(), "340\n");
}

#[test]
fn the_other_namespaces_belong_to_it() {
    let mut bundle = sh("hostname; cat /proc/sys/net/ipv4/ip_forward; ip -o link show up | cut -d: -f2; \
         stat -c '%u %n' /dev/mqueue /dev/pts/ptmx /sys/class /tmp; cat /proc/sys/user/max_ipc_namespaces");
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid"]);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "mode=1777"]);
    need!(rrun); // runc 1.1 knows no user.* sysctls
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "user.max_ipc_namespaces": "17"}));
    let output = bundle.run();
    let want = "inside\n1\n lo\n0 /dev/mqueue\n0 /dev/pts/ptmx\n65534 /sys/class\n0 /tmp\n17\n";
    assert_eq!(output.ok(), want, "{output}");
}

/// The whole set of a user namespace is there to be given, whatever rrun itself has.
#[test]
fn every_capability_can_be_had_inside() {
    let mut bundle = sh("grep -E 'Cap(Eff|Bnd)' /proc/self/status");
    let all: Vec<Value> = crate::runtime::features()["linux"]["capabilities"].as_array().cloned().unwrap_or_default();
    need!(rrun); // runc leaves out what it lacks itself
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), all.clone());
    }
    assert_eq!(bundle.run().ok(), "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n");
}

#[test]
fn devices_are_the_hosts() {
    let bundle =
        sh("echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; test -c /dev/tty && \
         stat -c '%t:%T' /dev/full; readlink /dev/ptmx");
    assert_eq!(bundle.run().ok(), "3\n2\n1:7\npts/ptmx\n");
}

#[test]
fn a_device_that_the_host_lacks_or_has_as_another_is_refused() {
    need!(rrun); // runc binds what has that name
    let device = |path: &str, minor: u32| json!([{"path": path, "type": "c", "major": 1, "minor": minor}]);
    let mut bundle = sh("true");
    bundle.set("/linux/devices", device("/dev/random", 9));
    let _ = bundle.command(&[]);
    refuses(Rrun, &bundle, &["linux.devices[0]: /dev/random", "of the host is character device 1:8"]);
    let mut bundle = sh("true");
    bundle.set("/linux/devices", device("/dev/not-there", 3));
    let _ = bundle.command(&[]);
    refuses(Rrun, &bundle, &["linux.devices[0]: /dev/not-there", "mknod is not permitted; bind the host's"]);
}

// docker keeps images below a directory that is root's alone
#[test]
fn what_root_inside_cannot_reach_is_opened_by_rrun() {
    need!(rrun); // runc 1.1 opens neither root.path nor volumes from outside
    let mut bundle = sh("cat /v/file /f; touch /v/file; cat /proc/self/mountinfo");
    let closed = closed_directory(&bundle, "closed");
    fs::create_dir(closed.join("deep")).unwrap();
    fs::write(closed.join("deep/file"), "and deeper\n").unwrap();
    let rootfs = closed.join("rootfs");
    fs::rename(bundle.rootfs("/"), &rootfs).unwrap();
    bundle.set("/root/path", rootfs.to_str().unwrap());
    bundle.bind(&closed.join("deep"), "/v", &["ro", "nosuid"]);
    bundle.bind(&closed.join("file"), "/f", &[]);
    let output = bundle.run();
    assert!(output.stdout.starts_with("and deeper\nreached\n") && output.code == 0, "{output}");
    assert!(output.stderr.contains("Read-only file system"), "{output}");
    let mounts = crate::mounted::Mounted::parse(&output.stdout["and deeper\nreached\n".len()..]);
    let volume = mount_at(&mounts, "/v");
    assert!(volume.has("ro") && volume.has("nosuid"), "{volume:?}");
}

/// What the host has set on a mount stays, and cannot be taken off inside.
#[test]
fn flags_of_the_host_are_locked() {
    need!(rrun); // runc 1.1 tries to take the others off, and fails
    let mut bundle = sh("mount -o remount,bind,rw /v 2>/dev/null || echo refused; cat /proc/self/mountinfo");
    let source = bundle.host_tmpfs("volume", "ro,nosuid,nodev");
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(["CAP_SYS_ADMIN"]));
    }
    bundle.bind(&source, "/v", &["noexec"]);
    let output = bundle.run();
    let mounts = output.ok().strip_prefix("refused\n").unwrap_or_else(|| panic!("not refused: {output}")).to_string();
    let mounts = crate::mounted::Mounted::parse(&mounts);
    let volume = mount_at(&mounts, "/v");
    assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|flag| volume.has(flag)), "{volume:?}");
}

#[test]
fn to_clear_a_flag_of_the_host_is_refused() {
    let mut bundle = sh("true");
    let source = bundle.host_tmpfs("volume", "ro");
    bundle.bind(&source, "/v", &["rw"]);
    need!(rrun); // runc keeps the flag and says nothing
    bundle.run().refused(&["mounts[4]: bind onto /v", "(EPERM); a user namespace must keep what the host has set"]);
}

/// A program may be run as the only id there is.
#[test]
fn a_namespace_without_root_is_set_up_by_its_user() {
    need!(rrun); // runc needs id 0
    let mut bundle =
        sh("id -u; id -g; cat /proc/self/uid_map | tr -s ' '; ls -ln /dev/null >/dev/null && touch /tmp/x");
    bundle.set("/linux/uidMappings", json!([mapping(1000, FIRST + 1000, 1)]));
    bundle.set("/linux/gidMappings", json!([mapping(1000, FIRST + 1000, 1)]));
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    give(&bundle.rootfs("/"), FIRST + 1000);
    assert_eq!(bundle.run().ok(), "1000\n1000\n 1000 101000 1\n");
}

#[test]
fn a_terminal_belongs_to_the_user_inside() {
    let mut bundle = sh("tty; stat -c %u /dev/pts/0; echo x > /dev/console; echo y > /dev/tty");
    bundle.set("/process/terminal", true).set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let socket = ConsoleSocket::new(&bundle.dir);
    bundle.call(&["create", "--console-socket", socket.path.to_str().unwrap(), &bundle.id]).ok();
    let mut master = socket.receive();
    bundle.start().ok();
    assert_eq!(master.rest(), "/dev/pts/0\n1000\nx\ny\n");
}

#[test]
fn standard_files_can_be_opened_again_by_the_user() {
    need!(rrun); // runc may not give them away from inside
    let mut bundle = sh("echo again > /dev/stdout; echo once more > /proc/self/fd/1");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let mut command = bundle.command(&["run", &bundle.id]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "again\nonce more\n");
}

#[test]
fn while_it_waits_nobody_inside_may_look_into_it() {
    let bundle = mapped(Bundle::sleeping());
    bundle.create().ok();
    // what is not dumpable belongs to the root of the host
    assert_eq!(fs::metadata(format!("/proc/{}/status", bundle.pid())).unwrap().uid(), 0);
    bundle.start().ok();
    let running = || (fs::metadata(format!("/proc/{}/status", bundle.pid())).unwrap().uid() == FIRST).then_some(());
    assert!(crate::runtime::eventually_within(crate::runtime::DEADLINE, running).is_some());
}

/// The procfs by which they are written is a new one, and not the image's.
#[test]
fn sysctls_are_written_without_a_proc_inside() {
    need!(rrun); // runc writes to the container's /proc
    let mut bundle = sh("mkdir -p /tmp/p && mount -t proc proc /tmp/p && cat /tmp/p/sys/net/ipv4/ip_forward");
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}/-"), "CAP_SYS_ADMIN");
    }
    assert_eq!(bundle.run().ok(), "1\n");
    bundle.without_mount("/proc").args(&["true"]);
    bundle.run().ok();
}

#[test]
fn oom_score_and_limits() {
    let mut bundle = sh("cat /proc/self/oom_score_adj; ulimit -Hn; ulimit -Sn");
    bundle.set("/process/oomScoreAdj", 321);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 123, "hard": 456}]));
    assert_eq!(bundle.run().ok(), "321\n456\n123\n");
}

/// Inside nobody may raise one; rrun does it from outside, if it may.
#[test]
fn a_hard_limit_is_raised_from_outside() {
    let mut bundle = sh("ulimit -Hn; ulimit -Hc");
    bundle.set(
        "/process/rlimits",
        json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 2000}]),
    );
    let mut command = bundle.command(&[]);
    let program = command.get_program().to_os_string();
    let root = bundle.state_root.to_str().unwrap().to_string();
    command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 1000 && exec \"$0\" --root \"$1\" run \"$2\""])
        .arg(program)
        .arg(root)
        .arg(&bundle.id);
    let output = crate::runtime::run(command.current_dir(&bundle.dir).env(crate::leftovers::VARIABLE, &bundle.id));
    if we_may_raise_limits() {
        assert_eq!(output.ok(), "2000\n0\n");
    } else if on_rrun() {
        output.refused(&["process.rlimits: RLIMIT_NOFILE", "(EPERM)"]);
    } else {
        assert_ne!(output.code, 0, "{output}");
    }
}

#[test]
fn the_containers_cgroup_is_seen_and_is_not_its_own_to_change() {
    let mut bundle = sh("cat /proc/self/cgroup; ls -d /sys/fs/cgroup/*; mkdir $(ls -d /sys/fs/cgroup/* | head -n 1)/x");
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "nodev", "noexec"]);
    let output = bundle.run();
    assert!(output.stdout.contains(":/\n") && output.stdout.contains("/sys/fs/cgroup/"), "{output}");
    assert_eq!(output.code, 1, "a cgroup was made: {output}");
}

/// `change` of the config, and the words of the line that refuses it.
type Refusal<'a> = (&'a str, Value, &'a str);

#[test]
fn maps_that_cannot_be_are_refused_by_name() {
    let rows: [Refusal; 13] = [
        ("/linux/uidMappings", json!([]), "linux.uidMappings: missing; a new user namespace needs"),
        ("/linux/gidMappings", json!([]), "linux.gidMappings: missing; a new user namespace needs"),
        ("/linux/uidMappings", json!([mapping(0, FIRST, 0)]), "linux.uidMappings[0].size: 0 maps nothing"),
        ("/linux/uidMappings/-", mapping(9, 5, 1), "linux.uidMappings[1].containerID: 9 to 9 overlaps with entry 0"),
        ("/linux/gidMappings/-", mapping(SIZE, FIRST, 1), "linux.gidMappings[1].hostID: 100000 to 100000 overlaps"),
        (
            "/linux/gidMappings",
            json!([mapping(0, u32::MAX, 1)]),
            "linux.gidMappings[0].hostID: 4294967295 and size 1 go",
        ),
        ("/linux/gidMappings", json!([{"hostID": 1, "size": 1}]), "linux.gidMappings[0].containerID: missing"),
        ("/process/user/uid", json!(SIZE), "process.user.uid: 65536 is not mapped in the user namespace"),
        ("/process/user/gid", json!(SIZE), "process.user.gid: 65536 is not mapped"),
        ("/process/user/additionalGids", json!([1, 70_000]), "process.user.additionalGids[1]: 70000 is not mapped"),
        ("/mounts/2/options/-", json!("gid=70000"), "mounts[2].options: gid=70000 is not mapped"),
        (
            "/linux/namespaces",
            json!([{"type": "user"}, {"type": "mount"}, {"type": "uts"}, {"type": "pid"}]),
            "mounts[3].type: sysfs in a new user namespace needs a new network namespace too",
        ),
        (
            "/linux/namespaces",
            json!([{"type": "user"}, {"type": "mount", "path": "/proc/self/ns/mnt"}]),
            "linux.namespaces[1].path: a mount namespace cannot be joined from a new user namespace",
        ),
    ];
    for (pointer, value, want) in rows {
        let mut bundle = mapped(Bundle::new());
        bundle.set(pointer, value);
        let _ = bundle.command(&[]);
        refuses(Rrun, &bundle, &[want]);
    }
    let mut bundle = mapped(Bundle::new());
    bundle.without_namespace("user");
    let _ = bundle.command(&[]);
    refuses(Rrun, &bundle, &["linux.uidMappings: needs a user namespace; add one to linux.namespaces"]);
}

#[test]
fn an_image_of_other_ids_is_told_from_other_errors() {
    need!(rrun);
    let mut bundle = sh("true");
    give(&bundle.rootfs("/"), 7);
    bundle.bind(&bundle.dir.clone(), "/new", &[]);
    let _ = bundle.command(&[]);
    refuses(Rrun, &bundle, &["mounts[4]: bind onto /new", "give the rootfs to the ids that are mapped"]);
}

fn exec(bundle: &Bundle, flags: &[&str], script: &str) -> crate::runtime::Output {
    bundle.call(&[&["exec"], flags, &[&bundle.id, "sh", "-c", script]].concat())
}

#[test]
fn exec_joins_the_user_namespace() {
    let mut bundle = mapped(Bundle::sleeping());
    bundle.set("/process/capabilities/bounding", json!(["CAP_SYS_ADMIN", "CAP_KILL"]));
    bundle.set("/process/capabilities/permitted", json!(["CAP_SYS_ADMIN", "CAP_KILL"]));
    bundle.set("/process/capabilities/effective", json!(["CAP_SYS_ADMIN", "CAP_KILL"]));
    bundle.run_detached().ok();
    let output = exec(
        &bundle,
        &["-g", "9"],
        "id -u; cat /proc/self/uid_map | tr -s ' '; grep -E 'CapEff|Groups' /proc/self/status; hostname; touch /x; kill -0 1 && echo seen",
    );
    assert_eq!(output.ok(), "0\n 0 100000 65536\nGroups:\t9 \nCapEff:\t0000000000200020\ninside\nseen\n");
    assert_eq!(fs::metadata(bundle.rootfs("/x")).unwrap().uid(), FIRST);
    bundle.call(&["exec", "-d", "--user", "7:8", "--pid-file", "exec.pid", &bundle.id, "sleep", "1000"]).ok();
    let pid = fs::read_to_string(bundle.dir.join("exec.pid")).unwrap();
    assert_eq!(status(&pid, "Uid").unwrap(), "100007 100007 100007 100007");
    assert_eq!(status(&pid, "Gid").unwrap(), "100008 100008 100008 100008");
}

#[test]
fn exec_names_an_id_that_is_not_mapped() {
    let bundle = mapped(Bundle::sleeping());
    bundle.run_detached().ok();
    for (flags, field) in [
        (["--user", "70000"], "process.user.uid: 70000"),
        (["--user", "0:70000"], "process.user.gid: 70000"),
        (["--additional-gids", "70000"], "process.user.additionalGids[0]: 70000"),
    ] {
        let output = exec(&bundle, &flags, "true");
        assert_eq!(output.code, 255, "{output}");
        if on_rrun() {
            let want = format!(": {field} is not mapped in the user namespace");
            assert!(output.stderr.contains(&want), "{output}");
        }
    }
}
