//! System calls that must succeed, and paths without an allocator.

use std::ffi::{CStr, c_int, c_void};

#[derive(Clone, Copy)]
pub struct Fd(pub c_int);

/// What a file may hold: filters of all profiles are smaller.
const ROOM: usize = 32768;

pub struct Path([u8; 256]);

impl std::ops::Deref for Path {
    type Target = CStr;

    fn deref(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

pub fn path(dir: &CStr, rest: &CStr) -> Path {
    join(&[dir.to_bytes(), rest.to_bytes()])
}

pub fn join(parts: &[&[u8]]) -> Path {
    let mut whole = [0; 256];
    let mut at = 0;
    for part in parts {
        if at + part.len() >= whole.len() {
            fail("path too long", c"");
        }
        whole[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    Path(whole)
}

pub fn fail(what: &str, object: &CStr) -> ! {
    let error = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    eprintln!("floor: {what} {}: errno {error}", object.to_string_lossy());
    // SAFETY: no pointers.
    unsafe { libc::_exit(125) }
}

pub fn ok(result: c_int, what: &str, object: &CStr) -> c_int {
    if result < 0 {
        fail(what, object);
    }
    result
}

impl Fd {
    pub fn open(path: &CStr, flags: c_int) -> Self {
        Self::open_at(Fd(libc::AT_FDCWD), path, flags)
    }

    pub fn open_at(dir: Fd, path: &CStr, flags: c_int) -> Self {
        // SAFETY: a terminated string.
        Self(ok(unsafe { libc::openat(dir.0, path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }, "open", path))
    }
}

pub fn close(fd: Fd) {
    // SAFETY: no pointers.
    ok(unsafe { libc::close(fd.0) }, "close", c"");
}

pub fn write(fd: Fd, bytes: &[u8], object: &CStr) {
    // SAFETY: as many bytes as there are.
    ok(unsafe { libc::write(fd.0, bytes.as_ptr().cast::<c_void>(), bytes.len()) } as c_int, "write", object);
}

pub fn write_file(path: &CStr, bytes: &[u8]) {
    let fd = Fd::open(path, libc::O_WRONLY | libc::O_CREAT);
    write(fd, bytes, path);
    close(fd);
}

/// In memory of its own, of which only what is filled is touched: page faults are dear, copies more so.
pub fn read_file(path: &CStr) -> &'static [u8] {
    let fd = Fd::open(path, libc::O_RDONLY);
    let (read_write, own) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which stays.
    let room = unsafe { libc::mmap(std::ptr::null_mut(), ROOM, read_write, own, -1, 0) };
    if room == libc::MAP_FAILED {
        fail("mmap", path);
    }
    // SAFETY: as much room as is told.
    let length = ok(unsafe { libc::read(fd.0, room, ROOM) } as c_int, "read", path) as usize;
    close(fd);
    // SAFETY: that much was filled, and nobody writes to it any more.
    unsafe { std::slice::from_raw_parts(room.cast(), length) }
}
