//! What systemd must know of a container's limits: the writes of a plan → properties of its unit. systemd sets its own
//! values again when it is reloaded, so what stands only in a file could be lost. Pure.
//!
//! Each property with the version that brought it (systemd's NEWS); an older one is told by the file alone, as are values
//! that it has no property for and so leaves alone.

use super::Version;
use super::cpuset;
use super::write::{Otherwise, Write};
use crate::systemd::{Property, Value};

/// What a property depends on besides the value.
pub struct Facts<'a> {
    /// Of the systemd that runs.
    pub version: u32,
    /// The kernel has weights of BFQ, whose range is another one.
    pub bfq: bool,
    /// What a file of the cgroup says now, where there is a cgroup already.
    pub current: &'a dyn Fn(&str) -> Option<String>,
}

/// systemd's word for "max".
const INFINITY: u64 = u64::MAX;
/// Of a cgroup that nobody has told otherwise: Documentation/admin-guide/cgroup-v2.rst, cpu.max.
const USUAL_PERIOD: u64 = 100_000;
/// systemd keeps whole percents over a reload, so it is given the next one above.
const PERCENT: u64 = 10_000;

/// Of those writes of one hierarchy that are `wanted`.
pub fn of_writes<'w>(hierarchy: Version, writes: impl IntoIterator<Item = &'w Write>, facts: &Facts) -> Vec<Property> {
    let mut said = Said { facts, properties: Vec::new() };
    let writes: Vec<&Write> = writes.into_iter().collect();
    match hierarchy {
        Version::V1 => said.bandwidth_v1(&writes),
        Version::V2 => said.bandwidth_v2(&writes),
    }
    for write in writes {
        match hierarchy {
            Version::V1 => said.v1(write),
            Version::V2 => said.v2(write),
        }
    }
    said.properties
}

struct Said<'a> {
    facts: &'a Facts<'a>,
    properties: Vec<Property>,
}

