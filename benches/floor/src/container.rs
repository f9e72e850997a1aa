//! The child's half: from clone3 to execve, in the order in which rrun does it.

use std::ffi::{CStr, c_char, c_int, c_ulong};
use std::ptr::null;

use crate::Job;
use crate::calls::{Fd, close, fail, ok, path, write};
use crate::cgroups::join_all;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// fork(2) with namespaces, born into its cgroup of the v2 tree: joining it later would wait for RCU.
fn clone3(namespaces: c_int, cgroup: Option<Fd>) -> c_int {
    // SAFETY: all-zero is a valid clone_args.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces as u32 as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.0 as u64;
    }
    // SAFETY: without a stack and without CLONE_VM this is fork(2); there is one thread.
    ok(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) } as c_int, "clone3", c"")
}

/// With a FIFO to wait for and a pipe to say that one waits: `create`.
pub fn spawn(job: &Job, waits: Option<(Fd, Fd)>) -> c_int {
    let tasks = job.cgroups.open_tasks();
    let new = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWPID | libc::CLONE_NEWNET;
    let pid = clone3(new, job.cgroups.open_v2());
    if pid != 0 {
        return pid;
    }
    join_all(tasks);
    // not by clone3: its root is where its maker is, and that is the container's cgroup only now
    // SAFETY: a number.
    ok(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }, "unshare", c"cgroup");
    own_session();
    network_up();
    // SAFETY: four bytes.
    ok(unsafe { libc::sethostname(c"rrun".as_ptr(), 4) }, "sethostname", c"rrun");
    root(job.rootfs);
    stdin();
    confine();
    load_filter(job);
    if let Some((fifo, ready)) = waits {
        write(ready, b"r", c"ready");
        let mut byte = [0u8; 1];
        // SAFETY: one byte of room.
        ok(unsafe { libc::read(fifo.0, byte.as_mut_ptr().cast(), 1) } as c_int, "read", c"fifo");
    }
    execute(job)
}

/// `exec`: one more process. Its parent enters the namespaces, since a pid namespace is for children; that parent is
/// this program, which does nothing else any more.
pub fn spawn_inside(job: &Job, init: Fd) -> c_int {
    let (tasks, v2) = (job.cgroups.open_tasks(), job.cgroups.open_v2());
    let all = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    // SAFETY: numbers.
    ok(unsafe { libc::setns(init.0, all) }, "setns", c"");
    let pid = clone3(0, v2);
    if pid != 0 {
        return pid;
    }
    join_all(tasks);
    own_session();
    stdin();
    confine();
    load_filter(job);
    execute(job)
}

/// Signals and keys of the host stay outside.
fn own_session() {
    // what the caller ignored would stay ignored over execve; the kernel has no call for all at once
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let default = [0u64; 4];
        let nothing = null::<u64>();
        // SAFETY: an all-zero sigaction, in the kernel's layout; libc keeps some signals to itself.
        let set = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, 8) };
        ok(set as c_int, "rt_sigaction", c"");
    }
    // SAFETY: no arguments.
    ok(unsafe { libc::setsid() }, "setsid", c"");
    let name = null::<c_char>();
    // SAFETY: a null name is a keyring without one.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) };
    ok(joined as c_int, "keyctl", c"");
}

/// A new network namespace has a loopback that is down.
fn network_up() {
    // SAFETY: numbers.
    let socket = ok(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) }, "socket", c"");
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as c_char;
    request.ifr_name[1] = b'o' as c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: an ifreq, as the call wants.
    ok(unsafe { libc::ioctl(socket, libc::SIOCSIFFLAGS as _, &raw const request) }, "SIOCSIFFLAGS", c"lo");
    close(Fd(socket));
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: c_ulong, data: &CStr) {
    // SAFETY: terminated strings.
    let mounted = unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) };
    ok(mounted, "mount", target);
}

const NOSUID: c_ulong = libc::MS_NOSUID;
const NOEXEC: c_ulong = libc::MS_NOEXEC;
const NODEV: c_ulong = libc::MS_NODEV;

