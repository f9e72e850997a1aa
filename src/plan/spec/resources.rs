//! `linux.resources` by the spec's names. Only shapes: what the values mean is decided in src/cgroup, one file a
//! controller. As in all of config.json, `null` means absent and unknown keys are ignored.

use serde::{Deserialize, Deserializer};

use super::document::{Table, from_object};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Resources {
    /// `None` and an empty list mean the same: the default list alone.
    #[serde(deserialize_with = "null_is_empty")]
    pub devices: Vec<DeviceRule>,
    #[serde(deserialize_with = "null_is_empty")]
    pub memory: Memory,
    #[serde(deserialize_with = "null_is_empty")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "null_is_empty")]
    pub pids: Pids,
    #[serde(rename = "blockIO", deserialize_with = "null_is_empty")]
    pub block_io: BlockIo,
    #[serde(rename = "hugepageLimits", deserialize_with = "null_is_empty")]
    pub hugepage_limits: Vec<HugepageLimit>,
    #[serde(deserialize_with = "null_is_empty")]
    pub network: Network,
    pub rdma: Table<Rdma>,
    pub unified: Table<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct DeviceRule {
    #[serde(deserialize_with = "null_is_empty")]
    pub allow: bool,
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub access: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default, rename_all = "camelCase")]
pub struct Memory {
    pub limit: Option<i64>,
    pub reservation: Option<i64>,
    /// Memory and swap together.
    pub swap: Option<i64>,
    pub kernel: Option<i64>,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Option<i64>,
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub disable_oom_killer: Option<bool>,
    pub use_hierarchy: Option<bool>,
    pub check_before_update: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default, rename_all = "camelCase")]
pub struct Cpu {
    pub shares: Option<u64>,
    pub quota: Option<i64>,
    pub burst: Option<u64>,
    pub period: Option<u64>,
    pub realtime_runtime: Option<i64>,
    pub realtime_period: Option<u64>,
    pub cpus: Option<String>,
    pub mems: Option<String>,
    pub idle: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Pids {
    /// Since spec 1.3 absent and 0 differ.
    pub limit: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default, rename_all = "camelCase")]
pub struct BlockIo {
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
    #[serde(deserialize_with = "null_is_empty")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "null_is_empty")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "null_is_empty")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "null_is_empty")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "null_is_empty")]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    pub weight: Option<u16>,
    pub leaf_weight: Option<u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase")]
pub struct HugepageLimit {
    pub page_size: String,
    pub limit: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default)]
pub struct Network {
    #[serde(rename = "classID")]
    pub class_id: Option<u32>,
    #[serde(deserialize_with = "null_is_empty")]
    pub priorities: Vec<InterfacePriority>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self")]
pub struct InterfacePriority {
    pub name: String,
    pub priority: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(remote = "Self", default, rename_all = "camelCase")]
pub struct Rdma {
    pub hca_handles: Option<u32>,
    pub hca_objects: Option<u32>,
}

from_object!(
    Resources,
    DeviceRule,
    Memory,
    Cpu,
    Pids,
    BlockIo,
    WeightDevice,
    ThrottleDevice,
    HugepageLimit,
    Network,
    InterfacePriority,
    Rdma
);

/// Go's encoder, which wrote most of the world's config.json files, says `null` for an empty list or section.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn read(value: serde_json::Value) -> Resources {
        from_value(value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"))
    }

    #[test]
    fn null_means_absent_everywhere() {
        let empty = Resources::default();
        for value in [
            json!({}),
            json!({"devices": null, "memory": null, "cpu": null, "pids": null, "blockIO": null, "hugepageLimits": null,
                   "network": null, "rdma": null, "unified": null}),
            json!({"devices": [], "memory": {}, "cpu": {}, "pids": {}, "blockIO": {}, "hugepageLimits": [],
                   "network": {}, "rdma": {}, "unified": {}}),
            json!({"memory": {"limit": null, "swappiness": null, "disableOOMKiller": null}, "pids": {"limit": null},
                   "cpu": {"cpus": null, "shares": null}, "blockIO": {"weight": null, "weightDevice": null,
                   "throttleReadBpsDevice": null}, "network": {"classID": null, "priorities": null}}),
            json!({"someday": {"x": 1}, "memory": {"later": true}}),
        ] {
            assert_eq!(read(value.clone()), empty, "{value}");
        }
    }

