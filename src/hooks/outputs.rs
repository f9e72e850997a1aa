//! Files of the host that take what hooks write. Whether they may be named, the plan's annotations decide.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::error::Doing;
use crate::plan::annotations::{HOOKS_STDERR, HOOKS_STDOUT};
use crate::plan::hooks::OutputPaths;

/// Files that hooks write to. What goes there is not read by rrun, so no error shows it.
#[derive(Debug, Default)]
pub struct Outputs {
    pub(super) stdout: Option<File>,
    pub(super) stderr: Option<File>,
}

impl Outputs {
    pub const NONE: Self = Self { stdout: None, stderr: None };

    /// What is there is added to. What others could mean by the name (a link, a FIFO, a device) is refused.
    pub fn open(paths: &OutputPaths) -> Result<Self> {
        let open = |name: &str, path: &Option<PathBuf>| {
            path.as_deref().map(open).transpose().with_context(|| format!("annotations.{name}"))
        };
        Ok(Self { stdout: open(HOOKS_STDOUT, &paths.stdout)?, stderr: open(HOOKS_STDERR, &paths.stderr)? })
    }

    pub fn try_clone(&self) -> Result<Self> {
        let dup = |file: &Option<File>| file.as_ref().map(File::try_clone).transpose().doing("dup", "a hook's output");
        Ok(Self { stdout: dup(&self.stdout)?, stderr: dup(&self.stderr)? })
    }

    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr].into_iter().flatten().map(File::as_fd)
    }
}

fn open(path: &Path) -> Result<File> {
    const MODE: u32 = 0o600;
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let shown = path.display();
    let file = File::options().append(true).create(true).mode(MODE).custom_flags(flags).open(path);
    let file = file.doing("open", &shown)?;
    let is_file = file.metadata().doing("stat", &shown)?.is_file();
    ensure!(is_file, "{shown} is no regular file; name one, or a name that is free");
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn only_a_regular_file_is_written_to_and_nothing_in_it_is_lost() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let paths = |name: &str| OutputPaths { stdout: Some(at(name)), stderr: None };
        std::fs::write(at("log"), "before\n").unwrap();
        let outputs = Outputs::open(&paths("log")).unwrap();
        assert_eq!((outputs.fds().count(), outputs.try_clone().unwrap().fds().count()), (1, 1));
        outputs.stdout.as_ref().unwrap().write_all(b"after\n").unwrap();
        assert_eq!(std::fs::read_to_string(at("log")).unwrap(), "before\nafter\n");
        Outputs::open(&paths("new")).unwrap();
        assert_eq!(std::fs::metadata(at("new")).unwrap().permissions().mode() & 0o777, 0o600);
        symlink("log", at("link")).unwrap();
        symlink("none", at("nowhere")).unwrap();
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        // with a reader it could be opened
        let _reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(at("fifo")).unwrap();
        for name in ["link", "nowhere", "fifo", ".", "none/log"] {
            let error = format!("{:#}", Outputs::open(&paths(name)).unwrap_err());
            assert!(
                error.starts_with("annotations.run.oci.hooks.stdout: ") && error.contains(at(name).to_str().unwrap()),
                "{error}"
            );
        }
        assert!(!at("none").exists());
    }
}
