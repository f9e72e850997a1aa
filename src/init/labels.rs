//! Labels of security modules: what the kernel gives to the program at execve, to keys that are made meanwhile, and to
//! the root of a mount.
//!
//! They are asked for in this thread's own files of /proc, through the host's procfs: it was opened before anything of
//! the container was there, and nothing that is mounted over a file of it is entered. So no /proc of the image's can
//! take what is written (CVE-2019-16884, CVE-2023-28642, CVE-2025-52881), and what was written is read again.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use xattr::FileExt;

use super::Init;
use crate::error::{Doing, SysError};
use crate::procfs::{Proc, open_beneath};
use crate::sys::mount::{self, Mount};

/// By which all programs go that no profile is attached to.
const UNCONFINED: &str = "unconfined";

impl Init<'_> {
    pub(super) fn hold_procfs(&mut self) -> Result<()> {
        self.host_procfs = Some(Proc::open()?);
        Ok(())
    }

    /// With no_new_privs a process that is confined may only become more so (Linux 4.17): its profile stays, and the new
    /// one is put on top.
    pub(super) fn set_apparmor_profile(&self, profile: &str) -> Result<()> {
        let own = self.attributes()?;
        let bound = prctl::get_no_new_privs().doing("prctl PR_GET_NO_NEW_PRIVS", "")?;
        let apparmor = own.of("apparmor")?;
        let stays = bound && apparmor.read("current")? != UNCONFINED;
        apparmor.set_profile(profile, if stays { "stack" } else { "exec" })
    }

    pub(super) fn set_selinux_label(&self, label: &str) -> Result<()> {
        self.attributes()?.set_label(label)
    }

    /// Of keys and keyrings that are made from now on.
    pub(super) fn label_keys(&self, label: &str) -> Result<()> {
        Ok(self.attributes()?.write("keycreate", label)?)
    }

    /// Back to what the policy says.
    pub(super) fn label_keys_as_usual(&self) -> Result<()> {
        Ok(self.attributes()?.write("keycreate", "\n")?)
    }

    /// A process of `exec` has the procfs that its parent opened.
    fn attributes(&self) -> Result<Attributes> {
        let of_exec = || self.handles.container.as_ref().map(|container| &container.proc);
        let procfs = self.host_procfs.as_ref().or_else(of_exec).context("the host's procfs is not open")?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        Ok(Attributes(procfs.open_file("thread-self/attr", flags)?.into()))
    }
}

/// Of a mount that keeps the context which it was born with.
pub(super) fn label_root(mount: &Mount, label: &str) -> Result<()> {
    let root = File::from(mount::reopen_directory(mount)?);
    Ok(root.set_xattr("security.selinux", label.as_bytes()).doing("setxattr security.selinux", label)?)
}

/// /proc/thread-self/attr, or the part of it that is one module's: proc_pid_attr(5).
struct Attributes(OwnedFd);

impl Attributes {
    /// Linux 5.8 has a directory for AppArmor, since SELinux may have the files beside it.
    fn of(&self, module: &str) -> Result<Self, SysError> {
        match self.open(module, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(SysError { errno: Errno::ENOENT, .. }) => Ok(Self(self.0.try_clone().doing("dup", "attr")?)),
            result => result.map(|file| Self(file.into())),
        }
    }

    fn open(&self, name: &str, flags: OFlag) -> Result<File, SysError> {
        open_beneath(self.as_fd(), name, flags).doing("open", format_args!("/proc/thread-self/attr: {name}"))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), SysError> {
        let file = self.open(name, OFlag::O_WRONLY)?;
        let written = nix::unistd::write(file, text.as_bytes());
        written.map(drop).doing("write label", format_args!("{} to {name}", text.trim_end()))
    }

