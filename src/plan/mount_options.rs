//! The words of mount(8) and what each one does. To add a word, add a line to the table of its kind: the parser, the
//! recursive `r…` words and `rrun features` come from the tables.

use anyhow::{Result, bail, ensure};
use libc::{
    MOUNT_ATTR__ATIME as ATIME, MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV,
    MOUNT_ATTR_NODIRATIME as NODIRATIME, MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW, MOUNT_ATTR_RDONLY as RDONLY, MOUNT_ATTR_RELATIME as RELATIME,
    MOUNT_ATTR_STRICTATIME as STRICTATIME,
};

use super::{AttrChange, Parameter, Propagation, PropagationKind};
use Change::{Clear, NotTimes, Set, Times};
use PropagationKind::{Private, Shared, Slave, Unbindable};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Set(u64),
    Clear(u64),
    /// When access times are written is one of three, not three bits: choosing one drops the others.
    Times(u64),
    /// Back to the kernel's default, which is relatime, unless another one than this was chosen.
    NotTimes(u64),
}

/// Of one mount, as MOUNT_ATTR_*. Each has a recursive form with an `r` before it (mount_setattr(2), AT_RECURSIVE).
const ATTRIBUTES: &[(&str, Change)] = &[
    ("ro", Set(RDONLY)),
    ("rw", Clear(RDONLY)),
    ("nosuid", Set(NOSUID)),
    ("suid", Clear(NOSUID)),
    ("nodev", Set(NODEV)),
    ("dev", Clear(NODEV)),
    ("noexec", Set(NOEXEC)),
    ("exec", Clear(NOEXEC)),
    ("nosymfollow", Set(NOSYMFOLLOW)),
    ("symfollow", Clear(NOSYMFOLLOW)),
    ("nodiratime", Set(NODIRATIME)),
    ("diratime", Clear(NODIRATIME)),
    ("relatime", Times(RELATIME)),
    ("norelatime", NotTimes(RELATIME)),
    ("noatime", Times(NOATIME)),
    ("atime", NotTimes(NOATIME)),
    ("strictatime", Times(STRICTATIME)),
    ("nostrictatime", NotTimes(STRICTATIME)),
];

/// Of the file system behind a mount; fsconfig(2) takes them as flags, the last one wins.
const SUPERBLOCK: &[&str] = &["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"];

/// Taken and dropped. `defaults` says nothing. `silent` and `loud` exist only as bits of mount(2) and concern the
/// kernel log. i_version is no choice any more: the file systems that have it keep it on (ext4 since 6.0).
const WITHOUT_EFFECT: &[&str] = &["defaults", "silent", "loud", "iversion", "noiversion"];

/// Each has a recursive form with an `r` before it.
const PROPAGATION: &[(&str, PropagationKind)] =
    &[("private", Private), ("shared", Shared), ("slave", Slave), ("unbindable", Unbindable)];

const BIND: &str = "bind";
const RECURSIVE_BIND: &str = "rbind";
const REMOUNT: &str = "remount";
const COPY_UP: &str = "tmpcopyup";

/// The ids of one mount, or of the whole tree, are mapped.
const IDMAP: &str = "idmap";
const RECURSIVE_IDMAP: &str = "ridmap";
/// What becomes of a symlink that is the source, or stands at the destination.
const COPY_SYMLINK: &str = "copy-symlink";
const SOURCE_NOFOLLOW: &str = "src-nofollow";
const DESTINATION_NOFOLLOW: &str = "dest-nofollow";

/// `options` of one mount, sorted by who acts on them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    pub attributes: AttrChange,
    pub recursive: AttrChange,
    pub propagation: Vec<Propagation>,
    pub bind: bool,
    pub recursive_bind: bool,
    pub remount: bool,
    pub copy_up: bool,
    pub idmap: bool,
    pub recursive_idmap: bool,
    pub copy_symlink: bool,
    pub source_nofollow: bool,
    pub destination_nofollow: bool,
    pub superblock: Vec<Parameter>,
    /// What no table knows: the file system's own.
    pub data: Vec<Parameter>,
}

pub fn parse(options: &[String], field: &str) -> Result<Words> {
    let mut words = Words::default();
    for (index, word) in options.iter().enumerate() {
        words.add(word, &format_args!("{field}.options[{index}]"))?;
    }
    Ok(words)
}

impl Words {
    fn add(&mut self, word: &str, field: &dyn std::fmt::Display) -> Result<()> {
        if let Some(change) = attribute(word) {
            change.apply(&mut self.attributes);
        } else if let Some(change) = word.strip_prefix('r').and_then(attribute) {
            change.apply(&mut self.recursive);
        } else if let Some(propagation) = propagation(word) {
            self.propagation.push(propagation);
        } else if SUPERBLOCK.contains(&word) {
            self.superblock.push(Parameter::Flag(word.into()));
        } else if !word.is_empty() && !WITHOUT_EFFECT.contains(&word) {
            match word {
                BIND => self.bind = true,
                RECURSIVE_BIND => (self.bind, self.recursive_bind) = (true, true),
                REMOUNT => self.remount = true,
                COPY_UP => self.copy_up = true,
                IDMAP => (self.idmap, self.recursive_idmap) = (true, false),
                RECURSIVE_IDMAP => (self.idmap, self.recursive_idmap) = (true, true),
                COPY_SYMLINK => self.copy_symlink = true,
                SOURCE_NOFOLLOW => self.source_nofollow = true,
                DESTINATION_NOFOLLOW => self.destination_nofollow = true,
                _ if word.starts_with("idmap=") || word.starts_with("ridmap=") => {
                    bail!("{field}: {word} holds maps; write idmap, and the maps as uidMappings and gidMappings")
                }
                _ => self.data.push(parameter(word, field)?),
            }
        }
        Ok(())
    }
}

