//! What only the v2 tree asks for: controllers are handed down from directory to directory, and only by those that hold
//! no processes themselves; below a threaded cgroup there are threaded ones alone; and a cgroup can be given away.

use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::unistd::{Uid, fchownat};

use super::HierarchyPlan;
use super::directory::{Directory, above, open_error};
use crate::error::{Doing, SysError};

const CONTROL: &str = "cgroup.subtree_control";
const TYPE: &str = "cgroup.type";
/// Those that can tell threads apart: Documentation/admin-guide/cgroup-v2.rst, "Threads".
const THREADED: [&str; 4] = ["cpu", "cpuset", "perf_event", "pids"];

/// Makes `own`, which lies below `top` and was just made, a place for processes with the controllers of the plan.
pub fn prepare(top: &Directory, own: &Directory, plan: &HierarchyPlan) -> Result<()> {
    if kind(own)? == Kind::Invalid {
        become_threaded(top, plan)?;
    }
    if plan.enable.is_empty() && plan.enable_also.is_empty() {
        return Ok(());
    }
    for path in above(&plan.path) {
        let directory = top.below(path).map_err(|errno| open_error(top, errno))?;
        hand_down(&directory, &plan.enable, &plan.enable_also)?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The top of all, where processes and controllers may be side by side.
    Root,
    Domain,
    /// Also the one at which a threaded part of the tree begins.
    Threaded,
    /// Below a threaded one, and not threaded yet.
    Invalid,
}

fn kind(directory: &Directory) -> Result<Kind> {
    Ok(match directory.read(TYPE).as_deref().map(str::trim) {
        Err(Errno::ENOENT) => Kind::Root,
        Ok("domain") => Kind::Domain,
        Ok("domain invalid") => Kind::Invalid,
        Ok(_) => Kind::Threaded,
        Err(errno) => return Err(SysError::new("read cgroup", directory.path.join(TYPE).display(), *errno).into()),
    })
}

/// All on the way that are not yet.
fn become_threaded(top: &Directory, plan: &HierarchyPlan) -> Result<()> {
    if let Some(domain) = plan.enable.iter().find(|own| !THREADED.contains(&own.as_str())) {
        bail!(
            "cgroup {}: lies below a threaded cgroup, where there is no {domain} controller; set linux.cgroupsPath to \
             an absolute path elsewhere",
            plan.directory().display()
        );
    }
    for path in above(&plan.path).into_iter().skip(1).chain([plan.path.as_path()]) {
        let directory = top.below(path).map_err(|errno| open_error(top, errno))?;
        if kind(&directory)? == Kind::Invalid {
            write(&directory, TYPE, "threaded")?;
        }
    }
    Ok(())
}

/// `wanted` or it is an error; `also` where nothing is in the way.
fn hand_down(directory: &Directory, wanted: &[String], also: &[String]) -> Result<()> {
    let enabled = directory.read(CONTROL).map_err(|errno| open_error(directory, errno))?;
    let missing = |names: &[String]| -> Vec<String> {
        let is_enabled = |name: &str| enabled.split_ascii_whitespace().any(|own| own == name);
        names.iter().filter(|name| !is_enabled(name)).map(|name| format!("+{name}")).collect()
    };
    let (wanted, also) = (missing(wanted), missing(also));
    if wanted.is_empty() && also.is_empty() {
        return Ok(());
    }
    // The kernel itself would take controllers of threads there, and make its children invalid for processes. Those of
    // other pid namespaces are listed as 0, and count too.
    let holds_any = || directory.read("cgroup.procs").is_ok_and(|pids| !pids.trim().is_empty());
    if kind(directory)? == Kind::Domain && holds_any() {
        return match wanted.first() {
            None => Ok(()),
            Some(first) => Err(refusal(directory, first, Errno::EBUSY)),
        };
    }
    let all: Vec<&str> = wanted.iter().chain(&also).map(String::as_str).collect();
    if directory.write(CONTROL, &all.join(" ")).is_ok() {
        return Ok(());
    }
    for controller in &wanted {
        directory.write(CONTROL, controller).map_err(|errno| refusal(directory, controller, errno))?;
    }
    for controller in &also {
        // missing from the directory above, or not for a threaded one: nothing in the config needs it
        let _ = directory.write(CONTROL, controller);
    }
    Ok(())
}

fn refusal(directory: &Directory, controller: &str, errno: Errno) -> anyhow::Error {
    let (path, name) = (directory.path.display(), controller.trim_start_matches('+'));
    let why = match errno {
        Errno::EBUSY => format!("holds processes itself, so none below it can have the {name} controller"),
        Errno::ENOENT => format!("is not given the {name} controller by the cgroups above"),
        Errno::EOPNOTSUPP => format!("is threaded, and the {name} controller is not for such"),
        errno => {
            let object = format!("{path}/{CONTROL} = {controller}");
            return SysError::new("write cgroup", object, errno).into();
        }
    };
    anyhow::anyhow!("cgroup {path} {why} ({errno:?}); set linux.cgroupsPath to an absolute path elsewhere")
}

fn write(directory: &Directory, file: &str, value: &str) -> Result<()> {
    let written = directory.write(file, value);
    Ok(written.doing("write cgroup", format_args!("{}/{file} = {value}", directory.path.display()))?)
}

/// What a kernel that does not say itself lets a cgroup's owner write.
const DELEGATED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

/// Gives the cgroup to a user: the directory and the files that the kernel says are safe to give, and not the limits.
pub fn delegate(directory: &Directory, uid: u32) -> Result<()> {
    let files = std::fs::read_to_string("/sys/kernel/cgroup/delegate").unwrap_or_else(|_| DELEGATED.into());
    let plain = |file: &&str| !file.contains('/') && *file != "..";
    for file in [""].into_iter().chain(files.split_ascii_whitespace().filter(plain)) {
        let at = if file.is_empty() { Path::new(".") } else { Path::new(file) };
        match fchownat(directory, at, Some(Uid::from_raw(uid)), None, AtFlags::AT_SYMLINK_NOFOLLOW) {
            // a file of a controller that is not handed down
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => {
                let object = directory.path.join(file);
                return Err(SysError::new("chown cgroup", object.display(), errno)).context("process.user.uid");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{read_to_string, write as put};

    /// Plain directories stand in for cgroups: what is tested is what is written where.
    fn cgroup(files: &[(&str, &str)]) -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, text)| put(dir.path().join(file), text).unwrap());
        let directory = Directory::at(dir.path()).unwrap().0;
        (dir, directory)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn what_is_missing_is_handed_down_by_one_write() {
        for (enabled, wanted, also, want) in [
            ("", vec!["pids"], vec!["cpu", "io"], "+pids +cpu +io"),
            ("cpu io\n", vec!["pids"], vec!["cpu", "io"], "+pids"),
            ("cpu pids\n", vec!["pids"], vec!["cpu"], "cpu pids\n"),
            ("cpuset\n", vec![], vec!["cpu"], "+cpu"),
        ] {
            // without cgroup.type: the root, which may hold processes
            let (dir, directory) = cgroup(&[(CONTROL, enabled), ("cgroup.procs", "1\n")]);
            hand_down(&directory, &names(&wanted), &names(&also)).unwrap();
            let written = read_to_string(dir.path().join(CONTROL)).unwrap();
            // a file of the kernel's does not keep what is longer
            assert!(written.starts_with(want), "{wanted:?} {also:?}: {written:?}");
        }
    }

    #[test]
    fn a_cgroup_with_processes_hands_nothing_down() {
        let files = [(CONTROL, ""), ("cgroup.procs", "17\n"), (TYPE, "domain\n")];
        let (dir, directory) = cgroup(&files);
        hand_down(&directory, &[], &names(&["cpu"])).unwrap();
        let error = hand_down(&directory, &names(&["memory"]), &[]).unwrap_err().to_string();
        let want = format!(
            "cgroup {} holds processes itself, so none below it can have the memory controller (EBUSY); set \
             linux.cgroupsPath to an absolute path elsewhere",
            dir.path().display()
        );
        assert_eq!(error, want);
        assert_eq!(read_to_string(dir.path().join(CONTROL)).unwrap(), "");
        put(dir.path().join(TYPE), "domain threaded\n").unwrap();
        hand_down(&directory, &names(&["pids"]), &[]).unwrap();
        assert_eq!(read_to_string(dir.path().join(CONTROL)).unwrap(), "+pids");
    }

    #[test]
    fn processes_of_other_pid_namespaces_count() {
        let (dir, directory) = cgroup(&[(CONTROL, ""), ("cgroup.procs", "0\n0\n"), (TYPE, "domain\n")]);
        hand_down(&directory, &[], &names(&["cpu"])).unwrap();
        assert!(hand_down(&directory, &names(&["pids"]), &[]).is_err());
        assert_eq!(read_to_string(dir.path().join(CONTROL)).unwrap(), "");
    }

    #[test]
    fn below_a_threaded_cgroup_all_become_threaded_or_it_is_an_error() {
        let (dir, top) = cgroup(&[(CONTROL, "")]);
        for (path, kind) in [("a", "domain threaded"), ("a/b", "domain invalid"), ("a/b/c1", "domain invalid")] {
            std::fs::create_dir(dir.path().join(path)).unwrap();
            put(dir.path().join(path).join(TYPE), kind).unwrap();
            put(dir.path().join(path).join(CONTROL), "").unwrap();
        }
        let own = top.below(Path::new("a/b/c1")).unwrap();
        let mut plan = HierarchyPlan::new(super::super::Version::V2, &[], dir.path(), "a/b/c1".into());
        plan.enable = names(&["pids", "memory"]);
        let error = prepare(&top, &own, &plan).unwrap_err().to_string();
        assert!(
            error.contains("/a/b/c1: lies below a threaded cgroup, where there is no memory controller"),
            "{error}"
        );
        plan.enable = names(&["pids"]);
        prepare(&top, &own, &plan).unwrap();
        let seen = ["a", "a/b", "a/b/c1"].map(|path| read_to_string(dir.path().join(path).join(TYPE)).unwrap());
        assert_eq!(seen.map(|kind| kind[..8].to_string()), ["domain t", "threaded", "threaded"]);
        assert_eq!(read_to_string(dir.path().join("a/b").join(CONTROL)).unwrap(), "+pids");
    }
}
