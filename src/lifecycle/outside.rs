//! What `create` takes from outside the container: each can be missing or refused, which is told before anything is made.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use super::CreateOptions;
use super::hooks;
use super::pidfd_socket::PidfdSocket;
use super::seccomp_agent::Agent;
use crate::hooks::Outputs;
use crate::init::Joined;
use crate::launch::joined;
use crate::netdev::Devices;
use crate::plan::Plan;
use crate::plan::annotations::Annotated;
use crate::procfs::Proc;
use crate::resctrl::Group;
use crate::state::pid_file::PidFile;
use crate::sys::socket;

pub struct Outside<'p> {
    pub rdt: Option<Group<'p>>,
    /// Of the hooks that come before the program.
    pub hook_outputs: Outputs,
    pub for_init: ForInit<'p>,
}

/// What init is given, and who hears of it.
pub struct ForInit<'p> {
    pub joins: Vec<Joined>,
    pub net_devices: Option<Devices<'p>>,
    pub console_socket: Option<OwnedFd>,
    pub pidfd_socket: Option<PidfdSocket>,
    pub agent: Option<Agent<'p>>,
    pub pid_file: Option<PidFile>,
}

impl<'p> Outside<'p> {
    pub fn open(plan: &'p Plan, options: &CreateOptions, annotated: &Annotated) -> Result<Self> {
        let joins = joined::open(plan).context("config.json")?;
        let net_devices = (!plan.net_devices.is_empty()).then(|| Devices::find(&plan.net_devices)).transpose();
        let net_devices = net_devices.context("config.json")?;
        let rdt = plan.intel_rdt.as_ref().map(|planned| Group::find(planned, Proc::own()?)).transpose();
        let rdt = rdt.context("config.json")?;
        let console_socket = options.console_socket.as_deref().map(socket::connect_stream).transpose();
        let console_socket = console_socket.context("--console-socket")?;
        let pidfd_socket =
            PidfdSocket::connect(options.pidfd_socket.as_deref().or(annotated.pidfd_receiver.as_deref()))?;
        let agent = Agent::connect(&plan.process)?;
        let early = plan.hooks.by_kind().into_iter().take_while(|(kind, _)| *kind != "poststart");
        let hook_outputs = hooks::outputs(early.flat_map(|(_, hooks)| hooks), &annotated.hook_output);
        let hook_outputs = hook_outputs.context("config.json")?;
        let pid_file = options.pid_file.as_deref().map(PidFile::prepare).transpose()?;
        let for_init = ForInit { joins, net_devices, console_socket, pidfd_socket, agent, pid_file };
        Ok(Self { rdt, hook_outputs, for_init })
    }
}
