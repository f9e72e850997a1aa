//! go-runc, by which shims and builders call a runtime: each of its calls with everything that it can put there.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use super::*;
use crate::runtime::{eventually_within, on_rrun, run};
use crate::tty::ConsoleSocket;

/// All that may stand before a command, in its order; what stands there depends on who uses it.
fn all_options(bundle: &Bundle) -> Caller {
    let (state, log) = (dir(bundle, "state"), dir(bundle, "log.json"));
    let words = ["--root", &state, "--debug", "--log", &log, "--log-format", "json", "--rootless=false"];
    Caller { before: words.map(String::from).to_vec(), environment: vec![("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")] }
}

#[test]
fn every_call_with_all_options_before_it() {
    let bundle = Bundle::sleeping();
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    let _pipes = create(&caller, &bundle);
    caller.silent(&bundle, &["start", &id]);
    caller.json(&bundle, &["state", &id]);
    let listed = caller.json(&bundle, &["list", "--format=json"]);
    assert_eq!(listed[0]["id"], id, "{listed}");
    assert_eq!(caller.json(&bundle, &["ps", "--format", "json", &id]).as_array().map(Vec::len), Some(1));
    caller.silent(&bundle, &["pause", &id]);
    caller.silent(&bundle, &["resume", &id]);
    caller.silent(&bundle, &["kill", "--all", &id, "9"]);
    bundle.wait_until("stopped");
    caller.silent(&bundle, &["delete", &id]);
    caller.silent(&bundle, &["delete", "--force", &id]);
    // with --debug there is much in it, and each value is one
    let log = std::fs::read_to_string(bundle.dir.join("log.json")).unwrap();
    for entry in serde_json::Deserializer::from_str(&log).into_iter::<Value>() {
        let entry = entry.unwrap_or_else(|error| panic!("{error}: {log}"));
        assert!(entry["level"].is_string() && entry["level"] != "error" && entry["time"].is_string(), "{entry}");
    }
}

/// What was sent waits in the queues of the sockets: go-runc accepts when the runtime has ended.
#[test]
fn create_and_exec_take_every_option() {
    need!(rrun); // runc 1.1 has neither --pidfd-socket nor --detach at create
    let mut bundle = Bundle::sh("tty; exec sleep 1000");
    bundle.set("/process/terminal", true);
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    let (console, pidfd) = (ConsoleSocket::new(&bundle.dir), ConsoleSocket::named(&bundle.dir, "pidfd.sock"));
    let (console_path, pidfd_path) = (console.path.display().to_string(), pidfd.path.display().to_string());
    let (place, pid) = (dir(&bundle, ""), dir(&bundle, "init.pid"));
    let sockets = ["--console-socket", &console_path, "--pidfd-socket", &pidfd_path];
    let before = ["create", "--bundle", &place, "--pid-file", &pid];
    let after = ["--no-pivot", "--no-new-keyring", "--detach", "--preserve-fds", "0", &id];
    caller.silent(&bundle, &[&before[..], &sockets, &after].concat());
    let sent = |name: &str, pid: i32| {
        let (said, fd) = pidfd.receive_named();
        assert_eq!(said, name);
        let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        assert!(told.lines().any(|line| line == format!("Pid:\t{pid}")), "{told}");
    };
    sent("standard", pid_file(Path::new(&pid)));
    let (name, _master) = console.receive_named();
    assert_eq!(name, "/dev/pts/ptmx");
    caller.silent(&bundle, &["start", &id]);

    let given = process(&bundle, &["sh", "-c", "echo executed; exec sleep 1000"]);
    let pid = dir(&bundle, "exec.pid");
    let before = ["exec", "--process", &given];
    caller.silent(&bundle, &[&before[..], &sockets, &["--detach", "--pid-file", &pid, &id]].concat());
    std::fs::remove_file(given).unwrap();
    sent("setns", pid_file(Path::new(&pid)));
    console.receive().hears("executed");
    caller.silent(&bundle, &["delete", "--force", &id]);
}

#[test]
fn run_ends_as_its_program() {
    for (script, status) in [("echo hi; exit 7", 7), ("echo hi; kill -9 $$; sleep 5", 0)] {
        let bundle = Bundle::sh(script);
        let caller = all_options(&bundle);
        let (place, pid) = (dir(&bundle, ""), dir(&bundle, "init.pid"));
        let run = ["run", "--bundle", &place, "--pid-file", &pid, &bundle.id];
        let ended = caller.combined(&bundle, &run);
        // the first process of a pid namespace cannot kill itself
        assert_eq!((ended.0, ended.1.as_str()), (status, "hi\n"), "{script}");
        caller.silent(&bundle, &["delete", "--force", &bundle.id]);
    }
}

