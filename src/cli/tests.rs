use super::*;
use std::collections::BTreeSet;

use crate::lifecycle::Place;
use crate::plan::exec::User;
use crate::plan::sub_cgroups::SubCgroups;
use crate::plan::unit::CgroupManager;

fn parse(line: &str) -> Result<Request, Misuse> {
    super::parse(line.split(' ').filter(|word| !word.is_empty()).map(|word| OsString::from(word.replace("''", ""))))
}

fn call(line: &str) -> Call {
    match parse(line) {
        Ok(Request::Call(call)) => call,
        Ok(Request::Print(text)) => panic!("{line}: printed {text}"),
        Err(misuse) => panic!("{line}: {}", misuse.line),
    }
}

#[test]
fn every_command_is_sound() {
    let mut names = BTreeSet::from(["help", "h"]);
    for verb in VERBS {
        assert!(names.insert(verb.name), "{} is listed twice", verb.name);
        verb.command().debug_assert(); // no name or short flag twice, among others
        let help = help::of(verb.command());
        assert!(help.starts_with(&format!("NAME:\n   rrun {} - {}\n", verb.name, verb.about)), "{help}");
        assert!(help.contains(&format!("Usage: rrun {}", verb.name)), "{help}");
        for arg in verb.command().get_arguments().filter(|arg| !arg.is_hide_set()) {
            let shown = arg.get_long().map_or_else(|| format!("{}]", arg.get_id()), |long| format!("--{long}"));
            assert!(help.contains(shown.trim_end_matches(']')), "{}: {shown} is not in its help", verb.name);
        }
        assert!(help::overview().contains(verb.about), "{} is not in the overview", verb.name);
    }
    global::command().debug_assert();
}

#[test]
fn every_command_can_be_called_and_reads_only_flags_that_it_has() {
    for verb in VERBS {
        let required = verb.command().get_positionals().filter(|arg| arg.is_required_set()).count();
        let line = format!("{} {}", verb.name, "c1 ".repeat(required));
        assert_eq!(call(&line).verb.name, verb.name);
    }
    let call = call("run -b /b -f x.json -c /s -p /p --no-pivot -d --keep --no-subreaper c1");
    let options = create::options(&call).unwrap();
    assert_eq!((options.id.as_str(), options.bundle.to_str(), options.no_pivot), ("c1", Some("/b"), true));
    assert_eq!(options.config, Some(std::env::current_dir().unwrap().join("x.json")));
    assert_eq!((options.console_socket, options.pid_file), (Some("/s".into()), Some("/p".into())));
    assert!(call.is_on("detach") && call.is_on("keep") && call.is_on("no-subreaper"));
}

#[test]
fn what_follows_the_id_of_ps_is_for_the_hosts_ps() {
    for (line, format, options) in [
        ("ps c1", None, &[][..]),
        ("ps -f json c1", Some("json"), &[]),
        (
            "--debug ps -format=table c1 -e -o pid,comm --format x",
            Some("table"),
            &["-e", "-o", "pid,comm", "--format", "x"],
        ),
        ("ps c1 aux", None, &["aux"]),
        ("ps c1 -- -o pid -- x", None, &["-o", "pid", "--", "x"]),
        ("ps c1 '' -h", None, &["", "-h"]),
    ] {
        let call = call(line);
        assert_eq!((call.id().as_str(), call.text("format").as_deref()), ("c1", format), "{line}");
        assert_eq!(call.words("OPTIONS"), options, "{line}");
    }
}

#[test]
fn what_follows_the_id_of_exec_is_for_the_process() {
    for (line, words) in [
        ("exec c1 sh -c x --user 7 -t", &["sh", "-c", "x", "--user", "7", "-t"][..]),
        ("exec -u 5 c1 -- sh -- -x", &["sh", "--", "-x"]),
        ("exec c1 '' x", &["", "x"]),
        ("exec c1", &[]),
        ("exec c1 --help", &["--help"]),
    ] {
        let options = exec::options(&call(line)).unwrap();
        assert_eq!(
            (options.id.as_str(), options.flags.args),
            ("c1", words.iter().map(|word| word.to_string()).collect()),
            "{line}"
        );
    }
}

