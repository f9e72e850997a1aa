//! `rrun create`, and the flags that `run` shares with it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Arg;

use super::{Call, Verb, descriptors, id, notify_socket, switch, value};
use crate::error::Doing;
use crate::lifecycle::{self, CreateOptions};

pub const VERB: Verb = Verb::new("create", "Make a container from a bundle, ready to start", args, run);

fn args() -> Vec<Arg> {
    let mut args = shared_args();
    // A created container is always left alone by rrun: callers that say so get what they want.
    args.extend([switch("no-subreaper", "").hide(true), switch("detach", "").hide(true)]);
    args
}

pub fn shared_args() -> Vec<Arg> {
    vec![
        id(),
        value("bundle", "DIR", "Directory with config.json and rootfs [default: .]").short('b'),
        value("config", "FILE", "Another file in place of BUNDLE/config.json").short('f'),
        value("console-socket", "PATH", "Unix socket that receives the terminal").short('c'),
        value("pid-file", "FILE", "Write the container's pid to FILE").short('p'),
        switch("no-pivot", "Do not use pivot_root, for hosts whose root is an initramfs"),
        switch("no-new-keyring", "Leave the container in the caller's session keyring"),
        value("pidfd-socket", "PATH", "Unix socket that receives a pidfd of the container's process"),
        descriptors::flag(),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let options = options(call)?;
    call.global.root()?.keep_from_cleaning()?;
    lifecycle::create(&call.store()?, &options)?;
    Ok(0)
}

pub fn options(call: &Call) -> Result<CreateOptions> {
    Ok(CreateOptions {
        id: call.id(),
        bundle: bundle(call)?,
        config: config(call)?,
        console_socket: call.path("console-socket")?,
        pidfd_socket: call.path("pidfd-socket")?,
        pid_file: call.path("pid-file")?,
        no_pivot: call.is_on("no-pivot"),
        descriptors: descriptors::given(call)?,
        no_new_keyring: call.is_on("no-new-keyring"),
        cgroup_manager: call.global.cgroup_manager(),
        notify_socket: notify_socket(),
    })
}

pub fn bundle(call: &Call) -> Result<PathBuf> {
    let bundle = call.path("bundle")?;
    Ok(bundle.map_or_else(|| std::env::current_dir().doing("getcwd", ""), Ok)?)
}

/// A path from here, but the usual name is the usual file.
pub fn config(call: &Call) -> Result<Option<PathBuf>> {
    match call.value("config") {
        Some(name) if name == "config.json" => Ok(None),
        _ => call.path("config"),
    }
}
