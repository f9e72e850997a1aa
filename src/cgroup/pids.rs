//! `linux.resources.pids`: how many processes and threads may be. The file is the same in v1 and v2.

use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::Pids;

const FIELD: &str = "linux.resources.pids.limit";
/// PID_MAX_LIMIT: a kernel never has more, and pids.max takes no larger number.
const MOST: i64 = 4 * 1024 * 1024;

/// Absent leaves it alone and 0 is a limit of 0 (spec 1.3): init is moved in, which no limit forbids, and may not fork.
pub fn both(pids: &Pids) -> Option<Write> {
    let limit = pids.limit?;
    let value = if limit < 0 { "max".to_string() } else { limit.to_string() };
    Some(Write::new(FIELD, "pids.max", value).on_if(limit > MOST, Errno::EINVAL, Otherwise::Value("max")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_zero_and_unlimited_differ() {
        for (limit, want) in [
            (None, None),
            (Some(0), Some("pids.max = 0")),
            (Some(-1), Some("pids.max = max")),
            (Some(-7), Some("pids.max = max")),
            (Some(100), Some("pids.max = 100")),
            (Some(4_194_304), Some("pids.max = 4194304")),
            (Some(4_194_305), Some("pids.max = 4194305; EINVAL: = max")),
        ] {
            let got = both(&Pids { limit }).map(|write| write.to_string());
            assert_eq!(got.as_deref(), want, "{limit:?}");
        }
    }
}
