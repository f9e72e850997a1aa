//! The tables of docs/performance.md, of what a bench has written: `make bench-docs`.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

const BEGIN: &str = "<!-- bench: `make bench-docs` writes what follows, after `make bench` -->\n";
const END: &str = "<!-- bench ends -->\n";

/// Those that are no command of their own are named by what they are.
const COMMANDS: [(&str, &str); 8] = [
    ("run", "run, Docker's profile"),
    ("run-plain", "run without a filter"),
    ("create", "create"),
    ("start", "start"),
    ("state", "state"),
    ("exec", "exec"),
    ("kill", "kill"),
    ("delete", "delete"),
];

pub fn write(result: &str, file: &str) -> Result<()> {
    let result: Value =
        serde_json::from_slice(&fs::read(result).with_context(|| format!("{result}: run make bench"))?)?;
    let text = fs::read_to_string(file).context("the document")?;
    let (before, rest) = text.split_once(BEGIN).context("the document has no place for tables")?;
    let (_, after) = rest.split_once(END).context("the document has no end of its tables")?;
    Ok(fs::write(file, format!("{before}{BEGIN}{}{END}{after}", tables(&result)))?)
}

fn tables(result: &Value) -> String {
    let rows = result["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = machine(result);
    for layout in ["host", "v1", "v2"] {
        let rows: Vec<&Value> = rows.iter().filter(|row| row["layout"] == layout).collect();
        if rows.is_empty() {
            continue;
        }
        let named = |names: Vec<(String, String)>, title: &str, pace: &str, number: &str| {
            table(&rows, title, &names, pace, number)
        };
        let commands = || COMMANDS.map(|(name, shown)| (name.to_string(), shown.to_string())).to_vec();
        text += &format!("\n### Cgroup {layout}\n");
        text += &named(commands(), "CPU ms, hot", "hot", "cpu_ms");
        text += &named(commands(), "wall ms, 50 ms between commands", "spaced", "wall_ms");
        text += &named(commands(), "peak of memory, KiB", "hot", "rss_kib");
        text += &named(family(&rows, "growth-"), "`run` grows: CPU ms", "hot", "cpu_ms");
        text += &named(family(&rows, "list-"), "`list` of N: CPU ms", "hot", "cpu_ms");
        text += &named(family(&rows, "state-among-"), "`state` of one among N: CPU ms", "hot", "cpu_ms");
        text += &named(family(&rows, "parallel-"), "N at once: wall ms of one container", "hot", "wall_ms");
        text += &counts(&rows);
        text += &targets(&rows);
    }
    text
}

fn machine(result: &Value) -> String {
    let machine = &result["machine"];
    let word = |key: &str| machine[key].as_str().map_or_else(|| machine[key].to_string(), String::from);
    let mut text = format!(
        "\n{}, Linux {}, {} processors ({}), load {} at the beginning and {} at the end.",
        word("date"),
        word("kernel"),
        word("processors"),
        word("model"),
        word("load"),
        result["load_at_the_end"].as_str().unwrap_or_default(),
    );
    for runtime in machine["runtimes"].as_array().into_iter().flatten() {
        let (name, bytes) = (runtime["name"].as_str().unwrap_or_default(), runtime["bytes"].as_f64().unwrap_or(0.0));
        let version = runtime["version"].as_str().and_then(|v| v.split(',').next()).unwrap_or_default();
        let version = if name == "rrun" { version } else { name };
        let _ = write!(text, " {version}: {:.2} MB.", bytes / 1e6);
    }
    text + "\nMedians; in parentheses rrun's share of it, the median of the ratios per round.\n"
}

/// All scenarios of that beginning, in the order in which they were measured.
fn family(rows: &[&Value], beginning: &str) -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = Vec::new();
    for name in rows.iter().filter_map(|row| row["scenario"].as_str()) {
        if let Some(rest) = name.strip_prefix(beginning).filter(|_| names.iter().all(|(known, _)| known != name)) {
            names.push((name.to_string(), rest.replace('-', " ").replace("nothing 0", "nothing")));
        }
    }
    names
}

