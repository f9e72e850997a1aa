//! Killed anywhere: SIGKILL at every system call of `create`, `start`, `exec`, `pause`, `resume`, `update`, `kill` and
//! `delete`, one call after another, of rrun itself and of its child until the program runs. After each, nothing may run
//! on, the container must answer, and
//! `delete --force` must take everything away. A lane of its own: `make faults`.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::cgroups::disk;
use crate::hooks::KINDS;
use crate::layout::is_v2;
use crate::leftovers::{Leftovers, VARIABLE, is_alive};
use crate::mapped::{POD, closed_directory, in_pod_of, infra, mapped};
use crate::need;
use crate::net_devices::Network;
use crate::runtime::{Output, eventually_within, few_rounds, on_rrun};
use crate::tracer::{At, Then, Trace, Who, trace};
use crate::tty::ConsoleSocket;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Start,
    Exec,
    Pause,
    Resume,
    Update,
    /// Of a paused one.
    Kill,
    Delete,
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn create_killed_anywhere() {
    everywhere(Verb::Create, &[Who::Parent, Who::Child]);
}

/// The parent is in the pod's namespaces for a moment.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_in_a_pod_killed_anywhere() {
    let infra = Bundle::sleeping();
    infra.run_detached().ok();
    let mut lane = Lane::of(Bundle::sleeping());
    lane.bundle.set("/process/terminal", true);
    for (kind, file) in [("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
        let path = format!("/proc/{}/ns/{file}", infra.pid());
        lane.bundle.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}));
    }
    if need::namespace("time") {
        lane.bundle.set("/linux/namespaces/-", json!({"type": "time"}));
        lane.bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": 7}}));
    }
    lane.is_clean(Verb::Create, &[Who::Parent]);
}

/// A child is also what is about to become a hook.
#[test]
#[ignore = "a lane of its own: make faults"]
fn hooks_killed_anywhere() {
    let mut lane = Lane::of(Bundle::sleeping());
    lane.bundle.set("/process/terminal", true);
    for kind in KINDS {
        lane.bundle.set(&format!("/hooks/{kind}/-"), json!({"path": "/bin/true", "timeout": 20}));
    }
    for verb in [Verb::Create, Verb::Start, Verb::Delete] {
        lane.is_clean(verb, &[Who::Parent, Who::Child]);
    }
}

/// With a terminal, a bind mount that rrun must open, and one whose ids are mapped by a process made for that.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_in_a_user_namespace_killed_anywhere() {
    let mut lane = Lane::of(mapped(Bundle::sleeping()));
    lane.bundle.set("/process/terminal", true);
    let closed = closed_directory(&lane.bundle, "closed");
    lane.bundle.bind(&closed.join("file"), "/f", &["ro"]).bind(&closed, "/mapped", &["idmap"]);
    if need::mount_option("idmap") {
        let map = json!([{"containerID": 0, "hostID": 7, "size": 9}]);
        lane.bundle.set("/mounts/5/uidMappings", map.clone()).set("/mounts/5/gidMappings", map);
    } else {
        lane.bundle.unset("/mounts/5");
    }
    lane.is_clean(Verb::Create, &[Who::Parent, Who::Child]);
}

/// Lent to the container until it is up, and given back by `delete` if it never is.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_with_network_devices_killed_anywhere() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/terminal", true).set("/linux/netDevices", json!({"a": {"name": "net%d"}}));
    let mut lane = Lane::of(bundle);
    lane.network = Some(Network::with_pair());
    // nsenter(1) and what every create does are among the calls
    lane.step = 3;
    lane.is_clean(Verb::Create, &[Who::Parent, Who::Child]);
}

