//! Typed reads of /proc through a handle that was checked to be a procfs. Nothing is opened by a path that a mount over
//! /proc could have bent: lookups stay below the handle, on its own file system and off its magic links.

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use anyhow::{Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;

use crate::error::{Doing, Inside, SysError};
use crate::rootfs::is_same_file;
use crate::sys::file;

/// The root of a procfs.
#[derive(Debug)]
pub struct Proc {
    dir: OwnedFd,
}

/// A line for each of everything, and more.
const LARGEST_FILE: usize = 64 << 20;
/// PROC_ROOT_INO: the inode of a procfs's own root (fs/proc/root.c), which a bind of some /proc/PID lacks.
const ROOT_INODE: u64 = 1;

impl From<Proc> for OwnedFd {
    fn from(proc: Proc) -> OwnedFd {
        proc.dir
    }
}

impl Proc {
    /// That of rrun, opened once. Not for init: it closes what it does not know.
    pub fn own() -> Result<&'static Self> {
        static OWN: OnceLock<Proc> = OnceLock::new();
        match OWN.get() {
            Some(own) => Ok(own),
            None => Self::open().map(|opened| OWN.get_or_init(|| opened)),
        }
    }

    pub fn open() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Self::new(openat(AT_FDCWD, "/proc", flags, Mode::empty()).doing("open", "/proc")?)
    }

    /// Takes a directory for the root of a procfs if it is one.
    pub fn new(dir: OwnedFd) -> Result<Self> {
        let kind = fstatfs(&dir).doing("fstatfs", "/proc")?.filesystem_type();
        if kind != PROC_SUPER_MAGIC || fstat(&dir).doing("fstat", "/proc")?.st_ino != ROOT_INODE {
            bail!("/proc is not a procfs, or only a part of one; mount one there");
        }
        Ok(Self { dir })
    }

    pub fn try_clone(&self) -> Result<Self, SysError> {
        Ok(Self { dir: file::dup(&self.dir).doing("dup", "/proc")? })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// `path` is relative: `self/mountinfo`.
    pub fn open_file(&self, path: &str, flags: OFlag) -> Result<std::fs::File, SysError> {
        open_beneath(self.dir.as_fd(), path, flags).doing("open", in_proc(path))
    }

    /// One of the files that the kernel writes as a whole: a read that leaves room has read all of it. Files of many
    /// records, as mountinfo is one, take `read`.
    fn read_small(&self, path: &str) -> Result<Vec<u8>, SysError> {
        file::read(&self.open_file(path, OFlag::O_RDONLY)?, 8192, LARGEST_FILE).doing("read", in_proc(path))
    }

    pub fn read(&self, path: &str) -> Result<Vec<u8>, SysError> {
        let mut bytes = Vec::with_capacity(8192);
        // `take` keeps std from asking for the size first, which files of procfs do not have
        let mut file = self.open_file(path, OFlag::O_RDONLY)?.take(u64::MAX);
        file.read_to_end(&mut bytes).doing("read", in_proc(path))?;
        Ok(bytes)
    }

    /// The mounts of rrun's own mount namespace: proc_pid_mountinfo(5).
    pub fn own_mountinfo(&self) -> Result<Vec<u8>, SysError> {
        self.read("self/mountinfo")
    }

    /// The kernel's number of the mount that `fd` was opened in, as mountinfo has it.
    pub fn mount_id(&self, fd: BorrowedFd) -> Result<u64, SysError> {
        let path = format!("self/fdinfo/{}", fd.as_raw_fd());
        let text = self.read(&path)?;
        let number = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"mnt_id:"));
        let number = number.and_then(|number| std::str::from_utf8(number.trim_ascii()).ok()?.parse().ok());
        number.ok_or_else(|| SysError::new("read", in_proc(&path), Errno::EINVAL))
    }

    /// rrun's own cgroup in each hierarchy: cgroups(7).
    pub fn own_cgroups(&self) -> Result<Vec<u8>, SysError> {
        self.read_small("self/cgroup")
    }

    /// Whether it has given up to gain rights by execve: PR_SET_NO_NEW_PRIVS.
    pub fn has_no_new_privs(&self, pid: Pid) -> Result<bool, SysError> {
        let status = self.read_small(&format!("{pid}/status"))?;
        Ok(status.split(|byte| *byte == b'\n').any(|line| line == b"NoNewPrivs:\t1"))
    }

    pub fn cgroups(&self, pid: Pid) -> Result<Vec<u8>, SysError> {
        self.read_small(&format!("{pid}/cgroup"))
    }

    pub fn stat(&self, pid: Pid) -> Result<Stat, SysError> {
        let path = format!("{pid}/stat");
        // a process that ends between open and read: ESRCH
        parse_stat(&self.read_small(&path)?).ok_or_else(|| SysError::new("read", in_proc(&path), Errno::EINVAL))
    }

    /// Of rrun itself.
    pub fn own_status(&self) -> Result<Status, SysError> {
        let path = "self/status";
        parse_status(&self.read_small(path)?).ok_or_else(|| SysError::new("read", in_proc(path), Errno::EINVAL))
    }

    /// Whether the process that started at `start_time` is there and has not ended. A zombie has ended: it holds
    /// nothing any more, and only its parent can make it go.
    pub fn alive(&self, pid: Pid, start_time: u64) -> Result<bool, SysError> {
        match self.stat(pid) {
            Ok(stat) => Ok(stat.start_time == start_time && !stat.has_ended()),
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One of /proc/PID's small files that are written at once.
    pub fn write(&self, pid: Pid, name: &str, text: &str) -> Result<(), SysError> {
        let path = format!("{pid}/{name}");
        let file = self.open_file(&path, OFlag::O_WRONLY)?;
        let written = nix::unistd::write(&file, text.as_bytes());
        written.map(drop).doing("write", in_proc(&path))
    }

    /// Whose end a pidfd tells, by its number here.
    pub fn pid_of(&self, pidfd: BorrowedFd) -> Result<Pid, SysError> {
        let path = format!("self/fdinfo/{}", pidfd.as_raw_fd());
        let text = self.read(&path)?;
        let pid = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Pid:"));
        let pid = pid.and_then(|pid| std::str::from_utf8(pid).ok()?.trim().parse().ok());
        // -1: it has been reaped
        match pid.filter(|pid| *pid > 0) {
            Some(pid) => Ok(Pid::from_raw(pid)),
            None => Err(SysError::new("read", in_proc(&path), Errno::ESRCH)),
        }
    }

    /// Whether two processes are in one namespace of a kind, by the names in /proc/PID/ns. The links there are magic,
    /// so the kernel's own answer is asked for; a kernel that does not know the kind has one for all.
    pub fn share_namespace(&self, pid: Pid, file: &str) -> Result<bool, SysError> {
        let stat = |of: String| fstatat(&self.dir, of.as_str(), AtFlags::empty()).doing("stat", in_proc(&of));
        match (stat(format!("self/ns/{file}")), stat(format!("{pid}/ns/{file}"))) {
            (Err(SysError { errno: Errno::ENOENT, .. }), _) => Ok(true),
            (own, theirs) => Ok(is_same_file(&own?, &theirs?)),
        }
    }

    /// A namespace's file. Its link is magic, so the directory is looked up by the rules, and the name in it is not.
    pub fn open_namespace(&self, pid: impl fmt::Display, file: &str) -> Result<OwnedFd, SysError> {
        let dir = self.open_file(&format!("{pid}/ns"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        openat(&dir, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .doing("open", in_proc(&format!("{pid}/ns/{file}")))
    }

    /// A process's root, which is a magic link too. What lies below is as that process has it.
    pub fn open_root(&self, pid: Pid) -> Result<OwnedFd, SysError> {
        let dir = self.open_file(&pid.to_string(), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        openat(&dir, "root", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .doing("open", in_proc(&format!("{pid}/root")))
    }

    /// Every process of a session that has not ended.
    pub fn session(&self, session: Pid) -> Result<Vec<Pid>, SysError> {
        self.processes(|pid| self.stat(pid).is_ok_and(|stat| stat.session == session && !stat.has_ended()))
    }

    /// Every process in the same namespace of a kind. One that may not be looked at is another user's.
    pub fn in_namespace_of(&self, pid: Pid, file: &str) -> Result<Vec<Pid>, SysError> {
        let namespace = |pid: Pid| fstatat(&self.dir, format!("{pid}/ns/{file}").as_str(), AtFlags::empty());
        let wanted = namespace(pid).doing("stat", in_proc(&format!("{pid}/ns/{file}")))?;
        self.in_namespace(&wanted, file)
    }

    /// Every process in this one.
    pub fn in_namespace(&self, namespace: &FileStat, file: &str) -> Result<Vec<Pid>, SysError> {
        let of = |pid: Pid| fstatat(&self.dir, format!("{pid}/ns/{file}").as_str(), AtFlags::empty());
        self.processes(|pid| of(pid).is_ok_and(|found| is_same_file(namespace, &found)))
    }

    fn processes(&self, wanted: impl Fn(Pid) -> bool) -> Result<Vec<Pid>, SysError> {
        let mut dir =
            Dir::openat(&self.dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).doing("opendir", "/proc")?;
        let pids =
            dir.iter().filter_map(|entry| entry.ok()?.file_name().to_str().ok()?.parse().ok().map(Pid::from_raw));
        Ok(pids.filter(|pid| wanted(*pid)).collect())
    }

    pub fn write_oom_score_adj(&self, pid: Pid, value: i32) -> Result<(), SysError> {
        self.write_oom_score_adj_of(&pid.to_string(), value)
    }

    /// Of the calling process, whatever its pid is called here.
    pub fn write_own_oom_score_adj(&self, value: i32) -> Result<(), SysError> {
        self.write_oom_score_adj_of("self", value)
    }

    fn write_oom_score_adj_of(&self, process: &str, value: i32) -> Result<(), SysError> {
        let path = format!("{process}/oom_score_adj");
        let mut file = self.open_file(&path, OFlag::O_WRONLY)?;
        file.write_all(value.to_string().as_bytes())
            .doing("write oom_score_adj", format_args!("/proc/{path} = {value}"))
    }
}

/// In a directory of a procfs; nothing that is mounted over a part of it is entered.
pub fn open_beneath(dir: BorrowedFd, path: &str, flags: OFlag) -> Result<std::fs::File, Errno> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    openat2(dir, path, how).map(Into::into)
}

fn in_proc(path: &str) -> Inside<'_> {
    Inside(Path::new("/proc"), path)
}

/// Of /proc/PID/stat: proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `Z`, …
    pub state: char,
    pub ppid: Pid,
    pub session: Pid,
    /// It has begun to end: its namespaces are gone. The init of a pid namespace goes on to wait until the last process
    /// in it is reaped.
    pub is_exiting: bool,
    /// Clock ticks since boot. With the pid it names a process for good.
    pub start_time: u64,
}

/// Of linux/sched.h: the flag is not part of the interface by name, but has not changed since 2.4.
const PF_EXITING: u32 = 4;

impl Stat {
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }
}

/// The second field is the program's own choice of name in parentheses, so whatever stands before the last `)` of the
/// text is skipped: the numbers after it hold none.
pub fn parse_stat(text: &[u8]) -> Option<Stat> {
    let end_of_name = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&text[end_of_name + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?; // the 3rd field
    let ppid = fields.next()?.parse().ok()?; // the 4th
    let session = fields.nth(1)?.parse().ok()?; // the 6th
    let flags: u32 = fields.nth(2)?.parse().ok()?; // the 9th
    let start_time = fields.nth(12)?.parse().ok()?; // the 22nd
    let mut chars = state.chars();
    let state = chars.next().filter(|_| chars.as_str().is_empty())?;
    let is_exiting = flags & PF_EXITING != 0;
    Some(Stat { state, ppid: Pid::from_raw(ppid), session: Pid::from_raw(session), is_exiting, start_time })
}

/// Sets of /proc/PID/status, which answers at once for what would take a call for each member: proc_pid_status(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// Bit n is capability n.
    pub permitted: u64,
    pub bounding: u64,
    /// Signals that are ignored or have a handler. Bit n is signal n + 1.
    pub not_default: u64,
}

pub fn parse_status(text: &[u8]) -> Option<Status> {
    let set = |name: &[u8]| {
        let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(std::str::from_utf8(line).ok()?.trim(), 16).ok()
    };
    let not_default = set(b"SigIgn:")? | set(b"SigCgt:")?;
    Some(Status { permitted: set(b"CapPrm:")?, bounding: set(b"CapBnd:")?, not_default })
}

#[cfg(test)]
mod tests {
    use nix::fcntl::open;

    use super::*;

    const REST: &str = "S 41 40 39 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2 18446744073709551615";

    #[test]
    fn a_name_cannot_forge_a_stat() {
        let (ppid, session) = (Pid::from_raw(41), Pid::from_raw(39));
        let want = Some(Stat { state: 'S', ppid, session, is_exiting: false, start_time: 987654 });
        for name in ["sh", "", "a b", ") Z 1", "))) R 1 1 1", "a\nb) X 2\n", "(((", "\u{fffd}é"] {
            assert_eq!(parse_stat(format!("7 ({name}) {REST}\n").as_bytes()), want, "{name:?}");
        }
        let mut not_utf8 = b"7 (\xff\xfe) ".to_vec();
        not_utf8.extend_from_slice(REST.as_bytes());
        assert_eq!(parse_stat(&not_utf8), want);
    }

    #[test]
    fn sets_of_a_status() {
        let text = "Name:\tSigIgn:\nSigIgn:\t0000000000001000\nSigCgt:\t8000000000000440\nCapInh:\t0000000000000000\n\
                    CapPrm:\t00000000000000ff\nCapBnd:\t000001ffffffffff\n";
        let want = Status { permitted: 0xff, bounding: 0x1ff_ffff_ffff, not_default: 0x8000_0000_0000_1440 };
        assert_eq!(parse_status(text.as_bytes()), Some(want));
        assert_eq!(parse_status(text.replace("CapBnd", "CapBad").as_bytes()), None);
        assert_eq!(parse_status(text.replace("SigIgn:\t0", "SigIgn:\tx").as_bytes()), None);
    }

    #[test]
    fn what_is_no_stat_is_none() {
        for text in ["", "7", "7 (sh)", "7 (sh) S", "7 (sh) S 1 1 1", "7 (sh S 1", "7 (sh) S x 1 1", "7 (sh) SS 1 1"] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text:?}");
        }
        let no_start = format!("7 (sh) {}", REST.replace("987654", "-1"));
        assert_eq!(parse_stat(no_start.as_bytes()), None, "{no_start}");
    }

    #[test]
    fn a_zombie_has_ended() {
        for (state, ended) in
            [('R', false), ('S', false), ('D', false), ('T', false), ('t', false), ('Z', true), ('X', true)]
        {
            let stat = parse_stat(format!("7 (sh) {}", REST.replacen('S', &state.to_string(), 1)).as_bytes()).unwrap();
            assert_eq!(stat.has_ended(), ended, "{state}");
        }
    }

    #[test]
    fn one_that_is_about_to_end_is_seen_by_its_flags() {
        for (flags, exiting) in [("4194560", false), ("4", true), ("4194564", true), ("0", false)] {
            let stat = parse_stat(format!("7 (sh) {}", REST.replace("4194560", flags)).as_bytes()).unwrap();
            assert_eq!(stat.is_exiting, exiting, "{flags}");
        }
    }

    #[test]
    fn this_very_process_is_alive_and_another_with_its_pid_is_not() {
        let proc = Proc::open().unwrap();
        let me = Pid::this();
        let stat = proc.stat(me).unwrap();
        assert_eq!((stat.ppid, stat.session), (Pid::parent(), nix::unistd::getsid(None).unwrap()));
        assert!(proc.session(stat.session).unwrap().contains(&me));
        assert!(proc.alive(me, stat.start_time).unwrap());
        assert!(!proc.alive(me, stat.start_time + 1).unwrap(), "a recycled pid");
        assert!(!proc.alive(Pid::from_raw(i32::MAX), stat.start_time).unwrap(), "no such pid can be");
    }

    #[test]
    fn a_child_that_ended_is_not_alive() {
        let proc = Proc::open().unwrap();
        let mut child = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32);
        let start_time = proc.stat(pid).unwrap().start_time;
        assert!(proc.alive(pid, start_time).unwrap());
        drop(child.stdin.take());
        while !proc.stat(pid).unwrap().has_ended() {
            std::thread::yield_now();
        }
        assert!(!proc.alive(pid, start_time).unwrap(), "a zombie");
        child.wait().unwrap();
        assert!(!proc.alive(pid, start_time).unwrap(), "reaped");
    }

    #[test]
    fn what_is_no_procfs_is_refused() {
        for path in ["/", "/proc/self", "/proc/sys"] {
            let dir = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).unwrap();
            assert!(Proc::new(dir).is_err(), "{path}");
        }
    }

    #[test]
    fn nothing_is_reached_beyond_the_handle() {
        let proc = Proc::open().unwrap();
        for path in ["../etc/passwd", "self/exe", "self/root/etc/passwd", "/etc/passwd"] {
            assert!(proc.open_file(path, OFlag::O_RDONLY).is_err(), "{path}");
        }
    }
}
