//! integration/managers/rows.md says which tests hold each thing that a manager relies on: they must be there, and each
//! call that is played must have its row. No container is made here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

struct Row {
    id: String,
    tests: Vec<String>,
}

/// Lines of the tables, without their heads.
fn rows(text: &str) -> Vec<Row> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|').replace("\\|", "/");
        line.split('|').map(|cell| cell.trim().to_string()).collect()
    };
    let tables = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let is_row = |cells: &Vec<String>| cells[0] != "id" && !cells[0].starts_with("---");
    let row = |cells: Vec<String>| {
        assert!(cells.len() == 3 && cells.iter().all(|cell| !cell.is_empty()), "not three cells: {cells:?}");
        Row { id: cells[0].clone(), tests: cells[2].split(", ").map(String::from).collect() }
    };
    tables.filter(is_row).map(row).collect()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).ok()
}

/// Names of the tests in a file.
fn tests_in(source: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line == "#[test]" {
            is_test = true;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
            names.extend(name.filter(|_| is_test).map(String::from));
            is_test = false;
        }
    }
    names
}

/// Where the test of this name can be: `managers`, `integration`, `rrun` (the library), or a file beside this one, and then
/// modules, with or without a file of their own for tests.
fn places(name: &str) -> (Vec<PathBuf>, &str) {
    let mut parts: Vec<&str> = name.split("::").collect();
    let function = parts.pop().unwrap();
    let root = match parts.first() {
        Some(&"managers") => "integration/managers",
        Some(&"integration") => "integration",
        Some(&"rrun") => "src",
        _ => return (vec![Path::new("tests").join(parts.join("/")).with_extension("rs")], function),
    };
    let module = Path::new(root).join(parts[1..].join("/"));
    (vec![module.with_extension("rs"), module.join("tests.rs")], function)
}

fn exists(name: &str) -> bool {
    let (places, function) = places(name);
    places.iter().filter_map(|path| read(path)).any(|source| tests_in(&source).contains(function))
}

fn table() -> Vec<Row> {
    rows(&read(Path::new("integration/managers/rows.md")).expect("the table is there"))
}

#[test]
fn every_row_has_tests_that_exist() {
    let mut ids = BTreeSet::new();
    for row in table() {
        let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        assert!(row.id.chars().all(is_word), "{}: not an id", row.id);
        for test in &row.tests {
            assert!(exists(test), "{}: there is no test {test}", row.id);
        }
        assert!(ids.insert(row.id.clone()), "{}: twice", row.id);
    }
    assert!(ids.len() > 100, "only {} rows were read", ids.len());
}

#[test]
fn every_call_that_is_played_has_a_row() {
    let named: BTreeSet<String> = table().into_iter().flat_map(|row| row.tests).collect();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/managers/played");
    for file in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        let manager = file.file_stem().unwrap().to_str().unwrap();
        for test in tests_in(&std::fs::read_to_string(&file).unwrap()) {
            let name = format!("managers::played::{manager}::{test}");
            assert!(named.contains(&name), "no row names {name}");
        }
    }
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    assert!(exists("rows::a_test_that_is_not_there_is_noticed"));
    assert!(!exists("rows::places"));
    assert!(!exists("rows::nothing") && !exists("managers::nowhere::nothing") && !exists("nothing"));
    let source =
        "#[test]\nfn one() {\n}\nfn two() {\n}\n#[test]\n#[ignore]\nfn three() {\n#[test]\n// why\nfn four() {";
    assert_eq!(tests_in(source).into_iter().collect::<Vec<_>>(), ["four", "one", "three"]);
}
