//! Where file systems of given types are mounted, from /proc/self/mountinfo: proc_pid_mountinfo(5). Pure.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::cgroups::unescaped;

/// Innermost first, so that they can be taken off in this order.
pub fn mountpoints(mountinfo: &[u8], types: &[&str]) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mountinfo.split(|byte| *byte == b'\n').filter_map(|l| point_of(l, types)).collect();
    points.reverse();
    points
}

fn point_of(line: &[u8], types: &[&str]) -> Option<PathBuf> {
    let separator = line.windows(3).position(|bytes| bytes == b" - ")?;
    let fstype = line[separator + 3..].split(|byte| *byte == b' ').next()?;
    let wanted = types.iter().any(|name| name.as_bytes() == fstype);
    let point = line[..separator].split(|byte| *byte == b' ').nth(4)?;
    wanted.then(|| PathBuf::from(std::ffi::OsString::from_vec(unescaped(point))))
}

/// The mount at `point` that lies on the mount with the number `on`.
pub fn mounted_on(mountinfo: &[u8], point: &Path, on: u64) -> Option<u64> {
    mountinfo.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
        let (id, parent) = (number()?, number()?);
        let there = PathBuf::from(std::ffi::OsString::from_vec(unescaped(fields.nth(2)?)));
        (parent == on && there == point).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_types_asked_for() {
        let mountinfo = b"22 1 0:20 / /proc rw - proc proc rw\n23 1 0:21 / /sys rw shared:7 - sysfs sysfs rw\n\
                          24 1 0:5 / /a\\040b rw - proc none rw\n25 1 8:1 / / rw - ext4 proc rw\n";
        let want = ["/a b", "/sys", "/proc"].map(PathBuf::from);
        assert_eq!(mountpoints(mountinfo, &["proc", "sysfs"]), want);
    }

    #[test]
    fn of_mounts_in_one_place_the_one_on_a_given_mount() {
        let mountinfo = b"25 1 8:1 / / rw - ext4 d rw\n30 25 8:1 /a /a\\040b rw - ext4 d rw\n\
                          31 30 8:1 /a /a\\040b rw shared:2 - ext4 d rw\n32 31 0:2 / /a\\040b/c rw - proc p rw\n";
        for (on, want) in [(25, Some(30)), (30, Some(31)), (31, None), (1, None)] {
            assert_eq!(mounted_on(mountinfo, Path::new("/a b"), on), want, "{on}");
        }
    }

    proptest::proptest! {
        /// Whoever mounts chooses the name; the kernel writes it so: seq_path of its fs/seq_file.c.
        #[test]
        fn a_path_may_hold_any_byte(name in proptest::collection::vec(1..=u8::MAX, 1..16)) {
            let name = [&b"/"[..], &name].concat();
            let written = |byte: &u8| match byte {
                b' ' | b'\t' | b'\n' | b'\\' => format!("\\{byte:03o}").into_bytes(),
                byte => vec![*byte],
            };
            let line = [b"22 1 0:20 / ", &*name.iter().flat_map(written).collect::<Vec<u8>>(), b" rw - proc p rw\n"].concat();
            let point = PathBuf::from(std::ffi::OsString::from_vec(name));
            proptest::prop_assert_eq!(mountpoints(&line, &["proc"]), [point.clone()]);
            proptest::prop_assert_eq!(mounted_on(&line, &point, 1), Some(22));
        }
    }
}
