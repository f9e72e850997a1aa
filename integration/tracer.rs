//! Runs a runtime under ptrace(2) and kills or stops it, or its child, on its way into any one system call.
//!
//! strace counts per system call name, so it cannot be told "the 117th, whatever it is"; this counts them all. What is
//! killed on its way into call n has done n − 1 calls and not the next: the kernel does not run a call whose caller is
//! dying. The wait is for this thread's children alone, so that tests may trace side by side.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::procfs::status;

/// Whose system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The process that was started.
    Parent,
    /// What it clones, or an init that waits for `start`: until it executes the user's program.
    Child,
}

/// The n-th call of one of them, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    pub who: Who,
    pub call: usize,
}

/// What is done to whoever makes that call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    Kill,
    /// SIGSTOP, and tracing ends.
    Stop,
}

#[derive(Debug, Default)]
pub struct Trace {
    /// System calls seen, by who made them.
    pub calls: BTreeMap<Who, usize>,
    /// Number of the system call (see unistd.h) whose caller was killed or stopped.
    pub hit: Option<u64>,
    /// The parent's, if it ended by itself.
    pub exit_code: Option<i32>,
    /// It had to be ended.
    pub hung: bool,
    /// Everybody who was traced.
    pub pids: Vec<i32>,
}

impl Trace {
    pub fn calls_of(&self, who: Who) -> usize {
        self.calls.get(&who).copied().unwrap_or(0)
    }
}

/// How long the traced processes may take in all.
const DEADLINE: Duration = Duration::from_secs(30);
/// A child that makes no call for so long after its parent has ended waits for somebody.
const SETTLED: Duration = Duration::from_millis(30);

/// Runs `command` to its end; whoever is left then goes on untraced. `init` is a process that waits already.
pub fn trace(command: &Command, init: Option<i32>, aim: Option<(At, Then)>) -> Trace {
    let parent = start_stopped(command);
    let mut tracer = Tracer { parent, aim, trace: Trace::default(), known: BTreeMap::new(), everybody: Arc::default() };
    tracer.attach(parent, Who::Parent);
    let _ = kill(parent, Signal::SIGCONT);
    if let Some(init) = init {
        let init = Pid::from_raw(init);
        tracer.attach(init, Who::Child);
        let _ = ptrace::interrupt(init);
    }
    let watchdog = Watchdog::new(tracer.everybody.clone());
    tracer.run();
    tracer.release();
    tracer.trace.hung = watchdog.has_bitten();
    tracer.trace.pids = tracer.everybody.lock().unwrap().clone();
    tracer.trace
}

/// A shell that stops itself and then becomes the command.
fn start_stopped(command: &Command) -> Pid {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    shell.current_dir(command.get_current_dir().expect("a directory to run in"));
    shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    #[allow(clippy::zombie_processes)] // reaped by Tracer
    let child = shell.spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(..)), "{stopped:?}");
    pid
}

struct Tracer {
    parent: Pid,
    aim: Option<(At, Then)>,
    trace: Trace,
    known: BTreeMap<Pid, Process>,
    /// Also who has ended.
    everybody: Arc<Mutex<Vec<i32>>>,
}

struct Process {
    who: Who,
    /// The parent's shell does not count, nor does what the child executes.
    counts: bool,
}

impl Tracer {
    fn attach(&mut self, pid: Pid, who: Who) {
        ptrace::seize(pid, options()).unwrap_or_else(|errno| panic!("trace {pid}: {errno}"));
        self.add(pid, who, who == Who::Child);
    }

    fn add(&mut self, pid: Pid, who: Who, counts: bool) {
        self.everybody.lock().unwrap().push(pid.as_raw());
        self.known.insert(pid, Process { who, counts });
    }

