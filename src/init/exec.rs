//! The last step: the user's program takes over.

use std::io::Write;

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::Init;
use crate::error::strerror;
use crate::sys::clone;

impl Init<'_> {
    /// Returns only to tell a parent that still listens, which that of `exec` does. Otherwise a failure is told through
    /// the start FIFO, by as many bytes read as the errno says, since reading is what any filter allows; its text goes
    /// where `start` will find it, if writing is allowed.
    pub(super) fn exec(&mut self) -> Result<()> {
        let Some(program) = &self.program else { clone::exit_now(255) };
        let errno = program.image.execve(&program.path);
        let name = program.path.to_string_lossy();
        let Some(start) = &mut self.handles.start else {
            bail!("{name}: {} ({errno:?}){}", strerror(errno), advice(errno));
        };
        let mut unread = [0; 256];
        let _ = nix::unistd::read(&start.channel, &mut unread[..(errno as usize).min(255)]);
        let _ = write!(start.error, "exec {name}: {} ({errno:?}){}", strerror(errno), advice(errno));
        clone::exit_now(255)
    }
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOEXEC => "; neither a binary that this kernel knows nor a script that begins with #!",
        Errno::ETXTBSY => "; the file is open for writing",
        Errno::E2BIG => "; arguments and environment are too long: see execve(2)",
        Errno::EAGAIN => "; RLIMIT_NPROC of this user is reached",
        Errno::EACCES => "; a security module or a noexec mount refuses it",
        _ => "",
    }
}
