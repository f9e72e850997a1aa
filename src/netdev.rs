//! `linux.netDevices`: takes devices from rrun's network namespace into a container's, with their addresses, and back
//! when the container does not come up. Once it is up they are the namespace's: nobody fetches them
//! (config-linux.md, "Namespace Lifecycle").

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, SysError};
use crate::log;
use crate::plan::net_devices::NetDevice;
use crate::sys::netlink::{CREATE, Netlink, Request, attributes, text, word};

/// uapi/linux/rtnetlink.h, if_link.h, if_addr.h
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_LABEL: u16 = 3;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
const IFA_F_PERMANENT: u32 = 0x80;
/// RT_SCOPE_UNIVERSE
const UNIVERSE: u8 = 0;
const UP: u32 = libc::IFF_UP as u32;

/// What makes an address what it is; the rest the kernel tells and does not take.
const KEPT: [u16; 7] = [IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_BROADCAST, IFA_FLAGS, IFA_RT_PRIORITY, IFA_PROTO];

/// struct ifinfomsg
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
    up: bool,
}

impl Link {
    const HEADER: usize = 16;

    fn parse(body: &[u8]) -> Option<Self> {
        let name = attributes(body.get(Self::HEADER..)?).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME)?;
        Some(Self { index: word(body, 4)?, name: text(name.1), up: word(body, 8)? & UP != 0 })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    const HEADER: usize = 8;

    /// Of this device, and meant to last: permanent, and good everywhere. The kernel makes the others anew.
    fn parse(body: &[u8], index: u32) -> Option<Self> {
        let all = attributes(body.get(Self::HEADER..)?);
        let flags = all.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, flags)| word(flags, 0));
        let lasts = flags.unwrap_or(body[2].into()) & IFA_F_PERMANENT != 0 && body[3] == UNIVERSE;
        let kept = all.into_iter().filter(|(kind, _)| KEPT.contains(kind));
        let attributes = kept.map(|(kind, value)| (kind, value.to_vec())).collect();
        (lasts && word(body, 4)? == index).then_some(Self { family: body[0], prefix: body[1], attributes })
    }

    fn request(&self, index: u32, names: (&str, &str)) -> Request {
        let header = [&[self.family, self.prefix, 0, UNIVERSE][..], &index.to_ne_bytes()].concat();
        self.attributes.iter().fold(Request::new(RTM_NEWADDR, &header).flags(CREATE), |request, (kind, value)| {
            match *kind {
                IFA_LABEL => request.attribute(IFA_LABEL, &relabelled(value, names)),
                kind => request.attribute(kind, value),
            }
        })
    }
}

/// A label is the device's name, or begins with it: `eth0:1`.
fn relabelled(label: &[u8], (before, after): (&str, &str)) -> Vec<u8> {
    match text(label).strip_prefix(before) {
        Some(rest) if rest.is_empty() || rest.starts_with(':') => format!("{after}{rest}\0").into_bytes(),
        _ => label.to_vec(),
    }
}

/// A network namespace: its file, and what asks there.
pub struct Network {
    file: OwnedFd,
    socket: Netlink,
}

impl Network {
    /// The socket was opened in that namespace.
    pub fn new(file: OwnedFd, socket: Netlink) -> Self {
        Self { file, socket }
    }

    /// That of rrun itself.
    fn own() -> Result<Self, SysError> {
        const OWN: &str = "/proc/self/ns/net";
        Ok(Self { file: std::fs::File::open(OWN).doing("open", OWN)?.into(), socket: Netlink::open()? })
    }

    fn ask(&self, op: &'static str, name: &str, request: &Request) -> Result<Vec<Vec<u8>>, SysError> {
        self.socket.ask(op, name, request)
    }

    fn link(&self, name: &str) -> Result<Option<Link>, SysError> {
        self.get(name, Request::new(RTM_GETLINK, &link_header(0, 0, 0)).attribute(IFLA_IFNAME, &terminated(name)))
    }

    fn link_by_index(&self, index: u32, name: &str) -> Result<Option<Link>, SysError> {
        self.get(name, Request::new(RTM_GETLINK, &link_header(index, 0, 0)))
    }

    fn get(&self, name: &str, request: Request) -> Result<Option<Link>, SysError> {
        match self.ask("find network device", name, &request) {
            Err(SysError { errno: Errno::ENODEV, .. }) => Ok(None),
            answers => Ok(answers?.first().and_then(|body| Link::parse(body))),
        }
    }

    fn addresses(&self, link: &Link) -> Result<Vec<Address>, SysError> {
        let answers = self.ask("addresses of network device", &link.name, &Request::all(RTM_GETADDR, &[0; 8]))?;
        Ok(answers.iter().filter_map(|body| Address::parse(body, link.index)).collect())
    }

