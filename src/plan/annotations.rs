//! Annotations that crun's users write, under its names: what they mean is written into the spec before it is planned, so
//! that `create` and `exec` have the same. Makes no system call. All others are passed on and not looked at.
//!
//! Who writes annotations is often not who decides about the host: a pod's author is not the cluster's. So what gives a
//! container rights beyond its config is refused, unless root has permitted it, or rrun's user has no rights to give.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};

use super::hooks::OutputPaths;
use super::seccomp::raw;
use super::spec::Spec;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    /// Takes rights away, or says how the config is meant.
    Harmless,
    /// Leaves more to the container, or reaches out of it.
    NeedsPermission,
}

/// Read by `checkpoint` and `restore` alone: a file of settings for CRIU.
pub const CRIU_CONFIG: &str = "org.criu.config";
pub const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
pub const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
const MOUNT_CONTEXT: &str = "run.oci.mount_context_type";
const PIDFD_RECEIVER: &str = "run.oci.pidfd_receiver";
/// Replaces the rules by a filter that is written as bytes.
const SECCOMP_BPF: &str = "run.oci.seccomp_bpf_data";
const SECCOMP_RECEIVER: &str = "run.oci.seccomp.receiver";
const SECCOMP_FAIL_UNKNOWN: &str = "run.oci.seccomp_fail_unknown_syscall";
/// The name of a cgroup below that of the container's unit.
pub const SUBGROUP: &str = "run.oci.systemd.subgroup";

const KNOWN: [(&str, Power); 9] = [
    (HOOKS_STDERR, Power::NeedsPermission),
    (HOOKS_STDOUT, Power::NeedsPermission),
    (KEEP_GROUPS, Power::NeedsPermission),
    (MOUNT_CONTEXT, Power::Harmless),
    (PIDFD_RECEIVER, Power::NeedsPermission),
    (SECCOMP_BPF, Power::NeedsPermission),
    (SECCOMP_RECEIVER, Power::NeedsPermission),
    (SECCOMP_FAIL_UNKNOWN, Power::Harmless),
    (SUBGROUP, Power::Harmless),
];

/// Those of crun's that whoever writes them would wait for in vain, and what there is instead.
const LEFT_OUT: [(&str, &str); 3] = [
    ("run.oci.delegate-cgroup", "what is delegated to a container is its own cgroup, and none below it is made"),
    ("run.oci.systemd.force_cgroup_v1", "a container gets the hierarchies that the host has, and no other is mounted"),
    (SUBGROUP, "only below a unit of systemd's, by --systemd-cgroup, is such a cgroup made"),
];

/// A name that nobody has looked at yet.
pub fn subgroup(annotations: &BTreeMap<String, String>) -> Option<&str> {
    annotations.get(SUBGROUP).map(String::as_str).filter(|name| !name.is_empty())
}

/// Warnings, of a container that has a unit of systemd's or has none.
pub fn left_out(annotations: &BTreeMap<String, String>, has_unit: bool) -> impl Iterator<Item = String> {
    let given = |name: &str| annotations.get(name).filter(|text| !text.is_empty());
    let missed = LEFT_OUT.into_iter().filter(move |(name, _)| !has_unit || *name != SUBGROUP);
    missed.filter_map(move |(name, instead)| {
        given(name).map(|text| format!("annotations.{name}: {text}: {instead}; left out"))
    })
}

/// Names, for `features`.
pub fn known() -> impl Iterator<Item = &'static str> {
    KNOWN.into_iter().map(|(name, _)| name).chain([CRIU_CONFIG])
}

/// What is not a matter of the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotated {
    /// A socket that gets a pidfd of init.
    pub pidfd_receiver: Option<PathBuf>,
    pub hook_output: OutputPaths,
}

