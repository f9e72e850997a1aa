//! What the host's /proc says of a process (proc(5)).

use std::fmt::Display;
use std::fs;

/// A field of its `status`, words parted by one space. `None` of one that has ended.
pub fn status(pid: impl Display, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Whether the tests, and so the runtime, have CAP_SYS_RESOURCE.
pub fn we_may_raise_limits() -> bool {
    const SYS_RESOURCE: u64 = 1 << 24;
    let effective = status("self", "CapEff").unwrap();
    u64::from_str_radix(&effective, 16).unwrap() & SYS_RESOURCE != 0
}
