//! Signals by name and number (signal(7)).

use anyhow::{Result, bail};

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// What programs in containers mean by SIGRTMIN: glibc keeps 32 and 33 for itself. rrun's own libc (musl) has another.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A number of 0 to 64; a name with or without `SIG`, in any case; `RTMIN+n`, `RTMAX-n`.
pub fn number(word: &str) -> Result<i32> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let signal = if word.starts_with(|c: char| c.is_ascii_digit()) {
        word.parse().ok().filter(|signal| (0..=RTMAX).contains(signal))
    } else if let Some((_, signal)) = NAMES.iter().find(|(known, _)| *known == name) {
        Some(*signal)
    } else {
        real_time(name)
    };
    match signal {
        Some(signal) => Ok(signal),
        None if word.starts_with('-') => {
            bail!("unknown signal \"{word}\"; flags stand before the id, a signal has no dash")
        }
        None => bail!("unknown signal \"{word}\"; give a name such as TERM, or a number of 0 to {RTMAX}"),
    }
}

fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str, sign: char| match text.strip_prefix(sign) {
        Some(digits) if digits.starts_with(|c: char| c.is_ascii_digit()) => digits.parse::<i32>().ok(),
        Some(_) => None,
        None => text.is_empty().then_some(0),
    };
    let signal = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => RTMIN.checked_add(offset(rest, '+')?)?,
        (_, Some(rest)) => RTMAX.checked_sub(offset(rest, '-')?)?,
        _ => return None,
    };
    (RTMIN..=RTMAX).contains(&signal).then_some(signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_and_numbers() {
        for (word, want) in [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("Kill", 9),
            ("0", 0),
            ("9", 9),
            ("09", 9),
            ("33", 33),
            ("64", 64),
            ("RTMIN", 34),
            ("SIGRTMIN", 34),
            ("rtmin+0", 34),
            ("RTMIN+15", 49),
            ("SIGRTMAX-14", 50),
            ("RTMAX", 64),
            ("IOT", 6),
            ("POLL", 29),
        ] {
            assert_eq!(number(word).ok(), Some(want), "{word}");
        }
    }

    #[test]
    fn what_is_no_signal_is_named() {
        for word in [
            "",
            "SIG",
            "FOO",
            "SIGSIGTERM",
            "65",
            "99999999999",
            "9x",
            "+9",
            " 9",
            "RTMIN-1",
            "RTMIN+31",
            "RTMAX+1",
            "RTMAX-31",
            "RTMIN+",
            "RTMIN++1",
            "RTMIN+99999999999",
            "RTMIN 1",
        ] {
            let error = number(word).unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown signal \"{word}\"; give a name")), "{error}");
        }
        assert!(number("-9").unwrap_err().to_string().contains("has no dash"));
    }

    #[test]
    fn every_signal_of_the_kernel_has_a_name() {
        let names: BTreeSet<_> = NAMES.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), NAMES.len(), "a name is listed twice");
        let numbers: BTreeSet<_> = NAMES.iter().map(|(_, number)| *number).collect();
        assert_eq!(numbers, (1..=31).collect(), "signals 1 to 31");
        for signal in nix::sys::signal::Signal::iterator() {
            assert_eq!(number(signal.as_str()).ok(), Some(signal as i32), "{signal}");
        }
    }
}
