//! What a filter makes of the calls that init still makes once it is loaded. One that would kill init, or say of a call
//! that it was made when it was not, is refused before anything is made; so is one that leaves it to a listener whether
//! rights are given up.

use anyhow::{Result, bail};

use super::Filter;
use super::calls::{Call, Family};
use super::disassemble;
use super::interpret::{Data, run};
use super::profile::{Verdict, action};

/// When the filter is loaded, and what follows.
#[derive(Debug, Clone, Copy)]
pub struct After {
    /// Loaded last; without it the filter needs CAP_SYS_ADMIN, and so comes before the ids and capabilities.
    pub no_new_privileges: bool,
    /// hooks.startContainer are run by init.
    pub start_hooks: bool,
    /// A scheduler under which nothing can be forked is set after those.
    pub late_scheduler: bool,
}

struct Needed {
    name: &'static str,
    arguments: [u64; 2],
    advice: &'static str,
}

const fn needed(name: &'static str, arguments: [u64; 2], advice: &'static str) -> Needed {
    Needed { name, arguments, advice }
}

/// To be told that it may start, and to start. Ready is told by reading too.
const ALWAYS: &[Needed] = &[needed("read", [0; 2], "allow it"), needed("execve", [0; 2], "allow it")];

const EARLY: &str = "allow it, or set process.noNewPrivileges, with which the filter is loaded last";
const WITH_PRIVILEGES: &[Needed] = &[
    needed("prctl", [libc::PR_CAPBSET_DROP as u64, 0], EARLY),
    needed("prctl", [libc::PR_SET_KEEPCAPS as u64, 1], EARLY),
    needed("setgroups", [0; 2], EARLY),
    needed("setresgid", [0; 2], EARLY),
    needed("setresuid", [0; 2], EARLY),
    needed("prctl", [libc::PR_SET_DUMPABLE as u64, 0], EARLY),
    needed("capset", [0; 2], EARLY),
    needed("prctl", [libc::PR_CAP_AMBIENT as u64, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64], EARLY),
];

const HOOK: &str = "allow it, or remove hooks.startContainer, which run under the filter";
/// By init up to `clone`, then by what is to become the hook, then by init that waits for it.
const FOR_HOOKS: &[Needed] = &[
    needed("rt_sigaction", [libc::SIGCHLD as u64, 0], HOOK),
    needed(STAT, [0; 2], HOOK),
    needed("pipe2", [0, libc::O_CLOEXEC as u64], HOOK),
    needed("fcntl", [3, libc::F_SETFL as u64], HOOK),
    needed("getpid", [0; 2], HOOK),
    needed("clone", [(libc::CLONE_PIDFD | libc::SIGCHLD) as u64, 0], HOOK),
    needed("setsid", [0; 2], HOOK),
    needed("prctl", [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64], HOOK),
    needed("getppid", [0; 2], HOOK),
    needed(DUP, [3, 0], HOOK),
    needed("close_range", [3, u32::MAX as u64], HOOK),
    needed("rt_sigprocmask", [libc::SIG_SETMASK as u64, 0], HOOK),
    needed("close", [3, 0], HOOK),
    needed("write", [3, 0], HOOK),
    needed(POLL, [0; 2], HOOK),
    needed("waitid", [libc::P_PIDFD as u64, 3], HOOK),
];
const AFTER_HOOKS: &[Needed] = &[needed(
    SET_SCHEDULER,
    [0; 2],
    "allow it, add SCHED_FLAG_RESET_ON_FORK to process.scheduler.flags, or remove hooks.startContainer, which run before",
)];
const SET_SCHEDULER: &str = "sched_setattr";
// Which call it is that libc makes.
const STAT: &str = if cfg!(all(target_arch = "x86_64", target_env = "musl")) { "stat" } else { "newfstatat" };
const DUP: &str = if cfg!(target_arch = "x86_64") { "dup2" } else { "dup3" };
const POLL: &str = if cfg!(target_arch = "x86_64") { "poll" } else { "ppoll" };

/// Warnings name what the filter refuses without ending anything.
pub fn check(filter: &Filter, after: After, warnings: &mut Vec<String>) -> Result<()> {
    let early = if after.no_new_privileges { &[] } else { WITH_PRIVILEGES };
    let hooks = if after.start_hooks { FOR_HOOKS } else { &[] };
    let late = if after.late_scheduler { AFTER_HOOKS } else { &[] };
    let mut warned: Vec<&str> = Vec::new();
    for needed in ALWAYS.iter().chain(early).chain(hooks).chain(late) {
        let Some(verdict) = verdict(filter, needed) else { continue };
        let (name, advice, told) = (needed.name, needed.advice, disassemble::verdict(verdict));
        match action(verdict) {
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG => {}
            // Who answers has the listener by then, as soon as the filter is loaded.
            libc::SECCOMP_RET_USER_NOTIF if ALWAYS.iter().any(|always| always.name == name) => {}
            // Errno 0 says that the call was made, which it was not: rights would be kept without a word.
            libc::SECCOMP_RET_ERRNO | libc::SECCOMP_RET_TRACE
                if !["read", SET_SCHEDULER].contains(&name) && verdict != libc::SECCOMP_RET_ERRNO =>
            {
                if !warned.contains(&name) {
                    warnings.push(format!("linux.seccomp: {name} gets {told}, and init still calls it; {advice}"));
                    warned.push(name);
                }
            }
            _ => {
                bail!("linux.seccomp: {name} gets {told}, and init still calls it once the filter is loaded; {advice}")
            }
        }
    }
    Ok(())
}

