//! `linux.intelRdt` → a group of the resctrl file system and what is written to it. Also says whether a group that is
//! there already is the one that is meant.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::spec::given;
use super::spec::linux::IntelRdt as Written;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IntelRdt {
    /// Its directory in resctrl; `/` is resctrl itself.
    pub group: String,
    /// By closID: then it belongs to whoever named it, and stays when the container goes.
    pub named: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// The name of a group of its own to count in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monitor: Option<String>,
}

pub const ROOT: &str = "/";
pub const L3: &str = "linux.intelRdt.l3CacheSchema";
pub const MB: &str = "linux.intelRdt.memBwSchema";

/// What resctrl has of its own beside groups.
const NO_GROUPS: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

impl IntelRdt {
    /// What is written to `schemata`, in this order, each with its field.
    pub fn lines(&self) -> Vec<(String, &str)> {
        let mut lines = self.compared();
        let more = self.schemata.iter().enumerate();
        lines.extend(more.map(|(index, line)| (format!("linux.intelRdt.schemata[{index}]"), line.as_str())));
        lines
    }

    /// What a group that exists must have already.
    pub fn compared(&self) -> Vec<(String, &str)> {
        let fields = [(L3, &self.l3_cache_schema), (MB, &self.mem_bw_schema)];
        fields.into_iter().filter_map(|(field, line)| Some((field.to_string(), line.as_deref()?))).collect()
    }
}

pub fn plan(written: &Written, id: &str, rootless: bool, warnings: &mut Vec<String>) -> Result<IntelRdt> {
    ensure!(!rootless, "linux.intelRdt: resctrl is root's of the host; remove it, or run rrun as root");
    let named = given(&written.clos_id);
    let group = named.unwrap_or(id);
    let is_name = group == ROOT || !group.contains(['/', '\n']) && !NO_GROUPS.contains(&group);
    ensure!(
        is_name,
        "linux.intelRdt.closID: {group} is no name of a group: no path, and none of {}",
        NO_GROUPS.join(", ")
    );
    let l3 = given(&written.l3_cache_schema).map(|line| one_line(L3, line)).transpose()?;
    let mb = given(&written.mem_bw_schema).map(mem_bw_schema).transpose()?;
    if let Some(l3) = l3.filter(|line| !line.starts_with("L3:")) {
        warnings.push(format!("{L3}: {l3} does not begin with L3:"));
    }
    let mut schemata = Vec::with_capacity(written.schemata.len());
    for (index, line) in written.schemata.iter().enumerate() {
        let field = format!("linux.intelRdt.schemata[{index}]");
        ensure!(!line.is_empty(), "{field}: is empty; write a line such as L3:0=f or remove it");
        schemata.push(one_line(&field, line)?.to_string());
    }
    Ok(IntelRdt {
        group: group.into(),
        named: named.is_some(),
        l3_cache_schema: l3.map(String::from),
        mem_bw_schema: mb.map(String::from),
        schemata,
        monitor: (written.enable_monitoring == Some(true)).then(|| id.into()),
    })
}

fn one_line<'a>(field: &str, line: &'a str) -> Result<&'a str> {
    ensure!(!line.contains(['\n', '\r']), "{field}: holds a line break; write one line");
    Ok(line)
}

fn mem_bw_schema(line: &str) -> Result<&str> {
    ensure!(line.starts_with("MB:"), "{MB}: {line} does not begin with MB:");
    one_line(MB, line)
}

/// Of `update`, which names flags instead of fields.
pub fn check_update(l3: Option<&str>, mb: Option<&str>) -> Result<()> {
    l3.map(|line| one_line(L3, line)).transpose().context("--l3-cache-schema")?;
    mb.map(mem_bw_schema).transpose().context("--mem-bw-schema")?;
    Ok(())
}

/// The line of this resource, among those of a `schemata` file.
pub fn line_of<'a>(schemata: &'a str, wanted: &str) -> Option<&'a str> {
    let (wanted, _) = wanted.split_once(':')?;
    let is = |line: &&str| line.split_once(':').is_some_and(|(name, _)| name.trim() == wanted.trim());
    schemata.lines().find(is).map(str::trim)
}

