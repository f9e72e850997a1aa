//! `linux.seccomp.listenerPath`: who decides about calls with SCMP_ACT_NOTIFY gets the filter's listener, and is told of
//! which process (config-linux.md, "containerProcessState").

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use serde::Serialize;

use crate::error::Doing;
use crate::log;
use crate::plan::ProcessPlan;
use crate::plan::hooks::State;
use crate::sys::socket;

pub struct Agent<'p> {
    socket: OwnedFd,
    metadata: Option<&'p str>,
}

const FIELD: &str = "config.json: linux.seccomp.listenerPath";

impl<'p> Agent<'p> {
    /// Before anything is made: it may fail. `None` where nothing is to be decided.
    pub fn connect(process: &'p ProcessPlan) -> Result<Option<Self>> {
        let Some(filter) = &process.seccomp else { return Ok(None) };
        // by their number, as seccomp(2) gets it: that of a listener shows too
        log::debug(format_args!("seccomp filter flags: {}", filter.flags()));
        let Some(listener) = &filter.listener else { return Ok(None) };
        let socket =
            socket::connect_stream(&listener.path).context("failed to connect with seccomp agent").context(FIELD)?;
        Ok(Some(Self { socket, metadata: listener.metadata.as_deref() }))
    }

    /// One message with the listener of `pid`, and the end; `state` is the container's.
    pub fn hand_over(self, listener: &OwnedFd, pid: Pid, state: State) -> Result<()> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct ContainerProcessState<'a> {
            oci_version: &'static str,
            fds: [&'static str; 1],
            pid: i32,
            #[serde(skip_serializing_if = "Option::is_none")]
            metadata: Option<&'a str>,
            state: State<'a>,
        }
        let message = serde_json::to_vec(&ContainerProcessState {
            oci_version: crate::OCI_VERSION,
            fds: ["seccompFd"],
            pid: pid.as_raw(),
            metadata: self.metadata,
            state,
        })?;
        socket::send_whole(self.socket.as_fd(), &message, listener.as_fd())
            .doing("sendmsg", "the listener")
            .context(FIELD)
    }
}
