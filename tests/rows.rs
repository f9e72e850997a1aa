//! integration/managers/rows.md says which tests hold each thing that a manager relies on: they must be there, and each
//! call that is played must have its row. No container is made here.

mod named;

use std::collections::BTreeSet;
use std::path::Path;

use named::{is_there, tests_in};

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

/// `managers::`, `integration::`, `rrun::` (the library), or a file beside this one.
fn exists(name: &str) -> bool {
    match name.split_once("::") {
        Some(("managers", test)) => is_there("integration/managers", test),
        Some(("integration", test)) => is_there("integration", test),
        Some(("rrun", test)) => is_there("src", test),
        _ => is_there("tests", name),
    }
}

fn table() -> Vec<Row> {
    rows(include_str!("../integration/managers/rows.md"))
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
    assert!(!exists("rows::exists"));
    assert!(!exists("rows::nothing") && !exists("managers::nowhere::nothing") && !exists("nothing"));
    let source = "#[test]\nfn one() {\n}\nfn two() {\n}\n#[test]\n#[ignore]\nfn three() {\n#[test]\n// why\nfn four() {\nfn five: 5;";
    assert_eq!(tests_in(source).into_iter().collect::<Vec<_>>(), ["five", "four", "one", "three"]);
}