/// Two processes on the way to one, which the tracer cannot tell apart.
#[test]
#[ignore = "a lane of its own: make faults"]
fn create_in_a_pods_user_namespace_killed_anywhere() {
    let infra = infra();
    let lane = Lane::of(in_pod_of(&infra, Bundle::sleeping(), &POD));
    lane.is_clean(Verb::Create, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn start_killed_anywhere() {
    everywhere(Verb::Start, &[Who::Parent, Who::Child]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn exec_killed_anywhere() {
    everywhere(Verb::Exec, &[Who::Parent, Who::Child]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn pause_killed_anywhere() {
    everywhere(Verb::Pause, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn resume_killed_anywhere() {
    everywhere(Verb::Resume, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn update_killed_anywhere() {
    everywhere(Verb::Update, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn kill_killed_anywhere() {
    everywhere(Verb::Kill, &[Who::Parent]);
}

/// Where the end of init ends nobody else.
#[test]
#[ignore = "a lane of its own: make faults"]
fn kill_without_a_pid_namespace_killed_anywhere() {
    let mut bundle = Bundle::sh("sleep 1000 & exec sleep 1000");
    bundle.set("/process/terminal", true).without_namespace("pid");
    Lane::of(bundle).is_clean(Verb::Kill, &[Who::Parent]);
}

#[test]
#[ignore = "a lane of its own: make faults"]
fn delete_killed_anywhere() {
    everywhere(Verb::Delete, &[Who::Parent]);
}

/// systemd makes the cgroup, and half a unit is left. In a guest: `make vm-faults`.
#[test]
#[ignore = "a lane of its own: make vm-faults"]
fn by_systemd_killed_anywhere() {
    systemd!();
    let mut bundle = Bundle::sleeping();
    let path = format!("system.slice::{}", bundle.id);
    bundle.set("/linux/cgroupsPath", path).set("/linux/resources/memory/limit", 50 << 20);
    bundle.set("/process/terminal", true);
    let mut lane = Lane::of(bundle);
    lane.by_systemd = true;
    // a guest is slow
    lane.step = if few_rounds() { 29 } else { 1 };
    (lane.answer_within, lane.patience) = (Duration::from_secs(5), Duration::from_secs(5));
    for verb in [Verb::Create, Verb::Delete] {
        lane.is_clean(verb, &[Who::Parent]);
        let unit = format!("{}.scope", lane.bundle.id);
        let loaded = Command::new("systemctl").args(["show", "--value", "-p", "LoadState", &unit]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&loaded.stdout).trim(), "not-found", "{unit}");
    }
}

fn everywhere(verb: Verb, victims: &[Who]) {
    Lane::new().is_clean(verb, victims);
}

#[derive(Debug, Default)]
struct Tally {
    /// Calls that a round makes which nobody disturbs. A verb that polls makes some more or less every time.
    fewest: usize,
    most: usize,
    injected: usize,
    step: usize,
    hung: usize,
    leaked: usize,
    complaints: Vec<String>,
}

impl Tally {
    fn is_clean(&self) -> bool {
        // of some hundred calls, a few are polls that come and go
        let polls = self.reached() / 20;
        self.fewest > 0 && self.reached() + polls >= self.fewest && self.hung == 0 && self.leaked == 0
    }

    /// As many calls as they stand for.
    fn reached(&self) -> usize {
        self.injected * self.step
    }

    fn add(&mut self, place: &str, found: Vec<Problem>) {
        for problem in found {
            let (count, what) = match problem {
                Problem::Hung(what) => (&mut self.hung, what),
                Problem::Leaked(what) => (&mut self.leaked, what),
            };
            *count += 1;
            self.complaints.push(format!("{place}: {what}"));
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fewest, most, injected, hung, leaked, .. } = self;
        let polls = if fewest == most { String::new() } else { format!(" to {most} (it polls)") };
        write!(f, "calls seen {fewest}{polls}, injected {injected}, hung {hung}, leaked {leaked}")
    }
}

#[derive(Debug)]
enum Problem {
    /// Something did not end or answer in time.
    Hung(String),
    /// Something is there that should not be.
    Leaked(String),
}
use Problem::{Hung, Leaked};

/// Where `exec` tells its process.
const EXEC_PID: &str = "exec.pid";

/// One container, made and killed again and again: what is left of one round would stop the next.
struct Lane {
    bundle: Bundle,
    socket: ConsoleSocket,
    /// For `state` and `list`.
    answer_within: Duration,
    /// For processes that have been told to end.
    patience: Duration,
    /// From one call that is met to the next.
    step: usize,
    by_systemd: bool,
    /// Where `create` is called.
    network: Option<Network>,
}

impl Lane {
    fn new() -> Self {
        let mut bundle = Bundle::sleeping();
        everything(&mut bundle);
        Self::of(bundle)
    }

    fn of(bundle: Bundle) -> Self {
        let socket = ConsoleSocket::new(&bundle.dir);
        std::fs::create_dir(&bundle.state_root).unwrap(); // `list` of a root that is not there is an error
        Self {
            bundle,
            socket,
            answer_within: Duration::from_secs(1),
            patience: Duration::from_secs(2),
            step: 1,
            by_systemd: false,
            network: None,
        }
    }

    fn is_clean(&self, verb: Verb, victims: &[Who]) {
        for who in victims {
            let since = Instant::now();
            let tally = self.kill_at_every_call(verb, *who);
            println!("{verb:?} {who:?}: {tally} ({} s)", since.elapsed().as_secs());
            tally.complaints.iter().for_each(|complaint| println!("    {complaint}"));
            assert!(tally.is_clean(), "{verb:?} {who:?}: {tally}");
        }
    }

    /// Goes on until a verb ends before it reaches the call that is meant.
    fn kill_at_every_call(&self, verb: Verb, who: Who) -> Tally {
        let mut tally = Tally::default();
        let undisturbed: Vec<_> = (0..5).map(|_| self.round(verb, None).0.calls_of(who)).collect();
        (tally.fewest, tally.most) = (*undisturbed.iter().min().unwrap(), *undisturbed.iter().max().unwrap());
        while self.kill_at(At { who, call: tally.injected * self.step + 1 }, verb, &mut tally) {
            tally.injected += 1;
        }
        tally.step = self.step;
        tally.most = tally.most.max(tally.reached());
        tally
    }

    /// Whether that call was reached, in one of some rounds.
    fn kill_at(&self, at: At, verb: Verb, tally: &mut Tally) -> bool {
        (0..5).any(|_| {
            let (trace, problems) = self.round(verb, Some(at));
            let number = trace.hit.map(|number| format!("number {number}"));
            tally.add(&format!("call {}, {}", at.call, number.as_deref().unwrap_or("not reached")), problems);
            trace.hit.is_some()
        })
    }

    fn round(&self, verb: Verb, kill_at: Option<At>) -> (Trace, Vec<Problem>) {
        let (command, init) = self.prepare(verb);
        let trace = trace(&command, init, kill_at.map(|at| (at, Then::Kill)));
        let problems = self.examine(verb, kill_at, &trace);
        (trace, problems)
    }

    /// The command to be killed, and an init that waits for it.
    fn prepare(&self, verb: Verb) -> (Command, Option<i32>) {
        let (id, socket) = (self.bundle.id.as_str(), self.socket.path.to_str().unwrap());
        let create: Vec<&str> = ["--systemd-cgroup"]
            .into_iter()
            .filter(|_| self.by_systemd)
            .chain(["create", "--console-socket", socket, "--pid-file", "pid", id])
            .collect();
        match verb {
            Verb::Create => {
                let mut create = self.bundle.command(&create);
                // one more directory and one more mount; nobody has to be there
                create.env("NOTIFY_SOCKET", "@nobody");
                (self.network.iter().fold(create, |create, network| network.command(create)), None)
            }
            Verb::Start => {
                self.bundle.call(&create).ok();
                (self.bundle.command(&["start", id]), Some(self.bundle.pid()))
            }
            Verb::Exec => {
                self.bundle.call(&create).ok();
                self.bundle.start().ok();
                self.socket.drain();
                let _ = std::fs::remove_file(self.bundle.dir.join(EXEC_PID));
                let exec =
                    ["exec", "-d", "-t", "--console-socket", socket, "--pid-file", EXEC_PID, id, "sleep", "1000"];
                (self.bundle.command(&exec), None)
            }
            Verb::Pause | Verb::Resume | Verb::Kill => {
                self.bundle.call(&create).ok();
                self.bundle.start().ok();
                if verb != Verb::Pause {
                    self.bundle.pause().ok();
                }
                let words: &[&str] = match verb {
                    Verb::Pause => &["pause", id],
                    Verb::Resume => &["resume", id],
                    _ => &["kill", id, "KILL"],
                };
                (self.bundle.command(words), None)
            }
            Verb::Update => {
                self.bundle.call(&create).ok();
                self.bundle.start().ok();
                (self.bundle.command(&update(id)), None)
            }
            Verb::Delete => {
                self.bundle.call(&create).ok();
                self.bundle.start().ok();
                (self.bundle.command(&["delete", "--force", id]), None)
            }
        }
    }

    fn examine(&self, verb: Verb, kill_at: Option<At>, trace: &Trace) -> Vec<Problem> {
        let mut problems = Vec::new();
        if trace.hung {
            problems.push(Hung(format!("{verb:?} did not end")));
        }
        let state = self.answers(&["state", &self.bundle.id], &mut problems);
        let list = self.answers(&["list"], &mut problems);
        if list.code != 0 {
            problems.push(Hung(format!("{list}")));
        }
        let state: Value = serde_json::from_str(&state.stdout).unwrap_or_default();
        if verb != Verb::Kill {
            self.runs_on(verb, &state, &mut problems);
        }
        self.is_whole(verb, kill_at, trace, &state, &mut problems);
        self.goes_away(&mut problems);
        self.gives_back(trace, &state, &mut problems);
        self.socket.drain();
        problems
    }

    fn answers(&self, args: &[&str], problems: &mut Vec<Problem>) -> Output {
        let output = self.bundle.call(args);
        if output.took > self.answer_within {
            problems.push(Hung(format!("took {:?}: {output}", output.took)));
        }
        output
    }

    /// What `exec` has told of.
    fn executed(&self) -> Option<i32> {
        std::fs::read_to_string(self.bundle.dir.join(EXEC_PID)).ok()?.parse().ok()
    }

    /// Only the init of a container that is there may be alive, and a process that `exec` has told of.
    fn runs_on(&self, verb: Verb, state: &Value, problems: &mut Vec<Problem>) {
        let is_there = matches!(state["status"].as_str(), Some("created" | "running" | "paused"));
        let init = state["pid"].as_i64().filter(|_| is_there).unwrap_or(0) as i32;
        let others = || {
            let alive = Leftovers::find(&self.bundle.id, &self.bundle.state_root).processes;
            let told = if verb == Verb::Exec { self.executed() } else { None };
            alive.into_iter().filter(|pid| *pid != init && Some(*pid) != told).collect::<Vec<_>>()
        };
        if eventually_within(self.patience, || others().is_empty().then_some(())).is_none() {
            problems.push(Leaked(format!("{:?} run on while the container is {}", others(), state["status"])));
        }
    }

    /// What is recorded works; what failed with its own error has undone itself.
    fn is_whole(&self, verb: Verb, kill_at: Option<At>, trace: &Trace, state: &Value, problems: &mut Vec<Problem>) {
        if state["status"] == "created" && self.bundle.waits_for_start() {
            let start = self.bundle.start();
            if start.code != 0 {
                problems.push(Leaked(format!("a created container does not start: {start}")));
            }
        }
        if verb == Verb::Exec {
            self.has_executed(kill_at, trace, state, problems);
        }
        if matches!(verb, Verb::Pause | Verb::Resume) {
            self.pauses_and_resumes(state, problems);
        }
        match verb {
            Verb::Update => self.is_updated(trace, problems),
            Verb::Kill => self.dies(problems),
            _ => {}
        }
        let child_was_killed = kill_at.is_some_and(|at| at.who == Who::Child) && trace.hit.is_some();
        if verb == Verb::Create && child_was_killed && trace.exit_code != Some(0) {
            let left = Leftovers::after(self.patience, &self.bundle.id, &self.bundle.state_root);
            if !left.is_empty() {
                problems.push(Leaked(format!("a create that failed ({:?}) leaves {left}", trace.exit_code)));
            }
        }
    }

    /// It concerns nobody else; and whoever is told of a process finds it, whoever is told of a failure no pid.
    fn has_executed(&self, kill_at: Option<At>, trace: &Trace, state: &Value, problems: &mut Vec<Problem>) {
        if state["status"] != "running" {
            problems.push(Leaked(format!("the container is {}", state["status"])));
        }
        let told = self.executed();
        // killed on its way into execve is as good as just behind it
        let by_us = kill_at.is_some_and(|at| at.who == Who::Child) && trace.hit.is_some();
        match trace.exit_code {
            Some(0) if !by_us && !told.is_some_and(is_alive) => problems.push(Leaked(format!("{told:?} does not run"))),
            None | Some(0) => {}
            Some(code) if told.is_some() => problems.push(Leaked(format!("failed with {code}, and told of {told:?}"))),
            Some(_) => {}
        }
    }

    /// Whichever it is, it can be made the other; so `delete` meets both.
    fn pauses_and_resumes(&self, state: &Value, problems: &mut Vec<Problem>) {
        let mut expect = |output: Output, status: &str| {
            let now = self.bundle.status_if_any();
            if output.code != 0 || now.as_deref() != Some(status) {
                problems.push(Leaked(format!("{now:?} and not {status} after {output}")));
            }
        };
        match state["status"].as_str() {
            Some("paused") => expect(self.bundle.resume(), "running"),
            _ => expect(self.bundle.pause(), "paused"),
        }
    }

    /// Each value is the old or the new one, and the next `update` sets all.
    fn is_updated(&self, trace: &Trace, problems: &mut Vec<Problem>) {
        let seen = || {
            updated().map(|(controller, file, ..)| {
                std::fs::read_to_string(self.bundle.cgroup(controller).join(file))
                    .unwrap_or_default()
                    .trim()
                    .to_string()
            })
        };
        let (now, old, new) = (seen(), updated().map(|(.., old, _)| old), updated().map(|(.., new)| new));
        let whole = now.iter().zip(old.iter().zip(&new)).all(|(now, (old, new))| now == old || now == new);
        if !whole || (trace.exit_code == Some(0) && now != new) {
            problems.push(Leaked(format!("values are {now:?} after an update that gave {:?}", trace.exit_code)));
        }
        let again = self.bundle.call(&update(&self.bundle.id));
        if again.code != 0 || seen() != new {
            problems.push(Leaked(format!("values are {:?} after {again}", seen())));
        }
    }

    /// It is dead, or still can be killed; then nobody lives on.
    fn dies(&self, problems: &mut Vec<Problem>) {
        let output = self.bundle.kill("KILL");
        let stopped = || (self.bundle.status_if_any().as_deref() == Some("stopped")).then_some(());
        let answered = output.code == 0 || output.stderr.contains("container not running");
        if eventually_within(self.patience, stopped).is_none() || !answered {
            problems.push(Leaked(format!("{:?} after {output}", self.bundle.status_if_any())));
        }
        self.runs_on(Verb::Kill, &Value::Null, problems);
    }

    /// The device of a container that came up went with it.
    fn gives_back(&self, trace: &Trace, state: &Value, problems: &mut Vec<Problem>) {
        let Some(network) = &self.network else { return };
        let seen = network.seen_of_a();
        let came_up = state["status"] == "created" || trace.exit_code == Some(0);
        if !came_up && !seen.as_ref().is_some_and(|(up, addresses)| *up && addresses.len() == 3) {
            problems.push(Leaked(format!("the device is not as it was: {seen:?}")));
        }
        if seen.is_none() {
            let gone = || (!network.has("b")).then_some(());
            eventually_within(self.patience, gone).expect("a veth takes its peer with it");
            network.add_pair();
        }
    }

    fn goes_away(&self, problems: &mut Vec<Problem>) {
        let deleted = self.bundle.delete_force();
        if deleted.code != 0 {
            problems.push(Leaked(format!("{deleted}")));
        }
        let left = Leftovers::after(self.patience, &self.bundle.id, &self.bundle.state_root);
        if !left.is_empty() {
            problems.push(Leaked(format!("left: {left}")));
            Leftovers::remove(&self.bundle.id, &self.bundle.state_root);
        }
    }
}

fn update(id: &str) -> [&str; 10] {
    ["update", "--pids-limit", "60", "--memory", "80m", "--cpu-quota", "60000", "--cpu-share", "700", id]
}

/// What of it is looked at: controller, file, the value of `everything` and the one of `update`.
fn updated() -> [(&'static str, &'static str, &'static str, &'static str); 3] {
    let pids = ("pids", "pids.max", "50", "60");
    match is_v2() {
        true => {
            [pids, ("memory", "memory.max", "67108864", "83886080"), ("cpu", "cpu.max", "50000 100000", "60000 100000")]
        }
        false => [
            pids,
            ("memory", "memory.limit_in_bytes", "67108864", "83886080"),
            ("cpu", "cpu.cfs_quota_us", "50000", "60000"),
        ],
    }
}

/// Mounts, devices, every controller, a terminal, and whatever else takes system calls.
fn everything(bundle: &mut Bundle) {
    bundle.set("/process/terminal", true).set("/process/cwd", "/made/for/it").set("/process/oomScoreAdj", 100);
    bundle.set("/process/consoleSize", json!({"height": 30, "width": 90}));
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1024}]));
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    if need::namespace("time") {
        bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    }
    bundle.image_file("data/file", "x");
    bundle.host_file("shared/file", "x");
    bundle.mount("/data", "tmpfs", "tmpfs", &["tmpcopyup", "nosuid", "ro"]);
    bundle.mount("/shared", "none", "shared", &["rbind", "ro", "rprivate"]);
    bundle.mount("/etc/one", "none", "shared/file", &["bind", "nodev"]);
    bundle.mount("/dev/mqueue", "mqueue", "mqueue", &["noexec"]);
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid"]);
    bundle.set("/linux/devices", json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "uid": 7}]));
    bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/sys/firmware", "/home"]));
    bundle.set("/linux/readonlyPaths", json!(["/proc/sys", "/proc/bus"]));
    bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
    let (major, minor) = disk();
    bundle.set(
        "/linux/resources",
        json!({
            "devices": [{"allow": false, "access": "rwm"}],
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0"},
            "pids": {"limit": 50},
            "blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 30}]},
        }),
    );
    if on_rrun() && need::hugetlb() {
        bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4 << 20}]));
    }
    bundle.set("/root/readonly", true);
}

