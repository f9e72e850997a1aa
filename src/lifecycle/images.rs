//! Where a container's images and CRIU's log are: directories of the caller's. Images may come from anywhere, so what is
//! read of them here is bounded, and is no path.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::permitted;
use crate::criu::request::Files;
use crate::criu::told::Log;
use crate::error::{Doing, SysError};
use crate::plan::Plan;
use crate::plan::annotations::{CRIU_CONFIG, PERMITTED};
use crate::sys::file;

/// Which pipes the standard files were, by the name that runc gives it.
const DESCRIPTORS: &str = "descriptors.json";
/// Three names of pipes, and more.
const LONGEST: u64 = 64 << 10;
/// Of whoever runs the host; the second is what managers of containers tell their users of.
const CONFIGS: [&str; 2] = ["/etc/criu/rrun.conf", "/etc/criu/runc.conf"];

/// Flags that say where.
#[derive(Debug, Clone)]
pub struct ImagePaths {
    pub images: PathBuf,
    pub work: Option<PathBuf>,
}

pub struct Images {
    path: PathBuf,
    directory: OwnedFd,
    work: Option<(PathBuf, OwnedFd)>,
}

impl Images {
    /// For a dump, which makes what is missing: what is in a container's memory is its owner's and root's to read.
    pub fn make(paths: &ImagePaths) -> Result<Self> {
        make_directory(&paths.images).context("--image-path")?;
        Self::open(paths)
    }

    pub fn open(paths: &ImagePaths) -> Result<Self> {
        let directory = open_directory(&paths.images).context("--image-path")?;
        let work = paths.work.as_deref().map(|work| {
            make_directory(work)?;
            Ok::<_, SysError>((work.to_path_buf(), open_directory(work)?))
        });
        let work = work.transpose().context("--work-path")?;
        Ok(Self { path: paths.images.clone(), directory, work })
    }

    pub fn files(&self, log: &'static str, config: Option<PathBuf>) -> Files {
        let work = self.work.as_ref().map(|(_, work)| work.as_raw_fd());
        Files { images: self.directory.as_raw_fd(), work, log, config }
    }

    /// By which CRIU finds them in a mount namespace of its own, in the order of `given_files`.
    pub fn directories(&self) -> Vec<&Path> {
        [Some(&self.path), self.work.as_ref().map(|(path, _)| path)]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect()
    }

    /// CRIU has been given them under numbers from `first` on.
    pub fn given_files(&self, first: i32, log: &'static str, config: Option<PathBuf>) -> Files {
        Files { images: first, work: self.work.as_ref().map(|_| first + 1), log, config }
    }

    pub fn log(&self, name: &'static str) -> Result<Log> {
        let (path, directory) = self.work.as_ref().map_or((&self.path, &self.directory), |(path, work)| (path, work));
        Ok(Log { directory: file::dup(directory).doing("dup", path.display())?, path: path.clone(), name })
    }

    /// `--parent-path` is one of the images' own neighbours, so that the link that CRIU makes of it holds elsewhere too.
    pub fn check_parent(&self, parent: &Path) -> Result<()> {
        let shown = parent.display();
        ensure!(!parent.is_absolute(), "--parent-path: {shown} must be relative to --image-path");
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        openat(&self.directory, parent, flags, Mode::empty()).doing("open", &shown).context("--parent-path")?;
        Ok(())
    }

    pub fn write_descriptors(&self, names: &[String]) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&self.directory, DESCRIPTORS, flags, Mode::from_bits_truncate(0o600));
        let mut file = File::from(opened.doing("create", DESCRIPTORS).context("--image-path")?);
        Ok(file.write_all(&serde_json::to_vec(names)?).doing("write", DESCRIPTORS)?)
    }

    /// None where whoever dumped it wrote none.
    pub fn read_descriptors(&self) -> Result<Vec<String>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.directory, DESCRIPTORS, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            file => File::from(file.doing("open", DESCRIPTORS).context("--image-path")?),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes).doing("read", DESCRIPTORS)?;
        serde_json::from_slice(&bytes).with_context(|| format!("{DESCRIPTORS}: is no list of names"))
    }
}

impl AsFd for Images {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn make_directory(path: &Path) -> Result<(), SysError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).doing("mkdir", path.display())
}

fn open_directory(path: &Path) -> Result<OwnedFd, SysError> {
    file::open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY).doing("open", path.display())
}

/// A file of settings can have CRIU run programs, as root of the host.
pub fn config(plan: &Plan) -> Result<Option<PathBuf>> {
    let Some(annotated) = plan.annotations.get(CRIU_CONFIG) else {
        return Ok(CONFIGS.map(PathBuf::from).into_iter().find(|path| path.exists()));
    };
    if annotated.is_empty() {
        return Ok(None);
    }
    let permitted = permitted::annotations()?.lines().any(|line| line.trim() == CRIU_CONFIG);
    ensure!(
        permitted,
        "annotations.{CRIU_CONFIG}: has criu do what a file says; root may permit it by a line {CRIU_CONFIG} in {PERMITTED}"
    );
    check_owner(Path::new(annotated)).with_context(|| format!("annotations.{CRIU_CONFIG}"))?;
    Ok(Some(annotated.into()))
}

fn check_owner(path: &Path) -> Result<()> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path).doing("open", path.display())?;
    let found = file.metadata().doing("stat", path.display())?;
    ensure!(
        path.is_absolute() && found.is_file() && found.uid() == 0 && found.mode() & 0o022 == 0,
        "{} must be an absolute path of a file that root owns and nobody else may write",
        path.display()
    );
    Ok(())
}
