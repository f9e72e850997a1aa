//! Opening, doubling and reading files in one system call each, where libc and std make two.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;

/// Close-on-exec. musl's open(3) would set that a second time; its openat does not.
pub fn open(path: &(impl nix::NixPath + ?Sized), flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Close-on-exec, which musl's fcntl(3) would set a second time.
pub fn dup(fd: &impl AsFd) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    let new = unsafe { libc::syscall(libc::SYS_fcntl, fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) };
    // SAFETY: nobody else knows the new descriptor.
    Errno::result(new).map(|new| unsafe { OwnedFd::from_raw_fd(new as i32) })
}

/// The rest of a file that gives less than is asked for at its end alone: regular files, and those of the kernel that
/// are written as a whole. `room` is what is set aside at first; where it suffices, one read(2) does. Of an endless one
/// little more than `most` is read.
pub fn read(file: &impl AsFd, room: usize, most: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes: Vec<u8> = Vec::with_capacity(room.max(1));
    loop {
        let spare = bytes.spare_capacity_mut();
        let asked = spare.len();
        // SAFETY: the kernel writes no more than there is room for.
        let length = unsafe { libc::read(file.as_fd().as_raw_fd(), spare.as_mut_ptr().cast(), asked) };
        let length = match Errno::result(length) {
            Err(Errno::EINTR) => continue,
            result => result? as usize,
        };
        // SAFETY: as many bytes more have been written.
        unsafe { bytes.set_len(bytes.len() + length) };
        if length < asked || bytes.len() > most {
            return Ok(bytes);
        }
        bytes.reserve(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_room_all_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 1, 63, 64, 65, 5000] {
            let written: Vec<u8> = (0..length).map(|n| n as u8).collect();
            std::fs::write(file.path(), &written).unwrap();
            for room in [0, 1, 64, 8192] {
                let opened = open(file.path(), OFlag::O_RDONLY).unwrap();
                assert_eq!(read(&opened, room, 5000).unwrap(), written, "{length} bytes, room for {room}");
            }
        }
    }

    #[test]
    fn an_endless_file_has_an_end() {
        let zeros = open("/dev/zero", OFlag::O_RDONLY).unwrap();
        assert_eq!(read(&zeros, 64, 1000).unwrap().len(), 1024);
    }

    #[test]
    fn what_is_doubled_is_closed_by_an_exec() {
        let opened = dup(&std::io::stdin()).unwrap();
        assert!(opened.as_raw_fd() > 2 && !super::super::fds::is_inherited(opened.as_raw_fd()));
    }
}
