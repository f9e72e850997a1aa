//! rtnetlink(7): requests to the kernel about network devices, one at a time, and its answers. A socket speaks of the
//! network namespace that it was opened in.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::error::{Doing, SysError};

/// uapi/linux/netlink.h
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP: u16 = 0x300;
const INTERRUPTED: u16 = 0x10;
const HAS_WORDS: u16 = 0x200;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// Of what a refusal holds: its text.
const WORDS: u16 = 1;
/// Upper bits say how the rest is to be read.
const ATTRIBUTE_KIND: u16 = 0x3fff;

/// The kernel answers a dump in parts of at most 32 KiB.
const LONGEST: usize = 64 << 10;

/// `NLM_F_CREATE | NLM_F_EXCL`
pub const CREATE: u16 = 0x600;

pub struct Request {
    kind: u16,
    flags: u16,
    body: Vec<u8>,
}

impl Request {
    /// `header` is the fixed part of messages of this kind.
    pub fn new(kind: u16, header: &[u8]) -> Self {
        Self { kind, flags: REQUEST | ACK, body: header.to_vec() }
    }

    /// Of everything that there is.
    pub fn all(kind: u16, header: &[u8]) -> Self {
        Self { kind, flags: REQUEST | DUMP, body: header.to_vec() }
    }

    pub fn flags(mut self, flags: u16) -> Self {
        self.flags |= flags;
        self
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.body.extend((value.len() as u16 + 4).to_ne_bytes());
        self.body.extend(kind.to_ne_bytes());
        self.body.extend(value);
        self.body.resize(aligned(self.body.len()), 0);
        self
    }

    fn bytes(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = ((HEADER + self.body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(self.kind.to_ne_bytes());
        bytes.extend(self.flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(&self.body);
        bytes
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// One message of the kernel's.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// What is cut off at the end is left out.
fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut messages = Vec::new();
    while let Some((length, kind, flags, sequence)) = header(bytes)
        && let Some(body) = bytes.get(HEADER..length)
    {
        messages.push(Message { kind, flags, sequence, body });
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    messages
}

fn header(bytes: &[u8]) -> Option<(usize, u16, u16, u32)> {
    Some((word(bytes, 0)? as usize, half(bytes, 4)?, half(bytes, 6)?, word(bytes, 8)?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2).and_then(|two| two.try_into().ok()).map(u16::from_ne_bytes)
}

/// A number of 32 bits of an answer.
pub fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_ne_bytes)
}

/// Attributes behind the fixed part of an answer.
pub fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut attributes = Vec::new();
    while let (Some(length), Some(kind)) = (half(bytes, 0), half(bytes, 2))
        && let Some(value) = bytes.get(4..length.into())
    {
        attributes.push((kind & ATTRIBUTE_KIND, value));
        bytes = bytes.get(aligned(length.into())..).unwrap_or_default();
    }
    attributes
}

/// A string without the NUL behind it.
pub fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_string()
}

pub struct Netlink {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

impl Netlink {
    pub fn open() -> Result<Self, SysError> {
        let route = Some(SockProtocol::NetlinkRoute);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route);
        let socket = socket.doing("socket", "AF_NETLINK")?;
        // A refusal comes with the kernel's words for it, where it has some, and without our request.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let (on, size) = (1i32, size_of::<i32>() as libc::socklen_t);
            // SAFETY: the option is an int, which outlives the call. A kernel without it goes on as before.
            unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size) };
        }
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// The bodies of the answers.
    pub fn ask(&self, op: &'static str, object: &str, request: &Request) -> Result<Vec<Vec<u8>>, SysError> {
        loop {
            match self.ask_once(request) {
                // what was told of changed meanwhile
                Ok(None) => continue,
                Ok(Some(bodies)) => return Ok(bodies),
                Err((errno, words)) if words.is_empty() => return Err(SysError::new(op, object, errno)),
                Err((errno, words)) => return Err(SysError::new(op, format_args!("{object} ({words})"), errno)),
            }
        }
    }

    fn ask_once(&self, request: &Request) -> Result<Option<Vec<Vec<u8>>>, (Errno, String)> {
        let wordless = |errno| (errno, String::new());
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        nix::unistd::write(&self.socket, &request.bytes(sequence)).map_err(wordless)?;
        let (mut bodies, mut whole) = (Vec::new(), true);
        let mut buffer = vec![0; LONGEST];
        loop {
            let length = match nix::unistd::read(&self.socket, &mut buffer) {
                Err(Errno::EINTR) => continue,
                result => result.map_err(wordless)?,
            };
            for message in messages(&buffer[..length]).into_iter().filter(|message| message.sequence == sequence) {
                whole &= message.flags & INTERRUPTED == 0;
                match message.kind {
                    ERROR | DONE => {
                        return match refusal(&message) {
                            Some(refusal) => Err(refusal),
                            None => Ok(whole.then_some(bodies)),
                        };
                    }
                    _ => bodies.push(message.body.to_vec()),
                }
            }
        }
    }
}

/// Errno 0 is a yes.
fn refusal(message: &Message) -> Option<(Errno, String)> {
    let negative = word(message.body, 0).map_or(0, |number| number as i32);
    // behind the number stands the header of what was asked
    let words = || attributes(message.body.get(4 + HEADER..)?).into_iter().find(|(kind, _)| *kind == WORDS);
    let words = (message.flags & HAS_WORDS != 0).then(words).flatten();
    (negative < 0).then(|| (Errno::from_raw(-negative), words.map(|(_, words)| text(words)).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_padded_and_read_back() {
        let request = Request::new(16, &[1, 2, 3, 4]).attribute(3, b"eth0\0").attribute(4, &[9, 0, 0, 0]);
        let bytes = request.flags(CREATE).bytes(7);
        assert_eq!(bytes.len() % 4, 0);
        let all = messages(&bytes);
        let [message] = all.as_slice() else { panic!("{} messages", all.len()) };
        assert_eq!((message.kind, message.flags, message.sequence), (16, REQUEST | ACK | CREATE, 7));
        assert_eq!(attributes(&message.body[4..]), [(3, &b"eth0\0"[..]), (4, &[9, 0, 0, 0])]);
        assert_eq!(text(b"eth0\0"), "eth0");
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        let bytes = Request::new(16, &[0; 16]).attribute(3, b"x").bytes(1);
        for length in 0..bytes.len() {
            assert!(messages(&bytes[..length]).is_empty(), "{length}");
        }
        let two = [&bytes[..], &bytes[..HEADER]].concat();
        assert_eq!(messages(&two).len(), 1);
        for length in 0..5 {
            assert!(attributes(&[5, 0, 3, 0, b'x'][..length]).is_empty(), "{length}");
        }
        // a length that would never end
        assert!(messages(&[0; 32]).is_empty() && attributes(&[0; 8]).is_empty());
    }

    #[test]
    fn a_refusal_has_the_kernels_words() {
        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        let plain = Message { kind: ERROR, flags: 0, sequence: 1, body: &body };
        assert_eq!(refusal(&plain), Some((Errno::EINVAL, String::new())));
        let mut worded = body.clone();
        worded.extend(b"\x08\0\x01\0why\0");
        let worded = Message { kind: ERROR, flags: HAS_WORDS, sequence: 1, body: &worded };
        assert_eq!(refusal(&worded), Some((Errno::EINVAL, "why".into())));
        let yes = Message { kind: ERROR, flags: 0, sequence: 1, body: &[0; 20] };
        assert_eq!(refusal(&yes), None);
    }
}
