//! The container's program: `true` ends at once, `pause` stays, `cat FILE…` prints files for the comparison of two
//! containers. Static and without Rust's own start, so that little of what is measured is the program.

#![no_main]

use std::ffi::{CStr, c_char, c_int};

/// # Safety
/// Called by the C library with the arguments of the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: argv holds argc strings.
    let words = (0..argc as usize).map(|at| unsafe { CStr::from_ptr(*argv.add(at)) });
    let mut words = words.skip(1);
    match words.next().map(CStr::to_bytes) {
        None | Some(b"true") => 0,
        Some(b"pause") => pause(),
        Some(b"cat") => words.map(cat).fold(0, c_int::max),
        Some(_) => 2,
    }
}

fn pause() -> c_int {
    loop {
        // SAFETY: no arguments.
        unsafe { libc::pause() };
    }
}

fn cat(file: &CStr) -> c_int {
    // SAFETY: a terminated string.
    let fd = unsafe { libc::open(file.as_ptr(), libc::O_RDONLY) };
    let mut buffer = [0u8; 4096];
    loop {
        // SAFETY: as much room as is told.
        let length = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if length <= 0 {
            return c_int::from(length < 0);
        }
        // SAFETY: that many bytes were read.
        unsafe { libc::write(1, buffer.as_ptr().cast(), length as usize) };
    }
}
