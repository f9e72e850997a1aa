//! Session keyrings: keyctl(2).

use std::ffi::CStr;

use nix::errno::Errno;

use crate::error::{Doing, SysError};

/// A key's serial number.
#[derive(Debug, Clone, Copy)]
pub struct Key(i32);

/// Joins the session keyring of that name, or makes it.
pub fn join_session_keyring(name: &CStr) -> Result<Key, SysError> {
    // SAFETY: the name is a terminated string that outlives the call.
    let serial = Errno::result(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr(), 0, 0, 0)
    });
    serial.map(|serial| Key(serial as i32)).doing("keyctl join", name.to_string_lossy())
}

/// Adds permissions (KEY_POS_*, KEY_USR_* of keyctl_setperm(3)) to those that a possessor of the key has anyway.
pub fn set_permissions(key: Key, permissions: u32) -> Result<(), SysError> {
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, key.0, permissions, 0, 0) })
        .map(drop)
        .doing("keyctl setperm", key.0)
}

/// The permissions a key has, from `KEYCTL_DESCRIBE`'s `type;uid;gid;perm;description`.
pub fn permissions(key: Key) -> Result<u32, SysError> {
    let mut text = [0u8; 512];
    // SAFETY: pointer and length describe `text`.
    let length = Errno::result(unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_DESCRIBE, key.0, text.as_mut_ptr(), text.len(), 0)
    })
    .doing("keyctl describe", key.0)?;
    let text = String::from_utf8_lossy(&text[..text.len().min(length as usize)]);
    let permissions = text.split(';').nth(3).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    permissions.ok_or(Errno::EBADMSG).doing("keyctl describe", key.0)
}
