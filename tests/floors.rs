//! The floors of src/lib.rs hold: a module imports downward only. Read from the sources, so that a shortcut shows in the
//! test run and not in a year.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::Source;

/// On this floor siblings never meet: what runs in the container has no business with what manages it.
const STRANGERS: i32 = 4;

struct Floors(BTreeMap<String, i32>);

impl Floors {
    /// From the list in the documentation of the crate: `7 cli → 6 lifecycle → … → 0 sys → error`.
    fn new(lib: &str) -> Self {
        let list = lib.split("```").find(|block| block.contains(" cli →")).expect("src/lib.rs lists the floors");
        let list = list.trim_start_matches("text").replace("//!", " ");
        let mut floors = BTreeMap::new();
        for floor in list.split('→') {
            let number = floor.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(-1);
            for name in floor.trim().trim_start_matches(|c: char| c.is_ascii_digit()).split('|') {
                floors.insert(name.trim().to_string(), number);
            }
        }
        Self(floors)
    }

    fn violations(&self, sources: &[Source]) -> Vec<String> {
        let mut violations = Vec::new();
        let mut siblings = BTreeMap::<&str, BTreeSet<&str>>::new();
        for source in sources {
            let module = source.name.split('/').next().unwrap();
            let Some(floor) = self.0.get(module) else { continue };
            for (at, import) in imports(source) {
                let Some((import, below)) = self.0.get_key_value(&import).filter(|(name, _)| *name != module) else {
                    continue;
                };
                let place = format!("src/{}.rs:{}", source.name, source.line(at));
                if below > floor {
                    violations
                        .push(format!("{place}: {module} (floor {floor}) reaches up to {import} (floor {below})"));
                } else if below == floor && *floor == STRANGERS {
                    violations.push(format!("{place}: {module} and {import} meet on floor {floor}"));
                } else if below == floor {
                    siblings.entry(module).or_default().insert(import);
                }
            }
        }
        for module in siblings.keys().filter(|module| reaches(&siblings, module, module, &mut BTreeSet::new())) {
            violations.push(format!("{module} is part of a circle of siblings: {siblings:?}"));
        }
        violations
    }
}

fn reaches<'a>(
    siblings: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    from: &str,
    to: &str,
    seen: &mut BTreeSet<&'a str>,
) -> bool {
    siblings
        .get(from)
        .into_iter()
        .flatten()
        .any(|next| *next == to || (seen.insert(next) && reaches(siblings, next, to, seen)))
}

/// The modules of the crate that a file names, by `crate::` or by `super::` as far as it takes.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let to_crate = "super::".repeat(source.name.split('/').count());
    let tests = source.tests();
    let mut imports = Vec::new();
    for root in ["crate::", &to_crate] {
        for (at, _) in source.code.match_indices(root) {
            let before = &source.code[..at];
            if before.ends_with(|c: char| c.is_alphanumeric() || "_:".contains(c))
                || tests.iter().any(|t| t.contains(&at))
            {
                continue;
            }
            imports.extend(first_names(&source.code[at + root.len()..]).into_iter().map(|name| (at, name)));
        }
    }
    imports
}

/// `a::b` → a; `{a::b, c::{d, e}}` → a, c.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names) = (0, vec![name(group)]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names
}

fn lib() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/lib.rs")).unwrap()
}

#[test]
fn modules_import_downward_only() {
    let violations = Floors::new(&lib()).violations(&Source::all());
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn every_module_has_a_floor() {
    let lib = lib();
    let modules: BTreeSet<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let floors = Floors::new(&lib);
    assert_eq!(floors.0.keys().map(String::as_str).collect::<BTreeSet<_>>(), modules);
    let floor = |name| floors.0[name];
    assert_eq!((floor("cli"), floor("cgroup"), floor("sys"), floor("error")), (7, 4, 0, -1));
}

#[test]
fn a_shortcut_is_found() {
    let floors = Floors::new(&lib());
    for (name, text, want) in [
        (
            "plan/mounts",
            "use crate::sys::mount;\nuse crate::{error::Doing, launch};",
            "src/plan/mounts.rs:2: plan (floor 2) reaches up to launch (floor 5)",
        ),
        (
            "plan/mounts",
            "fn f() { crate::cgroup::join() }",
            "src/plan/mounts.rs:1: plan (floor 2) reaches up to cgroup (floor 4)",
        ),
        (
            "plan/mounts",
            "use super::super::state;",
            "src/plan/mounts.rs:1: plan (floor 2) reaches up to state (floor 3)",
        ),
        ("error", "use super::{sys, Doing};", "src/error.rs:1: error (floor -1) reaches up to sys (floor 0)"),
        ("init/steps", "use crate::cgroup;", "src/init/steps.rs:1: init and cgroup meet on floor 4"),
        (
            "init/steps",
            "use crate::{plan::{self, Plan},\n  cgroup::Files};",
            "src/init/steps.rs:1: init and cgroup meet on floor 4",
        ),
    ] {
        assert_eq!(floors.violations(&[Source::new(name, text)]), [want], "{text}");
    }
    for (name, text) in [
        ("launch", "use crate::{init, cgroup::Manager, error, OCI_VERSION};"),
        ("plan/mounts", "use super::Plan; use crate::plan::Plan; // crate::launch"),
        ("plan", "#[cfg(test)] mod tests { use crate::lifecycle; }"),
        ("host", "use crate::procfs;"),
    ] {
        assert_eq!(floors.violations(&[Source::new(name, text)]), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_circle_is_found() {
    let circle = [
        Source::new("host", "use crate::procfs;"),
        Source::new("procfs/mounts", "use crate::rootfs;"),
        Source::new("rootfs", "use crate::host;"),
    ];
    let floors = Floors::new(&lib());
    assert_eq!(floors.violations(&circle).len(), 3, "each of the three is part of it");
    assert_eq!(floors.violations(&circle[..2]), Vec::<String>::new());
}

/// `make map` prints it.
#[test]
#[ignore = "a drawing, not a test"]
fn map() {
    let floors = Floors::new(&lib());
    let mut below = BTreeMap::<String, BTreeSet<String>>::new();
    for source in Source::all() {
        let module = source.name.split('/').next().unwrap();
        let named = imports(&source).into_iter().map(|(_, name)| name);
        let known = named.filter(|name| name != module && floors.0.contains_key(name));
        below.entry(module.to_string()).or_default().extend(known);
    }
    let mut modules: Vec<_> = floors.0.iter().collect();
    modules.sort_by_key(|(name, floor)| (-**floor, *name));
    for (module, floor) in modules {
        let mut below: Vec<_> = below.get(module).into_iter().flatten().collect();
        below.sort_by_key(|name| (-floors.0[*name], *name));
        let below: Vec<_> = below.iter().map(|name| name.as_str()).collect();
        println!(
            "{:>2} {module:<10} → {}",
            if *floor < 0 { String::new() } else { floor.to_string() },
            below.join(" ")
        );
    }
}
