//! The table of integration/conformance/*.md: what the OCI runtime-spec demands, and the tests that show it. Without
//! arguments it checks the table; `tests` and `units` print the tests that it names; `score FILE..` reads the output of
//! such tests (libtest's, and what they say on stderr) and tells which demands are met. `make conformance` does both.

mod named;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::exit;

use named::is_there;

/// In the order of the specification.
const DOCUMENTS: [&str; 7] =
    ["bundle", "config", "config-linux", "runtime", "runtime-linux", "features", "features-linux"];
const LEVELS: [&str; 4] = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT"];
/// Of what has no test there may be one in so many.
const ONE_IN: usize = 10;

#[derive(Clone)]
struct Row {
    document: &'static str,
    id: String,
    level: String,
    demand: String,
    shown_by: ShownBy,
}

#[derive(Clone)]
enum ShownBy {
    /// `topic::name` of integration/, or `unit path::name` of src/.
    Tests(Vec<String>),
    Nothing(String),
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let rows: Vec<_> = DOCUMENTS.into_iter().flat_map(read).collect();
    match arguments.first().map(String::as_str) {
        Some("tests") => {
            tests(&rows).into_iter().filter(|test| !test.contains(' ')).for_each(|test| println!("{test}"))
        }
        Some("units") => {
            tests(&rows).iter().filter_map(|test| test.strip_prefix("unit ")).for_each(|t| println!("{t}"))
        }
        Some("score") => score(&rows, &arguments[1..]),
        _ => check(&rows),
    }
}

