//! What is mounted where. The words of a mount are in `mount_options`.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;
use crate::leftovers::Leftovers;
use crate::mounted::mount_at;
use crate::runtime;

#[test]
fn file_systems_are_mounted_in_the_order_given() {
    let mut bundle = Bundle::new();
    bundle.mount("/a", "tmpfs", "first", &[]).mount("/a/b", "tmpfs", "second", &[]);
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &[]).mount("/dev/shm", "tmpfs", "shm", &[]);
    let mounts = bundle.mounts();
    let seen: Vec<_> = mounts.iter().map(|mount| (mount.point.as_str(), mount.fstype.as_str())).collect();
    let order = ["/proc", "/dev", "/dev/pts", "/sys", "/a", "/a/b", "/dev/mqueue", "/dev/shm"];
    let positions: Vec<_> = order.iter().map(|point| seen.iter().position(|(seen, _)| seen == point)).collect();
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{seen:?}");
    for (point, fstype) in
        [("/proc", "proc"), ("/dev", "tmpfs"), ("/dev/pts", "devpts"), ("/sys", "sysfs"), ("/dev/mqueue", "mqueue")]
    {
        assert_eq!(mount_at(&mounts, point).fstype, fstype, "{point}");
    }
    assert_eq!(mount_at(&mounts, "/a/b").source, "second");
}

#[test]
fn a_later_mount_covers_an_earlier_one() {
    let mut bundle = Bundle::sh("cat /data/file");
    let (first, second) = (bundle.host_file("first/file", "first"), bundle.host_file("second/file", "second"));
    bundle.bind(first.parent().unwrap(), "/data", &[]).bind(second.parent().unwrap(), "/data", &[]);
    assert_eq!(bundle.run().ok(), "second");
}

#[test]
fn data_words_reach_the_file_system() {
    let mut bundle = Bundle::sh("df -k /small | tail -n 1 | awk '{print $2}'; stat -c '%a %u %g' /small");
    bundle.mount("/small", "tmpfs", "tmpfs", &["size=64k", "mode=1731", "uid=7", "gid=8"]);
    assert_eq!(bundle.run().ok(), "64\n1731 7 8\n");
}

#[test]
fn a_tmpfs_without_mode_has_that_of_the_directory_below_it() {
    use std::os::unix::fs::PermissionsExt;
    let mut bundle = Bundle::sh("stat -c %a /dir");
    fs::create_dir(bundle.rootfs("dir")).unwrap();
    fs::set_permissions(bundle.rootfs("dir"), fs::Permissions::from_mode(0o1725)).unwrap();
    bundle.mount("/dir", "tmpfs", "tmpfs", &[]);
    assert_eq!(bundle.run().ok(), "1725\n");
}

#[test]
fn directories_and_files_are_bound() {
    let mut bundle = Bundle::sh("cat /dir/file /etc/one; echo changed > /etc/one");
    let (in_dir, file) = (bundle.host_file("dir/file", "in the directory\n"), bundle.host_file("one", "the file\n"));
    bundle.bind(in_dir.parent().unwrap(), "/dir", &["ro"]).bind(&file, "/etc/one", &[]);
    assert_eq!(bundle.run().ok(), "in the directory\nthe file\n");
    assert_eq!(fs::read_to_string(file).unwrap(), "changed\n");
    assert_eq!(fs::read(bundle.rootfs("etc/one")).unwrap(), b"", "the image was written to");
}

#[test]
fn a_relative_source_starts_at_the_bundle() {
    let mut bundle = Bundle::sh("cat /file");
    bundle.host_file("sub/file", "here");
    bundle.mount("/file", "bind", "sub/file", &["bind"]);
    let run = bundle.dir.join("config.json"); // from another directory than the bundle's
    let mut command = bundle.command(&["run", "--bundle", run.parent().unwrap().to_str().unwrap(), &bundle.id]);
    assert_eq!(crate::runtime::run(command.current_dir("/")).ok(), "here");
}

