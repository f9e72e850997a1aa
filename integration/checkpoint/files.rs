//! What lies outside of a container while it is dumped and restored: mounts, namespaces, cgroups, its terminal.

use serde_json::json;

use super::{count, counting, dump, goes_on, quietly, restore, run};
use crate::mounted::Mounted;
use crate::runtime::{self, run as call};
use crate::tty::ConsoleSocket;

#[test]
fn volumes_come_back_also_one_in_another_and_one_behind_a_symlink() {
    guest!();
    let mut bundle = counting();
    let outer = bundle.dir.join("outer");
    let inner = bundle.dir.join("inner");
    let linked = bundle.dir.join("linked");
    for dir in [&outer, &inner, &linked] {
        std::fs::create_dir(dir).unwrap();
    }
    let file = bundle.host_file("a-file", "from the host\n");
    std::fs::create_dir_all(bundle.rootfs("real/conf")).unwrap();
    std::os::unix::fs::symlink("/real/conf", bundle.rootfs("conf")).unwrap();
    bundle.bind(&outer, "/outer", &["rw"]);
    bundle.bind(&inner, "/outer/deep/inner", &["rw"]);
    bundle.bind(&linked, "/conf", &["rw"]);
    bundle.bind(&file, "/etc/a-file", &["ro"]);
    run(&bundle);
    let stood = count(&bundle);
    dump(&bundle, &[]);
    // what was made for the mounts is made again
    std::fs::remove_dir(outer.join("deep/inner")).unwrap();
    std::fs::remove_dir(outer.join("deep")).unwrap();
    std::fs::remove_file(bundle.rootfs("etc/a-file")).unwrap();
    restore(&bundle, &[]);
    goes_on(&bundle, stood);
    let script =
        "echo 1 > /outer/x; echo 2 > /outer/deep/inner/y; echo 3 > /conf/z; cat /etc/a-file; ! echo no > /etc/a-file";
    let said = bundle.call(&["exec", &bundle.id, "sh", "-c", script]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "from the host\n"), "{said}");
    for (dir, name) in [(&outer, "x"), (&inner, "y"), (&linked, "z")] {
        assert!(dir.join(name).exists(), "{name}");
    }
}

#[test]
fn what_protects_a_container_stands_again() {
    guest!();
    let mut bundle = super::Bundle::sleeping();
    bundle.set("/root/readonly", true);
    bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/proc/acpi"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys"]));
    run(&bundle);
    let seen = || {
        let mounts = bundle.call(&["exec", &bundle.id, "cat", "/proc/1/mountinfo"]);
        let mut seen: Vec<_> =
            Mounted::parse(mounts.ok()).into_iter().map(|mount| (mount.point, mount.options)).collect();
        for (_, options) in &mut seen {
            options.retain(|option| matches!(option.as_str(), "ro" | "rw"));
        }
        seen.sort();
        let status = bundle.call(&["exec", &bundle.id, "grep", "-E", "^(Cap|Seccomp:)", "/proc/1/status"]);
        (seen, status.ok().to_string())
    };
    let before = seen();
    dump(&bundle, &[]);
    restore(&bundle, &[]);
    assert_eq!(seen(), before);
    assert_ne!(bundle.call(&["exec", &bundle.id, "touch", "/new"]).code, 0);
}

#[test]
fn a_network_namespace_of_others_is_found_again() {
    guest!();
    let mut bundle = counting();
    let name = bundle.id.clone();
    call(std::process::Command::new("ip").args(["netns", "add", &name])).ok();
    let path = format!("/run/netns/{name}");
    let networks = bundle.config["linux"]["namespaces"].as_array().unwrap().clone();
    let namespaces: Vec<_> = networks
        .into_iter()
        .map(|namespace| match namespace["type"] == "network" {
            true => json!({"type": "network", "path": path}),
            false => namespace,
        })
        .collect();
    bundle.set("/linux/namespaces", json!(namespaces));
    run(&bundle);
    let inode = |path: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    dump(&bundle, &[]);
    restore(&bundle, &[]);
    assert_eq!(inode(&format!("/proc/{}/ns/net", bundle.pid())), inode(&path));
    bundle.delete_force().ok();
    call(std::process::Command::new("ip").args(["netns", "del", &name])).ok();
}

