//! Who the program is, what it may do, and what it finds around itself.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::json;

use crate::bundle::Bundle;
use crate::procfs::we_may_raise_limits;
use crate::runtime::{self, Output, on_rrun};

/// The fields of /proc/self/status as the program itself reads them.
#[track_caller]
fn status(bundle: &Bundle) -> BTreeMap<String, String> {
    let output = bundle.run();
    let fields = output.ok().lines().filter_map(|line| line.split_once(':'));
    fields.map(|(key, value)| (key.into(), value.trim().replace('\t', " "))).collect()
}

#[test]
fn user_and_groups_are_those_of_the_config() {
    let mut bundle = Bundle::new();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 70000]}));
    let status = status(&bundle);
    assert_eq!((status["Uid"].as_str(), status["Gid"].as_str()), ("1000 1000 1000 1000", "1001 1001 1001 1001"));
    assert_eq!(status["Groups"], "5 70000");
}

// CVE-2022-36109 and its kin: the groups of whoever runs the runtime are not the container's
#[test]
fn no_group_of_the_caller_is_handed_on() {
    let output = run_under(&["setpriv", "--groups", "10,20"], &Bundle::new());
    assert!(output.ok().contains("\nGroups:\t \n"), "{output}");
}

#[test]
fn umask_is_0022_unless_it_is_given() {
    let mut bundle = Bundle::new();
    assert_eq!(status(&bundle)["Umask"], "0022");
    bundle.set("/process/user/umask", 0o077);
    assert_eq!(status(&bundle)["Umask"], "0077");
}

#[test]
fn the_working_directory_is_entered_and_made_if_it_is_missing() {
    let mut bundle = Bundle::sh("pwd; stat -c %a .");
    bundle.set("/process/cwd", "/made/by/runtime");
    assert_eq!(bundle.run().ok(), "/made/by/runtime\n755\n");
}

#[test]
fn the_user_need_not_reach_the_working_directory() {
    use std::os::unix::fs::PermissionsExt;
    let mut bundle = Bundle::sh("ls . >/dev/null 2>&1 || echo in, not seen");
    std::fs::create_dir(bundle.rootfs("closed")).unwrap();
    std::fs::set_permissions(bundle.rootfs("closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000})).set("/process/cwd", "/closed");
    assert_eq!(bundle.run().ok(), "in, not seen\n");
}

#[test]
fn the_environment_is_that_of_the_config_in_its_order() {
    let mut bundle = Bundle::new();
    bundle.args(&["env"]).set("/process/env", json!(["PATH=/bin", "B=1", "A=x=y", "EMPTY=", "HOME=/h", "B=2"]));
    let mut command = bundle.command(&["run", &bundle.id]);
    let output = runtime::run(command.env("CALLER", "1"));
    if on_rrun() {
        assert_eq!(output.ok(), "PATH=/bin\nB=2\nA=x=y\nEMPTY=\nHOME=/h\n");
    } else {
        assert!(output.ok().contains("A=x=y\n") && !output.ok().contains("CALLER"), "{output}");
    }
}

#[test]
fn home_comes_from_the_images_passwd() {
    for (user, env, home) in [
        (json!({"uid": 0, "gid": 0}), json!(["PATH=/bin"]), "/root"),
        (json!({"uid": 1000, "gid": 7}), json!(["PATH=/bin"]), "/home/user"),
        (json!({"uid": 1000, "gid": 7}), json!(["PATH=/bin", "HOME=/given"]), "/given"),
        (json!({"uid": 4242, "gid": 7}), json!(["PATH=/bin"]), "/"),
    ] {
        let mut bundle = Bundle::sh("echo $HOME");
        bundle.set("/process/user", user.clone()).set("/process/env", env);
        assert_eq!(bundle.run().ok().trim_end(), home, "{user}");
    }
}

// CVE-2016-3697: a name in passwd that looks like a number is a name
#[test]
fn a_number_as_a_name_in_passwd_is_nobodys_uid() {
    let mut bundle = Bundle::sh("id -u; echo $HOME");
    bundle.image_file("etc/passwd", "1000:x:0:0::/wrong:/bin/sh\nuser:x:1000:1000::/right:/bin/sh\n");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    assert_eq!(bundle.run().ok(), "1000\n/right\n");
}

/// Bits of capabilities(7).
const CHOWN: u64 = 1;
const KILL: u64 = 1 << 5;
const NET_BIND_SERVICE: u64 = 1 << 10;
const SYS_TIME: u64 = 1 << 25;

fn capabilities(bundle: &Bundle) -> [u64; 5] {
    let status = status(bundle);
    ["CapBnd", "CapEff", "CapPrm", "CapInh", "CapAmb"].map(|set| u64::from_str_radix(&status[set], 16).unwrap())
}

#[test]
fn each_capability_set_is_as_given() {
    let mut bundle = Bundle::new();
    bundle.set(
        "/process/capabilities",
        json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SYS_TIME"],
            "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
            "effective": ["CAP_CHOWN", "CAP_NET_BIND_SERVICE"],
            "inheritable": ["CAP_NET_BIND_SERVICE"],
            "ambient": ["CAP_NET_BIND_SERVICE"],
        }),
    );
    // a user other than root: execve(2) would give root its whole bounding set
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let bounding = CHOWN | KILL | NET_BIND_SERVICE | SYS_TIME;
    let [bnd, eff, prm, inh, amb] = capabilities(&bundle);
    assert_eq!((bnd, inh, amb), (bounding, NET_BIND_SERVICE, NET_BIND_SERVICE));
    assert_eq!((eff, prm), (NET_BIND_SERVICE, NET_BIND_SERVICE), "what execve leaves of the sets is the ambient one");
}

