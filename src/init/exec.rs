//! The last step: the user's program takes over.

use std::io::Write;

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::{Init, StartHandles};
use crate::error::strerror;
use crate::sys::clone;

impl Init<'_> {
    /// Returns only to tell a parent that still listens, which that of `exec` does.
    pub(super) fn exec(&mut self) -> Result<()> {
        let Some(program) = &self.program else { clone::exit_now(255) };
        let errno = program.image.execve(&program.path);
        let name = program.path.to_string_lossy();
        let told = format!("{name}: {} ({errno:?}){}", strerror(errno), advice(errno));
        match &self.handles.start {
            Some(start) => start.fail(errno, &format!("exec {told}")),
            None => bail!(told),
        }
    }
}

impl StartHandles {
    /// Ends init. Told through the start FIFO, by as many bytes read as the errno says, since reading is what any filter
    /// allows; the text goes where `start` will find it, if writing is allowed.
    pub(super) fn fail(&self, errno: Errno, text: &str) -> ! {
        let mut unread = [0; 255];
        let _ = nix::unistd::read(&self.channel, &mut unread[..(errno as usize).min(255)]);
        let _ = (&self.error).write_all(text.as_bytes());
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
