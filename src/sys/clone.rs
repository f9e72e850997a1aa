//! New processes and their descriptors: clone3(2), pidfd_open(2).

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::error::{Doing, SysError};

/// clone3's own flag: above 32 bits, so neither libc nor nix can say them as an int.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

pub struct Child {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

/// Runs `child` in a copy of this process, in new namespaces by `flags` and born into `cgroup` (v2). The copy ends
/// with `child`'s exit code; only the original returns.
pub fn spawn(flags: CloneFlags, cgroup: Option<BorrowedFd>, child: impl FnOnce() -> i32) -> Result<Child, SysError> {
    let mut pidfd: libc::c_int = -1;
    let mut args = arguments(flags, &mut pidfd);
    args.exit_signal = Signal::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    let pid = clone3(&args)?;
    if pid == 0 {
        // never back into the original's frames; a panic aborts, its hook has spoken on the socket
        exit_now(child());
    }
    // SAFETY: the kernel has just stored a descriptor there that nobody else knows.
    Ok(Child { pid: Pid::from_raw(pid as i32), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Which of two equal processes one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twin {
    Original,
    Copy,
}

/// A second process beside this one, a child of the same parent, in new namespaces by `flags`. Both go on.
pub fn fork_beside(flags: CloneFlags) -> Result<Twin, SysError> {
    let mut pidfd: libc::c_int = -1;
    // its end is told to that parent by the signal of ours, and clone3 takes no other
    let args = arguments(flags | CloneFlags::CLONE_PARENT, &mut pidfd);
    if clone3(&args)? == 0 {
        return Ok(Twin::Copy);
    }
    // SAFETY: the kernel has just stored a descriptor there that nobody else knows.
    drop(unsafe { OwnedFd::from_raw_fd(pidfd) });
    Ok(Twin::Original)
}

fn arguments(flags: CloneFlags, pidfd: &mut libc::c_int) -> libc::clone_args {
    // SAFETY: all-zero is a valid clone_args: no stack, no tls, no tid pointers.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.bits() as u32 as u64 | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut *pidfd as u64;
    args
}

/// The pid, 0 in the copy.
fn clone3(args: &libc::clone_args) -> Result<i64, SysError> {
    // SAFETY: without a stack and without CLONE_VM this is fork(2), and rrun has one thread, so the copy misses no
    // holder of a lock. `args` and where it points outlive the call.
    Errno::result(unsafe { libc::syscall(libc::SYS_clone3, &raw const *args, size_of_val(args)) }).doing("clone3", "")
}

/// Runs `child` in a copy of this process, as [`spawn`] does, with nothing new but the process. By clone(2): the usual
/// seccomp profiles refuse clone3, whose flags they cannot look at.
pub fn fork(child: impl FnOnce() -> i32) -> Result<Child, SysError> {
    let mut pidfd: libc::c_int = -1;
    let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: as in `spawn`. The third argument takes the pidfd on every architecture; the two that change places
    // behind it are null.
    let pid = Errno::result(unsafe {
        libc::syscall(libc::SYS_clone, flags as libc::c_long, nothing, &raw mut pidfd, nothing, nothing)
    })
    .doing("clone", "")?;
    if pid == 0 {
        exit_now(child());
    }
    // SAFETY: as in `spawn`.
    Ok(Child { pid: Pid::from_raw(pid as i32), pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// Ends this process without running destructors or exit handlers, which belong to the original.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes no pointers.
    unsafe { libc::_exit(code) }
}

/// ESRCH where there is no process of that number. Kernels have other words too, for one that is just being reaped and
/// for a number that is a thread's by now: EINVAL, since 6.15 ENOENT.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, SysError> {
    // SAFETY: no pointers; the result is a new descriptor.
    let fd = match Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) }) {
        Err(Errno::EINVAL | Errno::ENOENT) => Err(Errno::ESRCH),
        result => result,
    };
    let fd = fd.doing("pidfd_open", pid)?;
    // SAFETY: as above: nobody else knows the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A copy of what the process has open under `number`.
pub fn pidfd_getfd(pidfd: BorrowedFd, number: i32) -> Result<OwnedFd, SysError> {
    // SAFETY: no pointers; the result is a new descriptor.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
        .doing("pidfd_getfd", number)?;
    // SAFETY: as above: nobody else knows the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// How a process ended. Numbers, since nix has no names for real-time signals and refuses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(i32),
}

/// Waits for the end of a child and reaps it.
pub fn wait_for_end(pidfd: BorrowedFd) -> Result<End, Errno> {
    let info = waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, libc::WEXITED)?;
    // SAFETY: waitid(2) has filled in what belongs to SIGCHLD.
    let status = unsafe { info.si_status() };
    Ok(if info.si_code == libc::CLD_EXITED { End::Exited(status) } else { End::Killed(status) })
}

/// A child that has ended and is not reaped yet; it stays so.
pub fn ended_child() -> Option<Pid> {
    let info = waitid(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).ok()?;
    // SAFETY: as above; where no child has ended it is still all zero.
    let pid = unsafe { info.si_pid() };
    (pid != 0).then(|| Pid::from_raw(pid))
}

fn waitid(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> Result<libc::siginfo_t, Errno> {
    // SAFETY: all-zero is a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    Errno::result(unsafe { libc::waitid(kind, id, &raw mut info, options) }).map(|_| info)
}

/// `signal` is a number, since real-time signals have no name; 0 only probes.
pub fn pidfd_send_signal(pidfd: BorrowedFd, signal: i32) -> Result<(), Errno> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is what kill(2) would send.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_a_threads_is_no_process() {
        let errno = std::thread::spawn(|| pidfd_open(nix::unistd::gettid()).unwrap_err().errno).join().unwrap();
        assert_eq!(errno, Errno::ESRCH);
        assert!(pidfd_open(Pid::this()).is_ok());
    }
}