    /// Without what modules put after it: a NUL, a newline.
    fn read(&self, name: &str) -> Result<String, SysError> {
        let mut bytes = Vec::new();
        self.open(name, OFlag::O_RDONLY)?.take(u64::MAX).read_to_end(&mut bytes).doing("read label", name)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches(['\0', '\n']).to_string())
    }

    fn set_profile(&self, profile: &str, how: &str) -> Result<()> {
        match self.write("exec", &format!("{how} {profile}")) {
            Err(SysError { errno: Errno::ENOENT, .. }) => bail!(
                "no such profile is loaded; load it by apparmor_parser, or correct the name: aa-status lists those that are"
            ),
            result => result?,
        }
        let told = self.read("exec")?;
        ensure!(is_of(&told, profile), "the kernel has taken it for {told}");
        Ok(())
    }

    /// The policy may have another name for the same, so what is read again is not compared.
    fn set_label(&self, label: &str) -> Result<()> {
        self.write("exec", label)?;
        ensure!(!self.read("exec")?.is_empty(), "the kernel has not kept it");
        Ok(())
    }
}

impl AsFd for Attributes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether every profile that is wanted is among those that AppArmor tells of: `one//&other (mode)`, `:namespace://name`.
fn is_of(told: &str, wanted: &str) -> bool {
    let names = told.rsplit_once(" (").map_or(told, |(names, _)| names);
    let parts = |names: &str| names.split("//&").map(|name| name.replacen("://", ":", 1)).collect::<Vec<_>>();
    let told = parts(names);
    parts(wanted).iter().all(|name| told.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// What stands for /proc/thread-self/attr: no machine that tests run on has SELinux.
    fn attributes(files: &[&str]) -> (tempfile::TempDir, Attributes) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
        }
        let opened = Attributes(File::open(dir.path()).unwrap().into());
        (dir, opened)
    }

    fn content(dir: &tempfile::TempDir, file: impl AsRef<Path>) -> String {
        fs::read_to_string(dir.path().join(file)).unwrap()
    }

    #[test]
    fn labels_go_to_the_files_of_their_module() {
        let (dir, own) = attributes(&["exec", "keycreate", "apparmor/exec"]);
        own.set_label("system_u:system_r:container_t:s0:c1,c2").unwrap();
        own.write("keycreate", "system_u:system_r:container_t:s0").unwrap();
        own.of("apparmor").unwrap().write("exec", "exec docker-default").unwrap();
        assert_eq!(content(&dir, "exec"), "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(content(&dir, "keycreate"), "system_u:system_r:container_t:s0");
        assert_eq!(content(&dir, "apparmor/exec"), "exec docker-default");
    }

    #[test]
    fn an_older_kernel_has_one_directory() {
        let (dir, own) = attributes(&["exec"]);
        own.of("apparmor").unwrap().write("exec", "exec p").unwrap();
        assert_eq!(content(&dir, "exec"), "exec p");
    }

    #[test]
    fn what_is_not_kept_is_told() {
        let (dir, own) = attributes(&[]);
        std::os::unix::fs::symlink("/dev/null", dir.path().join("exec")).unwrap();
        let error = own.set_label("u:r:t").unwrap_err().to_string();
        assert!(
            error.starts_with("open /proc/thread-self/attr: exec"),
            "what leads elsewhere is not followed: {error}"
        );
        fs::remove_file(dir.path().join("exec")).unwrap();
        fs::write(dir.path().join("exec"), "").unwrap();
        let error = own.set_profile("p", "exec").unwrap_err().to_string();
        assert_eq!(error, "the kernel has taken it for exec p");
    }

    #[test]
    fn what_apparmor_tells_of_a_profile() {
        for (told, wanted, is) in [
            ("docker-default (enforce)", "docker-default", true),
            ("docker-default (complain)", "docker-default", true),
            ("docker-default", "docker-default", true),
            ("unconfined", "unconfined", true),
            ("outer//&docker-default (enforce)", "docker-default", true),
            ("a//&b (mixed)", "b//&a", true),
            (":inner://p (enforce)", ":inner:p", true),
            (":inner://p (enforce)", ":inner://p", true),
            ("name (of) things (enforce)", "name (of) things", true),
            ("docker-default-2 (enforce)", "docker-default", false),
            ("a//&c (enforce)", "a//&b", false),
            ("unconfined", "docker-default", false),
            ("", "docker-default", false),
        ] {
            assert_eq!(is_of(told, wanted), is, "{told:?} for {wanted:?}");
        }
    }
}