    fn run(&mut self) {
        while let Some(status) = self.next() {
            match status {
                WaitStatus::Exited(pid, code) => self.ended(pid, Some(code)),
                WaitStatus::Signaled(pid, ..) => self.ended(pid, None),
                WaitStatus::PtraceSyscall(pid) => self.system_call(pid),
                WaitStatus::PtraceEvent(_, Signal::SIGSTOP, GROUP_STOP) if self.trace.hit.is_some() => return,
                WaitStatus::PtraceEvent(pid, _, event) => self.event(pid, event),
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    /// `None` when the parent has ended and the rest has settled.
    fn next(&self) -> Option<WaitStatus> {
        let wait = |flags| waitpid(None, Some(flags | WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD));
        if self.known.contains_key(&self.parent) {
            return Some(wait(WaitPidFlag::empty()).expect("the parent is known, and has not ended"));
        }
        let mut patience = SETTLED;
        loop {
            match wait(WaitPidFlag::WNOHANG) {
                Ok(WaitStatus::StillAlive) if patience.is_zero() => return None,
                Ok(WaitStatus::StillAlive) => {
                    std::thread::sleep(Duration::from_millis(1));
                    patience = patience.saturating_sub(Duration::from_millis(1));
                }
                Ok(status) => return Some(status),
                Err(_) => return None,
            }
        }
    }

    fn ended(&mut self, pid: Pid, code: Option<i32>) {
        self.known.remove(&pid);
        if pid == self.parent {
            self.trace.exit_code = code;
        }
    }

    fn system_call(&mut self, pid: Pid) {
        let entry = ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        let process = &self.known[&pid];
        if entry && process.counts {
            let calls = self.trace.calls.entry(process.who).or_default();
            *calls += 1;
            let here = At { who: process.who, call: *calls };
            if let Some((_, then)) = self.aim.filter(|(at, _)| *at == here) {
                self.trace.hit = system_call_number(pid);
                let process = Pid::from_raw(process_of(pid));
                let _ = kill(process, if then == Then::Kill { Signal::SIGKILL } else { Signal::SIGSTOP });
                if then == Then::Kill {
                    return;
                }
            }
        }
        go_on(pid, None);
    }

    fn event(&mut self, pid: Pid, event: i32) {
        if event == Event::PTRACE_EVENT_EXEC as i32 {
            match self.known[&pid].who {
                Who::Parent => self.known.get_mut(&pid).unwrap().counts = true,
                // a `runc init` does so too; what counts is that it has begun to be another program
                Who::Child => {
                    self.known.remove(&pid);
                    let _ = ptrace::detach(pid, None);
                    return;
                }
            }
        } else if [Event::PTRACE_EVENT_CLONE, Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK]
            .iter()
            .any(|made| *made as i32 == event)
        {
            let new = Pid::from_raw(ptrace::getevent(pid).unwrap_or(0) as i32);
            let is_thread = process_of(new) != new.as_raw();
            let who = if is_thread { self.known[&pid].who } else { Who::Child };
            self.add(new, who, true);
        } else if !self.known.contains_key(&pid) {
            // the new process may be heard of before its maker
            self.add(pid, Who::Child, true);
        }
        go_on(pid, None);
    }

    /// Lets everybody who is left go on without us. Who is ending already is waited for.
    fn release(&mut self) {
        for pid in std::mem::take(&mut self.known).into_keys() {
            // one that is stopped already reports nothing more
            if ptrace::detach(pid, None).is_ok() {
                continue;
            }
            let _ = ptrace::interrupt(pid);
            while let Ok(status) = waitpid(pid, Some(WaitPidFlag::__WALL)) {
                let signal = if let WaitStatus::Stopped(_, signal) = status { Some(signal) } else { None };
                let ended = matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
                if ended || ptrace::detach(pid, signal).is_ok() {
                    break;
                }
            }
        }
    }
}

/// PTRACE_EVENT_STOP: stopped as by job control.
const GROUP_STOP: i32 = 128;

fn options() -> Options {
    Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
}

/// It may have been killed meanwhile, which the next wait tells.
fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("continue {pid}: {errno}"),
    }
}

/// The process that a thread belongs to.
fn process_of(thread: Pid) -> i32 {
    status(thread, "Tgid").and_then(|pid| pid.parse().ok()).unwrap_or(thread.as_raw())
}

fn system_call_number(pid: Pid) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?.split(' ').next()?.parse().ok()
}

/// Ends everything when it takes too long; the tracer waits without a deadline.
struct Watchdog {
    bitten: Arc<AtomicBool>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watchdog {
    fn new(everybody: Arc<Mutex<Vec<i32>>>) -> Self {
        let bitten = Arc::new(AtomicBool::new(false));
        let (stop, stopped) = mpsc::channel();
        let bite = bitten.clone();
        let thread = std::thread::spawn(move || {
            if stopped.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                bite.store(true, Ordering::SeqCst);
                for pid in everybody.lock().unwrap().iter() {
                    let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
                }
            }
        });
        Self { bitten, stop: Some(stop), thread: Some(thread) }
    }

    fn has_bitten(mut self) -> bool {
        drop(self.stop.take());
        self.thread.take().map(std::thread::JoinHandle::join);
        self.bitten.load(Ordering::SeqCst)
    }
}
