//! What CRIU is asked for: a plan, what was found of the container, and the flags of the command → one request. Pure.
//!
//! CRIU has names for what lies outside of a container: at a dump they go into the images, at a restore they stand for what
//! is there then. Names are chosen as runc's, so that either restores what the other has dumped.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::rpc::{CgroupRoot, ExternalMount, InheritedFd, JoinedNamespace, Kind, Options, PageServer, Request};
use crate::plan::{CgroupMount, Namespace, Plan, Source};
use crate::rootfs::InRoot;

/// Flags that `checkpoint` and `restore` share, or that one of them has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    pub tcp_established: bool,
    pub tcp_close: bool,
    pub tcp_skip_in_flight: bool,
    pub link_remap: bool,
    pub ext_unix_sk: bool,
    pub shell_job: bool,
    pub file_locks: bool,
    pub auto_dedup: bool,
    pub lazy_pages: bool,
    pub leave_running: bool,
    pub pre_dump: bool,
    pub cgroups: CgroupsMode,
    pub network_lock: Option<NetworkLock>,
    /// Relative to the images.
    pub parent: Option<PathBuf>,
    pub page_server: Option<(String, u16)>,
    pub lsm_profile: Option<String>,
    pub lsm_mount_context: Option<String>,
}

/// How far CRIU looks after cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupsMode {
    #[default]
    Default,
    Soft,
    Full,
    Strict,
    Ignore,
}

impl CgroupsMode {
    pub const WORDS: [(&str, Self); 4] =
        [("soft", Self::Soft), ("full", Self::Full), ("strict", Self::Strict), ("ignore", Self::Ignore)];

    fn number(self) -> i32 {
        match self {
            Self::Ignore => 0,
            Self::Soft => 3,
            Self::Full => 4,
            Self::Strict => 5,
            Self::Default => 6,
        }
    }
}

/// By what connections are held while a container is dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    Iptables = 1,
    Nftables = 2,
    Skip = 3,
}

impl NetworkLock {
    pub const WORDS: [(&str, Self); 3] =
        [("iptables", Self::Iptables), ("nftables", Self::Nftables), ("skip", Self::Skip)];
}

/// Files that CRIU opens by rrun's descriptors.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub images: RawFd,
    pub work: Option<RawFd>,
    pub log: &'static str,
    /// Its settings win over those of the request.
    pub config: Option<PathBuf>,
}

/// A running container.
#[derive(Debug, Default)]
pub struct Dumped {
    pub pid: i32,
    pub rootfs: PathBuf,
    /// Mountpoints inside of what is bound from the host, and their names in the images.
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    /// The inodes of namespaces that others have made.
    pub joined: Vec<(Namespace, u64)>,
    pub freezer: Option<PathBuf>,
}

/// What a container is restored into.
#[derive(Debug, Default)]
pub struct Restored {
    /// Where the root file system is mounted for CRIU.
    pub root: PathBuf,
    pub mounts: BTreeMap<PathBuf, PathBuf>,
    /// Descriptors that CRIU is given, and what they stand for.
    pub inherited: Vec<(String, RawFd)>,
    pub joined: Vec<(Namespace, String)>,
    /// Controllers, and where the container is.
    pub cgroups: Vec<(String, String)>,
}

/// The kernel's null device, which lies over files that are masked.
const NULL: &str = "/dev/null";

/// CLONE_NEWNET: a network namespace of the container's own comes back as a new one, which whoever runs it sets up as it
/// does at a start. One that others have made is left as it is.
const EMPTY: u32 = libc::CLONE_NEWNET as u32;

/// What CRIU cannot take along, by the field that asks for it.
pub fn refuse_impossible(plan: &Plan) -> Result<()> {
    ensure!(
        plan.has_new(Namespace::Mount),
        "linux.namespaces: criu needs a container with a mount namespace of its own; add one without a path"
    );
    let filter = plan.process.seccomp.as_ref();
    ensure!(
        filter.is_none_or(|filter| filter.listener.is_none()),
        "linux.seccomp.listenerPath: criu cannot take along a filter that asks an agent; leave the action SCMP_ACT_NOTIFY out"
    );
    Ok(())
}

/// What the container has mounted from outside, and where that is on the host.
pub fn external_mounts(plan: &Plan) -> Vec<(InRoot, PathBuf)> {
    let mut mounts = Vec::new();
    for mount in &plan.mounts {
        match &mount.source {
            Source::Bind { from, .. } => mounts.push((mount.target.clone(), from.clone())),
            // seen from a cgroup namespace it is the root of a hierarchy, which CRIU mounts anew
            Source::Cgroup(_) if plan.has(Namespace::Cgroup) => {}
            Source::Cgroup(CgroupMount::V1 { hierarchies, .. }) => {
                mounts.extend(hierarchies.iter().map(|one| (mount.target.join(&one.name), one.from.clone())));
            }
            Source::Cgroup(CgroupMount::V2 { bind, .. }) => mounts.push((mount.target.clone(), bind.clone())),
            Source::Filesystem { .. } | Source::Remount { .. } => {}
        }
    }
    // bound where nodes cannot be made
    mounts.extend(plan.devices.iter().map(|device| (device.path.clone(), PathBuf::from(device.path.to_string()))));
    mounts
}