/// The lane is worth what it catches.
mod the_lane_itself {
    use super::*;
    use crate::leftovers::hierarchies;

    fn rounds_on(lane: &Lane) -> String {
        format!("{:?}", lane.round(Verb::Create, None).1)
    }

    #[test]
    fn finds_nothing_where_nothing_is() {
        assert_eq!(rounds_on(&Lane::new()), "[]");
    }

    #[test]
    fn catches_a_process() {
        let lane = Lane::new();
        let mut planted = Command::new("sleep").arg("1000").env(VARIABLE, &lane.bundle.id).spawn().unwrap();
        let found = rounds_on(&lane);
        let _ = planted.kill();
        planted.wait().unwrap();
        assert!(found.contains("run on while") && found.contains("left: "), "{found}");
    }

    #[test]
    fn catches_a_mount_a_cgroup_and_state() {
        let mut lane = Lane::new();
        let mount = lane.bundle.host_tmpfs("planted", "rw");
        let cgroup = hierarchies()[0].join(format!("{}-planted", lane.bundle.id));
        let state = lane.bundle.state_root.join("planted");
        for dir in [&cgroup, &state] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let found = rounds_on(&lane);
        for planted in [mount, cgroup, state] {
            assert!(found.contains(planted.to_str().unwrap()), "{} is not in {found}", planted.display());
        }
    }