#[test]
fn root_has_what_is_bounding_and_no_more() {
    let all = CHOWN | KILL | NET_BIND_SERVICE;
    assert_eq!(capabilities(&Bundle::new()), [all, all, all, 0, 0]);
}

#[test]
fn empty_sets_mean_no_capability_at_all() {
    let mut bundle = Bundle::new();
    let none = json!([]);
    bundle.set("/process/capabilities", json!({"bounding": none, "effective": none, "permitted": none}));
    assert_eq!(capabilities(&bundle), [0; 5]);
}

// spec: what the host does not have or know is left out with a warning; it must not stop the container
#[test]
fn an_unknown_capability_is_left_out() {
    need!(rrun);
    let mut bundle = Bundle::new();
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}/-"), "CAP_OF_THE_FUTURE");
    }
    assert_eq!(capabilities(&bundle)[..3], [CHOWN | KILL | NET_BIND_SERVICE; 3]);
    bundle.call(&["--log", "log", "run", &bundle.id]).ok();
    let log = std::fs::read_to_string(bundle.dir.join("log")).unwrap();
    assert!(log.contains("level=warning") && log.contains("CAP_OF_THE_FUTURE"), "{log}");
}

#[test]
fn rlimits_are_set_for_the_program() {
    let mut bundle = Bundle::sh("ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc; grep processes /proc/self/limits");
    bundle.set(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX},
            {"type": "RLIMIT_NPROC", "soft": 4321, "hard": 5432},
        ]),
    );
    // a user without rights, so that raising needs those of the runtime
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let output = bundle.run();
    let lines: Vec<_> = output.ok().lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["100", "200", "0", "unlimited", "Max processes 4321 5432 processes"]);
}

#[test]
fn a_tiny_limit_of_open_files_does_not_break_the_start() {
    need!(rrun); // runc opens more once the limit stands
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/self/limits"]);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 4, "hard": 4}]));
    let output = bundle.run();
    let line = output.ok().lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>()[3..5], ["4", "4"]);
}

#[test]
fn limits_that_leave_no_room_are_named() {
    need!(rrun);
    // a program dies of it before its first word
    for (kind, soft) in [("RLIMIT_AS", 0), ("RLIMIT_DATA", 0), ("RLIMIT_STACK", 4096)] {
        let mut bundle = Bundle::sh("ls /");
        bundle.set("/process/rlimits", json!([{"type": kind, "soft": soft, "hard": soft}]));
        let output = bundle.call(&["--debug", "run", &bundle.id]);
        assert_eq!(output.code, 139, "{output}");
        assert!(output.stderr.contains("process.rlimits[0].soft: ") && output.stderr.contains(kind), "{output}");
    }
    // init's last words go to a file
    let mut bundle = Bundle::new();
    let program = bundle.image_file("bad", "neither this nor that");
    std::fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    bundle.args(&["/bad"]);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_FSIZE", "soft": 0, "hard": 0}]));
    assert!(bundle.run().error().contains("RLIMIT_FSIZE of process.rlimits"), "{}", bundle.run());
    bundle.args(&["true"]).set("/hooks/startContainer", json!([{"path": "/bin/false"}]));
    assert!(bundle.run().error().contains("RLIMIT_FSIZE of process.rlimits"), "{}", bundle.run());
}

#[test]
fn no_new_privileges_is_set_only_when_asked_for() {
    let mut bundle = Bundle::new();
    assert_eq!(status(&bundle)["NoNewPrivs"], "1");
    bundle.set("/process/noNewPrivileges", false);
    assert_eq!(status(&bundle)["NoNewPrivs"], "0");
    bundle.unset("/process/noNewPrivileges");
    assert_eq!(status(&bundle)["NoNewPrivs"], "0");
}

#[test]
fn oom_score_adj_is_set_or_left_as_it_was() {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/self/oom_score_adj"]);
    assert_eq!(bundle.run().ok(), own);
    bundle.set("/process/oomScoreAdj", 321);
    assert_eq!(bundle.run().ok(), "321\n");
    // less than one's own takes a capability that root need not have, in a virtual machine for example
    bundle.set("/process/oomScoreAdj", -500);
    if we_may_raise_limits() {
        assert_eq!(bundle.run().ok(), "-500\n");
    } else {
        bundle.run().refused(&[if on_rrun() { "process.oomScoreAdj" } else { "oom_score_adj" }]);
    }
}

