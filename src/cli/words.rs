//! The words of a command line, by the rules of runc's parser, which managers were written against: long flags with one
//! dash, flags behind positionals, `--flag=false`, a value that begins with a dash. What comes out is what clap reads
//! without guessing: `--name=value`, `--switch`, and the positionals by themselves. Pure.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, Command};

/// Where words are no longer looked at for flags, besides behind `--`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Flags and positionals stand in any order.
    Never,
    /// The first positional is a command; what follows is the command's own affair, even `--`.
    AtCommand,
    /// The first positional is an id; what follows is for whatever is in the container. A `--` right behind it is dropped.
    AfterId,
}

/// A flag as given: long name, and what it was set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    pub name: String,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Switch(bool),
    Text(OsString),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Split<const N: usize> {
    /// Flags per table.
    pub flags: [Vec<Given>; N],
    pub positionals: Vec<OsString>,
}

/// The texts are interface: podman and CRI-O look for `flag needs an argument`.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    NotDefined(String),
    NeedsArgument(String),
    NotBool { name: String, value: String },
}

impl Fault {
    /// The name of the flag that it is about, if there is such a flag.
    pub fn flag(&self) -> Option<&str> {
        match self {
            Self::NotDefined(_) => None,
            Self::NeedsArgument(word) => Some(word.trim_start_matches('-')),
            Self::NotBool { name, .. } => Some(name),
        }
    }
}

pub fn has_flag(table: &Command, name: &str) -> bool {
    let is_short = |arg: &Arg| arg.get_short().is_some_and(|short| name.chars().eq([short]));
    table.get_arguments().any(|arg| arg.get_long() == Some(name) || is_short(arg))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotDefined(name) => write!(f, "flag provided but not defined: -{name}"),
            Self::NeedsArgument(word) => write!(f, "flag needs an argument: {word}"),
            Self::NotBool { name, value } => write!(f, "--{name}: {value} is neither true nor false"),
        }
    }
}

/// Sorts words into flags and positionals. A flag belongs to the first of `tables` that has an argument of its name.
pub fn split<const N: usize>(
    words: impl IntoIterator<Item = OsString>,
    tables: [&Command; N],
    stop: Stop,
) -> Result<Split<N>, Fault> {
    let mut words = words.into_iter();
    let mut split = Split { flags: [const { Vec::new() }; N], positionals: Vec::new() };
    while let Some(word) = words.next() {
        let trimmed = word.as_bytes().trim_ascii();
        if trimmed == b"--" {
            break;
        }
        if stop == Stop::AfterId && split.positionals.len() == 1 {
            split.positionals.push(word);
            break;
        }
        match shape(trimmed) {
            Shape::Positional => {
                split.positionals.push(OsStr::from_bytes(trimmed).to_owned());
                if stop == Stop::AtCommand {
                    break;
                }
            }
            Shape::EndOfFlags => {
                split.positionals.push(word);
                break;
            }
            Shape::Flag { name, value } => {
                let (table, given) = given(name, value, trimmed, &tables, &mut words)?;
                split.flags[table].push(given);
            }
        }
    }
    split.positionals.extend(words);
    Ok(split)
}

enum Shape<'a> {
    Positional,
    Flag {
        name: &'a [u8],
        value: Option<&'a [u8]>,
    },
    /// `-9` and `-` are no flags, and neither is what follows them.
    EndOfFlags,
}

fn shape(word: &[u8]) -> Shape<'_> {
    let name = match word {
        [b'-', b'-', name @ ..] => name,
        [b'-', name @ ..] if String::from_utf8_lossy(name).starts_with(char::is_alphabetic) => name,
        [b'-', ..] => return Shape::EndOfFlags,
        _ => return Shape::Positional,
    };
    match name.iter().position(|byte| *byte == b'=') {
        Some(at) => Shape::Flag { name: &name[..at], value: Some(&name[at + 1..]) },
        None => Shape::Flag { name, value: None },
    }
}

fn given(
    name: &[u8],
    value: Option<&[u8]>,
    word: &[u8],
    tables: &[&Command],
    rest: &mut impl Iterator<Item = OsString>,
) -> Result<(usize, Given), Fault> {
    let (table, arg) = tables
        .iter()
        .enumerate()
        .find_map(|(n, table)| Some((n, table.get_arguments().find(|arg| is_named(arg, name))?)))
        .ok_or_else(|| Fault::NotDefined(lossy(name)))?;
    let long = arg.get_long().unwrap_or_default().to_string();
    let value = if !arg.get_action().takes_values() {
        Value::Switch(
            truth(value).ok_or_else(|| Fault::NotBool { name: lossy(name), value: lossy(value.unwrap_or(b"")) })?,
        )
    } else if let Some(value) = value {
        Value::Text(OsString::from_vec(value.to_vec()))
    } else {
        Value::Text(rest.next().ok_or_else(|| Fault::NeedsArgument(lossy(word)))?)
    };
    Ok((table, Given { name: long, value }))
}

fn is_named(arg: &Arg, name: &[u8]) -> bool {
    let is = |letter: char| letter.encode_utf8(&mut [0; 4]).as_bytes() == name;
    arg.get_long().is_some_and(|long| long.as_bytes() == name)
        || arg.get_short().is_some_and(is)
        || arg.get_all_short_aliases().is_some_and(|letters| letters.into_iter().any(is))
}

/// The words that Go's parser takes for a bool, since callers were written in Go; and crun's for `--tty`.
fn truth(value: Option<&[u8]>) -> Option<bool> {
    match value.unwrap_or(b"") {
        b"" | b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" | b"yes" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" | b"no" => Some(false),
        _ => None,
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a switch is set; the last mention counts.
pub fn is_on(flags: &[Given], name: &str) -> bool {
    let last = flags.iter().rev().find(|flag| flag.name == name);
    last.is_some_and(|flag| flag.value == Value::Switch(true))
}

/// For clap: a switch stands if its last mention sets it, values stand as often as given.
pub fn canonical(flags: &[Given], positionals: Vec<OsString>) -> Vec<OsString> {
    let mut words = Vec::with_capacity(flags.len() + positionals.len() + 1);
    for (n, flag) in flags.iter().enumerate() {
        match &flag.value {
            Value::Switch(on) => {
                let last = !flags[n + 1..].iter().any(|later| later.name == flag.name);
                if *on && last {
                    words.push(format!("--{}", flag.name).into());
                }
            }
            Value::Text(text) => {
                let mut word = OsString::from(format!("--{}=", flag.name));
                word.push(text);
                words.push(word);
            }
        }
    }
    if !positionals.is_empty() {
        words.push("--".into());
        words.extend(positionals);
    }
    words
}

#[cfg(test)]
mod tests;