#[test]
fn bind_takes_one_mount_and_rbind_the_tree() {
    let mut bundle = Bundle::sh("ls /one/sub /tree/sub");
    let sub = bundle.host_tmpfs("tree/sub", "rw");
    fs::write(sub.join("inner"), "").unwrap();
    let dir = bundle.dir.join("tree");
    bundle.bind(&dir, "/one", &[]).mount("/tree", "none", dir.to_str().unwrap(), &["rbind"]);
    assert_eq!(bundle.run().ok(), "/one/sub:\n\n/tree/sub:\ninner\n");
}

#[test]
fn destinations_are_made() {
    let mut bundle = Bundle::sh("stat -c '%n %F %a' /new /new/dir /new/file");
    let file = bundle.host_file("file", "x");
    bundle.mount("/new/dir", "tmpfs", "tmpfs", &["mode=700"]).bind(&file, "/new/file", &[]);
    let seen = bundle.run();
    assert_eq!(seen.ok(), "/new directory 755\n/new/dir directory 700\n/new/file regular file 644\n");
}

// CVE-2015-3629, CVE-2019-18837: an image's symlink is a path of the image, never of the host
#[test]
fn a_symlink_on_the_way_to_a_destination_stays_inside() {
    let mut bundle = Bundle::sh("cat /safe/file /safe/up/file; ls -d /tmp/rt-*/outside");
    fs::create_dir(bundle.rootfs("safe")).unwrap();
    let outside = bundle.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink("/safe", bundle.rootfs("absolute")).unwrap();
    symlink("../../../../../../../safe/up", bundle.rootfs("climbing")).unwrap();
    symlink(&outside, bundle.rootfs("etc/victim")).unwrap();
    let (file, in_dir) = (bundle.host_file("file", "1\n"), bundle.host_file("dir/file", "2\n"));
    bundle.bind(&file, "/absolute/file", &[]);
    bundle.bind(in_dir.parent().unwrap(), "/climbing", &[]).bind(&file, "/etc/victim/file", &[]);
    let inside = format!("{}\n", outside.display());
    assert_eq!(bundle.run().ok(), format!("1\n2\n{inside}"), "{} of the image was not meant", outside.display());
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

#[test]
fn a_destination_with_dots_stays_inside() {
    let mut bundle = Bundle::sh("cat /data/file");
    let source = bundle.host_file("source/file", "x");
    bundle.bind(source.parent().unwrap(), "/../../../a/../data/.", &[]);
    assert_eq!(bundle.run().ok(), "x");
}

// runc's callers name so what an earlier mount has brought into the rootfs
#[test]
fn a_destination_by_its_path_on_the_host_is_the_one_inside() {
    let mut bundle = Bundle::sh("cat /new/copy/file");
    let source = bundle.host_file("source/file", "x");
    let [rootfs, copy] = ["data", "new/copy"].map(|inside| bundle.rootfs(inside));
    bundle.bind(source.parent().unwrap(), "/data", &[]).bind(&rootfs, copy.to_str().unwrap(), &[]);
    assert_eq!(bundle.run().ok(), "x");
    assert!(!bundle.rootfs(bundle.dir.to_str().unwrap().trim_start_matches('/')).exists());
}

#[test]
fn no_mount_of_a_container_shows_on_the_host() {
    let mut bundle = Bundle::sleeping();
    let file = bundle.host_file("file", "x");
    bundle.mount("/tmpfs", "tmpfs", "tmpfs", &["shared"]).bind(&file, "/etc/file", &["rshared"]);
    bundle.run_detached().ok();
    let left = Leftovers::find(&bundle.id, &bundle.state_root);
    assert!(left.mounts.is_empty(), "{left}");
}

// systemd makes every mount of a host shared
#[test]
fn no_mount_of_a_container_shows_on_a_host_with_shared_mounts() {
    let mut bundle = Bundle::sleeping();
    let file = bundle.host_file("file", "x");
    bundle.mount("/tmpfs", "tmpfs", "tmpfs", &[]).bind(&file, "/etc/file", &[]);
    let create = bundle.command(&["create", &bundle.id]);
    let mut host = Command::new("unshare");
    host.args(["--mount", "--propagation", "shared", "sh", "-c", "\"$@\"; cat /proc/self/mountinfo", "sh"]);
    host.arg(create.get_program()).args(create.get_args()).current_dir(&bundle.dir);
    let seen = runtime::run(&mut host);
    assert!(seen.ok().contains("shared:"), "this shows nothing: {seen}");
    assert!(!seen.ok().contains(bundle.dir.to_str().unwrap()), "{seen}");
    assert_eq!(bundle.status(), "created");
}

#[test]
fn what_the_host_mounts_later_reaches_a_slave_and_not_a_private_mount() {
    let mut bundle = Bundle::sh("until [ -e /go/now ]; do sleep 0.02; done; ls /private/sub /slave/sub");
    let shared = bundle.host_tmpfs("shared", "rw");
    assert!(Command::new("mount").arg("--make-shared").arg(&shared).status().unwrap().success());
    fs::create_dir(shared.join("sub")).unwrap();
    let go = bundle.host_file("go/not-yet", "");
    bundle.bind(go.parent().unwrap(), "/go", &[]);
    for (destination, word) in [("/slave", "rslave"), ("/private", "rprivate")] {
        bundle.mount(destination, "none", shared.to_str().unwrap(), &["rbind", word]);
    }
    bundle.set("/linux/rootfsPropagation", "rslave");
    let run = bundle.run_detached();
    run.ok();
    let sub = bundle.host_tmpfs("shared/sub", "rw");
    fs::write(sub.join("late"), "").unwrap();
    fs::write(go.with_file_name("now"), "").unwrap();
    bundle.wait_until("stopped");
    assert_eq!(run.later(), "/private/sub:\n\n/slave/sub:\nlate\n");
}

#[test]
fn tmpcopyup_does_not_wait_for_a_fifo_of_the_image() {
    need!(rrun);
    let mut bundle = Bundle::sh("true");
    nix::unistd::mkfifo(&bundle.rootfs("data"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    bundle.run().refused(&["/data", "ENOTDIR"]);
    bundle.leaves_nothing();
}

#[test]
fn tmpcopyup_starts_with_what_the_image_has_there() {
    use std::os::unix::fs::PermissionsExt;
    need!(mount_option("tmpcopyup"));
    let mut bundle =
        Bundle::sh("cd /data; cat file dir/deep; readlink link; stat -c '%a %u:%g' file dir; echo x > file");
    bundle.image_file("data/file", "top\n");
    bundle.image_file("data/dir/deep", "deep\n");
    symlink("/outside/target", bundle.rootfs("data/link")).unwrap();
    fs::set_permissions(bundle.rootfs("data/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(bundle.rootfs("data/dir"), fs::Permissions::from_mode(0o1755)).unwrap();
    std::os::unix::fs::chown(bundle.rootfs("data/dir"), Some(5), Some(6)).unwrap();
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup"]);
    assert_eq!(bundle.run().ok(), "top\ndeep\n/outside/target\n4751 0:0\n1755 5:6\n");
    assert_eq!(fs::read_to_string(bundle.rootfs("data/file")).unwrap(), "top\n", "the image was written to");
}

// mount(2) takes one page of options; images of docker have more layers than fit
#[test]
fn an_overlay_may_have_more_than_a_page_of_options() {
    need!(rrun);
    let mut bundle = Bundle::sh("ls /merged | wc -l");
    let layers: Vec<_> = (0..60).map(|n| bundle.host_file(&format!("{}{n}/f{n}", "layer".repeat(15)), "")).collect();
    let lower: Vec<_> = layers.iter().map(|file| file.parent().unwrap().to_str().unwrap()).collect();
    let option = format!("lowerdir={}", lower.join(":"));
    assert!(option.len() > 4096);
    bundle.mount("/merged", "overlay", "overlay", &[&option]);
    if kernel() < (6, 8) {
        // all options together in one page, and no `lowerdir+`
        return bundle.run().refused(&["mounts[4]", "/merged", "too large"]);
    }
    assert_eq!(bundle.run().ok(), "60\n");
}

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn remount_changes_what_is_mounted_already() {
    let mut bundle = Bundle::new();
    bundle.mount("/data", "tmpfs", "tmpfs", &["size=64k"]).mount(
        "/data",
        "tmpfs",
        "tmpfs",
        &["remount", "size=128k", "noexec"],
    );
    let mounts = bundle.mounts();
    let data = mount_at(&mounts, "/data");
    assert!(data.filesystem_has("size=128k") && data.has("noexec"), "{data:?}");
    assert_eq!(mounts.iter().filter(|mount| mount.point == "/data").count(), 1);
}

#[test]
fn a_config_without_mounts_is_legal() {
    need!(rrun); // runc goes by the container's own /proc
    let mut bundle = Bundle::sh("ls /proc /dev");
    bundle.unset("/mounts");
    assert!(bundle.run().ok().contains("null\n"), "the devices that every container gets are missing");
    bundle.set("/mounts", json!([]));
    bundle.run().ok();
}

// lxcfs binds these files over those of proc
#[test]
fn the_files_that_lxcfs_replaces_may_be_bound_into_proc() {
    let mut bundle = Bundle::sh("cat /proc/uptime /proc/meminfo");
    let file = bundle.host_file("file", "mine\n");
    bundle.bind(&file, "/proc/uptime", &[]).bind(&file, "/proc/meminfo", &[]);
    assert_eq!(bundle.run().ok(), "mine\nmine\n");
}

// docker makes exit code 127 and its hint about mounts of these words
#[test]
fn a_file_goes_onto_a_file_and_a_folder_onto_a_folder() {
    let mut bundle = Bundle::new();
    let file = bundle.host_file("one", "");
    bundle.bind(&file, "/tmp", &[]);
    bundle.run().refused(&["not a directory"]);
    let mut bundle = Bundle::new();
    let file = bundle.host_file("dir/one", "");
    bundle.image_file("etc/one", "");
    bundle.bind(file.parent().unwrap(), "/etc/one", &[]);
    bundle.run().refused(&["not a directory"]);
    bundle.leaves_nothing();
}

#[test]
fn a_copied_up_file_of_holes_takes_no_memory() {
    need!(rrun); // others copy the holes
    let mut bundle = Bundle::sh("stat -c %s /dir/big; du -k /dir/big | cut -f1; tail -c 4 /dir/big");
    let big = fs::File::create(bundle.image_file("dir/big", "")).unwrap();
    std::os::unix::fs::FileExt::write_at(&big, b"end\n", (1 << 30) - 4).unwrap();
    bundle.mount("/dir", "tmpfs", "tmpfs", &["tmpcopyup", "size=1m"]);
    assert_eq!(bundle.run().ok(), "1073741824\n4\nend\n");
}

#[test]
fn a_part_of_a_procfs_in_the_place_of_the_whole_is_warned_of() {
    let mut bundle = Bundle::sh("ls /proc; true");
    bundle.set("/linux/maskedPaths", json!([])).set("/linux/readonlyPaths", json!([]));
    bundle.without_mount("/proc");
    for (source, warned) in [("/proc", false), ("/proc/sys", true)] {
        bundle.mount("/proc", "none", source, &["bind"]);
        let log = bundle.dir.join(warned.to_string());
        let output = bundle.call(&["--log", log.to_str().unwrap(), "run", &bundle.id]);
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output}");
        let said = fs::read_to_string(log).unwrap_or_default();
        assert_eq!(said.contains("level=warning") && said.contains("/proc"), warned, "{said}");
        bundle.without_mount("/proc");
    }
}
