//! A systemd that is not there, hangs, or is something else: `create` says so in time, and what may come of it is removed.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::{alone, create, goes, in_unit, systemctl, unit, with_systemd};
use crate::bundle::Bundle;
use crate::runtime::{Call, Output, rounds, run};

#[test]
fn a_host_without_systemd_is_told_before_anything_is_made() {
    need!(rrun); // others fall back, or say so late
    let bundle = in_unit(Bundle::sleeping());
    let nowhere = bundle.dir.join("nowhere");
    let address = format!("unix:path={}", nowhere.display());
    let mut command = bundle.command(&["--systemd-cgroup", "create", &bundle.id]);
    let output = run(command.env("DBUS_SYSTEM_BUS_ADDRESS", &address));
    output.refused(&["--systemd-cgroup: ", "nobody answers for systemd: ", &address, "(ENOENT)"]);
    assert!(!bundle.state_root.exists(), "something was made");
    bundle.leaves_nothing();
}

/// What a socket says whose other side is no systemd, or hangs.
#[test]
fn a_bus_that_is_silent_or_speaks_nonsense() {
    need!(rrun); // others wait for ever
    let endless = "DATA\r\n".repeat(1000);
    let garbage = ["OK 1\r\n", "l\u{2}\0\u{1}", &"\u{7f}".repeat(60)].concat();
    for (says, words) in [
        ("", "systemd has not answered within 0.3 s"),
        (&endless, "systemd has not answered within 0.3 s"),
        ("OK 1234\r\n", "systemd has not answered within 0.3 s"),
        ("REJECTED EXTERNAL\r\n", "does not let this user in"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak D-Bus"),
        (&"x".repeat(40_000), "does not speak D-Bus"),
        ("OK 1234\r\nnonsense that is long enough", "does not speak D-Bus"),
        (&garbage, "says more at once than rrun expects"),
    ] {
        let bundle = in_unit(Bundle::sleeping());
        let path = bundle.host_file("sockets/none", "").with_file_name("bus");
        let listener = UnixListener::bind(&path).unwrap();
        let said = says.to_string();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(said.as_bytes());
            // until it is given up
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut command = bundle.command(&["--systemd-cgroup", "create", &bundle.id]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", path.display())).env(TIMEOUT, "0.3");
        let output = run(&mut command);
        output.refused(&["--systemd-cgroup: ", words]);
        assert!(output.took < Duration::from_secs(2), "{output}");
        server.join().unwrap();
        bundle.leaves_nothing();
    }
}

const TIMEOUT: &str = "RRUN_SYSTEMD_TIMEOUT";

/// Somebody without whom systemd does not answer, held until this is dropped.
enum Held {
    Stopped(Pid),
    Traced(Pid),
}

impl Held {
    fn bus() -> Self {
        let pid = systemctl(&["show", "dbus.service", "--value", "-p", "MainPID"]);
        let pid = Pid::from_raw(pid.parse().unwrap());
        kill(pid, Signal::SIGSTOP).unwrap();
        Self::Stopped(pid)
    }

    /// The kernel keeps SIGSTOP from process 1; a tracer can hold it all the same.
    fn systemd() -> Self {
        let pid = Pid::from_raw(1);
        ptrace::seize(pid, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(pid).unwrap();
        waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
        Self::Traced(pid)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self {
            Self::Stopped(pid) => kill(*pid, Signal::SIGCONT).unwrap(),
            Self::Traced(pid) => ptrace::detach(*pid, None).unwrap(),
        }
    }
}

/// In turns, also with few rounds, which are every other one.
fn who_is_held(round: u64) -> fn() -> Held {
    if (round / 2).is_multiple_of(2) { Held::bus } else { Held::systemd }
}

fn is_deleted(round: u64) -> bool {
    (round / 4).is_multiple_of(2)
}

// runc #3904, #4481: hangs for ever
#[test]
fn a_systemd_that_does_not_answer_is_given_up_and_what_comes_of_it_is_removed() {
    systemd!();
    need!(rrun); // others hang
    let _alone = alone();
    for round in rounds(10) {
        let bundle = in_unit(Bundle::sleeping());
        let held = who_is_held(round)();
        let mut command = bundle.command(&["--systemd-cgroup", "create", &bundle.id]);
        let output = run(command.env(TIMEOUT, "1"));
        drop(held);
        output.refused(&["systemd has not answered within 1 s"]);
        assert!(output.took < Duration::from_secs(5), "{output}");
        match is_deleted(round) {
            true => {
                bundle.delete_force().ok();
                goes(&unit(&bundle));
                bundle.leaves_nothing();
            }
            false => create(&bundle),
        }
    }
}

/// In the middle: it has been greeted, and stops when it is asked for the unit.
#[test]
fn a_unit_that_was_asked_for_may_still_appear_and_is_removed() {
    systemd!();
    need!(rrun); // others hang
    let _alone = alone();
    for round in rounds(10) {
        let bundle = in_unit(Bundle::sleeping());
        let (name, id) = (unit(&bundle), bundle.id.as_str());
        let output = asked_of_one_that_stops(&bundle, START, who_is_held(round), "2");
        output.refused(&[&format!("unit {name} may still appear"), "delete --force", "has not answered within 2 s"]);
        let record = fs::read_to_string(bundle.state_root.join(id).join("state.json")).unwrap();
        assert!(record.contains(&format!("\"name\":\"{name}\"")), "{record}");
        match is_deleted(round) {
            true => {
                bundle.delete_force().ok();
                goes(&name);
                bundle.leaves_nothing();
            }
            // who takes the id next removes it as well
            false => create(&bundle),
        }
    }
}

#[test]
fn the_caller_of_create_has_an_answer_within_thirty_seconds() {
    systemd!();
    need!(rrun); // others hang
    let _alone = alone();
    let bundle = in_unit(Bundle::sleeping());
    let output = asked_of_one_that_stops(&bundle, START, Held::bus, "");
    output.refused(&["may still appear", "systemd has not answered within 25 s"]);
    assert!(output.took < Duration::from_secs(30), "{output}");
    bundle.delete_force().ok();
    goes(&unit(&bundle));
    bundle.leaves_nothing();
}

/// What is undone then asks it again.
#[test]
fn one_that_falls_silent_later_is_waited_for_once() {
    systemd!();
    need!(rrun); // others hang
    let _alone = alone();
    for is_deleted in [true, false] {
        let mut bundle = in_unit(Bundle::sleeping());
        bundle.set("/linux/resources/memory/limit", 50 << 20);
        let output = asked_of_one_that_stops(&bundle, "SetUnitProperties", Held::bus, "5");
        output.refused(&["systemd has not answered within 5 s"]);
        assert!(output.took < Duration::from_millis(9500), "{output}");
        if is_deleted {
            bundle.delete_force().ok();
            goes(&unit(&bundle));
            bundle.leaves_nothing();
        } else {
            assert_eq!(bundle.status(), "stopped", "of what was given up");
            create(&bundle);
            bundle.start().ok();
        }
    }
}

/// On v1 it has the container frozen meanwhile.
#[test]
fn an_update_that_is_killed_when_systemd_is_told_leaves_the_container_running() {
    systemd!();
    need!(rrun);
    let _systemd = with_systemd();
    let bundle = in_unit(Bundle::sleeping());
    create(&bundle);
    bundle.start().ok();
    let between = Between::new(&bundle, "SetUnitProperties");
    let mut command = bundle.command(&["update", "--pids-limit", "55", &bundle.id]);
    let mut call = Call::new(command.env("DBUS_SYSTEM_BUS_ADDRESS", between.address()));
    between.hears();
    call.child.kill().unwrap();
    call.wait();
    between.ends();
    assert_eq!(bundle.status(), "running");
    bundle.call(&["exec", &bundle.id, "true"]).ok();
}

const START: &str = "StartTransientUnit";

/// `create` with a go-between to the bus, by which we know when a method is called.
fn asked_of_one_that_stops(bundle: &Bundle, method: &'static str, hold: fn() -> Held, timeout: &str) -> Output {
    let between = Between::new(bundle, method);
    let mut command = bundle.command(&["--systemd-cgroup", "create", &bundle.id]);
    let call = Call::new(command.env("DBUS_SYSTEM_BUS_ADDRESS", between.address()).env(TIMEOUT, timeout));
    between.hears();
    let held = hold();
    between.go_on.send(()).unwrap();
    let output = call.wait();
    drop(held);
    between.ends();
    output
}

/// Passes everything on, but waits when a method is called.
struct Between {
    path: PathBuf,
    asked: mpsc::Receiver<()>,
    go_on: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Between {
    fn new(bundle: &Bundle, method: &'static str) -> Self {
        let path = bundle.host_file("sockets/none", "").with_file_name("bus");
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let (asked, hear) = mpsc::channel();
        let (go_on, may_go_on) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut bus = UnixStream::connect("/run/dbus/system_bus_socket").unwrap();
            for stream in [&client, &bus] {
                stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            }
            let mut buffer = [0; 65536];
            loop {
                match client.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => {
                        if buffer[..length].windows(method.len()).any(|word| word == method.as_bytes()) {
                            asked.send(()).unwrap();
                            if may_go_on.recv().is_err() {
                                return;
                            }
                        }
                        bus.write_all(&buffer[..length]).unwrap();
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if let Ok(length) = bus.read(&mut buffer) {
                    let _ = client.write_all(&buffer[..length]);
                }
            }
        });
        Self { path, asked: hear, go_on, thread }
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.path.display())
    }

    fn hears(&self) {
        self.asked.recv_timeout(Duration::from_secs(20)).expect("systemd is asked");
    }

    fn ends(self) {
        drop(self.go_on);
        self.thread.join().unwrap();
    }
}