/// `permitted` gives the list of root's, one name a line, and says where it is; it is asked for only when it matters.
pub fn apply(spec: &mut Spec, rootless: bool, permitted: impl FnOnce() -> Result<String>) -> Result<Annotated> {
    let given = |name: &str| spec.annotations.get(name).filter(|text| !text.is_empty()).cloned();
    let needing = |power: &Power| *power == Power::NeedsPermission && !rootless;
    let guarded: Vec<_> = KNOWN.iter().filter(|(name, power)| needing(power) && given(name).is_some()).collect();
    if !guarded.is_empty() {
        let list = permitted()?;
        for (name, _) in guarded {
            ensure!(
                list.lines().any(|line| line.trim() == *name),
                "annotations.{name}: gives the container more than its config says; root may permit it by a line {name} in \
                 {PERMITTED}"
            );
        }
    }
    let flag = |name: &str| given(name).map(|text| is_on(name, &text)).transpose().map(|on| on == Some(true));
    let (keep_groups, fail_unknown) = (flag(KEEP_GROUPS)?, flag(SECCOMP_FAIL_UNKNOWN)?);
    let path_of = |name: &str| given(name).map(|text| path(name, &text)).transpose();
    let (receiver, pidfd_receiver) = (path_of(SECCOMP_RECEIVER)?, path_of(PIDFD_RECEIVER)?);
    let (stdout, stderr) = (path_of(HOOKS_STDOUT)?, path_of(HOOKS_STDERR)?);
    let context = given(MOUNT_CONTEXT);
    let program = |text: String| raw::decode(&text).with_context(|| format!("annotations.{SECCOMP_BPF}"));
    if let Some(program) = given(SECCOMP_BPF).map(program).transpose()? {
        spec.linux.get_or_insert_default().seccomp.get_or_insert_default().program = Some(program);
    }
    if let Some(process) = &mut spec.process {
        process.keep_groups = keep_groups;
    }
    if let Some(linux) = &mut spec.linux {
        linux.mount_context = context;
        if let Some(seccomp) = &mut linux.seccomp {
            seccomp.fail_unknown = fail_unknown;
            let own = seccomp.listener_path.take().filter(|path| !path.is_empty());
            seccomp.listener_path = own.or(receiver);
        }
    }
    let hook_output = OutputPaths { stdout: stdout.map(PathBuf::from), stderr: stderr.map(PathBuf::from) };
    Ok(Annotated { pidfd_receiver: pidfd_receiver.map(PathBuf::from), hook_output })
}

/// Root's list.
pub const PERMITTED: &str = "/etc/rrun/annotations";

fn is_on(name: &str, text: &str) -> Result<bool> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => bail!("annotations.{name}: {text} is neither 1 nor 0"),
    }
}

