//! The command line: words → options → one call into `lifecycle` → output. Nothing is decided here about containers.
//!
//! One file per command. To add a flag: its `Arg` and its use stand in the command's file; `words` and the help take it
//! from there. To add a command: a file with a [`Verb`], and a line in [`VERBS`].

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, builder::OsStringValueParser};

use crate::cli::global::Global;
use crate::cli::words::{Given, Stop};
use crate::error::{Doing, Wording};
use crate::lifecycle::Store;
use crate::log;
use crate::plan::notify;

pub mod check;
pub mod checkpoint;
pub mod create;
pub mod delete;
pub mod descriptors;
pub mod events;
pub mod exec;
pub mod features;
pub mod global;
pub mod help;
pub mod kill;
pub mod list;
pub mod matching;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod restore;
pub mod resume;
pub mod run;
pub mod signals;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;
pub mod words;

/// A command: what it is called, what it takes, what it does.
pub struct Verb {
    pub name: &'static str,
    pub about: &'static str,
    /// Its flags and positionals.
    pub args: fn() -> Vec<Arg>,
    pub stop: Stop,
    /// What may reach stderr besides the error.
    pub stderr: log::Stderr,
    /// What its errors begin with.
    pub title: &'static str,
    /// The exit status when it fails.
    pub failure: u8,
    /// How its errors are worded.
    pub wording: Wording,
    /// The exit status.
    pub run: fn(&Call) -> Result<u8>,
}

impl Verb {
    /// What most commands are like; the rest is named where a command differs.
    const fn new(
        name: &'static str,
        about: &'static str,
        args: fn() -> Vec<Arg>,
        run: fn(&Call) -> Result<u8>,
    ) -> Self {
        let (stop, stderr, wording) = (Stop::Never, log::Stderr::Warnings, Wording::Verbatim);
        Self { name, about, args, stop, stderr, title: name, failure: 1, wording, run }
    }

    fn command(&self) -> Command {
        Command::new(self.name)
            .bin_name(format!("rrun {}", self.name))
            .about(self.about)
            .after_help("Global flags may stand here too: see rrun --help")
            .args((self.args)())
            .arg(help::flag())
            .no_binary_name(true)
            .args_override_self(true)
            .disable_help_flag(true)
    }
}

pub const VERBS: &[&Verb] = &[
    &create::VERB,
    &start::VERB,
    &run::VERB,
    &exec::VERB,
    &state::VERB,
    &list::VERB,
    &kill::VERB,
    &pause::VERB,
    &resume::VERB,
    &update::VERB,
    &checkpoint::VERB,
    &restore::VERB,
    &ps::VERB,
    &events::VERB,
    &delete::VERB,
    &spec::VERB,
    &features::VERB,
    &plan::VERB,
    &check::VERB,
];

/// What the words ask for.
pub enum Request {
    Print(String),
    Call(Call),
}

/// Words that ask for nothing. Said before any log is opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Misuse {
    pub line: String,
    pub status: u8,
}

impl Misuse {
    fn new(line: String) -> Self {
        Self::with_status(1, line)
    }

    /// One line, whatever the words hold.
    fn with_status(status: u8, line: String) -> Self {
        Self { line: line.replace(char::is_control, " "), status }
    }
}

pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Request, Misuse> {
    let (globals, root_only) = (global::command(), help::root_only());
    let before = words::split(words, [&globals, &root_only], Stop::AtCommand)
        .map_err(|fault| Misuse::new(format!("rrun: {fault}; see rrun --help")))?;
    let [global_flags, root_flags] = before.flags;
    let mut positionals = before.positionals.into_iter();
    match positionals.next() {
        _ if words::is_on(&root_flags, "version") => Ok(Request::Print(help::version())),
        Some(name) if !words::is_on(&root_flags, "help") => command(&name, positionals, globals, global_flags),
        _ => Ok(Request::Print(help::overview())),
    }
}

fn command(
    name: &OsStr,
    words: impl Iterator<Item = OsString>,
    globals: Command,
    mut global_flags: Vec<Given>,
) -> Result<Request, Misuse> {
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        return help::instead_of(&name.to_string_lossy(), words);
    };
    let misuse = |line: String| Misuse::new(format!("{}: {line}; see rrun {0} --help", verb.name));
    let global_misuse = |line: String| Misuse::new(format!("{}: {line}; see rrun --help", verb.name));
    let own = verb.command();
    let split = words::split(words, [&own, &globals], verb.stop).map_err(|fault| {
        let about = |table: &Command| fault.flag().is_some_and(|name| words::has_flag(table, name));
        if about(&globals) && !about(&own) { global_misuse(fault.to_string()) } else { misuse(fault.to_string()) }
    })?;
    let [flags, more_global_flags] = split.flags;
    if words::is_on(&flags, "help") {
        return Ok(Request::Print(help::of(own)));
    }
    check_count(verb.name, &own, split.positionals.len())?;
    global_flags.extend(more_global_flags);
    let globals = typed(globals, words::canonical(&global_flags, Vec::new())).map_err(global_misuse)?;
    let global = Global::new(&globals).map_err(global_misuse)?;
    let matches = typed(own, words::canonical(&flags, split.positionals)).map_err(misuse)?;
    Ok(Request::Call(Call { verb, global, matches }))
}