/// Whether a group has what is wanted of it: for each domain that is named, the same number. Cache masks are hexadecimal,
/// bandwidths decimal and rounded up by the kernel to a multiple of `granularity`.
pub fn has(schemata: &str, wanted: &str, granularity: u64) -> bool {
    let Some((name, domains)) = wanted.split_once(':') else { return false };
    let Some((_, present)) = line_of(schemata, wanted).and_then(|line| line.split_once(':')) else { return false };
    let is_bandwidth = name.trim() == "MB";
    let number = |text: &str| match is_bandwidth {
        true => text.parse().ok(),
        false => u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok(),
    };
    let pairs = |text: &str| -> Option<Vec<(u64, u64)>> {
        let pair = |pair: &str| {
            let (domain, value) = pair.split_once('=')?;
            Some((domain.trim().parse().ok()?, number(value.trim())?))
        };
        text.split(';').map(pair).collect()
    };
    let (Some(domains), Some(present)) = (pairs(domains), pairs(present)) else { return false };
    let is = |(domain, value): &(u64, u64)| {
        let rounded = if is_bandwidth { value.next_multiple_of(granularity.max(1)) } else { *value };
        present.contains(&(*domain, *value)) || present.contains(&(*domain, rounded))
    };
    domains.iter().all(is)
}

/// Of an existing group that is another than the one that is meant.
pub fn check_existing(rdt: &IntelRdt, schemata: &str, granularity: u64) -> Result<()> {
    for (field, wanted) in rdt.compared() {
        if !has(schemata, wanted, granularity) {
            let present = line_of(schemata, wanted).unwrap_or("no such line");
            bail!("{field}: {wanted} is not what the group {} has, which is there already: {present}", rdt.group);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(written: &str) -> Result<(IntelRdt, Vec<String>), String> {
        let mut warnings = Vec::new();
        let planned = plan(&serde_json::from_str(written).unwrap(), "c1", false, &mut warnings);
        planned.map(|planned| (planned, warnings)).map_err(|error| error.to_string())
    }

    #[test]
    fn groups() {
        for (written, group, named, monitor) in [
            ("{}", "c1", false, None),
            (r#"{"closID":""}"#, "c1", false, None),
            (r#"{"closID":"gold"}"#, "gold", true, None),
            (r#"{"closID":"/","enableMonitoring":true}"#, "/", true, Some("c1")),
            (r#"{"enableMonitoring":false}"#, "c1", false, None),
        ] {
            let (planned, _) = planned(written).unwrap();
            assert_eq!((planned.group.as_str(), planned.named, planned.monitor.as_deref()), (group, named, monitor));
        }
    }

    #[test]
    fn lines_in_their_order() {
        let (planned, warnings) =
            planned(r#"{"schemata":["L2:0=f","MB:0=30"],"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=ff"}"#).unwrap();
        let lines: Vec<_> = planned.lines().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["L3:0=ff", "MB:0=20", "L2:0=f", "MB:0=30"]);
        assert!(warnings.is_empty());
        let (_, warnings) = self::planned(r#"{"l3CacheSchema":"L3CODE:0=f"}"#).unwrap();
        assert_eq!(warnings, ["linux.intelRdt.l3CacheSchema: L3CODE:0=f does not begin with L3:"]);
    }

    #[test]
    fn a_bad_value_is_named() {
        for (written, want) in [
            (r#"{"closID":"."}"#, "closID: . is no name of a group"),
            (r#"{"closID":".."}"#, "closID: .. is no name"),
            (r#"{"closID":"a/b"}"#, "closID: a/b is no name"),
            (r#"{"closID":"/a"}"#, "closID: /a is no name"),
            (r#"{"closID":"info"}"#, "closID: info is no name"),
            (r#"{"l3CacheSchema":"L3:0=f\nL3:1=f"}"#, "l3CacheSchema: holds a line break"),
            (r#"{"memBwSchema":"0=20"}"#, "memBwSchema: 0=20 does not begin with MB:"),
            (r#"{"memBwSchema":"MB:0=20\n"}"#, "memBwSchema: holds a line break"),
            (r#"{"schemata":["L3:0=f","L2:0=f\n"]}"#, "schemata[1]: holds a line break"),
            (r#"{"schemata":[""]}"#, "schemata[0]: is empty"),
        ] {
            let error = planned(written).unwrap_err();
            assert!(error.starts_with(&format!("linux.intelRdt.{want}")), "{written}: {error}");
        }
        let error = plan(&Written::default(), "c1", true, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("linux.intelRdt: resctrl is root's"), "{error}");
    }

    #[test]
    fn what_a_group_has() {
        const SCHEMATA: &str = "    MB:0=100;1= 30\n    L3:0=7ff;1=00f\n";
        for (wanted, want) in [
            ("L3:0=7ff;1=f", true),
            ("L3:0=0x7FF", true),
            ("L3:1=f", true),
            ("L3: 1 = f ", true),
            ("L3:0=7fe", false),
            ("L3:2=f", false),
            ("L2:0=f", false),
            ("MB:0=100;1=30", true),
            ("MB:1=25", true),
            ("MB:1=20", false),
            ("L3:0", false),
            ("L3:", false),
            ("L3", false),
            ("L3:0=x", false),
        ] {
            assert_eq!(has(SCHEMATA, wanted, 10), want, "{wanted}");
        }
    }
}
