//! The container's directory in each hierarchy, and the devices that it may use.

use std::ffi::{CStr, c_int};

use crate::calls::{Fd, Path, close, fail, join, ok, path, read_file, write, write_file};

/// More hierarchies than any kernel has.
const MANY: usize = 16;

pub struct Cgroups {
    v1: [Option<Path>; MANY],
    v2: Option<Path>,
    devices: &'static CStr,
}

/// As every runtime allows them by default: nodes may be made of any kind, and these be used.
const ALLOWED: [&CStr; 11] = [
    c"b *:* m",
    c"c *:* m",
    c"c 1:3 rwm",
    c"c 1:5 rwm",
    c"c 1:7 rwm",
    c"c 1:8 rwm",
    c"c 1:9 rwm",
    c"c 5:0 rwm",
    c"c 5:2 rwm",
    c"c 10:200 rwm",
    c"c 136:* rwm",
];

impl Cgroups {
    pub fn new(parents: &CStr, id: &CStr, devices: &'static CStr) -> Self {
        let mut cgroups = Self { v1: [const { None }; MANY], v2: None, devices };
        let below = |parent: &[u8]| join(&[parent, b"/", id.to_bytes()]);
        for (at, parent) in parents.to_bytes().split(|byte| *byte == b',').enumerate() {
            match parent.strip_prefix(b"v2=") {
                Some(parent) => cgroups.v2 = Some(below(parent)),
                None if at < MANY => cgroups.v1[at] = Some(below(parent)),
                None => fail("too many hierarchies", parents),
            }
        }
        cgroups
    }

    fn v1(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().flatten()
    }

    pub fn make(&self) {
        for dir in self.v1().chain(&self.v2) {
            // SAFETY: a terminated string.
            ok(unsafe { libc::mkdir(dir.as_ptr(), 0o755) }, "mkdir", dir);
            if of(dir, b"cpuset") {
                // nobody can join a cpuset without processors and memory; a new one has none
                for name in [c"/cpuset.cpus", c"/cpuset.mems"] {
                    let own = path(dir, name);
                    let parent = parent(dir);
                    let parents = read_file(&path(&parent, name));
                    write_file(&own, parents);
                }
            }
            if of(dir, b"devices") {
                write_file(&path(dir, c"/devices.deny"), b"a");
                let allow = path(dir, c"/devices.allow");
                let file = Fd::open(&allow, libc::O_WRONLY);
                for rule in ALLOWED {
                    // the kernel takes one rule by one write
                    write(file, rule.to_bytes(), &allow);
                }
                close(file);
            }
        }
        if let (Some(v2), true) = (&self.v2, self.devices != c"-") {
            attach_devices(v2, self.devices);
        }
    }

    /// For the child to write into: `0` into `tasks` moves one thread without waiting for RCU, as a pid does in
    /// cgroup.procs.
    pub fn open_tasks(&self) -> [Option<Fd>; MANY] {
        let mut tasks = [None; MANY];
        for (at, dir) in self.v1().enumerate() {
            tasks[at] = Some(Fd::open(&path(dir, c"/tasks"), libc::O_WRONLY));
        }
        tasks
    }

    /// For CLONE_INTO_CGROUP.
    pub fn open_v2(&self) -> Option<Fd> {
        self.v2.as_ref().map(|dir| Fd::open(dir, libc::O_PATH | libc::O_DIRECTORY))
    }

    pub fn remove(&self) {
        for dir in self.v1().chain(&self.v2) {
            // SAFETY: a terminated string.
            ok(unsafe { libc::rmdir(dir.as_ptr()) }, "rmdir", dir);
        }
    }
}

pub fn join_all(tasks: [Option<Fd>; MANY]) {
    for fd in tasks.into_iter().flatten() {
        write(fd, b"0", c"tasks");
    }
}

/// Whether it lies in the hierarchy of this controller.
fn of(dir: &CStr, controller: &[u8]) -> bool {
    dir.to_bytes().split(|byte| *byte == b'/').any(|part| part == controller)
}

fn parent(dir: &CStr) -> Path {
    let bytes = dir.to_bytes();
    join(&[&bytes[..bytes.iter().rposition(|byte| *byte == b'/').unwrap_or(0)]])
}

const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of others, above it in the tree, count too.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// v2 has no files for devices: the kernel asks a program.
fn attach_devices(cgroup: &CStr, file: &CStr) {
    let program = read_file(file);
    // the beginning of union bpf_attr for PROG_LOAD: type, instructions, their place, licence
    let license = c"GPL";
    let load: [u64; 9] = [
        u64::from(BPF_PROG_TYPE_CGROUP_DEVICE) | ((program.len() / 8) as u64) << 32,
        program.as_ptr() as u64,
        license.as_ptr() as u64,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    // SAFETY: the attribute, its program and its licence outlive the call.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, load.as_ptr(), size_of_val(&load)) };
    let loaded = ok(loaded as c_int, "bpf load", file);
    let dir = Fd::open(cgroup, libc::O_DIRECTORY);
    let attach: [u32; 4] = [dir.0 as u32, loaded as u32, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI];
    // SAFETY: the attribute outlives the call.
    let attached = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) };
    ok(attached as c_int, "bpf attach", cgroup);
    close(dir);
    close(Fd(loaded));
}