#[test]
fn a_new_network_namespace_has_its_loopback() {
    guest!();
    let bundle = counting();
    run(&bundle);
    dump(&bundle, &[]);
    restore(&bundle, &[]);
    let routes = bundle.call(&["exec", &bundle.id, "cat", "/proc/net/fib_trie"]);
    assert!(routes.ok().contains("127.0.0.1"), "{routes}");
}

#[test]
fn limits_stand_again_also_in_another_cgroup() {
    guest!();
    let mut bundle = counting();
    bundle.set("/linux/resources/pids/limit", 20);
    bundle.set("/linux/resources/memory/limit", 64 << 20);
    run(&bundle);
    dump(&bundle, &["--manage-cgroups-mode", "ignore"]);
    let other = format!("/{}-other", bundle.id);
    if !crate::bundle::by_systemd() {
        bundle.set("/linux/cgroupsPath", other.as_str());
    }
    restore(&bundle, &["--manage-cgroups-mode", "ignore"]);
    let cgroup = |controller| match crate::bundle::by_systemd() {
        true => bundle.cgroup(controller),
        false => crate::layout::mountpoint(controller).join(other.trim_start_matches('/')),
    };
    assert_eq!(std::fs::read_to_string(cgroup("pids").join("pids.max")).unwrap().trim(), "20");
    let pid = bundle.pid();
    let inside = std::fs::read_to_string(cgroup("pids").join("cgroup.procs")).unwrap();
    assert!(inside.lines().any(|line| line == pid.to_string()), "{pid}: {inside}");
    let memory = cgroup("memory").join(if crate::layout::is_v2() { "memory.max" } else { "memory.limit_in_bytes" });
    assert_eq!(std::fs::read_to_string(memory).unwrap().trim(), (64 << 20).to_string());
    goes_on(&bundle, 1);
}

#[test]
fn a_terminal_is_handed_over_anew() {
    guest!();
    let mut bundle = super::Bundle::sh("while read line; do echo \"heard $line\"; done");
    bundle.set("/process/terminal", true);
    let socket = ConsoleSocket::new(&bundle.dir);
    let path = socket.path.to_str().unwrap().to_string();
    let (code, said) = quietly(&bundle, &["run", "-d", "--console-socket", &path, &bundle.id], None);
    assert_eq!(code, 0, "{said}");
    let mut master = socket.receive();
    master.types("one\n");
    master.hears("heard one\r\n");
    dump(&bundle, &[]);
    drop(master);
    restore(&bundle, &["--console-socket", &path]);
    let mut master = socket.receive();
    master.types("two\n");
    master.hears("heard two\r\n");
}

#[test]
fn images_of_peers_are_restored() {
    guest!();
    // Of v1's misc this runc knows nothing and stays at its top: CRIU takes all that is below along, other tests' cgroups too.
    layout!(V2);
    need!(rrun);
    let bundle = counting();
    let runc = |args: &[&str]| {
        bundle.write_config();
        let mut command = std::process::Command::new("runc");
        command.arg("--root").arg(bundle.dir.join("runc")).args(args).current_dir(&bundle.dir);
        let mut child = command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
        let status = runtime::wait_within(&mut child, super::PATIENCE).expect("does not end");
        assert!(status.success(), "runc {args:?}");
    };
    runc(&["run", "-d", &bundle.id]);
    let stood = count(&bundle);
    runc(&["checkpoint", &bundle.id]);
    restore(&bundle, &[]);
    goes_on(&bundle, stood);
}
