//! What failed, why, and what to do about it, as one line.
//!
//! `src/sys` returns [`SysError`]; everything above adds one `anyhow` context per floor. Only `main` prints.
//! The words that container managers match in our output are reserved: [`Matched`] owns them, and a test reads
//! the sources for strays (DESIGN "reserved words": a wrong word makes containerd drop a container it should keep).

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// A system call that failed: what was tried, on what, and the errno.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysError {
    pub op: Cow<'static, str>,
    pub object: String,
    pub errno: Errno,
}

impl SysError {
    pub fn new(op: &'static str, object: impl fmt::Display, errno: Errno) -> Self {
        Self { op: op.into(), object: object.to_string(), errno }
    }
}

impl fmt::Display for SysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.worded(Wording::Verbatim))
    }
}

impl std::error::Error for SysError {}

impl SysError {
    fn worded(&self, wording: Wording) -> String {
        let object = if self.object.is_empty() { String::new() } else { format!(" {}", self.object) };
        format!("{}{object}: {}", self.op, reason(self.errno, wording))
    }
}

/// Names the operation and the object of a failed call: `openat2(..).doing("openat2", path)?`.
pub trait Doing<T> {
    fn doing(self, op: &'static str, object: impl fmt::Display) -> Result<T, SysError>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, op: &'static str, object: impl fmt::Display) -> Result<T, SysError> {
        self.map_err(|errno| SysError::new(op, object, errno))
    }
}

impl<T> Doing<T> for std::io::Result<T> {
    fn doing(self, op: &'static str, object: impl fmt::Display) -> Result<T, SysError> {
        self.map_err(|error| SysError::new(op, object, Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))))
    }
}

/// A file of a directory as the object of a call: written out only if that fails.
pub struct Inside<'a>(pub &'a Path, pub &'a str);

impl fmt::Display for Inside<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.join(self.1).display())
    }
}

/// How an errno is worded. Managers take `no such process` and `no such file …` in a failing kill or delete as
/// success, so there those two are said in other words; in create and exec they are expected verbatim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    Verbatim,
    Unmatched,
}

fn reason(errno: Errno, wording: Wording) -> String {
    match (errno, wording) {
        (Errno::ESRCH, Wording::Unmatched) => "gone (ESRCH)".into(),
        (Errno::ENOENT, Wording::Unmatched) => "missing (ENOENT)".into(),
        _ => format!("{} ({errno:?})", strerror(errno)),
    }
}

/// The words of strerror(3) in lower case: managers match them without the capital.
pub fn strerror(errno: Errno) -> String {
    let words = errno.desc();
    let mut chars = words.chars();
    match chars.next() {
        // "I/O error" and the like keep their capitals
        Some(first) if words.chars().nth(1).is_some_and(char::is_lowercase) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => words.to_string(),
    }
}

/// Phrases that containerd, docker, podman and CRI-O match in our output. Each is said only under its condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    DoesNotExist,
    NotRunning,
    NotRunningButPaused,
    NotPaused,
    AlreadyExists,
    StartStopped,
    StartRunning,
    StartPaused,
    ExecStopped,
    ExecPaused,
    NotStopped {
        id: String,
        status: &'static str,
    },
    EventsOfStopped {
        id: String,
    },
    InitStillRunning,
    IdEmpty,
    IdFormat,
    TtyWithoutConsoleSocket,
    ConsoleSocketWithoutTty,
    NotFoundInPath(String),
    ProgramStat {
        program: String,
        errno: Errno,
    },
    Program {
        program: String,
        errno: Errno,
    },
    /// Something the program needs: its loader or interpreter.
    Part {
        program: String,
        part: String,
        errno: Errno,
    },
}

impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoesNotExist => f.write_str("container does not exist"),
            Self::NotRunning => f.write_str("container not running"),
            Self::NotRunningButPaused => f.write_str("container not running; it is paused already"),
            Self::NotPaused => f.write_str("container not paused"),
            Self::AlreadyExists => f.write_str("container with given ID already exists"),
            Self::StartStopped => f.write_str("cannot start a container that has stopped"),
            Self::StartRunning => f.write_str("cannot start an already running container"),
            Self::StartPaused => f.write_str("cannot start a container in the paused state"),
            Self::ExecStopped => f.write_str("cannot exec in a stopped container"),
            Self::ExecPaused => f.write_str("cannot exec in a paused container (use --ignore-paused to override)"),
            Self::NotStopped { id, status } => write!(f, "cannot delete container {id} that is not stopped: {status}"),
            Self::EventsOfStopped { id } => write!(f, "container with id {id} is not running"),
            Self::InitStillRunning => f.write_str("container init still running"),
            Self::IdEmpty => f.write_str("container id cannot be empty"),
            Self::IdFormat => f.write_str("invalid container ID format"),
            Self::TtyWithoutConsoleSocket => {
                f.write_str("cannot allocate tty if rrun will detach without setting console socket")
            }
            Self::ConsoleSocketWithoutTty => {
                f.write_str("cannot use console socket if rrun will not detach or allocate tty")
            }
            Self::NotFoundInPath(program) => write!(f, "exec: \"{program}\": executable file not found in $PATH"),
            Self::ProgramStat { program, errno } => {
                write!(f, "exec: \"{program}\": stat {program}: {}", strerror(*errno))
            }
            Self::Program { program, errno } => write!(f, "exec: \"{program}\": {}", unfit(*errno)),
            Self::Part { program, part, errno } => {
                write!(f, "exec: \"{program}\": {part} stops exec {program}: {}", unfit(*errno))
            }
        }
    }
}

impl std::error::Error for Matched {}

/// Why a file cannot be executed. Of a directory execve(2) says EACCES, and docker before 23.0 knows no other words for
/// exit code 126.
fn unfit(errno: Errno) -> String {
    match errno {
        Errno::EISDIR => format!("{}: {}", strerror(errno), strerror(Errno::EACCES)),
        _ => strerror(errno),
    }
}

/// One level of an error on its way from the child to the parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Frame {
    Text(String),
    Sys { op: String, object: String, errno: i32 },
}

/// A whole chain of causes in a form that crosses a socket and is an error again on the other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report(Vec<Frame>);

/// Enough of a long value to know it by.
const LONGEST: usize = 1000;

/// Head and tail of what a config may make as long as it likes.
fn shortened(text: &str) -> String {
    shortened_to(LONGEST, text)
}

pub fn shortened_to(longest: usize, text: &str) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text.to_string();
    }
    let head: String = text.chars().take(longest * 3 / 4).collect();
    let tail: String = text.chars().skip(count - longest / 4).collect();
    format!("{head} … {tail}")
}

impl Report {
    pub fn of(error: &anyhow::Error) -> Self {
        Self(
            error
                .chain()
                .map(|cause| match cause.downcast_ref::<SysError>() {
                    Some(e) => Frame::Sys { op: e.op.to_string(), object: shortened(&e.object), errno: e.errno as i32 },
                    None => Frame::Text(shortened(&cause.to_string())),
                })
                .collect(),
        )
    }

    pub fn text(message: impl fmt::Display) -> Self {
        Self(vec![Frame::Text(message.to_string())])
    }

    pub fn into_error(self) -> anyhow::Error {
        let mut frames = self.0.into_iter().rev();
        let rebuilt = match frames.next() {
            Some(Frame::Text(text)) => anyhow::Error::msg(text),
            Some(Frame::Sys { op, object, errno }) => {
                anyhow::Error::new(SysError { op: op.into(), object, errno: Errno::from_raw(errno) })
            }
            None => anyhow::Error::msg("failed without saying why"),
        };
        frames.fold(rebuilt, |error, frame| match frame {
            Frame::Text(text) => error.context(text),
            Frame::Sys { op, object, errno } => {
                error.context(SysError { op: op.into(), object, errno: Errno::from_raw(errno) })
            }
        })
    }
}

const LOOP: &str = "a loop of symlinks, or a link of /proc that leads out of the container";