    fn send(&self, link: &Link, to: &Self, name: &str) -> Result<(), SysError> {
        let request = Request::new(RTM_SETLINK, &link_header(link.index, 0, 0))
            .attribute(IFLA_NET_NS_FD, &to.file.as_raw_fd().to_ne_bytes())
            .attribute(IFLA_IFNAME, &terminated(name));
        self.ask("move network device", &link.name, &request).map(drop)
    }

    fn rename(&self, link: &Link, name: &str) -> Result<(), SysError> {
        let request = Request::new(RTM_SETLINK, &link_header(link.index, 0, 0));
        self.ask("name network device", name, &request.attribute(IFLA_IFNAME, &terminated(name))).map(drop)
    }

    /// Those that it has already are left.
    fn set_addresses(&self, link: &Link, of: &Lent) -> Result<(), SysError> {
        for address in &of.addresses {
            let request = address.request(link.index, (&of.name, &link.name));
            match self.ask("address of network device", &link.name, &request) {
                Err(SysError { errno: Errno::EEXIST, .. }) => {}
                result => drop(result?),
            }
        }
        Ok(())
    }

    fn set_up(&self, link: &Link) -> Result<(), SysError> {
        let request = Request::new(RTM_SETLINK, &link_header(link.index, UP, UP));
        self.ask("bring up network device", &link.name, &request).map(drop)
    }
}

fn terminated(name: &str) -> Vec<u8> {
    format!("{name}\0").into_bytes()
}

/// A device on loan until the container is up: as it was found, and where to find it. Written down before it is sent, so
/// that whoever comes after a killed rrun can give it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    name: String,
    up: bool,
    addresses: Vec<Address>,
    /// Its name on the way, that nobody else gives: where it arrives its index may be another, and its own name be taken.
    passing: String,
    /// Where it has arrived. Its name there may be the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<u32>,
}

impl Lent {
    /// As `NetDevice::field`.
    fn field(&self) -> String {
        format!("linux.netDevices.{}", self.name)
    }
}

/// Those of a plan, from where they were found to where they are.
pub struct Devices<'p> {
    own: Network,
    planned: &'p [NetDevice],
    lent: RefCell<Vec<Lent>>,
    inside: OnceCell<Network>,
}

impl<'p> Devices<'p> {
    /// Changes nothing yet.
    pub fn find(planned: &'p [NetDevice]) -> Result<Self> {
        let own = Network::own()?;
        let lent = planned.iter().enumerate().map(|(place, plan)| {
            let passing = format!("rr{}.{place}", getpid());
            Self::find_one(&own, plan, passing).with_context(|| plan.field())
        });
        let lent = RefCell::new(lent.collect::<Result<_>>()?);
        Ok(Self { own, planned, lent, inside: OnceCell::new() })
    }

    fn find_one(own: &Network, plan: &NetDevice, passing: String) -> Result<Lent> {
        let Some(link) = own.link(&plan.name)? else { bail!("rrun's network namespace has no such device") };
        Ok(Lent { addresses: own.addresses(&link)?, name: link.name, up: link.up, passing, index: None })
    }

    /// Where they are lent from.
    pub fn home(&self) -> BorrowedFd<'_> {
        self.own.file.as_fd()
    }

    /// What has to be on record before they are sent.
    pub fn record(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&*self.lent.borrow())?)
    }

    /// `arrived` is called where the record has become another. Returns the names that they have inside.
    pub fn hand_over(&self, inside: Network, arrived: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, String>> {
        let inside = self.inside.get_or_init(|| inside);
        for plan in self.planned.iter().filter(|plan| !plan.is_template()) {
            self.refuse_taken(inside, plan).with_context(|| plan.field())?;
        }
        for lent in self.lent.borrow_mut().iter_mut() {
            self.send(inside, lent).with_context(|| lent.field())?;
        }
        arrived()?;
        let install = |(plan, lent): (&NetDevice, &Lent)| {
            let name = Self::install(inside, plan, lent).with_context(|| plan.field())?;
            Ok((lent.name.clone(), name))
        };
        self.planned.iter().zip(&*self.lent.borrow()).map(install).collect()
    }

    fn refuse_taken(&self, inside: &Network, plan: &NetDevice) -> Result<()> {
        let name = &plan.inside;
        match inside.link(name)? {
            None => Ok(()),
            Some(_) => bail!(
                "the container's network namespace has a device {name}; choose another name, or a template such as eth%d"
            ),
        }
    }

    fn send(&self, inside: &Network, lent: &mut Lent) -> Result<()> {
        let Some(link) = self.own.link(&lent.name)? else { bail!("was there, and is gone") };
        self.own.send(&link, inside, &lent.passing)?;
        let Some(link) = inside.link(&lent.passing)? else { bail!("was moved and is not there") };
        lent.index = Some(link.index);
        Ok(())
    }

    fn install(inside: &Network, plan: &NetDevice, lent: &Lent) -> Result<String> {
        let arrived = || inside.link_by_index(lent.index?, &plan.inside).transpose();
        let Some(link) = arrived().transpose()? else { bail!("was moved and is not there") };
        inside.rename(&link, &plan.inside)?;
        let Some(link) = arrived().transpose()? else { bail!("was renamed and is not there") };
        inside.set_addresses(&link, lent)?;
        inside.set_up(&link)?;
        Ok(link.name)
    }

    pub fn take_back(&self) -> Result<()> {
        match self.inside.get() {
            Some(inside) => give_back(&self.own, inside, &self.lent.borrow()),
            None => Ok(()),
        }
    }
}

