//! systemd as process 1 of a container, on a host that systemd runs: it boots in the cgroup that was delegated to it, in
//! which it makes cgroups of its own, and ends when it is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use serde_json::json;

use crate::bundle::Bundle;
use crate::runtime::eventually_within;

/// The programs are those of the guest.
fn system() -> Bundle {
    let mut bundle = Bundle::new();
    let root = bundle.rootfs("/");
    fs::remove_dir_all(&root).unwrap();
    for dir in ["usr", "etc/systemd/system", "proc", "sys", "dev", "run", "tmp", "var", "root"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for dir in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{dir}"), root.join(dir)).unwrap();
    }
    for (file, content) in [
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
        // without one it is a first boot, which enables whatever the guest has
        ("machine-id", "0123456789abcdef0123456789abcdef\n"),
    ] {
        fs::write(root.join("etc").join(file), content).unwrap();
    }
    symlink("/usr/lib/systemd/system/multi-user.target", root.join("etc/systemd/system/default.target")).unwrap();
    bundle.bind("/usr".as_ref(), "/usr", &["ro"]);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["rw"]);
    // without CAP_SYS_ADMIN it can mount none of them
    let tmpfs = [("/dev/shm", "mode=1777"), ("/run", "mode=755"), ("/run/lock", "mode=1777"), ("/tmp", "mode=1777")];
    for (place, mode) in tmpfs {
        bundle.mount(place, "tmpfs", "tmpfs", &["nosuid", "nodev", mode]);
    }
    // those of docker and podman; no CAP_SYS_ADMIN, and no CAP_SYS_BOOT, without which it just ends
    let capabilities =
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT";
    let capabilities: Vec<_> = capabilities.split(' ').map(|name| format!("CAP_{name}")).collect();
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}"), json!(capabilities));
    }
    bundle.set("/process/env", json!(["PATH=/usr/sbin:/usr/bin", "container=oci"]));
    bundle.set("/process/noNewPrivileges", false).args(&["/sbin/init"]);
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    let path = format!("system.slice:rrun:{}", bundle.id);
    bundle.set("/linux/cgroupsPath", path);
    bundle
}

#[test]
fn it_boots_and_ends_when_told() {
    guest!();
    layout!(V2);
    let bundle = system();
    let call = bundle.spawn(&["--systemd-cgroup", "run", &bundle.id]);
    let inside = |args: &[&str]| bundle.call(&[&["exec", &bundle.id], args].concat());
    // degraded: a unit has failed, which may be the guest's business
    let state = || Some(inside(&["systemctl", "is-system-running"]).stdout.trim().to_string());
    let booted = eventually_within(Duration::from_secs(60), || state().filter(|s| s == "running" || s == "degraded"));
    assert!(booted.is_some(), "{:?}: {}", state(), call.so_far());
    assert_eq!(inside(&["cat", "/proc/1/cgroup"]).ok(), "0::/init.scope\n");
    let limited = inside(&[
        "systemd-run",
        "-q",
        "--wait",
        "--pipe",
        "-p",
        "MemoryMax=20M",
        "sh",
        "-c",
        "cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/memory.max",
    ]);
    assert_eq!(limited.ok(), "20971520\n");
    bundle.kill("SIGRTMIN+3").ok();
    let output = call.wait();
    assert_eq!(output.code, 0, "{output}");
    bundle.leaves_nothing();
}
