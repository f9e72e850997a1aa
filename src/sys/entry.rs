//! The restart of src/launch/seal.rs at the first instruction of the program, where only x86-64 has a way to it: before the
//! C library begins and the tables are relocated, since another image comes at once. 10 % of an `exec`
//! (docs/performance.md). If it comes to nothing the program begins as ever, and `seal` restarts it or says why not.
//!
//! Nothing here may need what is not there yet: no static data that holds addresses, as a list of words does; no errno, no
//! allocation; no function of the C library, whose address is in such a table: bytes are compared one by one, so that no
//! compiler calls memcmp for it.

#[cfg(any(test, all(target_env = "musl", target_arch = "x86_64")))]
use std::ffi::c_char;

/// In the environment of the second image. Stops a loop where the restart did not help; it is never taken as a proof of
/// protection.
pub const MARK: &str = "RRUN_RESTARTED";
/// `RRUN_SEAL=memfd` chooses the sealed copy.
pub const CHOICE: &str = "RRUN_SEAL";

/// Commands that enter a container, each with a space behind it.
pub const ENTERING: &str = "create run exec restore ";

#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
mod first {
    use std::arch::{asm, naked_asm};
    use std::ffi::{CStr, c_char};
    use std::mem::MaybeUninit;
    use std::ptr;

    use super::{CHOICE, ENTERING, MARK, is_listed, is_set};

    const MARKED: &CStr = c"RRUN_RESTARTED=1";
    /// A caller with more variables gets the usual restart.
    const MOST_VARIABLES: usize = 500;

    type Strings = *const *const c_char;

    /// Where the kernel begins (build.rs): the stack pointer is at the number of words. Goes on with the C library's start.
    ///
    /// # Safety
    /// The kernel's alone to call.
    #[unsafe(naked)]
    #[unsafe(no_mangle)]
    unsafe extern "C" fn rrun_entry() -> ! {
        naked_asm!("mov rdi, rsp", "call {restart}", "jmp _start", restart = sym restart)
    }

    /// Returns if this is not the time for it, or if it fails.
    unsafe extern "C" fn restart(stack: *const usize) {
        // SAFETY: the kernel puts there the number of words, the words, a null, the variables and a null.
        unsafe {
            let words: Strings = stack.add(1).cast();
            let count = *stack;
            if (1..count).any(|n| is_listed(*words.add(n), ENTERING)) {
                restart_with(words, words.add(count + 1));
            }
        }
    }

    /// # Safety
    /// Both end with a null.
    unsafe fn restart_with(words: Strings, variables: Strings) {
        let mut marked = [const { MaybeUninit::<*const c_char>::uninit() }; MOST_VARIABLES + 2];
        let mut count = 0;
        // SAFETY: up to the null.
        unsafe {
            while !(*variables.add(count)).is_null() {
                let variable = *variables.add(count);
                if count == MOST_VARIABLES || is_set(variable, MARK) || is_set(variable, CHOICE) {
                    return;
                }
                marked[count].write(variable);
                count += 1;
            }
        }
        marked[count].write(MARKED.as_ptr());
        marked[count + 1].write(ptr::null());
        execute_protected(words, marked.as_ptr().cast());
    }

    /// From a read-only clone of the mount of rrun's own file.
    fn execute_protected(words: Strings, variables: Strings) {
        let readonly =
            libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
        let (here, empty) = (libc::AT_FDCWD as usize, c"".as_ptr() as usize);
        let this = libc::AT_EMPTY_PATH as usize;
        let flags = libc::OPEN_TREE_CLONE as usize | libc::OPEN_TREE_CLOEXEC as usize;
        // SAFETY: strings and arrays that end with a null, and a structure with its size.
        unsafe {
            let clone = call(libc::SYS_open_tree, [here, c"/proc/self/exe".as_ptr() as usize, flags, 0, 0]);
            if clone < 0 {
                return;
            }
            let clone = clone as usize;
            let set = [clone, empty, this, &raw const readonly as usize, size_of_val(&readonly)];
            if call(libc::SYS_mount_setattr, set) == 0 {
                call(libc::SYS_execveat, [clone, empty, words as usize, variables as usize, this]);
            }
            call(libc::SYS_close, [clone, 0, 0, 0, 0]);
        }
    }

    /// The C library's own would store an errno where nothing is yet.
    ///
    /// # Safety
    /// As the call's.
    unsafe fn call(number: libc::c_long, arguments: [usize; 5]) -> isize {
        let [first, second, third, fourth, fifth] = arguments;
        let result;
        // SAFETY: the kernel changes these registers, and what the call is told to.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result, in("rdi") first, in("rsi") second, in("rdx") third,
                in("r10") fourth, in("r8") fifth, lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        result
    }
}

/// Whether a word is one of those that have a space behind them each.
///
/// # Safety
/// It ends with a null.
#[cfg(any(test, all(target_env = "musl", target_arch = "x86_64")))]
unsafe fn is_listed(word: *const c_char, list: &str) -> bool {
    let (mut at, mut same) = (word, true);
    for byte in list.bytes() {
        // SAFETY: all before is the same, so it has not ended.
        let is = |wanted| unsafe { at.read_volatile() } as u8 == wanted;
        match byte {
            b' ' if same && is(0) => return true,
            b' ' => (at, same) = (word, true),
            _ if same && is(byte) => at = at.wrapping_add(1),
            _ => same = false,
        }
    }
    false
}

/// Whether a variable, `NAME=value`, has this name.
///
/// # Safety
/// It ends with a null.
#[cfg(any(test, all(target_env = "musl", target_arch = "x86_64")))]
unsafe fn is_set(variable: *const c_char, name: &str) -> bool {
    let mut at = variable;
    for byte in name.bytes().chain([b'=']) {
        // SAFETY: all before is the same, so it has not ended.
        if unsafe { at.read_volatile() } as u8 != byte {
            return false;
        }
        at = at.wrapping_add(1);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_variables() {
        for (word, want) in
            [(c"create", true), (c"run", true), (c"exec", true), (c"", false), (c"runs", false), (c"ru", false)]
        {
            // SAFETY: it ends with a null.
            assert_eq!(unsafe { is_listed(word.as_ptr(), ENTERING) }, want, "{word:?}");
        }
        for (variable, want) in [
            (c"RRUN_SEAL=", true),
            (c"RRUN_SEAL=memfd", true),
            (c"RRUN_SEA", false),
            (c"RRUN_SEALS=", false),
            (c"", false),
        ] {
            // SAFETY: it ends with a null.
            assert_eq!(unsafe { is_set(variable.as_ptr(), CHOICE) }, want, "{variable:?}");
        }
    }
}