#[test]
fn top_is_a_table_with_a_column_pid() {
    let bundle = Bundle::sleeping();
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    let _pipes = create(&caller, &bundle);
    caller.silent(&bundle, &["start", &id]);
    let init = pid_file(&bundle.dir.join("init.pid")).to_string();
    // all of the options are one word
    for options in ["-ef", "-opid,args", "aux"] {
        let (code, table) = caller.combined(&bundle, &["ps", "--format", "table", &id, options]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let column = lines[0].iter().position(|name| *name == "PID").unwrap_or_else(|| panic!("{code}: {table}"));
        let pids: Vec<&str> = lines[1..].iter().map(|line| line[column]).collect();
        assert_eq!((code, pids), (0, vec![init.as_str()]), "{options}: {table}");
    }
}

/// LinuxResources on stdin, whose end the caller may leave open until the call has returned.
#[test]
fn update_reads_resources_from_stdin() {
    let bundle = Bundle::sleeping();
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    let _pipes = create(&caller, &bundle);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let resources = json!({"cpu": {"shares": 300}, "pids": {"limit": 88}, "memory": {"limit": 50 << 20}});
    writer.write_all(resources.to_string().as_bytes()).unwrap();
    drop(writer);
    let mut update = caller.command(&bundle, &["update", "--resources=-", &id]);
    update.stdin(reader);
    assert_eq!(combined(update), (0, String::new()));
    let read = |controller: &str, file: &str| std::fs::read_to_string(bundle.cgroup(controller).join(file)).unwrap();
    assert_eq!(read("pids", "pids.max"), "88\n");
    assert_eq!(read("memory", "memory.limit_in_bytes"), "52428800\n");
    assert_eq!(read("cpu", "cpu.shares"), "300\n");
}

/// The caller sets a death signal and a process group for what it starts; neither is a container's affair.
#[test]
fn what_binds_the_runtime_to_its_caller_does_not_bind_the_container() {
    let bundle = Bundle::sleeping();
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    for args in [&["create", "--bundle", &dir(&bundle, ""), &id][..], &["start", &id]] {
        let call = caller.command(&bundle, args);
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL"]).arg(call.get_program()).args(call.get_args()).current_dir(&bundle.dir);
        bound.env(leftovers::VARIABLE, &bundle.id).process_group(0);
        // whose parent is a thread that ends now
        let status = std::thread::spawn(move || {
            bound.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
        });
        assert!(status.join().unwrap().success(), "{args:?}");
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bundle.status(), "running");
}

/// No status but 0 is a success, and the text is what the caller's error ends in.
#[test]
fn a_failing_call_has_a_status_and_one_line() {
    let bundle = Bundle::sleeping();
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    for args in [
        &["start", &id][..],
        &["state", &id],
        &["kill", &id, "9"],
        &["delete", &id],
        &["pause", &id],
        &["resume", &id],
        &["ps", "--format", "json", &id],
        &["update", "--resources=-", &id],
        &["exec", "--process", "/missing", "--detach", &id],
    ] {
        let (code, text) = caller.combined(&bundle, args);
        assert!(code != 0 && !text.is_empty(), "{args:?} gave {code}: {text}");
        if on_rrun() {
            assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        }
    }
}

/// The first JSON value of stdout, whose stream it then closes; or value by value until the stream ends.
#[test]
fn events_are_read_value_by_value() {
    let bundle = Bundle::sleeping();
    let (caller, id) = (all_options(&bundle), bundle.id.clone());
    let _pipes = create(&caller, &bundle);
    caller.silent(&bundle, &["start", &id]);
    let event = |value: Option<serde_json::Result<Value>>| -> Value {
        let event = value.expect("an event").unwrap();
        assert!(event["type"] == "stats" && event["id"] == id, "{event}");
        assert!(event["data"]["pids"]["current"] == 1 && event["data"]["memory"]["raw"].is_object(), "{event}");
        event
    };
    let stats = run(&mut caller.command(&bundle, &["events", "--stats", &id]));
    event(serde_json::Deserializer::from_str(stats.ok()).into_iter().next());

    let mut events = caller.command(&bundle, &["events", "--interval=1s", &id]);
    let mut events = events.stdout(Stdio::piped()).spawn().unwrap();
    let mut values = serde_json::Deserializer::from_reader(events.stdout.take().unwrap()).into_iter();
    event(values.next());
    event(values.next());
    caller.silent(&bundle, &["kill", &id, "9"]);
    eventually_within(PATIENCE, || caller.combined(&bundle, &["state", &id]).1.contains("\"stopped\"").then_some(()));
    caller.silent(&bundle, &["delete", &id]);
    while values.next().is_some() {}
    assert!(runtime::wait_within(&mut events, PATIENCE).expect("events hang").success());
    caller.fails(&bundle, &["events", "--stats", &id], "does not exist");
}
