//! `rrun exec`: one more process in a container; in the foreground the exit status is the process's.

use anyhow::Result;
use clap::{Arg, ArgAction};

use super::words::Stop;
use super::{Call, Verb, descriptors, id, positional, switch, value};
use crate::lifecycle::{self, ExecOptions, Place};
use crate::plan::exec::{self, Flags, User};
use crate::plan::sub_cgroups::SubCgroups;

pub const VERB: Verb = Verb {
    stop: Stop::AfterId,
    title: "exec failed:",
    failure: u8::MAX,
    ..Verb::new("exec", "Start another process in a container", args, run)
};

fn args() -> Vec<Arg> {
    vec![
        id(),
        positional("COMMAND", "Program and its arguments").action(ArgAction::Append).num_args(0..),
        value("process", "FILE", "Take the whole process from a JSON file").short('p'),
        value("console-socket", "PATH", "Unix socket that receives the terminal"),
        value("pidfd-socket", "PATH", "Unix socket that receives a pidfd of the process"),
        value("pid-file", "FILE", "Write the process's pid to FILE"),
        switch("detach", "Leave the process running in the background").short('d'),
        switch("tty", "Give it a terminal").short('t'),
        value("cwd", "DIR", "Its working directory"),
        many("env", "NAME=VALUE", "Add a variable to its environment").short('e'),
        value("user", "UID[:GID]", "Run it as this user").short('u').value_parser(exec::user),
        many("additional-gids", "GID", "Add a group").short('g').value_parser(exec::id),
        many("cap", "CAP_NAME", "Add a capability").short('c'),
        switch("no-new-privs", "Let it gain no privileges by executing files"),
        value("process-label", "LABEL", "SELinux label of the process"),
        value("apparmor", "PROFILE", "AppArmor profile of the process"),
        many("cgroup", "[CONTROLLER,…:]PATH", "Put it into a cgroup below the container's"),
        switch("ignore-paused", "Go on in a paused container; it starts when that is resumed"),
        descriptors::flag(),
    ]
}

fn many(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    value(name, kind, help).action(ArgAction::Append)
}

fn run(call: &Call) -> Result<u8> {
    let status = lifecycle::exec(&call.store()?, &options(call)?)?;
    Ok(u8::try_from(status).unwrap_or(u8::MAX))
}

pub(super) fn options(call: &Call) -> Result<ExecOptions> {
    let strings = |name| call.words(name).iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let flags = Flags {
        args: strings("COMMAND"),
        env: strings("env"),
        cwd: call.text("cwd"),
        user: call.one::<User>("user"),
        additional_gids: call.many::<u32>("additional-gids"),
        capabilities: strings("cap"),
        no_new_privileges: call.is_on("no-new-privs"),
        terminal: call.is_on("tty"),
        apparmor_profile: call.text("apparmor"),
        selinux_label: call.text("process-label"),
    };
    Ok(ExecOptions {
        id: call.id(),
        process: call.path("process")?,
        flags,
        sub_cgroups: SubCgroups::parse(strings("cgroup").iter().map(String::as_str))?,
        place: if call.is_on("detach") { Place::Detached } else { Place::Foreground },
        console_socket: call.path("console-socket")?,
        pidfd_socket: call.path("pidfd-socket")?,
        pid_file: call.path("pid-file")?,
        ignore_paused: call.is_on("ignore-paused"),
        descriptors: descriptors::given(call)?,
    })
}