fn verdict(filter: &Filter, needed: &Needed) -> Option<Verdict> {
    let family = Family::native();
    let number = family.number(Call::named(needed.name)?, family.own())?;
    let mut data = Data { number, arch: family.own().token(), ..Data::default() };
    data.arguments[..2].copy_from_slice(&needed.arguments);
    Some(run(&filter.program, &data)?.verdict)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(profile: Value, no_new_privileges: bool, start_hooks: bool) -> Result<Vec<String>, String> {
        let filter = super::super::plan(&serde_json::from_value(profile).unwrap()).unwrap();
        let mut warnings = Vec::new();
        let after = After { no_new_privileges, start_hooks, late_scheduler: false };
        match check(&filter, after, &mut warnings) {
            Ok(()) => Ok(warnings),
            Err(error) => Err(error.to_string()),
        }
    }

    fn allowing(default: &str, names: &[&str]) -> Value {
        json!({"defaultAction": default, "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]})
    }

    #[test]
    fn what_would_end_init_is_refused_by_name() {
        let least = ["read", "execve", "exit_group"];
        for default in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
            assert_eq!(checked(allowing(default, &least), true, false), Ok(Vec::new()), "{default}");
            for (no_new_privileges, start_hooks, call) in [(false, false, "prctl"), (true, true, "rt_sigaction")] {
                let error = checked(allowing(default, &least), no_new_privileges, start_hooks).unwrap_err();
                assert!(error.starts_with(&format!("linux.seccomp: {call} gets SCMP_ACT_")), "{default}: {error}");
            }
            let error = checked(allowing(default, &["read", "exit_group"]), true, false).unwrap_err();
            assert!(error.starts_with("linux.seccomp: execve gets "), "{error}");
        }
    }

    #[test]
    fn a_listener_may_be_asked_about_the_start_but_not_about_rights() {
        let asked = |call| {
            let rule = json!({"names": [call], "action": "SCMP_ACT_NOTIFY"});
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "syscalls": [rule]});
            checked(profile, false, true)
        };
        for call in ["read", "execve", "openat"] {
            assert_eq!(asked(call), Ok(Vec::new()), "{call}");
        }
        for call in ["prctl", "setgroups", "setresgid", "setresuid", "capset", "clone", "close"] {
            let error = asked(call).unwrap_err();
            assert!(error.starts_with(&format!("linux.seccomp: {call} gets SCMP_ACT_NOTIFY")), "{error}");
        }
    }

    #[test]
    fn what_is_only_refused_is_warned_of_once() {
        let warnings =
            checked(allowing("SCMP_ACT_ERRNO", &["read", "execve", "sethostname", "setgroups"]), false, false).unwrap();
        let named: Vec<_> = warnings.iter().map(|warning| warning.split(' ').nth(1).unwrap()).collect();
        assert_eq!(named, ["prctl", "setresgid", "setresuid", "capset"]);
        let error = checked(allowing("SCMP_ACT_ERRNO", &["execve"]), true, false).unwrap_err();
        assert!(error.starts_with("linux.seccomp: read gets SCMP_ACT_ERRNO 1, "), "ready is told by reading: {error}");
    }

    #[test]
    fn what_would_seem_to_be_done_is_refused() {
        let lie = |name: &str| {
            let rule = json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 0});
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
        };
        for call in ["prctl", "setgroups", "setresgid", "setresuid", "capset"] {
            let error = checked(lie(call), false, false).unwrap_err();
            assert!(error.starts_with(&format!("linux.seccomp: {call} gets SCMP_ACT_ERRNO 0, ")), "{error}");
            assert_eq!(checked(lie(call), true, false), Ok(Vec::new()), "{call} is over by then");
        }
        assert!(checked(lie("clone"), true, true).is_err());
    }

    #[test]
    fn a_scheduler_set_after_the_hooks_must_be_allowed() {
        for (action, want) in [("SCMP_ACT_ERRNO", false), ("SCMP_ACT_KILL", false), ("SCMP_ACT_LOG", true)] {
            let rule = json!({"names": ["sched_setattr"], "action": action});
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            let filter = super::super::plan(&serde_json::from_value(profile).unwrap()).unwrap();
            for late_scheduler in [false, true] {
                let after = After { no_new_privileges: true, start_hooks: true, late_scheduler };
                let checked = check(&filter, after, &mut Vec::new()).map_err(|error| error.to_string());
                assert_eq!(checked.is_ok(), want || !late_scheduler, "{action}: {checked:?}");
                assert!(checked.err().is_none_or(|error| error.starts_with("linux.seccomp: sched_setattr gets ")));
            }
        }
    }

    #[test]
    fn every_call_has_a_number_here() {
        for needed in ALWAYS.iter().chain(WITH_PRIVILEGES).chain(FOR_HOOKS).chain(AFTER_HOOKS) {
            let number =
                Call::named(needed.name).and_then(|call| Family::native().number(call, Family::native().own()));
            assert!(number.is_some(), "{}", needed.name);
        }
    }
}