    #[test]
    fn every_name_of_the_spec_is_read() {
        let all = read(json!({
            "devices": [{"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"}, {"allow": false}],
            "memory": {"limit": 1, "reservation": 2, "swap": -1, "kernel": 4, "kernelTCP": 5, "swappiness": 6,
                       "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true},
            "cpu": {"shares": 1, "quota": -2, "burst": 3, "period": 4, "realtimeRuntime": 5, "realtimePeriod": 6,
                    "cpus": "0-1", "mems": "0", "idle": 1},
            "pids": {"limit": 0},
            "blockIO": {"weight": 1, "leafWeight": 2, "weightDevice": [{"major": 8, "minor": 0, "weight": 3, "leafWeight": 4}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 6}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 7}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 8}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": u64::MAX}],
            "network": {"classID": 9, "priorities": [{"name": "eth0", "priority": 10}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"memory.high": "1"},
        }));
        let device = |allow, kind: Option<&str>, major, minor, access: Option<&str>| DeviceRule {
            allow,
            kind: kind.map(Into::into),
            major,
            minor,
            access: access.map(Into::into),
        };
        let throttle = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
        let want = Resources {
            devices: vec![
                device(true, Some("c"), Some(1), Some(3), Some("rwm")),
                device(false, None, None, None, None),
            ],
            memory: Memory {
                limit: Some(1),
                reservation: Some(2),
                swap: Some(-1),
                kernel: Some(4),
                kernel_tcp: Some(5),
                swappiness: Some(6),
                disable_oom_killer: Some(true),
                use_hierarchy: Some(true),
                check_before_update: Some(true),
            },
            cpu: Cpu {
                shares: Some(1),
                quota: Some(-2),
                burst: Some(3),
                period: Some(4),
                realtime_runtime: Some(5),
                realtime_period: Some(6),
                cpus: Some("0-1".into()),
                mems: Some("0".into()),
                idle: Some(1),
            },
            pids: Pids { limit: Some(0) },
            block_io: BlockIo {
                weight: Some(1),
                leaf_weight: Some(2),
                weight_device: vec![WeightDevice { major: 8, minor: 0, weight: Some(3), leaf_weight: Some(4) }],
                throttle_read_bps_device: throttle(5),
                throttle_write_bps_device: throttle(6),
                throttle_read_iops_device: throttle(7),
                throttle_write_iops_device: throttle(8),
            },
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: u64::MAX }],
            network: Network {
                class_id: Some(9),
                priorities: vec![InterfacePriority { name: "eth0".into(), priority: 10 }],
            },
            rdma: [("mlx5_1".to_string(), Rdma { hca_handles: Some(3), hca_objects: Some(10000) })].into(),
            unified: [("memory.high".to_string(), "1".to_string())].into(),
        };
        assert_eq!(all, want);
    }

    #[test]
    fn wrong_types_and_missing_parts_are_errors() {
        for (value, says) in [
            (json!({"memory": {"limit": "1G"}}), "invalid type: string"),
            (json!({"cpu": {"shares": -1}}), "invalid value: integer `-1`"),
            (json!({"pids": {"limit": 1.5}}), "invalid type: floating point"),
            (json!({"hugepageLimits": [{"limit": 1}]}), "missing field `pageSize`"),
            (json!({"blockIO": {"throttleReadBpsDevice": [{"major": 8, "rate": 1}]}}), "missing field `minor`"),
            (json!({"blockIO": {"weight": 65536}}), "invalid value: integer `65536`"),
        ] {
            let error = from_value::<Resources>(value.clone()).unwrap_err().to_string();
            assert!(error.contains(says), "{value}: {error}");
        }
    }

    /// What derive makes would take a list for the values of an object, in order: a limit for another.
    #[test]
    fn a_list_is_no_object() {
        for value in [
            json!([]),
            json!({"memory": [67108864]}),
            json!({"cpu": []}),
            json!({"pids": [1]}),
            json!({"blockIO": [500]}),
            json!({"network": []}),
            json!({"rdma": []}),
            json!({"rdma": {"mlx5_1": [3]}}),
            json!({"unified": []}),
            json!({"devices": [[true]]}),
            json!({"hugepageLimits": [["2MB", 1]]}),
            json!({"blockIO": {"weightDevice": [[8, 0, 1, 2]]}}),
            json!({"blockIO": {"throttleReadBpsDevice": [[8, 0, 1]]}}),
            json!({"network": {"priorities": [["lo", 1]]}}),
        ] {
            let error = from_value::<Resources>(value.clone()).unwrap_err().to_string();
            assert!(error.ends_with("expected an object"), "{value}: {error}");
        }
    }
}
