//! A user's home from the container's /etc/passwd, which may hold anything: passwd(5).

use std::fs::File;
use std::io::Read;

use nix::fcntl::OFlag;
use nix::sys::stat::{SFlag, fstat};

use crate::rootfs::{InRoot, Rootfs, Symlinks, kind_of};

/// An image may bring gigabytes.
const LONGEST: u64 = 1 << 20;

pub(super) fn home(rootfs: &Rootfs, uid: u32) -> Option<String> {
    let path = InRoot::new("/etc/passwd");
    let fd = rootfs.open_errno(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Symlinks::Followed).ok()?;
    if kind_of(&fstat(&fd).ok()?) != SFlag::S_IFREG {
        return None;
    }
    let mut text = Vec::new();
    File::from(fd).take(LONGEST).read_to_end(&mut text).ok()?;
    home_in(&String::from_utf8_lossy(&text), uid)
}

/// The uid is compared as a number: a user *named* 1000 is not uid 1000 (CVE-2016-3697).
fn home_in(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_user = fields.nth(2)?.parse() == Ok(uid);
        let home = fields.nth(2)?;
        (is_user && home.starts_with('/') && !home.contains(char::is_control)).then(|| home.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/evil:\nbroken\nu:x:1000:1000::/home/u:/bin/sh\n\
                      bad:x:7:7::relative:\nodd:x:8:8::/a\u{1b}b:\n";
        for (uid, want) in [(0, Some("/root")), (1000, Some("/home/u")), (7, None), (8, None), (9, None)] {
            assert_eq!(home_in(passwd, uid).as_deref(), want, "{uid}");
        }
    }
}
