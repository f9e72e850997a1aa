//! CRIU's program: where it is, and how it is started.

use std::ffi::{CString, OsStr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access, setsid};

use crate::error::{Doing, SysError};
use crate::sys::clone::{self, Child};
use crate::sys::exec::Image;
use crate::sys::{fds, signals};

const NAME: &str = "criu";
/// Of a caller that has none: podman calls some commands so. CRIU looks for its own helpers there too.
const USUAL_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH: &[u8] = b"PATH=";

/// What the socket is in CRIU; what else it is given follows.
pub const SOCKET: i32 = 3;
pub const FIRST_GIVEN: i32 = SOCKET + 1;

/// A CRIU that is yet to be executed.
pub struct Start {
    path: CString,
    image: Image,
}

impl Start {
    /// With the caller's environment.
    pub fn new(mut environment: Vec<CString>) -> Result<Self> {
        let given = environment.iter().find_map(|variable| variable.to_bytes().strip_prefix(PATH));
        let search = given.filter(|path| !path.is_empty()).unwrap_or(USUAL_PATH).to_vec();
        environment.retain(|variable| !variable.to_bytes().starts_with(PATH));
        environment.push(CString::new([PATH, &search].concat()).context("a NUL byte")?);
        let found = find(OsStr::from_bytes(&search))
            .with_context(|| anyhow!("criu: not in {}; install the package criu", String::from_utf8_lossy(&search)))?;
        let path = CString::new(found.into_os_string().into_encoded_bytes()).context("a NUL byte")?;
        let number = CString::new(SOCKET.to_string()).context("a NUL byte")?;
        let arguments = vec![path.clone(), c"swrk".into(), number];
        Ok(Self { path, image: Image::new(arguments, environment) })
    }

    /// In a child of rrun's that differs in nothing else. What it prints nobody waits for: it has a log.
    pub fn beside(&self, socket: BorrowedFd) -> Result<Child> {
        let null: OwnedFd =
            std::fs::File::options().read(true).write(true).open("/dev/null").doing("open", "/dev/null")?.into();
        let child = clone::fork(|| {
            // a key that ends rrun at a terminal is not for a CRIU in the middle of a process
            let _ = setsid();
            let _ = (0..SOCKET).try_for_each(|number| fds::install(&null, number));
            self.execute(socket, &[]);
            127
        })?;
        Ok(child)
    }

    /// Becomes CRIU, which finds `given` under the numbers from `FIRST_GIVEN` on, and nothing else that rrun or its caller
    /// has open but the standard files. Returns only when it cannot.
    pub fn execute(&self, socket: BorrowedFd, given: &[BorrowedFd]) -> SysError {
        let all: Vec<_> = [socket].iter().chain(given).copied().collect();
        let path = self.path.to_string_lossy();
        let ready = fds::install_all(SOCKET, &all).and_then(|()| signals::reset(signals::ALL));
        match ready {
            Ok(()) => SysError::new("exec", path, self.image.execve(&self.path)),
            Err(error) => error,
        }
    }
}

fn find(search: &OsStr) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file() && access(path, AccessFlags::X_OK) != Err(Errno::EACCES);
    std::env::split_paths(search)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(NAME))
        .find(|path| is_program(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn variables(start: &Start) -> Vec<String> {
        start.image.environment().iter().map(|variable| variable.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn it_is_looked_for_where_the_caller_says() {
        let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let program = dirs[1].path().join(NAME);
        std::fs::write(&program, "").unwrap();
        std::fs::create_dir(dirs[0].path().join(NAME)).unwrap();
        let search =
            std::env::join_paths(["", "."].map(Path::new).into_iter().chain(dirs.iter().map(|d| d.path()))).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(find(&search), None);
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(find(&search), Some(program.clone()));
        let path = CString::new([PATH, search.as_bytes()].concat()).unwrap();
        let start = Start::new(vec![c"A=b".into(), path.clone()]).unwrap();
        assert_eq!(
            (start.path.as_bytes(), &variables(&start)[0]),
            (program.as_os_str().as_bytes(), &"A=b".to_string())
        );
        assert_eq!(variables(&start)[1].as_bytes(), path.as_bytes());
    }

    #[test]
    fn one_that_is_missing_is_told_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let path = format!("PATH={}", dir.path().display());
        let error = Start::new(vec![CString::new(path).unwrap()]).err().unwrap();
        assert_eq!(error.to_string(), format!("criu: not in {}; install the package criu", dir.path().display()));
    }
}
