//! What becomes of a symlink that is the source of a bind mount, or stands at its destination.

use std::fs;
use std::os::unix::fs::symlink;

use crate::bundle::Bundle;

/// A symlink beside the rootfs that leads to `to`.
fn link(bundle: &Bundle, to: &str) -> std::path::PathBuf {
    let path = bundle.dir.join("link");
    symlink(to, &path).unwrap();
    path
}

#[test]
fn a_source_is_followed_unless_it_is_told_otherwise() {
    need!(mount_option("src-nofollow"));
    let mut bundle = Bundle::sh("cat /followed; readlink /itself; cat /itself/group");
    let file = bundle.host_file("file", "the file\n");
    let source = link(&bundle, file.to_str().unwrap());
    bundle.image_file("/elsewhere/group", "of the image\n");
    let directory = bundle.dir.join("directory");
    symlink("/elsewhere", &directory).unwrap();
    bundle.bind(&source, "/followed", &[]).bind(&directory, "/itself", &["src-nofollow"]);
    assert_eq!(bundle.run().ok(), "the file\n/elsewhere\nof the image\n");
}

#[test]
fn a_symlink_is_copied_in_place_of_a_mount() {
    need!(mount_option("copy-symlink"));
    let mut bundle =
        Bundle::sh("readlink /new/dir/link; readlink /there; cat /file; grep -c link /proc/self/mountinfo");
    let source = link(&bundle, "../to/nowhere");
    symlink("../to/nowhere", bundle.rootfs("there")).unwrap();
    let file = bundle.host_file("file", "no symlink\n");
    bundle.bind(&source, "/new/dir/link", &["copy-symlink"]).bind(&source, "/there", &["copy-symlink"]);
    bundle.bind(&file, "/file", &["copy-symlink"]);
    let output = bundle.run();
    assert_eq!(output.stdout, "../to/nowhere\n../to/nowhere\nno symlink\n0\n", "{output}");
}

#[test]
fn another_file_where_a_symlink_is_to_be_copied_is_an_error() {
    need!(rrun);
    for other in ["file", "link", "directory"] {
        let mut bundle = Bundle::new();
        match other {
            "file" => drop(bundle.image_file("/there", "")),
            "link" => symlink("/another", bundle.rootfs("there")).unwrap(),
            _ => fs::create_dir(bundle.rootfs("there")).unwrap(),
        }
        let source = link(&bundle, "/to");
        bundle.bind(&source, "/there", &["copy-symlink"]);
        bundle.create().refused(&["mounts[4]", "/there is there already, and no symlink to /to"]);
        bundle.leaves_nothing();
    }
}

// what an image links to may be a volume of the host's
#[test]
fn none_is_copied_through_a_symlink_of_the_image() {
    need!(rrun);
    let mut bundle = Bundle::new();
    fs::create_dir(bundle.rootfs("real")).unwrap();
    symlink("/real", bundle.rootfs("up")).unwrap();
    let source = link(&bundle, "/to");
    bundle.bind(&source, "/up/there", &["copy-symlink"]);
    bundle.create().refused(&["mounts[4]", "the image has a symlink above /up/there"]);
    assert!(!bundle.rootfs("real").join("there").is_symlink());
    bundle.leaves_nothing();
}

#[test]
fn a_symlink_at_the_destination_is_covered_itself() {
    need!(mount_option("dest-nofollow"));
    let mut bundle = Bundle::sh("cat /link; cat /target; cat /made; cat /dir/up/file");
    bundle.image_file("/target", "of the image\n");
    symlink("/target", bundle.rootfs("link")).unwrap();
    fs::create_dir(bundle.rootfs("real")).unwrap();
    fs::create_dir(bundle.rootfs("dir")).unwrap();
    symlink("/real", bundle.rootfs("dir/up")).unwrap();
    let file = bundle.host_file("file", "bound\n");
    bundle.bind(&file, "/link", &["dest-nofollow"]);
    // made where nothing stands, and followed on the way there
    bundle.bind(&file, "/made", &["dest-nofollow"]).bind(&file, "/dir/up/file", &["dest-nofollow"]);
    assert_eq!(bundle.run().ok(), "bound\nof the image\nbound\nbound\n");
}

#[test]
fn a_symlink_is_bound_onto_a_symlink() {
    need!(mount_option("dest-nofollow"));
    let mut bundle = Bundle::sh("readlink /link; cat /link");
    bundle.image_file("/first", "first\n");
    bundle.image_file("/second", "second\n");
    symlink("/first", bundle.rootfs("link")).unwrap();
    let source = link(&bundle, "/second");
    bundle.bind(&source, "/link", &["src-nofollow", "dest-nofollow"]);
    assert_eq!(bundle.run().ok(), "/second\nsecond\n");
}

#[test]
fn a_file_system_does_not_follow_either() {
    need!(rrun);
    let mut bundle = Bundle::new();
    fs::create_dir(bundle.rootfs("real")).unwrap();
    symlink("/real", bundle.rootfs("link")).unwrap();
    bundle.mount("/link", "tmpfs", "tmpfs", &["dest-nofollow"]);
    bundle.create().refused(&["mounts[4]", "/link"]);
    bundle.leaves_nothing();
}
