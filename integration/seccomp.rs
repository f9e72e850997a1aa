//! linux.seccomp in containers that run: what a filter does to calls, where it is loaded, who gets its listener.
//! What profiles mean is compared with libseccomp by `make seccomp`.

use std::fs;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread::JoinHandle;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::mapped::mapped;
use crate::runtime;

/// A static program that makes the calls that it is told, compiled once.
fn calls() -> &'static Path {
    static CALLS: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = CALLS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/seccomp/calls.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-static", "-nostdlib", "-fno-stack-protector", "-fno-builtin", "-o"]);
        let compiled = compiler.arg(&path).arg(source).status();
        assert!(compiled.is_ok_and(|status| status.success()), "{compiler:?}");
        (dir, path)
    });
    path
}

/// A container that makes calls: see calls.c.
fn calling(words: &str) -> Bundle {
    let mut bundle = Bundle::new();
    bundle.image_file("bin/calls", fs::read(calls()).unwrap());
    let words: Vec<&str> = ["/bin/calls"].into_iter().chain(words.split(' ')).collect();
    bundle.args(&words);
    bundle
}

fn rule(names: &[&str], action: &str) -> Value {
    json!({"names": names, "action": action})
}

/// Profiles as managers write them.
fn real(manager: &str) -> Value {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/plans/{manager}.config.json"));
    let config: Value = serde_json::from_slice(&fs::read(config).unwrap()).unwrap();
    config["linux"]["seccomp"].clone()
}

/// 128 + SIGSYS
const KILLED: i32 = 159;

#[test]
fn each_action_does_what_it_says() {
    need!(c_compiler, x86_64);
    for (action, errno, want) in [
        ("SCMP_ACT_ERRNO", None, Ok("-1\n")),
        ("SCMP_ACT_ERRNO", Some(0), Ok("0\n")),
        ("SCMP_ACT_ERRNO", Some(38), Ok("-38\n")),
        ("SCMP_ACT_ERRNO", Some(4095), Ok("-4095\n")),
        ("SCMP_ACT_TRACE", None, Ok("-38\n")),
        ("SCMP_ACT_LOG", None, Ok("1\n")),
        ("SCMP_ACT_ALLOW", None, Ok("1\n")),
        ("SCMP_ACT_TRAP", None, Err(KILLED)),
        ("SCMP_ACT_KILL", None, Err(KILLED)),
        ("SCMP_ACT_KILL_THREAD", None, Err(KILLED)),
        ("SCMP_ACT_KILL_PROCESS", None, Err(KILLED)),
    ] {
        for no_new_privileges in [true, false] {
            if errno == Some(4095) && !runtime::on_rrun() {
                continue; // libseccomp takes less than the kernel
            }
            let mut rule = rule(&["getpgid"], action);
            if let Some(errno) = errno {
                rule["errnoRet"] = errno.into();
            }
            let mut bundle = calling("64 121 1");
            bundle.set("/process/noNewPrivileges", no_new_privileges);
            let default = if action == "SCMP_ACT_ALLOW" { "SCMP_ACT_LOG" } else { "SCMP_ACT_ALLOW" };
            bundle.set("/linux/seccomp", json!({"defaultAction": default, "syscalls": [rule]}));
            let output = bundle.run();
            match want {
                Ok(printed) => assert_eq!(output.ok(), printed, "{action} {errno:?}"),
                Err(code) => assert_eq!(output.code, code, "{action}: {output}"),
            }
        }
    }
}

#[test]
fn arguments_are_compared_whole() {
    need!(c_compiler, x86_64);
    let rule = |name: &str, errno: u32, argument: Value| json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": [argument]});
    let masked = json!({"index": 0, "value": 0x7E02_0000_u64, "valueTwo": 0x1000_0000, "op": "SCMP_CMP_MASKED_EQ"});
    let high = json!({"index": 1, "value": 0x1_0000_0005_u64, "op": "SCMP_CMP_EQ"});
    let rules = json!([rule("personality", 9, masked), rule("getpgid", 7, high)]);
    // 135 is personality, 121 getpgid
    let mut bundle = calling("64 135 0 , 64 135 0x10000011 , 64 135 0x12000000 , 64 121 0 0x100000005 , 64 121 -1 5");
    bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
    assert_eq!(bundle.run().ok(), "0\n-9\n0\n-7\n-3\n");
}

