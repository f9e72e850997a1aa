//! Finds the program in the finished tree and says what is wrong with it before `create` returns, in the words that
//! managers turn into exit codes 126 and 127. What only execve can tell is left to `start`.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{AccessFlags, faccessat};

use super::{Init, Program};
use crate::error::Matched;
use crate::plan::process::set_variable;
use crate::procfs::Proc;
use crate::rootfs::{Rootfs, Symlinks, kind_of};
use crate::sys::exec::Image;

mod format;
mod passwd;

use format::Format;

/// As much of a file as tells what it is: more than a page of program headers is not worth a look.
const HEAD: usize = 4096;

impl Init<'_> {
    pub(super) fn find_program(&mut self, name: &str) -> Result<()> {
        let process = self.process;
        let cwd = Path::new(&process.cwd);
        let path = self.as_the_user(|| {
            let rootfs = self.rootfs()?;
            look_up(name, cwd, &process.env, |path| executable(rootfs, path))
        })??;
        let head = read_head(self.rootfs()?, &cwd.join(&path));
        if let Some(head) = head.filter(|head| !format::of(head).stands_alone()) {
            let emulated = || match &self.handles.container {
                Some(container) => emulated(&container.proc, &head),
                // still the host's
                None => Proc::open().is_ok_and(|proc| emulated(&proc, &head)),
            };
            self.as_the_user(|| examine(self.rootfs()?, name, cwd, &head, emulated))??;
        }
        // the kernel has cleared the death signal if the user is another
        self.die_with_parent()?;

        let mut environment = process.env.clone();
        set_home(self.rootfs()?, process.uid, &mut environment);
        if process.descriptors.listen > 0 {
            set_variable(&mut environment, "LISTEN_PID", &nix::unistd::getpid().to_string());
        }
        let strings = |strings: &[String]| -> Result<Vec<CString>> {
            strings.iter().map(|s| CString::new(s.as_str()).context("a NUL byte")).collect()
        };
        let image = Image::new(strings(&process.args)?, strings(&environment)?);
        self.program = Some(Program { path: CString::new(path.into_os_string().into_encoded_bytes())?, image });
        Ok(())
    }
}

/// A name with a slash is a path; another is looked for in the PATH of the container's environment, and nowhere without.
pub fn look_up(
    name: &str,
    cwd: &Path,
    environment: &[String],
    executable: impl Fn(&Path) -> Result<(), Errno>,
) -> Result<PathBuf> {
    if name.contains('/') {
        return match executable(&cwd.join(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(errno @ (Errno::EISDIR | Errno::EACCES)) => {
                Err(anyhow::Error::new(Matched::Program { program: name.into(), errno }))
            }
            // a magic link, as /proc/self/exe: only execve can tell
            Err(Errno::ELOOP) if name.starts_with("/proc/") => Ok(PathBuf::from(name)),
            Err(errno) => Err(anyhow::Error::new(Matched::ProgramStat { program: name.into(), errno })),
        };
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).filter(|path| !path.is_empty());
    let mut refused = None;
    for directory in path.into_iter().flat_map(|path| path.split(':')) {
        let candidate = Path::new(if directory.is_empty() { "." } else { directory }).join(name);
        match executable(&cwd.join(&candidate)) {
            Ok(()) => return Ok(candidate),
            Err(errno @ Errno::EACCES) => refused = Some(errno),
            Err(_) => {}
        }
    }
    let found_nothing = Matched::NotFoundInPath(name.into());
    Err(anyhow::Error::new(refused.map_or(found_nothing, |errno| Matched::Program { program: name.into(), errno })))
}

fn executable(rootfs: &Rootfs, path: &Path) -> Result<(), Errno> {
    let fd = rootfs.open_path(path, OFlag::O_PATH, Symlinks::Followed)?;
    match kind_of(&fstat(&fd)?) {
        SFlag::S_IFREG => faccessat(&fd, c"", AccessFlags::X_OK, AtFlags::AT_EACCESS | AtFlags::AT_EMPTY_PATH),
        SFlag::S_IFDIR => Err(Errno::EISDIR),
        _ => Err(Errno::EACCES),
    }
}

/// What the file itself says of what it needs.
fn examine(rootfs: &Rootfs, name: &str, cwd: &Path, head: &[u8], emulated: impl Fn() -> bool) -> Result<()> {
    let needs = |what: String, path: &str| match executable(rootfs, &cwd.join(path)) {
        // a link of /proc: only execve can tell
        Ok(()) | Err(Errno::ELOOP) => Ok(()),
        Err(errno) => Err(anyhow::Error::new(Matched::Part { program: name.into(), part: what, errno })),
    };
    match format::of(head) {
        Format::Unknown => Ok(()),
        Format::Script { interpreter, carriage_return: true } => {
            needs(format!("its interpreter {interpreter}"), &interpreter)
                .map_err(|error| anyhow!("its first line ends in CR LF; convert it to LF line endings").context(error))
        }
        Format::Script { interpreter, .. } => needs(format!("its interpreter {interpreter}"), &interpreter),
        Format::Elf { machine, .. } if !format::runs_here(machine) && !emulated() => {
            let (theirs, ours) = (format::machine_name(machine), std::env::consts::ARCH);
            let what = format!("a binary for {theirs}, this host is {ours}; use an image for {ours}");
            Err(anyhow!("exec: \"{name}\": exec format error: {what}"))
        }
        Format::Elf { interpreter: Some(loader), .. } => needs(format!("its loader {loader}"), &loader),
        Format::Elf { .. } => Ok(()),
    }
}

/// Read as root: the user may execute what it may not read.
fn read_head(rootfs: &Rootfs, path: &Path) -> Option<Vec<u8>> {
    let fd: OwnedFd = rootfs.open_path(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Symlinks::Followed).ok()?;
    if kind_of(&fstat(&fd).ok()?) != SFlag::S_IFREG {
        return None;
    }
    let mut head = vec![0; HEAD];
    let length = std::fs::File::from(fd).read_at(&mut head, 0).ok()?;
    head.truncate(length);
    Some(head)
}

/// Whether the host has registered an emulator for files that begin so, by its own /proc.
fn emulated(proc: &Proc, head: &[u8]) -> bool {
    let read = |flags| openat(proc.as_fd(), "sys/fs/binfmt_misc", flags | OFlag::O_CLOEXEC, Mode::empty());
    let Ok(mut entries) = read(OFlag::O_RDONLY | OFlag::O_DIRECTORY).and_then(Dir::from_fd) else { return false };
    let names: Vec<CString> = entries.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    let text = |name: &CString| {
        let file = openat(&entries, name.as_c_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        std::io::read_to_string(std::fs::File::from(file)).ok()
    };
    names.iter().filter_map(text).any(|entry| format::takes(&entry, head))
}

/// HOME is given by the config, or else by the container's /etc/passwd, or else `/`.
fn set_home(rootfs: &Rootfs, uid: u32, environment: &mut Vec<String>) {
    if !environment.iter().any(|variable| variable.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        set_variable(environment, "HOME", &passwd::home(rootfs, uid).unwrap_or_else(|| "/".into()));
    }
}
