//! `linux.personality` → what personality(2) gets.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::spec::given;
use super::spec::linux::Personality as Written;

/// uapi/linux/personality.h
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Personality {
    #[serde(rename = "LINUX")]
    Linux = 0,
    /// uname(2) tells a machine of 32 bits.
    #[serde(rename = "LINUX32")]
    Linux32 = 8,
}

pub fn plan(written: &Written) -> Result<Personality> {
    const KNOWN: &str = "use LINUX or LINUX32";
    if let Some(flag) = written.flags.first() {
        bail!("linux.personality.flags[0]: {flag} is no flag; the spec has none, leave them out");
    }
    match given(&written.domain).with_context(|| format!("linux.personality.domain: missing; {KNOWN}"))? {
        "LINUX" => Ok(Personality::Linux),
        "LINUX32" => Ok(Personality::Linux32),
        other => bail!("linux.personality.domain: {other} is no domain; {KNOWN}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        for (written, want) in [
            (r#"{"domain":"LINUX"}"#, Ok(0)),
            (r#"{"domain":"LINUX32","flags":[]}"#, Ok(8)),
            ("{}", Err("linux.personality.domain: missing; use LINUX or LINUX32")),
            (r#"{"domain":"linux"}"#, Err("linux.personality.domain: linux is no domain; use LINUX or LINUX32")),
            (
                r#"{"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#,
                Err("linux.personality.flags[0]: ADDR_NO_RANDOMIZE is no flag; the spec has none, leave them out"),
            ),
        ] {
            let planned = plan(&serde_json::from_str(written).unwrap());
            assert_eq!(planned.map(|domain| domain as i32).map_err(|e| e.to_string()), want.map_err(String::from));
        }
    }
}