#[test]
fn other_architectures_and_newer_calls() {
    need!(rrun, c_compiler, x86_64); // peers make other calls under their filters
    let rules = json!([rule(&["read", "write", "execve", "exit_group", "openat2"], "SCMP_ACT_ALLOW"),
        {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]);
    for (architectures, words, want) in [
        (json!(["SCMP_ARCH_X86"]), "32 20", Ok("-7\n")),
        (json!(["SCMP_ARCH_X86"]), "32 9999", Ok("-38\n")),
        // getuid, older than the newest that is named
        (json!(["SCMP_ARCH_X86"]), "32 24", Ok("-1\n")),
        (json!(["SCMP_ARCH_X86_64"]), "32 20", Err(KILLED)),
        (json!([]), "32 20", Err(KILLED)),
        (json!(["SCMP_ARCH_X32"]), "64 0x40000027", Ok("-7\n")),
        (json!([]), "64 0x40000027", Err(KILLED)),
        (json!([]), "64 39 , 64 102 , 64 9999", Ok("-7\n-1\n-38\n")),
    ] {
        let mut bundle = calling(words);
        bundle.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": architectures, "syscalls": rules}),
        );
        let output = bundle.run();
        match want {
            Ok(printed) => assert_eq!(output.ok(), printed, "{words} with {architectures}"),
            Err(code) => assert_eq!(output.code, code, "{words} with {architectures}: {output}"),
        }
    }
}

#[test]
fn profiles_of_managers_run_programs() {
    for manager in ["docker-plain", "ctr-seccomp", "podman-plain"] {
        for (no_new_privileges, uid, in_user_namespace) in
            [(false, 0, false), (false, 1000, false), (true, 0, false), (true, 1000, false), (false, 1000, true)]
        {
            let mut bundle =
                Bundle::sh("grep Seccomp: /proc/self/status; mount -t tmpfs t /tmp 2>/dev/null || echo no mount");
            if in_user_namespace {
                bundle = mapped(bundle);
            }
            bundle.set("/process/noNewPrivileges", no_new_privileges).set("/process/user/uid", uid);
            bundle.set("/linux/seccomp", real(manager));
            assert_eq!(bundle.run().ok(), "Seccomp:\t2\nno mount\n", "{manager} {no_new_privileges} {uid}");
        }
    }
}

#[test]
fn a_profile_need_allow_no_more_than_what_is_needed() {
    need!(rrun, c_compiler, x86_64); // peers make other calls under their filters
    let profile =
        |names: &[&str]| json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [rule(names, "SCMP_ACT_ALLOW")]});
    let least = ["read", "execve", "exit_group"];
    let mut bundle = calling("quiet 231 3");
    bundle.set("/linux/seccomp", profile(&least));
    assert_eq!(bundle.run().code, 3, "with no_new_privileges");

    bundle.set("/process/noNewPrivileges", false);
    bundle.create().refused(&["linux.seccomp: prctl gets SCMP_ACT_KILL_PROCESS", "process.noNewPrivileges"]);
    bundle.leaves_nothing();

    let with_privileges = [&least[..], &["prctl", "setgroups", "setresgid", "setresuid", "capset"]].concat();
    bundle.set("/process/user/uid", 1000).set("/process/capabilities/ambient", json!(["CAP_KILL"]));
    bundle
        .set("/process/capabilities/inheritable", json!(["CAP_KILL"]))
        .set("/linux/seccomp", profile(&with_privileges));
    let output = bundle.run();
    assert_eq!(output.code, 3, "without no_new_privileges: {output}");

    bundle.set("/process/noNewPrivileges", true).set("/linux/seccomp", profile(&least));
    bundle.set("/hooks/startContainer", json!([{"path": "/bin/true"}]));
    bundle.create().refused(&["linux.seccomp: rt_sigaction gets SCMP_ACT_KILL_PROCESS", "hooks.startContainer"]);
    bundle.leaves_nothing();
}

