//! `linux.cgroupsPath` where systemd owns the cgroups: `slice:prefix:name` → the unit that it makes, and where that
//! unit's cgroup lies below the manager's own. Pure; whether such a unit can be had, systemd says.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::annotations::SUBGROUP;
use super::cgroup_paths::LONGEST_NAME;

/// Who makes a container's cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupManager {
    /// rrun itself, by directories.
    #[default]
    Cgroupfs,
    Systemd,
    /// None are made: the container stays in rrun's own.
    Disabled,
}

impl CgroupManager {
    pub const ALL: [(&str, Self); 3] =
        [("cgroupfs", Self::Cgroupfs), ("systemd", Self::Systemd), ("disabled", Self::Disabled)];
}

/// A scope, or a slice that is the container's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// With its type: `rrun-c1.scope`.
    pub name: String,
    /// The slice that it is put into.
    pub slice: String,
    /// A cgroup below its own, in which the container is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subgroup: Option<String>,
}

const FIELD: &str = "linux.cgroupsPath";
const SCOPE: &str = ".scope";
const SLICE: &str = ".slice";
/// UNIT_NAME_MAX of systemd.
const LONGEST: usize = 255;

impl Unit {
    /// Whoever runs it in a manager of his own has no system.slice.
    pub fn new(id: &str, given: Option<&str>, of_user: bool) -> Result<Self> {
        let usual = if of_user { "user.slice" } else { "system.slice" };
        let Some(given) = given else {
            // the one letter of an id that no unit's name may have, as systemd-escape(1) writes it
            let name = format!("rrun-{}{SCOPE}", id.replace('+', "\\x2b"));
            check_name(&name)?;
            return Ok(Self { name, slice: usual.into(), subgroup: None });
        };
        let parts: Vec<&str> = given.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            bail!(
                "{FIELD}: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \
                 \"{given}\" instead"
            );
        };
        ensure!(!name.is_empty(), "{FIELD}: {given} names no unit; write slice:prefix:name");
        let slice = if slice.is_empty() { usual } else { slice };
        expand(slice)?;
        let name = match (name.ends_with(SLICE), prefix) {
            (true, _) => {
                expand(name)?;
                ensure!(name != ROOT, "{FIELD}: {name} is the slice above all others; name one below it");
                name.to_string()
            }
            (false, "") => format!("{name}{SCOPE}"),
            (false, prefix) => format!("{prefix}-{name}{SCOPE}"),
        };
        check_name(&name)?;
        Ok(Self { name, slice: slice.into(), subgroup: None })
    }

    /// What lies below a scope systemd leaves to whoever asked for it, which it does not below a slice.
    pub fn with_subgroup(self, name: Option<&str>) -> Result<Self> {
        let Some(name) = name else { return Ok(self) };
        let field = || format!("annotations.{SUBGROUP}");
        let plain = !matches!(name, "." | "..") && !name.contains(['/', '\0', '\n']);
        ensure!(plain, "{}: {} is no name of one cgroup", field(), name.escape_default());
        ensure!(
            name.len() <= LONGEST_NAME,
            "{}: has {} bytes; the kernel takes at most {LONGEST_NAME}",
            field(),
            name.len()
        );
        ensure!(!self.is_slice(), "{}: {name}: {} is a slice; name a scope, or leave this out", field(), self.name);
        Ok(Self { subgroup: Some(name.into()), ..self })
    }

    pub fn is_slice(&self) -> bool {
        self.name.ends_with(SLICE)
    }

    /// The container's, below the cgroup of its manager. A slice lies where its own name says.
    pub fn cgroup(&self) -> Result<PathBuf> {
        let own = match self.is_slice() {
            true => expand(&self.name)?,
            false => expand(&self.slice)?.join(&self.name),
        };
        Ok(self.subgroup.iter().fold(own, |own, name| own.join(name)))
    }
}

/// The slice that holds all.
const ROOT: &str = "-.slice";

/// Each dash is a level: `a-b.slice` is `a.slice/a-b.slice`, systemd.slice(5).
fn expand(slice: &str) -> Result<PathBuf> {
    if slice == ROOT {
        return Ok(PathBuf::new());
    }
    let Some(stem) = slice.strip_suffix(SLICE) else {
        bail!("{FIELD}: {slice} is no slice; its name must end in {SLICE}");
    };
    ensure!(!slice.contains('/'), "{FIELD}: {slice} is a path; write the last name alone, which says where it is");
    ensure!(
        stem.split('-').all(|part| !part.is_empty()),
        "{FIELD}: {slice} has an empty part; write names with single dashes between them"
    );
    check_name(slice)?;
    let dashes = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    Ok(dashes.map(|at| format!("{}{SLICE}", &stem[..at])).collect())
}

