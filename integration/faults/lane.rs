//! One container, made and killed again and again, and the count of what came of it.

use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::setting::{everything, update};
use crate::bundle::Bundle;
use crate::net_devices::Network;
use crate::tracer::{At, Then, Trace, Who, trace};
use crate::tty::ConsoleSocket;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
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

#[derive(Debug, Default)]
pub struct Tally {
    /// Calls that a round makes which nobody disturbs. A verb that polls makes some more or less every time.
    pub fewest: usize,
    pub most: usize,
    pub injected: usize,
    pub step: usize,
    pub hung: usize,
    pub leaked: usize,
    pub complaints: Vec<String>,
}

impl Tally {
    pub fn is_clean(&self) -> bool {
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
pub enum Problem {
    /// Something did not end or answer in time.
    Hung(String),
    /// Something is there that should not be.
    Leaked(String),
}
/// Where `exec` tells its process.
pub const EXEC_PID: &str = "exec.pid";

/// One container, made and killed again and again: what is left of one round would stop the next.
pub struct Lane {
    pub bundle: Bundle,
    pub socket: ConsoleSocket,
    /// For `state` and `list`.
    pub answer_within: Duration,
    /// For processes that have been told to end.
    pub patience: Duration,
    /// From one call that is met to the next.
    pub step: usize,
    pub by_systemd: bool,
    /// Where `create` is called.
    pub network: Option<Network>,
}

impl Lane {
    pub fn new() -> Self {
        let mut bundle = Bundle::sleeping();
        everything(&mut bundle);
        Self::of(bundle)
    }

    pub fn of(bundle: Bundle) -> Self {
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

    pub fn is_clean(&self, verb: Verb, victims: &[Who]) {
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

    pub fn round(&self, verb: Verb, kill_at: Option<At>) -> (Trace, Vec<Problem>) {
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
}
