//! Descriptors that the caller leaves open for the container: `--preserve-fds`, and the sockets of sd_listen_fds(3).
//! Looked at before rrun opens anything that could take one's number for good.

use std::ffi::{OsStr, OsString};

use anyhow::{Result, bail};
use clap::{Arg, value_parser};

use super::{Call, value};
use crate::plan::Descriptors;
use crate::sys::fds;

pub fn flag() -> Arg {
    let about = "Keep N more of the caller's descriptors, from 3 on or after those of LISTEN_FDS";
    value("preserve-fds", "N", about).value_parser(value_parser!(u32))
}

pub fn given(call: &Call) -> Result<Descriptors> {
    let (listen_pid, listen_fds) = (std::env::var_os("LISTEN_PID"), std::env::var_os("LISTEN_FDS"));
    let descriptors = Descriptors {
        listen: handed_over(std::process::id(), listen_pid, listen_fds),
        preserve: call.number("preserve-fds").unwrap_or(0),
    };
    check(descriptors, fds::is_inherited)?;
    Ok(descriptors)
}

fn check(descriptors: Descriptors, is_open: impl Fn(i32) -> bool) -> Result<()> {
    let Descriptors { listen, preserve } = descriptors;
    let (first, end) = (Descriptors::FIRST, descriptors.end());
    let Some(missing) = (first..end).find(|number| !is_open(*number)) else { return Ok(()) };
    match missing < (Descriptors { listen, preserve: 0 }).end() {
        true => bail!(
            "environment variable LISTEN_FDS {listen}: descriptor {missing} is not open; sockets begin at {first}"
        ),
        false => {
            let begin = i64::from(first) + i64::from(listen);
            let last = begin + i64::from(preserve) - 1;
            bail!(
                "--preserve-fds {preserve}: descriptor {missing} is not open; open {begin} to {last} for rrun, or lower the number"
            )
        }
    }
}

/// Sockets that systemd hands over are meant for rrun only if LISTEN_PID says so; otherwise for a process before it.
fn handed_over(own_pid: u32, listen_pid: Option<OsString>, listen_fds: Option<OsString>) -> u32 {
    let number = |text: Option<OsString>| text.as_deref().and_then(OsStr::to_str)?.parse::<u32>().ok();
    if number(listen_pid) == Some(own_pid) { number(listen_fds).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_for_someone_else_are_left_alone() {
        for (listen_pid, listen_fds, want) in [
            (Some("7"), Some("1"), 1),
            (Some("7"), Some("12"), 12),
            (Some("8"), Some("1"), 0),
            (Some("7"), Some("0"), 0),
            (Some("7"), Some("-1"), 0),
            (Some("7"), Some(""), 0),
            (Some("x"), Some("1"), 0),
            (None, Some("1"), 0),
            (Some("7"), None, 0),
        ] {
            let handed_over = handed_over(7, listen_pid.map(Into::into), listen_fds.map(Into::into));
            assert_eq!(handed_over, want, "{listen_pid:?} {listen_fds:?}");
        }
    }

    #[test]
    fn the_first_missing_descriptor_is_named_with_who_asked_for_it() {
        for (listen, preserve, open, want) in [
            (0, 0, &[][..], ""),
            (1, 2, &[3, 4, 5], ""),
            (0, 1, &[], "--preserve-fds 1: descriptor 3 is not open; open 3 to 3 for rrun, or lower the number"),
            (0, 3, &[3, 5], "--preserve-fds 3: descriptor 4 is not open; open 3 to 5 for rrun, or lower the number"),
            (2, 0, &[3], "environment variable LISTEN_FDS 2: descriptor 4 is not open; sockets begin at 3"),
            (2, 9, &[3], "environment variable LISTEN_FDS 2: descriptor 4 is not open; sockets begin at 3"),
            (1, 2, &[3, 4], "--preserve-fds 2: descriptor 5 is not open; open 4 to 5 for rrun, or lower the number"),
            (
                u32::MAX,
                u32::MAX,
                &[],
                "environment variable LISTEN_FDS 4294967295: descriptor 3 is not open; sockets begin at 3",
            ),
        ] {
            let found = check(Descriptors { listen, preserve }, |number| open.contains(&number));
            assert_eq!(found.map_or_else(|error| error.to_string(), |()| String::new()), want, "{listen} {preserve}");
        }
    }
}
