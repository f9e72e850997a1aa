//! `linux.netDevices`: takes devices from rrun's network namespace into a container's, with their addresses, and back
//! when the container does not come up. Once it is up they are the namespace's: nobody fetches them
//! (config-linux.md, "Namespace Lifecycle").

use std::cell::RefCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::unistd::{Pid, getpid};

use crate::error::SysError;
use crate::plan::net_devices::NetDevice;
use crate::sys::netlink::{CREATE, Netlink, Request, attributes, text, word};

/// uapi/linux/rtnetlink.h, if_link.h, if_addr.h
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_PID: u16 = 19;
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

#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What is asked of one network namespace.
struct Network(Netlink);

impl Network {
    fn ask(&self, op: &'static str, name: &str, request: &Request) -> Result<Vec<Vec<u8>>, SysError> {
        self.0.ask(op, name, request)
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

    /// Under another name, since the one that it has may be taken there.
    fn send(&self, link: &Link, to: Pid, name: &str) -> Result<(), SysError> {
        let request = Request::new(RTM_SETLINK, &link_header(link.index, 0, 0))
            .attribute(IFLA_NET_NS_PID, &to.as_raw().to_ne_bytes())
            .attribute(IFLA_IFNAME, &terminated(name));
        self.ask("move network device", &link.name, &request).map(drop)
    }

    fn rename(&self, link: &Link, name: &str) -> Result<(), SysError> {
        let request = Request::new(RTM_SETLINK, &link_header(link.index, 0, 0));
        self.ask("name network device", name, &request.attribute(IFLA_IFNAME, &terminated(name))).map(drop)
    }

    fn set_addresses(&self, link: &Link, of: &Found) -> Result<(), SysError> {
        for address in &of.addresses {
            let request = address.request(link.index, (&of.link.name, &link.name));
            self.ask("address of network device", &link.name, &request)?;
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

/// A device as it was found.
struct Found<'p> {
    plan: &'p NetDevice,
    link: Link,
    addresses: Vec<Address>,
}

/// Those of a plan, from where they were found to where they are.
pub struct Devices<'p> {
    own: Network,
    found: Vec<Found<'p>>,
    /// The container's network, and what is there of them by index.
    inside: RefCell<Option<(Network, Vec<u32>)>>,
}

impl<'p> Devices<'p> {
    /// Changes nothing yet.
    pub fn find(planned: &'p [NetDevice]) -> Result<Self> {
        let own = Network(Netlink::open()?);
        let find = |plan: &'p NetDevice| {
            let Some(link) = own.link(&plan.name)? else { bail!("rrun's network namespace has no such device") };
            Ok(Found { plan, addresses: own.addresses(&link)?, link })
        };
        let found = planned.iter().map(|plan| find(plan).with_context(|| plan.field())).collect::<Result<_>>()?;
        Ok(Self { own, found, inside: RefCell::new(None) })
    }

    /// `inside` is a socket of the namespace that process `pid` is in. Returns the names that they have there.
    pub fn hand_over(&self, pid: Pid, inside: Netlink) -> Result<BTreeMap<String, String>> {
        *self.inside.borrow_mut() = Some((Network(inside), Vec::new()));
        let mut names = BTreeMap::new();
        for found in &self.found {
            let name = self.hand_over_one(found, pid).with_context(|| found.plan.field())?;
            names.insert(found.link.name.clone(), name);
        }
        Ok(names)
    }

    fn hand_over_one(&self, found: &Found, pid: Pid) -> Result<String> {
        let mut inside = self.inside.borrow_mut();
        let Some((network, moved)) = inside.as_mut() else { bail!("there is no network to move it to") };
        let name = &found.plan.inside;
        if !found.plan.is_template() && network.link(name)?.is_some() {
            bail!(
                "the container's network namespace has a device {name}; choose another name, or a template such as eth%d"
            );
        }
        // By a name that nobody else gives it can be found there: its index may be another.
        let passing = format!("rr{}.{}", getpid(), moved.len());
        self.own.send(&found.link, pid, &passing)?;
        let Some(link) = network.link(&passing)? else { bail!("was moved and is not there") };
        moved.push(link.index);
        network.rename(&link, name)?;
        let Some(link) = network.link_by_index(link.index, name)? else { bail!("was renamed and is not there") };
        network.set_addresses(&link, found)?;
        network.set_up(&link)?;
        Ok(link.name)
    }

    /// As they were, but for what the kernel drops of a device that leaves: routes, and addresses that do not last.
    pub fn take_back(&self) -> Result<()> {
        let inside = self.inside.borrow();
        let Some((network, moved)) = inside.as_ref() else { return Ok(()) };
        // All of them, also after one has failed.
        let back = self
            .found
            .iter()
            .zip(moved)
            .map(|(found, index)| self.take_one_back(network, found, *index).with_context(|| found.plan.field()));
        back.fold(Ok(()), Result::and)
    }

    fn take_one_back(&self, network: &Network, found: &Found, index: u32) -> Result<()> {
        let name = &found.link.name;
        let Some(link) = network.link_by_index(index, name)? else { bail!("is gone") };
        network.send(&link, getpid(), name)?;
        let Some(link) = self.own.link(name)? else { bail!("was moved and is not there") };
        self.own.set_addresses(&link, found)?;
        if found.link.up {
            self.own.set_up(&link)?;
        }
        Ok(())
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