impl Said<'_> {
    fn say(&mut self, since: u32, name: &str, value: Value) {
        if self.facts.version >= since {
            self.properties.push((name.into(), value));
        }
    }

    /// A number, or no limit; what is neither only the kernel understands.
    fn number(&mut self, since: u32, name: &str, value: &str) {
        if let Some(number) = number(value) {
            self.say(since, name, Value::U64(number));
        }
    }

    fn v2(&mut self, write: &Write) {
        let value = write.value.trim();
        match &*write.file {
            "cpu.weight" => self.number(232, "CPUWeight", value),
            "cpu.idle" if value == "1" => self.say(252, "CPUWeight", Value::U64(0)),
            "cpuset.cpus" => self.list(244, "AllowedCPUs", value),
            "cpuset.mems" => self.list(244, "AllowedMemoryNodes", value),
            "memory.max" => self.number(231, "MemoryMax", value),
            "memory.high" => self.number(231, "MemoryHigh", value),
            "memory.low" => self.number(231, "MemoryLow", value),
            "memory.min" => self.number(240, "MemoryMin", value),
            "memory.swap.max" => self.number(232, "MemorySwapMax", value),
            "memory.zswap.max" => self.number(253, "MemoryZSwapMax", value),
            "memory.oom.group" => {
                self.say(253, "OOMPolicy", Value::text(if value == "1" { "kill" } else { "continue" }))
            }
            "pids.max" => self.pids(value),
            "io.bfq.weight" | "io.weight" => self.io_weight(write),
            "io.max" => self.io_max(value),
            _ => {}
        }
    }

    fn v1(&mut self, write: &Write) {
        let value = write.value.trim();
        match &*write.file {
            "cpu.shares" => self.number(0, "CPUShares", value),
            "memory.limit_in_bytes" => self.number(0, "MemoryLimit", value),
            "pids.max" => self.pids(value),
            "blkio.weight" => self.number(0, "BlockIOWeight", value),
            "blkio.weight_device" => self.of_device(0, "BlockIODeviceWeight", value),
            "blkio.throttle.read_bps_device" => self.of_device(0, "BlockIOReadBandwidth", value),
            "blkio.throttle.write_bps_device" => self.of_device(0, "BlockIOWriteBandwidth", value),
            _ => {}
        }
    }

    /// systemd knows no limit of 0. With 1, init may not fork either.
    fn pids(&mut self, value: &str) {
        if let Some(number) = number(value) {
            self.say(227, "TasksMax", Value::U64(number.max(1)));
        }
    }

    fn bandwidth_v2(&mut self, writes: &[&Write]) {
        let Some(write) = writes.iter().rev().find(|write| write.file == "cpu.max") else { return };
        let mut words = write.value.split_ascii_whitespace();
        let (Some(quota), period) = (words.next().and_then(number), words.next().and_then(number)) else { return };
        let now = || (self.facts.current)("cpu.max")?.split_ascii_whitespace().nth(1)?.parse().ok();
        self.bandwidth(Some(quota), period, now());
    }

    fn bandwidth_v1(&mut self, writes: &[&Write]) {
        let written = |file: &str| writes.iter().rev().find(|write| write.file == file).and_then(|w| number(&w.value));
        let now = |file: &str| (self.facts.current)(file).and_then(|text| number(&text));
        let (quota, period) = (written("cpu.cfs_quota_us"), written("cpu.cfs_period_us"));
        let before = now("cpu.cfs_period_us");
        // of another period the same quota is another share
        self.bandwidth(quota.or_else(|| period.and(now("cpu.cfs_quota_us"))), period, before);
    }

    fn bandwidth(&mut self, quota: Option<u64>, period: Option<u64>, period_before: Option<u64>) {
        if let Some(quota) = quota {
            let length = period.or(period_before).unwrap_or(USUAL_PERIOD).max(1);
            let per_second = match quota {
                INFINITY => INFINITY,
                // nobody has so many processors
                quota => {
                    let share = quota.saturating_mul(1_000_000) / length;
                    share.checked_next_multiple_of(PERCENT).unwrap_or(INFINITY)
                }
            };
            self.say(213, "CPUQuotaPerSecUSec", Value::U64(per_second));
        }
        if let Some(period) = period {
            self.say(242, "CPUQuotaPeriodUSec", Value::U64(period));
        }
    }

    /// CPUs or memory nodes as bits, the lowest byte first.
    fn list(&mut self, since: u32, name: &str, list: &str) {
        let mut bytes = Vec::new();
        for number in cpuset::numbers(list).unwrap_or_default() {
            let (byte, bit) = (number as usize / 8, number % 8);
            if bytes.len() <= byte {
                bytes.resize(byte + 1, 0);
            }
            bytes[byte] |= 1 << bit;
        }
        // none are all
        if !bytes.is_empty() || list.is_empty() {
            self.say(since, name, Value::Bytes(bytes));
        }
    }

    /// systemd makes both weights of one: io.weight as it is, and of it BFQ's, on a line through 100 and 1000.
    fn io_weight(&mut self, write: &Write) {
        let scaled = write.otherwise.iter().find_map(|(_, otherwise)| match otherwise {
            Otherwise::Other("io.weight", value) => Some(value.as_str()),
            _ => None,
        });
        let of_bfq = self.facts.bfq && write.file == "io.bfq.weight";
        let value = if of_bfq { &write.value } else { scaled.unwrap_or(&write.value) };
        let (device, weight) = match value.trim().split_once(' ') {
            None | Some(("default", _)) => (None, value.trim().trim_start_matches("default ")),
            Some((device, weight)) => (Some(device), weight),
        };
        let Some(weight) = number(weight) else { return };
        let weight =
            if of_bfq && weight > 100 { (weight - 100).saturating_mul(11).saturating_add(100) } else { weight };
        match device {
            None => self.say(230, "IOWeight", Value::U64(weight)),
            Some(device) => self.of_device(230, "IODeviceWeight", &format!("{device} {weight}")),
        }
    }

    /// `8:0 rbps=1048576 wiops=max`
    fn io_max(&mut self, value: &str) {
        let Some((device, limits)) = value.split_once(' ') else { return };
        for (key, limit) in limits.split_ascii_whitespace().filter_map(|limit| limit.split_once('=')) {
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                _ => continue,
            };
            self.of_device(230, name, &format!("{device} {limit}"));
        }
    }

    /// `8:0 500`. Several are one list.
    fn of_device(&mut self, since: u32, name: &str, value: &str) {
        let Some((device, value)) = value.split_once(' ') else { return };
        let Some(value) = number(value) else { return };
        let entry = Value::Pair(format!("/dev/block/{device}"), Box::new(Value::U64(value)));
        match self.properties.iter_mut().find(|(own, _)| own == name) {
            Some((_, Value::List(_, entries))) => entries.push(entry),
            _ => self.say(since, name, Value::List("(st)", vec![entry])),
        }
    }
}

