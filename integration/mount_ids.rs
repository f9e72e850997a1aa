//! Id-mapped mounts: a file's owner on its file system and the owner that the container sees are not the same.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::mapped::{POD, closed_directory, give, in_pod_of, infra, mapped};
use crate::refusals::Who::Rrun;
use crate::refusals::refuses;

/// A directory beside the rootfs with a file `of-ID` for each id.
fn owned(bundle: &Bundle, name: &str, ids: &[u32]) -> std::path::PathBuf {
    for id in ids {
        give(&bundle.host_file(&format!("{name}/of-{id}"), ""), *id);
    }
    bundle.dir.join(name)
}

fn map(container: u32, host: u32, size: u32) -> Value {
    json!([{"containerID": container, "hostID": host, "size": size}])
}

/// With maps of its own.
fn bind_with_maps(bundle: &mut Bundle, source: &Path, destination: &str, options: &[&str], maps: [Value; 2]) {
    bundle.bind(source, destination, options);
    let place = bundle.config["mounts"].as_array().unwrap().len() - 1;
    let [uids, gids] = maps;
    bundle.set(&format!("/mounts/{place}/uidMappings"), uids);
    bundle.set(&format!("/mounts/{place}/gidMappings"), gids);
}

const OWNERS: &str = "stat -c '%n %u %g' /data/*";

#[test]
fn a_container_of_other_ids_owns_what_is_bound() {
    need!(mount_option("idmap"));
    let mut bundle = mapped(Bundle::sh(&format!("{OWNERS}; echo new > /data/new; chown 5:6 /data/new")));
    let source = owned(&bundle, "source", &[0, 1000]);
    bundle.bind(&source, "/data", &["idmap"]);
    assert_eq!(bundle.run().ok(), "/data/of-0 0 0\n/data/of-1000 1000 1000\n");
    let new = fs::metadata(source.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (5, 6), "what is written is stored by the ids inside");
}

