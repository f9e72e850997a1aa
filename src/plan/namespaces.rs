//! `linux.namespaces`: which the container gets anew and which it is put into, and the names that live in one of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::problems::Problems;
use super::spec::{self, given};
use super::{JoinPlan, Namespace};
use crate::sys::namespace::CLONE_NEWTIME;

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

impl Namespace {
    /// What makes one, and tells setns(2) which is meant.
    pub fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Network => CloneFlags::CLONE_NEWNET,
            Self::Mount => CloneFlags::CLONE_NEWNS,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            Self::Time => CLONE_NEWTIME,
        }
    }

    /// Its file in /proc/PID/ns.
    pub fn file(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Mount => "mnt",
            other => name(other),
        }
    }
}

/// The new ones, and those to be joined. One that something is wrong with counts as new, if it has a type: what asks for
/// such a namespace is not wrong too.
pub fn plan(namespaces: &[spec::linux::Namespace], problems: &mut Problems) -> (Vec<Namespace>, Vec<JoinPlan>) {
    let mut planned = Vec::with_capacity(namespaces.len());
    let mut joined: Vec<JoinPlan> = Vec::new();
    for (index, namespace) in namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let Some(kind) = problems.ok(kind_of(&field, namespace)) else { continue };
        if planned.contains(&kind) || joined.iter().any(|join| join.kind == kind) {
            problems.ok::<()>(Err(anyhow!("{field}.type: {} is listed twice; keep one", name(kind))));
            continue;
        }
        match given(&namespace.path) {
            Some(path) if path.starts_with('/') => {
                joined.push(JoinPlan { field: format!("{field}.path"), kind, path: PathBuf::from(path) });
                continue;
            }
            Some(path) => {
                problems.ok::<()>(Err(anyhow!("{field}.path: {path} is not absolute; write it from /")));
            }
            None => {}
        }
        planned.push(kind);
    }
    planned.sort_unstable();
    joined.sort_unstable_by_key(|join| join.kind);
    (planned, joined)
}

fn kind_of(field: &str, namespace: &spec::linux::Namespace) -> Result<Namespace> {
    let kind = given(&namespace.kind).with_context(|| format!("{field}.type: missing"))?;
    match TYPES.iter().find(|(name, _)| *name == kind) {
        Some((_, kind)) => Ok(*kind),
        None => bail!("{field}.type: {kind} is no namespace; use one of {}", all_types().join(", ")),
    }
}

/// Where all namespaces of a process are, by the kernel's words (CLONE_NEWNET → `NEWNET`).
pub fn paths(pid: Pid) -> BTreeMap<String, PathBuf> {
    const WORDS: [(&str, &str); 8] = [
        ("NEWCGROUP", "cgroup"),
        ("NEWIPC", "ipc"),
        ("NEWNET", "net"),
        ("NEWNS", "mnt"),
        ("NEWPID", "pid"),
        ("NEWTIME", "time"),
        ("NEWUSER", "user"),
        ("NEWUTS", "uts"),
    ];
    WORDS.iter().map(|(word, file)| (word.to_string(), PathBuf::from(format!("/proc/{pid}/ns/{file}")))).collect()
}

pub fn by_flag(flag: CloneFlags) -> Option<Namespace> {
    TYPES.iter().map(|(_, kind)| *kind).find(|kind| kind.flag() == flag)
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

    fn plan_of(json: &str) -> Result<(Vec<Namespace>, Vec<JoinPlan>)> {
        let mut problems = Problems::default();
        let planned = plan(&spec::document::read::<spec::List<_>>(json.as_bytes())?, &mut problems);
        problems.result(planned)
    }

    #[test]
    fn a_path_is_kept_with_its_place() {
        let json = r#"[{"type":"uts","path":"/u"},{"type":"mount"},{"type":"pid","path":"/proc/7/ns/pid"}]"#;
        let (new, joined) = plan_of(json).unwrap();
        assert_eq!(new, [Namespace::Mount]);
        let join = |field: &str, kind, path: &str| JoinPlan { field: field.into(), kind, path: path.into() };
        let want = [
            join("linux.namespaces[2].path", Namespace::Pid, "/proc/7/ns/pid"),
            join("linux.namespaces[0].path", Namespace::Uts, "/u"),
        ];
        assert_eq!(joined, want);
    }

    #[test]
    fn every_namespace_is_listed_once() {
        let planned = plan_of(r#"[{"type":"uts","path":""},{"type":"time"},{"type":"pid","path":null}]"#).unwrap();
        assert_eq!(planned, (vec![Namespace::Pid, Namespace::Uts, Namespace::Time], vec![]));
        for (namespaces, want) in [
            (r#"[{"type":"pid"},{"type":"pid"}]"#, "linux.namespaces[1].type: pid is listed twice"),
            (r#"[{"type":"net"}]"#, "linux.namespaces[0].type: net is no namespace; use one of cgroup, ipc, mount"),
            (r#"[{"path":"/x"}]"#, "linux.namespaces[0].type: missing"),
            (r#"[{"type":""}]"#, "linux.namespaces[0].type: missing"),
            (r#"[{"type":"ipc","path":"/x"},{"type":"ipc"}]"#, "linux.namespaces[1].type: ipc is listed twice"),
            (r#"[{"type":"ipc"},{"type":"ipc","path":"/x"}]"#, "linux.namespaces[1].type: ipc is listed twice"),
            (r#"[{"type":"ipc","path":"proc/7/ns/ipc"}]"#, "linux.namespaces[0].path: proc/7/ns/ipc is not absolute"),
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
