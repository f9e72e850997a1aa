//! Names and the loopback interface of new uts and network namespaces.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::error::{Doing, SysError};

/// Sets `lo` up (netdevice(7)).
pub fn bring_loopback_up() -> Result<(), SysError> {
    let socket =
        socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).doing("socket", "AF_INET")?;
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .map(drop)
        .doing("ioctl SIOCSIFFLAGS", "lo")
}

/// setdomainname(2) of the uts namespace.
pub fn set_domainname(name: &str) -> Result<(), SysError> {
    // SAFETY: pointer and length describe `name`.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) })
        .map(drop)
        .doing("setdomainname", name)
}
