//! Capability names and the sets that a process gets (capabilities(7)).

use std::collections::BTreeSet;
use std::str::FromStr;

use anyhow::{Result, anyhow, ensure};
use caps::Capability;
use serde::Serializer;
use serde::ser::SerializeStruct;

use super::{Capabilities, spec};
use crate::host::Host;

/// The sets of `process.capabilities`; all empty when it is absent. A name that this host cannot grant is left out
/// with one warning, as the spec demands; sets that contradict each other are an error, since capset(2) would refuse.
pub fn plan(
    sets: Option<&spec::process::Capabilities>,
    host: &Host,
    warnings: &mut Vec<String>,
) -> Result<Capabilities> {
    let Some(sets) = sets else { return Ok(Capabilities::default()) };
    let mut left_out = BTreeSet::new();
    let mut read = |set: &'static str, names: &[String]| {
        names.iter().fold(0, |bits, name| match grantable(name, host) {
            Ok(bit) => bits | bit,
            Err(reason) => {
                if left_out.insert(name.clone()) {
                    let shown = if name.is_empty() { "an empty name" } else { name };
                    warnings.push(format!("process.capabilities.{set}: {shown}: {reason}; left out"));
                }
                bits
            }
        })
    };
    let mut planned = Capabilities {
        bounding: read("bounding", &sets.bounding),
        effective: read("effective", &sets.effective),
        permitted: read("permitted", &sets.permitted),
        inheritable: read("inheritable", &sets.inheritable),
        ambient: read("ambient", &sets.ambient),
    };
    contained("effective", planned.effective, "permitted", planned.permitted)?;
    contained("inheritable", planned.inheritable, "bounding", planned.bounding)?;
    let possible = planned.permitted & planned.inheritable;
    for name in names(planned.ambient & !possible) {
        let why = "it is not permitted and inheritable";
        warnings.push(format!("process.capabilities.ambient: can't raise ambient capability {name}: {why}; left out"));
    }
    planned.ambient &= possible;
    Ok(planned)
}

fn grantable(name: &str, host: &Host) -> Result<u64, &'static str> {
    match Capability::from_str(name) {
        Ok(capability) if capability.index() <= host.last_capability => {
            match capability.bitmask() & host.capabilities {
                0 => Err("rrun does not have it here and cannot pass it on"),
                bit => Ok(bit),
            }
        }
        _ => Err("not known to this kernel"),
    }
}

fn contained(set: &str, bits: u64, in_set: &str, in_bits: u64) -> Result<()> {
    let missing = names(bits & !in_bits).join(", ");
    ensure!(missing.is_empty(), "process.capabilities.{set}: {missing}: not in {in_set}; add it there too");
    Ok(())
}

/// One that a caller asks for by name.
pub fn required(name: &str, host: &Host) -> Result<u64> {
    grantable(name, host).map_err(|reason| anyhow!("{name}: {reason}"))
}

/// In the kernel's order, for `rrun features` and `rrun plan`.
pub fn names(bits: u64) -> Vec<String> {
    if bits == 0 {
        return Vec::new();
    }
    let mut named: Vec<(u8, String)> = caps::all().iter().map(|one| (one.index(), one.to_string())).collect();
    named.retain(|(index, _)| bits & (1 << index) != 0);
    named.sort_unstable();
    named.into_iter().map(|(_, name)| name).collect()
}

/// Every name that can be written in a config.
pub fn all_names() -> Vec<String> {
    names(u64::MAX)
}