/// `max`, `-1`, `1048576`; and with a unit behind it, as the kernel takes it in `unified`.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    if matches!(text, "max" | "-1" | "infinity") {
        return Some(INFINITY);
    }
    let shift = match text.as_bytes().last()? {
        b'k' | b'K' => 10,
        b'm' | b'M' => 20,
        b'g' | b'G' => 30,
        b't' | b'T' => 40,
        _ => 0,
    };
    let digits = if shift == 0 { text } else { &text[..text.len() - 1] };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(properties: &[Property]) -> Vec<String> {
        let value = |value: &Value| match value {
            Value::U64(INFINITY) => "∞".to_string(),
            Value::U64(number) => number.to_string(),
            Value::Text(text) => text.clone(),
            Value::Bytes(bytes) => format!("{bytes:x?}"),
            Value::List(_, entries) => {
                let pair = |entry: &Value| match entry {
                    Value::Pair(device, limit) => match **limit {
                        Value::U64(limit) => format!("{device} {limit}"),
                        _ => panic!("{entry:?}"),
                    },
                    _ => panic!("{entry:?}"),
                };
                entries.iter().map(pair).collect::<Vec<_>>().join(", ")
            }
            other => panic!("{other:?}"),
        };
        properties.iter().map(|(name, of)| format!("{name} = {}", value(of))).collect()
    }

    fn run(hierarchy: Version, version: u32, bfq: bool, writes: &[(&'static str, &str)]) -> Vec<String> {
        let writes: Vec<Write> = writes.iter().map(|(file, value)| Write::new("f", *file, value)).collect();
        shown(&of_writes(hierarchy, &writes, &Facts { version, bfq, current: &|_| None }))
    }

    #[test]
    fn of_v2() {
        for (file, value, want) in [
            ("cpu.weight", "100", vec!["CPUWeight = 100"]),
            ("cpu.idle", "1", vec!["CPUWeight = 0"]),
            ("cpu.idle", "0", vec![]),
            ("cpu.max", "20000 100000", vec!["CPUQuotaPerSecUSec = 200000", "CPUQuotaPeriodUSec = 100000"]),
            ("cpu.max", "20001 100000", vec!["CPUQuotaPerSecUSec = 210000", "CPUQuotaPeriodUSec = 100000"]),
            ("cpu.max", "50000", vec!["CPUQuotaPerSecUSec = 500000"]),
            ("cpu.max", "max 50000", vec!["CPUQuotaPerSecUSec = ∞", "CPUQuotaPeriodUSec = 50000"]),
            ("cpu.max", "max", vec!["CPUQuotaPerSecUSec = ∞"]),
            ("cpu.max", "x", vec![]),
            ("cpu.max", "18446744073709551614 1", vec!["CPUQuotaPerSecUSec = ∞", "CPUQuotaPeriodUSec = 1"]),
            ("cpu.max.burst", "1", vec![]),
            ("cpuset.cpus", "0", vec!["AllowedCPUs = [1]"]),
            ("cpuset.cpus", "1-3,8", vec!["AllowedCPUs = [e, 1]"]),
            ("cpuset.mems", "0-1", vec!["AllowedMemoryNodes = [3]"]),
            ("cpuset.cpus", "", vec!["AllowedCPUs = []"]),
            ("cpuset.cpus", "all", vec![]),
            ("memory.max", "1048576", vec!["MemoryMax = 1048576"]),
            ("memory.max", "max", vec!["MemoryMax = ∞"]),
            ("memory.max", "1G", vec!["MemoryMax = 1073741824"]),
            ("memory.max", "1 G", vec![]),
            ("memory.high", "0", vec!["MemoryHigh = 0"]),
            ("memory.low", "1", vec!["MemoryLow = 1"]),
            ("memory.min", "2", vec!["MemoryMin = 2"]),
            ("memory.swap.max", "3", vec!["MemorySwapMax = 3"]),
            ("memory.oom.group", "1", vec!["OOMPolicy = kill"]),
            ("memory.oom.group", "0", vec!["OOMPolicy = continue"]),
            ("pids.max", "7", vec!["TasksMax = 7"]),
            ("pids.max", "0", vec!["TasksMax = 1"]),
            ("pids.max", "max", vec!["TasksMax = ∞"]),
            ("io.weight", "default 50", vec!["IOWeight = 50"]),
            ("io.weight", "8:0 50", vec!["IODeviceWeight = /dev/block/8:0 50"]),
            (
                "io.max",
                "8:0 rbps=1 wbps=max riops=2 wiops=3 x=4",
                vec![
                    "IOReadBandwidthMax = /dev/block/8:0 1",
                    "IOWriteBandwidthMax = /dev/block/8:0 18446744073709551615",
                    "IOReadIOPSMax = /dev/block/8:0 2",
                    "IOWriteIOPSMax = /dev/block/8:0 3",
                ],
            ),
            ("hugetlb.2MB.max", "1", vec![]),
            ("memory.max", "99999999999999999999", vec![]),
            ("memory.max", "99999999999999T", vec![]),
        ] {
            assert_eq!(run(Version::V2, 999, false, &[(file, value)]), want, "{file} = {value}");
        }
        let two = run(Version::V2, 999, false, &[("io.max", "8:0 rbps=1"), ("io.max", "8:16 rbps=2")]);
        assert_eq!(two, ["IOReadBandwidthMax = /dev/block/8:0 1, /dev/block/8:16 2"]);
    }

    #[test]
    fn of_v1() {
        for (writes, want) in [
            (vec![("cpu.shares", "512")], vec!["CPUShares = 512"]),
            (vec![("cpu.cfs_period_us", "50000")], vec!["CPUQuotaPeriodUSec = 50000"]),
            (vec![("cpu.cfs_quota_us", "50000")], vec!["CPUQuotaPerSecUSec = 500000"]),
            (vec![("cpu.cfs_quota_us", "-1")], vec!["CPUQuotaPerSecUSec = ∞"]),
            (
                vec![("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "25000")],
                vec!["CPUQuotaPerSecUSec = 500000", "CPUQuotaPeriodUSec = 50000"],
            ),
            (vec![("memory.limit_in_bytes", "4096")], vec!["MemoryLimit = 4096"]),
            (vec![("memory.memsw.limit_in_bytes", "4096")], vec![]),
            (vec![("pids.max", "max")], vec!["TasksMax = ∞"]),
            (vec![("blkio.weight", "500")], vec!["BlockIOWeight = 500"]),
            (vec![("blkio.weight_device", "8:0 500")], vec!["BlockIODeviceWeight = /dev/block/8:0 500"]),
            (vec![("blkio.throttle.read_bps_device", "8:0 5")], vec!["BlockIOReadBandwidth = /dev/block/8:0 5"]),
            (vec![("blkio.throttle.write_bps_device", "8:0 5")], vec!["BlockIOWriteBandwidth = /dev/block/8:0 5"]),
            (vec![("blkio.throttle.read_iops_device", "8:0 5")], vec![]),
            (vec![("cpuset.cpus", "0"), ("devices.deny", "a"), ("net_cls.classid", "1")], vec![]),
        ] {
            assert_eq!(run(Version::V1, 999, false, &writes), want, "{writes:?}");
        }
    }

    #[test]
    fn what_an_older_one_does_not_know_is_left_out() {
        for (file, value, since) in [
            ("cpu.max", "5000", 213),
            ("pids.max", "1", 227),
            ("io.weight", "1", 230),
            ("io.max", "8:0 rbps=1", 230),
            ("memory.max", "1", 231),
            ("memory.high", "1", 231),
            ("memory.low", "1", 231),
            ("memory.swap.max", "1", 232),
            ("cpu.weight", "1", 232),
            ("memory.min", "1", 240),
            ("cpuset.cpus", "1", 244),
            ("cpuset.mems", "1", 244),
            ("cpu.idle", "1", 252),
            ("memory.oom.group", "1", 253),
            ("memory.zswap.max", "1", 253),
        ] {
            let count = |version| run(Version::V2, version, false, &[(file, value)]).len();
            assert_eq!((count(since - 1), count(since)), (0, 1), "{file} since {since}");
        }
        let period = |version| run(Version::V2, version, false, &[("cpu.max", "max 5000")]).len();
        assert_eq!((period(241), period(242)), (1, 2));
    }

    #[test]
    fn a_weight_beyond_all_is_left_to_systemd_to_refuse() {
        for value in ["max", "default 18446744073709551614"] {
            assert_eq!(run(Version::V2, 252, true, &[("io.bfq.weight", value)]), ["IOWeight = ∞"], "{value}");
        }
    }

    #[test]
    fn weights_of_bfq() {
        let io = |weight: u16| {
            super::super::blkio::v2(&crate::plan::spec::resources::BlockIo {
                weight: Some(weight),
                ..Default::default()
            })
        };
        for (weight, without, with) in
            [(10, "1", "10"), (100, "910", "100"), (500, "4950", "4500"), (1000, "10000", "10000")]
        {
            for (bfq, want) in [(false, without), (true, with)] {
                let properties =
                    of_writes(Version::V2, &io(weight).unwrap(), &Facts { version: 252, bfq, current: &|_| None });
                assert_eq!(shown(&properties), [format!("IOWeight = {want}")], "{weight} {bfq}");
            }
        }
    }

    #[test]
    fn what_stands_already_is_looked_at() {
        let current = |file: &str| {
            let text = match file {
                "cpu.max" => "max 50000",
                "cpu.cfs_period_us" => "20000",
                "cpu.cfs_quota_us" => "10000",
                _ => return None,
            };
            Some(text.to_string())
        };
        for (hierarchy, file, value, want) in [
            (Version::V2, "cpu.max", "25000", vec!["CPUQuotaPerSecUSec = 500000"]),
            (Version::V1, "cpu.cfs_quota_us", "5000", vec!["CPUQuotaPerSecUSec = 250000"]),
            (
                Version::V1,
                "cpu.cfs_period_us",
                "100000",
                vec!["CPUQuotaPerSecUSec = 100000", "CPUQuotaPeriodUSec = 100000"],
            ),
        ] {
            let facts = Facts { version: 252, bfq: false, current: &current };
            assert_eq!(shown(&of_writes(hierarchy, &[Write::new("f", file, value)], &facts)), want, "{file} = {value}");
        }
    }
}
