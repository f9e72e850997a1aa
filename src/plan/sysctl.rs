//! `linux.sysctl`: which keys may be written for a container, and where each lies below /proc/sys. Only what belongs
//! to a namespace of its own: any other key would change the host.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use super::problems::Problems;
use super::{Namespace, Sysctl, namespaces};

/// Keys of the ipc namespace, beside all of fs.mqueue.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// `domainname` is the config's own field, which is another way to set kernel.domainname.
pub fn plan<'a>(
    sysctls: impl IntoIterator<Item = (&'a String, &'a String)>,
    namespaces: &[Namespace],
    domainname: Option<&str>,
    problems: &mut Problems,
) -> Vec<Sysctl> {
    let mut paths = BTreeSet::new();
    let one = |(key, value): (&String, &String)| {
        let path = path(key)?;
        check_value(key, value)?;
        check_namespace(key, &path, namespaces)?;
        if path == "kernel/domainname" && domainname.is_some_and(|name| name != value) {
            bail!("linux.sysctl: {key}: {value} contradicts the field domainname; remove one of them");
        }
        ensure!(paths.insert(path.clone()), "linux.sysctl: {key}: given twice, with dots and with slashes; keep one");
        Ok(Sysctl { key: key.clone(), path, value: value.clone() })
    };
    problems.each(sysctls.into_iter().map(one))
}

/// As sysctl.d(5) has it: the first `.` or `/` is the separator, the other one is part of a name. So an interface
/// `eth0.100` is `net.ipv4.conf.eth0/100.forwarding` or `net/ipv4/conf/eth0.100/forwarding`.
fn path(key: &str) -> Result<String> {
    let dotted = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'.');
    let swapped = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path: String = if dotted { key.chars().map(swapped).collect() } else { key.into() };
    ensure!(!key.is_empty(), "linux.sysctl: has an empty key; remove it");
    for part in path.split('/') {
        ensure!(!part.is_empty() && part != "." && part != "..", "linux.sysctl: {key}: has an empty or dotted part");
    }
    let odd = path.chars().find(|c| c.is_control() || c.is_whitespace() || *c == '+' || *c == '\\');
    ensure!(odd.is_none(), "linux.sysctl: {}: holds a character that no key has", key.escape_debug());
    Ok(path)
}

fn check_value(key: &str, value: &str) -> Result<()> {
    // a tab separates the numbers of a list
    let odd = value.chars().any(|c| c.is_control() && c != '\t');
    ensure!(!odd, "linux.sysctl: {key}: {} holds a control character; give one line", value.escape_debug());
    ensure!(!value.is_empty(), "linux.sysctl: {key}: has an empty value; the kernel would ignore it");
    Ok(())
}

fn check_namespace(key: &str, path: &str, apart: &[Namespace]) -> Result<()> {
    let needed = match path.split_once('/') {
        Some(("kernel", "hostname")) => bail!("linux.sysctl: {key}: use the field hostname instead"),
        _ => match owner(path) {
            Some(needed) => needed,
            None => bail!("linux.sysctl: {key}: is not in a separate kernel namespace; set it on the host"),
        },
    };
    ensure!(
        apart.contains(&needed),
        "linux.sysctl: {key}: needs a new {} namespace; add one to linux.namespaces",
        namespaces::name(needed)
    );
    Ok(())
}

/// The type of namespaces that a key below /proc/sys belongs to.
pub fn owner(path: &str) -> Option<Namespace> {
    match path.split_once('/') {
        Some(("net", _)) => Some(Namespace::Network),
        Some(("fs", rest)) if rest.starts_with("mqueue/") => Some(Namespace::Ipc),
        _ if IPC.contains(&path) => Some(Namespace::Ipc),
        Some(("kernel", "domainname")) => Some(Namespace::Uts),
        Some(("user", _)) => Some(Namespace::User),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
