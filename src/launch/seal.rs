//! Self-protection: before rrun touches a container it re-executes itself from a copy of its own file that nobody can
//! write, since a process inside can get hold of /proc/PID/exe (CVE-2019-5736). docs/design.md, "Self-protection".

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::error::{Doing, SysError};
use crate::sys::entry::{CHOICE, ENTERING, MARK};
use crate::sys::exec::Image;
use crate::sys::file;
use crate::sys::mount::{self, Attributes, Reach};
use crate::sys::start;

const OWN_FILE: &str = "/proc/self/exe";

/// Does [`ensure`]'s restart before the command line is parsed, since it would be parsed again; where src/sys/entry.rs
/// could do it earlier still, this is the second image. By a glance at the words: a word too many costs a restart, one too
/// few nothing, as `ensure` decides; and it tells what goes wrong here.
pub fn ahead(mut words: impl Iterator<Item = OsString>) {
    if std::env::var_os(MARK).is_none()
        && words.any(|word| ENTERING.split_terminator(' ').any(|entering| word == entering))
    {
        let _ = ensure();
    }
}

/// Returns in a process whose file nobody can write. Not dumpable from here on: a process of the container may not
/// trace us or open our /proc files.
pub fn ensure() -> Result<()> {
    let clone = mount::clone_tree(Path::new(OWN_FILE), Reach::One);
    if !is_protected(&clone)? {
        if std::env::var_os(MARK).is_some() {
            bail!("protect rrun's own file: it is still writable after a re-exec; report this");
        }
        return restart(clone).context("protect rrun's own file");
    }
    prctl::set_dumpable(false).doing("prctl PR_SET_DUMPABLE", "")?;
    Ok(())
}

/// Asked of the kernel, never of the environment: either a sealed memfd, or a mount that is in no namespace (cloning
/// it is EINVAL) and read-only. Read-only alone could be a superblock that is remounted.
fn is_protected(clone: &Result<mount::Mount, SysError>) -> Result<bool> {
    if clone.is_ok() {
        // a file of some mount: neither kind
        return Ok(false);
    }
    let own = file::open(OWN_FILE, OFlag::O_RDONLY).doing("open", OWN_FILE)?;
    let seals = fcntl(&own, FcntlArg::F_GET_SEALS).map_or(SealFlag::empty(), SealFlag::from_bits_truncate);
    if seals.contains(SealFlag::F_SEAL_WRITE) {
        return Ok(true);
    }
    let detached = matches!(clone, Err(SysError { errno: Errno::EINVAL, .. }));
    let readonly = fstatvfs(&own).doing("fstatvfs", OWN_FILE)?.flags().contains(FsFlags::ST_RDONLY);
    Ok(detached && readonly)
}

/// Never returns when it succeeds.
fn restart(clone: Result<mount::Mount, SysError>) -> Result<()> {
    let image = own_image()?;
    let wants_copy = std::env::var_os(CHOICE).is_some_and(|choice| choice == "memfd");
    let readonly = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
    let readonly_clone = clone.and_then(|clone| {
        mount::set_attributes(clone.as_fd(), readonly, Reach::One, OWN_FILE)?;
        Ok(OwnedFd::from(clone))
    });
    let file = match readonly_clone {
        Ok(clone) if !wants_copy => clone,
        // no rights to mounts (a plain user), an old kernel, or a file of another mount namespace
        Ok(_) | Err(SysError { errno: Errno::EPERM | Errno::ENOSYS | Errno::EINVAL, .. }) => sealed_copy()?,
        Err(error) => return Err(error.into()),
    };
    Err(SysError::new("execveat", OWN_FILE, image.execveat(file.as_fd())).into())
}

fn own_image() -> Result<Image> {
    let string = |bytes: Vec<u8>| CString::new(bytes).context("a NUL byte");
    let arguments = start::words().map(|word| string(word.into_vec())).collect::<Result<_>>()?;
    let mut environment = callers_environment()?;
    environment.push(string(format!("{MARK}=1").into_bytes())?);
    Ok(Image::new(arguments, environment))
}

/// What rrun was called with: without what the restart has added.
pub fn callers_environment() -> Result<Vec<CString>> {
    let variable = |(name, value): (OsString, OsString)| {
        CString::new([name.into_vec(), b"=".to_vec(), value.into_vec()].concat()).context("a NUL byte")
    };
    std::env::vars_os().filter(|(name, _)| name != MARK).map(variable).collect()
}

/// The whole file in memory, sealed against every change.
fn sealed_copy() -> Result<OwnedFd> {
    // Kernels before 6.3 do not know MFD_EXEC; later ones may refuse to execute without it (vm.memfd_noexec).
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let copy = match memfd_create(c"rrun", flags | executable) {
        Err(Errno::EINVAL) => memfd_create(c"rrun", flags),
        result => result,
    }
    .doing("memfd_create", "rrun")?;
    let mut own = std::fs::File::open(OWN_FILE).doing("open", OWN_FILE)?;
    let mut file = std::fs::File::from(copy);
    std::io::copy(&mut own, &mut file).doing("copy", OWN_FILE)?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).doing("fcntl F_ADD_SEALS", "rrun")?;
    Ok(file.into())
}
