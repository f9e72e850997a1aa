//! One connection to a bus, or to systemd itself: one thread, and a deadline over all that is said and heard.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, UnixAddr, recv, send};

use super::address::Address;
use super::wire::{self, Call, Heard, Writer};
use crate::error::{Doing, SysError};
use crate::hooks::Stop;
use crate::sys::socket::connect_to;

/// An answer that says no: what was asked for is not done.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// `org.freedesktop.systemd1.NoSuchUnit`
    pub name: String,
    pub text: String,
}

/// Without its text where managers would take that for words of ours about the container or its program.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.trim_end_matches('.');
        let taken = ["no such", "not exist", "denied", "not permitted", "not found", "directory", "not running"];
        match taken.iter().any(|words| text.to_lowercase().contains(words)) {
            true => f.write_str(&self.name),
            false => write!(f, "{}: {text}", self.name),
        }
    }
}

impl std::error::Error for Refused {}

/// Nobody listens on any of the sockets.
#[derive(Debug)]
pub struct Absent(String);

impl Absent {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

pub struct Bus<'s> {
    socket: OwnedFd,
    pub address: Address,
    deadline: Instant,
    patience: Duration,
    /// It has been silent once. What has to be undone then does not wait as long again.
    given_up: bool,
    stop: Option<&'s dyn Stop>,
    serial: u32,
    unsent: Vec<u8>,
    received: Vec<u8>,
    heard: Vec<Heard>,
    /// Bytes of the messages that `heard` was told in.
    kept: usize,
}

/// For who says first who he is: by the credentials of the socket, as which uid the other side sees us, whatever we are in
/// our own user namespace. Nothing is waited for, as what is said next is of no use to anybody else.
const GREETING: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
const NAME: &str = "org.freedesktop.DBus";

impl<'s> Bus<'s> {
    /// The first of the sockets that somebody listens on.
    pub fn connect(addresses: &[Address], patience: Duration, stop: Option<&'s dyn Stop>) -> Result<Self> {
        let deadline = Instant::now() + patience;
        let mut tried = Vec::new();
        for address in addresses {
            match connect_to(&name(address)?, deadline) {
                Ok(socket) => {
                    let mut bus = Self::on(socket, address.clone(), deadline, patience, stop);
                    bus.introduce()?;
                    return Ok(bus);
                }
                Err(errno @ (Errno::ENOENT | Errno::ECONNREFUSED | Errno::EACCES | Errno::ENOTDIR)) => {
                    tried.push(format!("{address} ({errno:?})"));
                }
                Err(Errno::EAGAIN) => bail!("{}", silence(patience)),
                Err(errno) => return Err(SysError::new("connect", address, errno).into()),
            }
        }
        let tried = if tried.is_empty() { "no address of a bus is known".into() } else { tried.join(", ") };
        Err(Absent(format!("nobody answers for systemd: {tried}")).into())
    }

    fn on(
        socket: OwnedFd,
        address: Address,
        deadline: Instant,
        patience: Duration,
        stop: Option<&'s dyn Stop>,
    ) -> Self {
        let (unsent, received, heard) = (GREETING.to_vec(), Vec::new(), Vec::new());
        let (given_up, serial, kept) = (false, 0, 0);
        Self { socket, address, deadline, patience, given_up, stop, serial, unsent, received, heard, kept }
    }

    /// A bus wants a greeting before all else.
    fn introduce(&mut self) -> Result<()> {
        if self.address.is_direct() {
            return self.settle_credentials();
        }
        let call = |member, signature| Call {
            destination: Some(NAME),
            path: "/org/freedesktop/DBus",
            interface: NAME,
            member,
            signature,
        };
        let hello = self.say(&call("Hello", ""), |_| ());
        // The end of a job; systemd tells who asked for it, and the bus only who listens.
        let listen = self.say(&call("AddMatch", "s"), |body| {
            body.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
        });
        self.settle_credentials()?;
        self.answer(hello)?;
        self.answer(listen).map(drop)
    }

