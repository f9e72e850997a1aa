//! `hooks` of config.json: which programs are run beside the container's own, with what, and what they are told. Pure;
//! when each kind runs is decided where its moment is (src/lifecycle/hooks.rs, src/init/hooks.rs).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::problems::Problems;
use super::spec::{self, Spec, given};
use crate::OCI_VERSION;

/// In the order in which a container meets them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hooks {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Where it stands, for errors: `hooks.poststop[1]`.
    pub field: String,
    pub path: String,
    /// With `args[0]`.
    pub args: Vec<String>,
    /// Absent: what rrun itself was called with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

impl Hook {
    /// What is said first when it fails: callers look for its kind and number in these words.
    pub fn failed(&self) -> String {
        let place = self.field.trim_start_matches("hooks.").trim_end_matches(']');
        let (kind, number) = place.split_once('[').unwrap_or((place, "0"));
        format!("error running {kind} hook #{number}: {}", self.field)
    }
}

impl Hooks {
    /// Every kind by the spec's name for it.
    pub fn by_kind(&self) -> [(&'static str, &[Hook]); 6] {
        [
            ("prestart", &self.prestart),
            ("createRuntime", &self.create_runtime),
            ("createContainer", &self.create_container),
            ("startContainer", &self.start_container),
            ("poststart", &self.poststart),
            ("poststop", &self.poststop),
        ]
    }

    /// The kinds that there are hooks of.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.by_kind().into_iter().filter(|(_, hooks)| !hooks.is_empty()).map(|(kind, _)| kind)
    }

    pub fn is_empty(&self) -> bool {
        self.kinds().next().is_none()
    }

    /// Any that runs before `create` returns.
    pub fn at_create(&self) -> bool {
        [&self.prestart, &self.create_runtime, &self.create_container].iter().any(|hooks| !hooks.is_empty())
    }
}

/// Files of the host that take what hooks write. They are kept in the record: what was permitted at create stays so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputPaths {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<PathBuf>,
}

impl OutputPaths {
    pub fn is_empty(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }
}

/// A hook without `env` gets rrun's own environment, if it belongs to the host; at the start it gets the program's. One
/// that runs inside as root gets none, as the image's could name a library to load (CVE-2025-23266).
pub fn plan(spec: &Spec) -> Result<Hooks> {
    let mut problems = Problems::default();
    let planned = draft(spec, &mut problems);
    problems.result(planned)
}

/// As `plan`, without those that something is wrong with.
pub fn draft(spec: &Spec, problems: &mut Problems) -> Hooks {
    let Some(hooks) = &spec.hooks else { return Hooks::default() };
    let mut list = |kind: &str, hooks: &[spec::Hook], default_env: Option<&[String]>| {
        let numbered = hooks.iter().enumerate();
        problems.each(numbered.map(|(index, hook)| one(format!("hooks.{kind}[{index}]"), hook, default_env)))
    };
    Hooks {
        prestart: list("prestart", &hooks.prestart, None),
        create_runtime: list("createRuntime", &hooks.create_runtime, None),
        create_container: list("createContainer", &hooks.create_container, Some(&[])),
        start_container: list("startContainer", &hooks.start_container, None),
        poststart: list("poststart", &hooks.poststart, None),
        poststop: list("poststop", &hooks.poststop, None),
    }
}

fn one(field: String, hook: &spec::Hook, default_env: Option<&[String]>) -> Result<Hook> {
    let path = given(&hook.path).with_context(|| format!("{field}.path: missing; add the program to run"))?;
    ensure!(path.starts_with('/'), "{field}.path: {path} is not absolute; write it from /");
    for (index, entry) in hook.env.iter().flatten().enumerate() {
        ensure!(entry.contains('='), "{field}.env[{index}]: {entry} has no =; write NAME=VALUE");
    }
    let timeout = hook.timeout.map(|seconds| u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).ok_or(seconds));
    let timeout_seconds = timeout.transpose().map_err(|seconds| {
        anyhow!("{field}.timeout: {seconds} is not above 0; write it in seconds, or leave it out for no limit")
    })?;
    let args = hook.args.clone().filter(|args| !args.is_empty());
    Ok(Hook {
        path: path.into(),
        args: args.unwrap_or_else(|| vec![path.into()]),
        env: hook.env.as_deref().or(default_env).map(<[String]>::to_vec),
        timeout_seconds,
        field,
    })
}

/// How long whoever waits for all of `hooks` has to wait at most: `None` where one of them may take for ever.
pub fn patience(base: Duration, hooks: &[Hook]) -> Option<Duration> {
    hooks.iter().try_fold(base, |sum, hook| sum.checked_add(Duration::from_secs(hook.timeout_seconds?)))
}

/// What a hook reads on its stdin: runtime.md, "State". `pid` is as the hook sees it; none after the end.
pub fn state(
    id: &str,
    status: &str,
    pid: Option<i32>,
    bundle: &Path,
    annotations: &BTreeMap<String, String>,
) -> Result<String> {
    Ok(serde_json::to_string(&State { oci_version: OCI_VERSION, id, status, pid, bundle, annotations })?)
}

