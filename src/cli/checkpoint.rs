//! `rrun checkpoint`, and the flags that `restore` shares with it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::{Arg, ArgAction, value_parser};

use super::{Call, Verb, id, switch, value};
use crate::criu::request::{CgroupsMode, Flags, NetworkLock};
use crate::error::Doing;
use crate::lifecycle::{self, CheckpointOptions, ImagePaths};
use crate::sys::fds;

pub const VERB: Verb = Verb::new("checkpoint", "Write a container's processes into images, by criu", args, run);

fn args() -> Vec<Arg> {
    let mut args = shared_args();
    args.extend([
        value("parent-path", "DIR", "Images of an earlier --pre-dump, by a path from --image-path"),
        switch("leave-running", "Let the container go on"),
        switch("pre-dump", "Write memory alone, and let the container go on"),
        switch("tcp-skip-in-flight", "Leave out connections that are being opened"),
        switch("link-remap", "Give files without a name one again, so that they can be found"),
        value("status-fd", "NUMBER", "Write a byte there when --lazy-pages can be fetched")
            .value_parser(value_parser!(i32)),
        value("page-server", "ADDRESS:PORT", "Send memory to a page server, or be one with --lazy-pages"),
    ]);
    args
}

pub fn shared_args() -> Vec<Arg> {
    vec![
        id(),
        value("image-path", "DIR", "Directory of the images [default: ./checkpoint]"),
        value("work-path", "DIR", "Directory of criu's log and of what it needs meanwhile [default: --image-path]"),
        switch("tcp-established", "Take open TCP connections along"),
        switch("ext-unix-sk", "Take along unix sockets that lead outside"),
        switch("shell-job", "Take along a container whose terminal is the caller's"),
        switch("file-locks", "Take file locks along"),
        switch("lazy-pages", "Fetch memory when it is touched"),
        switch("auto-dedup", "Free in the images what is read of them, or is in a later one"),
        value("manage-cgroups-mode", "MODE", "soft, full, strict or ignore [default: soft]"),
        value("network-lock", "METHOD", "iptables, nftables or skip: by what connections are held meanwhile"),
        value("empty-ns", "TYPE", "network: as it always is, its devices are left to whoever sets it up")
            .action(ArgAction::Append),
    ]
}

fn run(call: &Call) -> Result<u8> {
    let flags = Flags {
        leave_running: call.is_on("leave-running"),
        pre_dump: call.is_on("pre-dump"),
        tcp_skip_in_flight: call.is_on("tcp-skip-in-flight"),
        link_remap: call.is_on("link-remap"),
        parent: call.value("parent-path").map(PathBuf::from),
        page_server: call.text("page-server").as_deref().map(page_server).transpose()?,
        ..flags(call)?
    };
    let status = call.one::<i32>("status-fd").filter(|number| *number >= 0).map(status_fd).transpose()?;
    let options = CheckpointOptions { id: call.id(), paths: paths(call)?, flags, status };
    lifecycle::checkpoint(&call.store()?, options)?;
    Ok(0)
}

pub fn paths(call: &Call) -> Result<ImagePaths> {
    let here = || Ok::<_, anyhow::Error>(std::env::current_dir().doing("getcwd", "")?.join("checkpoint"));
    Ok(ImagePaths { images: call.path("image-path")?.map_or_else(here, Ok)?, work: call.path("work-path")? })
}

pub fn flags(call: &Call) -> Result<Flags> {
    for kind in call.words("empty-ns") {
        ensure!(kind == "network", "--empty-ns: {} cannot be left empty; only network can", kind.to_string_lossy());
    }
    Ok(Flags {
        tcp_established: call.is_on("tcp-established"),
        ext_unix_sk: call.is_on("ext-unix-sk"),
        shell_job: call.is_on("shell-job"),
        file_locks: call.is_on("file-locks"),
        auto_dedup: call.is_on("auto-dedup"),
        lazy_pages: call.is_on("lazy-pages"),
        cgroups: word(call, "manage-cgroups-mode", &CgroupsMode::WORDS)?.unwrap_or_default(),
        network_lock: word(call, "network-lock", &NetworkLock::WORDS)?,
        ..Flags::default()
    })
}

fn word<T: Copy>(call: &Call, flag: &str, words: &[(&'static str, T)]) -> Result<Option<T>> {
    let Some(given) = call.text(flag) else { return Ok(None) };
    match words.iter().find(|(word, _)| *word == given) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            bail!("--{flag}: {given} is not known; use one of {}", known.join(", "))
        }
    }
}

fn page_server(text: &str) -> Result<(String, u16)> {
    let split = || {
        let (address, port) = text.rsplit_once(':')?;
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (!address.is_empty()).then(|| (address.to_string(), port))
    };
    split().with_context(|| format!("--page-server: {text} is no address; write ADDRESS:PORT"))
}

/// Open for writing, and the caller's.
fn status_fd(number: i32) -> Result<std::os::fd::OwnedFd> {
    let fd = fds::take_inherited(number);
    let fd = fd.with_context(|| format!("--status-fd: descriptor {number} is not open; open it for rrun"))?;
    let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL).doing("fcntl", number)?;
    ensure!(flags & libc::O_ACCMODE != libc::O_RDONLY, "--status-fd: descriptor {number} is not open for writing");
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_page_servers() {
        for (text, want) in [
            ("1.2.3.4:80", Some(("1.2.3.4", 80))),
            ("[::1]:65535", Some(("::1", 65535))),
            ("host:1", Some(("host", 1))),
            ("", None),
            ("host", None),
            ("host:", None),
            (":80", None),
            ("[]:80", None),
            ("host:0", None),
            ("host:65536", None),
            ("host:x", None),
        ] {
            let got = page_server(text);
            assert_eq!(got.as_ref().ok().map(|(address, port)| (address.as_str(), *port)), want, "{text}");
            assert!(got.is_ok() || got.unwrap_err().to_string().starts_with(&format!("--page-server: {text} is no")));
        }
    }
}
