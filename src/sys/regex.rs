//! Extended regular expressions of POSIX, by libc: regex(3). A crate that knows them is twice as large.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::ptr::null_mut;

pub struct Regex(libc::regex_t);

impl Regex {
    /// The error is libc's word for what is wrong.
    pub fn new(expression: &str) -> Result<Self, String> {
        let expression = CString::new(expression).map_err(|_| "holds a NUL".to_string())?;
        let mut compiled = MaybeUninit::<libc::regex_t>::zeroed();
        let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
        // SAFETY: both live through the call; the string ends in NUL.
        let code = unsafe { libc::regcomp(compiled.as_mut_ptr(), expression.as_ptr(), flags) };
        match code {
            // SAFETY: regcomp has filled it.
            0 => Ok(Self(unsafe { compiled.assume_init() })),
            code => Err(reason(code)),
        }
    }

    /// Anywhere in `text`. What holds a NUL matches nothing.
    pub fn is_match(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else { return false };
        // SAFETY: compiled by regcomp and not freed; no places of matches are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by regcomp, and freed here alone.
        unsafe { libc::regfree(&raw mut self.0) };
    }
}

fn reason(code: libc::c_int) -> String {
    let mut text = [0_u8; 128];
    // SAFETY: no more than its length is written, with a NUL at the end; an expression that failed need not be named.
    unsafe { libc::regerror(code, std::ptr::null(), text.as_mut_ptr().cast(), text.len()) };
    let text = CStr::from_bytes_until_nul(&text).map(CStr::to_string_lossy).unwrap_or_default();
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_expression_is_told() {
        for text in ["a(", "[z-a]", "a{2,1}", "[[:none:]]", "a\0b"] {
            let error = Regex::new(text).err().unwrap_or_else(|| panic!("{text:?} is taken"));
            assert!(!error.is_empty() && !error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn expressions_mean_what_they_say() {
        for (text, matched, not) in [
            ("b", "abc", "ac"),
            ("^web-[0-9]+$", "web-17", "web-17x"),
            ("^(a|b){2}c?$", "bac", "abab"),
            ("[[:digit:]]_[^x]", "7_y", "7_x"),
            (r"a\.b", "a.b", "acb"),
        ] {
            let expression = Regex::new(text).unwrap();
            assert!(expression.is_match(matched) && !expression.is_match(not), "{text}");
            assert!(!expression.is_match("b\0b"));
        }
    }
}