/// The words are interface of old: scripts look for `exactly`, `a minimum of` and `a maximum of`.
fn check_count(name: &str, command: &Command, count: usize) -> Result<(), Misuse> {
    let many = command.get_positionals().any(|arg| matches!(arg.get_action(), ArgAction::Append));
    let most = if many { usize::MAX } else { command.get_positionals().count() };
    let least = command.get_positionals().filter(|arg| arg.is_required_set()).count();
    let wanted = match () {
        () if (least..=most).contains(&count) => return Ok(()),
        () if least == most => format!("exactly {least}"),
        () if count < least => format!("a minimum of {least}"),
        () => format!("a maximum of {most}"),
    };
    Err(Misuse::new(format!("rrun: \"{name}\" requires {wanted} argument(s), not {count}; see rrun {name} --help")))
}

fn typed(command: Command, words: Vec<OsString>) -> Result<ArgMatches, String> {
    command.try_get_matches_from(words).map_err(|error| {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("error: ").unwrap_or(line).to_string()
    })
}

impl Request {
    pub fn run(&self) -> Result<u8> {
        match self {
            Self::Print(text) => print(text).map(|()| 0),
            Self::Call(call) => call.run(),
        }
    }

    /// The exit status when it fails.
    pub fn failure(&self) -> u8 {
        match self {
            Self::Print(_) => 1,
            Self::Call(call) => call.verb.failure,
        }
    }

    pub fn wording(&self) -> Wording {
        match self {
            Self::Print(_) => Wording::Verbatim,
            Self::Call(call) => call.verb.wording,
        }
    }
}

/// A command with its flags, all of them well-formed.
pub struct Call {
    verb: &'static Verb,
    pub global: Global,
    matches: ArgMatches,
}

impl Call {
    fn run(&self) -> Result<u8> {
        let log = self.global.open_log(self.verb.stderr).context("--log");
        log.and_then(|()| (self.verb.run)(self)).with_context(|| self.title())
    }

    /// Every error begins with it: `create c1`.
    fn title(&self) -> String {
        match self.matches.try_get_one::<OsString>("ID") {
            Ok(Some(id)) if !id.is_empty() => self.title_with(&id.to_string_lossy()),
            _ => self.verb.title.trim_end_matches(':').to_string(),
        }
    }

    fn title_with(&self, id: &str) -> String {
        format!("{} {id}", self.verb.title)
    }

    pub fn store(&self) -> Result<Store> {
        Ok(Store { root: self.global.root()?.path })
    }

    /// What is no id stays none: no id holds a replacement character.
    pub fn id(&self) -> String {
        self.text("ID").unwrap_or_default()
    }

    pub fn is_on(&self, switch: &str) -> bool {
        self.matches.get_flag(switch)
    }

    /// The value of a flag or positional; an empty one is as good as none.
    pub fn value(&self, name: &str) -> Option<&OsString> {
        self.matches.get_one::<OsString>(name).filter(|value| !value.is_empty())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// Those of a positional that takes many, empty ones too.
    pub fn words(&self, name: &str) -> Vec<OsString> {
        self.matches.get_many::<OsString>(name).map(|words| words.cloned().collect()).unwrap_or_default()
    }

    pub fn one<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        self.matches.get_one::<T>(name).cloned()
    }

    pub fn many<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Vec<T> {
        self.matches.get_many::<T>(name).map(|values| values.cloned().collect()).unwrap_or_default()
    }

    pub fn number(&self, name: &str) -> Option<u32> {
        self.matches.get_one::<u32>(name).copied()
    }

    /// Absolute, because rrun may change its directory later.
    pub fn path(&self, name: &str) -> Result<Option<PathBuf>> {
        self.value(name).map(|path| Ok(std::path::absolute(path).doing("getcwd", "")?)).transpose()
    }
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn value(name: &'static str, kind: &'static str, help: &'static str) -> Arg {
    // Not clap's own parser of paths: that one refuses an empty value, which callers send for "none".
    let parser = OsStringValueParser::new();
    Arg::new(name).long(name).value_name(kind).action(ArgAction::Set).value_parser(parser).help(help)
}

fn positional(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_parser(OsStringValueParser::new()).help(help)
}

fn id() -> Arg {
    positional("ID", "The container's id").required(true)
}

/// Where a service manager waits for the container to be ready; empty is as good as none.
fn notify_socket() -> Option<OsString> {
    std::env::var_os(notify::VARIABLE).filter(|name| !name.is_empty())
}

/// Data for the caller. Whoever closes the pipe early has read enough.
fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error).doing("write", "stdout")?,
        _ => Ok(()),
    }
}

/// JSON for the caller, without a newline behind it, as the first callers got it; a person gets one.
fn print_json(json: String) -> Result<()> {
    let newline = if std::io::stdout().is_terminal() { "\n" } else { "" };
    print(&(json + newline))
}

#[cfg(test)]
mod tests;