fn root(rootfs: &CStr) {
    // nothing that is mounted here may show up in the host
    mount(c"", c"/", c"", libc::MS_SLAVE | libc::MS_REC, c"");
    // pivot_root wants a mount
    mount(rootfs, rootfs, c"", libc::MS_BIND | libc::MS_REC, c"");
    // SAFETY: a terminated string.
    ok(unsafe { libc::chdir(rootfs.as_ptr()) }, "chdir", rootfs);
    mount(c"proc", c"proc", c"proc", 0, c"");
    mount(c"tmpfs", c"dev", c"tmpfs", NOSUID | libc::MS_STRICTATIME, c"mode=755,size=65536k");
    // SAFETY: no pointers. Modes are as they are written.
    unsafe { libc::umask(0) };
    for dir in [c"dev/pts", c"dev/shm", c"dev/mqueue"] {
        // SAFETY: a terminated string.
        ok(unsafe { libc::mkdir(dir.as_ptr(), 0o755) }, "mkdir", dir);
    }
    let pts = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(c"devpts", c"dev/pts", c"devpts", NOSUID | NOEXEC, pts);
    mount(c"shm", c"dev/shm", c"tmpfs", NOSUID | NOEXEC | NODEV, c"mode=1777,size=65536k");
    mount(c"mqueue", c"dev/mqueue", c"mqueue", NOSUID | NOEXEC | NODEV, c"");
    mount(c"sysfs", c"sys", c"sysfs", NOSUID | NOEXEC | NODEV | libc::MS_RDONLY, c"");
    devices();
    masks();
    for path in READONLY.into_iter().filter(|path| is_there(path)) {
        let tree = clone_tree(path, libc::AT_RECURSIVE);
        // before it is attached: it is never writable in sight
        set_readonly(tree, libc::AT_RECURSIVE);
        attach(tree, path);
        close(tree);
    }
    // the host's root goes: pivot onto oneself, and what lay below is on top
    // SAFETY: terminated strings.
    let pivoted = unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) };
    ok(pivoted as c_int, "pivot_root", rootfs);
    // SAFETY: a terminated string.
    ok(unsafe { libc::umount2(c".".as_ptr(), libc::MNT_DETACH) }, "umount2", c"the host's root");
    // SAFETY: a terminated string.
    ok(unsafe { libc::chdir(c"/".as_ptr()) }, "chdir", c"/");
    // root.readonly, of the mount alone
    let readonly = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    mount(c"", c"/", c"", readonly, c"");
    // SAFETY: no pointers. The spec's default, as rrun has it.
    unsafe { libc::umask(0o022) };
}

fn devices() {
    let nodes =
        [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];
    for (name, major, minor) in nodes {
        let node = path(c"dev/", name);
        // SAFETY: a terminated string.
        let made = unsafe { libc::mknod(node.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)) };
        ok(made, "mknod", &node);
    }
    let links = [
        (c"/proc/self/fd", c"dev/fd"),
        (c"/proc/self/fd/0", c"dev/stdin"),
        (c"/proc/self/fd/1", c"dev/stdout"),
        (c"/proc/self/fd/2", c"dev/stderr"),
        (c"pts/ptmx", c"dev/ptmx"),
    ];
    let core = is_there(c"proc/kcore").then_some((c"/proc/kcore", c"dev/core"));
    for (to, link) in links.into_iter().chain(core) {
        // SAFETY: terminated strings.
        ok(unsafe { libc::symlink(to.as_ptr(), link.as_ptr()) }, "symlink", link);
    }
}

/// linux.maskedPaths of the bundle, directories and files.
const MASKED_DIRS: [&CStr; 5] =
    [c"proc/acpi", c"proc/asound", c"proc/scsi", c"sys/devices/virtual/powercap", c"sys/firmware"];
const MASKED_FILES: [&CStr; 7] = [
    c"proc/interrupts",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/sched_debug",
    c"proc/timer_list",
    c"proc/timer_stats",
];
/// linux.readonlyPaths.
const READONLY: [&CStr; 5] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