    /// From now on it is messages.
    fn settle_credentials(&mut self) -> Result<()> {
        loop {
            let line = self.line()?;
            match line.split(' ').next() {
                Some("DATA") => {}
                Some("OK") => return Ok(()),
                Some("REJECTED" | "ERROR") => bail!("{}: does not let this user in", self.address),
                _ => bail!("{}: does not speak D-Bus", self.address),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        const LONGEST: usize = 16 * 1024;
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.received[..end]).into_owned();
                self.received.drain(..end + 2);
                return Ok(line);
            }
            ensure!(self.received.len() < LONGEST, "{}: does not speak D-Bus", self.address);
            self.exchange()?;
        }
    }

    /// A new deadline, for what is asked later.
    pub fn renew(&mut self) {
        if !self.given_up {
            self.deadline = Instant::now() + self.patience;
        }
    }

    /// Sent when an answer is waited for. The number by which the answer is known.
    pub fn say(&mut self, call: &Call, body: impl FnOnce(&mut Writer)) -> u32 {
        self.serial += 1;
        self.unsent.extend(call.message(self.serial, body));
        self.serial
    }

    /// The first text in it.
    pub fn answer(&mut self, serial: u32) -> Result<Option<String>> {
        let heard =
            self.hear(|heard| matches!(heard, Heard::Answer { to, .. } | Heard::Refusal { to, .. } if *to == serial))?;
        match heard {
            Heard::Refusal { name, text, .. } => Err(Refused { name, text }.into()),
            Heard::Answer { text, .. } => Ok(text),
            _ => Ok(None),
        }
    }

    /// How a job ended.
    pub fn end_of(&mut self, job: &str) -> Result<String> {
        match self.hear(|heard| matches!(heard, Heard::JobRemoved { job: ended, .. } if ended == job))? {
            Heard::JobRemoved { result, .. } => Ok(result),
            _ => Ok(String::new()),
        }
    }

    fn hear(&mut self, wanted: impl Fn(&Heard) -> bool) -> Result<Heard> {
        loop {
            if let Some(at) = self.heard.iter().position(&wanted) {
                return Ok(self.heard.swap_remove(at));
            }
            self.take_messages()?;
            if !self.heard.iter().any(&wanted) {
                self.exchange()?;
            }
        }
    }

    /// Of what was received those that are whole.
    fn take_messages(&mut self) -> Result<()> {
        let told = |error: anyhow::Error| error.context(self.address.to_string());
        let mut from = 0;
        while let Some(length) = wire::length(&self.received[from..]).map_err(told)? {
            let Some(message) = self.received.get(from..from + length) else { break };
            match wire::parse(message).map_err(told)? {
                Heard::Other => {}
                heard => {
                    self.kept += length;
                    self.heard.push(heard);
                }
            }
            from += length;
        }
        self.received.drain(..from);
        ensure!(self.kept <= MOST_KEPT, "{}: says much that nobody asked for", self.address);
        Ok(())
    }

    /// Waits until something could be sent or received.
    fn exchange(&mut self) -> Result<()> {
        let events = match self.unsent.is_empty() {
            true => PollFlags::POLLIN,
            false => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            self.given_up = true;
            bail!("{}", silence(self.patience));
        }
        let mut fds = vec![PollFd::new(self.socket.as_fd(), events)];
        fds.extend(self.stop.map(|stop| PollFd::new(stop.fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            result => drop(result.doing("poll", &self.address)?),
        }
        let stopped = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        if stopped && let Some(signal) = self.stop.map(Stop::asked).transpose()?.flatten() {
            bail!("ended by {signal} while systemd was asked");
        }
        self.send()?;
        self.receive()
    }

    fn send(&mut self) -> Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        match send(self.socket.as_raw_fd(), &self.unsent, MsgFlags::MSG_NOSIGNAL) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            // what it has said before tells why
            Err(Errno::EPIPE | Errno::ECONNRESET) => self.unsent.clear(),
            Err(errno) => return Err(SysError::new("send", &self.address, errno).into()),
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<()> {
        let mut buffer = [0; 8192];
        match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) | Err(Errno::ECONNRESET) => bail!("{}: was closed by the other side", self.address),
            Ok(length) => self.received.extend(&buffer[..length]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(SysError::new("recv", &self.address, errno).into()),
        }
        Ok(())
    }
}

/// Ends of others' jobs are told to everybody who waits for his own, in some 200 bytes each. Who is no systemd does not
/// fill the memory by them.
const MOST_KEPT: usize = 16 << 20;

fn silence(patience: Duration) -> String {
    format!("systemd has not answered within {} s", patience.as_secs_f32())
}

fn name(address: &Address) -> Result<UnixAddr, SysError> {
    match address {
        Address::Path(path) => UnixAddr::new(path),
        Address::Abstract(name) => UnixAddr::new_abstract(name.as_encoded_bytes()),
    }
    .doing("connect", address)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// JobRemoved with a job's path of so many letters, and no header fields but what it needs.
    fn job_removed(letters: usize) -> Vec<u8> {
        let text = |text: &[u8]| [&(text.len() as u32).to_le_bytes()[..], text, b"\0"].concat();
        let padded = |mut bytes: Vec<u8>, to: usize| {
            bytes.resize(bytes.len().next_multiple_of(to), 0);
            bytes
        };
        let member = padded([b"\x03\x01s\0", &text(b"JobRemoved")[..]].concat(), 8);
        let fields = [&member[..], b"\x08\x01g\0\x04uoss\0"].concat();
        let texts = [vec![b'/'; letters], b"c1.scope".to_vec(), b"done".to_vec()];
        let body = texts.iter().fold(vec![0; 4], |body, word| [padded(body, 4), text(word)].concat());
        let mut message = b"l\x04\0\x01".to_vec();
        for number in [body.len(), 1, fields.len()] {
            message.extend((number as u32).to_le_bytes());
        }
        [padded([message, fields].concat(), 8), body].concat()
    }

    fn of(socket: UnixStream) -> Bus<'static> {
        socket.set_nonblocking(true).unwrap();
        let patience = Duration::from_secs(60);
        Bus::on(socket.into(), Address::Path("/bus".into()), Instant::now() + patience, patience, None)
    }

    #[test]
    fn the_end_of_a_job_among_those_of_others() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for letters in [7, 8, 9] {
            theirs.write_all(&job_removed(letters)).unwrap();
        }
        let mut bus = of(ours);
        assert_eq!(bus.end_of("////////").unwrap(), "done");
        assert_eq!(bus.heard.len(), 2);
    }

    #[test]
    fn who_talks_for_ever_does_not_fill_the_memory() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let endless = std::thread::spawn(move || {
            let message = job_removed(500_000);
            let said = (1_usize..=1000).find(|_| theirs.write_all(&message).is_err());
            said.map(|messages| messages * message.len())
        });
        let mut bus = of(ours);
        let error = bus.end_of("/mine").unwrap_err();
        assert!(format!("{error:#}").contains("says much that nobody asked for"), "{error:#}");
        drop(bus);
        let said = endless.join().unwrap().expect("it is hung up on");
        assert!(said < MOST_KEPT + (4 << 20), "{said} bytes were taken");
    }
}
