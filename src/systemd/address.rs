//! Where systemd is to be found: the sockets of the buses that it is on, and its own. From the environment as data.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A socket, as D-Bus writes it: `unix:path=/run/dbus/system_bus_socket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Path(PathBuf),
    Abstract(OsString),
}

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
/// Without a bus between. systemd calls it private, and speaks to systemctl there.
const PRIVATE: &str = "systemd/private";

impl Address {
    /// The bus first: it is what systemd promises. Its own socket where there is no bus, or none yet.
    pub fn of_system(given: Option<&OsStr>) -> Vec<Self> {
        match given.filter(|given| !given.is_empty()) {
            Some(given) => Self::parse_list(given),
            None => vec![Self::Path(SYSTEM_BUS.into()), Self::Path(Path::new("/run").join(PRIVATE))],
        }
    }

    pub fn of_user(given: Option<&OsStr>, runtime_dir: Option<&OsStr>) -> Vec<Self> {
        let mut addresses = given.map(Self::parse_list).unwrap_or_default();
        if let Some(dir) = runtime_dir.filter(|dir| !dir.is_empty()).map(Path::new) {
            let usual = [dir.join("bus"), dir.join(PRIVATE)].map(Self::Path);
            addresses.extend(usual.into_iter().filter(|usual| !addresses.contains(usual)).collect::<Vec<_>>());
        }
        addresses
    }

    /// Those of a list that are sockets of this machine; rrun takes no other way.
    pub fn parse_list(list: &OsStr) -> Vec<Self> {
        list.as_bytes().split(|byte| *byte == b';').filter_map(Self::parse).collect()
    }

    fn parse(address: &[u8]) -> Option<Self> {
        let pairs = address.strip_prefix(b"unix:")?.split(|byte| *byte == b',');
        pairs.into_iter().find_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let value = OsString::from_vec(unescaped(&pair[at + 1..]));
            match &pair[..at] {
                _ if value.is_empty() => None,
                b"path" => Some(Self::Path(value.into())),
                b"abstract" => Some(Self::Abstract(value)),
                _ => None,
            }
        })
    }

    /// No bus is between.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Path(path) if path.ends_with(PRIVATE))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, value) = match self {
            Self::Path(path) => ("path", path.as_os_str()),
            Self::Abstract(name) => ("abstract", name.as_os_str()),
        };
        write!(f, "unix:{kind}=")?;
        value.as_bytes().iter().try_for_each(|byte| match byte {
            b'-' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'/' | b'.' | b'*' => {
                write!(f, "{}", char::from(*byte))
            }
            byte => write!(f, "%{byte:02x}"),
        })
    }
}

/// `%20` is a space.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escape = rest.get(1..3).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &rest[3..]),
            None => (bytes.push(*first), rest = tail),
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(addresses: Vec<Address>) -> Vec<String> {
        addresses.iter().map(Address::to_string).collect()
    }

    #[test]
    fn where_it_is_looked_for() {
        let usual = ["unix:path=/run/dbus/system_bus_socket", "unix:path=/run/systemd/private"];
        assert_eq!(shown(Address::of_system(None)), usual);
        assert_eq!(shown(Address::of_system(Some(OsStr::new("unix:path=/x")))), ["unix:path=/x"]);
        let (bus, own) = ("unix:path=/run/user/7/bus", "unix:path=/run/user/7/systemd/private");
        for (given, dir, want) in [
            (None, None, vec![]),
            (None, Some(""), vec![]),
            (None, Some("/run/user/7"), vec![bus, own]),
            (Some("unix:path=/run/user/7/bus"), Some("/run/user/7"), vec![bus, own]),
            (Some("unix:abstract=/tmp/dbus-X,guid=ab"), None, vec!["unix:abstract=/tmp/dbus-X"]),
            (
                Some("tcp:host=h,port=1;unix:guid=0,path=/a%20b;unix:tmpdir=/t"),
                Some("/r"),
                vec!["unix:path=/a%20b", "unix:path=/r/bus", "unix:path=/r/systemd/private"],
            ),
            (Some("unix:path="), None, vec![]),
            (Some("unix:path=/a%2"), None, vec!["unix:path=/a%252"]),
            (Some("unix:path=/a%zz"), None, vec!["unix:path=/a%25zz"]),
        ] {
            let got = Address::of_user(given.map(OsStr::new), dir.map(OsStr::new));
            assert_eq!(shown(got), want, "{given:?} {dir:?}");
        }
    }

    #[test]
    fn what_is_recorded_is_read_again() {
        for address in [Address::Path("/run/user/7/bus".into()), Address::Abstract("a;b,c%= d".into())] {
            assert_eq!(Address::parse_list(OsStr::new(&address.to_string())), [address]);
        }
    }
}
