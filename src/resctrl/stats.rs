//! What a container's group of resctrl may use and has used, in the keys that readers of `events` know from runc. A file
//! that this machine lacks leaves its keys out.

use std::fs;
use std::path::Path;

use anyhow::Result;
use nix::errno::Errno;
use serde::Serialize;

use crate::error::{Doing, SysError};
use crate::state::RdtGroup;

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct RdtStats {
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_info: Option<CacheInfo>,
    /// Of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_schema_root: Option<String>,
    /// Of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    l3_cache_schema: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_info: Option<BandwidthInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_schema_root: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_bw_schema: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    schemata: Vec<String>,
    /// Traffic to memory and use of the cache, for each domain of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    mbm_stats: Option<Vec<Traffic>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmt_stats: Option<Vec<Occupancy>>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct CacheInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    cbm_mask: String,
    #[serde(skip_serializing_if = "is_zero")]
    min_cbm_bits: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
struct BandwidthInfo {
    #[serde(skip_serializing_if = "is_zero")]
    bandwidth_gran: u64,
    #[serde(skip_serializing_if = "is_zero")]
    delay_linear: u64,
    #[serde(skip_serializing_if = "is_zero")]
    min_bandwidth: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_closids: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Traffic {
    mbm_total_bytes: u64,
    mbm_local_bytes: u64,
}

#[derive(Debug, PartialEq, Serialize)]
struct Occupancy {
    llc_occupancy: u64,
}

impl RdtGroup {
    pub fn stats(&self) -> Result<RdtStats> {
        // the group itself may be the root
        let Some(root) = self.path.ancestors().take(2).find(|dir| dir.join("info").is_dir()) else {
            return Ok(RdtStats::default());
        };
        let (of_root, of_group) = (lines(&root.join("schemata"))?, lines(&self.path.join("schemata"))?);
        let line = |lines: &[String], kind: &str| lines.iter().rfind(|line| line.starts_with(kind)).cloned();
        let (cache, bandwidth) = (root.join("info/L3"), root.join("info/MB"));
        let mut stats = RdtStats::default();
        if cache.is_dir() {
            let (min_cbm_bits, num_closids) = (number(&cache, "min_cbm_bits")?, number(&cache, "num_closids")?);
            let cbm_mask = text(&cache.join("cbm_mask"))?.unwrap_or_default().trim().to_string();
            stats.l3_cache_info = Some(CacheInfo { cbm_mask, min_cbm_bits, num_closids });
            stats.l3_cache_schema_root = line(&of_root, "L3");
            stats.l3_cache_schema = line(&of_group, "L3");
        }
        if bandwidth.is_dir() {
            stats.mem_bw_info = Some(BandwidthInfo {
                bandwidth_gran: number(&bandwidth, "bandwidth_gran")?,
                delay_linear: number(&bandwidth, "delay_linear")?,
                min_bandwidth: number(&bandwidth, "min_bandwidth")?,
                num_closids: number(&bandwidth, "num_closids")?,
            });
            stats.mem_bw_schema_root = line(&of_root, "MB");
            stats.mem_bw_schema = line(&of_group, "MB");
        }
        stats.schemata = of_group;
        self.measure(root, &mut stats)?;
        Ok(stats)
    }

    /// Without a group of the container's own to measure by, the one that limits it counts, with all others in it.
    fn measure(&self, root: &Path, stats: &mut RdtStats) -> Result<()> {
        let features = lines(&root.join("info/L3_MON/mon_features"))?;
        let has = |start: &str| features.iter().any(|feature| feature.starts_with(start));
        let data = self.monitor.as_ref().unwrap_or(&self.path).join("mon_data");
        let (mut traffic, mut occupancy) = (Vec::new(), Vec::new());
        for domain in directories(&data)? {
            let count = |file: &str| number(&domain, file);
            let (mbm_total_bytes, mbm_local_bytes) = (count("mbm_total_bytes")?, count("mbm_local_bytes")?);
            traffic.push(Traffic { mbm_total_bytes, mbm_local_bytes });
            occupancy.push(Occupancy { llc_occupancy: count("llc_occupancy")? });
        }
        stats.mbm_stats = has("mbm_").then_some(traffic);
        stats.cmt_stats = has("llc_occupancy").then_some(occupancy);
        Ok(())
    }
}

/// `None`: this machine has no such file, or somebody has removed the group.
fn text(file: &Path) -> Result<Option<String>> {
    match fs::read_to_string(file).doing("read", file.display()) {
        Err(SysError { errno: Errno::ENOENT | Errno::ENODEV, .. }) => Ok(None),
        text => Ok(Some(text?)),
    }
}

fn lines(file: &Path) -> Result<Vec<String>> {
    let text = text(file)?.unwrap_or_default();
    Ok(text.lines().map(|line| line.trim().to_string()).filter(|line| !line.is_empty()).collect())
}

/// A counter may say `Unavailable`.
fn number(dir: &Path, file: &str) -> Result<u64> {
    Ok(text(&dir.join(file))?.and_then(|text| text.trim().parse().ok()).unwrap_or_default())
}

/// By name: `mon_L3_00`, `mon_L3_01`.
fn directories(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let entries = match fs::read_dir(dir).doing("open", dir.display()) {
        Err(SysError { errno: Errno::ENOENT, .. }) => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut directories: Vec<_> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    directories.sort();
    Ok(directories)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// No machine of the tests has resctrl: plain directories stand in for it.
#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn resctrl(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), text).unwrap();
        }
        dir
    }

    fn told(root: &Path, group: &str, monitor: Option<&str>) -> Value {
        let path = if group.is_empty() { root.to_path_buf() } else { root.join(group) };
        let monitor = monitor.map(|name| path.join("mon_groups").join(name));
        serde_json::to_value(RdtGroup { path, ours: true, passing: false, monitor }.stats().unwrap()).unwrap()
    }

    const WHOLE: [(&str, &str); 14] = [
        ("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n"),
        ("info/L3/cbm_mask", "fffff\n"),
        ("info/L3/min_cbm_bits", "2\n"),
        ("info/L3/num_closids", "16\n"),
        ("info/MB/bandwidth_gran", "10\n"),
        ("info/MB/delay_linear", "1\n"),
        ("info/MB/min_bandwidth", "20\n"),
        ("info/MB/num_closids", "8\n"),
        ("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\nmbm_local_bytes\n"),
        ("c1/schemata", "    MB:0=20;1=30\n    L3:0=f;1=ff\n"),
        ("c1/mon_data/mon_L3_01/mbm_total_bytes", "7\n"),
        ("c1/mon_data/mon_L3_00/mbm_total_bytes", "5\n"),
        ("c1/mon_data/mon_L3_00/llc_occupancy", "Unavailable\n"),
        ("c1/mon_groups/c1/mon_data/mon_L3_00/llc_occupancy", "4096\n"),
    ];

    #[test]
    fn everything_that_the_machine_has() {
        let dir = resctrl(&WHOLE);
        let mut want = json!({
            "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 2, "num_closids": 16},
            "l3_cache_schema_root": "L3:0=fffff;1=fffff", "l3_cache_schema": "L3:0=f;1=ff",
            "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 20, "num_closids": 8},
            "mem_bw_schema_root": "MB:0=100;1=100", "mem_bw_schema": "MB:0=20;1=30",
            "schemata": ["MB:0=20;1=30", "L3:0=f;1=ff"],
            "mbm_stats": [{"mbm_total_bytes": 5, "mbm_local_bytes": 0}, {"mbm_total_bytes": 7, "mbm_local_bytes": 0}],
            "cmt_stats": [{"llc_occupancy": 0}, {"llc_occupancy": 0}],
        });
        assert_eq!(told(dir.path(), "c1", None), want);
        want["mbm_stats"] = json!([{"mbm_total_bytes": 0, "mbm_local_bytes": 0}]);
        want["cmt_stats"] = json!([{"llc_occupancy": 4096}]);
        assert_eq!(told(dir.path(), "c1", Some("c1")), want);
    }

    #[test]
    fn what_the_machine_lacks_is_left_out() {
        let cache_alone = resctrl(&[WHOLE[1], ("schemata", "L3:0=fffff\n"), ("c1/schemata", "L3:0=f\n")]);
        let mut want = json!({"l3_cache_info": {"cbm_mask": "fffff"}, "l3_cache_schema_root": "L3:0=fffff",
            "l3_cache_schema": "L3:0=f", "schemata": ["L3:0=f"]});
        assert_eq!(told(cache_alone.path(), "c1", None), want);
        // in the root group
        want["l3_cache_schema"] = json!("L3:0=fffff");
        want["schemata"] = json!(["L3:0=fffff"]);
        assert_eq!(told(cache_alone.path(), "", None), want);
        assert_eq!(told(resctrl(&[]).path(), "c1", None), json!({}), "unmounted meanwhile");
    }
}
