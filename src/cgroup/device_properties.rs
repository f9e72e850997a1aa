//! What systemd must know of `linux.resources.devices`: a policy and a list. On v1 it writes that list itself, in place of
//! ours, when it is reloaded; on v2 its program stands beside ours, and a device has to pass both. Pure.

use anyhow::{Result, bail};

use super::Version;
use super::devices::{ALL, Default, Exception, FIELD, Group, Kind, effective, exceptions};
use crate::plan::spec::resources::DeviceRule;
use crate::systemd::{Property, Value};

/// `known` is /proc/devices: a range of minors is told to systemd by the driver's name.
pub fn of_rules(rules: &[DeviceRule], hierarchy: Version, known: &str) -> Result<Vec<Property>> {
    let groups = effective(rules)?;
    if groups.iter().all(|group| group.allowed == ALL) {
        return Ok(policy("auto", Vec::new()));
    }
    match (allowed(&groups, known), hierarchy) {
        (Ok(list), _) => Ok(policy("strict", list)),
        // our own program says the rest
        (Err(_), Version::V2) => Ok(policy("auto", Vec::new())),
        (Err(what), Version::V1) => bail!(
            "{FIELD}: systemd has no words for {what}, and would allow or deny too much when it is reloaded; name \
             single devices, or let rrun make the cgroup itself by --cgroup-manager cgroupfs"
        ),
    }
}

/// The list is emptied first, as another one could stand in a file of root's for this unit.
fn policy(policy: &str, list: Vec<Value>) -> Vec<Property> {
    let empty = Value::List("(ss)", Vec::new());
    let mut properties = vec![("DevicePolicy".into(), Value::text(policy)), ("DeviceAllow".into(), empty)];
    if !list.is_empty() {
        properties.push(("DeviceAllow".into(), Value::List("(ss)", list)));
    }
    properties
}

/// Or what cannot be said.
fn allowed(groups: &[Group], known: &str) -> Result<Vec<Value>, String> {
    let exceptions = exceptions(groups, Default::Deny).map_err(|hole| hole.to_string())?;
    let entry = |exception: &Exception| match node(exception, known) {
        Some(node) => Ok(Value::Pair(node, Box::new(Value::Text(exception.letters())))),
        None => Err(exception.to_string()),
    };
    exceptions.iter().map(entry).collect()
}

/// systemd.resource-control(5), DeviceAllow=
fn node(exception: &Exception, known: &str) -> Option<String> {
    let kind = if exception.kind == Kind::Char { "char" } else { "block" };
    match (exception.major, exception.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) => Some(format!("{kind}-{}", driver(exception.kind, major, known)?)),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

/// By whose name systemd finds the major number again: one that is a pattern would be more than one.
fn driver(kind: Kind, major: u32, known: &str) -> Option<&str> {
    let title = if kind == Kind::Char { "Character devices:" } else { "Block devices:" };
    let lines = known.lines().skip_while(|line| line.trim() != title).skip(1);
    let mut lines = lines.take_while(|line| !line.trim().is_empty()).filter_map(|line| line.trim().split_once(' '));
    let (_, name) = lines.find(|(number, _)| number.parse() == Ok(major))?;
    Some(name.trim()).filter(|name| !name.contains(['*', '?', '[', '\\']))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &str =
        "Character devices:\n  1 mem\n  4 /dev/vc/0\n  4 tty\n136 pts\n250 odd*\n\nBlock devices:\n  8 sd\n";

    fn rule(allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
        DeviceRule { allow, kind: Some(kind.into()), major, minor, access: Some(access.into()) }
    }

    fn shown(rules: &[DeviceRule], hierarchy: Version) -> Result<(String, Vec<String>), String> {
        let properties = of_rules(rules, hierarchy, KNOWN).map_err(|error| error.to_string())?;
        let text = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let mut list = Vec::new();
        for (name, value) in &properties[1..] {
            let Value::List("(ss)", entries) = value else { panic!("{name} {value:?}") };
            list.extend(entries.iter().map(|entry| match entry {
                Value::Pair(node, access) => format!("{node} {}", text(access)),
                other => panic!("{other:?}"),
            }));
        }
        Ok((text(&properties[0].1), list))
    }

    #[test]
    fn what_systemd_is_told() {
        let nothing = rule(false, "a", None, None, "rwm");
        let usual = [
            "block-* m",
            "char-* m",
            "/dev/char/1:3 rwm",
            "/dev/char/1:5 rwm",
            "/dev/char/1:7 rwm",
            "/dev/char/1:8 rwm",
            "/dev/char/1:9 rwm",
            "/dev/char/5:0 rwm",
            "/dev/char/5:2 rwm",
            "/dev/char/10:200 rwm",
            "char-pts rwm",
        ];
        let list = |rules: &[DeviceRule]| shown(&[std::slice::from_ref(&nothing), rules].concat(), Version::V1);
        let (policy, plain) = list(&[]).unwrap();
        assert_eq!((policy.as_str(), plain.len()), ("strict", usual.len()), "{plain:?}");
        assert!(usual.iter().all(|entry| plain.iter().any(|said| said == entry)), "{plain:?}");
        for (more, want) in [
            (rule(true, "b", Some(8), Some(0), "r"), "/dev/block/8:0 rm"),
            (rule(true, "b", Some(8), None, "rw"), "block-sd rwm"),
            (rule(true, "c", Some(4), None, "r"), "char-/dev/vc/0 rm"),
            (rule(true, "c", None, None, "r"), "char-* rm"),
        ] {
            let (_, said) = list(&[more]).unwrap();
            assert!(said.iter().any(|entry| entry == want), "{want}: {said:?}");
        }
        assert_eq!(shown(&[rule(true, "a", None, None, "rwm")], Version::V1), Ok(("auto".into(), vec![])));
    }

    #[test]
    fn what_it_has_no_words_for() {
        let (nothing, everything) = (rule(false, "a", None, None, "rwm"), rule(true, "a", None, None, "rwm"));
        for rules in [
            vec![everything, rule(false, "b", Some(8), Some(0), "w")],
            vec![nothing.clone(), rule(true, "b", None, Some(3), "r")],
            vec![nothing.clone(), rule(true, "c", Some(99), None, "r")],
            vec![nothing.clone(), rule(true, "c", Some(250), None, "r")],
        ] {
            assert_eq!(shown(&rules, Version::V2), Ok(("auto".into(), vec![])), "{rules:?}");
            let error = shown(&rules, Version::V1).unwrap_err();
            assert!(error.starts_with("linux.resources.devices: systemd has no words for"), "{rules:?}: {error}");
        }
        assert!(of_rules(&[rule(true, "x", None, None, "r")], Version::V2, KNOWN).is_err());
    }
}