/// What `Devices::record` wrote.
pub fn read(record: &[u8]) -> Result<Vec<Lent>> {
    Ok(serde_json::from_slice(record)?)
}

/// As they were, but for what the kernel drops of a device that leaves: routes, and addresses that do not last. May have
/// been done in part before.
pub fn give_back(home: &Network, inside: &Network, lent: &[Lent]) -> Result<()> {
    // All of them, also after one has failed.
    let back = lent.iter().map(|lent| give_one_back(home, inside, lent).with_context(|| lent.field()));
    back.fold(Ok(()), Result::and)
}

fn give_one_back(home: &Network, inside: &Network, lent: &Lent) -> Result<()> {
    let there = match lent.index {
        Some(index) => inside.link_by_index(index, &lent.name)?,
        None => inside.link(&lent.passing)?,
    };
    if let Some(link) = there {
        home_is_free(home, lent)?;
        inside.send(&link, home, &lent.name)?;
    }
    match home.link(&lent.name)? {
        Some(link) => {
            home.set_addresses(&link, lent)?;
            if lent.up { Ok(home.set_up(&link)?) } else { Ok(()) }
        }
        // nobody can give back what somebody has removed
        None => {
            log::warning(&format!("{}: is gone", lent.field()));
            Ok(())
        }
    }
}

fn home_is_free(home: &Network, lent: &Lent) -> Result<()> {
    match home.link(&lent.name)? {
        None => Ok(()),
        Some(_) => bail!(
            "cannot come back, since another device has its name by now; rename that one, then delete the container by --force"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(index: u32, scope: u8, flags: u32, more: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![2, 24, flags as u8, scope];
        body.extend(index.to_ne_bytes());
        for (kind, value) in more.iter().chain([&(IFA_FLAGS, &flags.to_ne_bytes()[..])]) {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*value);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        body
    }

    #[test]
    fn addresses_that_last_are_kept() {
        const LINK: u8 = 253;
        const NOPREFIXROUTE: u32 = 0x200;
        for (index, scope, flags, want) in [
            (7, UNIVERSE, IFA_F_PERMANENT, true),
            (7, UNIVERSE, IFA_F_PERMANENT | NOPREFIXROUTE, true),
            (7, UNIVERSE, 0, false),
            (7, LINK, IFA_F_PERMANENT, false),
            (8, UNIVERSE, IFA_F_PERMANENT, false),
        ] {
            let parsed = Address::parse(&told(index, scope, flags, &[]), 7);
            assert_eq!(parsed.is_some(), want, "{index} {scope} {flags}");
        }
    }

    #[test]
    fn an_address_keeps_what_makes_it_and_nothing_else() {
        const CACHEINFO: u16 = 6;
        let (address, peer) = (&[10, 0, 0, 1][..], &[10, 0, 0, 2][..]);
        let more = [(IFA_ADDRESS, peer), (IFA_LOCAL, address), (CACHEINFO, &[0; 16]), (IFA_LABEL, b"eth0:1\0")];
        let parsed = Address::parse(&told(7, UNIVERSE, IFA_F_PERMANENT, &more), 7).unwrap();
        let kinds: Vec<_> = parsed.attributes.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [IFA_ADDRESS, IFA_LOCAL, IFA_LABEL, IFA_FLAGS]);
        assert_eq!((parsed.family, parsed.prefix), (2, 24));
    }

    #[test]
    fn labels_follow_the_name() {
        for (label, want) in [("eth0", "net1"), ("eth0:1", "net1:1"), ("eth01", "eth01"), ("other", "other")] {
            let label = terminated(label);
            assert_eq!(text(&relabelled(&label, ("eth0", "net1"))), want);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_beyond_reading(body in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = (Link::parse(&body), Address::parse(&body, 1));
        }
    }
}
