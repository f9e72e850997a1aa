//! Files of procfs that hold what others choose: names of mounts, programs and cgroups.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rrun::host::cgroups::CgroupLayout;
use rrun::host::mountpoints::{mounted_on, mountpoints};
use rrun::procfs;

fuzz_target!(|texts: (&[u8], &[u8])| {
    let (mountinfo, own) = texts;
    let _ = CgroupLayout::parse(mountinfo, own);
    let _ = mountpoints(mountinfo, &["proc", "cgroup2"]);
    let _ = mounted_on(mountinfo, "/proc".as_ref(), 1);
    let _ = procfs::parse_stat(own);
    let _ = procfs::parse_status(own);
});