#[track_caller]
fn no_signal_is_ignored_or_blocked(output: &Output) {
    for line in output.ok().lines().filter(|line| line.starts_with("Sig") && !line.starts_with("SigQ")) {
        let (set, signals) = line.split_once(":\t").unwrap();
        assert_eq!(u64::from_str_radix(signals, 16).unwrap(), 0, "{set}: {signals}");
    }
}

// what a runtime changes for itself must not reach the program: Rust ignores SIGPIPE, for one
#[test]
fn the_program_starts_with_every_signal_as_it_should_be() {
    need!(rrun); // runc 1.1 hands real-time signals on
    no_signal_is_ignored_or_blocked(&Bundle::new().run());
}

#[test]
fn signals_that_the_caller_ignores_are_not_ignored_inside() {
    need!(rrun); // runc hands ignored signals on
    let bundle = Bundle::new();
    let output = run_under(&["env", "--ignore-signal=HUP,INT,CHLD,RTMIN+6", "--block-signal=TERM,USR1"], &bundle);
    no_signal_is_ignored_or_blocked(&output);
}

/// The program's output when the runtime is started by another command.
fn run_under(prefix: &[&str], bundle: &Bundle) -> Output {
    let runtime = bundle.command(&["run", &bundle.id]);
    let mut command = Command::new(prefix[0]);
    command.args(&prefix[1..]).arg(runtime.get_program()).args(runtime.get_args()).current_dir(&bundle.dir);
    runtime::run(&mut command)
}

#[test]
fn the_program_leads_a_session_of_its_own() {
    let status = status(&Bundle::new());
    for id in ["Pid", "NSpgid", "NSsid"] {
        assert_eq!(status[id], "1", "{id}");
    }
}

#[test]
fn a_program_with_a_slash_is_taken_as_it_is_and_another_from_path() {
    let mut bundle = Bundle::new();
    bundle.image_file("opt/mine", "#!/bin/sh\necho \"$0 $1\"\n");
    bundle.image_file("sub/mine", "#!/bin/sh\necho in sub\n");
    for (program, path, cwd, said) in [
        ("/opt/mine", "/bin", "/", "/opt/mine arg\n"),
        ("mine", "/nowhere:/opt:/sub", "/", "/opt/mine arg\n"),
        ("./mine", "/bin", "/sub", "in sub\n"),
        ("sub/mine", "/bin", "/", "in sub\n"),
    ] {
        bundle.args(&[program, "arg"]).set("/process/env", json!([format!("PATH={path}")])).set("/process/cwd", cwd);
        assert_eq!(bundle.run().ok(), said, "{program}");
    }
}

#[test]
fn without_a_path_nothing_is_found_not_even_in_the_working_directory() {
    for env in [json!([]), json!(["PATH="])] {
        let mut bundle = Bundle::new();
        bundle.args(&["true"]).set("/process/env", env).set("/process/cwd", "/bin");
        bundle.create().refused(&["executable file not found in $PATH"]);
        bundle.leaves_nothing();
    }
}

// execve(2) takes the interpreter of a script from the working directory too
#[test]
fn a_relative_interpreter_is_looked_for_from_the_working_directory() {
    let mut bundle = Bundle::new();
    bundle.image_file("opt/mine", "#!busybox sh\nexit 7\n");
    let copy = || std::fs::copy(bundle.rootfs("bin/busybox"), bundle.rootfs("opt/busybox"));
    crate::runtime::write_program(copy).unwrap();
    bundle.args(&["./mine"]).set("/process/cwd", "/opt");
    assert_eq!(bundle.run().code, 7);
}

#[test]
fn arguments_arrive_as_they_are() {
    let mut bundle = Bundle::new();
    bundle.args(&["printf", "[%s]", "a b", "", "\"'$x\\", "--root", "-", "ü\n"]);
    assert_eq!(bundle.run().ok(), "[a b][][\"'$x\\][--root][-][ü\n]");
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/keys"]);
    let keys = bundle.run();
    assert!(keys.ok().contains(&format!("keyring   _ses.{}", bundle.id)), "{keys}");
    // another one: a keyring stays a while after its last process
    let mut bundle = Bundle::new();
    bundle.args(&["cat", "/proc/keys"]);
    let keys = bundle.call(&["run", "--no-new-keyring", &bundle.id]);
    assert!(!keys.ok().contains(&bundle.id), "{keys}");
}

// a shim that is pinned to one CPU pins itself, not its containers
#[test]
fn the_callers_cpu_affinity_is_not_handed_on() {
    need!(rrun); // runc does since 1.2
    let all = std::thread::available_parallelism().unwrap().get();
    if all < 2 {
        return crate::need::skip("two CPUs");
    }
    let output = run_under(&["taskset", "-c", "0"], &Bundle::new());
    let list = output.ok().lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap();
    assert_ne!(list, "0");
}

#[test]
fn a_limit_of_no_descriptors_is_kept() {
    need!(rrun); // runc needs some itself
    let mut bundle = Bundle::sh("ulimit -n");
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 0, "hard": 0}]));
    assert_eq!(bundle.run().ok(), "0\n");
}
