//! `linux.resources.unified`: files of cgroup v2 by name, written verbatim after everything else. Beside v1 hierarchies
//! only what the v2 tree itself controls can be meant.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::write::Write;
use crate::host::cgroups::Unified;

/// Each write with the controller that it needs.
pub fn v2(files: &BTreeMap<String, String>, tree: Option<&Unified>) -> Result<Vec<(String, Write)>> {
    let mut writes = Vec::new();
    for (file, value) in files {
        let controller = controller_of(file)?;
        let field = format!("linux.resources.unified.{file}");
        match tree {
            None => bail!("{field}: invalid configuration: needs cgroup v2, which this host has not"),
            Some(tree) if !tree.controllers.iter().any(|own| own == controller) => {
                let known = tree.controllers.join(", ");
                bail!(
                    "{field}: invalid configuration: the cgroup v2 tree of this host has no {controller} controller; \
                     it has {known}"
                )
            }
            Some(_) => {}
        }
        let lines = value.lines().filter(|line| !line.is_empty());
        writes.extend(lines.map(|line| (controller.to_string(), Write::new(field.clone(), file.clone(), line))));
    }
    Ok(writes)
}

/// Nothing that leads elsewhere, and none of the files that kill, freeze or move processes.
fn controller_of(file: &str) -> Result<&str> {
    match file.split_once('.') {
        Some((controller, rest))
            if !controller.is_empty()
                && !rest.is_empty()
                && !file.contains(['/', '\0', '\n'])
                && !file.contains("..") =>
        {
            if controller == "cgroup" {
                bail!("linux.resources.unified.{file}: is not a limit");
            }
            Ok(controller)
        }
        _ => bail!("linux.resources.unified.{file}: is not the name of a controller's file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(file: &str, value: &str, controllers: &[&str]) -> Result<Vec<String>, String> {
        let tree = Unified {
            mountpoint: "/cg".into(),
            root: "/".into(),
            own: "/".into(),
            controllers: controllers.iter().map(|c| c.to_string()).collect(),
        };
        let files = [(file.to_string(), value.to_string())].into();
        let writes = v2(&files, Some(&tree)).map_err(|e| e.to_string())?;
        Ok(writes.iter().map(|(controller, write)| format!("{controller}: {write}")).collect())
    }

    #[test]
    fn lines_go_to_the_tree_one_by_one() {
        let want = vec!["io: io.max = 8:0 rbps=1".to_string(), "io: io.max = 8:16 rbps=2".into()];
        assert_eq!(run("io.max", "8:0 rbps=1\n8:16 rbps=2\n", &["io"]), Ok(want));
        assert_eq!(run("io.max", "", &["io"]), Ok(vec![]));
    }

    #[test]
    fn what_is_refused() {
        for (file, says) in [
            ("memory.high", "has no memory controller"),
            ("cgroup.kill", "is not a limit"),
            ("../memory.high", "is not the name"),
            ("io/../x.y", "is not the name"),
            ("io", "is not the name"),
            (".io", "is not the name"),
            ("io.", "is not the name"),
            ("io.max\n", "is not the name"),
            ("", "is not the name"),
        ] {
            let error = run(file, "1", &["io"]).unwrap_err();
            assert!(error.starts_with("linux.resources.unified.") && error.contains(says), "{file:?}: {error}");
        }
        let files = [("io.max".to_string(), "1".to_string())].into();
        assert!(v2(&files, None).unwrap_err().to_string().contains("needs cgroup v2"));
        assert!(v2(&BTreeMap::new(), None).is_ok());
    }
}
