//! `events`: what a container uses and when it runs out of memory, on every layout of cgroups; that it ends with the
//! container or with its reader.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::layout::is_v2;
use crate::runtime::{self, Output, eventually_within, on_rrun, wait_within};

/// More than the runtime has for a reader that does not read.
const PATIENCE: Duration = Duration::from_secs(20);

impl Bundle {
    /// The `data` of `events --stats`.
    #[track_caller]
    fn stats(&self) -> Value {
        let output = self.call(&["events", "--stats", &self.id]);
        data(output.ok(), &self.id)
    }
}

/// Of one line of stats.
#[track_caller]
fn data(line: &str, id: &str) -> Value {
    assert!(line.ends_with("}\n") && line.lines().count() == 1, "not one line: {line:?}");
    let mut event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(event["type"] == "stats" && event["id"] == id && event.as_object().unwrap().len() == 3, "{event}");
    event["data"].take()
}

/// `events` with a pipe to read from.
struct Watching {
    child: Child,
    lines: Option<BufReader<std::io::PipeReader>>,
    since: Instant,
}

impl Watching {
    fn new(bundle: &Bundle, interval: &str) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        // less than one line of some kernels
        fcntl(&reader, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let mut command = bundle.command(&["events", "--interval", interval, &bundle.id]);
        let child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, lines: Some(BufReader::new(reader)), since: Instant::now() }
    }

    /// The next event; null at their end. Events that do not end fail the test by its command's deadline.
    #[track_caller]
    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(if line.is_empty() { "null" } else { &line }).unwrap()
    }

    /// Its exit status and what stderr says.
    #[track_caller]
    fn ends(&mut self) -> (i32, String) {
        let status = wait_within(&mut self.child, PATIENCE).expect("`events` does not end");
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (status.code().unwrap_or(-1), said)
    }

    /// It is past its look at the container's state, and waits.
    #[track_caller]
    fn waits(&self) {
        if !on_rrun() {
            return std::thread::sleep(Duration::from_secs(1)); // its threads wait for each other
        }
        let place = format!("/proc/{}/wchan", self.child.id());
        let polls = || fs::read_to_string(&place).is_ok_and(|place| place.contains("poll")).then_some(());
        assert!(eventually_within(PATIENCE, polls).is_some(), "it does not wait");
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With limits, traffic and processes, so that there is something to count.
fn to_be_busy() -> Bundle {
    let mut bundle = Bundle::sh(
        "sleep 1000 & sleep 1000 & i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done
         head -c 3000000 /dev/zero > /tmp/file; sync; cat /tmp/file > /dev/null; echo done; wait",
    );
    bundle.set("/linux/resources/memory", json!({"limit": 60 << 20, "swap": 70 << 20}));
    bundle.set("/linux/resources/pids/limit", 99);
    bundle.set("/linux/resources/cpu", json!({"quota": 100000, "period": 100000}));
    bundle
}

fn busy() -> Bundle {
    let bundle = to_be_busy();
    let run = bundle.run_detached();
    let done = || run.later().contains("done").then_some(());
    assert!(eventually_within(Duration::from_secs(60), done).is_some(), "{}", run.later());
    bundle
}

#[test]
fn stats_count_what_the_container_uses() {
    need!(events);
    let bundle = busy();
    // on a busy machine the container has its work done before the first period of its quota is over, or begun
    let has_periods = || Some(bundle.stats()).filter(|stats| stats["cpu"]["throttling"]["periods"].as_u64() > Some(0));
    let stats = eventually_within(Duration::from_secs(10), has_periods).unwrap_or_else(|| bundle.stats());
    let number = |pointer: &str| stats.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    assert_eq!(stats["pids"], json!({"current": 3, "limit": 99}), "{stats}");
    assert_eq!(number("/memory/usage/limit"), 60 << 20, "{stats}");
    assert!(number("/memory/usage/usage") > 100_000 && number("/memory/usage/usage") <= 60 << 20, "{stats}");
    assert!(number("/memory/usage/max") >= number("/memory/usage/usage") || is_v2(), "{stats}");
    assert_eq!(number("/memory/swap/limit"), 70 << 20, "{stats}");
    assert!(number("/memory/swap/usage") >= number("/memory/usage/usage") / 2, "{stats}");
    assert_eq!(number("/memory/cache"), number(if is_v2() { "/memory/raw/file" } else { "/memory/raw/cache" }));
    assert!(number("/cpu/usage/total") > 1_000_000, "{stats}");
    assert!(number("/cpu/throttling/periods") > 0, "{stats}");
    assert_eq!(stats["network_interfaces"], Value::Null);
    assert!(stats.as_object().unwrap().contains_key("network_interfaces") && stats["intel_rdt"] == json!({}));
    let again = bundle.stats();
    assert!(again["cpu"]["usage"]["total"].as_u64() >= stats["cpu"]["usage"]["total"].as_u64());
}

/// Of runc 1.1, Debian's, which says `"throttling":{}` and `"kernel":{"limit":0,"failcnt":0}` where 1.4 says nothing.
fn without_what_is_nothing(stats: &mut Value) {
    for (section, keys) in
        [("cpu", &["usage", "throttling"][..]), ("memory", &["usage", "swap", "kernel", "kernelTCP"][..])]
    {
        let section = stats[section].as_object_mut().unwrap();
        for key in keys {
            let nothing = |value: &Value| value.as_object().unwrap().values().all(|value| value == 0);
            if section.get(*key).is_some_and(nothing) {
                section.remove(*key);
            }
        }
    }
}

/// Where two values differ in keys or kinds. What is left out where it is zero may be there or not.
fn differences(path: &str, runcs: &Value, ours: &Value, told: &mut Vec<String>) {
    const MAY_BE_ZERO: [&str; 13] = [
        "total",
        "usage",
        "max",
        "cache",
        "current",
        "limit",
        "periods",
        "throttling",
        "throttledPeriods",
        "throttledTime",
        "value",
        "major",
        "minor",
    ];
    match (runcs, ours) {
        (Value::Object(theirs), Value::Object(own)) => {
            let keys: std::collections::BTreeSet<_> = theirs.keys().chain(own.keys()).collect();
            for key in keys {
                match (theirs.get(key), own.get(key)) {
                    (Some(theirs), Some(own)) => differences(&format!("{path}/{key}"), theirs, own, told),
                    _ if MAY_BE_ZERO.contains(&key.as_str()) => {}
                    (theirs, _) => {
                        told.push(format!("{path}/{key} {}", if theirs.is_some() { "misses" } else { "is more" }))
                    }
                }
            }
        }
        (Value::Array(theirs), Value::Array(own)) => {
            if let (Some(theirs), Some(own)) = (theirs.first(), own.first()) {
                differences(&format!("{path}/0"), theirs, own, told);
            }
        }
        (Value::Number(theirs), Value::Number(own)) if theirs.is_f64() == own.is_f64() => {}
        (theirs, own) if std::mem::discriminant(theirs) == std::mem::discriminant(own) => {}
        (theirs, own) => told.push(format!("{path}: {theirs} and {own}")),
    }
}

fn runc(bundle: &Bundle, args: &[&str]) -> Output {
    let mut command = Command::new("runc");
    runtime::run(command.arg("--root").arg(bundle.dir.join("runc")).args(args).current_dir(&bundle.dir))
}

#[test]
fn keys_and_kinds_are_runcs() {
    need!(rrun, program("runc"));
    let mut own = busy().stats();
    let bundle = to_be_busy();
    bundle.write_config();
    runc(&bundle, &["run", "-d", &bundle.id]);
    let mut told = None;
    eventually_within(PATIENCE, || {
        let output = runc(&bundle, &["events", "--stats", &bundle.id]);
        let stats = data(&output.stdout, &bundle.id);
        let counted = stats["pids"]["current"] == 3 && stats["memory"]["cache"].as_u64() > Some(2_000_000);
        told = Some(stats);
        counted.then_some(())
    });
    runc(&bundle, &["delete", "--force", &bundle.id]);
    fs::remove_dir_all(bundle.dir.join("runc")).unwrap();
    let mut runcs = told.unwrap();
    // since 1.2, and nothing of v1
    for section in ["cpu", "memory", "blkio"] {
        own[section].as_object_mut().unwrap().remove("psi");
    }
    [&mut own, &mut runcs].into_iter().for_each(without_what_is_nothing);
    // 1.1 knows no pages of a size that is not set up
    own["hugetlb"] = runcs["hugetlb"].clone();
    // what came second has found its files in memory, and met no disk
    if runcs["blkio"] == json!({}) {
        own["blkio"] = json!({});
    }
    let mut told = Vec::new();
    differences("", &runcs, &own, &mut told);
    assert_eq!(told, [""; 0], "runc: {runcs}\nrrun: {own}");
    assert!(own["memory"]["raw"].as_object().unwrap().len() > 20, "{own}");
}

#[test]
fn stats_come_again_and_again_until_the_container_ends() {
    need!(events);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let mut watching = Watching::new(&bundle, "200ms");
    for _ in 0..2 {
        let event = watching.next();
        assert!(event["type"] == "stats" && event["id"] == bundle.id && event["data"].is_object(), "{event}");
    }
    let since = watching.since.elapsed();
    assert!(since >= Duration::from_millis(400), "two after {since:?}");
    bundle.start().ok();
    assert_eq!(watching.next()["type"], "stats");
    bundle.kill("9").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok(); // on v1 runc waits for that
    while !watching.next().is_null() {}
    assert_eq!(watching.ends(), (0, String::new()));
}

#[test]
fn a_long_interval_does_not_outlive_the_container() {
    need!(rrun); // runc looks at the cgroup and not at init
    for delete in [false, true] {
        let bundle = Bundle::sleeping();
        bundle.run_detached().ok();
        let mut watching = Watching::new(&bundle, "5h");
        watching.waits();
        if delete { bundle.delete_force() } else { bundle.kill("9") }.ok();
        assert!(watching.next().is_null());
        assert_eq!(watching.ends(), (0, String::new()), "delete: {delete}");
    }
}

#[test]
fn whoever_closes_the_pipe_has_read_enough() {
    need!(rrun); // others find out when they write again, and go on
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    for interval in ["5h", "1ms"] {
        let mut watching = Watching::new(&bundle, interval);
        watching.waits();
        watching.lines = None;
        assert_eq!(watching.ends(), (0, String::new()), "{interval}");
    }
}

#[test]
fn a_reader_that_does_not_read_holds_nobody_for_long() {
    need!(rrun);
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let mut watching = Watching::new(&bundle, "1ms");
    let mut readable = [PollFd::new(watching.lines.as_ref().unwrap().get_ref().as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut readable, PollTimeout::from(20_000u16)), Ok(1));
    std::thread::sleep(Duration::from_millis(300));
    watching.waits(); // for room
    bundle.delete_force().ok();
    let (code, said) = watching.ends();
    assert!(code == 1 && said.contains("its reader has stopped to read, and the container has ended"), "{said}");
}

/// Uses more memory than it may as soon as there is a file in its image.
fn greedy(then: &str) -> Bundle {
    let mut bundle = Bundle::sh(&format!("until test -e /go; do sleep 0.02; done; {then}"));
    bundle.set("/linux/resources/memory", json!({"limit": 20 << 20, "swap": 20 << 20}));
    bundle.run_detached().ok();
    bundle
}

#[test]
fn a_want_of_memory_is_told_when_it_happens() {
    need!(events);
    let bundle = greedy("tail -c 300m /dev/zero; echo more; sleep 1000");
    let mut watching = Watching::new(&bundle, "5h");
    watching.waits();
    bundle.image_file("go", "");
    assert_eq!(watching.next(), json!({"type": "oom", "id": bundle.id}));
    bundle.wait_until("running");
    bundle.delete_force().ok();
    // a kernel may have told it twice
    let rest: Vec<Value> = std::iter::from_fn(|| Some(watching.next()).filter(|event| !event.is_null())).collect();
    assert!(rest.iter().all(|event| event["type"] == "oom"), "{rest:?}");
}

#[test]
fn a_want_of_memory_that_ends_the_container_is_told_before_its_end() {
    need!(rrun); // which of the two runc hears first is chance
    let bundle = greedy("exec tail -c 300m /dev/zero");
    let mut watching = Watching::new(&bundle, "5h");
    watching.waits();
    bundle.image_file("go", "");
    assert_eq!(watching.next(), json!({"type": "oom", "id": bundle.id}));
    bundle.wait_until("stopped");
    bundle.delete().ok();
    while !watching.next().is_null() {}
    assert_eq!(watching.ends(), (0, String::new()));
}

#[test]
fn an_end_without_a_want_of_memory_tells_none() {
    need!(events);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/resources/memory/limit", 50 << 20);
    bundle.run_detached().ok();
    let mut watching = Watching::new(&bundle, "5h");
    watching.waits();
    bundle.delete_force().ok();
    assert!(watching.next().is_null(), "of v1, the end of the cgroup is no event of its own");
    assert_eq!(watching.ends().0, 0);
}

#[test]
fn pressure_is_told_on_v2() {
    layout!(V2, Hybrid);
    need!(rrun); // runc since 1.2
    let bundle = busy();
    let tree = bundle.cgroup("unified");
    assert!(tree.join("cpu.pressure").exists(), "this kernel does not measure it: boot with psi=1");
    let stats = bundle.stats();
    for (section, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("blkio", "io.pressure")] {
        for who in ["some", "full"] {
            let told = &stats[section]["psi"][who];
            assert!(["avg10", "avg60", "avg300"].iter().all(|key| told[key].is_f64()), "{section} {who}: {stats}");
            let now = fs::read_to_string(tree.join(file)).unwrap();
            let line = now.lines().find(|line| line.starts_with(who)).unwrap();
            let total: u64 = line.rsplit_once("total=").unwrap().1.parse().unwrap();
            assert!(told["total"].as_u64().unwrap() <= total, "{section} {who}: {told} and {line}");
        }
    }
    assert!(stats["cpu"]["psi"]["some"]["total"].as_u64() > Some(0), "three processes of one cpu's worth: {stats}");
}

#[test]
fn pressure_that_is_not_measured_is_left_out() {
    layout!(V2);
    need!(rrun);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let switch = bundle.cgroup("unified").join("cgroup.pressure"); // since Linux 6.1
    assert!(bundle.stats()["cpu"]["psi"].is_object());
    fs::write(switch, "0").unwrap();
    let stats = bundle.stats();
    assert!(["cpu", "memory", "blkio"].iter().all(|section| stats[section].get("psi").is_none()), "{stats}");
}

#[test]
fn huge_pages_are_told_by_their_size() {
    need!(rrun, hugetlb);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    assert_eq!(bundle.stats()["hugetlb"]["2MB"], json!({"failcnt": 0}));
}

#[test]
fn who_has_not_started_or_is_paused_has_stats_and_who_has_ended_has_none() {
    need!(events);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let some = |stats: Value| stats["pids"]["current"].as_u64() > Some(0);
    assert!(some(bundle.stats())); // an init of Go has threads
    bundle.start().ok();
    bundle.pause().ok();
    assert!(some(bundle.stats()));
    bundle.resume().ok();
    bundle.kill("9").ok();
    bundle.wait_until("stopped");
    let words = format!("container with id {} is not running", bundle.id);
    bundle.call(&["events", &bundle.id]).refused(&[&words]);
    bundle.call(&["events", "--stats", &bundle.id]).refused(&[&words]);
    bundle.call(&["events", "no-such-container"]).refused(&["container does not exist"]);
}

#[test]
fn an_interval_is_a_duration() {
    need!(events);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    for interval in ["0", "0s", "-1s"] {
        let interval = format!("--interval={interval}");
        bundle.call(&["events", &interval, &bundle.id]).refused(&["duration interval must be greater than 0"]);
    }
    for interval in ["", "5", "x"] {
        let output = bundle.call(&["events", &format!("--interval={interval}"), "--stats", &bundle.id]);
        let usual = interval.is_empty() && on_rrun(); // an empty value is none given
        assert_eq!(output.code == 0, usual, "{output}");
    }
    bundle.call(&["events", "--interval=1m30s", "--stats", &bundle.id]).ok();
}

// managers ask while a pause or an update is under way
#[test]
fn no_lock_is_waited_for() {
    need!(rrun);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let dir = fs::File::open(bundle.state_root.join(&bundle.id)).unwrap();
    let lock = nix::fcntl::Flock::lock(dir, nix::fcntl::FlockArg::LockExclusive).unwrap();
    bundle.stats();
    let mut watching = Watching::new(&bundle, "1ms");
    assert_eq!(watching.next()["type"], "stats");
    drop(lock);
}

#[test]
fn a_container_without_cgroups_for_it_has_stats_with_nothing_in_them() {
    layout!(V2, Hybrid);
    need!(rrun);
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    let path = bundle.state_root.join(&bundle.id).join("state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let paths = std::mem::replace(&mut state["cgroup_paths"], json!({}));
    fs::write(&path, state.to_string()).unwrap();
    let stats = bundle.stats();
    assert!(stats["memory"] == json!({}) && stats["pids"] == json!({}), "{stats}");
    let mut watching = Watching::new(&bundle, "10ms");
    assert_eq!(watching.next()["data"]["memory"], json!({}));
    bundle.kill("9").ok();
    while !watching.next().is_null() {}
    state["cgroup_paths"] = paths;
    fs::write(&path, state.to_string()).unwrap();
}
