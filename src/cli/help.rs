//! `--help` and `--version`, and what is said of commands that are not there.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::{Misuse, Request, VERBS, global, switch};

/// Commands that callers may try because other runtimes have them.
const LATER: &[&str] = &["mounts"];

pub fn flag() -> Arg {
    Arg::new("help").long("help").short('h').action(ArgAction::SetTrue).help("Print this help")
}

/// Flags that mean something in front of a command only.
pub fn root_only() -> Command {
    Command::new("rrun").arg(flag()).arg(switch("version", "Print the version").short('v').short_alias('V'))
}

pub fn overview() -> String {
    let commands = VERBS.iter().map(|verb| Command::new(verb.name).about(verb.about));
    global::command()
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .override_usage("rrun [GLOBAL FLAGS] COMMAND [FLAGS] ARGUMENTS")
        .args(root_only().get_arguments().map(|arg| arg.clone().display_order(99)))
        .subcommands(commands)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .render_help()
        .to_string()
}

/// Name and purpose in a section of their own, as man pages have them and who reads others' help looks for them.
pub fn of(command: Command) -> String {
    let about = command.get_about().map(|about| about.to_string()).unwrap_or_default();
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_string();
    let rest = command.about(None::<&str>).render_help();
    format!("NAME:\n   {name} - {about}\n\n{rest}")
}

/// dockerd takes the last line that holds the word "version", so only the first one does.
pub fn version() -> String {
    let commit = option_env!("RRUN_COMMIT").filter(|commit| !commit.is_empty());
    let commit = commit.map(|commit| format!("commit: {commit}\n")).unwrap_or_default();
    format!("rrun version {}\n{commit}spec: {}\n", env!("CARGO_PKG_VERSION"), crate::OCI_VERSION)
}

/// A word where a command should stand: `help`, or one that rrun does not have.
pub fn instead_of(word: &str, mut rest: impl Iterator<Item = OsString>) -> Result<Request, Misuse> {
    let line = match word {
        "help" | "h" => match rest.next() {
            None => return Ok(Request::Print(overview())),
            Some(topic) => match VERBS.iter().find(|verb| verb.name == topic) {
                Some(verb) => return Ok(Request::Print(of(verb.command()))),
                None => format!("rrun: no help on {}; see rrun --help", topic.to_string_lossy()),
            },
        },
        word if LATER.contains(&word) => format!("rrun: this version has no command {word} yet; see rrun --help"),
        word if rest.next().is_some_and(|next| next == "-h" || next == "--help") => {
            format!("rrun: unknown command {word}: No help topic for '{word}'; see rrun --help")
        }
        word => format!("rrun: unknown command {word}; see rrun --help"),
    };
    Err(Misuse::with_status(3, line))
}
