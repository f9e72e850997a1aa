//! Where file systems of given types are mounted, from /proc/self/mountinfo: proc_pid_mountinfo(5). Pure.

use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

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
}
