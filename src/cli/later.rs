//! What callers may ask for and later versions will do. Refused by name: a container that lacks what was asked for is
//! worse than none.

use anyhow::{Error, Result, anyhow};

pub fn flag(name: &str) -> Error {
    anyhow!("{name}: not in this version yet; leave it out")
}

/// The readiness protocol of systemd (sd_notify(3)).
pub fn refuse_notify_socket() -> Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(socket) if !socket.is_empty() => Err(flag("environment variable NOTIFY_SOCKET")),
        _ => Ok(()),
    }
}
