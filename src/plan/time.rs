//! `linux.timeOffsets`: how far the clocks of a new time namespace are off the host's.

use anyhow::{Result, bail, ensure};

use super::spec::linux::TimeOffset as Given;
use super::{Clock, JoinPlan, Namespace, TimeOffset};

/// By the words of the spec, which are the kernel's too (time_namespaces(7)).
const CLOCKS: [(&str, Clock); 2] = [("monotonic", Clock::Monotonic), ("boottime", Clock::Boottime)];

/// In a joined user namespace, too, others may look into a process whose files in /proc are its user's.
pub const NEED_RIGHTS: &str = "linux.timeOffsets: take root's rights (CAP_SYS_ADMIN and CAP_SYS_TIME), which rrun has \
    not here; remove them, make a new user namespace, or run rrun as root";

const NANOSECONDS: u32 = 1_000_000_000;

pub fn plan<'a>(
    offsets: impl IntoIterator<Item = (&'a String, &'a Given)>,
    new: &[Namespace],
    joined: &[JoinPlan],
) -> Result<Vec<TimeOffset>> {
    let mut planned = Vec::new();
    for (word, offset) in offsets {
        let Some((_, clock)) = CLOCKS.iter().find(|(name, _)| name == word) else {
            bail!("linux.timeOffsets.{word}: is no clock that can be set; use monotonic or boottime");
        };
        let (secs, nanosecs) = (offset.secs.unwrap_or(0), offset.nanosecs.unwrap_or(0));
        ensure!(
            nanosecs < NANOSECONDS,
            "linux.timeOffsets.{word}.nanosecs: {nanosecs} is a second or more; use secs for that"
        );
        planned.push(TimeOffset { clock: *clock, secs, nanosecs });
    }
    if let Some(join) = joined.iter().find(|join| join.kind == Namespace::Time && !planned.is_empty()) {
        bail!("linux.timeOffsets: the time namespace at {} has its own; remove them or the path", join.path.display());
    }
    ensure!(
        planned.is_empty() || new.contains(&Namespace::Time),
        "linux.timeOffsets: needs a new time namespace; add one to linux.namespaces"
    );
    Ok(planned)
}

pub fn name(clock: Clock) -> &'static str {
    CLOCKS.iter().find(|(_, one)| *one == clock).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::super::spec::Table;
    use super::*;
    use crate::plan::spec::document::read;

    #[test]
    fn offsets_of_new_time_namespaces() {
        let offset = |clock, secs, nanosecs| TimeOffset { clock, secs, nanosecs };
        let joined = [JoinPlan { field: String::new(), kind: Namespace::Time, path: "/run/t".into() }];
        let new = [Namespace::Time];
        for (json, new, joined, want) in [
            ("{}", &[][..], &[][..], Ok(vec![])),
            ("{}", &[], &joined[..], Ok(vec![])),
            (
                r#"{"monotonic":{"secs":-3,"nanosecs":999999999},"boottime":{"secs":7}}"#,
                &new,
                &[],
                Ok(vec![offset(Clock::Boottime, 7, 0), offset(Clock::Monotonic, -3, 999_999_999)]),
            ),
            (r#"{"monotonic":{}}"#, &new, &[], Ok(vec![offset(Clock::Monotonic, 0, 0)])),
            (r#"{"realtime":{"secs":1}}"#, &new, &[], Err("linux.timeOffsets.realtime: is no clock")),
            (
                r#"{"boottime":{"nanosecs":1000000000}}"#,
                &new,
                &[],
                Err("linux.timeOffsets.boottime.nanosecs: 1000000000 is"),
            ),
            (r#"{"boottime":{"secs":1}}"#, &[], &[], Err("linux.timeOffsets: needs a new time namespace")),
            (r#"{"boottime":{"secs":1}}"#, &[], &joined, Err("linux.timeOffsets: the time namespace at /run/t has")),
        ] {
            let table = read::<Table<Given>>(json.as_bytes()).unwrap();
            match (plan(&table, new, joined), want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want, "{json}"),
                (Err(got), Err(want)) => assert!(got.to_string().starts_with(want), "{json}: {got}"),
                (got, want) => panic!("{json}: {got:?}, wanted {want:?}"),
            }
        }
    }
}