#[test]
fn every_flag_of_exec_is_read() {
    let line = "exec -e A=1,2 --env=B= -e A=3 -u 7:8 -g 9 --additional-gids 10 -c CAP_KILL --cap=CAP_CHOWN --cwd /d -t -d \
                --no-new-privs --pid-file /p --console-socket /s --pidfd-socket /f -p /x.json --ignore-paused \
                --apparmor P --process-label L --cgroup cpu:a --cgroup pids:b c1";
    let options = exec::options(&call(line)).unwrap();
    let flags = &options.flags;
    assert_eq!(flags.env, ["A=1,2", "B=", "A=3"], "a comma is part of a value");
    assert_eq!(flags.user, Some(User { uid: 7, gid: Some(8) }));
    assert_eq!((flags.additional_gids.as_slice(), flags.capabilities.len()), (&[9, 10][..], 2));
    assert!(flags.terminal && flags.no_new_privileges && options.ignore_paused);
    assert_eq!((flags.cwd.as_deref(), flags.apparmor_profile.as_deref()), (Some("/d"), Some("P")));
    assert_eq!((flags.selinux_label.as_deref(), options.place), (Some("L"), Place::Detached));
    assert_eq!(options.sub_cgroups, SubCgroups::parse(["cpu:a", "pids:b"]).unwrap());
    let paths = [options.process, options.pid_file, options.console_socket, options.pidfd_socket];
    assert_eq!(paths, ["/x.json", "/p", "/s", "/f"].map(|path| Some(PathBuf::from(path))));
    let absent = exec::options(&call("exec --cwd= --pid-file= --console-socket '' --tty=false -p '' c1 sh")).unwrap();
    assert_eq!((absent.flags.cwd, absent.pid_file, absent.process, absent.flags.terminal), (None, None, None, false));
}

#[test]
fn absent_and_empty_options_are_the_same() {
    for line in ["create c1", "create --bundle= --config '' --console-socket= --pid-file '' --pidfd-socket= c1"] {
        let options = create::options(&call(line)).unwrap();
        assert_eq!(options.bundle, std::env::current_dir().unwrap(), "{line}");
        let sockets = (options.console_socket, options.pidfd_socket);
        assert_eq!((options.config, sockets, options.pid_file), (None, (None, None), None), "{line}");
    }
    let usual = create::options(&call("create --config config.json --detach --no-subreaper c1")).unwrap();
    assert_eq!(usual.config, None, "the usual name is the bundle's");
    assert!(!usual.no_new_keyring && create::options(&call("run --no-new-keyring c1")).unwrap().no_new_keyring);
}

#[test]
fn errors_begin_with_the_command_and_the_container() {
    for (line, want) in [
        ("create c1", "create c1"),
        ("--root /r kill c1 9", "kill c1"),
        ("state h", "state h"),
        ("state help", "state help"),
        ("state -- -x", "state -x"),
        ("state ''", "state"),
        ("list", "list"),
        ("exec c1 sh", "exec failed: c1"),
        ("exec ''", "exec failed"),
        ("plan /b", "plan"),
    ] {
        assert_eq!(call(line).title(), want, "{line}");
    }
}

#[test]
fn misuse_is_said_in_one_line() {
    for (line, want, status) in [
        ("foo", "rrun: unknown command foo; see rrun --help", 3),
        ("foo -h", "rrun: unknown command foo: No help topic for 'foo'; see rrun --help", 3),
        ("foo --help", "rrun: unknown command foo: No help topic for 'foo'; see rrun --help", 3),
        ("foo x -h", "rrun: unknown command foo; see rrun --help", 3),
        ("fo\no", "rrun: unknown command fo o; see rrun --help", 3),
        ("mounts --help", "rrun: this version has no command mounts yet; see rrun --help", 3),
        ("checkpoint", "rrun: \"checkpoint\" requires exactly 1 argument(s), not 0; see rrun checkpoint --help", 1),
        // how podman and CRI-O find out that a label can be given
        (
            "restore --lsm-mount-context",
            "restore: flag needs an argument: --lsm-mount-context; see rrun restore --help",
            1,
        ),
        ("help foo", "rrun: no help on foo; see rrun --help", 3),
        ("--foo state c1", "rrun: flag provided but not defined: -foo; see rrun --help", 1),
        ("--root", "rrun: flag needs an argument: --root; see rrun --help", 1),
        ("state -td c1", "state: flag provided but not defined: -td; see rrun state --help", 1),
        ("state c1 --version", "state: flag provided but not defined: -version; see rrun state --help", 1),
        ("create c1 --bundle", "create: flag needs an argument: --bundle; see rrun create --help", 1),
        ("create c1 --root", "create: flag needs an argument: --root; see rrun --help", 1),
        ("state", "rrun: \"state\" requires exactly 1 argument(s), not 0; see rrun state --help", 1),
        ("state a b", "rrun: \"state\" requires exactly 1 argument(s), not 2; see rrun state --help", 1),
        ("kill", "rrun: \"kill\" requires a minimum of 1 argument(s), not 0; see rrun kill --help", 1),
        ("kill c1 KILL --all", "rrun: \"kill\" requires a maximum of 2 argument(s), not 3; see rrun kill --help", 1),
        ("pause", "rrun: \"pause\" requires exactly 1 argument(s), not 0; see rrun pause --help", 1),
        ("resume a b", "rrun: \"resume\" requires exactly 1 argument(s), not 2; see rrun resume --help", 1),
        ("ps", "rrun: \"ps\" requires a minimum of 1 argument(s), not 0; see rrun ps --help", 1),
        ("exec", "rrun: \"exec\" requires a minimum of 1 argument(s), not 0; see rrun exec --help", 1),
        ("exec -td c1 sh", "exec: flag provided but not defined: -td; see rrun exec --help", 1),
        (
            "exec -u 1000: c1 sh",
            "exec: invalid value '1000:' for '--user <UID[:GID]>': an empty word is no id; write a number from 0 to 4294967294; see rrun exec --help",
            1,
        ),
        (
            "exec -g -1 c1 sh",
            "exec: invalid value '-1' for '--additional-gids <GID>': -1 is no id; write a number from 0 to 4294967294; see rrun exec --help",
            1,
        ),
        ("features x", "rrun: \"features\" requires exactly 0 argument(s), not 1; see rrun features --help", 1),
        ("--log-format xml state c1", "state: invalid log-format: xml; see rrun --help", 1),
        (
            "list --log journald:x",
            "list: --log: journald:x: rrun writes to files alone; give a path; see rrun --help",
            1,
        ),
        ("state c1 --debug=maybe", "state: --debug: maybe is neither true nor false; see rrun --help", 1),
        (
            "create --preserve-fds=x c1",
            "create: invalid value 'x' for '--preserve-fds <N>': invalid digit found in string; see rrun create --help",
            1,
        ),
    ] {
        let misuse = Misuse { line: want.into(), status };
        assert_eq!(parse(line).map(|_| ()), Err(misuse), "{line}");
    }
}