/// Writes the sets by name, for `rrun plan`.
pub fn names_of_sets<S: Serializer>(sets: &Capabilities, serializer: S) -> Result<S::Ok, S::Error> {
    let mut fields = serializer.serialize_struct("Capabilities", 5)?;
    fields.serialize_field("bounding", &names(sets.bounding))?;
    fields.serialize_field("effective", &names(sets.effective))?;
    fields.serialize_field("permitted", &names(sets.permitted))?;
    fields.serialize_field("inheritable", &names(sets.inheritable))?;
    fields.serialize_field("ambient", &names(sets.ambient))?;
    fields.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHOWN: u64 = 1;
    const KILL: u64 = 1 << 5;

    /// Grants CAP_CHOWN and CAP_KILL.
    fn host() -> Host {
        Host { capabilities: CHOWN | KILL, last_capability: 39, ..Host::default() }
    }

    fn plan_of(json: &str) -> (Result<Capabilities>, Vec<String>) {
        let mut warnings = Vec::new();
        let sets = spec::document::read(json.as_bytes()).unwrap();
        (plan(Some(&sets), &host(), &mut warnings), warnings)
    }

    #[test]
    fn what_the_host_cannot_grant_is_left_out_with_one_warning() {
        let (planned, warnings) = plan_of(
            r#"{"bounding":["CAP_KILL","CAP_SYS_ADMIN","CAP_MOON","CAP_CHECKPOINT_RESTORE"],
                "permitted":["CAP_KILL","CAP_SYS_ADMIN","CAP_MOON"],"effective":["CAP_KILL","CAP_SYS_ADMIN"],
                "inheritable":["CAP_KILL"],"ambient":["CAP_KILL"]}"#,
        );
        let all = Capabilities { bounding: KILL, effective: KILL, permitted: KILL, inheritable: KILL, ambient: KILL };
        assert_eq!(planned.unwrap(), all);
        assert_eq!(
            warnings,
            [
                "process.capabilities.bounding: CAP_SYS_ADMIN: rrun does not have it here and cannot pass it on; left out",
                "process.capabilities.bounding: CAP_MOON: not known to this kernel; left out",
                "process.capabilities.bounding: CAP_CHECKPOINT_RESTORE: not known to this kernel; left out",
            ]
        );
    }

    #[test]
    fn only_exact_names_count() {
        for name in ["cap_kill", "KILL", "CAP_CAP_KILL", " CAP_KILL", ""] {
            let (planned, warnings) = plan_of(&format!(r#"{{"bounding":["{name}"]}}"#));
            assert_eq!((planned.unwrap().bounding, warnings.len()), (0, 1), "{name}");
        }
    }

    #[test]
    fn ambient_needs_permitted_and_inheritable() {
        let (planned, warnings) = plan_of(
            r#"{"bounding":["CAP_KILL","CAP_CHOWN"],"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":["CAP_KILL"],
                "ambient":["CAP_CHOWN","CAP_KILL"]}"#,
        );
        assert_eq!(planned.unwrap().ambient, KILL);
        let why = "can't raise ambient capability CAP_CHOWN: it is not permitted and inheritable; left out";
        assert_eq!(warnings, [format!("process.capabilities.ambient: {why}")]);
    }

    #[test]
    fn sets_that_the_kernel_would_refuse_are_an_error() {
        for (json, want) in [
            (
                r#"{"effective":["CAP_KILL","CAP_CHOWN"]}"#,
                "process.capabilities.effective: CAP_CHOWN, CAP_KILL: not in permitted",
            ),
            (r#"{"inheritable":["CAP_KILL"]}"#, "process.capabilities.inheritable: CAP_KILL: not in bounding"),
        ] {
            let error = plan_of(json).0.unwrap_err().to_string();
            assert!(error.starts_with(want), "{json}: {error}");
        }
        assert_eq!(plan(None, &host(), &mut Vec::new()).unwrap(), Capabilities::default());
    }

    #[test]
    fn names_and_numbers_agree_with_the_kernel() {
        let names = all_names();
        assert_eq!(names.len(), 41);
        for (number, name) in [(0, "CAP_CHOWN"), (21, "CAP_SYS_ADMIN"), (40, "CAP_CHECKPOINT_RESTORE")] {
            assert_eq!(names[number], name);
        }
    }
}
