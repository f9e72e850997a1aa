//! New values for cgroups that stand. What a file said before is read first: when one value is refused, those that were
//! written get their old ones back.

use anyhow::{Result, anyhow};
use nix::errno::Errno;

use super::create::NewCgroup;
use super::directory::Directory;
use super::perform::{shortfalls, write_all};
use super::properties::{Facts, of_writes};
use super::unit::is_settable;
use super::write::{Otherwise, Write};
use super::{CgroupPlan, Version, memory};
use crate::log;
use crate::systemd::Property;

/// What was written, and can be taken back.
#[derive(Debug, Default)]
pub struct Updated {
    /// By directory, the writes that make its files say again what they said.
    old: Vec<(Directory, Version, Vec<Write>)>,
}

/// Performs those writes of the plan that are `wanted`.
pub fn update(plan: &CgroupPlan, wanted: impl Fn(&Write) -> bool, check_memory: bool) -> Result<Updated> {
    let mut todo = Vec::new();
    for hierarchy in &plan.hierarchies {
        let writes: Vec<&Write> =
            hierarchy.before.iter().chain(&hierarchy.last).filter(|write| wanted(write)).collect();
        if writes.is_empty() {
            continue;
        }
        let cgroup = NewCgroup::open(hierarchy)?;
        if check_memory {
            let number = |file: &str| cgroup.directory.read(file).ok()?.trim().parse().ok();
            memory::check_before_update(&writes, number)?;
        }
        let has_quota =
            hierarchy.version == Version::V1 && writes.iter().any(|write| write.file.starts_with("cpu.cfs_"));
        todo.push((cgroup, hierarchy.version, plan.in_subgroup && has_quota, writes));
    }
    let mut updated = Updated::default();
    for (cgroup, version, is_bounded_above, writes) in todo {
        let prepared = cgroup.prepare_above();
        let prepared = prepared.and_then(|()| if is_bounded_above { cgroup.lift_quota_above() } else { Ok(()) });
        if let Err(error) = prepared.and_then(|()| updated.write(cgroup.directory, version, writes)) {
            return Err(match updated.take_back() {
                Ok(()) => error,
                Err(worse) => {
                    anyhow!("{error:#}; and a value that was set before it could not be taken back: {worse:#}")
                }
            });
        }
    }
    Ok(updated)
}

impl Updated {
    pub(super) fn write(&mut self, directory: Directory, version: Version, writes: Vec<&Write>) -> Result<()> {
        let old = writes.iter().rev().filter_map(|write| old_value(&directory, write)).collect();
        let writes: Vec<Write> = writes.into_iter().cloned().collect();
        self.old.push((directory, version, old));
        let (directory, ..) = &self.old[self.old.len() - 1];
        write_all(directory, &writes)?;
        shortfalls(directory, &writes).iter().for_each(|warning| log::warning(warning));
        Ok(())
    }

    /// All of them are tried, whatever becomes of one; but not what was refused, which would be refused again.
    pub fn take_back(&self) -> Result<()> {
        let results: Vec<_> = self.old.iter().rev().map(|(directory, _, old)| take_back(directory, old)).collect();
        results.into_iter().collect()
    }

    /// What systemd must be told again once they have been taken back.
    pub fn properties_before(&self, version: u32, bfq: bool) -> Vec<Property> {
        let each = self.old.iter().flat_map(|(directory, hierarchy, old)| {
            of_writes(*hierarchy, old, &Facts { version, bfq, current: &|file| directory.read(file).ok() })
        });
        each.filter(is_settable).collect()
    }
}

/// Lines for devices come last: BFQ forgets the weights of disks when it is given the one of all.
fn take_back(directory: &Directory, old: &[Write]) -> Result<()> {
    let results = [false, true].map(|of_devices| {
        let some = old.iter().filter(|write| device_of(&write.value).is_some() == of_devices);
        let writes: Vec<Write> = some.filter(|write| has_changed(directory, write)).cloned().collect();
        write_all(directory, &writes)
    });
    results.into_iter().collect()
}

