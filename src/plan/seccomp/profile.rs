//! `linux.seccomp` as written → a checked [`Profile`]: every word known, every number in range. What rules of one call
//! have to do with each other is decided in `rules.rs`.

use anyhow::{Result, anyhow, bail, ensure};

use super::calls::{ARCHITECTURES, Arch, Call, Family};
use crate::plan::problems::Problems;
use crate::plan::spec::given;
use crate::plan::spec::seccomp::{Argument, Seccomp, Syscall};

/// What the kernel is told about a call: action and data in one word (SECCOMP_RET_*).
pub type Verdict = u32;

#[derive(Debug)]
pub struct Profile<'s> {
    pub default: Verdict,
    /// In the order written.
    pub rules: Vec<Rule<'s>>,
    /// The kernel's own, and those of its others that the profile lists.
    pub architectures: Vec<Arch>,
    /// For seccomp(2), without that of a listener.
    pub flags: Flags,
    /// Some rule leaves the verdict to the listener.
    pub notifies: bool,
}

#[derive(Debug)]
pub struct Rule<'s> {
    /// Position in `syscalls`, for errors.
    pub index: usize,
    pub names: &'s [String],
    /// Of each name; none of one that no architecture knows.
    pub calls: Vec<Option<Call>>,
    pub verdict: Verdict,
    /// One of them has to hold; of each, all comparisons. No condition: always.
    pub conditions: Vec<Vec<Comparison>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    pub argument: u8,
    pub operator: Operator,
    pub value: u64,
    /// Of the argument, before it is compared.
    pub mask: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    pub log: bool,
    pub spec_allow: bool,
    pub wait_killable_recv: bool,
}

impl Flags {
    pub fn words(self) -> Vec<&'static str> {
        let set = [(self.log, LOG), (self.spec_allow, SPEC_ALLOW), (self.wait_killable_recv, WAIT_KILLABLE_RECV)];
        set.into_iter().filter(|(set, _)| *set).map(|(_, word)| word).collect()
    }

    /// For seccomp(2).
    pub fn bit(word: &str) -> u64 {
        match word {
            LOG => libc::SECCOMP_FILTER_FLAG_LOG,
            SPEC_ALLOW => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            WAIT_KILLABLE_RECV => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
            _ => 0,
        }
    }
}

const TSYNC: &str = "SECCOMP_FILTER_FLAG_TSYNC";
const LOG: &str = "SECCOMP_FILTER_FLAG_LOG";
const SPEC_ALLOW: &str = "SECCOMP_FILTER_FLAG_SPEC_ALLOW";
const WAIT_KILLABLE_RECV: &str = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";

pub const OPERATORS: [(&str, Operator); 7] = [
    ("SCMP_CMP_NE", Operator::NotEqual),
    ("SCMP_CMP_LT", Operator::Less),
    ("SCMP_CMP_LE", Operator::LessOrEqual),
    ("SCMP_CMP_EQ", Operator::Equal),
    ("SCMP_CMP_GE", Operator::GreaterOrEqual),
    ("SCMP_CMP_GT", Operator::Greater),
    ("SCMP_CMP_MASKED_EQ", Operator::MaskedEqual),
];

pub const ACTIONS: [(&str, Verdict); 9] = [
    ("SCMP_ACT_KILL", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_THREAD", libc::SECCOMP_RET_KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", libc::SECCOMP_RET_KILL_PROCESS),
    ("SCMP_ACT_TRAP", libc::SECCOMP_RET_TRAP),
    ("SCMP_ACT_ERRNO", libc::SECCOMP_RET_ERRNO),
    ("SCMP_ACT_TRACE", libc::SECCOMP_RET_TRACE),
    ("SCMP_ACT_ALLOW", libc::SECCOMP_RET_ALLOW),
    ("SCMP_ACT_LOG", libc::SECCOMP_RET_LOG),
    ("SCMP_ACT_NOTIFY", libc::SECCOMP_RET_USER_NOTIF),
];

pub const FLAGS: [&str; 4] = [TSYNC, SPEC_ALLOW, LOG, WAIT_KILLABLE_RECV];

/// MAX_ERRNO: the kernel would cut what is above.
const LARGEST_ERRNO: u32 = 4095;
/// A system call has six arguments.
const ARGUMENTS: u32 = 6;

impl<'s> Profile<'s> {
    pub fn check(written: &'s Seccomp, family: &Family) -> Result<Self> {
        let mut problems = Problems::default();
        let default = verdict(
            written.default_action.as_deref(),
            written.default_errno_ret,
            || "linux.seccomp.defaultAction".into(),
            || "linux.seccomp.defaultErrnoRet".into(),
        );
        let default = problems.take(default);
        problems.ensure(
            action(default) != libc::SECCOMP_RET_USER_NOTIF,
            "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would ask the listener about every call; name calls instead",
        );
        let rules = problems.each(written.syscalls.iter().enumerate().map(|(index, syscall)| rule(index, syscall)));
        let notifies = rules.iter().any(|rule| action(rule.verdict) == libc::SECCOMP_RET_USER_NOTIF);
        check_listener(written, notifies, &mut problems);
        let architectures = problems.take(architectures(&written.architectures, family));
        let flags = problems.take(flags(written.flags.as_deref(), notifies));
        problems.result(Self { default, rules, architectures, flags, notifies })
    }
}

pub(super) fn check_listener(written: &Seccomp, notifies: bool, problems: &mut Problems) {
    let path = given(&written.listener_path);
    problems.ensure(
        path.is_some() || !notifies,
        "linux.seccomp.listenerPath: missing; SCMP_ACT_NOTIFY needs the socket of who decides",
    );
    problems.ensure(
        path.is_some() || given(&written.listener_metadata).is_none(),
        "linux.seccomp.listenerMetadata: set without listenerPath; set both or neither",
    );
}