/// With what the refusals name allowed, one after another, nothing is left that ends init or a hook.
#[test]
fn refusals_name_all_that_is_needed() {
    need!(rrun, c_compiler, x86_64); // peers make other calls under their filters
    for (no_new_privileges, hooks) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut bundle = calling("quiet 231 3");
        bundle.set("/process/noNewPrivileges", no_new_privileges);
        if hooks {
            let hook = json!({"path": "/bin/calls", "args": ["calls", "quiet", "231", "0"]});
            bundle.set("/hooks/startContainer", json!([hook]));
        }
        // the second is newer than all that is needed: what is missing is killed, not unknown
        let mut names = vec!["exit_group".to_string(), "cachestat".to_string()];
        loop {
            let allowed = json!({"names": names, "action": "SCMP_ACT_ALLOW"});
            let profile = json!({"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [allowed]});
            bundle.set("/linux/seccomp", profile);
            let output = bundle.run();
            if output.code == 3 {
                break;
            }
            let told = output.stderr.split("linux.seccomp: ").nth(1).and_then(|rest| rest.split(" gets ").next());
            let name = told.unwrap_or_else(|| panic!("{no_new_privileges} {hooks} {names:?}: {output}")).to_string();
            assert!(!names.contains(&name), "{name} is allowed: {output}");
            names.push(name);
            bundle.leaves_nothing();
        }
    }
}

#[test]
fn hooks_of_start_run_under_the_filter() {
    let mut bundle = Bundle::sh("true");
    bundle.set("/linux/seccomp", real("docker-plain"));
    bundle.set(
        "/hooks/startContainer",
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "grep Seccomp: /proc/self/status >/tmp/hook"]}]),
    );
    bundle.run().ok();
    assert_eq!(fs::read_to_string(bundle.rootfs("tmp/hook")).unwrap(), "Seccomp:\t2\n");
}

#[test]
fn bad_profiles_are_refused_before_anything_is_made() {
    need!(rrun); // peers run many of these
    let argument = |argument: Value| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["read"], "action": "SCMP_ACT_LOG", "args": [argument]}]})
    };
    for (profile, words) in [
        (json!({"defaultAction": "ALLOW"}), "linux.seccomp.defaultAction: ALLOW is no action"),
        (
            argument(json!({"index": 6, "value": 0, "op": "SCMP_CMP_EQ"})),
            "linux.seccomp.syscalls[0].args[0].index: 6 is above 5",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}]}),
            "linux.seccomp: execve gets SCMP_ACT_KILL_PROCESS",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/no/agent"}),
            "linux.seccomp.listenerPath: failed to connect with seccomp agent: connect /no/agent",
        ),
    ] {
        let mut bundle = Bundle::new();
        bundle.set("/linux/seccomp", profile);
        bundle.create().refused(&[words]);
        bundle.leaves_nothing();
    }
}

#[test]
fn exec_runs_under_the_containers_filter() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/seccomp", real("docker-plain"));
    bundle.run_detached().ok();
    let output = bundle.call(&["exec", &bundle.id, "grep", "Seccomp:", "/proc/self/status"]);
    assert_eq!(output.ok(), "Seccomp:\t2\n");
}

/// Answers one question of each process that it gets a listener of.
pub struct Agent {
    thread: JoinHandle<Vec<Value>>,
}

impl Agent {
    /// Its answer is what the calls give: an errno if it is negative.
    pub fn new(path: &Path, processes: usize, value: i64) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let thread = std::thread::spawn(move || {
            let mut messages = Vec::new();
            for _ in 0..processes {
                let (connection, _) = listener.accept().unwrap();
                let (message, notify) = receive(connection);
                messages.push(message);
                answer(&notify, value);
            }
            messages
        });
        Self { thread }
    }

    /// What it was told, when all is answered.
    pub fn messages(self) -> Vec<Value> {
        self.thread.join().unwrap()
    }
}