/// Whether the write that makes a file say what it said would change anything.
fn has_changed(directory: &Directory, write: &Write) -> bool {
    directory.read(&write.file).map_or(true, |now| value_before(&write.file, &write.value, &now) != write.value)
}

/// The write that undoes one which is about to be done; none where there is no telling.
fn old_value(directory: &Directory, write: &Write) -> Option<Write> {
    let others = write.otherwise.iter().filter_map(|(_, otherwise)| match otherwise {
        Otherwise::File(file) | Otherwise::Other(file, _) => Some(*file),
        _ => None,
    });
    let mut files = std::iter::once(&*write.file).chain(others);
    let (file, text) = files.find_map(|file| Some((file, directory.read(file).ok()?)))?;
    let value = value_before(file, &write.value, &text);
    // as at first: the right order depends on what stands there
    let old = Write::new(write.field.clone(), file.to_string(), value);
    Some(old.on(Errno::EINVAL, Otherwise::Later).on(Errno::EBUSY, Otherwise::Later))
}

/// What to write into a file that reads `text` now, so that it reads so again after `value` has been written.
fn value_before(file: &str, value: &str, text: &str) -> String {
    let first = |line: &str| line.split(' ').next().unwrap_or_default().to_string();
    let text = text.trim();
    // `8:0 1048576`, `mlx5_0 hca_handle=3`, `eth0 5`: a line for each device
    if let Some((key, _)) = value.split_once(' ') {
        return match text.lines().find(|line| first(line) == key) {
            Some(line) => line.to_string(),
            None if device_of(value).is_some() => format!("{key} {}", unset(file)),
            None => text.to_string(),
        };
    }
    let named = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    match named("default").or_else(|| named("oom_kill_disable")) {
        Some(value) => value.to_string(),
        // an empty write(2) would not reach the file
        None if text.is_empty() => "\n".to_string(),
        None => text.to_string(),
    }
}

/// Of `8:0 1048576`.
fn device_of(value: &str) -> Option<&str> {
    value.split_once(' ').map(|(key, _)| key).filter(|key| key.contains(':'))
}