/// Without the data.
pub fn action(verdict: Verdict) -> Verdict {
    verdict & libc::SECCOMP_RET_ACTION_FULL
}

fn verdict(
    word: Option<&str>,
    errno: Option<u32>,
    field: impl Fn() -> String,
    errno_field: impl Fn() -> String,
) -> Result<Verdict> {
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        bail!("{}: missing; use one of {}", field(), list(ACTIONS.iter().map(|(name, _)| *name)));
    };
    let Some((_, action)) = ACTIONS.iter().find(|(name, _)| *name == word) else {
        bail!("{}: {word} is no action; use one of {}", field(), list(ACTIONS.iter().map(|(name, _)| *name)));
    };
    let largest = match *action {
        libc::SECCOMP_RET_ERRNO => LARGEST_ERRNO,
        libc::SECCOMP_RET_TRACE => libc::SECCOMP_RET_DATA,
        _ if errno.is_some() => bail!("{}: {word} returns no errno; remove it", errno_field()),
        _ => return Ok(*action),
    };
    let errno = errno.unwrap_or(libc::EPERM as u32);
    ensure!(errno <= largest, "{}: {errno} is above {largest}", errno_field());
    Ok(action | errno)
}

fn rule(index: usize, syscall: &Syscall) -> Result<Rule<'_>> {
    let field = |name: &str| format!("linux.seccomp.syscalls[{index}].{name}");
    ensure!(!syscall.names.is_empty(), "{}: is empty; name a system call or remove the entry", field("names"));
    if let Some(empty) = syscall.names.iter().position(String::is_empty) {
        bail!("{}[{empty}]: is empty; name a system call", field("names"));
    }
    let verdict = verdict(syscall.action.as_deref(), syscall.errno_ret, || field("action"), || field("errnoRet"))?;
    let compare =
        |(at, argument)| comparison(argument).map_err(|(key, what)| anyhow!("{}[{at}].{key}: {what}", field("args")));
    let comparisons = syscall.args.iter().enumerate().map(compare).collect::<Result<Vec<_>>>()?;
    let calls = syscall.names.iter().map(|name| Call::named(name)).collect();
    Ok(Rule { index, names: &syscall.names, calls, verdict, conditions: conditions(comparisons) })
}

/// All have to hold; but where two look at the same argument, any one of them is enough: so have profiles been written
/// since the field takes several, as runc reads them.
fn conditions(comparisons: Vec<Comparison>) -> Vec<Vec<Comparison>> {
    let twice = |comparison: &Comparison| comparisons.iter().filter(|c| c.argument == comparison.argument).count() > 1;
    if comparisons.is_empty() {
        Vec::new()
    } else if comparisons.iter().any(twice) {
        comparisons.into_iter().map(|comparison| vec![comparison]).collect()
    } else {
        vec![comparisons]
    }
}

fn comparison(argument: &Argument) -> Result<Comparison, (&'static str, String)> {
    let index = argument.index.ok_or(("index", "missing; arguments count from 0".to_string()))?;
    if index >= ARGUMENTS {
        return Err(("index", format!("{index} is above {}, the last argument of a system call", ARGUMENTS - 1)));
    }
    let known = || list(OPERATORS.iter().map(|(name, _)| *name));
    let word = argument.op.as_deref().unwrap_or_default();
    let Some((_, operator)) = OPERATORS.iter().find(|(name, _)| *name == word) else {
        let wrong = if word.is_empty() { "missing".into() } else { format!("{word} is no operator") };
        return Err(("op", format!("{wrong}; use one of {}", known())));
    };
    let value = argument.value.ok_or(("value", "missing; what is the argument compared with".to_string()))?;
    let (value, mask) = match operator {
        Operator::MaskedEqual => (argument.value_two.unwrap_or(0), value),
        _ => (value, u64::MAX),
    };
    Ok(Comparison { argument: index as u8, operator: *operator, value, mask })
}

fn architectures(words: &[String], family: &Family) -> Result<Vec<Arch>> {
    for (index, word) in words.iter().enumerate() {
        ensure!(
            ARCHITECTURES.contains(&&**word),
            "linux.seccomp.architectures[{index}]: {word} is no architecture; use one of {}",
            list(ARCHITECTURES.into_iter())
        );
    }
    let listed = |arch: &Arch| *arch == family.own() || words.iter().any(|word| word == arch.name());
    Ok(family.members.iter().copied().filter(listed).collect())
}

/// Absent is not empty: then speculation is left as it was, since mitigating it costs every program a lot.
pub(super) fn flags(words: Option<&[String]>, notifies: bool) -> Result<Flags> {
    let Some(words) = words else { return Ok(Flags { spec_allow: true, ..Flags::default() }) };
    let mut flags = Flags::default();
    for (index, word) in words.iter().enumerate() {
        match &**word {
            // Init has one thread: there is nothing to synchronize, and it would forbid a listener before 5.7.
            TSYNC => {}
            LOG => flags.log = true,
            SPEC_ALLOW => flags.spec_allow = true,
            WAIT_KILLABLE_RECV if notifies => flags.wait_killable_recv = true,
            WAIT_KILLABLE_RECV => {
                bail!("linux.seccomp.flags[{index}]: {word} needs a rule with SCMP_ACT_NOTIFY; add one or remove it")
            }
            _ => bail!("linux.seccomp.flags[{index}]: {word} is no flag; use one of {}", list(FLAGS.into_iter())),
        }
    }
    Ok(flags)
}

fn list<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
