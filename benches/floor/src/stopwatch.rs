//! Runs one command and says what it took: `stopwatch MILLISECONDS ERRORS COMMAND ARGS…`. Its stdout goes to /dev/null, its
//! stderr to the file ERRORS. Prints `STATUS WALL USER SYSTEM RSS FAULTS`: the exit code, 128 + N for a signal, or `hung`
//! for what it had to kill after that time; microseconds; KiB and page faults of the command and of all that it waited for.
//!
//! Small, since a command's peak of memory counts from before its execve: measured from a big process it would be that
//! process's. For the same reason the command begins without a copy of this program's memory.

#![no_main]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::zeroed;

struct Command {
    errors: *const c_char,
    argv: *const *const c_char,
}

/// # Safety
/// Called by the C library with the arguments of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc < 4 {
        return 2;
    }
    // SAFETY: argv holds argc strings and a null.
    let (deadline, command) = unsafe {
        let deadline = CStr::from_ptr(*argv.add(1)).to_str().ok().and_then(|number| number.parse().ok());
        (deadline.unwrap_or(10_000), Command { errors: *argv.add(2), argv: argv.add(3) })
    };
    let since = now();
    let pid = start(&command);
    let hung = !ends_within(pid, deadline);
    let mut status = 0;
    // SAFETY: all-zero is a valid rusage, and wait4 fills in it and the integer.
    let usage = unsafe {
        let mut usage: libc::rusage = zeroed();
        libc::wait4(pid, &raw mut status, 0, &raw mut usage);
        usage
    };
    let wall = now() - since;
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    let status = if hung { "hung".to_string() } else { code.to_string() };
    let us = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let (rss, faults) = (usage.ru_maxrss, usage.ru_minflt + usage.ru_majflt);
    println!("{status} {wall} {} {} {rss} {faults}", us(usage.ru_utime), us(usage.ru_stime));
    0
}

fn now() -> i64 {
    // SAFETY: all-zero is a valid timespec, and the call fills it in.
    unsafe {
        let mut time: libc::timespec = zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time);
        time.tv_sec * 1_000_000 + time.tv_nsec / 1000
    }
}

/// As vfork(2), which Rust cannot call: the command has a stack of its own until its execve, and this program waits.
fn start(command: &Command) -> c_int {
    let mut stack = [0u128; 1024];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack and the command outlive the call, which returns after the execve.
    unsafe {
        let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
        libc::clone(begin, top, flags, (&raw const *command).cast_mut().cast())
    }
}

extern "C" fn begin(command: *mut c_void) -> c_int {
    // SAFETY: as `start` gave it. Nothing here allocates, and all that changes is this process's own descriptors.
    unsafe {
        let command = &*command.cast::<Command>();
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        let errors = libc::open(command.errors, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o600);
        libc::dup2(null, 0);
        libc::dup2(null, 1);
        libc::dup2(errors, 2);
        libc::close(null);
        libc::close(errors);
        libc::execv(*command.argv, command.argv);
        libc::_exit(127)
    }
}

fn ends_within(pid: c_int, milliseconds: c_int) -> bool {
    // SAFETY: numbers, and one pollfd.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as c_int;
        let mut end = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let ended = libc::poll(&raw mut end, 1, milliseconds) == 1;
        if !ended {
            libc::kill(pid, libc::SIGKILL);
        }
        ended
    }
}