#[test]
fn who_makes_cgroups() {
    use CgroupManager::{Cgroupfs, Disabled, Systemd};
    for (line, want) in [
        ("create c1", Cgroupfs),
        ("--systemd-cgroup run c1", Systemd),
        ("run -s c1", Systemd),
        ("--systemd-cgroup create --systemd-cgroup=false c1", Cgroupfs),
        ("--cgroup-manager systemd create c1", Systemd),
        ("--cgroup-manager cgroupfs create c1", Cgroupfs),
        ("create --cgroup-manager=disabled c1", Disabled),
        ("--systemd-cgroup --cgroup-manager disabled create c1", Disabled),
        ("create --preserve-fds 0 --no-new-keyring=false c1", Cgroupfs),
        ("--rootless=false --criu /x create c1", Cgroupfs),
    ] {
        assert_eq!(create::options(&call(line)).unwrap().cgroup_manager, want, "{line}");
    }
    // Callers add these to every command; they only matter where a container is made.
    assert_eq!(call("--systemd-cgroup --cgroup-manager systemd delete --force c1").verb.name, "delete");
}

#[test]
fn global_flags_stand_before_and_after_the_command() {
    for line in
        ["--root /r -log-format json state c1", "state --root /r c1 -log-format=json", "-r /r state c1 --root=/r"]
    {
        assert_eq!(call(line).global.root().unwrap().path, PathBuf::from("/r"), "{line}");
    }
    assert_eq!(call("--root /a state c1 --root /b").global.root().unwrap().path, PathBuf::from("/b"));
    let spec = call("--rootless=false spec --rootless");
    assert!(spec.is_on("rootless"), "the command's own flag");
    let kill = call("kill -r c1");
    assert!(kill.is_on("regex"), "-r is --root elsewhere");
    let error = call("--root /../ list").global.root().err().unwrap();
    assert!(error.to_string().starts_with("--root: / "), "{error}");
}

#[test]
fn help_and_version_come_first() {
    let printed = |line: &str| match parse(line) {
        Ok(Request::Print(text)) => text,
        _ => panic!("{line} prints nothing"),
    };
    for line in ["", "--help", "-h", "help", "h", "--debug", "--help state", "-h foo"] {
        assert_eq!(printed(line), help::overview(), "{line}");
    }
    for line in ["state --help", "state -h c1 c2", "help state"] {
        assert!(printed(line).contains("Usage: rrun state <ID>"), "{line}: {}", printed(line));
    }
    for line in ["--version", "-v", "-V", "-version", "--version state c1"] {
        assert_eq!(printed(line), help::version(), "{line}");
    }
    assert!(printed("").lines().all(|line| line.chars().count() <= 120), "{}", printed(""));
}