/// What to do about an errno of an operation. To help users with one more error, add a line.
/// A hint must not hold a reserved word (see the test below).
/// An empty operation means any.
const HINTS: &[(&str, Errno, &str)] = &[
    ("", Errno::EMFILE, "rrun itself needs about 60 descriptors: raise its RLIMIT_NOFILE (ulimit -n)"),
    ("", Errno::ENFILE, "the host is out of descriptors: see sysctl fs.file-max"),
    (
        "mount_setattr",
        Errno::EPERM,
        "a user namespace must keep what the host has set on a mount: ro, nosuid, nodev, noexec and the kind of atime",
    ),
    (
        "mount_setattr",
        Errno::EACCES,
        "a security module forbids it: on Ubuntu see sysctl kernel.apparmor_restrict_unprivileged_userns",
    ),
    (
        "create in rootfs",
        Errno::EACCES,
        "root inside must be able to write there: give the rootfs to the ids that are mapped",
    ),
    ("create in rootfs", Errno::EOVERFLOW, "its owner is not mapped: give the rootfs to the ids that are mapped"),
    (
        "mount_setattr idmap",
        Errno::EPERM,
        "a source that is id-mapped already cannot be mapped again: bind what it was made of",
    ),
    ("mount_setattr idmap", Errno::ENOSYS, "mapping the ids of a mount takes Linux 5.12"),
    ("mount_setattr", Errno::EINVAL, "only what is mounted there can be changed"),
    ("chdir", Errno::ELOOP, LOOP),
    ("open in rootfs", Errno::ELOOP, LOOP),
    ("write oom_score_adj", Errno::EACCES, "below the present value it takes CAP_SYS_RESOURCE"),
    (
        "clone3",
        Errno::EPERM,
        "user namespaces may be for root alone here: see sysctl kernel.unprivileged_userns_clone, and whether rrun is \
         in a chroot",
    ),
    ("clone3", Errno::ENOSPC, "too many namespaces: see sysctl user.max_*_namespaces, where 0 allows none"),
    ("clone3", Errno::EAGAIN, "the limit of processes is reached: see pids.max of rrun's own cgroup and ulimit -u"),
    ("setns", Errno::EINVAL, "a pid namespace can be joined from above only: it must be rrun's own or one below that"),
    ("setns", Errno::EPERM, "joining a namespace needs CAP_SYS_ADMIN over it"),
    ("write timens_offsets", Errno::ERANGE, "the clock would be negative, or beyond what the kernel counts to"),
    ("write timens_offsets", Errno::EPERM, "setting clocks needs CAP_SYS_TIME"),
    ("clone", Errno::EAGAIN, "the limit of processes is reached: see linux.resources.pids.limit and RLIMIT_NPROC"),
    ("fsopen", Errno::ENODEV, "this kernel has no such file system type, or its module is not loaded"),
    ("fsopen", Errno::EPERM, "mounting needs root, or a user namespace in the config"),
    (
        "fsconfig create",
        Errno::EPERM,
        "it is none for user namespaces, or shows a namespace that another user namespace owns; bind it instead",
    ),
    (
        "fsmount",
        Errno::EPERM,
        "the kernel refuses a new instance where the host's own is partly covered; bind it instead",
    ),
    ("open_tree", Errno::ENOENT, "a bind mount needs an existing source: create it on the host or correct `source`"),
    ("bind", Errno::ENOTDIR, "a file is bound onto a file, a folder onto a folder: correct source or destination"),
    (
        "join cgroup",
        Errno::EBUSY,
        "it hands controllers down to cgroups below it, so it may hold no processes: empty its cgroup.subtree_control",
    ),
    ("mkdir", Errno::EACCES, "as an ordinary user give --root, or set XDG_RUNTIME_DIR"),
    ("open container", Errno::EACCES, "it is another user's; as an ordinary user give --root, or set XDG_RUNTIME_DIR"),
    ("mkdir cgroup", Errno::EROFS, "the cgroup tree is mounted read-only here"),
    ("mkdir cgroup", Errno::EACCES, "creating cgroups needs root or a delegated tree"),
    ("mkdir cgroup", Errno::ENOSPC, "the cpuset of the parent cgroup is empty: fill its cpuset.cpus and cpuset.mems"),
    ("write cgroup", Errno::EBUSY, "the value is below what is in use now"),
    ("setrlimit", Errno::EPERM, "raising a hard limit needs CAP_SYS_RESOURCE; ask for at most the present one"),
    ("write label", Errno::EINVAL, "the policy that is loaded knows no such label"),
    ("write label", Errno::EACCES, "the policy that rrun itself runs under does not let it"),
    ("write label", Errno::EPERM, "no_new_privs lets a process only become more confined"),
    (
        "sched_setaffinity",
        Errno::EINVAL,
        "this host has none of these CPUs, or the cpuset of the cgroup leaves none of them",
    ),
    ("ioprio_set", Errno::EPERM, "IOPRIO_CLASS_RT takes CAP_SYS_NICE or CAP_SYS_ADMIN of the host"),
    (
        "set_mempolicy",
        Errno::EINVAL,
        "a node is not there or not in linux.resources.cpu.mems, or this kernel has no such mode or flag: \
         set_mempolicy(2)",
    ),
    ("set_mempolicy", Errno::ENOSYS, "this kernel knows one memory node only"),
    ("move network device", Errno::EPERM, "it takes CAP_NET_ADMIN in both network namespaces"),
    (
        "move network device",
        Errno::EINVAL,
        "some kinds of devices stay where they are, as lo: see `netns-local` in ethtool -k",
    ),
    ("mkdir resctrl", Errno::ENOSPC, "the processor has no more classes, or counters, to give: remove a group"),
    ("keyctl join", Errno::EDQUOT, "the quota of keys is used up: see sysctl kernel.keys.maxkeys"),
    ("exec", Errno::ENOENT, "it is missing, or the interpreter or loader that it names is"),
    ("exec", Errno::EACCES, "it must be a file that may be executed: see its mode and its mount's options"),
    ("exec", Errno::ENOEXEC, "neither a binary that this kernel knows nor a script that begins with #!"),
    ("connect", Errno::ECONNREFUSED, "nobody listens on that socket"),
    ("pivot_root", Errno::EINVAL, "the root of the host may be an initramfs: use --no-pivot there"),
    ("chown", Errno::EINVAL, "it is not mapped in the user namespace: see linux.uidMappings and gidMappings"),
    ("setresuid", Errno::EINVAL, "it is not mapped in the user namespace: see linux.uidMappings"),
    ("setresgid", Errno::EINVAL, "it is not mapped in the user namespace: see linux.gidMappings"),
    ("sethostname", Errno::EINVAL, "a name has at most 64 bytes"),
    ("setdomainname", Errno::EINVAL, "a name has at most 64 bytes"),
];

