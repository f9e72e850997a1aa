//! `linux.resources.devices`: which devices a container may open or make nodes of.
//!
//! The spec's list is read as it stands: for each device and each of r, w and m the last rule that speaks of it
//! decides, and without one it is denied. The v1 kernel knows something weaker: a default and exceptions to it, where a
//! removal only takes away an exception written with the very same numbers, and says nothing when there is none. So the
//! rules are folded here into what each device may, and that is put into the kernel's words or refused. On v2 the same
//! becomes a program: `device_filter`.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Result, bail};
use nix::errno::Errno;

use super::write::Write;
use crate::plan::spec::resources::DeviceRule;

pub(super) const FIELD: &str = "linux.resources.devices";
const MEANINGS: &[(Errno, &str)] = &[
    (Errno::EPERM, "the parent cgroup allows less than this"),
    (Errno::EINVAL, "a cgroup that has children cannot change its default; remove them"),
];

pub(super) const R: u8 = 1;
pub(super) const W: u8 = 2;
pub(super) const M: u8 = 4;
pub(super) const ALL: u8 = R | W | M;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Block,
    Char,
}

pub(super) const KINDS: [Kind; 2] = [Kind::Block, Kind::Char];

/// `None` is any, and sorts before every number.
pub(super) type Number = Option<u32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None`: both.
    kind: Option<Kind>,
    major: Number,
    minor: Number,
    access: u8,
}

/// What every container may, whatever the config says: managers rely on it. To make any node, but not to open it; and
/// the devices of the default /dev, pseudo terminals and net/tun.
#[rustfmt::skip]
const DEFAULTS: [Rule; 11] = [
    always(Kind::Char, None, None, M),
    always(Kind::Block, None, None, M),
    always(Kind::Char, Some(1), Some(3), ALL),    // null
    always(Kind::Char, Some(1), Some(5), ALL),    // zero
    always(Kind::Char, Some(1), Some(7), ALL),    // full
    always(Kind::Char, Some(1), Some(8), ALL),    // random
    always(Kind::Char, Some(1), Some(9), ALL),    // urandom
    always(Kind::Char, Some(5), Some(0), ALL),    // tty
    always(Kind::Char, Some(5), Some(2), ALL),    // ptmx
    always(Kind::Char, Some(136), None, ALL),     // pts/*
    always(Kind::Char, Some(10), Some(200), ALL), // net/tun
];

const fn always(kind: Kind, major: Number, minor: Number, access: u8) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

pub fn v1(rules: &[DeviceRule]) -> Result<Vec<Write>> {
    let rules = with_defaults(rules)?;
    let spoken = spoken_of(&rules);
    // Both may do; the shorter one is taken, and the one that denies by default where they are equal. To allow
    // everything is one line, and only so may a container's own containers be allowed everything.
    let lists = [exceptions(&spoken, Default::Deny), exceptions(&spoken, Default::Allow)];
    match lists {
        [Err(hole), Err(_)] => bail!("{FIELD}: {hole}"),
        [Ok(denying), Ok(allowing)] if allowing.len() < denying.len() => Ok(lines(Default::Allow, &allowing)),
        [Ok(denying), _] => Ok(lines(Default::Deny, &as_written(denying, &rules))),
        [Err(_), Ok(allowing)] => Ok(lines(Default::Allow, &allowing)),
    }
}

/// What the rules and the defaults say in the end.
pub(super) fn effective(rules: &[DeviceRule]) -> Result<Vec<Group>> {
    Ok(spoken_of(&with_defaults(rules)?))
}

fn with_defaults(rules: &[DeviceRule]) -> Result<Vec<Rule>> {
    let mut parsed = rules.iter().enumerate().map(|(n, rule)| parse(n, rule)).collect::<Result<Vec<_>>>()?;
    parsed.extend(DEFAULTS);
    Ok(parsed)
}

fn parse(n: usize, rule: &DeviceRule) -> Result<Rule> {
    let kind = match rule.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("c") => Some(Kind::Char),
        Some("b") => Some(Kind::Block),
        Some(kind) => bail!("{FIELD}[{n}].type: {kind} is none of a, b and c"),
    };
    let number = |name: &str, value: Option<i64>, most: i64| match value {
        None | Some(-1) => Ok(None),
        Some(value) if (0..=most).contains(&value) => Ok(Some(value as u32)),
        Some(value) => bail!("{FIELD}[{n}].{name}: {value} is outside 0 to {most}"),
    };
    // 12 and 20 bits: include/linux/kdev_t.h
    let (major, minor) = (number("major", rule.major, 0xfff)?, number("minor", rule.minor, 0xf_ffff)?);
    let mut access = 0;
    for letter in rule.access.as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'r' => R,
            'w' => W,
            'm' => M,
            letter => bail!("{FIELD}[{n}].access: {letter} is none of r, w and m"),
        };
    }
    if access == 0 {
        bail!("{FIELD}[{n}].access: is empty; say which of r, w and m");
    }
    Ok(Rule { allow: rule.allow, kind, major, minor, access })
}

/// All devices of a kind whose numbers the rules treat alike; those with a number of their own are not in the wider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub kind: Kind,
    pub major: Number,
    pub minor: Number,
    pub allowed: u8,
}

/// Every group that the rules can tell from another, with what they say of it in the end; the wide ones first.
fn spoken_of(rules: &[Rule]) -> Vec<Group> {
    let mut groups = Vec::new();
    for kind in KINDS {
        let rules: Vec<&Rule> = rules.iter().filter(|rule| rule.kind.is_none_or(|of| of == kind)).collect();
        let mut numbers: BTreeSet<(Number, Number)> = rules.iter().map(|rule| (rule.major, rule.minor)).collect();
        numbers.insert((None, None));
        // where all minors of a major and a minor of all majors cross
        let majors: Vec<Number> = numbers.iter().filter(|(_, minor)| minor.is_none()).map(|n| n.0).collect();
        let minors: Vec<Number> = numbers.iter().filter(|(major, _)| major.is_none()).map(|n| n.1).collect();
        numbers.extend(majors.iter().flat_map(|major| minors.iter().map(|minor| (*major, *minor))));
        groups.extend(numbers.into_iter().map(|(major, minor)| {
            let allowed = rules.iter().fold(0, |allowed, rule| match rule.covers(major, minor) {
                true if rule.allow => allowed | rule.access,
                true => allowed & !rule.access,
                false => allowed,
            });
            Group { kind, major, minor, allowed }
        }));
    }
    groups
}

impl Rule {
    fn covers(&self, major: Number, minor: Number) -> bool {
        self.major.is_none_or(|own| major == Some(own)) && self.minor.is_none_or(|own| minor == Some(own))
    }
}

impl Group {
    /// `c 1:3 rwm`
    pub fn shown(&self) -> String {
        Exception { kind: self.kind, major: self.major, minor: self.minor, access: self.allowed }.to_string()
    }

    pub fn is_wider_than(&self, other: &Group) -> bool {
        let covers = |wide: Number, narrow: Number| wide.is_none() || wide == narrow;
        self.kind == other.kind
            && covers(self.major, other.major)
            && covers(self.minor, other.minor)
            && (self.major, self.minor) != (other.major, other.minor)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Default {
    Deny,
    Allow,
}

impl Default {
    fn file(self) -> &'static str {
        match self {
            Self::Deny => "devices.deny",
            Self::Allow => "devices.allow",
        }
    }

    fn file_of_exceptions(self) -> &'static str {
        match self {
            Self::Deny => Self::Allow.file(),
            Self::Allow => Self::Deny.file(),
        }
    }

    fn excepted(self, group: &Group) -> u8 {
        match self {
            Self::Deny => group.allowed,
            Self::Allow => ALL & !group.allowed,
        }
    }
}

/// The kernel's exceptions from a default, or why there are none: an exception holds for every device that its
/// numbers cover, and none takes from another.
pub(super) fn exceptions(groups: &[Group], default: Default) -> Result<Vec<Exception>, Hole> {
    let mut exceptions = Vec::new();
    for group in groups {
        let access = default.excepted(group);
        let mut said = access == 0;
        for wide in groups.iter().filter(|wide| wide.is_wider_than(group)) {
            let wide_access = default.excepted(wide);
            if wide_access & !access != 0 {
                return Err(Hole { narrow: *group, wide: *wide });
            }
            said |= wide_access == access;
        }
        if !said {
            exceptions.push(Exception { kind: group.kind, major: group.major, minor: group.minor, access });
        }
    }
    Ok(exceptions)
}

/// As the config has them, so that devices.list can be compared with it: in the order of its rules, and `m` only where a
/// rule for these very numbers says it. The kernel asks for `m` alone, and a wider line always allows that.
fn as_written(mut exceptions: Vec<Exception>, rules: &[Rule]) -> Vec<Exception> {
    let speaks = |rule: &Rule, of: &Exception| {
        rule.allow && rule.kind.is_none_or(|kind| kind == of.kind) && (rule.major, rule.minor) == (of.major, of.minor)
    };
    for exception in &mut exceptions {
        if !rules.iter().any(|rule| speaks(rule, exception) && rule.access & M != 0) {
            exception.access &= !M;
        }
    }
    exceptions
        .sort_by_cached_key(|exception| rules.iter().position(|rule| speaks(rule, exception)).unwrap_or(rules.len()));
    exceptions
}

fn lines(default: Default, exceptions: &[Exception]) -> Vec<Write> {
    let write = |file: &'static str, line: String| Write::new(FIELD, file, line).meaning(MEANINGS);
    let mut writes = vec![write(default.file(), "a".into())];
    writes.extend(exceptions.iter().map(|exception| write(default.file_of_exceptions(), exception.to_string())));
    writes
}

pub(super) struct Exception {
    pub kind: Kind,
    pub major: Number,
    pub minor: Number,
    pub access: u8,
}

impl Exception {
    /// `rwm`
    pub fn letters(&self) -> String {
        let letters = [(R, 'r'), (W, 'w'), (M, 'm')];
        letters.iter().filter(|(bit, _)| self.access & bit != 0).map(|(_, letter)| letter).collect()
    }
}

/// `c 1:3 rwm`
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Number| number.map_or("*".to_string(), |number| number.to_string());
        let kind = if self.kind == Kind::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{} {}", number(self.major), number(self.minor), self.letters())
    }
}

/// Less is allowed of some devices than of the wider group they are in, and elsewhere more.
pub(super) struct Hole {
    narrow: Group,
    wide: Group,
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "cgroup v1 cannot allow {} without {}; allow single devices in place of the wide rule",
            self.wide.shown(),
            Group { allowed: self.wide.allowed & !self.narrow.allowed, ..self.narrow }.shown()
        )
    }
}

#[cfg(test)]
pub(super) mod tests;
