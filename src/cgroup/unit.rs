//! The unit that systemd is asked for, where it owns the cgroups: whatever of a plan it can be told. Pure.

use anyhow::Result;
use serde::{Serialize, Serializer};

use super::create::NewCgroup;
use super::properties::{Facts, of_writes};
use super::{CgroupPlan, HierarchyPlan, Version, Write, device_properties};
use crate::plan::spec::resources::DeviceRule;
use crate::plan::unit::Unit;
use crate::systemd::{Property, Value};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UnitPlan {
    #[serde(flatten)]
    pub unit: Unit,
    /// When it is made.
    #[serde(serialize_with = "as_text")]
    pub properties: Vec<Property>,
    /// When init has set itself up.
    #[serde(serialize_with = "as_text", skip_serializing_if = "Vec::is_empty")]
    pub last: Vec<Property>,
}

/// What a unit depends on besides its limits.
pub struct Surroundings<'a> {
    pub container: &'a str,
    /// Of the systemd that runs.
    pub version: u32,
    /// An ordinary user's systemd can keep nobody from a device.
    pub of_user: bool,
    /// The kernel has weights of BFQ.
    pub bfq: bool,
    /// /proc/devices
    pub known_devices: &'a str,
    /// What the config asks for by annotations, and may.
    pub annotated: Vec<Property>,
}

impl UnitPlan {
    pub fn new(unit: Unit, cgroup: &CgroupPlan, devices: &[DeviceRule], around: &Surroundings) -> Result<Self> {
        let mut properties = what_it_is(&unit, around);
        properties.extend(accounting(cgroup, around.version));
        let writes = |writes: fn(&HierarchyPlan) -> &Vec<Write>| {
            let facts = Facts { version: around.version, bfq: around.bfq, current: &|_| None };
            let each = cgroup.hierarchies.iter();
            each.flat_map(|hierarchy| of_writes(hierarchy.version, writes(hierarchy), &facts)).collect::<Vec<_>>()
        };
        let limits = writes(|hierarchy| &hierarchy.before);
        if around.version >= 227 && !limits.iter().any(|(name, _)| name == "TasksMax") {
            // else it is some share of what the machine can have
            properties.push(("TasksMax".into(), Value::U64(u64::MAX)));
        }
        properties.extend(limits);
        if !around.of_user {
            let in_v1 = cgroup.hierarchies.iter().any(|h| h.controllers.iter().any(|own| own == "devices"));
            let version = if in_v1 { Version::V1 } else { Version::V2 };
            properties.extend(device_properties::of_rules(devices, version, around.known_devices)?);
        }
        properties.extend(around.annotated.iter().cloned());
        Ok(Self { unit, properties, last: writes(|hierarchy| &hierarchy.last) })
    }
}

/// What systemd must be told of writes to cgroups that stand, once they are done.
pub fn changed_properties(
    plan: &CgroupPlan,
    wanted: impl Fn(&Write) -> bool,
    version: u32,
    bfq: bool,
) -> Result<Vec<Property>> {
    let mut properties = Vec::new();
    for hierarchy in &plan.hierarchies {
        let writes: Vec<&Write> =
            hierarchy.before.iter().chain(&hierarchy.last).filter(|write| wanted(write)).collect();
        if writes.is_empty() {
            continue;
        }
        let directory = NewCgroup::open(hierarchy)?.directory;
        let facts = Facts { version, bfq, current: &|file| directory.read(file).ok() };
        properties.extend(of_writes(hierarchy.version, writes, &facts));
    }
    properties.retain(is_settable);
    Ok(properties)
}

/// While the unit runs, systemd takes no other policy.
pub(super) fn is_settable((name, _): &Property) -> bool {
    name != "OOMPolicy"
}

/// Whether systemd of that version writes the file anew with every change of a property, from what it knows roughly or not
/// at all.
pub fn is_overwritten(write: &Write, version: u32) -> bool {
    match &*write.file {
        // in whole percents; none is 1
        "cpu.max" | "cpu.cfs_quota_us" | "cpu.cfs_period_us" | "pids.max" => true,
        // as the weight that it has by default
        "cpu.weight.nice" => true,
        "memory.oom.group" => version < 253,
        _ => false,
    }
}

/// Before the container's id.
const DESCRIPTION: &str = "rrun container ";

impl UnitPlan {
    /// Whether a unit that says so of itself is one of rrun's: this one, as an annotation may have it described, too.
    pub fn is_described(&self, description: &str) -> bool {
        let of_this =
            |(name, value): &Property| name == "Description" && *value == Value::text(description.to_string());
        description.starts_with(DESCRIPTION) || self.properties.iter().any(of_this)
    }
}

fn what_it_is(unit: &Unit, around: &Surroundings) -> Vec<Property> {
    let property = |name: &str, value: Value| (name.to_string(), value);
    let mut properties = vec![
        property("Description", Value::text(format!("{DESCRIPTION}{}", around.container))),
        // none that would end it before the rest of the system is shut down, or wait for that to have come up
        property("DefaultDependencies", Value::Bool(false)),
    ];
    match unit.is_slice() {
        // which slice is above it, its own name says
        true => properties.push(property("Wants", Value::texts([unit.slice.clone()]))),
        false => {
            properties.push(property("Slice", Value::text(unit.slice.clone())));
            // what lies below, and which controllers are there, systemd leaves to us
            properties.push(property("Delegate", Value::Bool(true)));
        }
    }
    if around.version >= 236 {
        // whatever becomes of it, systemd forgets it when it is empty
        properties.push(property("CollectMode", Value::text("inactive-or-failed")));
    }
    properties
}