fn read(document: &'static str) -> Vec<Row> {
    let path = root().join(format!("integration/conformance/{document}.md"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let cells =
        |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| id ");
    text.lines().filter(is_row).map(|line| row(document, &cells(line))).collect()
}

fn row(document: &'static str, cells: &[String]) -> Row {
    let [id, level, demand, shown_by] = cells else { panic!("{document}.md: not four cells: {cells:?}") };
    let shown_by = match shown_by.strip_prefix("none: ") {
        Some(reason) => ShownBy::Nothing(reason.into()),
        None => ShownBy::Tests(shown_by.split(", ").map(|test| test.trim_matches('`').into()).collect()),
    };
    Row { document, id: id.clone(), level: level.clone(), demand: demand.clone(), shown_by }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tests(rows: &[Row]) -> BTreeSet<&str> {
    let named = rows.iter().filter_map(|row| match &row.shown_by {
        ShownBy::Tests(tests) => Some(tests),
        ShownBy::Nothing(_) => None,
    });
    named.flatten().map(String::as_str).collect()
}

// --- the table ---

fn check(rows: &[Row]) {
    results_are_read_as_they_are_written();
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    for row in rows {
        if !ids.insert(&row.id) {
            wrong.push(format!("{}: is there twice", row.id));
        }
        if !LEVELS.contains(&row.level.as_str()) || row.demand.is_empty() {
            wrong.push(format!("{}: is not said as the others are", row.id));
        }
    }
    wrong.extend(
        tests(rows).into_iter().filter(|test| !exists(test)).map(|test| format!("{test}: there is no such test")),
    );
    let without = rows.iter().filter(|row| matches!(row.shown_by, ShownBy::Nothing(_))).count();
    if without * ONE_IN > rows.len() {
        wrong.push(format!("{without} of {} have no test", rows.len()));
    }
    println!("conformance: {} demands of the spec, {without} of them without a test", rows.len());
    if !wrong.is_empty() {
        eprintln!("integration/conformance: {}", wrong.join("\nintegration/conformance: "));
        exit(1);
    }
}

fn exists(test: &str) -> bool {
    match test.strip_prefix("unit ") {
        Some(path) => is_there("src", path),
        None => is_there("integration", test),
    }
}

// --- results ---

#[derive(Clone, PartialEq)]
enum Verdict {
    Passed,
    Failed,
    /// Why not.
    Untried(String),
}

fn score(rows: &[Row], files: &[String]) {
    let results = results(files);
    let verdicts: Vec<_> = rows.iter().map(|row| (row, verdict(row, &results))).collect();
    for (row, verdict) in &verdicts {
        let (word, why) = match verdict {
            Verdict::Passed => ("ok", String::new()),
            Verdict::Failed => ("FAIL", String::new()),
            Verdict::Untried(why) => ("-", format!(" ({why})")),
        };
        println!("{word:<5}{:<34} {:<11} {}.md: {}{why}", row.id, row.level, row.document, row.demand);
    }
    println!("\n{:<16} {:>6} {:>6} {:>9}", "", "passed", "failed", "not tried");
    let count = |document: &str| {
        let of = |wanted: fn(&Verdict) -> bool| {
            let here = verdicts.iter().filter(|(row, _)| document.is_empty() || row.document == document);
            here.filter(|(_, verdict)| wanted(verdict)).count()
        };
        [of(|v| *v == Verdict::Passed), of(|v| *v == Verdict::Failed), of(|v| matches!(v, Verdict::Untried(_)))]
    };
    for document in DOCUMENTS {
        let [passed, failed, untried] = count(document);
        println!("{:<16} {passed:>6} {failed:>6} {untried:>9}", format!("{document}.md"));
    }
    let [passed, failed, untried] = count("");
    println!("\n{untried} not tried here\n{passed} passed, {failed} failed");
    // what is ignored differs from the spec by intent
    let is_failure = |row: &&(&Row, Verdict)| row.1 == Verdict::Failed && !ignored(row.0, &results);
    exit(i32::from(verdicts.iter().any(|row| is_failure(&row))));
}

fn ignored(row: &Row, results: &BTreeMap<String, String>) -> bool {
    let ShownBy::Tests(tests) = &row.shown_by else { return false };
    tests.iter().any(|test| results.get(test).is_some_and(|result| result.starts_with("ignored")))
}

fn verdict(row: &Row, results: &BTreeMap<String, String>) -> Verdict {
    let tests = match &row.shown_by {
        ShownBy::Tests(tests) => tests,
        ShownBy::Nothing(reason) => return Verdict::Untried(reason.clone()),
    };
    let told: Vec<_> = tests.iter().filter_map(|test| results.get(test.trim_start_matches("unit "))).collect();
    if told.iter().any(|result| *result == "FAILED" || result.starts_with("ignored")) {
        return Verdict::Failed;
    }
    if told.iter().any(|result| *result == "ok") {
        return Verdict::Passed;
    }
    Verdict::Untried(told.first().map_or_else(|| format!("{} did not run", tests[0]), |why| why.to_string()))
}

/// Test → `ok`, `FAILED`, `ignored…`, or why it did not try. Of several runs the best counts for what was not tried in
/// another, and a failure for all. `NAME.out` and `NAME.err` are of one run.
fn results(files: &[String]) -> BTreeMap<String, String> {
    let mut runs = BTreeMap::<_, String>::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        *runs.entry(Path::new(file).with_extension("")).or_default() += &(text + "\n");
    }
    let mut all = BTreeMap::new();
    for text in runs.values() {
        for (test, result) in of_one_run(text) {
            let known = all.entry(test).or_insert_with(|| result.clone());
            if result == "FAILED" || (result == "ok" && known != "FAILED") {
                *known = result;
            }
        }
    }
    all
}

fn of_one_run(text: &str) -> BTreeMap<String, String> {
    let mut results = BTreeMap::new();
    for line in text.lines() {
        let Some((test, result)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) else {
            continue;
        };
        results.insert(test.to_string(), result.trim().to_string());
    }
    // what a test says instead of trying
    for line in text.lines() {
        let told = line.strip_prefix("SKIP ").unwrap_or(line);
        let Some((test, why)) = told.split_once(": ") else { continue };
        if (why.starts_with("needs ") || why.starts_with("is about ")) && results.get(test).is_some_and(|r| r == "ok") {
            results.insert(test.to_string(), why.to_string());
        }
    }
    results
}

fn results_are_read_as_they_are_written() {
    let text = "running 5 tests\ntest a::b ... ok\ntest a::c ... FAILED\ntest a::d ... ignored, for a reason\n\
        test a::e ... ok\ntest a::f ... ok\nSKIP a::e: needs a thing\na::f: is about cgroups that are [V2]\n\
        SKIP a::c: needs another\ntest result: FAILED. 1 passed\n";
    let told: Vec<_> = of_one_run(text).into_values().collect();
    assert_eq!(told, ["ok", "FAILED", "ignored, for a reason", "needs a thing", "is about cgroups that are [V2]"]);
}
