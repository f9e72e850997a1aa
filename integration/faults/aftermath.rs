//! What a killed rrun may leave: what is recorded answers, works and goes away, and nothing else is there.

use serde_json::Value;

use super::lane::Problem::{self, Hung, Leaked};
use super::lane::{EXEC_PID, Lane, Verb};
use super::setting::{update, updated};
use crate::leftovers::{Leftovers, is_alive};
use crate::runtime::{Output, eventually_within};
use crate::tracer::{At, Trace, Who};

impl Lane {
    pub fn examine(&self, verb: Verb, kill_at: Option<At>, trace: &Trace) -> Vec<Problem> {
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
