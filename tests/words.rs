//! Words that container managers match in rrun's output, and take for success, "not found" or an exit status, stand in
//! the one type that owns them. A stray one in another message makes a manager forget a container that still runs.

mod source;

use source::Source;

const RESERVED: &[&str] = &[
    "does not exist",
    "container not running",
    "no such process",
    "process already finished",
    "invalid process",
    "executable file not found",
    "open executable",
    "no such file or directory",
    "cannot find the file",
    "permission denied",
    "operation not permitted",
    "is a directory",
    "not a directory",
    "given id already exists",
    "cannot start a",
    "cannot exec in",
    "cannot delete container",
    "container paused",
    "container not paused",
    "container still running",
    "container init still running",
    "invalid container id",
    "container id cannot be empty",
    "cannot allocate tty",
    "cannot use console socket",
];

const OWNER: &str = "impl fmt::Display for Matched";

fn strays(source: &Source) -> Vec<String> {
    let mut spared = source.tests();
    if source.name == "error" {
        spared.extend(source.code.find(OWNER).map(|at| at..source.end_of_item(at)));
    }
    let mut strays = Vec::new();
    for (at, said) in &source.literals {
        let said = said.to_lowercase();
        for word in RESERVED.iter().filter(|word| said.contains(**word)) {
            if !spared.iter().any(|range| range.contains(at)) {
                strays.push(format!("src/{}.rs:{}: `{word}` belongs to error::Matched", source.name, source.line(*at)));
            }
        }
    }
    strays
}

#[test]
fn only_their_owner_says_reserved_words() {
    let strays: Vec<_> = Source::all().iter().flat_map(strays).collect();
    assert!(strays.is_empty(), "\n{}", strays.join("\n"));
}

#[test]
fn every_reserved_word_that_rrun_says_is_said_by_its_owner() {
    let sources = Source::all();
    let error = sources.iter().find(|source| source.name == "error").unwrap();
    let owner = error.code.find(OWNER).map(|at| at..error.end_of_item(at)).unwrap();
    let said =
        |word: &&str| error.literals.iter().any(|(at, said)| owner.contains(at) && said.to_lowercase().contains(*word));
    let count = RESERVED.iter().filter(|word| said(word)).count();
    assert!(count >= 10, "the owner says {count} of them only: is it still `{OWNER}`?");
}

#[test]
fn a_stray_word_is_found() {
    let plant = r#"
        // it does not exist, says a comment
        fn f() { bail!("cgroup {path} does not \
            exist") }
        #[cfg(test)]
        mod tests { const A: &str = "Permission denied"; }
        const HINT: &str = "Permission Denied by /x";
        impl fmt::Display for Matched { fn f() { "no such process" } }
    "#;
    let found = |name| strays(&Source::new(name, plant));
    let [exist, denied] = [
        "src/error.rs:3: `does not exist` belongs to error::Matched",
        "src/error.rs:7: `permission denied` belongs to error::Matched",
    ];
    assert_eq!(found("error"), [exist, denied]);
    let elsewhere = found("cgroup/files");
    assert_eq!(elsewhere.len(), 3, "elsewhere the owner's name protects nothing: {elsewhere:?}");
    assert_eq!(elsewhere[2], "src/cgroup/files.rs:8: `no such process` belongs to error::Matched");
}