/// What a device has that no line speaks of.
fn unset(file: &str) -> &'static str {
    match file {
        "io.max" => "rbps=max wbps=max riops=max wiops=max",
        "io.latency" => "target=0",
        file if file.contains("bfq") || file.starts_with("io.") => "default",
        _ => "0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_before() {
        for (file, value, text, want) in [
            ("cpu.shares", "5", "1024\n", "1024"),
            ("memory.max", "5", "max\n", "max"),
            ("cpu.max", "20000 50000", "max 100000\n", "max 100000"),
            ("cpu.max", "max 50000", "max 100000\n", "max 100000"),
            ("cpuset.cpus", "0", "\n", "\n"),
            ("memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "0"),
            ("io.weight", "50", "default 100\n8:0 200\n", "100"),
            ("io.weight", "8:0 50", "default 100\n8:0 200\n", "8:0 200"),
            ("io.weight", "8:16 50", "default 100\n8:0 200\n", "8:16 default"),
            ("blkio.throttle.read_bps_device", "8:0 5", "8:16 7\n8:0 6\n", "8:0 6"),
            ("blkio.throttle.read_bps_device", "8:0 5", "", "8:0 0"),
            ("blkio.bfq.weight_device", "8:0 5", "8:16 7\n", "8:0 default"),
            ("io.max", "8:0 rbps=5", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
            (
                "io.max",
                "8:0 rbps=5",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                "8:0 rbps=1 wbps=max riops=max wiops=max",
            ),
            (
                "rdma.max",
                "m1 hca_handle=5",
                "m0 hca_handle=1\nm1 hca_handle=max hca_object=2\n",
                "m1 hca_handle=max hca_object=2",
            ),
            ("net_prio.ifpriomap", "eth0 5", "lo 0\neth0 3\n", "eth0 3"),
        ] {
            assert_eq!(value_before(file, value, text), want, "{file} = {value} after {text:?}");
        }
    }

    /// A plain directory stands in for a cgroup; a file of it that cannot be written, for a refusal.
    #[test]
    fn one_that_is_refused_takes_the_others_back() {
        let dir = tempfile::tempdir().unwrap();
        let directory = || Directory::at(dir.path()).unwrap().0;
        let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join("a"), "1").unwrap();
        std::fs::write(dir.path().join("b"), "2").unwrap();
        let (a, b, c) = (Write::new("f.a", "a", 8), Write::new("f.b", "missing", 9), Write::new("f.c", "no", 5));
        let b = b.on(Errno::ENOENT, Otherwise::File("b"));
        let mut updated = Updated::default();
        updated.write(directory(), Version::V2, vec![&a]).unwrap();
        let error = updated.write(directory(), Version::V2, vec![&b, &c]).unwrap_err().to_string();
        assert!(error.starts_with("f.c: ") && error.contains(" no "), "{error}");
        assert_eq!((file("a"), file("b")), ("8".into(), "9".into()));
        updated.take_back().unwrap();
        assert_eq!((file("a"), file("b")), ("1".into(), "2".into()));
    }

    #[test]
    fn systemd_is_told_what_the_files_said() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        file("pids.max", "max\n");
        file("cpu.max", "max 100000\n");
        file("cpuset.cpus", "\n");
        file("memory.max", "4096\n");
        let writes = [("pids.max", "5"), ("cpu.max", "20100 50000"), ("cpuset.cpus", "0"), ("memory.max", "8192")];
        let writes = writes.map(|(name, value)| Write::new("f", name, value));
        let mut updated = Updated::default();
        updated.write(Directory::at(dir.path()).unwrap().0, Version::V2, writes.iter().collect()).unwrap();
        let told: Vec<String> =
            updated.properties_before(252, false).iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let want = [
            "CPUQuotaPerSecUSec = infinity",
            "CPUQuotaPeriodUSec = 100000",
            "MemoryMax = 4096",
            "AllowedCPUs = []",
            "TasksMax = infinity",
        ];
        assert_eq!(told, want);
    }

    /// One of several lines for one file.
    #[test]
    fn a_device_that_was_refused_does_not_keep_the_others_from_being_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let directory = Directory::at(dir.path()).unwrap().0;
        std::fs::write(at("weight"), "1").unwrap();
        std::fs::write(at("io.max"), "").unwrap();
        let (weight, disk) = (Write::new("f.w", "weight", 2), Write::new("f.d", "io.max", "8:0 rbps=7"));
        let missing = Write::new("f.m", "io.max", "4000:1 rbps=7");
        let mut updated = Updated::default();
        updated.write(directory, Version::V2, vec![&weight, &disk, &missing]).unwrap();
        // as the kernel has it after the second line was refused
        std::fs::write(at("io.max"), "8:0 rbps=7 wbps=max riops=max wiops=max\n").unwrap();
        updated.take_back().unwrap();
        let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
        assert!(read("io.max").starts_with("8:0 rbps=max wbps=max"), "{}", read("io.max"));
        assert!(!read("io.max").contains("4000") && read("weight") == "1", "{}", read("io.max"));
    }

    /// The kernel would refuse the old value as it has refused the new one: of a disk that is not there, for one.
    #[test]
    fn what_was_not_changed_is_not_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::at(dir.path()).unwrap().0;
        std::fs::write(dir.path().join("a"), "1").unwrap();
        std::fs::write(dir.path().join("b"), "8:16 7\n").unwrap();
        let mut updated = Updated::default();
        let (a, b) = (Write::new("f.a", "a", 8), Write::new("f.b", "b", "8:0 5"));
        updated.write(directory, Version::V2, vec![&a, &b]).unwrap();
        std::fs::write(dir.path().join("b"), "8:16 7\n").unwrap();
        updated.take_back().unwrap();
        let file = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!((file("a"), file("b")), ("1".into(), "8:16 7\n".into()));
    }
}
