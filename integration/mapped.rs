//! Bundles in user namespaces: a new one, or that of a pod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::runtime::on_rrun;

/// Id 0 inside.
pub const FIRST: u32 = 100_000;
pub const SIZE: u32 = 65_536;

pub fn mapping(container: u32, host: u32, size: u32) -> Value {
    json!({"containerID": container, "hostID": host, "size": size})
}

/// With a new user namespace, and an image that belongs to it.
pub fn mapped(mut bundle: Bundle) -> Bundle {
    bundle.set("/linux/namespaces/-", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", json!([mapping(0, FIRST, SIZE)]));
    bundle.set("/linux/gidMappings", json!([mapping(0, FIRST, SIZE)]));
    give(&bundle.rootfs("/"), FIRST);
    bundle
}

pub fn give(path: &Path, id: u32) {
    let given = Command::new("chown").args(["-hR", &format!("{id}:{id}")]).arg(path).status();
    assert!(given.is_ok_and(|status| status.success()), "chown {}", path.display());
}

/// A directory that root inside cannot enter.
pub fn closed_directory(bundle: &Bundle, name: &str) -> PathBuf {
    let dir = bundle.dir.join(name);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "reached\n").unwrap();
    give(&dir, 4321);
    fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    dir
}

/// A container of a pod with a user namespace: user, network, ipc and uts of another container, the rest new.
pub fn in_pod_of(infra: &Bundle, mut bundle: Bundle, kinds: &[(&str, &str)]) -> Bundle {
    for (kind, file) in kinds {
        let path = format!("/proc/{}/ns/{file}", infra.pid());
        bundle.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}));
    }
    if kinds.iter().any(|(kind, _)| *kind == "uts") {
        bundle.unset("/hostname");
    }
    if !on_rrun() {
        // runc 1.1 wants them beside the path
        let maps = json!([mapping(0, FIRST, SIZE)]);
        bundle.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
    }
    give(&bundle.rootfs("/"), FIRST);
    bundle
}

pub const POD: [(&str, &str); 4] = [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];

pub fn infra() -> Bundle {
    let bundle = mapped(Bundle::sleeping());
    bundle.run_detached().ok();
    bundle
}
