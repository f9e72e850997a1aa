//! CRI-O: by itself, and by conmon.

use super::*;
use crate::tty::Terminal;

/// An environment of one variable, and no PATH.
fn crio(bundle: &mut Bundle) -> Caller {
    bundle.state_root = bundle.dir.join("state");
    Caller {
        before: vec!["--root".to_string(), dir(bundle, "state")],
        environment: vec![("XDG_RUNTIME_DIR", "/run/user/0")],
    }
}

/// conmon makes the pid file before, empty.
#[test]
fn cri_o_has_a_container() {
    let mut bundle = Bundle::sleeping();
    let crio = crio(&mut bundle);
    let id = bundle.id.clone();
    bundle.host_file("init.pid", "");
    let _pipes = create(&crio, &bundle);
    crio.silent(&bundle, &["start", &id]);
    let (code, state) = crio.combined(&bundle, &["state", &id]);
    let state: Value = serde_json::from_str(&state).unwrap();
    assert!(code == 0 && state["status"] == "running" && state["created"].is_string(), "{state}");
    let given = process(&bundle, &["sh", "-c", "echo executed; exit 3"]);
    assert_eq!(crio.combined(&bundle, &["exec", "--process", &given, &id]), (3, "executed\n".into()));
    let mut update = crio.command(&bundle, &["update", "--resources", "-", &id]);
    update.stdin(std::fs::File::open(bundle.host_file("limits", r#"{"pids":{"limit":66}}"#)).unwrap());
    assert_eq!(combined(update), (0, String::new()));
    for command in ["pause", "resume"] {
        crio.silent(&bundle, &[command, &id]);
    }
    crio.silent(&bundle, &["kill", &id, "KILL"]);
    bundle.wait_until("stopped");
    // either of these words, and the container counts as gone
    let (code, text) = crio.combined(&bundle, &["kill", &id, "15"]);
    let gone = ["no such process", "container not running", "invalid process"];
    assert!(code != 0 && gone.iter().any(|words| text.contains(words)), "{text}");
    crio.silent(&bundle, &["delete", "--force", &id]);
    crio.silent(&bundle, &["delete", "--force", &id]);
}

/// Read into types: a time that is none, or a status that is unknown, fails.
#[test]
fn cri_o_decodes_the_state() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/annotations/who", "me");
    let crio = crio(&mut bundle);
    let id = bundle.id.clone();
    let state = |status: &str| {
        let state = crio.json(&bundle, &["state", &id]);
        assert_eq!(state["status"], status, "{state}");
        assert!(
            state["ociVersion"].is_string() && state["id"] == id && state["bundle"] == bundle.dir.to_str().unwrap(),
            "{state}"
        );
        assert_eq!(state["annotations"]["who"], "me", "{state}");
        assert!(is_rfc_3339(state["created"].as_str().unwrap()), "{state}");
        state["pid"].as_i64().unwrap()
    };
    let _pipes = create(&crio, &bundle);
    let pid = state("created");
    crio.silent(&bundle, &["start", &id]);
    assert_eq!(state("running"), pid);
    crio.silent(&bundle, &["pause", &id]);
    assert_eq!(state("paused"), pid);
    crio.silent(&bundle, &["resume", &id]);
    // the number of a signal is a word too, and so is its name
    crio.silent(&bundle, &["kill", &id, "SIGCONT"]);
    crio.silent(&bundle, &["kill", "-a", &id, "9"]);
    bundle.wait_until("stopped");
    assert_eq!(state("stopped"), 0);
    crio.silent(&bundle, &["delete", "--force", &id]);
    assert_ne!(crio.combined(&bundle, &["state", &id]).0, 0);
}

/// `exec` with a terminal is attached: the runtime's standard files are one, whose size is changed from outside.
#[test]
fn cri_o_executes_in_a_terminal() {
    let mut bundle = Bundle::sleeping();
    let crio = crio(&mut bundle);
    let id = bundle.id.clone();
    let _pipes = create(&crio, &bundle);
    crio.silent(&bundle, &["start", &id]);
    let script = "tty; until stty size | grep 33; do sleep 0.05; done; exit 6";
    let mut given = bundle.config["process"].clone();
    (given["terminal"], given["args"]) = (json!(true), json!(["sh", "-c", script]));
    let given = bundle.host_file("given", given.to_string()).display().to_string();
    let mut terminal = Terminal::new(20, 70);
    let mut exec = crio.command(&bundle, &["exec", "--process", &given, &id]);
    let mut exec = exec.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    terminal.resize(33, 44);
    // the kernel tells the session's processes of a new size; this one is in the test's
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(exec.id() as i32), nix::sys::signal::Signal::SIGWINCH);
    terminal.master.hears("33 44");
    assert_eq!(runtime::wait_within(&mut exec, PATIENCE).unwrap().code(), Some(6));
}

/// By conmon, whose pid file is there beforehand; that stays empty where nothing ran.
#[test]
fn cri_o_probes_by_conmon() {
    let mut bundle = Bundle::sleeping();
    let crio = crio(&mut bundle);
    let id = bundle.id.clone();
    let _pipes = create(&crio, &bundle);
    crio.silent(&bundle, &["start", &id]);
    let probes = |args: &[&str]| {
        let pid = bundle.host_file("probe.pid", "").display().to_string();
        let given = process(&bundle, args);
        let mut exec = crio.command(&bundle, &["exec", "--pid-file", &pid, "--process", &given, "--detach", &id]);
        let mut exec = exec.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let status = runtime::wait_within(&mut exec, PATIENCE).expect("exec hangs");
        let said = to_the_end(exec.stdout.take().unwrap()).expect("the probe's output does not end");
        let error = to_the_end(exec.stderr.take().unwrap()).expect("the probe's errors do not end");
        (status.code(), said, error, std::fs::read_to_string(pid).unwrap_or_default())
    };
    let (code, said, _, pid) = probes(&["echo", "well"]);
    assert!(code == Some(0) && said == "well\n" && pid.parse::<i32>().is_ok(), "{code:?} {said} {pid:?}");
    let (code, _, error, pid) = probes(&["nosuch"]);
    assert!(code != Some(0) && error.contains("executable file not found in $PATH"), "{code:?} {error}");
    assert!(pid.parse::<i32>().is_err(), "{pid:?}");
}

fn is_rfc_3339(time: &str) -> bool {
    let date = Command::new("date").args(["-u", "-d", time]).output().unwrap();
    date.status.success() && time.as_bytes().get(10) == Some(&b'T') && time.ends_with('Z')
}
