//! process.scheduler, process.ioPriority, linux.memoryPolicy, linux.personality: set when the process is in its cgroups,
//! and before its rights are given up.

use anyhow::{Context, Error, Result};
use nix::errno::Errno;

use super::Init;
use crate::error::{self, SysError, Wording};
use crate::plan::affinity::list;
use crate::plan::io_priority::IoPriority;
use crate::plan::memory_policy::MemoryPolicy;
use crate::plan::personality::Personality;
use crate::plan::scheduler::Scheduler;
use crate::protocol::Ask;
use crate::sys::scheduling::{self, SchedAttr};

impl Init<'_> {
    pub(super) fn set_scheduler(&mut self, scheduler: &Scheduler) -> Result<()> {
        self.or_by_parent(set_scheduler(0, scheduler)).map_err(|error| explained(scheduler, error))
    }

    /// Of a program that may not fork from then on: nobody listens to init any more, as with hooks.startContainer.
    pub(super) fn set_scheduler_at_start(&mut self, scheduler: &Scheduler) -> Result<()> {
        let Err(error) = set_scheduler(0, scheduler) else { return Ok(()) };
        let start = self.handles.start.as_ref().context("there is no start to set the scheduler at")?;
        let errno = error.errno;
        let error = explained(scheduler, error.into()).context("process.scheduler");
        start.fail(errno, &error::line(&error, Wording::Verbatim));
    }

    /// Of the process group: init leads one of its own since it has a session.
    pub(super) fn set_io_priority(&mut self, priority: IoPriority) -> Result<()> {
        self.or_by_parent(set_io_priority(0, priority))
    }

    /// What is real time or above the usual takes CAP_SYS_NICE on the host, which nobody in a user namespace has.
    fn or_by_parent(&self, result: Result<(), SysError>) -> Result<()> {
        match result {
            Err(SysError { errno: Errno::EPERM, .. }) if self.parent_is_privileged() => {
                self.handles.channel.request(&Ask::Schedule).map(drop)
            }
            result => Ok(result?),
        }
    }

    pub(super) fn set_memory_policy(&mut self, policy: &MemoryPolicy) -> Result<()> {
        let set = scheduling::set_mempolicy(policy.mode(), &policy.mask(), policy.mode);
        set.with_context(|| match policy.nodes.is_empty() {
            true => policy.mode.to_string(),
            false => format!("{} of nodes {}", policy.mode, list(&policy.nodes)),
        })
    }

    pub(super) fn set_personality(&mut self, personality: Personality) -> Result<()> {
        Ok(scheduling::personality(personality as i32)?)
    }
}

/// Of another process, or with 0 of the caller.
pub fn set_scheduler(pid: i32, scheduler: &Scheduler) -> Result<(), SysError> {
    let attr = SchedAttr {
        policy: scheduler.number,
        flags: scheduler.flags(),
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
        ..SchedAttr::default()
    };
    scheduling::sched_setattr(pid, attr, scheduler.policy)
}

/// Of the process group of that number, or with 0 of the caller's.
pub fn set_io_priority(group: i32, priority: IoPriority) -> Result<(), SysError> {
    scheduling::ioprio_set(group, priority.value(), priority.class)
}

/// sched(7) has several reasons for one errno.
pub fn explained(scheduler: &Scheduler, error: Error) -> Error {
    let errno = error.downcast_ref::<SysError>().map(|error| error.errno);
    let told = match errno {
        Some(Errno::EPERM) if scheduler.is_real_time() => {
            "on cgroup v1 real time needs linux.resources.cpu.realtimeRuntime, and everywhere CAP_SYS_NICE of the host"
        }
        Some(Errno::EPERM) if scheduler.is_deadline() => {
            "it takes CAP_SYS_NICE of the host, and all of its CPUs: this process scheduler can't be used together with \
             AllowedCPUs, be they of linux.resources.cpu.cpus or of an affinity"
        }
        Some(Errno::EPERM) => "to go above the usual takes CAP_SYS_NICE of the host",
        Some(Errno::EBUSY) => "the CPUs cannot give that much time: see sysctl kernel.sched_rt_runtime_us",
        Some(Errno::EINVAL) if scheduler.is_deadline() => {
            "the kernel bounds the period: see sysctl kernel.sched_deadline_period_min_us and _max_us"
        }
        Some(Errno::EOPNOTSUPP) => "this kernel clamps no utilization",
        Some(Errno::EINVAL) => "this kernel has no such policy, or not with these flags",
        _ => return error,
    };
    error.context(told)
}