/// One message with one descriptor, and the end.
fn receive(mut connection: UnixStream) -> (Value, OwnedFd) {
    let (mut bytes, mut space) = (vec![0; 65536], nix::cmsg_space!([RawFd; 1]));
    let (length, fd) = {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let message = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()).unwrap();
        let fd = message.cmsgs().unwrap().find_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds[0]),
            _ => None,
        });
        (message.bytes, fd.expect("a descriptor"))
    };
    bytes.truncate(length);
    assert_eq!(connection.read(&mut [0]).unwrap(), 0, "nothing follows");
    // SAFETY: it has just come.
    #[allow(unsafe_code)]
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    (serde_json::from_slice(&bytes).unwrap(), fd)
}

/// SECCOMP_IOCTL_NOTIF_RECV and _SEND: seccomp_unotify(2).
fn answer(notify: &OwnedFd, value: i64) {
    let question = next_question(notify).unwrap();
    // id, val, error and flags
    let answer = match value {
        0.. => [question[0], value as u64, 0],
        _ => [question[0], 0, u64::from(value as u32)],
    };
    reply(notify, &answer).unwrap();
}

/// Has the kernel make every call it is asked about, until nobody is left to ask; their numbers, in order.
fn answer_all(notify: &OwnedFd) -> Vec<i64> {
    const CONTINUE: u64 = 1 << 32;
    let mut calls = Vec::new();
    // ENOENT: who asked has been killed, or no one with this filter is left
    while let Ok(question) = next_question(notify) {
        calls.push((question[2] as u32).into());
        let _ = reply(notify, &[question[0], 0, CONTINUE]);
    }
    calls
}

fn next_question(notify: &OwnedFd) -> std::io::Result<[u64; 10]> {
    let mut question = [0_u64; 10];
    #[allow(unsafe_code)]
    // SAFETY: struct seccomp_notif has 80 bytes.
    let asked = unsafe { libc::ioctl(notify.as_raw_fd(), 0xC050_2100_u32 as _, question.as_mut_ptr()) };
    if asked == 0 { Ok(question) } else { Err(std::io::Error::last_os_error()) }
}

fn reply(notify: &OwnedFd, answer: &[u64; 3]) -> std::io::Result<()> {
    #[allow(unsafe_code)]
    // SAFETY: struct seccomp_notif_resp has 24 bytes.
    let told = unsafe { libc::ioctl(notify.as_raw_fd(), 0xC018_2101_u32 as _, answer.as_ptr()) };
    if told == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// config-linux.md, "containerProcessState"
#[test]
fn a_listener_is_handed_to_the_agent() {
    need!(c_compiler, x86_64);
    for (no_new_privileges, in_user_namespace) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut bundle = calling("64 121");
        if in_user_namespace {
            bundle = mapped(bundle);
        }
        // rrun itself makes no call that it leaves to an agent
        let names = if runtime::on_rrun() { &["getpgid", "sendmsg", "close"][..] } else { &["getpgid"] };
        let path = bundle.dir.join("agent");
        let agent = Agent::new(&path, 1, 7);
        bundle.set("/process/noNewPrivileges", no_new_privileges).set("/annotations/a", "b");
        bundle.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
            "listenerMetadata": "of the test", "syscalls": [rule(names, "SCMP_ACT_NOTIFY")]}),
        );
        bundle.create().ok();
        let pid = bundle.pid();
        let log = bundle.start();
        log.ok();
        let messages = agent.messages();
        bundle.wait_until("stopped");
        let [message] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!((&message["pid"], &message["metadata"]), (&json!(pid), &json!("of the test")));
        let state = &message["state"];
        assert_eq!(
            (&state["status"], &state["id"], &state["pid"]),
            (&json!("creating"), &json!(bundle.id), &json!(pid))
        );
        assert_eq!((&state["bundle"], &state["annotations"]["a"]), (&json!(bundle.dir), &json!("b")));
        assert!(message["ociVersion"].is_string() && state["ociVersion"].is_string(), "{message}");
    }
}

