//! Network devices while a container comes up: on loan. They go back if it does not, also by the hand of whoever deletes
//! what a killed rrun has left. So the loan is on record, and both namespaces are held, before the first one is sent.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::claim::Claim;
use crate::launch::stages::{self, Entry};
use crate::log;
use crate::netdev::{self, Devices, Network};
use crate::plan::Namespace;
use crate::procfs::Proc;
use crate::state::directory::Directory;
use crate::sys::netlink::Netlink;

pub struct Loan<'a> {
    pub devices: &'a Devices<'a>,
    pub claim: &'a Claim,
}

impl Loan<'_> {
    /// Returns the names that they have where `child` is.
    pub fn hand_over(&self, proc: &Proc, child: Pid) -> Result<BTreeMap<String, String>> {
        let file = proc.open_namespace(child, Namespace::Network.file())?;
        let directory = &self.claim.directory;
        self.claim.as_ours(|| {
            directory.write_lent(&self.devices.record()?)?;
            Ok(directory.hold_networks([self.devices.home(), file.as_fd()])?)
        })?;
        let arrived = || self.claim.as_ours(|| Ok(directory.write_lent(&self.devices.record()?)?));
        self.devices.hand_over(network(file, "the container's network namespace")?, arrived)
    }

    pub fn take_back(&self) -> Result<()> {
        self.devices.take_back()?;
        self.claim.if_ours(|| Ok(self.claim.directory.let_networks_go()?))
    }

    /// The container is up, and they are its own.
    pub fn end(&self) {
        let ended = self.claim.if_ours(|| Ok(self.claim.directory.let_networks_go()?));
        if let Err(error) = ended {
            log::warning(&format!("linux.netDevices: {error:#}"));
        }
    }
}

fn network(file: OwnedFd, named: &str) -> Result<Network> {
    let socket = open_in(file.as_fd(), named)?;
    Ok(Network::new(file, socket))
}

fn open_in(network: BorrowedFd, named: &str) -> Result<Netlink> {
    let entry = Entry { by: network, kinds: vec![Namespace::Network], named: named.into() };
    stages::visit(entry, || Ok(Netlink::open()?))
}

/// By `delete`, when nobody is inside any more.
pub fn settle(directory: &Directory) -> Result<()> {
    if let Some(lent) = directory.read_lent()?
        && let Some(held) = directory.held_networks()?
    {
        let [home, inside] = held.map(File::into);
        let home = network(home, "the network namespace that devices were lent from")?;
        let inside = network(inside, "the container's network namespace")?;
        let lent = netdev::read(&lent).context("the record of devices that were lent")?;
        netdev::give_back(&home, &inside, &lent)?;
    }
    Ok(directory.let_networks_go()?)
}
