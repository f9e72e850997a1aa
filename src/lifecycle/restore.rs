//! `restore`: a container whose processes come from images. It comes up as any other (`bring_up`); where init would be
//! launched, CRIU is, and the container runs when it is up.

use anyhow::{Result, ensure};
use nix::sys::prctl;

use super::bring_up::{Origin, Place, Up, bring_up};
use super::checkpoint::NEEDS_ROOT;
use super::container::Container;
use super::delete::delete_up;
use super::hooks::{self, Runner};
use super::images::{ImagePaths, Images};
use super::revive::Image;
use super::run::{await_end, take_away};
use super::{CreateOptions, Store};
use crate::criu::program::Start;
use crate::criu::request::Flags;
use crate::error::Doing;
use crate::host;
use crate::launch::foreground::Relay;
use crate::launch::interrupts::Interrupts;
use crate::launch::seal;
use crate::{log, state};

pub struct RestoreOptions {
    pub create: CreateOptions,
    pub paths: ImagePaths,
    pub flags: Flags,
    pub detach: bool,
    pub no_subreaper: bool,
}

/// The exit status of the container's process; 0 when detached.
pub fn restore(store: &Store, options: &RestoreOptions) -> Result<i32> {
    let id = &options.create.id;
    state::check_id(id)?;
    ensure!(!host::rootless()?, NEEDS_ROOT);
    seal::ensure()?;
    let image = Image {
        images: Images::open(&options.paths)?,
        flags: &options.flags,
        start: Start::new(seal::callers_environment()?)?,
    };
    let interrupts = Interrupts::take()?;
    let place = if options.detach { Place::Detached } else { Place::Foreground };
    if place == Place::Foreground && !options.no_subreaper {
        prctl::set_child_subreaper(true).doing("prctl PR_SET_CHILD_SUBREAPER", "")?;
    }
    let Up { container, child, console } = bring_up(store, &options.create, place, &interrupts, Origin::Image(&image))?;
    poststart(&container, &interrupts)?;
    if place == Place::Detached {
        return Ok(0);
    }
    let relay = console.map(Relay::new).transpose();
    let outcome = relay.and_then(|relay| await_end(&container, &child, &interrupts, relay, None));
    take_away(&container, &interrupts, outcome)
}

/// The program runs; its hooks of this moment had run before it was dumped, and those of poststop since.
fn poststart(container: &Container, interrupts: &Interrupts) -> Result<()> {
    let state = &container.state;
    let run = || {
        let hooks = hooks::recorded(&container.directory, state, &["poststart"])?;
        let outputs = hooks::outputs(&hooks.poststart, &state.hook_output)?;
        let pid = state.init.map_or(0, |init| init.pid);
        Runner::of_state(state, &outputs, Some(interrupts)).poststart(&hooks, pid)
    };
    let Err(error) = run() else { return Ok(()) };
    if let Err(left) = delete_up(container, Some(interrupts)) {
        log::warning(&format!("restore {}: what is left could not be removed: {left:#}", state.id));
    }
    Err(error)
}
