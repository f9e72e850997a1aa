//! The child's half of a start: it runs in the container's new namespaces, between clone3 and execve, nowhere else.
//!
//! What it does is a list of steps (`steps.rs`); each is a function on [`Init`] in the file of its topic. It sees the
//! plan and what the parent opened for it; it cannot reach cgroups or state. An error ends it, and is told whole.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};

use crate::error::Report;
use crate::hooks::Outputs;
use crate::plan::exec::ExecPlan;
use crate::plan::{Namespace, Plan, ProcessPlan};
use crate::procfs::Proc;
use crate::protocol::{Ask, Channel, Ready};
use crate::rootfs::{InRoot, Rootfs};
use crate::sys::exec::Image;
use crate::sys::file;
use crate::sys::mount::Mount;

mod cgroup_mount;
mod console;
mod copy_up;
mod credentials;
mod devices;
mod exec;
mod hooks;
pub mod image;
pub mod join;
mod labels;
mod limits;
mod masks;
mod mounts;
mod namespaces;
mod parent;
pub mod probe;
mod program;
mod root;
pub mod scheduling;
mod seccomp;
pub mod stdio;
pub mod steps;
mod sysctl;
mod user;

pub use devices::{node_of_host, refuse_other as refuse_other_device, symlink_above as symlink_above_device};
pub use join::Container;
pub use mounts::{clone_source, configured, refuse_other_kind, symlink_above};
pub use namespaces::new_time_namespace;
pub use program::look_up;
pub use root::NOT_THEIRS;

/// What the parent opened for the child.
pub struct Handles {
    pub channel: Channel,
    pub ready: Ready,
    /// What a new container waits at. A process of `exec` needs no start.
    pub start: Option<StartHandles>,
    /// pidfd of the parent: readable when it is dead.
    pub parent: OwnedFd,
    /// `tasks` of every v1 hierarchy; `cgroup.procs` of the v2 tree only where the kernel could not clone into it.
    pub cgroups: Vec<(PathBuf, OwnedFd)>,
    /// The namespaces that it is to be put into.
    pub joins: Vec<Joined>,
    /// What a process of `exec` is to join.
    pub container: Option<Container>,
}

/// An existing namespace, opened once and checked, so that what is entered is what was looked at.
pub struct Joined {
    pub kind: Namespace,
    pub field: String,
    pub path: PathBuf,
    pub fd: OwnedFd,
}

/// How it is named in an error.
impl fmt::Display for Joined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.path.display())
    }
}

pub struct StartHandles {
    /// ROOT/ID/start.fifo, held open until the program is executed.
    pub channel: File,
    /// Takes the text of an execve that failed, for `start` to print.
    pub error: File,
    /// Where hooks that run inside write to.
    pub hook_outputs: Outputs,
}

/// Where the child stands: what its steps leave for later steps.
struct Init<'p> {
    /// Of a new container; none when a process joins one.
    plan: Option<&'p Plan>,
    process: &'p ProcessPlan,
    handles: Handles,
    /// The container's root, from the step that opens it on.
    rootfs: Option<Rootfs>,
    /// The host's, where labels are asked for.
    host_procfs: Option<Proc>,
    /// A private procfs that nothing can have been mounted over.
    procfs: Option<OwnedFd>,
    /// Where the last device or link was made.
    last_parent: Option<(InRoot, Rc<OwnedFd>)>,
    covers: masks::Covers,
    /// Mounts that become read-only when everything inside has been made.
    late_readonly: Vec<Mount>,
    /// The working directory could not be entered as root (a network file system): again as the user.
    cwd_pending: bool,
    program: Option<Program>,
    /// An ordinary user's user namespace forbids setgroups(2).
    may_set_groups: bool,
}

/// The program, found, and its arrays, built.
struct Program {
    path: CString,
    image: Image,
}

/// Runs the child; the result is its exit code, but after a good start it is the user's program that ends.
pub fn main(plan: &Plan, handles: Handles) -> i32 {
    Init::new(Some(plan), &plan.process, handles).run(&steps::steps(plan))
}

/// As `main`, of a process that joins a container.
pub fn exec_main(plan: &ExecPlan, handles: Handles) -> i32 {
    Init::new(None, &plan.process, handles).run(&steps::steps_of_exec(plan))
}

impl<'p> Init<'p> {
    fn new(plan: Option<&'p Plan>, process: &'p ProcessPlan, handles: Handles) -> Self {
        Self {
            plan,
            process,
            handles,
            rootfs: None,
            host_procfs: None,
            procfs: None,
            last_parent: None,
            covers: masks::Covers::default(),
            late_readonly: Vec::new(),
            cwd_pending: false,
            program: None,
            may_set_groups: !process.keep_groups && !plan.is_some_and(|plan| plan.no_setgroups),
        }
    }

    fn run(mut self, steps: &[steps::Step]) -> i32 {
        tell_of_panics(&self.handles.channel);
        umask(Mode::empty());
        let outcome = steps::run(steps, &mut self);
        if let Err(error) = &outcome {
            // The parent may be gone; then nobody is left to be told.
            let _ = self.handles.channel.ask(&Ask::Failed(Report::of(error)), None);
        }
        // Its descriptors may be closed by now, and their owners would close them again.
        std::mem::forget(self);
        outcome.is_err().into()
    }

    fn plan(&self) -> Result<&'p Plan> {
        self.plan.context("there is no container to be made")
    }

    fn rootfs(&self) -> Result<&Rootfs> {
        self.rootfs.as_ref().context("the root file system is not open yet")
    }
}

/// A panic is told to the parent: descriptor 2 is the container's.
fn tell_of_panics(channel: &Channel) {
    let Ok(socket) = file::dup(&channel.as_fd()) else { return };
    std::panic::set_hook(Box::new(move |panic| {
        let report = Ask::Failed(Report::text(format_args!("a defect of rrun: {panic}")));
        let bytes = serde_json::to_vec(&report).unwrap_or_default();
        let _ = crate::sys::socket::send(socket.as_fd(), &bytes, None);
    }));
}
