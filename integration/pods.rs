//! Containers of a pod, in the user namespace of its first.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

use serde_json::json;

use crate::bundle::Bundle;
use crate::mapped::{FIRST, POD, SIZE, in_pod_of, infra, mapping};
use crate::procfs::status;
use crate::refusals::Who::Rrun;
use crate::refusals::refuses;
use crate::runtime::on_rrun;

#[test]
fn a_container_joins_the_user_namespace_of_a_pod() {
    let infra = infra();
    let script = "id -u; readlink /proc/self/ns/user; readlink /proc/self/ns/net; hostname; echo $$; test -w /proc/sys/net; \
                  touch /tmp/written; ls /dev | wc -l";
    let mut bundle = in_pod_of(&infra, Bundle::sh(script), &POD);
    bundle.set("/process/user", json!({"uid": 3, "gid": 3}));
    bundle.set("/process/oomScoreAdj", 111);
    fs::set_permissions(bundle.rootfs("/tmp"), std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let output = bundle.run();
    let of_infra = |file: &str| fs::read_link(format!("/proc/{}/ns/{file}", infra.pid())).unwrap();
    let lines: Vec<_> = output.ok().lines().collect();
    assert_eq!(&lines[..2], ["3", of_infra("user").to_str().unwrap()], "{output}");
    assert_eq!(lines[2..5], [of_infra("net").to_str().unwrap(), "inside", "1"], "{output}");
    assert_eq!(fs::metadata(bundle.rootfs("/tmp/written")).unwrap().uid(), FIRST + 3);
}

#[test]
fn a_joined_user_namespace_and_its_pids() {
    let infra = infra();
    let mut kinds = POD.to_vec();
    kinds.push(("pid", "pid"));
    let bundle = in_pod_of(&infra, Bundle::sleeping(), &kinds);
    bundle.run_detached().ok();
    let pid = bundle.pid();
    for (_, file) in kinds {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(of(pid), of(infra.pid()), "{file}");
    }
    let parent = status(pid, "PPid").unwrap();
    assert_ne!(parent, infra.pid().to_string());
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    infra.wait_until("running");
}

// containerd and CRI-O give the path and the maps
#[test]
fn maps_beside_the_path_must_be_those_of_the_namespace() {
    let infra = infra();
    let with_maps = |bundle: Bundle, first: u32| {
        let mut bundle = in_pod_of(&infra, bundle, &POD);
        let halves = json!([mapping(SIZE / 2, first + SIZE / 2, SIZE / 2), mapping(0, first, SIZE / 2)]);
        let maps = if on_rrun() { halves } else { json!([mapping(0, first, SIZE)]) };
        bundle.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps);
        bundle
    };
    assert_eq!(with_maps(Bundle::sh("id -u"), FIRST).run().stdout, "0\n");
    let other = with_maps(Bundle::sh("id -u"), FIRST + 1);
    let _ = other.command(&[]);
    refuses(Rrun, &other, &["linux.uidMappings: the user namespace that is joined has another map: 0 100000 65536"]);
}

#[test]
fn ids_are_looked_for_in_a_joined_namespace_too() {
    let infra = infra();
    let mut bundle = in_pod_of(&infra, Bundle::sh("true"), &POD);
    bundle.set("/process/user", json!({"uid": 70_000, "gid": 0}));
    let _ = bundle.command(&[]);
    refuses(Rrun, &bundle, &["process.user.uid: 70000 is not mapped in the user namespace"]);
}

#[test]
fn exec_into_a_pod_gives_the_standard_files_to_the_user() {
    need!(rrun); // runc may not give them away from inside
    let infra = infra();
    let bundle = in_pod_of(&infra, Bundle::sleeping(), &POD);
    bundle.run_detached().ok();
    let mut command = bundle.command(&["exec", "--user", "5", &bundle.id, "sh", "-c", "hostname > /dev/stdout"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(said, "inside\n");
}
