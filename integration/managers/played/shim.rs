//! containerd's shim: what it asks of a runtime in a container's life, and what it makes of the answers.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::runtime::{eventually_within, run};
use crate::tty::ConsoleSocket;

/// containerd-shim-runc-v2: a root for each namespace, and a log that all calls of a container append to.
fn shim(bundle: &mut Bundle) -> Caller {
    bundle.state_root = bundle.dir.join("state/k8s.io");
    let words = ["--root", &dir(bundle, "state/k8s.io"), "--log", &dir(bundle, "log.json"), "--log-format", "json"];
    Caller { before: words.map(String::from).to_vec(), environment: vec![("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")] }
}

#[test]
fn a_shim_has_a_container_from_create_to_delete() {
    let mut bundle = Bundle::sh("echo out; echo err >&2; exec sleep 1000");
    let (shim, id) = (shim(&mut bundle), bundle.id.clone());
    let mut container = create(&shim, &bundle);
    let init = pid_file(&bundle.dir.join("init.pid"));
    let cgroups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).unwrap();
    assert!(cgroups.contains(&bundle.id), "{cgroups}");
    shim.silent(&bundle, &["start", &id]);

    let given = process(&bundle, &["sleep", "1000"]);
    let (execed, exec_pid) = (dir(&bundle, "e1.pid"), bundle.dir.join("e1.pid"));
    let mut exec = shim.command(&bundle, &["exec", "--process", &given, "--detach", "--pid-file", &execed, &id]);
    let mut exec = exec.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(runtime::wait_within(&mut exec, PATIENCE).expect("exec hangs").success());
    std::fs::remove_file(given).unwrap();
    let (_, listed) = shim.combined(&bundle, &["ps", "--format", "json", &id]);
    let listed: Vec<i32> = serde_json::from_str(&listed).unwrap_or_else(|error| panic!("{error}: {listed}"));
    assert!(listed.contains(&init) && listed.contains(&pid_file(&exec_pid)), "{listed:?}");
    let (_, state) = shim.combined(&bundle, &["state", &id]);
    let state: Value = serde_json::from_str(&state).unwrap_or_else(|error| panic!("{error}: {state}"));
    assert!(state["status"] == "running" && state["pid"] == init, "{state}");

    for command in ["pause", "resume"] {
        shim.silent(&bundle, &[command, &id]);
    }
    let mut update = shim.command(&bundle, &["update", "--resources=-", &id]);
    update.stdin(std::fs::File::open(bundle.host_file("limits", r#"{"pids":{"limit":77}}"#)).unwrap());
    assert_eq!(combined(update), (0, String::new()));
    assert_eq!(std::fs::read_to_string(bundle.cgroup("pids").join("pids.max")).unwrap(), "77\n");

    shim.silent(&bundle, &["kill", &id, "9"]);
    assert_eq!(to_the_end(container.stdout.take().unwrap()).as_deref(), Some("out\n"));
    assert_eq!(to_the_end(container.stderr.take().unwrap()).as_deref(), Some("err\n"));
    let stopped = || shim.combined(&bundle, &["state", &id]).1.contains("\"stopped\"").then_some(());
    eventually_within(PATIENCE, stopped).unwrap();
    shim.fails(&bundle, &["kill", &id, "15"], "container not running");
    shim.silent(&bundle, &["kill", "--all", &id, "9"]);
    shim.silent(&bundle, &["delete", &id]);
    shim.fails(&bundle, &["delete", &id], "does not exist");
    shim.fails(&bundle, &["kill", &id, "9"], "does not exist");
    shim.silent(&bundle, &["delete", "--force", &id]);
    bundle.state_root = bundle.dir.join("state");
    std::fs::remove_dir(bundle.dir.join("state/k8s.io")).unwrap();
}

/// A terminal: create's own output is one buffer, and the socket is looked at when create has ended.
#[test]
fn a_shim_takes_the_terminal_afterwards() {
    let mut bundle = Bundle::sh("echo in the terminal; exec sleep 1000");
    bundle.set("/process/terminal", true);
    let (shim, socket, id) = (shim(&mut bundle), ConsoleSocket::new(&bundle.dir), bundle.id.clone());
    let (path, pid) = (socket.path.display().to_string(), dir(&bundle, "init.pid"));
    shim.silent(
        &bundle,
        &["create", "--bundle", &dir(&bundle, ""), "--pid-file", &pid, "--console-socket", &path, &id],
    );
    let mut master = socket.receive();
    shim.silent(&bundle, &["start", &id]);
    master.hears("in the terminal");
    let given = process(&bundle, &["sh", "-c", "echo executed; exec sleep 1000"]);
    shim.silent(
        &bundle,
        &["exec", "--process", &given, "--console-socket", &path, "--detach", "--pid-file", &pid, &id],
    );
    socket.receive().hears("executed");
    shim.silent(&bundle, &["delete", "--force", &id]);
}

/// The last entry of the log whose level is `error` becomes what the user reads.
#[test]
fn a_shim_reads_why_it_failed() {
    let mut bundle = Bundle::new();
    bundle.args(&["nosuch"]);
    let (shim, id) = (shim(&mut bundle), bundle.id.clone());
    let path = dir(&bundle, "init.pid");
    assert_ne!(shim.combined(&bundle, &["create", "--bundle", &dir(&bundle, ""), "--pid-file", &path, &id]).0, 0);
    assert!(!Path::new(&path).exists(), "a pid file of a container that is not");
    let log = std::fs::read_to_string(bundle.dir.join("log.json")).unwrap();
    let entries: Vec<Value> = serde_json::Deserializer::from_str(&log).into_iter().collect::<Result<_, _>>().unwrap();
    let last = entries.iter().rfind(|entry| entry["level"] == "error").unwrap_or_else(|| panic!("{log}"));
    assert!(last["msg"].as_str().unwrap().contains("exec: \"nosuch\": executable file not found in $PATH"), "{log}");
    assert!(last["time"].as_str().is_some_and(|time| time.contains('T')), "{log}");
    shim.silent(&bundle, &["delete", "--force", &id]);
}

/// All calls and execs of a container append to one file, and each value in it is read.
#[test]
fn the_last_error_of_the_log_is_that_of_the_last_call() {
    let mut bundle = Bundle::sleeping();
    let (shim, id) = (shim(&mut bundle), bundle.id.clone());
    let _pipes = create(&shim, &bundle);
    shim.silent(&bundle, &["start", &id]);
    let last = || {
        let log = std::fs::read_to_string(bundle.dir.join("log.json")).unwrap();
        let entries = serde_json::Deserializer::from_str(&log).into_iter::<Value>();
        let entries: Vec<Value> = entries.map(|entry| entry.unwrap_or_else(|error| panic!("{error}: {log}"))).collect();
        let errors: Vec<&Value> = entries.iter().filter(|entry| entry["level"] == "error").collect();
        (errors.len(), errors.last().map(|entry| entry["msg"].as_str().unwrap().trim().to_string()).unwrap_or_default())
    };
    let given = process(&bundle, &["nosuch"]);
    let pid = dir(&bundle, "e1.pid");
    let exec = ["exec", "--process", &given, "--detach", "--pid-file", &pid, &id];
    assert_ne!(shim.combined(&bundle, &exec).0, 0);
    let (errors, said) = last();
    assert!(errors == 1 && said.contains("exec: \"nosuch\": executable file not found in $PATH"), "{errors}: {said}");
    assert_ne!(shim.combined(&bundle, &["start", &id]).0, 0);
    let (errors, said) = last();
    assert!(errors == 2 && said.contains("cannot start an already running container"), "{errors}: {said}");
}

/// Without a pid namespace of its own, a container's other processes outlive init and keep its output open.
#[test]
fn what_an_init_leaves_behind_is_killed_after_it() {
    let mut bundle = Bundle::sh("sleep 1000 & exec sleep 0.1");
    bundle.without_namespace("pid");
    let (shim, id) = (shim(&mut bundle), bundle.id.clone());
    let mut container = create(&shim, &bundle);
    shim.silent(&bundle, &["start", &id]);
    bundle.wait_until("stopped");
    shim.silent(&bundle, &["kill", "--all", &id, "9"]);
    let ended = [to_the_end(container.stdout.take().unwrap()), to_the_end(container.stderr.take().unwrap())];
    assert!(ended.iter().all(Option::is_some), "somebody keeps the container's output");
    shim.silent(&bundle, &["delete", &id]);
}

/// After a crash another process calls, which knows the root and nothing else of the container.
#[test]
fn what_a_dead_shim_left_is_deleted_by_its_root_alone() {
    let mut bundle = Bundle::sleeping();
    let (shim, id) = (shim(&mut bundle), bundle.id.clone());
    let cleanup =
        |why: &str| assert_eq!(shim.combined(&bundle, &["delete", "--force", &id]), (0, String::new()), "{why}");
    cleanup("never existed");
    drop(create(&shim, &bundle));
    cleanup("created");
    drop(create(&shim, &bundle));
    shim.silent(&bundle, &["start", &id]);
    shim.silent(&bundle, &["pause", &id]);
    cleanup("paused");
    bundle.leaves_nothing();
}

/// The runtime's options, as the shim has them from its client's.
#[test]
fn a_shim_asks_for_no_pivot_and_no_keyring() {
    let mut bundle = Bundle::sh("cat /proc/keys; exec sleep 1000");
    let (shim, id) = (shim(&mut bundle), bundle.id.clone());
    let pid = dir(&bundle, "init.pid");
    let args = ["create", "--bundle", &dir(&bundle, ""), "--pid-file", &pid, "--no-pivot", "--no-new-keyring", &id];
    let mut create = shim.command(&bundle, &args);
    let (reader, writer) = std::io::pipe().unwrap();
    let status = create.stdout(writer).stderr(Stdio::null()).status().unwrap();
    drop(create);
    assert!(status.success() && pid_file(Path::new(&pid)) > 1);
    shim.silent(&bundle, &["start", &id]);
    shim.silent(&bundle, &["kill", &id, "9"]);
    let keys = to_the_end(reader).unwrap();
    assert!(!keys.contains(&format!("_ses.{id}")), "{keys}");
    bundle.wait_until("stopped");
    shim.silent(&bundle, &["delete", &id]);
}

/// containerd's own program for hooks fills in what the runtime tells it on stdin.
#[test]
fn containerds_hook_reads_the_state() {
    let mut bundle = Bundle::sleeping();
    let script = bundle.host_file("hook.sh", format!("#!/bin/sh\necho \"$@\" >{}\n", dir(&bundle, "told")));
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let told = ["{{id}}", "{{bundle}}", "{{pid}}", "{{status}}", "{{rootfs}}", "{{annotation \"who\"}}"];
    let args = [&["containerd", "oci-hook", "--", script.to_str().unwrap()], &told[..]].concat();
    bundle.set("/annotations/who", "me");
    let path = run(Command::new("sh").args(["-c", "command -v containerd"])).ok().trim().to_string();
    bundle.set("/hooks/createRuntime", json!([{"path": path, "args": args}]));
    let shim = shim(&mut bundle);
    drop(create(&shim, &bundle));
    let told = std::fs::read_to_string(bundle.dir.join("told")).unwrap();
    let (place, root) = (bundle.dir.display(), bundle.rootfs("").display().to_string());
    let init = pid_file(&bundle.dir.join("init.pid"));
    let want = |status: &str| format!("{} {place} {init} {status} {} me\n", bundle.id, root.trim_end_matches('/'));
    assert!([want("creating"), want("created")].contains(&told), "{told}");
    shim.silent(&bundle, &["delete", "--force", &bundle.id]);
}

/// Of a pod with users of its own: a new sysfs is not to be had there.
#[test]
fn what_is_bound_of_the_host_is_read_only_to_the_last_mount() {
    need!(mount_option("rro"));
    let mut bundle = Bundle::new();
    bundle.without_mount("/sys").mount("/sys", "bind", "/sys", &["nosuid", "noexec", "nodev", "rbind", "rro"]);
    let mounts = bundle.mounts();
    let below: Vec<_> = mounts.iter().filter(|mount| mount.point.starts_with("/sys")).collect();
    assert!(below.len() > 1 && below.iter().all(|mount| mount.has("ro")), "{below:#?}");
}
