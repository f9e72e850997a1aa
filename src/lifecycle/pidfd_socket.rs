//! `--pidfd-socket`: a pidfd of the new process for the caller, who may look at it only after rrun has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};

use crate::error::Doing;
use crate::sys::socket;

const FLAG: &str = "--pidfd-socket";

/// What comes with the descriptor, in the words that callers know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    Exec,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Init => "standard",
            Self::Exec => "setns",
        }
    }
}

pub struct PidfdSocket(OwnedFd);

impl PidfdSocket {
    /// Before anything is made: it may fail.
    pub fn connect(path: Option<&Path>) -> Result<Option<Self>> {
        path.map(socket::connect_stream).transpose().map(|socket| socket.map(Self)).context(FLAG)
    }

    /// One message with one descriptor, for which no answer is waited.
    pub fn send(&self, role: Role, pidfd: BorrowedFd) -> Result<()> {
        let word = role.word().as_bytes();
        socket::send(self.0.as_fd(), word, Some(pidfd)).doing("sendmsg", "the pidfd").context(FLAG)
    }
}
