//! `kill`: a signal to init, or the end of everything in the container. `--all` reaches nobody else: it makes a success
//! of a container that is not running.

use anyhow::Result;

use super::Store;
use super::container::Container;
use super::process::{PATIENCE, send};
use crate::error::Matched;

pub fn kill(store: &Store, id: &str, signal: i32, all: bool) -> Result<()> {
    let container = store.find(id)?;
    if signal == libc::SIGKILL && container.shares_pid_namespace() {
        return kill_group(&container, all);
    }
    let sent = match container.state.init {
        Some(init) => send(&container, init, signal)?,
        None => false,
    };
    if !sent {
        // what `kill --all` asks for is already so
        return if all { Ok(()) } else { Err(Matched::NotRunning.into()) };
    }
    if signal == libc::SIGKILL {
        // A frozen process dies when it is thawed.
        container.cgroups()?.thaw()?;
    }
    Ok(())
}

/// Init's end does not end the others, so the cgroup is emptied; also when init is gone already.
fn kill_group(container: &Container, all: bool) -> Result<()> {
    let cgroups = container.cgroups()?;
    // somebody may have moved it to another cgroup
    let sent = container.state.init.map_or(Ok(false), |init| send(container, init, libc::SIGKILL))?;
    if !sent && !cgroups.exist()? {
        return if all { Ok(()) } else { Err(Matched::NotRunning.into()) };
    }
    cgroups.kill(PATIENCE)
}