fn accounting(cgroup: &CgroupPlan, version: u32) -> Vec<Property> {
    let io = match cgroup.hierarchies.iter().any(|h| h.controllers.iter().any(|own| own == "blkio")) {
        true => ("BlockIOAccounting", 0),
        false => ("IOAccounting", 230),
    };
    let all = [("CPUAccounting", 0), ("MemoryAccounting", 0), ("TasksAccounting", 227), io];
    let known = all.into_iter().filter(|(_, since)| version >= *since);
    known.map(|(name, _)| (name.to_string(), Value::Bool(true))).collect()
}

fn as_text<S: Serializer>(properties: &[Property], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(properties.iter().map(|(name, value)| format!("{name} = {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup;
    use crate::host::cgroups::{CgroupLayout, Hierarchy, Unified};
    use crate::plan::spec::resources::Resources;
    use serde_json::json;

    fn layout(v1: &[&str], v2: Option<&[&str]>) -> CgroupLayout {
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let hierarchy = |names: &&str| Hierarchy {
            controllers: words(&names.split(',').collect::<Vec<_>>()),
            mountpoint: format!("/cg/{names}").into(),
            root: "/".into(),
            own: "/".into(),
        };
        let tree = |controllers: &[&str]| Unified {
            mountpoint: "/cg".into(),
            root: "/".into(),
            own: "/".into(),
            controllers: words(controllers),
        };
        CgroupLayout { v1: v1.iter().map(hierarchy).collect(), v2: v2.map(tree) }
    }

    fn plan(path: &str, layout: &CgroupLayout, version: u32, of_user: bool) -> UnitPlan {
        let resources: Resources = serde_json::from_value(json!({
            "memory": {"limit": 4096}, "pids": {"limit": 5}, "devices": [{"allow": true, "access": "rwm"}],
        }))
        .unwrap();
        let unit = Unit::new("c1", Some(path), of_user).unwrap();
        let at = format!("/{}", unit.cgroup().unwrap().display());
        let cgroup = cgroup::plan("c1", Some(&at), &resources, layout).unwrap();
        let annotated = vec![("TimeoutStopUSec".to_string(), Value::U64(7))];
        let around = Surroundings { container: "c1", version, of_user, bfq: false, known_devices: "", annotated };
        UnitPlan::new(unit, &cgroup, &resources.devices, &around).unwrap()
    }

    #[test]
    fn what_systemd_is_told() {
        let v2 = layout(&[], Some(&["cpu", "io", "memory", "pids"]));
        let hybrid = layout(&["cpu,cpuacct", "blkio", "memory", "devices", "pids", "name=systemd"], Some(&[]));
        for (path, layout, version, of_user, want) in [
            (
                "a-b.slice:rrun:c1",
                &v2,
                252,
                false,
                json!({
                    "name": "rrun-c1.scope",
                    "slice": "a-b.slice",
                    "properties": [
                        "Description = rrun container c1", "DefaultDependencies = false", "Slice = a-b.slice",
                        "Delegate = true", "CollectMode = inactive-or-failed", "CPUAccounting = true",
                        "MemoryAccounting = true", "TasksAccounting = true", "IOAccounting = true", "TasksMax = 5",
                        "DevicePolicy = auto", "DeviceAllow = []", "TimeoutStopUSec = 7",
                    ],
                    "last": ["MemoryMax = 4096"],
                }),
            ),
            (
                ":rrun:c1",
                &hybrid,
                219,
                false,
                json!({
                    "name": "rrun-c1.scope",
                    "slice": "system.slice",
                    "properties": [
                        "Description = rrun container c1", "DefaultDependencies = false", "Slice = system.slice",
                        "Delegate = true", "CPUAccounting = true", "MemoryAccounting = true",
                        "BlockIOAccounting = true", "DevicePolicy = auto", "DeviceAllow = []", "TimeoutStopUSec = 7",
                    ],
                    "last": ["MemoryLimit = 4096"],
                }),
            ),
            (
                "a.slice::a-c1.slice",
                &v2,
                235,
                true,
                json!({
                    "name": "a-c1.slice",
                    "slice": "a.slice",
                    "properties": [
                        "Description = rrun container c1", "DefaultDependencies = false", "Wants = [a.slice]",
                        "CPUAccounting = true", "MemoryAccounting = true", "TasksAccounting = true",
                        "IOAccounting = true", "TasksMax = 5", "TimeoutStopUSec = 7",
                    ],
                    "last": ["MemoryMax = 4096"],
                }),
            ),
        ] {
            let got = serde_json::to_value(plan(path, layout, version, of_user)).unwrap();
            assert_eq!(got, want, "{path} of {version}");
        }
    }

    #[test]
    fn what_systemd_writes_otherwise() {
        for (file, older, newer) in [
            ("cpu.max", true, true),
            ("cpu.cfs_quota_us", true, true),
            ("pids.max", true, true),
            ("cpu.weight.nice", true, true),
            ("memory.oom.group", true, false),
            ("memory.max", false, false),
            ("cpu.max.burst", false, false),
            ("cpuset.cpus", false, false),
        ] {
            let write = Write::new("f", file, "1");
            assert_eq!((is_overwritten(&write, 252), is_overwritten(&write, 253)), (older, newer), "{file}");
        }
    }
}
