use super::*;
use clap::ArgAction;
use proptest::prelude::*;

fn own() -> Command {
    Command::new("own")
        .arg(Arg::new("bundle").long("bundle").short('b').action(ArgAction::Set))
        .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
        .arg(Arg::new("all").long("all").short('a').action(ArgAction::SetTrue))
        .arg(Arg::new("rootless").long("rootless").action(ArgAction::SetTrue))
        .arg(Arg::new("ID"))
}

fn global() -> Command {
    Command::new("global")
        .arg(Arg::new("root").long("root").action(ArgAction::Set))
        .arg(Arg::new("rootless").long("rootless").action(ArgAction::Set))
        .arg(Arg::new("debug").long("debug").action(ArgAction::SetTrue))
}

/// The words for clap: those of the command, then `|`, then those of the global flags.
fn sorted(words: &[&str], stop: Stop) -> Result<String, String> {
    let words = words.iter().map(OsString::from);
    let split = split(words, [&own(), &global()], stop).map_err(|fault| fault.to_string())?;
    let show = |words: Vec<OsString>| words.join(OsStr::new(" ")).into_string().unwrap();
    let (own, global) = (canonical(&split.flags[0], split.positionals), canonical(&split.flags[1], vec![]));
    Ok(format!("{} | {}", show(own), show(global)).trim_end().into())
}

#[test]
fn words_become_what_clap_reads_without_guessing() {
    use Stop::*;
    for (words, stop, want) in [
        // dashes and equal signs
        (&["c1"][..], Never, "-- c1 |"),
        (&["-bundle", "X", "c1"], Never, "--bundle=X -- c1 |"),
        (&["--bundle=X", "c1"], Never, "--bundle=X -- c1 |"),
        (&["-b=X", "--b", "Y", "c1"], Never, "--bundle=X --bundle=Y -- c1 |"),
        (&["--bundle=", "c1"], Never, "--bundle= -- c1 |"),
        (&["--bundle", "", "c1"], Never, "--bundle= -- c1 |"),
        (&["--bundle=a=b", "c1"], Never, "--bundle=a=b -- c1 |"),
        // a value flag swallows whatever comes next
        (&["-b", "-", "c1"], Never, "--bundle=- -- c1 |"),
        (&["-b", "--all", "c1"], Never, "--bundle=--all -- c1 |"),
        (&["-b", "--", "c1"], Never, "--bundle=-- -- c1 |"),
        // a comma separates nothing
        (&["-e", "A=1,2", "-e", "B=", "c1"], Never, "--env=A=1,2 --env=B= -- c1 |"),
        // switches
        (&["-all", "c1"], Never, "--all -- c1 |"),
        (&["--a", "c1"], Never, "--all -- c1 |"),
        (&["--all=", "c1"], Never, "--all -- c1 |"),
        (&["--all=T", "c1"], Never, "--all -- c1 |"),
        (&["--all", "false"], Never, "--all -- false |"),
        (&["--all=false", "c1"], Never, "-- c1 |"),
        (&["--all=no", "c1"], Never, "-- c1 |"),
        (&["--all=yes", "c1"], Never, "--all -- c1 |"),
        (&["--all", "--all=0", "c1"], Never, "-- c1 |"),
        (&["--all=false", "c1", "-a"], Never, "--all -- c1 |"),
        // in any order, and global flags too; the command's own flag hides a global one of that name
        (&["c1", "--all", "-b", "X"], Never, "--all --bundle=X -- c1 |"),
        (&["c1", "--root", "X", "-debug"], Never, "-- c1 | --root=X --debug"),
        (&["--rootless", "c1"], Never, "--rootless -- c1 |"),
        // the end of flags
        (&["--", "--all", "c1"], Never, "-- --all c1 |"),
        (&["c1", "--", "-b"], Never, "-- c1 -b |"),
        (&["c1", "-9", "--all"], Never, "-- c1 -9 --all |"),
        (&["c1", "-", "--all"], Never, "-- c1 - --all |"),
        (&["c1", "-=", "--all"], Never, "-- c1 -= --all |"),
        // blanks
        (&[" c1\t", " --all "], Never, "--all -- c1 |"),
        (&["", "c1"], Never, "--  c1 |"),
        // names that are words of other parsers
        (&["h"], Never, "-- h |"),
        (&["help"], Never, "-- help |"),
        // behind the id nothing is a flag
        (&["-a", "c1", "9"], AfterId, "--all -- c1 9 |"),
        (&["c1", "KILL", "--all"], AfterId, "-- c1 KILL --all |"),
        (&["c1", "-9"], AfterId, "-- c1 -9 |"),
        (&["c1", "--", "9"], AfterId, "-- c1 9 |"),
        (&["--", "c1", "9"], AfterId, "-- c1 9 |"),
        (&["c1", "a", "--", "b"], AfterId, "-- c1 a -- b |"),
        (&["c1", " a ", "-b"], AfterId, "-- c1  a  -b |"),
        // what follows the command is left alone
        (&["--debug", "kill", "--", "-h"], AtCommand, "-- kill -- -h | --debug"),
        (&["--root", "kill", "kill", "--debug"], AtCommand, "-- kill --debug | --root=kill"),
        (&["--", "kill", "-a"], AtCommand, "-- kill -a |"),
        (&["", "kill"], AtCommand, "--  kill |"),
    ] {
        assert_eq!(sorted(words, stop).as_deref(), Ok(want), "{words:?} {stop:?}");
    }
}

#[test]
fn faults_are_said_in_the_words_that_callers_look_for() {
    for (words, want) in [
        (&["--nope"][..], "flag provided but not defined: -nope"),
        (&["-nope=1"], "flag provided but not defined: -nope"),
        (&["-ab"], "flag provided but not defined: -ab"),
        (&["--9"], "flag provided but not defined: -9"),
        (&["---all"], "flag provided but not defined: --all"),
        (&["--ID=x"], "flag provided but not defined: -ID"),
        (&["c1", "--bundle"], "flag needs an argument: --bundle"),
        (&["c1", "-b"], "flag needs an argument: -b"),
        (&["--all=maybe"], "--all: maybe is neither true nor false"),
    ] {
        assert_eq!(sorted(words, Stop::Never), Err(want.into()), "{words:?}");
    }
}

#[test]
fn words_need_not_be_utf8() {
    let words = [&b"--bundle=\xff"[..], b"\xfe"].map(|word| OsStr::from_bytes(word).to_owned());
    let split = split(words, [&own()], Stop::Never).unwrap();
    assert_eq!(
        canonical(&split.flags[0], split.positionals).join(OsStr::new(" ")).as_bytes(),
        b"--bundle=\xff -- \xfe"
    );
}

proptest! {
    #[test]
    fn clap_takes_everything_that_passes(words in prop::collection::vec("(--?)?(bundle|b|all|a|e|=|x| |9|é){0,2}", 0..6)) {
        let own = own().no_binary_name(true).args_override_self(true).disable_help_flag(true);
        if let Ok(split) = split(words.iter().map(OsString::from), [&own], Stop::Never) {
            let positionals: Vec<_> = split.positionals.into_iter().take(1).collect();
            let had = positionals.clone();
            let matches = own.try_get_matches_from(canonical(&split.flags[0], positionals));
            prop_assert!(matches.is_ok(), "{words:?}: {}", matches.unwrap_err());
            let id = matches.unwrap().get_raw("ID").map(|mut ids| ids.next().unwrap().to_owned());
            prop_assert_eq!(id, had.into_iter().next());
        }
    }
}