fn path(name: &str, text: &str) -> Result<String> {
    Some(text)
        .filter(|path| path.starts_with('/'))
        .map(String::from)
        .with_context(|| format!("annotations.{name}: {text} is not absolute; write the path from /"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(annotations: Value) -> Spec {
        let config = json!({
            "annotations": annotations, "process": {"args": ["x"], "cwd": "/"},
            "linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}
        });
        Spec::parse(config.to_string().as_bytes()).unwrap()
    }

    fn never() -> Result<String> {
        panic!("root's list is looked at for nothing")
    }

    #[test]
    fn what_is_unknown_or_harmless_needs_no_permission() {
        for annotations in [
            json!({"a": "b", "run.oci.handler": "krun", "org.systemd.property.X": "1"}),
            json!({KEEP_GROUPS: ""}),
            json!({SECCOMP_FAIL_UNKNOWN: "1", MOUNT_CONTEXT: "fscontext"}),
        ] {
            let mut spec = spec(annotations.clone());
            assert_eq!(apply(&mut spec, false, never).unwrap(), Annotated::default());
            let linux = spec.linux.unwrap();
            let fail_unknown = annotations[SECCOMP_FAIL_UNKNOWN] == "1";
            assert_eq!((linux.seccomp.unwrap().fail_unknown, spec.process.unwrap().keep_groups), (fail_unknown, false));
            assert_eq!(linux.mount_context.as_deref(), annotations[MOUNT_CONTEXT].as_str());
        }
    }

    #[test]
    fn what_weakens_a_container_needs_a_line_of_roots() {
        for (name, value) in [
            (KEEP_GROUPS, "1"),
            (SECCOMP_RECEIVER, "/run/agent"),
            (PIDFD_RECEIVER, "/run/pidfd"),
            (SECCOMP_BPF, ALLOW),
            (HOOKS_STDOUT, "/var/log/said"),
            (HOOKS_STDERR, "/var/log/told"),
        ] {
            let annotations = json!({name: value});
            for (list, rootless, want) in [
                ("", false, false),
                ("run.oci.keep\nrun.oci.\n", false, false),
                (&format!("x\n {name} \n"), false, true),
                ("", true, true),
            ] {
                let mut spec = spec(annotations.clone());
                let applied = apply(&mut spec, rootless, || Ok(list.into()));
                let told = applied.as_ref().map_or_else(|error| error.to_string(), |_| String::new());
                assert_eq!(told.is_empty(), want, "{name} {list:?} {rootless}: {told}");
                assert!(
                    want || told.starts_with(&format!("annotations.{name}: ")) && told.ends_with(PERMITTED),
                    "{told}"
                );
                let Ok(applied) = applied else { continue };
                let seccomp = spec.linux.unwrap().seccomp.unwrap();
                let (receiver, program) = (seccomp.listener_path, seccomp.program);
                let shown = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
                let got = match name {
                    KEEP_GROUPS => spec.process.unwrap().keep_groups.then(|| "1".to_string()),
                    SECCOMP_RECEIVER => receiver,
                    SECCOMP_BPF => program.map(|_| ALLOW.to_string()),
                    HOOKS_STDOUT => shown(applied.hook_output.stdout),
                    HOOKS_STDERR => shown(applied.hook_output.stderr),
                    _ => shown(applied.pidfd_receiver),
                };
                assert_eq!(got.as_deref(), Some(value));
            }
        }
    }

    #[test]
    fn a_bad_value_is_named() {
        for (name, value, want) in [
            (KEEP_GROUPS, "yes", "yes is neither 1 nor 0"),
            (SECCOMP_FAIL_UNKNOWN, "2", "2 is neither 1 nor 0"),
            (SECCOMP_RECEIVER, "agent", "agent is not absolute"),
            (PIDFD_RECEIVER, "x", "x is not absolute"),
            (SECCOMP_BPF, "AAAA", "has 3 bytes"),
            (HOOKS_STDOUT, "a/b", "a/b is not absolute"),
            (HOOKS_STDERR, "../b", "../b is not absolute"),
        ] {
            let error = format!("{:#}", apply(&mut spec(json!({name: value})), true, never).unwrap_err());
            assert!(error.starts_with(&format!("annotations.{name}: {want}")), "{error}");
        }
    }

    #[test]
    fn what_is_not_followed_is_told() {
        let told =
            |annotations: Value, has_unit| left_out(&spec(annotations).annotations, has_unit).collect::<Vec<_>>();
        let warned = |annotations: Value| told(annotations, false);
        for (name, instead) in LEFT_OUT {
            assert_eq!(warned(json!({name: "x"})), [format!("annotations.{name}: x: {instead}; left out")]);
            assert!(warned(json!({name: ""})).is_empty(), "{name}");
            assert_eq!(apply(&mut spec(json!({name: "x"})), false, never).unwrap(), Annotated::default());
            assert_eq!(told(json!({name: "x"}), true).is_empty(), name == SUBGROUP, "{name}: in a unit");
        }
        assert!(warned(json!({"run.oci.handler": "krun", KEEP_GROUPS: "1", "x": "y"})).is_empty());
    }

    /// `ret SCMP_ACT_ALLOW`
    const ALLOW: &str = "BgAAAAAA/38=";

    #[test]
    fn a_filter_as_bytes_is_there_whether_or_not_the_config_has_one() {
        for config in [json!({}), json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}})] {
            let mut config = config;
            config["annotations"] = json!({SECCOMP_BPF: ALLOW});
            let mut spec = Spec::parse(config.to_string().as_bytes()).unwrap();
            apply(&mut spec, false, || Ok(SECCOMP_BPF.into())).unwrap();
            assert_eq!(spec.linux.unwrap().seccomp.unwrap().program.unwrap().len(), 1);
        }
    }

    #[test]
    fn the_configs_own_listener_wins() {
        let mut spec = spec(json!({SECCOMP_RECEIVER: "/run/other"}));
        spec.linux.as_mut().unwrap().seccomp.as_mut().unwrap().listener_path = Some("/run/own".into());
        apply(&mut spec, true, never).unwrap();
        assert_eq!(spec.linux.unwrap().seccomp.unwrap().listener_path.as_deref(), Some("/run/own"));
    }
}
