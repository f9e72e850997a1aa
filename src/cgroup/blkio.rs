//! `linux.resources.blockIO`: weights and throttles of disks. v1 calls its controller blkio, v2 calls it io.

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::{Otherwise, Write};
use crate::plan::spec::resources::{BlockIo, ThrottleDevice, WeightDevice};

const WEIGHT: &[(Errno, &str)] =
    &[(Errno::ENOENT, "this kernel has no weights of disk traffic; they come with the BFQ scheduler: modprobe bfq")];
const NO_LEAF_WEIGHT: &str = "this kernel has no leaf weights; they went with the CFQ scheduler in 5.0";
const LEAF_WEIGHT: &[(Errno, &str)] = &[(Errno::ENOENT, NO_LEAF_WEIGHT)];
/// Of io.weight, when there is no io.bfq.weight.
const WEIGHT_V2: &[(Errno, &str)] = &[
    (Errno::ENOENT, "this kernel has no weights of disk traffic; they come with BFQ or CONFIG_BLK_CGROUP_IOCOST"),
    (Errno::ENODEV, "this host has no disk of that number; a partition cannot be weighed"),
    (
        Errno::EOPNOTSUPP,
        "that disk has neither the BFQ scheduler nor io.cost enabled; see io.cost.qos of the root cgroup",
    ),
];
const NO_DISK: &[(Errno, &str)] = &[
    (Errno::ENOENT, "this kernel is built without CONFIG_BLK_DEV_THROTTLING"),
    (Errno::ENODEV, "this host has no disk of that number; a partition cannot be limited"),
];
const WEIGHT_DEVICE: &[(Errno, &str)] = &[WEIGHT[0], NO_DISK[1]];
const LEAF_WEIGHT_DEVICE: &[(Errno, &str)] = &[LEAF_WEIGHT[0], NO_DISK[1]];

pub fn v1(io: &BlockIo) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(weight) = weight("linux.resources.blockIO.weight", io.weight)? {
        writes.push(
            Write::new("linux.resources.blockIO.weight", "blkio.weight", weight)
                .on(Errno::ENOENT, Otherwise::File("blkio.bfq.weight"))
                .meaning(WEIGHT),
        );
    }
    if let Some(weight) = weight("linux.resources.blockIO.leafWeight", io.leaf_weight)? {
        writes.push(Write::new("linux.resources.blockIO.leafWeight", "blkio.leaf_weight", weight).meaning(LEAF_WEIGHT));
    }
    weights_of_devices(io, &mut writes)?;
    for Throttle { field, device, rate, kind } in throttles(io)? {
        // a rate of 0 takes a throttle away
        writes.push(Write::new(field, kind.file_v1(), format_args!("{device} {rate}")).meaning(NO_DISK));
    }
    Ok(writes)
}

pub fn v2(io: &BlockIo) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    if let Some(weight) = weight("linux.resources.blockIO.weight", io.weight)? {
        writes.push(weight_v2("linux.resources.blockIO.weight".into(), "", weight));
    }
    if weight("linux.resources.blockIO.leafWeight", io.leaf_weight)?.is_some() {
        bail!("linux.resources.blockIO.leafWeight: {NO_LEAF_WEIGHT}");
    }
    for (n, device) in io.weight_device.iter().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{n}]");
        let number = weighed(&field, device)?;
        if let Some(weight) = weight(&format!("{field}.weight"), device.weight)? {
            writes.push(weight_v2(format!("{field}.weight"), &format!("{number} "), weight));
        }
        if weight(&format!("{field}.leafWeight"), device.leaf_weight)?.is_some() {
            bail!("{field}.leafWeight: {NO_LEAF_WEIGHT}");
        }
    }
    for Throttle { field, device, rate, kind } in throttles(io)? {
        let rate = if rate == 0 { "max".to_string() } else { rate.to_string() };
        writes.push(Write::new(field, "io.max", format_args!("{device} {}={rate}", kind.key_v2())).meaning(NO_DISK));
    }
    Ok(writes)
}

/// BFQ has the spec's own range; io.weight goes from 1 to 10000.
fn weight_v2(field: String, device: &str, weight: u16) -> Write {
    let scaled = format!("{device}{}", 1 + (u32::from(weight) - 10) * 9999 / 990);
    Write::new(field, "io.bfq.weight", format_args!("{device}{weight}"))
        // BFQ is there, but not for this disk
        .on_if(!device.is_empty(), Errno::EOPNOTSUPP, Otherwise::Other("io.weight", scaled.clone()))
        .on(Errno::ENOENT, Otherwise::Other("io.weight", scaled))
        .meaning(WEIGHT_V2)
}