fn table(rows: &[&Value], title: &str, names: &[(String, String)], pace: &str, number: &str) -> String {
    let fits = |row: &&&Value, name: &str| row["scenario"] == name && row["pace"] == pace;
    let mut who: Vec<&str> = Vec::new();
    for row in rows.iter().filter(|row| names.iter().any(|(name, _)| fits(row, name))) {
        let name = row["who"].as_str().unwrap_or_default();
        if !who.contains(&name) {
            who.push(name);
        }
    }
    if who.is_empty() {
        return String::new();
    }
    let mut text = format!("\n| {title} | {} |\n|---|{}\n", who.join(" | "), "---|".repeat(who.len()));
    for (name, shown) in names {
        let row_of = |who: &str| rows.iter().find(|row| fits(row, name) && row["who"] == who);
        let Some(rrun) = row_of("rrun") else { continue };
        let cells = who.iter().map(|who| row_of(who).map_or_else(String::new, |row| cell(row, rrun, number)));
        let _ = writeln!(text, "| {shown} | {} |", cells.collect::<Vec<_>>().join(" | "));
    }
    text
}

fn cell(row: &Value, rrun: &Value, number: &str) -> String {
    let Some(median) = row[number]["median"].as_f64() else { return "-".into() };
    let shown = if median >= 100.0 { format!("{median:.0}") } else { format!("{median:.2}") };
    let of_each = |row: &Value| -> Vec<f64> {
        row[format!("{number}_of_each")]
            .as_array()
            .into_iter()
            .flatten()
            .map(|n| n.as_f64().unwrap_or(f64::NAN))
            .collect()
    };
    if row["who"] == rrun["who"] {
        return shown;
    }
    let share = crate::measure::Spread::of_ratios(of_each(rrun).into_iter(), of_each(row).into_iter()).median;
    if share.is_nan() { shown } else { format!("{shown} ({share:.2})") }
}

fn counts(rows: &[&Value]) -> String {
    let mut text = String::new();
    let mut seen: Vec<&str> = Vec::new();
    for what in rows.iter().filter_map(|row| row["what"].as_str()) {
        if seen.contains(&what) {
            continue;
        }
        seen.push(what);
        let of_this = rows.iter().filter(|row| row["what"] == what);
        let number = |row: &Value| row["number"].as_f64().map_or("-".into(), |number| format!("{number:.0}"));
        let each = of_this.map(|row| format!("{} {}", row["who"].as_str().unwrap_or_default(), number(row)));
        let shown = if what.starts_with("KiB") {
            format!("Smallest limit of memory, {what}")
        } else {
            format!("In `run`: {what}")
        };
        let _ = write!(text, "\n{shown}: {}.\n", each.collect::<Vec<_>>().join(", "));
    }
    text
}

fn targets(rows: &[&Value]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| row["target"].is_string()).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n| wanted of rrun | of | is | wanted | |\n|---|---|---|---|---|\n");
    for row in rows {
        let word = |key: &str| row[key].as_str().unwrap_or_default();
        let is = row["is"].as_f64().unwrap_or(f64::NAN);
        let is = if is > 100.0 { format!("{is:.0}") } else { format!("{is:.2}") };
        let met = if row["met"] == true { "met" } else { "missed" };
        let wanted = row["wanted"].as_f64().unwrap_or(f64::NAN);
        let _ = writeln!(text, "| {} | {} | {is} | {wanted} | {met} |", word("target"), word("of"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(who: &str, scenario: &str, cpu: &[f64]) -> Value {
        let median = crate::measure::Spread::of(cpu.iter().copied()).median;
        json!({"layout": "v1", "pace": "hot", "scenario": scenario, "who": who, "cpu_ms": {"median": median}, "cpu_ms_of_each": cpu})
    }

    #[test]
    fn what_is_written() {
        let results = json!({"machine": {"runtimes": []}, "results": [
            row("rrun", "run", &[1.0, 2.0, 3.0]),
            row("floor", "run", &[1.0, 1.0, 1.0]),
            row("rrun", "growth-nothing-0", &[200.0]),
            {"layout": "v1", "target": "run", "of": "floor", "is": 2.0, "wanted": 1.25, "met": false},
            {"layout": "v1", "what": "system calls", "who": "rrun", "number": 320.0},
        ]});
        let text = tables(&results);
        for line in [
            "| CPU ms, hot | rrun | floor |",
            "| run, Docker's profile | 2.00 | 1.00 (2.00) |",
            "| nothing | 200 |",
            "| run | floor | 2.00 | 1.25 | missed |",
            "In `run`: system calls: rrun 320.",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("50 ms between"), "nothing was spaced: {text}");
    }
}
