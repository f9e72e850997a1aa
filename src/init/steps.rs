//! The plan as an ordered list of steps, and the loop that runs it. The order is the design; why each step stands where
//! it does is told here and held by the tests below.

use std::fmt;

use anyhow::{Context, Result};

use super::Init;
use crate::plan::affinity::Last;
use crate::plan::choreography::Move;
use crate::plan::exec::ExecPlan;
use crate::plan::io_priority::IoPriority;
use crate::plan::memory_policy::MemoryPolicy;
use crate::plan::personality::Personality;
use crate::plan::scheduler::Scheduler;
use crate::plan::seccomp::Filter;
use crate::plan::{
    DevicePlan, LinkPlan, MountPlan, Namespace, Plan, ProcessPlan, Propagation, RootSwitch, Source, Sysctl, Terminal,
    namespaces,
};
use crate::rootfs::InRoot;

#[derive(Debug, Clone, Copy)]
pub enum Step<'p> {
    DieWithParent,
    HoldProcfs,
    OwnOomScore(i32),
    Move(Move),
    AllProcessors,
    Processors(&'p [u32]),
    OomScore(i32),
    JoinNamespaces,
    CheckContainer,
    ShareSessionKeyring(&'p str),
    EnterRoot,
    NewSession,
    SessionKeyring(&'p str),
    LabelKeys(&'p str),
    LabelKeysAsUsual,
    Hostname(&'p str),
    Domainname(&'p str),
    Loopback,
    NetDevices,
    PrepareRoot,
    Mount(&'p MountPlan),
    Device(&'p DevicePlan),
    Link(&'p LinkPlan),
    WorkingDirectory(&'p str),
    RuntimeHooks,
    ContainerHooks,
    Terminal(Terminal),
    Console,
    FindProgram(&'p str),
    PrivateProcfs,
    SwitchRoot(RootSwitch),
    ReplaceDevNull,
    Sysctl(&'p Sysctl),
    Mask(&'p InRoot),
    ReadonlyPath(&'p InRoot),
    ReadonlyMounts,
    ReadonlyRoot,
    RootPropagation(Propagation),
    StdioOwner(u32),
    EnterDirectory(&'p str),
    NoNewPrivileges,
    ApparmorProfile(&'p str),
    SelinuxLabel(&'p str),
    Limits,
    Umask(u32),
    Scheduler(&'p Scheduler),
    IoPriority(IoPriority),
    MemoryPolicy(&'p MemoryPolicy),
    Personality(Personality),
    BoundingSet,
    Ids,
    CapabilitySets,
    DieWithParentAgain,
    EnterDirectoryAsUser(&'p str),
    OutliveParent,
    CloseOtherDescriptors,
    LoadFilter(&'p Filter),
    Ready,
    WaitForStart,
    StartHooks,
    LateScheduler(&'p Scheduler),
    Exec,
}

pub fn steps(plan: &Plan) -> Vec<Step<'_>> {
    let process = &plan.process;
    let mounts = plan.root.switch != RootSwitch::Chroot;
    let mut steps = vec![Step::DieWithParent];
    let labelled = process.apparmor_profile.is_some() || process.selinux_label.is_some();
    steps.extend(labelled.then_some(Step::HoldProcfs));
    // While our files in /proc are still our user's.
    let early = plan.rootless && plan.joins(Namespace::User);
    steps.extend(process.oom_score_adj.filter(|_| early).map(Step::OwnOomScore));
    steps.extend(plan.choreography().inside.into_iter().map(Step::Move));
    steps.extend([Step::AllProcessors, Step::NewSession]);
    steps
        .extend((!plan.no_new_keyring).then(|| keyring(process, Step::SessionKeyring(&plan.id))).into_iter().flatten());
    steps.extend(plan.hostname.as_deref().map(Step::Hostname));
    steps.extend(plan.domainname.as_deref().map(Step::Domainname));
    steps.extend(plan.has_new(Namespace::Network).then_some(Step::Loopback));
    // Before any hook, which may configure them.
    steps.extend((!plan.net_devices.is_empty()).then_some(Step::NetDevices));

    steps.push(Step::PrepareRoot);
    steps.extend(plan.mounts.iter().map(Step::Mount));
    steps.extend(plan.devices.iter().map(Step::Device));
    steps.extend(plan.links.iter().map(Step::Link));
    steps.push(Step::WorkingDirectory(&process.cwd));
    // In the finished tree, which they may add to: a device, a library, the program itself.
    steps.extend(plan.hooks.at_create().then_some(Step::RuntimeHooks));
    steps.extend((!plan.hooks.create_container.is_empty()).then_some(Step::ContainerHooks));
    steps.extend(process.terminal.map(Step::Terminal));
    steps.extend(process.terminal.is_some().then_some(Step::Console));
    // In the finished tree, and while the host's binfmt_misc can still be asked.
    steps.extend(process.args.first().map(|name| Step::FindProgram(name)));

    // In a user namespace the kernel gives a new procfs only to who sees one already, and the image may have none.
    steps.extend((!plan.sysctls.is_empty()).then_some(Step::PrivateProcfs));
    steps.push(Step::SwitchRoot(plan.root.switch));
    steps.extend(process.terminal.is_none().then_some(Step::ReplaceDevNull));
    // Before readonlyPaths takes /proc/sys away, and after every hook that may set up the network.
    steps.extend(plan.sysctls.iter().map(Step::Sysctl));
    steps.extend(plan.masked_paths.iter().map(Step::Mask));
    steps.extend(plan.readonly_paths.iter().map(Step::ReadonlyPath));
    let late = plan.mounts.iter().any(|mount| mount.readonly_at_end);
    steps.extend(late.then_some(Step::ReadonlyMounts));
    steps.extend((plan.root.readonly && mounts).then_some(Step::ReadonlyRoot));

    // After the masks: what is unbindable cannot be cloned over them.
    steps.extend(plan.root.propagation_after.map(Step::RootPropagation));

    let start_hooks = !plan.hooks.start_container.is_empty();
    let (early, late) = match &process.scheduler {
        Some(scheduler) if start_hooks && scheduler.forbids_fork() => (None, Some(scheduler)),
        scheduler => (scheduler.as_ref(), None),
    };
    steps.extend(become_the_program(process, early));
    steps.extend([Step::Ready, Step::WaitForStart]);
    steps.extend(start_hooks.then_some(Step::StartHooks));
    steps.extend(late.map(Step::LateScheduler));
    steps.push(Step::Exec);
    steps
}

/// What tells something without a container. In a session of its own, since an I/O priority is that of a process group.
/// Limits last: they may keep the others from opening a file.
pub fn probes(plan: &Plan) -> Vec<Step<'_>> {
    let process = &plan.process;
    let mut steps = vec![Step::NewSession];
    // for a new container the parent does
    steps.extend(process.oom_score_adj.map(Step::OomScore));
    steps.extend(process.args.first().map(|name| Step::FindProgram(name)));
    steps.extend(plan.sysctls.iter().map(Step::Sysctl));
    steps.extend(process.memory_policy.as_ref().map(Step::MemoryPolicy));
    steps.extend(process.personality.map(Step::Personality));
    steps.extend(process.io_priority.map(Step::IoPriority));
    steps.extend(process.scheduler.as_ref().map(Step::Scheduler));
    steps.extend((!process.rlimits.is_empty()).then_some(Step::Limits));
    steps
}

/// What `exec` does: no container is made, so little is left of the above.
pub fn steps_of_exec(plan: &ExecPlan) -> Vec<Step<'_>> {
    let process = &plan.process;
    let mut steps = vec![Step::DieWithParent];
    steps.extend(process.oom_score_adj.map(Step::OomScore));
    steps.push(Step::Move(Move::JoinCgroups));
    // The cpuset of the new cgroups says which there are.
    match &plan.affinity.last {
        Last::All => steps.push(Step::AllProcessors),
        Last::These(cpus) => steps.push(Step::Processors(cpus)),
        Last::LeftToKernel => {}
    }
    steps.extend([Step::JoinNamespaces, Step::CheckContainer, Step::NewSession]);
    // The names of keyrings belong to the user namespace.
    steps.extend(plan.keyring.then(|| keyring(process, Step::ShareSessionKeyring(&plan.id))).into_iter().flatten());
    steps.push(Step::EnterRoot);
    steps.push(process.terminal.map_or(Step::ReplaceDevNull, Step::Terminal));
    steps.extend(process.args.first().map(|name| Step::FindProgram(name)));
    steps.extend(become_the_program(process, process.scheduler.as_ref()));
    steps.extend([Step::Ready, Step::Exec]);
    steps
}

/// A keyring is made under the label of who is to use it.
fn keyring<'p>(process: &'p ProcessPlan, joins: Step<'p>) -> impl Iterator<Item = Step<'p>> {
    let label = process.selinux_label.as_deref();
    let before = label.map(Step::LabelKeys);
    before.into_iter().chain([joins]).chain(label.map(|_| Step::LabelKeysAsUsual))
}

/// The end of both: everything is in place, and rights are given up.
fn become_the_program<'p>(process: &'p ProcessPlan, scheduler: Option<&'p Scheduler>) -> Vec<Step<'p>> {
    let mut steps = vec![Step::StdioOwner(process.uid), Step::EnterDirectory(&process.cwd)];
    steps.extend(process.no_new_privileges.then_some(Step::NoNewPrivileges));
    // What init still starts, the startContainer hooks, gets them as the program does; those before are the host's.
    steps.extend(process.apparmor_profile.as_deref().map(Step::ApparmorProfile));
    steps.extend(process.selinux_label.as_deref().map(Step::SelinuxLabel));
    // Nothing below opens a file, but for a working directory that only the user may enter: a tiny RLIMIT_NOFILE is the
    // user's business, not ours.
    steps.extend((!process.rlimits.is_empty()).then_some(Step::Limits));
    steps.push(Step::Umask(process.umask));
    // In the cgroups, whose CPUs, nodes and share of real time they are held against; while rights are there to go above
    // the usual; and a filter may forbid them, which usual ones do.
    steps.extend(scheduler.map(Step::Scheduler));
    steps.extend(process.io_priority.map(Step::IoPriority));
    steps.extend(process.memory_policy.as_ref().map(Step::MemoryPolicy));
    steps.extend(process.personality.map(Step::Personality));
    // Without no_new_privileges a filter needs CAP_SYS_ADMIN, so all but the rights is settled before. With it, it is
    // the last: the fewer calls it has to allow. Before Ready in either case: one that is refused fails `create`.
    let filter = process.seccomp.as_ref().map(Step::LoadFilter);
    let (early, late) = if process.no_new_privileges { (None, filter) } else { (filter, None) };
    let settle = [Step::OutliveParent, Step::CloseOtherDescriptors];
    let settled = early.is_some();
    steps.extend(early.into_iter().flat_map(|filter| settle.into_iter().chain([filter])));
    // CAP_SETPCAP goes with the uid, so the bounding set comes first: capabilities(7).
    steps.extend([Step::BoundingSet, Step::Ids, Step::CapabilitySets]);
    steps.extend((!settled).then_some(Step::DieWithParentAgain));
    steps.push(Step::EnterDirectoryAsUser(&process.cwd));
    steps.extend(settle.into_iter().filter(|_| !settled).chain(late));
    steps
}

pub(super) fn run(steps: &[Step], init: &mut Init) -> Result<()> {
    steps.iter().try_for_each(|step| init.perform_named(step))
}

impl Init<'_> {
    pub(super) fn perform_named(&mut self, step: &Step) -> Result<()> {
        self.perform(step).with_context(|| step.to_string())
    }

    fn perform(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::DieWithParent | Step::DieWithParentAgain => self.die_with_parent(),
            Step::HoldProcfs => self.hold_procfs(),
            Step::Move(Move::JoinCgroups) => self.join_cgroups(),
            Step::Move(Move::AskIdMaps) => self.ask_for_id_maps(),
            Step::Move(Move::BecomeRoot) => self.become_root(),
            Step::Move(Move::ForkBeside) => self.fork_beside(),
            Step::OwnOomScore(value) => self.set_own_oom_score(value),
            Step::Move(Move::Join(kind)) => self.join_namespace(kind),
            Step::Move(Move::Unshare(kind)) => self.new_namespace(kind),
            Step::Move(Move::TimeOffsets) => self.new_clocks(),
            Step::AllProcessors => self.run_on_all_processors(),
            Step::Processors(cpus) => self.run_on(cpus),
            Step::OomScore(value) => self.set_oom_score(value),
            Step::JoinNamespaces => self.join_namespaces(),
            Step::CheckContainer => self.check_container(),
            Step::ShareSessionKeyring(id) => self.share_session_keyring(id),
            Step::EnterRoot => self.enter_root(),
            Step::NewSession => self.new_session(),
            Step::SessionKeyring(id) => self.join_session_keyring(id),
            Step::LabelKeys(label) => self.label_keys(label),
            Step::LabelKeysAsUsual => self.label_keys_as_usual(),
            Step::Hostname(name) => self.set_hostname(name),
            Step::Domainname(name) => self.set_domainname(name),
            Step::Loopback => self.bring_loopback_up(),
            Step::NetDevices => self.ask_for_net_devices(),
            Step::PrepareRoot => self.prepare_root(),
            Step::Mount(mount) => self.mount(mount),
            Step::Device(device) => self.make_device(device),
            Step::Link(link) => self.make_link(link),
            Step::WorkingDirectory(cwd) => self.make_working_directory(cwd),
            Step::RuntimeHooks => self.ask_for_runtime_hooks(),
            Step::ContainerHooks => self.run_container_hooks(),
            Step::Terminal(terminal) => self.open_terminal(terminal),
            Step::Console => self.bind_console(),
            Step::FindProgram(name) => self.find_program(name),
            Step::PrivateProcfs => self.open_private_procfs(),
            Step::SwitchRoot(switch) => self.switch_root(switch),
            Step::ReplaceDevNull => self.replace_dev_null(),
            Step::Sysctl(sysctl) => self.write_sysctl(sysctl),
            Step::Mask(path) => self.mask(path),
            Step::ReadonlyPath(path) => self.make_path_readonly(path),
            Step::ReadonlyMounts => self.make_mounts_readonly(),
            Step::ReadonlyRoot => self.make_root_readonly(),
            Step::RootPropagation(propagation) => self.set_root_propagation(propagation),
            Step::StdioOwner(uid) => self.own_stdio(uid),
            Step::EnterDirectory(cwd) => self.enter_directory(cwd),
            Step::NoNewPrivileges => self.set_no_new_privileges(),
            Step::ApparmorProfile(profile) => self.set_apparmor_profile(profile),
            Step::SelinuxLabel(label) => self.set_selinux_label(label),
            Step::Limits => self.set_limits(),
            Step::Umask(mask) => self.set_umask(mask),
            Step::Scheduler(scheduler) => self.set_scheduler(scheduler),
            Step::IoPriority(priority) => self.set_io_priority(priority),
            Step::MemoryPolicy(policy) => self.set_memory_policy(policy),
            Step::Personality(personality) => self.set_personality(personality),
            Step::BoundingSet => self.reduce_bounding_set(),
            Step::Ids => self.set_ids(),
            Step::CapabilitySets => self.set_capabilities(),
            Step::EnterDirectoryAsUser(cwd) => self.enter_directory_as_user(cwd),
            Step::OutliveParent => self.outlive_parent(),
            Step::CloseOtherDescriptors => self.close_other_descriptors(),
            Step::LoadFilter(filter) => self.load_filter(filter),
            Step::Ready => self.announce_ready(),
            Step::WaitForStart => self.wait_for_start(),
            Step::StartHooks => self.run_start_hooks(),
            Step::LateScheduler(scheduler) => self.set_scheduler_at_start(scheduler),
            Step::Exec => self.exec(),
        }
    }
}

/// How a step is named in an error.
impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DieWithParent | Self::DieWithParentAgain => f.write_str("tie to the parent"),
            Self::HoldProcfs => f.write_str("the host's procfs"),
            Self::Move(Move::JoinCgroups) => f.write_str("join cgroups"),
            Self::Move(Move::AskIdMaps) => f.write_str("id maps"),
            Self::Move(Move::BecomeRoot) => f.write_str("root of the user namespace"),
            Self::Move(Move::ForkBeside) => f.write_str("new namespaces"),
            Self::OwnOomScore(_) => f.write_str("process.oomScoreAdj"),
            Self::Move(Move::Join(kind)) => write!(f, "join the {} namespace", namespaces::name(*kind)),
            Self::Move(Move::Unshare(kind)) => write!(f, "new {} namespace", namespaces::name(*kind)),
            Self::Move(Move::TimeOffsets) => f.write_str("new time namespace"),
            Self::AllProcessors => f.write_str("processors"),
            Self::Processors(_) => f.write_str("process.execCPUAffinity.final"),
            Self::OomScore(_) => f.write_str("process.oomScoreAdj"),
            Self::JoinNamespaces => f.write_str("join namespaces"),
            Self::CheckContainer => f.write_str("container"),
            Self::EnterRoot => f.write_str("the container's root"),
            Self::NewSession => f.write_str("new session"),
            Self::SessionKeyring(_) | Self::ShareSessionKeyring(_) => f.write_str("session keyring"),
            Self::Hostname(name) => write!(f, "hostname {name}"),
            Self::Domainname(name) => write!(f, "domainname {name}"),
            Self::Loopback => f.write_str("loopback interface"),
            Self::NetDevices => f.write_str("linux.netDevices"),
            Self::PrepareRoot => f.write_str("root.path"),
            Self::Mount(mount) => write!(f, "{}: {} {}", mount.field, verb(&mount.source), mount.target),
            Self::Device(device) => write!(f, "{}: {}", device.field, device.path),
            Self::Link(link) => write!(f, "link {} to {}", link.path, link.to),
            Self::WorkingDirectory(cwd) | Self::EnterDirectory(cwd) | Self::EnterDirectoryAsUser(cwd) => {
                write!(f, "process.cwd {cwd}")
            }
            Self::RuntimeHooks => f.write_str("hooks of the runtime"),
            Self::ContainerHooks | Self::StartHooks => f.write_str("in the container"),
            Self::Terminal(_) | Self::Console => f.write_str("process.terminal"),
            Self::FindProgram(_) => f.write_str("process.args"),
            Self::PrivateProcfs => f.write_str("linux.sysctl"),
            Self::SwitchRoot(_) => f.write_str("switch root"),
            Self::ReplaceDevNull | Self::StdioOwner(_) => f.write_str("stdio"),
            Self::Sysctl(sysctl) => write!(f, "linux.sysctl {}", sysctl.key),
            Self::Mask(path) => write!(f, "linux.maskedPaths {path}"),
            Self::ReadonlyPath(path) => write!(f, "linux.readonlyPaths {path}"),
            Self::ReadonlyMounts => f.write_str("read-only mounts"),
            Self::ReadonlyRoot => f.write_str("root.readonly"),
            Self::RootPropagation(_) => f.write_str("linux.rootfsPropagation"),
            Self::NoNewPrivileges => f.write_str("process.noNewPrivileges"),
            Self::ApparmorProfile(profile) => write!(f, "process.apparmorProfile {profile}"),
            Self::SelinuxLabel(label) => write!(f, "process.selinuxLabel {label}"),
            Self::LabelKeys(_) | Self::LabelKeysAsUsual => f.write_str("process.selinuxLabel of the session keyring"),
            Self::Limits => f.write_str("process.rlimits"),
            Self::Umask(_) => f.write_str("process.user.umask"),
            Self::Scheduler(_) | Self::LateScheduler(_) => f.write_str("process.scheduler"),
            Self::IoPriority(_) => f.write_str("process.ioPriority"),
            Self::MemoryPolicy(_) => f.write_str("linux.memoryPolicy"),
            Self::Personality(_) => f.write_str("linux.personality"),
            Self::BoundingSet | Self::CapabilitySets => f.write_str("process.capabilities"),
            Self::Ids => f.write_str("process.user"),
            Self::OutliveParent | Self::CloseOtherDescriptors => f.write_str("before ready"),
            Self::LoadFilter(_) => f.write_str("linux.seccomp"),
            Self::Ready => f.write_str("ready"),
            Self::WaitForStart => f.write_str("wait for start"),
            Self::Exec => f.write_str("exec"),
        }
    }
}

fn verb(source: &Source) -> &'static str {
    match source {
        Source::Remount { .. } => "remount",
        Source::Bind { .. } => "bind onto",
        Source::Filesystem { .. } | Source::Cgroup(_) => "mount",
    }
}

#[cfg(test)]
mod tests;