struct Throttle {
    field: String,
    device: String,
    rate: u64,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    ReadBytes,
    WriteBytes,
    ReadCalls,
    WriteCalls,
}

impl Kind {
    fn file_v1(self) -> &'static str {
        match self {
            Self::ReadBytes => "blkio.throttle.read_bps_device",
            Self::WriteBytes => "blkio.throttle.write_bps_device",
            Self::ReadCalls => "blkio.throttle.read_iops_device",
            Self::WriteCalls => "blkio.throttle.write_iops_device",
        }
    }

    fn key_v2(self) -> &'static str {
        match self {
            Self::ReadBytes => "rbps",
            Self::WriteBytes => "wbps",
            Self::ReadCalls => "riops",
            Self::WriteCalls => "wiops",
        }
    }
}

fn throttles(io: &BlockIo) -> Result<Vec<Throttle>> {
    let mut throttles = Vec::new();
    for (name, devices, kind) in [
        ("throttleReadBpsDevice", &io.throttle_read_bps_device, Kind::ReadBytes),
        ("throttleWriteBpsDevice", &io.throttle_write_bps_device, Kind::WriteBytes),
        ("throttleReadIOPSDevice", &io.throttle_read_iops_device, Kind::ReadCalls),
        ("throttleWriteIOPSDevice", &io.throttle_write_iops_device, Kind::WriteCalls),
    ] {
        for (n, ThrottleDevice { major, minor, rate }) in devices.iter().enumerate() {
            let field = format!("linux.resources.blockIO.{name}[{n}]");
            let device = number(&field, *major, *minor)?;
            throttles.push(Throttle { field, device, rate: *rate, kind });
        }
    }
    Ok(throttles)
}

fn weights_of_devices(io: &BlockIo, writes: &mut Vec<Write>) -> Result<()> {
    for (n, device) in io.weight_device.iter().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{n}]");
        let number = weighed(&field, device)?;
        if let Some(weight) = weight(&format!("{field}.weight"), device.weight)? {
            writes.push(
                Write::new(format!("{field}.weight"), "blkio.weight_device", format_args!("{number} {weight}"))
                    .on(Errno::ENOENT, Otherwise::File("blkio.bfq.weight_device"))
                    .meaning(WEIGHT_DEVICE),
            );
        }
        if let Some(weight) = weight(&format!("{field}.leafWeight"), device.leaf_weight)? {
            let field = format!("{field}.leafWeight");
            writes.push(
                Write::new(field, "blkio.leaf_weight_device", format_args!("{number} {weight}"))
                    .meaning(LEAF_WEIGHT_DEVICE),
            );
        }
    }
    Ok(())
}

/// Docker sends 0 for "not set".
fn weight(field: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(weight @ 10..=1000) => Ok(Some(weight)),
        Some(weight) => bail!("{field}: {weight} is outside 10 to 1000"),
    }
}

/// The disk that is meant.
fn weighed(field: &str, device: &WeightDevice) -> Result<String> {
    if device.weight.is_none() && device.leaf_weight.is_none() {
        bail!("{field}: weighs nothing; give weight, leafWeight or both");
    }
    number(field, device.major, device.minor)
}

fn number(field: &str, major: i64, minor: i64) -> Result<String> {
    if major < 0 || minor < 0 {
        bail!("{field}: {major}:{minor} is no number of a disk");
    }
    Ok(format!("{major}:{minor}"))
}

#[cfg(test)]
mod tests {
    use super::super::write::shown;
    use super::*;

    fn device(weight: Option<u16>, leaf_weight: Option<u16>) -> BlockIo {
        let weight_device = vec![WeightDevice { major: 8, minor: 16, weight, leaf_weight }];
        BlockIo { weight_device, ..BlockIo::default() }
    }

    fn throttle(major: i64, minor: i64, rate: u64) -> BlockIo {
        BlockIo { throttle_read_bps_device: vec![ThrottleDevice { major, minor, rate }], ..BlockIo::default() }
    }