/// Which of them a machine has differs.
fn is_there(path: &CStr) -> bool {
    // SAFETY: a terminated string.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

/// One mount serves all of a kind, by clones: a tmpfs is the dearest mount.
fn masks() {
    let mut empty: Option<&CStr> = None;
    for dir in MASKED_DIRS.into_iter().filter(|dir| is_there(dir)) {
        match empty {
            None => mount(c"none", dir, c"tmpfs", libc::MS_RDONLY | NOSUID | NODEV, c"nr_blocks=1,nr_inodes=1"),
            Some(covered) => cover(covered, dir),
        }
        empty = Some(dir);
    }
    MASKED_FILES.into_iter().filter(|file| is_there(file)).for_each(|file| cover(c"dev/null", file));
}

fn cover(by: &CStr, place: &CStr) {
    let tree = clone_tree(by, 0);
    attach(tree, place);
    close(tree);
}

fn clone_tree(path: &CStr, reach: c_int) -> Fd {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | reach as libc::c_uint;
    let here = libc::AT_FDCWD;
    // SAFETY: a terminated string.
    Fd(ok(unsafe { libc::syscall(libc::SYS_open_tree, here, path.as_ptr(), flags) } as c_int, "open_tree", path))
}

fn set_readonly(tree: Fd, reach: c_int) {
    let attributes = libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let (flags, attributes) = (libc::AT_EMPTY_PATH | reach, &raw const attributes);
    let size = size_of::<libc::mount_attr>();
    // SAFETY: a terminated string, and attributes of the size that is told.
    let set = unsafe { libc::syscall(libc::SYS_mount_setattr, tree.0, c"".as_ptr(), flags, attributes, size) };
    ok(set as c_int, "mount_setattr", c"");
}

fn attach(tree: Fd, target: &CStr) {
    let (here, flags) = (libc::AT_FDCWD, libc::MOVE_MOUNT_F_EMPTY_PATH);
    // SAFETY: terminated strings.
    let moved = unsafe { libc::syscall(libc::SYS_move_mount, tree.0, c"".as_ptr(), here, target.as_ptr(), flags) };
    ok(moved as c_int, "move_mount", target);
}

/// /dev/null of the host is no file of the container.
fn stdin() {
    let null = Fd::open(c"/dev/null", libc::O_RDWR);
    // SAFETY: numbers.
    ok(unsafe { libc::dup2(null.0, 0) }, "dup2", c"");
    close(null);
}

const KEPT: u64 = 1 << 5 | 1 << 10 | 1 << 29; // KILL, NET_BIND_SERVICE, AUDIT_WRITE
const CAP_LAST_CAP: c_ulong = 40;

fn confine() {
    let nofile = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: an rlimit, as the call reads.
    ok(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const nofile) }, "setrlimit", c"");
    // SAFETY: numbers.
    ok(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, "no_new_privs", c"");
    for capability in (0..=CAP_LAST_CAP).filter(|capability| KEPT >> capability & 1 == 0) {
        // the kernel has no call for the whole set
        // SAFETY: numbers.
        ok(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) }, "PR_CAPBSET_DROP", c"");
    }
    // groups of who called are not the container's
    // SAFETY: none of them.
    ok(unsafe { libc::setgroups(0, null()) }, "setgroups", c"");
    let header: [u32; 2] = [0x2008_0522, 0];
    let low = KEPT as u32;
    // effective, permitted, inheritable; the second half is of capabilities above 31
    let sets: [u32; 6] = [low, low, 0, 0, 0, 0];
    // SAFETY: a header of version 3 and the two halves that go with it.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    ok(set as c_int, "capset", c"");
    // nothing but 0, 1 and 2 is for the program; what `create` still needs is close-on-exec already
    let cloexec = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: numbers.
    ok(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, cloexec) } as c_int, "close_range", c"");
}

/// After no_new_privs, and last: it need not allow what was done before it.
fn load_filter(job: &Job) {
    let Some(bytes) = job.filter else { return };
    let program = libc::sock_fprog { len: (bytes.len() / 8) as u16, filter: bytes.as_ptr().cast_mut().cast() };
    let (mode, program) = (libc::SECCOMP_SET_MODE_FILTER, &raw const program);
    // SAFETY: the program is as long as is told; the kernel only reads it.
    ok(unsafe { libc::syscall(libc::SYS_seccomp, mode, 0, program) } as c_int, "seccomp", c"");
}

fn execute(job: &Job) -> ! {
    let environment = [
        c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".as_ptr(),
        c"TERM=xterm".as_ptr(),
        c"HOME=/".as_ptr(),
        null(),
    ];
    // SAFETY: argv ends with a null; its first word is checked by the kernel.
    unsafe {
        libc::execve(*job.argv, job.argv, environment.as_ptr());
        fail("execve", if (*job.argv).is_null() { c"" } else { CStr::from_ptr(*job.argv) })
    }
}