// what init calls before it is ready, and to start the program
#[test]
fn an_agent_may_be_asked_about_the_start_itself() {
    need!(rrun, x86_64); // runc 1.1 waits for ever
    const READ: i64 = 0;
    const EXECVE: i64 = 59;
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::sleeping();
        let path = bundle.dir.join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let agent = std::thread::spawn(move || {
            let [container, exec] = [(); 2].map(|()| {
                let (_, notify) = receive(listener.accept().unwrap().0);
                std::thread::spawn(move || answer_all(&notify))
            });
            [container, exec].map(|thread| thread.join().unwrap())
        });
        let names = ["read", "execve", "openat", "open", "close", "fcntl"];
        bundle.set("/process/noNewPrivileges", no_new_privileges);
        bundle.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [rule(&names, "SCMP_ACT_NOTIFY")]}),
        );
        bundle.run_detached().ok();
        assert_eq!(bundle.status(), "running");
        assert_eq!(bundle.call(&["exec", &bundle.id, "echo", "ran"]).ok(), "ran\n");
        bundle.call(&["delete", "--force", &bundle.id]).ok();
        for asked in agent.join().unwrap() {
            let first = |number| asked.iter().position(|call| *call == number);
            let (read, execve) = (first(READ), first(EXECVE));
            assert!(read.is_some() && read < execve, "{no_new_privileges}: {asked:?}");
        }
    }
}

#[test]
fn debugging_says_which_flags_the_filter_gets() {
    need!(rrun);
    for (flags, number) in [(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]), 2), (json!(null), 4)] {
        let mut bundle = Bundle::sh("true");
        let rules = [rule(&["mkdir"], "SCMP_ACT_ERRNO")];
        bundle.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "flags": flags}));
        let said = bundle.call(&["--debug", "run", &bundle.id]);
        let line = format!(" level=debug msg=\"seccomp filter flags: {number}\"");
        assert!(said.stderr.contains(&line), "{said}");
    }
}

#[test]
fn exec_has_a_listener_of_its_own() {
    need!(rrun, c_compiler, x86_64); // runc 1.1 never sends that of exec
    let mut bundle = Bundle::sleeping();
    bundle.image_file("bin/calls", fs::read(calls()).unwrap());
    let path = bundle.dir.join("agent");
    let listener = UnixListener::bind(&path).unwrap();
    let agent = std::thread::spawn(move || {
        let container = receive(listener.accept().unwrap().0);
        let (message, notify) = receive(listener.accept().unwrap().0);
        answer(&notify, 7);
        drop(container);
        message
    });
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
        "syscalls": [rule(&["getpgid"], "SCMP_ACT_NOTIFY")]}),
    );
    bundle.run_detached().ok();
    assert_eq!(bundle.call(&["exec", &bundle.id, "/bin/calls", "64", "121"]).ok(), "7\n");
    let message = agent.join().unwrap();
    assert_eq!((&message["state"]["status"], &message["state"]["pid"]), (&json!("running"), &json!(bundle.pid())));
    assert_ne!(message["pid"], message["state"]["pid"]);
}

#[test]
fn the_plan_shows_the_filter() {
    need!(rrun);
    let mut bundle = Bundle::new();
    bundle.set(
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule(&["read", "execve", "getpid"], "SCMP_ACT_ALLOW")]}),
    );
    bundle.set("/process/noNewPrivileges", true);
    let text = bundle.call(&["plan", "--seccomp", bundle.dir.to_str().unwrap()]);
    for word in ["load architecture", "SCMP_ARCH_X86_64", "load number", "; getpid", "ret  SCMP_ACT_ERRNO 38"] {
        assert!(text.ok().contains(word), "no {word}: {text}");
    }
    let plan: Value = serde_json::from_str(bundle.call(&["plan", bundle.dir.to_str().unwrap()]).ok()).unwrap();
    assert_eq!(plan["process"]["seccomp"]["default"], "SCMP_ACT_ERRNO 1");
}
