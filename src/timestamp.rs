//! Points in time as RFC 3339 in UTC, for the log and for `created`. It only writes; nothing here reads a clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// `2026-11-21T09:59:49Z`, as in log entries.
pub fn seconds(time: SystemTime) -> String {
    let (date_and_time, _) = civil(time);
    date_and_time + "Z"
}

/// `2026-11-21T09:59:49.000000001Z`, as in `created` of the state.
pub fn nanoseconds(time: SystemTime) -> String {
    let (date_and_time, nanoseconds) = civil(time);
    format!("{date_and_time}.{nanoseconds:09}Z")
}

fn civil(time: SystemTime) -> (String, u32) {
    // A clock before 1970 is a clock that was never set.
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"), since.subsec_nanos())
}

/// Year, month and day of the n-th day after 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    // 400 years always have the same number of days, so the loops below stay short whatever the clock says.
    let mut year = 1970 + days / 146_097 * 400;
    days %= 146_097;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn known_moments() {
        // As `date -u -d @N` prints them.
        for (since, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (978_220_800, "2000-12-31T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_795_255_189, "2026-11-21T09:59:49Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (13_574_563_200, "2400-02-29T00:00:00Z"),
        ] {
            assert_eq!(seconds(UNIX_EPOCH + Duration::from_secs(since)), want, "{since}");
        }
        let moment = UNIX_EPOCH + Duration::new(1_795_255_189, 1_000);
        assert_eq!(nanoseconds(moment), "2026-11-21T09:59:49.000001000Z");
        assert_eq!(seconds(UNIX_EPOCH - Duration::from_secs(9)), "1970-01-01T00:00:00Z");
    }
}
