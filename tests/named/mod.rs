//! The tests that tables name: looked for in the sources, since none of them is run where the tables are checked.

use std::collections::BTreeSet;
use std::path::Path;

/// Whether the module of that path below `dir` has the test: `topic::name`, `path::module::name`. A module is a file, one
/// with its tests beside it in `tests.rs`, or stands in the file of the module around it.
pub fn is_there(dir: &str, path: &str) -> bool {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut modules: Vec<_> = path.split("::").collect();
    let Some(name) = modules.pop() else { return false };
    while !modules.is_empty() {
        let module = dir.join(modules.join("/"));
        let files = [module.with_extension("rs"), module.join("tests.rs")];
        let mut sources = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
        if sources.any(|source| tests_in(&source).contains(name)) {
            return true;
        }
        modules.pop();
    }
    false
}

/// Names of the tests in a file: of functions, and of lines `fn name: …` that a macro makes one of.
pub fn tests_in(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let name = line.strip_prefix("fn ").and_then(|rest| Some(rest.split_at(rest.find(['(', '<', ':'])?)));
            let named = name.filter(|(_, rest)| is_test || rest.starts_with(':'));
            names.extend(named.map(|(name, _)| name.to_string()));
            is_test = false;
        }
    }
    names
}