#[test]
fn a_container_without_a_user_namespace_takes_maps() {
    need!(rrun);
    let mut bundle = Bundle::sh(&format!("{OWNERS}; echo new > /data/new"));
    bundle.set("/process/user", json!({"uid": 4005, "gid": 50}));
    let source = owned(&bundle, "source", &[0, 7, 20]);
    // what belongs to somebody without a place in the map is written to by nobody
    std::os::unix::fs::chown(&source, Some(5), Some(5)).unwrap();
    bind_with_maps(&mut bundle, &source, "/data", &["idmap"], [map(0, 4000, 10), map(5, 50, 10)]);
    // those without a place in the map are nobody's
    assert_eq!(bundle.run().ok(), "/data/of-0 4000 65534\n/data/of-20 65534 65534\n/data/of-7 4007 52\n");
    let new = fs::metadata(source.join("new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (5, 5));
}

// the word says how far the map reaches; managers that know no word write only the maps
#[test]
fn maps_alone_are_applied() {
    need!(rrun);
    let mut bundle = mapped(Bundle::sh(OWNERS));
    let source = owned(&bundle, "source", &[7]);
    bind_with_maps(&mut bundle, &source, "/data", &[], [map(7, 100_005, 1), map(7, 100_006, 1)]);
    assert_eq!(bundle.run().ok(), "/data/of-7 5 6\n");
}

#[test]
fn idmap_takes_one_mount_and_ridmap_the_tree() {
    need!(rrun);
    let mut bundle = mapped(Bundle::sh("stat -c '%n %u' /one /one/sub/file /all /all/sub/file"));
    let sub = bundle.host_tmpfs("tree/sub", "rw");
    fs::write(sub.join("file"), "").unwrap();
    let tree = bundle.dir.join("tree");
    bundle.bind(&tree, "/one", &["rbind", "idmap"]).bind(&tree, "/all", &["rbind", "ridmap"]);
    assert_eq!(bundle.run().ok(), "/one 0\n/one/sub/file 65534\n/all 0\n/all/sub/file 0\n");
}

#[test]
fn file_systems_of_several_types() {
    need!(rrun);
    let mut bundle = mapped(Bundle::sh("stat -c '%n %u' /tmpfs/file /file"));
    let tmpfs = bundle.host_tmpfs("tmpfs", "rw");
    for dir in ["lower", "upper", "work", "merged"] {
        fs::create_dir(tmpfs.join(dir)).unwrap();
    }
    fs::write(tmpfs.join("lower/file"), "").unwrap();
    fs::write(tmpfs.join("file"), "").unwrap();
    let layers = ["lowerdir", "upperdir", "workdir"].map(|key| format!("{key}={}/{}", tmpfs.display(), &key[..5]));
    let layers = layers.join(",").replace("/workd", "/work");
    let mut overlay = Command::new("mount");
    let mounted = overlay.args(["-t", "overlay", "-o", &layers, "overlay"]).arg(tmpfs.join("merged")).status();
    assert!(mounted.unwrap().success(), "mount an overlay: {layers}");
    let file = bundle.host_file("one", "");
    bundle.bind(&tmpfs, "/tmpfs", &["idmap"]).bind(&file, "/file", &["idmap", "ro"]);
    let output = bundle.run();
    // which stays without ids of its own: the kernel maps those of its layers
    bundle.bind(&tmpfs.join("merged"), "/overlay", &["idmap"]);
    let refused = bundle.create();
    let unmounted = Command::new("umount").arg(tmpfs.join("merged")).status();
    assert_eq!(output.ok(), "/tmpfs/file 0\n/file 0\n");
    refused.refused(&["mounts[6]", "cannot map ids of overlay", "EINVAL"]);
    assert!(unmounted.unwrap().success());
}

#[test]
fn many_mounts_with_one_map_and_one_with_another() {
    need!(rrun);
    let mut bundle = Bundle::sh("stat -c '%n %u' /[0-9]/of-0");
    let source = owned(&bundle, "source", &[0]);
    for place in 0..6 {
        let host = if place == 4 { 9 } else { 3 };
        bind_with_maps(&mut bundle, &source, &format!("/{place}"), &["idmap"], [map(0, host, 1), map(0, 0, 1)]);
    }
    let want: String = (0..6).map(|place| format!("/{place}/of-0 {}\n", if place == 4 { 9 } else { 3 })).collect();
    assert_eq!(bundle.run().ok(), want);
}

#[test]
fn what_root_inside_cannot_reach_is_mapped_too() {
    need!(rrun);
    let mut bundle = mapped(Bundle::sh("cat /data/file; stat -c %u /data/file"));
    let closed = closed_directory(&bundle, "closed");
    bundle.bind(&closed, "/data", &["idmap"]).set("/process/user", json!({"uid": 4321, "gid": 4321}));
    assert_eq!(bundle.run().ok(), "reached\n4321\n");
}

// the parent opens what root inside cannot reach; that must not set it free from what the host says of it
#[test]
fn what_the_host_has_set_on_a_closed_mount_stays() {
    need!(rrun);
    for options in [&["idmap"][..], &[]] {
        let mut bundle = mapped(Bundle::sh(
            "mount -o remount,bind,rw /data && echo remounted; echo > /data/new && echo written; \
             grep ' /data ' /proc/self/mountinfo; mount -o remount,bind,rw /file && echo remounted; cat /file",
        ));
        bundle.set("/process/capabilities/effective/-", "CAP_SYS_ADMIN");
        bundle.set("/process/capabilities/permitted/-", "CAP_SYS_ADMIN");
        bundle.set("/process/capabilities/bounding/-", "CAP_SYS_ADMIN");
        let closed = closed_directory(&bundle, "closed");
        let tmpfs = bundle.host_tmpfs("closed/in", "rw");
        fs::write(tmpfs.join("file"), "content\n").unwrap();
        for how in [["--make-shared"].as_slice(), &["-o", "remount,bind,ro"]] {
            assert!(Command::new("mount").args(how).arg(&tmpfs).status().unwrap().success(), "mount {how:?}");
        }
        assert_eq!(fs::metadata(closed).unwrap().mode() & 0o777, 0o700);
        bundle.bind(&tmpfs, "/data", options).bind(&tmpfs.join("file"), "/file", options);
        let output = bundle.run();
        assert!(!output.stdout.contains("remounted") && !output.stdout.contains("written"), "{output}");
        assert!(output.stdout.contains(" ro,") && output.stdout.ends_with("content\n"), "{output}");
        // nor does what is mounted inside come out
        assert!(!output.stdout.contains(" shared:"), "{output}");
        assert!(!tmpfs.join("new").exists());
    }
}

#[test]
fn a_joined_user_namespace_lends_its_maps() {
    need!(rrun);
    let infra = infra();
    let mut bundle = in_pod_of(&infra, Bundle::sh(OWNERS), &POD);
    let source = owned(&bundle, "source", &[3]);
    bundle.bind(&source, "/data", &["idmap"]);
    assert_eq!(bundle.run().ok(), "/data/of-3 3 3\n");
    infra.delete_force();
}

#[test]
fn attributes_and_propagation_go_with_a_map() {
    need!(rrun);
    let mut bundle = mapped(Bundle::sh("grep ' /data ' /proc/self/mountinfo; touch /data/x 2>&1"));
    let source = owned(&bundle, "source", &[0]);
    bundle.bind(&source, "/data", &["idmap", "ro", "nosuid", "rshared"]);
    let output = bundle.run();
    assert!(output.stdout.contains("ro,nosuid") && output.stdout.contains("idmapped"), "{output}");
    assert!(output.stdout.contains(" shared:") && output.stdout.contains("Read-only"), "{output}");
}

#[test]
fn what_cannot_be_mapped_is_refused_by_name() {
    need!(rrun);
    let refused = |change: &dyn Fn(&mut Bundle), words: &[&str]| {
        let mut bundle = Bundle::new();
        change(&mut bundle);
        bundle.write_config();
        refuses(Rrun, &bundle, words);
    };
    refused(
        &|b| {
            b.mount("/d", "none", "rootfs", &["bind", "idmap"]);
        },
        &["mounts[4].options: idmap: there is no map"],
    );
    refused(
        &|b| {
            b.mount("/d", "tmpfs", "none", &["idmap"]);
        },
        &["mounts[4].options: idmap: only of a new bind"],
    );
    refused(
        &|b| {
            b.mount("/d", "none", "rootfs", &["bind", "idmap"]);
            b.set("/mounts/4/uidMappings", map(0, 1, 1));
        },
        &["mounts[4].gidMappings: missing"],
    );
    refused(
        &|b| bind_with_maps(b, Path::new("/proc/sys"), "/d", &["idmap"], [map(0, 1, 1), map(0, 1, 1)]),
        &["mounts[4]: bind onto /d: this kernel cannot map ids of proc; leave", "EINVAL"],
    );
    refused(
        &|b| bind_with_maps(b, Path::new("/proc"), "/d", &["rbind", "ridmap"], [map(0, 1, 1), map(0, 1, 1)]),
        &["mounts[4]: bind onto /d: this kernel cannot map ids of proc, or of a mount below it; leave", "EINVAL"],
    );
}
