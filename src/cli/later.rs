//! What callers may ask for and later versions will do. Refused by name: a container that lacks what was asked for is
//! worse than none.

use std::ffi::{OsStr, OsString};

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

/// Sockets handed over by systemd (sd_listen_fds(3)). They are meant for rrun only if LISTEN_PID says so.
pub fn refuse_listen_fds() -> Result<()> {
    if meant_for(std::process::id(), std::env::var_os("LISTEN_PID"), std::env::var_os("LISTEN_FDS")) {
        return Err(flag("environment variable LISTEN_FDS"));
    }
    Ok(())
}

fn meant_for(pid: u32, listen_pid: Option<OsString>, listen_fds: Option<OsString>) -> bool {
    let number = |text: Option<OsString>| text.as_deref().and_then(OsStr::to_str)?.parse::<u32>().ok();
    number(listen_pid) == Some(pid) && number(listen_fds).is_some_and(|fds| fds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_for_someone_else_are_left_alone() {
        for (listen_pid, listen_fds, want) in [
            (Some("7"), Some("1"), true),
            (Some("8"), Some("1"), false),
            (Some("7"), Some("0"), false),
            (Some("7"), Some(""), false),
            (Some("x"), Some("1"), false),
            (None, Some("1"), false),
            (Some("7"), None, false),
        ] {
            assert_eq!(
                meant_for(7, listen_pid.map(Into::into), listen_fds.map(Into::into)),
                want,
                "{listen_pid:?} {listen_fds:?}"
            );
        }
    }
}