    #[test]
    fn values() {
        let bfq = |value: &str| format!("blkio.weight = {value}; ENOENT: blkio.bfq.weight");
        let bfq_device = |value: &str| format!("blkio.weight_device = {value}; ENOENT: blkio.bfq.weight_device");
        let weights = |weight, leaf_weight| BlockIo { weight, leaf_weight, ..BlockIo::default() };
        let throttles = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
        let all_throttles = BlockIo {
            throttle_read_bps_device: throttles(1),
            throttle_write_bps_device: throttles(2),
            throttle_read_iops_device: throttles(3),
            throttle_write_iops_device: throttles(u64::MAX),
            ..BlockIo::default()
        };
        for (io, want) in [
            (BlockIo::default(), vec![]),
            (weights(Some(0), Some(0)), vec![]),
            (weights(Some(10), None), vec![bfq("10")]),
            (weights(Some(1000), Some(10)), vec![bfq("1000"), "blkio.leaf_weight = 10".into()]),
            (device(Some(0), Some(0)), vec![]),
            (device(Some(500), None), vec![bfq_device("8:16 500")]),
            (device(None, Some(20)), vec!["blkio.leaf_weight_device = 8:16 20".into()]),
            (throttle(8, 0, 0), vec!["blkio.throttle.read_bps_device = 8:0 0".into()]),
            (
                all_throttles,
                vec![
                    "blkio.throttle.read_bps_device = 8:0 1".into(),
                    "blkio.throttle.write_bps_device = 8:0 2".into(),
                    "blkio.throttle.read_iops_device = 8:0 3".into(),
                    "blkio.throttle.write_iops_device = 8:0 18446744073709551615".into(),
                ],
            ),
        ] {
            assert_eq!(shown(v1(&io)), Ok(want), "{io:?}");
        }
    }

    #[test]
    fn bad_values() {
        for (io, says) in [
            (BlockIo { weight: Some(9), ..BlockIo::default() }, "linux.resources.blockIO.weight: 9 is outside"),
            (BlockIo { weight: Some(1001), ..BlockIo::default() }, "linux.resources.blockIO.weight: 1001 is outside"),
            (BlockIo { leaf_weight: Some(1), ..BlockIo::default() }, "linux.resources.blockIO.leafWeight: 1 is"),
            (device(None, None), "linux.resources.blockIO.weightDevice[0]: weighs nothing"),
            (device(Some(1), None), "linux.resources.blockIO.weightDevice[0].weight: 1 is outside"),
            (device(None, Some(u16::MAX)), "linux.resources.blockIO.weightDevice[0].leafWeight: 65535 is outside"),
            (throttle(-1, 0, 1), "linux.resources.blockIO.throttleReadBpsDevice[0]: -1:0 is no number"),
        ] {
            let error = shown(v1(&io)).unwrap_err();
            assert!(error.starts_with(says), "{io:?}: {error}");
        }
    }

    #[test]
    fn values_of_v2() {
        let weights = |weight, leaf_weight| BlockIo { weight, leaf_weight, ..BlockIo::default() };
        let throttles = |rate| vec![ThrottleDevice { major: 8, minor: 0, rate }];
        let all_throttles = BlockIo {
            throttle_read_bps_device: throttles(1),
            throttle_write_bps_device: throttles(2),
            throttle_read_iops_device: throttles(3),
            throttle_write_iops_device: throttles(0),
            ..BlockIo::default()
        };
        for (io, want) in [
            (BlockIo::default(), vec![]),
            (weights(Some(0), Some(0)), vec![]),
            (weights(Some(10), None), vec!["io.bfq.weight = 10; ENOENT: io.weight = 1"]),
            (weights(Some(100), None), vec!["io.bfq.weight = 100; ENOENT: io.weight = 910"]),
            (weights(Some(1000), None), vec!["io.bfq.weight = 1000; ENOENT: io.weight = 10000"]),
            (
                device(Some(500), None),
                vec!["io.bfq.weight = 8:16 500; EOPNOTSUPP: io.weight = 8:16 4950; ENOENT: io.weight = 8:16 4950"],
            ),
            (device(Some(0), Some(0)), vec![]),
            (
                all_throttles,
                vec!["io.max = 8:0 rbps=1", "io.max = 8:0 wbps=2", "io.max = 8:0 riops=3", "io.max = 8:0 wiops=max"],
            ),
        ] {
            assert_eq!(shown(v2(&io)), Ok(want.iter().map(|w| w.to_string()).collect()), "{io:?}");
        }
        for (io, says) in [
            (weights(Some(9), None), "linux.resources.blockIO.weight: 9 is outside"),
            (weights(None, Some(10)), "linux.resources.blockIO.leafWeight: this kernel has no leaf weights"),
            (device(None, Some(20)), "linux.resources.blockIO.weightDevice[0].leafWeight: this kernel has no leaf"),
            (device(Some(1001), None), "linux.resources.blockIO.weightDevice[0].weight: 1001 is outside"),
            (throttle(0, -1, 1), "linux.resources.blockIO.throttleReadBpsDevice[0]: 0:-1 is no number"),
        ] {
            let error = shown(v2(&io)).unwrap_err();
            assert!(error.starts_with(says), "{io:?}: {error}");
        }
    }
}
