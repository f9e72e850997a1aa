//! The floor under `make bench`: the same container as rrun makes of the bench's bundle, with no runtime around it.
//! No options, no config.json, no state, no protection of one's own file, no undo: everything is known ahead, filter and
//! device program are compiled ahead, and what stands here is what the kernel must be asked for. Each call says why it
//! is needed; that nothing is missing is seen by comparing the two containers from inside (benches/lane/src/check.rs).
//!
//!     floor run|create|exec CGROUPS ID ROOTFS FILTER DEVICES STATE PROGRAM ARGS…
//!     floor start|kill|delete CGROUPS ID ROOTFS FILTER DEVICES STATE
//!
//! CGROUPS: the parents, by commas, that of the v2 tree as `v2=DIR`; FILTER: classic BPF in a file, or `-`; DEVICES: eBPF
//! in a file for a host whose devices are in the v2 tree, or `-`; STATE: a directory for what `start` and `kill` must find.
//!
//! Without Rust's own start: it would add 15 calls and 40 µs.

#![no_main]

mod calls;
mod cgroups;
mod container;

use std::ffi::{CStr, c_char, c_int};

use calls::{Fd, close, fail, ok, path, read_file, write, write_file};
use cgroups::Cgroups;

pub struct Job {
    pub cgroups: Cgroups,
    pub rootfs: &'static CStr,
    /// Its instructions, where a program is started.
    pub filter: Option<&'static [u8]>,
    pub state: &'static CStr,
    pub argv: *const *const c_char,
}

/// # Safety
/// Called by the C library with the arguments of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc < 8 {
        fail("usage: see the source", c"");
    }
    // SAFETY: argv holds argc strings that live as long as the process, and a null.
    let word = |at: usize| unsafe { CStr::from_ptr(*argv.add(at)) };
    let starts = matches!(word(1).to_bytes(), b"run" | b"create" | b"exec");
    let job = Job {
        cgroups: Cgroups::new(word(2), word(3), word(6)),
        rootfs: word(4),
        filter: (starts && word(5) != c"-").then(|| read_file(word(5))),
        state: word(7),
        // SAFETY: as above: at most the null at the end.
        argv: unsafe { argv.add(8) },
    };
    match word(1).to_bytes() {
        b"run" => run(job),
        b"create" => create(job),
        b"start" => start(&job),
        b"exec" => exec(job),
        b"kill" => kill(&job),
        b"delete" => delete(&job),
        _ => fail("no such verb", word(1)),
    }
}

fn run(job: Job) -> c_int {
    job.cgroups.make();
    let pid = container::spawn(&job, None);
    let code = wait(pid);
    job.cgroups.remove();
    code
}

fn create(job: Job) -> c_int {
    // where start, kill and exec find it
    // SAFETY: a terminated string.
    ok(unsafe { libc::mkdir(job.state.as_ptr(), 0o700) }, "mkdir", job.state);
    let fifo = path(job.state, c"/fifo");
    // SAFETY: a terminated string.
    ok(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, "mkfifo", &fifo);
    // for reading and writing: opening it waits for nobody, and init keeps a reader
    let fifo = Fd::open(&fifo, libc::O_RDWR);
    job.cgroups.make();
    // the end of file on the other half says that init stands
    let mut ready = [0; 2];
    // SAFETY: two integers, as pipe2 writes.
    ok(unsafe { libc::pipe2(ready.as_mut_ptr(), libc::O_CLOEXEC) }, "pipe2", c"");
    let pid = container::spawn(&job, Some((fifo, Fd(ready[1]))));
    close(Fd(ready[1]));
    let mut byte = [0u8; 1];
    // SAFETY: one byte of room.
    if unsafe { libc::read(ready[0], byte.as_mut_ptr().cast(), 1) } != 1 {
        fail("create: init ended", c"");
    }
    write_file(&path(job.state, c"/pid"), &pid.to_ne_bytes());
    0
}

fn start(job: &Job) -> c_int {
    let fifo = Fd::open(&path(job.state, c"/fifo"), libc::O_WRONLY | libc::O_NONBLOCK);
    write(fifo, b"s", c"fifo");
    0
}

fn pidfd(job: &Job) -> Fd {
    let bytes = read_file(&path(job.state, c"/pid"));
    let pid = i32::from_ne_bytes(bytes.try_into().unwrap_or_default());
    // SAFETY: numbers.
    Fd(ok(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as c_int, "pidfd_open", c""))
}

fn exec(job: Job) -> c_int {
    let init = pidfd(&job);
    wait(container::spawn_inside(&job, init))
}

fn kill(job: &Job) -> c_int {
    let (init, none) = (pidfd(job), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: a null siginfo is what kill(2) would send.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, init.0, libc::SIGKILL, none, 0) };
    ok(sent as c_int, "pidfd_send_signal", c"");
    0
}

fn delete(job: &Job) -> c_int {
    job.cgroups.remove();
    for name in [c"/fifo", c"/pid"] {
        let file = path(job.state, name);
        // SAFETY: a terminated string.
        ok(unsafe { libc::unlink(file.as_ptr()) }, "unlink", &file);
    }
    // SAFETY: a terminated string.
    ok(unsafe { libc::rmdir(job.state.as_ptr()) }, "rmdir", job.state);
    0
}

fn wait(pid: c_int) -> c_int {
    let mut status = 0;
    // SAFETY: an integer, as waitpid writes.
    ok(unsafe { libc::waitpid(pid, &mut status, 0) }, "waitpid", c"");
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}