pub fn hint(error: &SysError) -> Option<&'static str> {
    let meant = |op: &str| op == error.op;
    let about = HINTS.iter().filter(|(_, errno, _)| *errno == error.errno);
    let best = about.clone().find(|(op, ..)| meant(op)).or_else(|| about.clone().find(|(op, ..)| op.is_empty()));
    best.map(|(_, _, hint)| *hint)
}

/// The one line that a user reads: every cause once, outermost first, then what to do.
pub fn line(error: &anyhow::Error, wording: Wording) -> String {
    let mut line = String::new();
    let mut advice = None;
    for cause in error.chain() {
        let text = match cause.downcast_ref::<SysError>() {
            Some(sys) => {
                advice = advice.or_else(|| hint(sys));
                sys.worded(wording)
            }
            None => cause.to_string(),
        };
        let text = shortened(&text);
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    if let Some(advice) = advice {
        line.push_str("; ");
        line.push_str(advice);
    }
    // One line, whatever a user's string holds.
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_report_crosses_whole() {
        let error = Err::<(), _>(Errno::EPERM).doing("open_tree", "/proc").context("mount /proc").unwrap_err();
        let bytes = serde_json::to_vec(&Report::of(&error)).unwrap();
        let back = serde_json::from_slice::<Report>(&bytes).unwrap().into_error().context("create c1");
        assert_eq!(
            line(&back, Wording::Verbatim),
            "create c1: mount /proc: open_tree /proc: operation not permitted (EPERM)"
        );
    }

    #[test]
    fn kill_and_delete_do_not_say_what_managers_take_for_success() {
        for (errno, verbatim, unmatched) in [
            (Errno::ESRCH, "kill 7: no such process (ESRCH)", "kill 7: gone (ESRCH)"),
            (Errno::ENOENT, "kill 7: no such file or directory (ENOENT)", "kill 7: missing (ENOENT)"),
            (Errno::EIO, "kill 7: I/O error (EIO)", "kill 7: I/O error (EIO)"),
        ] {
            let error = anyhow::Error::new(SysError::new("kill", 7, errno));
            assert_eq!(line(&error, Wording::Verbatim), verbatim);
            assert_eq!(line(&error, Wording::Unmatched), unmatched);
        }
    }

    #[test]
    fn a_hint_follows_the_reason_and_a_newline_does_not() {
        let error = anyhow::Error::new(SysError::new("fsopen", "ex\nt9", Errno::ENODEV));
        let line = line(&error, Wording::Verbatim);
        assert!(line.starts_with("fsopen ex t9: ") && line.ends_with("module is not loaded"), "{line}");
    }

    /// A hint for an operation that nothing names would never be given.
    #[test]
    fn every_hint_is_for_an_operation_that_the_sources_name() {
        fn sources(folder: &std::path::Path, text: &mut String) {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                match entry.is_dir() {
                    true => sources(&entry, text),
                    false if entry.ends_with("src/error.rs") => {}
                    false => text.push_str(&std::fs::read_to_string(&entry).unwrap()),
                }
            }
        }
        let mut text = String::new();
        sources(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        for (op, errno, _) in HINTS.iter().filter(|(op, ..)| !op.is_empty()) {
            assert!(
                text.contains(&format!("\"{op}\"")),
                "nothing names `{op}`, so its hint for {errno} is never given"
            );
        }
    }
}