fn attribute(word: &str) -> Option<Change> {
    ATTRIBUTES.iter().find(|(name, _)| *name == word).map(|(_, change)| *change)
}

/// `rslave` and its like; also the values of `linux.rootfsPropagation`.
pub fn propagation(word: &str) -> Option<Propagation> {
    let kind = |word| PROPAGATION.iter().find(|(name, _)| *name == word).map(|(_, kind)| *kind);
    let (kind, recursive) = match kind(word) {
        Some(kind) => (kind, false),
        None => (kind(word.strip_prefix('r')?)?, true),
    };
    Some(Propagation { kind, recursive })
}

pub fn propagation_words() -> String {
    PROPAGATION.iter().map(|(name, _)| format!("{name}, r{name}")).collect::<Vec<_>>().join(", ")
}

fn parameter(word: &str, field: &dyn std::fmt::Display) -> Result<Parameter> {
    let Some((key, value)) = word.split_once('=') else { return Ok(Parameter::Flag(word.into())) };
    ensure!(!key.is_empty(), "{field}: {word} has no name before the =");
    let value = unquoted(key, value);
    if key.len() > FSCONFIG_MAX || (value.len() > FSCONFIG_MAX && key != "lowerdir") {
        bail!("{field}: {word} is too long; fsconfig(2) takes {FSCONFIG_MAX} bytes");
    }
    Ok(Parameter::Value(key.into(), value.into()))
}

/// Options that hold a label, and in it commas. Quotes keep mount(2) from cutting there; fsconfig(2) would take them for
/// a part of the label.
pub const WITH_LABELS: [&str; 4] = ["context", "fscontext", "defcontext", "rootcontext"];

pub(super) fn unquoted<'a>(key: &str, value: &'a str) -> &'a str {
    let inside = || value.strip_prefix('"')?.strip_suffix('"');
    if WITH_LABELS.contains(&key) { inside().unwrap_or(value) } else { value }
}

/// fsconfig(2) copies 256 bytes of a key and of a value, with their NUL.
pub const FSCONFIG_MAX: usize = 255;

impl Change {
    fn apply(self, to: &mut AttrChange) {
        let chosen = (to.clear & ATIME != 0).then_some(to.set & ATIME);
        match self {
            Set(bit) => (to.set, to.clear) = (to.set | bit, to.clear & !bit),
            Clear(bit) => (to.set, to.clear) = (to.set & !bit, to.clear | bit),
            // mount_setattr(2) wants the whole field cleared, since relatime is 0
            Times(mode) => (to.set, to.clear) = (to.set & !ATIME | mode, to.clear | ATIME),
            NotTimes(mode) if chosen.is_none_or(|chosen| chosen == mode) => Times(RELATIME).apply(to),
            NotTimes(_) => {}
        }
    }

    fn is_in(self, change: &AttrChange) -> bool {
        match self {
            Set(bit) => change.set & bit != 0,
            Clear(bit) => change.clear & bit != 0,
            Times(mode) => change.clear & ATIME != 0 && change.set & ATIME == mode,
            NotTimes(_) => false,
        }
    }
}

/// mount(2) sets the options of a bind mount anew once it is given one: those of the source that are not among them go.
/// Without any the mount is as its source is, and when access times are written always is. runc and crun do the same.
pub fn unnamed(named: &AttrChange) -> AttrChange {
    const ANEW: u64 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
    let clear = if named.is_empty() { 0 } else { ANEW & !(named.set | named.clear) };
    AttrChange { set: 0, clear }
}

/// A change in words, for `rrun plan`.
pub fn words(change: &AttrChange) -> String {
    let words = ATTRIBUTES.iter().filter(|(_, one)| one.is_in(change)).map(|(name, _)| *name);
    words.collect::<Vec<_>>().join(",")
}

/// Every word that has a meaning here, sorted, for `rrun features`.
pub fn all_words() -> Vec<String> {
    let recursive = ATTRIBUTES.iter().map(|(name, _)| format!("r{name}"));
    let single = [BIND, RECURSIVE_BIND, REMOUNT, COPY_UP, IDMAP, RECURSIVE_IDMAP];
    let links = [COPY_SYMLINK, SOURCE_NOFOLLOW, DESTINATION_NOFOLLOW];
    let plain = ATTRIBUTES.iter().map(|(name, _)| *name).chain(single).chain(links);
    let plain = plain.chain(SUPERBLOCK.iter().chain(WITHOUT_EFFECT).copied()).map(String::from);
    let propagation = PROPAGATION.iter().flat_map(|(name, _)| [(*name).to_string(), format!("r{name}")]);
    let mut words: Vec<String> = plain.chain(recursive).chain(propagation).collect();
    words.sort();
    words
}

#[cfg(test)]
mod tests;
