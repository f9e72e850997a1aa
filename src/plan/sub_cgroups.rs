//! `--cgroup [CONTROLLER[,CONTROLLER]:]PATH` of `exec`: cgroups below the container's own. Pure.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};

/// Where a process goes instead of the container's own cgroups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SubCgroups {
    everywhere: Option<PathBuf>,
    by_controller: Vec<(String, PathBuf)>,
}

impl SubCgroups {
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut parsed = Self::default();
        let mut alone = true;
        for (index, word) in words.into_iter().enumerate() {
            alone &= index == 0;
            match word.split_once(':').filter(|_| !word.starts_with('/')) {
                None => parsed.everywhere = Some(below(word, word)?),
                Some((controllers, path)) => {
                    let path = below(word, path)?;
                    for controller in controllers.split(',') {
                        ensure!(!controller.is_empty(), "--cgroup: {word} has an empty controller name");
                        let twice = parsed.by_controller.iter().any(|(other, _)| other == controller);
                        ensure!(!twice, "--cgroup: {controller} is given twice; keep one");
                        parsed.by_controller.push((controller.into(), path.clone()));
                    }
                }
            }
        }
        if let (Some(path), false) = (&parsed.everywhere, alone) {
            bail!("--cgroup: {} is for every controller, so it stands alone", path.display());
        }
        Ok(parsed)
    }

    /// The path in the hierarchy of these controllers; the v2 tree has none.
    pub fn in_hierarchy(&self, controllers: &[&str]) -> Option<&Path> {
        let named = self.by_controller.iter().find(|(name, _)| controllers.contains(&name.as_str()));
        named.map(|(_, path)| path.as_path()).or(self.everywhere.as_deref())
    }

    /// Controllers that were named.
    pub fn controllers(&self) -> impl Iterator<Item = &str> {
        self.by_controller.iter().map(|(name, _)| name.as_str())
    }
}

/// Relative, without `.`; never further up.
fn below(word: &str, path: &str) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("--cgroup: bad sub cgroup path: {word} leads out of the container's cgroup; name one below it")
            }
        }
    }
    Ok(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_for_all_hierarchies_or_for_those_of_named_controllers() {
        for (words, controllers, want) in [
            (&["a/b"][..], &["cpu"][..], Some("a/b")),
            (&["/a/./b/"], &[""], Some("a/b")),
            (&["/a:b"], &["cpu"], Some("a:b")),
            (&["/"], &["cpu"], Some("")),
            (&["cpu:a", "memory,pids:/b"], &["cpu", "cpuacct"], Some("a")),
            (&["cpu:a", "memory,pids:/b"], &["pids"], Some("b")),
            (&["cpu:a", "memory,pids:/b"], &["freezer"], None),
            (&["name=systemd:a:b"], &["name=systemd"], Some("a:b")),
            (&[], &["cpu"], None),
        ] {
            let parsed = SubCgroups::parse(words.iter().copied()).unwrap();
            assert_eq!(parsed.in_hierarchy(controllers), want.map(Path::new), "{words:?} {controllers:?}");
        }
    }

    #[test]
    fn what_leads_out_or_contradicts_itself_is_refused() {
        for (words, want) in [
            (&["../a"][..], "--cgroup: bad sub cgroup path: ../a leads out of the container's cgroup"),
            (&["cpu:a/../../b"], "--cgroup: bad sub cgroup path: cpu:a/../../b leads out"),
            (&["a", "b"], "--cgroup: b is for every controller"),
            (&["cpu:a", "b"], "--cgroup: b is for every controller"),
            (&["b", "cpu:a"], "--cgroup: b is for every controller"),
            (&["cpu:a", "memory,cpu:b"], "--cgroup: cpu is given twice"),
            (&[":a"], "--cgroup: :a has an empty controller name"),
            (&["cpu,:a"], "--cgroup: cpu,:a has an empty controller name"),
        ] {
            let error = SubCgroups::parse(words.iter().copied()).unwrap_err().to_string();
            assert!(error.starts_with(want), "{words:?}: {error}");
        }
    }
}
