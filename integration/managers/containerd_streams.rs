//! What flows while a pod's container runs: exec and attach by the streams that containerd serves, and its log.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::daemon::{asks, containerd};
use crate::kubelet::{Container, Pod, call};
use crate::runtime::{Call, eventually_within, wait_within};
use crate::tty::Terminal;

/// Asks for streams, and connects to them as an API server does.
fn streams(method: &str, container: &Container, mut request: Value, size: &str) -> Command {
    request["containerId"] = json!(container.id);
    request["stdout"] = json!(true);
    request["stderr"] = json!(request["tty"] != true);
    let answer = call(method, request);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/managers/cri_stream.py");
    containerd().command(&format!("exec {script} {} {size}", answer["url"].as_str().unwrap()))
}

#[test]
fn exec() {
    let pod = Pod::new("streams", "CONTAINER");
    let container = pod.start("one", "sleep 1000", json!({}));
    let exec =
        |script: &str| Call::new(&mut streams("Exec", &container, json!({"cmd": ["sh", "-c", script]}), "")).wait();
    let output = exec("echo out; echo err >&2; exit 3");
    assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "out\n", "err\n"), "{output}");
    assert_eq!(exec("head -c 3000000 /dev/zero").stdout.len(), 3_000_000);
    let refused = Call::new(&mut streams("Exec", &container, json!({"cmd": ["nosuch"]}), "")).wait();
    assert!(refused.code != 0 && refused.stderr.contains("executable file not found in $PATH"), "{refused}");
    let mut typed =
        streams("Exec", &container, json!({"cmd": ["sh", "-c", "read line; echo got $line"], "stdin": true}), "");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let typed = Call::with_stdin(&mut typed, Stdio::from(reader));
    std::io::Write::write_all(&mut writer, b"word\n").unwrap();
    assert_eq!(typed.wait().stdout, "got word\n");
}

#[test]
fn exec_with_a_terminal() {
    let pod = Pod::new("typed", "CONTAINER");
    let container = pod.start("one", "sleep 1000", json!({}));
    let script = "tty; until stty size | grep '33 44'; do sleep 0.05; done; read line; echo got $line; exit 5";
    let request = json!({"cmd": ["sh", "-c", script], "tty": true, "stdin": true});
    let mut terminal = Terminal::new(20, 70);
    let mut command = streams("Exec", &container, request, "44x33");
    let mut child = command.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio()).spawn().unwrap();
    terminal.master.hears("/dev/pts/0");
    terminal.master.hears("33 44");
    asks(&mut terminal, "word\n", "got word");
    assert_eq!(wait_within(&mut child, Duration::from_secs(10)).unwrap().code(), Some(5));
}

/// To the container's first process, which has been saying something all the time.
#[test]
fn attach() {
    let pod = Pod::new("attached", "CONTAINER");
    let script = "while read line; do echo got $line; echo $line >&2; done; sleep 1000";
    let container = pod.start_with("one", script, json!({"stdin": true}));
    let (reader, mut writer) = std::io::pipe().unwrap();
    let attached =
        Call::with_stdin(&mut streams("Attach", &container, json!({"stdin": true}), ""), Stdio::from(reader));
    let mut says = |word: &str| {
        std::io::Write::write_all(&mut writer, format!("{word}\n").as_bytes()).unwrap();
        let heard = || attached.so_far().contains(&format!("got {word}\n")).then_some(());
        eventually_within(Duration::from_secs(10), heard).unwrap_or_else(|| panic!("{word}: {}", attached.so_far()));
    };
    says("one");
    says("two");
    container.logs("stdout F got two");
    container.logs("stderr F two");
    call("StopContainer", json!({"containerId": container.id, "timeout": 0}));
    // its streams end with it
    attached.wait();
}

/// A kubelet that finds a log too long moves it away, and asks for a new one under the old name.
#[test]
fn a_log_that_is_moved_away_goes_on() {
    let pod = Pod::new("rotated", "CONTAINER");
    let container = pod.start("one", "i=0; while sleep 0.05; do i=$((i+1)); echo $i; done", json!({}));
    container.logs("stdout F 3");
    let old = container.log.with_extension("old");
    std::fs::rename(&container.log, &old).unwrap();
    call("ReopenContainerLog", json!({"containerId": container.id}));
    let lines = |path| std::fs::read_to_string(path).unwrap_or_default();
    let goes_on = || (lines(&container.log).lines().count() > 3).then_some(());
    eventually_within(Duration::from_secs(10), goes_on).expect("no new log");
    // nothing is lost or said twice
    let all = lines(&old) + &lines(&container.log);
    let numbers: Vec<u32> = all.lines().filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
}
