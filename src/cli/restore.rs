//! `rrun restore`: a container from images; in the foreground the exit status is the container's.

use anyhow::Result;
use clap::Arg;

use super::{Call, Verb, checkpoint, create, switch, value};
use crate::criu::request::Flags;
use crate::lifecycle::{self, CreateOptions, RestoreOptions};
use crate::plan::Descriptors;

pub const VERB: Verb = Verb::new("restore", "Make a container whose processes come from images, by criu", args, run);

fn args() -> Vec<Arg> {
    let mut args = checkpoint::shared_args();
    args.extend(create::shared_args().into_iter().filter(|arg| {
        // the rest is about a program that starts
        ["bundle", "config", "console-socket", "pid-file", "pidfd-socket"].contains(&arg.get_id().as_str())
    }));
    args.extend([
        switch("detach", "Leave the container running in the background").short('d'),
        switch("no-subreaper", "Do not adopt the container's orphans"),
        switch("tcp-close", "Close TCP connections that were open"),
        value("lsm-profile", "TYPE:NAME", "AppArmor profile or SELinux label in place of that in the images"),
        value("lsm-mount-context", "CONTEXT", "SELinux context of mounts in place of that in the images"),
        // criu changes the root in its own way, processes have their descriptors and keyrings from the images, and what came
        // before is found by the images themselves: callers that say so get what they want
        switch("no-pivot", "").hide(true),
        switch("no-new-keyring", "").hide(true),
        value("preserve-fds", "COUNT", "").hide(true),
        value("parent-path", "DIR", "").hide(true),
    ]);
    args
}

fn run(call: &Call) -> Result<u8> {
    let create = CreateOptions {
        id: call.id(),
        bundle: create::bundle(call)?,
        config: create::config(call)?,
        console_socket: call.path("console-socket")?,
        pidfd_socket: call.path("pidfd-socket")?,
        pid_file: call.path("pid-file")?,
        no_pivot: false,
        descriptors: Descriptors::default(),
        no_new_keyring: call.is_on("no-new-keyring"),
        cgroup_manager: call.global.cgroup_manager(),
        notify_socket: None,
    };
    let flags = Flags {
        tcp_close: call.is_on("tcp-close"),
        lsm_profile: call.text("lsm-profile"),
        lsm_mount_context: call.text("lsm-mount-context"),
        ..checkpoint::flags(call)?
    };
    let options = RestoreOptions {
        create,
        paths: checkpoint::paths(call)?,
        flags,
        detach: call.is_on("detach"),
        no_subreaper: call.is_on("no-subreaper"),
    };
    call.global.root()?.keep_from_cleaning()?;
    let status = lifecycle::restore(&call.store()?, &options)?;
    Ok(u8::try_from(status).unwrap_or(u8::MAX))
}