/// By the names in the images. `resolved` says where a place inside leads to: images of runc's have names of that.
pub fn restored_mounts(plan: &Plan, resolved: impl Fn(&InRoot) -> Option<PathBuf>) -> BTreeMap<PathBuf, PathBuf> {
    let mut mounts = BTreeMap::new();
    for (target, source) in external_mounts(plan) {
        if let Some(resolved) = resolved(&target) {
            mounts.entry(resolved).or_insert_with(|| source.clone());
        }
        mounts.insert(PathBuf::from(target.to_string()), source);
    }
    if !plan.masked_paths.is_empty() {
        mounts.insert(NULL.into(), NULL.into());
    }
    mounts
}

/// The name of what lies over masked files.
pub fn mask_name() -> PathBuf {
    NULL.into()
}

fn options(flags: &Flags, files: &Files) -> Options {
    Options {
        images_dir_fd: files.images,
        work_dir_fd: files.work,
        log_level: Some(4),
        log_file: Some(files.log.into()),
        config_file: files.config.as_deref().map(bytes),
        notify_scripts: Some(true),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(flags.cgroups.number()),
        empty_namespaces: Some(EMPTY),
        orphan_pts_master: Some(true),
        tcp_established: Some(flags.tcp_established),
        ext_unix_sk: Some(flags.ext_unix_sk),
        shell_job: Some(flags.shell_job),
        file_locks: Some(flags.file_locks),
        auto_dedup: Some(flags.auto_dedup),
        lazy_pages: Some(flags.lazy_pages),
        network_lock: flags.network_lock.map(|lock| lock as i32),
        ..Options::default()
    }
}

pub fn dump(flags: &Flags, files: &Files, dumped: &Dumped) -> Request {
    let page_server = flags.page_server.clone();
    let options = Options {
        pid: Some(dumped.pid),
        root: Some(bytes(&dumped.rootfs)),
        leave_running: Some(flags.leave_running),
        tcp_skip_in_flight: Some(flags.tcp_skip_in_flight),
        link_remap: Some(flags.link_remap),
        page_server: page_server.map(|(address, port)| PageServer { address: Some(address), port: Some(port.into()) }),
        parent_images: flags.parent.as_deref().map(bytes),
        track_mem: flags.parent.as_ref().map(|_| true),
        freeze_cgroup: dumped.freezer.as_deref().map(bytes),
        external: dumped
            .joined
            .iter()
            .map(|(kind, inode)| format!("{}[{inode}]:{}", kind.file(), outside(*kind)))
            .collect(),
        external_mounts: external(&dumped.mounts),
        ..options(flags, files)
    };
    let kind = if flags.pre_dump { Kind::PreDump } else { Kind::Dump };
    Request { options: Some(Box::new(options)), ..Request::of(kind) }
}

pub fn restore(flags: &Flags, files: &Files, restored: &Restored) -> Request {
    let root =
        |(controller, path): &(String, String)| CgroupRoot { controller: Some(controller.clone()), path: path.clone() };
    let join =
        |(kind, file): &(Namespace, String)| JoinedNamespace { namespace: kind.file().into(), file: file.clone() };
    let inherit = |(key, fd): &(String, RawFd)| InheritedFd { key: key.clone(), fd: *fd };
    let options = Options {
        root: Some(bytes(&restored.root)),
        evasive_devices: Some(true),
        // a child of rrun's, and then of whoever waits for it
        restore_sibling: Some(true),
        cgroup_roots: restored.cgroups.iter().map(root).collect(),
        inherited_fds: restored.inherited.iter().map(inherit).collect(),
        joined_namespaces: restored.joined.iter().map(join).collect(),
        external_mounts: external(&restored.mounts),
        tcp_close: flags.tcp_close.then_some(true),
        lsm_profile: flags.lsm_profile.clone(),
        lsm_mount_context: flags.lsm_mount_context.clone(),
        ..options(flags, files)
    };
    Request { options: Some(Box::new(options)), ..Request::of(Kind::Restore) }
}

fn external(mounts: &BTreeMap<PathBuf, PathBuf>) -> Vec<ExternalMount> {
    mounts.iter().map(|(key, value)| ExternalMount { key: bytes(key), value: bytes(value) }).collect()
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// CRIU knows such a namespace of others by a name in the images.
pub fn is_outside(kind: Namespace) -> bool {
    matches!(kind, Namespace::Network | Namespace::Pid)
}

pub fn outside(kind: Namespace) -> String {
    match kind {
        Namespace::Network => "extRootNetNS".into(),
        Namespace::Pid => "extRootPidNS".into(),
        other => format!("extRoot{other:?}NS"),
    }
}

/// CRIU has no way back into a cgroup namespace.
pub fn refuse_joined(kind: Namespace, field: &str) -> Result<()> {
    match kind {
        Namespace::Cgroup => {
            bail!("{field}: criu cannot put a container into an existing cgroup namespace; leave the path out")
        }
        _ => Ok(()),
    }
}

/// /proc/PID/cgroup → controllers and paths; the v2 tree has no name (cgroups(7)).
pub fn cgroup_roots(text: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(text);
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        roots.extend(controllers.split(',').map(|controller| (controller.to_string(), path.to_string())));
    }
    roots
}

/// What `descriptors.json` says of the standard files, of which only pipes were anybody's outside. The images may come from
/// anywhere: what is no pipe's name is none.
pub fn pipes(descriptors: &[String]) -> Vec<(String, RawFd)> {
    let is_pipe = |name: &str| {
        let number = name.strip_prefix("pipe:[").and_then(|rest| rest.strip_suffix(']'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let mut pipes: Vec<(String, RawFd)> = Vec::new();
    for (name, number) in descriptors.iter().zip(0..=2) {
        if is_pipe(name) && pipes.iter().all(|(other, _)| other != name) {
            pipes.push((name.clone(), number));
        }
    }
    pipes
}

#[cfg(test)]
mod tests;