/// As runtime.md has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    pub oci_version: &'static str,
    pub id: &'a str,
    pub status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    pub bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: &'a BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn planned(hooks: Value) -> Result<Hooks> {
        let config = json!({ "hooks": hooks, "process": {"env": ["A=image"]} }).to_string();
        plan(&Spec::parse(config.as_bytes()).unwrap())
    }

    fn everywhere(hook: Value) -> Value {
        let kinds = Hooks::default().by_kind().map(|(kind, _)| (kind.to_string(), json!([hook])));
        Value::Object(kinds.into_iter().collect())
    }

    #[test]
    fn what_a_hook_that_says_little_gets() {
        let hooks = planned(everywhere(json!({"path": "/h"}))).unwrap();
        for (kind, list) in hooks.by_kind() {
            let env = match kind {
                "createContainer" => Some(vec![]),
                _ => None,
            };
            let field = format!("hooks.{kind}[0]");
            let failed = format!("error running {kind} hook #0: {field}");
            let want = Hook { field, path: "/h".into(), args: vec!["/h".into()], env, timeout_seconds: None };
            assert_eq!(list, [want]);
            assert_eq!(list[0].failed(), failed);
        }
    }

    #[test]
    fn what_it_says_is_taken_as_it_stands() {
        let hook = json!({"path": "/h", "args": ["name", ""], "env": ["B=", "B=2", "=3"], "timeout": 7});
        for (kind, list) in planned(everywhere(hook)).unwrap().by_kind() {
            let strings = |strings: &[&str]| strings.iter().map(|s| s.to_string()).collect::<Vec<_>>();
            assert_eq!(list[0].args, strings(&["name", ""]), "{kind}");
            assert_eq!(list[0].env, Some(strings(&["B=", "B=2", "=3"])), "{kind}");
            assert_eq!(list[0].timeout_seconds, Some(7), "{kind}");
        }
        let none = planned(everywhere(json!({"path": "/h", "args": [], "env": []}))).unwrap();
        assert_eq!(none.prestart[0].args, ["/h"]);
        assert_eq!(none.start_container[0].env, Some(vec![]), "an empty list is not an absent one");
    }

    #[test]
    fn a_bad_value_is_named_with_its_path() {
        for (hook, want) in [
            (json!({}), "path: missing"),
            (json!({"path": ""}), "path: missing"),
            (json!({"path": "bin/h"}), "path: bin/h is not absolute"),
            (json!({"path": "/h", "timeout": 0}), "timeout: 0 is not above 0"),
            (json!({"path": "/h", "timeout": -3}), "timeout: -3 is not above 0"),
            (json!({"path": "/h", "env": ["A=1", "B"]}), "env[1]: B has no ="),
        ] {
            for (kind, _) in Hooks::default().by_kind() {
                let error = planned(json!({kind: [{"path": "/fine"}, hook]})).unwrap_err().to_string();
                assert!(error.starts_with(&format!("hooks.{kind}[1].{want}")), "{error}");
            }
        }
    }

    #[test]
    fn only_kinds_with_hooks_count() {
        for (hooks, kinds, at_create) in [
            (json!(null), vec![], false),
            (json!({"prestart": [], "poststop": null}), vec![], false),
            (json!({"poststop": [{"path": "/h"}], "prestart": [{"path": "/h"}]}), vec!["prestart", "poststop"], true),
            (json!({"createContainer": [{"path": "/h"}]}), vec!["createContainer"], true),
            (json!({"startContainer": [{"path": "/h"}]}), vec!["startContainer"], false),
        ] {
            let planned = planned(hooks).unwrap();
            assert_eq!(planned.kinds().collect::<Vec<_>>(), kinds);
            assert_eq!((planned.is_empty(), planned.at_create()), (kinds.is_empty(), at_create));
        }
    }

    #[test]
    fn the_wait_is_as_long_as_the_hooks_may_take() {
        let hook = |timeout: Value| json!({"path": "/h", "timeout": timeout});
        for (timeouts, want) in [
            (vec![], Some(10)),
            (vec![json!(1), json!(30)], Some(41)),
            (vec![json!(1), json!(null)], None),
            (vec![json!(i64::MAX), json!(i64::MAX), json!(9)], None),
        ] {
            let list = json!({"poststop": timeouts.iter().map(|t| hook(t.clone())).collect::<Vec<_>>()});
            let got = patience(Duration::from_secs(10), &planned(list).unwrap().poststop);
            assert_eq!(got, want.map(Duration::from_secs), "{timeouts:?}");
        }
    }

    #[test]
    fn the_state_leaves_out_what_there_is_not() {
        let (mut annotations, bundle) = (BTreeMap::new(), Path::new("/b"));
        assert_eq!(
            state("c1", "stopped", None, bundle, &annotations).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"c1","status":"stopped","bundle":"/b"}"#
        );
        annotations.insert("a".into(), "\"\n".into());
        assert_eq!(
            state("c1", "creating", Some(7), bundle, &annotations).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"c1","status":"creating","pid":7,"bundle":"/b","annotations":{"a":"\"\n"}}"#
        );
    }
}
