//! What a container's cgroups have counted, in the keys and units that readers of `events` know from runc, whether the
//! controller is one of v1 or in the v2 tree. Nothing is decided here; a file that this kernel lacks leaves its keys out.
//!
//! Each file below parses what one controller says. Text that is not understood is skipped: a newer kernel may say more.

use std::collections::BTreeMap;

use anyhow::Result;
use nix::errno::Errno;
use serde::Serialize;

use super::directory::Directory;
use super::recorded::{Recorded, read};
use super::{Version, walk};
use crate::error::SysError;
use crate::resctrl::stats::RdtStats;

mod blkio;
mod cpu;
mod cpuset;
mod hugetlb;
mod memory;
mod more;
mod pids;
mod pressure;

/// The order of the keys is runc's.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    cpu: cpu::Cpu,
    cpuset: cpuset::Cpuset,
    memory: memory::Memory,
    pids: pids::Pids,
    blkio: blkio::Blkio,
    hugetlb: BTreeMap<String, hugetlb::Hugetlb>,
    /// No cgroup, but a group of processes too: whoever knows of one fills it in.
    pub intel_rdt: RdtStats,
    /// Always null: readers know the key, and no runtime that is called as we are counts there.
    network_interfaces: Option<()>,
    /// Not of runc: left out where no device or resource of the host is counted.
    #[serde(skip_serializing_if = "is_zero")]
    rdma: more::Rdma,
    #[serde(skip_serializing_if = "is_zero")]
    misc: BTreeMap<String, more::Misc>,
}

impl Recorded {
    pub fn stats(&self) -> Result<Stats> {
        let of = |controller: &str| self.source(controller);
        let (mut cpu, mut memory, mut blkio) = (cpu::Cpu::default(), memory::Memory::default(), Default::default());
        if let Some(source) = of("cpuacct")? {
            cpu.usage = cpu::usage(&source)?;
        }
        if let Some(source) = of("cpu")? {
            cpu.throttling = cpu::throttling(&source)?;
        }
        if let Some(source) = of("memory")? {
            memory = memory::memory(&source)?;
        }
        if let Some(source) = of("blkio")? {
            blkio = blkio::blkio(&source)?;
        }
        // v1 has no files of pressure; on hybrid hosts those of the v2 tree count the same processes
        if let Some(tree) = self.tree()? {
            cpu.psi = pressure::pressure(&tree, "cpu.pressure")?;
            memory.psi = pressure::pressure(&tree, "memory.pressure")?;
            blkio.psi = pressure::pressure(&tree, "io.pressure")?;
        }
        Ok(Stats {
            cpu,
            cpuset: of("cpuset")?.map_or(Ok(Default::default()), |source| cpuset::cpuset(&source))?,
            memory,
            pids: of("pids")?.map_or(Ok(Default::default()), |source| pids::pids(&source))?,
            blkio,
            hugetlb: of("hugetlb")?.map_or(Ok(Default::default()), |source| hugetlb::hugetlb(&source))?,
            intel_rdt: RdtStats::default(),
            network_interfaces: None,
            rdma: of("rdma")?.map_or(Ok(Default::default()), |source| more::rdma(&source))?,
            misc: of("misc")?.map_or(Ok(Default::default()), |source| more::misc(&source))?,
        })
    }

    /// Where a controller of these v1 names counts. `None`: the container has no cgroup for it, or no longer.
    fn source(&self, controller: &str) -> Result<Option<Source>> {
        match self.of(controller) {
            Some(_) => Ok(self.open(controller)?.map(|directory| Source { directory, version: Version::V1 })),
            None => self.tree(),
        }
    }

    fn tree(&self) -> Result<Option<Source>> {
        Ok(self.open("")?.map(|directory| Source { directory, version: Version::V2 }))
    }
}

/// The files of one cgroup.
struct Source {
    directory: Directory,
    version: Version,
}

impl Source {
    /// `None`: there is no such file, or it says nothing here.
    fn read(&self, file: &str) -> Result<Option<String>> {
        match read(&self.directory, file) {
            // pressure, where it is to be enabled on the kernel's command line
            Err(error) if error.downcast_ref::<SysError>().is_some_and(|e| e.errno == Errno::EOPNOTSUPP) => Ok(None),
            result => result,
        }
    }

    fn number(&self, file: &str) -> Result<Option<u64>> {
        Ok(self.read(file)?.and_then(|text| number(&text)))
    }

    /// Lines of a name and a number.
    fn table(&self, file: &str) -> Result<BTreeMap<String, u64>> {
        Ok(self.read(file)?.map(|text| table(&text)).unwrap_or_default())
    }

    /// The names of its files.
    fn files(&self) -> Result<Vec<String>> {
        match walk::files(&self.directory) {
            Ok(names) => Ok(names),
            Err(errno) => Err(SysError::new("read cgroup", self.directory.path.display(), errno).into()),
        }
    }
}

/// A count; `max` is the largest.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        // counters of v1 that are read while they change
        text if text.starts_with('-') => text.parse::<i64>().ok().map(|_| 0),
        text => text.parse().ok(),
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_string(), number(value)?))
    };
    text.lines().filter_map(line).collect()
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
