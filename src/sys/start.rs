//! What runs before `main`, in place of the standard library's own start: that one maps a stack for its handler of stack
//! overflows and looks at dispositions that rrun does not care for: 4 % of a `state` (docs/performance.md).

use std::ffi::{CStr, OsStr, OsString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The words of the command line as the kernel put them down; null behind the last.
static WORDS: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// Makes a function the program's `main`: its result is the exit status.
#[macro_export]
macro_rules! start {
    ($main:path) => {
        #[allow(unsafe_code)]
        // SAFETY: no other function is called so: the crate is `no_main`.
        #[unsafe(no_mangle)]
        extern "C" fn main(_: core::ffi::c_int, words: *mut *const core::ffi::c_char) -> core::ffi::c_int {
            // SAFETY: the C library calls it once, with the words of the command line.
            unsafe { $crate::sys::start::prepare(words) };
            let status: u8 = $main();
            status.into()
        }
    };
}

/// What the standard library promises too: 0 to 2 are open, and a pipe without a reader is an error and no end.
///
/// # Safety
/// `words` stay as they are, and a null is behind them.
pub unsafe fn prepare(words: *mut *const c_char) {
    WORDS.store(words, Ordering::Relaxed);
    open_stdio();
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: runs no code of ours.
    let _ = unsafe { sigaction(Signal::SIGPIPE, &ignore) };
}

/// Else the next file that is opened would take the number of a closed one, and be written to as stderr.
fn open_stdio() {
    let mut fds = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: an array of three.
    unsafe { libc::poll(fds.as_mut_ptr(), 3, 0) };
    for _ in fds.iter().filter(|fd| fd.revents & libc::POLLNVAL != 0) {
        // SAFETY: opens the lowest number, which is the closed one, for the whole life of the process.
        if unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) } < 0 {
            std::process::abort();
        }
    }
}

/// The words of the command line, the program's name first; none in a program that does not begin here.
pub fn words() -> impl Iterator<Item = OsString> {
    let mut next = WORDS.load(Ordering::Relaxed);
    std::iter::from_fn(move || {
        if next.is_null() {
            return None;
        }
        // SAFETY: `prepare` was promised that a null is behind the last, where this ends.
        let word = unsafe { next.read() };
        if word.is_null() {
            return None;
        }
        // SAFETY: the word before the null was none, so there is one more place.
        next = unsafe { next.add(1) };
        // SAFETY: a string of the command line, which stays.
        Some(OsStr::from_bytes(unsafe { CStr::from_ptr(word) }.to_bytes()).to_owned())
    })
}