    #[test]
    fn catches_a_late_answer() {
        let lane = Lane { answer_within: Duration::ZERO, ..Lane::new() };
        assert!(rounds_on(&lane).contains("Hung(\"took"));
    }

    #[test]
    fn hits_the_call_that_it_means_to() {
        let lane = Lane::new();
        for who in [Who::Parent, Who::Child] {
            let (trace, _) = lane.round(Verb::Create, Some(At { who, call: 20 }));
            assert_eq!((trace.calls_of(who), trace.hit.is_some()), (20, true), "{trace:?}");
        }
        let (trace, _) = lane.round(Verb::Create, Some(At { who: Who::Parent, call: 100_000 }));
        assert!(trace.hit.is_none() && trace.exit_code == Some(0), "{trace:?}");
    }

    #[test]
    fn is_not_content_with_fewer_calls_than_it_has_seen() {
        let tally =
            |fewest, injected, hung, leaked| Tally { fewest, injected, hung, leaked, step: 1, ..Tally::default() };
        assert!(tally(5, 5, 0, 0).is_clean());
        for tally in [tally(0, 0, 0, 0), tally(5, 4, 0, 0), tally(300, 280, 0, 0), tally(5, 5, 1, 0), tally(5, 5, 0, 1)]
        {
            assert!(!tally.is_clean(), "{tally}");
        }
    }
}
