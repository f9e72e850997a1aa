//! `linux.namespaces`: which the container gets anew, and the names that live in one of them.

use anyhow::{Context, Result, bail, ensure};

use super::Namespace;
use super::spec::{self, given};

/// By the spec's names. A type that is not listed is shared with the host.
const TYPES: [(&str, Namespace); 8] = [
    ("user", Namespace::User),
    ("pid", Namespace::Pid),
    ("network", Namespace::Network),
    ("mount", Namespace::Mount),
    ("ipc", Namespace::Ipc),
    ("uts", Namespace::Uts),
    ("cgroup", Namespace::Cgroup),
    ("time", Namespace::Time),
];

/// Every type that a config may ask for, by the spec's words, sorted.
pub fn all_types() -> Vec<&'static str> {
    let mut types: Vec<_> = TYPES.iter().map(|(name, _)| *name).collect();
    types.sort_unstable();
    types
}

pub fn plan(namespaces: &[spec::linux::Namespace]) -> Result<Vec<Namespace>> {
    let mut planned = Vec::with_capacity(namespaces.len());
    for (index, namespace) in namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let kind = given(&namespace.kind).with_context(|| format!("{field}.type: missing"))?;
        let Some((_, kind)) = TYPES.iter().find(|(name, _)| *name == kind) else {
            bail!("{field}.type: {kind} is no namespace; use one of {}", all_types().join(", "));
        };
        if let Some(path) = given(&namespace.path) {
            return Err(spec::not_yet(format_args!("{field}.path: {path}")));
        }
        ensure!(!planned.contains(kind), "{field}.type: {} is listed twice; keep one", name(*kind));
        planned.push(*kind);
    }
    planned.sort_unstable();
    Ok(planned)
}

pub fn name(kind: Namespace) -> &'static str {
    TYPES.iter().find(|(_, one)| *one == kind).map_or("", |(name, _)| name)
}

/// The kernel's limit for both names (__NEW_UTS_LEN).
const NAME_MAX: usize = 64;

/// `hostname` or `domainname`: both belong to the uts namespace, and the host's must not change.
pub fn uts_name(field: &str, name: &Option<String>, namespaces: &[Namespace]) -> Result<Option<String>> {
    let Some(name) = given(name) else { return Ok(None) };
    ensure!(
        namespaces.contains(&Namespace::Uts),
        "{field}: needs a new uts namespace, else {name} would be the host's; add one to linux.namespaces"
    );
    ensure!(name.len() <= NAME_MAX, "{field}: {name} has {} bytes; at most {NAME_MAX} are possible", name.len());
    Ok(Some(name.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<Vec<Namespace>> {
        plan(&spec::document::read::<spec::List<_>>(json.as_bytes())?)
    }

    #[test]
    fn every_namespace_is_listed_once() {
        let planned = plan_of(r#"[{"type":"uts","path":""},{"type":"time"},{"type":"pid","path":null}]"#).unwrap();
        assert_eq!(planned, [Namespace::Pid, Namespace::Uts, Namespace::Time]);
        for (namespaces, want) in [
            (r#"[{"type":"pid"},{"type":"pid"}]"#, "linux.namespaces[1].type: pid is listed twice"),
            (r#"[{"type":"net"}]"#, "linux.namespaces[0].type: net is no namespace; use one of cgroup, ipc, mount"),
            (r#"[{"path":"/x"}]"#, "linux.namespaces[0].type: missing"),
            (r#"[{"type":""}]"#, "linux.namespaces[0].type: missing"),
            (r#"[{"type":"ipc","path":"/proc/7/ns/ipc"}]"#, "linux.namespaces[0].path: /proc/7/ns/ipc: this version"),
        ] {
            let error = plan_of(namespaces).unwrap_err().to_string();
            assert!(error.starts_with(want), "{namespaces}: {error}");
        }
    }

    #[test]
    fn a_name_needs_its_namespace_and_fits_the_kernel() {
        let long = "x".repeat(65);
        for (name, namespaces, want) in [
            (Some("box"), &[Namespace::Uts][..], Ok(Some("box"))),
            (Some(""), &[], Ok(None)),
            (None, &[], Ok(None)),
            (Some(&long[1..]), &[Namespace::Uts], Ok(Some(&long[1..]))),
            (Some(&long), &[Namespace::Uts], Err("has 65 bytes")),
            (Some("box"), &[Namespace::Pid], Err("hostname: needs a new uts namespace")),
        ] {
            let got = uts_name("hostname", &name.map(String::from), namespaces);
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got.as_deref(), want, "{name:?}"),
                (Err(got), Err(want)) => assert!(got.to_string().contains(want), "{name:?}: {got}"),
                (got, want) => panic!("{name:?}: {got:?}, wanted {want:?}"),
            }
        }
    }
}
