//! uid_map and gid_map of a child in a new user namespace: written by rrun, or by newuidmap(1) and newgidmap(1) for an
//! ordinary user who may map more than himself.

use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;

use crate::error::{Doing, SysError};
use crate::plan::ProcessPlan;
use crate::plan::id_maps::{IdMap, IdMaps, IdRange, MapWriter, check_process, lines, parse, same};
use crate::procfs::Proc;
use crate::sys::clone::pidfd_open;
use crate::sys::fds::bytes_waiting;

/// What is written for one kind of id.
struct Kind {
    field: &'static str,
    file: &'static str,
    helper: &'static str,
    /// Who may use which ids.
    allowed: &'static str,
}

const UIDS: Kind = Kind { field: "linux.uidMappings", file: "uid_map", helper: "newuidmap", allowed: "/etc/subuid" };
const GIDS: Kind = Kind { field: "linux.gidMappings", file: "gid_map", helper: "newgidmap", allowed: "/etc/subgid" };

/// The child must be dumpable where rrun has no capabilities over it.
pub fn write(proc: &Proc, child: Pid, maps: &IdMaps) -> Result<()> {
    if !maps.setgroups {
        let denied = proc.write(child, "setgroups", "deny");
        denied.context(GIDS.field)?;
    }
    write_one(proc, child, &maps.uids, &UIDS).context(UIDS.field)?;
    write_one(proc, child, &maps.gids, &GIDS).context(GIDS.field)
}

/// Those of the user namespace that the child, or the container's init, is in: the process's ids must be among them.
/// Gives the map of uids.
pub fn check_joined(proc: &Proc, child: Pid, expected: Option<&IdMaps>, process: &ProcessPlan) -> Result<Vec<IdRange>> {
    let read = |kind: &Kind| {
        let text = proc.read(&format!("{child}/{}", kind.file))?;
        let ranges = parse(&String::from_utf8_lossy(&text));
        ranges.with_context(|| format!("/proc/{child}/{} is not understood", kind.file))
    };
    let (uids, gids) = (read(&UIDS)?, read(&GIDS)?);
    if let Some(expected) = expected {
        for (kind, found, given) in [(&UIDS, &uids, &expected.uids), (&GIDS, &gids, &expected.gids)] {
            ensure!(
                same(found, &given.ranges),
                "{}: the user namespace that is joined has another map: {}; correct it or leave it out",
                kind.field,
                shown(found)
            );
        }
    }
    let setgroups = proc.read(&format!("{child}/setgroups"))?;
    check_process(&uids, &gids, !setgroups.starts_with(b"deny"), process)?;
    Ok(uids)
}

fn shown(ranges: &[IdRange]) -> String {
    ranges.iter().map(IdRange::to_string).collect::<Vec<_>>().join(", ")
}

fn write_one(proc: &Proc, child: Pid, map: &IdMap, kind: &Kind) -> Result<()> {
    match map.writer {
        MapWriter::Rrun => Ok(proc.write(child, kind.file, &lines(&map.ranges))?),
        MapWriter::Helper => help(child, map, kind),
    }
}

fn help(child: Pid, map: &IdMap, kind: &Kind) -> Result<()> {
    let helper = kind.helper;
    let path = find_helper(helper)?;
    let mut command = Command::new(&path);
    command.arg(child.to_string());
    for range in &map.ranges {
        command.args([range.container, range.host, range.size].map(|number| number.to_string()));
    }
    let said = run(&mut command, helper)?;
    let Some(said) = said else { return Ok(()) };
    let rights = match has_setuid(&path) {
        true => String::new(),
        false => format!(", and that {} has its setuid bit (chmod u+s) or file capabilities", path.display()),
    };
    let allowed = kind.allowed;
    bail!("{helper} refuses {}: {said}; see that {allowed} grants these ids to this user{rights}", shown(&map.ranges))
}

/// Before anybody needs them.
pub fn refuse_without_helpers(maps: &IdMaps) -> Result<()> {
    for (map, kind) in [(&maps.uids, &UIDS), (&maps.gids, &GIDS)] {
        if map.writer == MapWriter::Helper {
            find_helper(kind.helper).context(kind.field)?;
        }
    }
    Ok(())
}

fn find_helper(helper: &str) -> Result<PathBuf> {
    find(helper, std::env::var_os("PATH").as_deref()).with_context(|| {
        format!("{helper} is not installed; install it (package uidmap or shadow-utils), or map nothing but yourself")
    })
}

/// It may ask a directory service of the network.
const PATIENCE: Duration = Duration::from_secs(30);

/// `None` when it did it, else what it says.
fn run(command: &mut Command, helper: &str) -> Result<Option<String>> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().doing("run", helper)?;
    let pidfd = pidfd_open(Pid::from_raw(child.id() as i32))?;
    let ended = wait(pidfd.as_fd())?;
    if !ended {
        child.kill().doing("kill", helper)?;
    }
    let status = child.wait().doing("wait", helper)?;
    if !ended {
        bail!("{helper} does not end within {} s", PATIENCE.as_secs());
    }
    if status.success() {
        return Ok(None);
    }
    // What is there by now: a child of its own may hold the pipe open.
    let mut said = [0; 1024];
    let length = match child.stderr.as_mut() {
        Some(stderr) if bytes_waiting(stderr.as_fd())? > 0 => stderr.read(&mut said).doing("read", helper)?,
        _ => 0,
    };
    let said = String::from_utf8_lossy(&said[..length]);
    let said = said.trim().trim_start_matches(helper).trim_start_matches(": ");
    Ok(Some(if said.is_empty() { status.to_string() } else { said.to_string() }))
}

fn wait(pidfd: BorrowedFd) -> Result<bool, SysError> {
    let timeout = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Err(Errno::EINTR) => continue,
            result => return result.map(|ready| ready > 0).doing("poll", "the helper"),
        }
    }
}

/// The caller's PATH, then where it usually is: managers often pass on a short PATH or none.
fn find(helper: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    const USUAL: [&str; 4] = ["/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"];
    let given: Vec<PathBuf> = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let places = given.into_iter().filter(|place| place.is_absolute()).chain(USUAL.map(PathBuf::from));
    places.map(|place| place.join(helper)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

fn has_setuid(program: &Path) -> bool {
    program.metadata().is_ok_and(|found| found.permissions().mode() & 0o4000 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_found_in_path_and_beyond() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("newuidmap");
        let find_in = |path: &str| find("newuidmap", Some(OsStr::new(path)));
        std::fs::write(&file, "").unwrap();
        let path = format!("relative::{}", dir.path().display());
        assert_ne!(find_in(&path), Some(file.clone()), "it cannot be executed");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find_in(&path), Some(file.clone()));
        assert!(!has_setuid(&file));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).unwrap();
        assert!(has_setuid(&file));
        assert_eq!(find("sh", None), Some("/usr/bin/sh".into()));
        assert_eq!(find("no-such-helper", Some(OsStr::new(""))), None);
    }

    #[test]
    fn what_a_helper_says_is_told() {
        for (script, want) in [
            ("exit 0", None),
            (
                "echo 'newuidmap: uid range [0-1) -> [5-6) not allowed' >&2; exit 1",
                Some("uid range [0-1) -> [5-6) not allowed"),
            ),
            ("exit 3", Some("exit status: 3")),
            ("sleep 2 & echo no >&2; exit 1", Some("no")),
            ("sleep 2 & exit 1", Some("exit status: 1")),
        ] {
            let said = run(Command::new("/bin/sh").args(["-c", script]), "newuidmap").unwrap();
            assert_eq!(said.as_deref(), want, "{script}");
        }
    }
}