/// VALID_CHARS of systemd's basic/unit-name.c.
fn check_name(name: &str) -> Result<()> {
    let valid = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    if let Some(bad) = name.chars().find(|c| !valid(*c)) {
        bail!("{FIELD}: {name} cannot be a unit of systemd: {} is no letter of such names", bad.escape_default());
    }
    ensure!(name.len() <= LONGEST, "{FIELD}: makes a unit's name of {} bytes; systemd takes {LONGEST}", name.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Component;

    #[test]
    fn which_unit_and_where() {
        for (given, of_user, want) in [
            (Some("system.slice:docker:c1"), false, ("docker-c1.scope", "system.slice/docker-c1.scope")),
            (Some(":docker:c1"), false, ("docker-c1.scope", "system.slice/docker-c1.scope")),
            (Some(":docker:c1"), true, ("docker-c1.scope", "user.slice/docker-c1.scope")),
            (Some("system.slice::c1"), false, ("c1.scope", "system.slice/c1.scope")),
            (Some("-.slice:x:c1"), false, ("x-c1.scope", "x-c1.scope")),
            (Some("a-b-c.slice:x:c1"), false, ("x-c1.scope", "a.slice/a-b.slice/a-b-c.slice/x-c1.scope")),
            (Some("a.slice:ignored:a-b.slice"), false, ("a-b.slice", "a.slice/a-b.slice")),
            (None, false, ("rrun-the+id.scope", "")),
            (None, true, ("rrun-the+id.scope", "")),
        ] {
            let unit = Unit::new("the+id", given, of_user).unwrap();
            let (name, path) = (want.0.replace('+', "\\x2b"), want.1);
            let path = match (path, of_user) {
                ("", false) => format!("system.slice/{name}"),
                ("", true) => format!("user.slice/{name}"),
                (path, _) => path.into(),
            };
            assert_eq!((unit.name.clone(), unit.cgroup().unwrap()), (name, path.into()), "{given:?} {of_user}");
        }
    }

    #[test]
    fn a_subgroup_is_one_name_below_a_scope() {
        let long = "x".repeat(256);
        let within = |path, name| Unit::new("c1", Some(path), false).unwrap().with_subgroup(name);
        for (name, want) in [(None, "a.slice/x-c1.scope"), (Some("pay: load"), "a.slice/x-c1.scope/pay: load")] {
            assert_eq!(within("a.slice:x:c1", name).unwrap().cgroup().unwrap(), PathBuf::from(want));
        }
        for (path, name, want) in [
            (":x:c1", "a/b", "a/b is no name of one cgroup"),
            (":x:c1", "/a", "/a is no name of one cgroup"),
            (":x:c1", ".", ". is no name of one cgroup"),
            (":x:c1", "..", ".. is no name of one cgroup"),
            (":x:c1", "a\nb", "a\\nb is no name of one cgroup"),
            (":x:c1", &long, "has 256 bytes; the kernel takes at most 255"),
            ("::a-b.slice", "sub", "sub: a-b.slice is a slice; name a scope"),
        ] {
            let error = within(path, Some(name)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("annotations.run.oci.systemd.subgroup: {want}")), "{error}");
        }
    }

    #[test]
    fn bad_paths_are_refused() {
        let long = format!("system.slice:x:{}", "y".repeat(250));
        for (given, says) in [
            ("/a/b", "of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead"),
            ("a.slice:b", "of format"),
            ("a.slice:b:c:d", "of format"),
            ("a.slice:b:", "names no unit"),
            ("a:b:c", "a is no slice"),
            ("a/b.slice:b:c", "is a path"),
            ("-a.slice:b:c", "has an empty part"),
            ("a-.slice:b:c", "has an empty part"),
            ("a--b.slice:b:c", "has an empty part"),
            (".slice:b:c", "has an empty part"),
            ("a.slice:b:-.slice", "is the slice above all others"),
            ("a.slice:b:c/d", "/ is no letter"),
            ("a.slice:b:c\nd", "\\n is no letter"),
            ("a.slice:b:c+d", "+ is no letter"),
            (&long, "a unit's name of 258 bytes"),
        ] {
            let error = Unit::new("id", Some(given), false).unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: ") && error.contains(says), "{given:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_path_leads_out_of_the_manager(given in "(a|b|-|:|/|\\.|\\.\\.|\\.slice){1,16}") {
            let Ok(unit) = Unit::new("id", Some(&given), false) else { return Ok(()) };
            let path = unit.cgroup().unwrap();
            prop_assert!(path.components().all(|c| matches!(c, Component::Normal(_))), "{given}: {}", path.display());
            prop_assert_eq!(path.file_name().unwrap().to_str(), Some(unit.name.as_str()));
        }
    }
}
