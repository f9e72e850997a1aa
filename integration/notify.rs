//! Readiness of a container for the service manager that started it: sd_notify(3), through the runtime.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use serde_json::json;

use crate::bundle::Bundle;
use crate::mounted::mount_at;
use crate::runtime::{Call, Output, eventually_within, on_rrun, run};

const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a command that does not wait to have ended.
const A_WHILE: Duration = Duration::from_millis(400);

/// What listens at NOTIFY_SOCKET, as systemd does.
struct Manager {
    name: String,
    socket: UnixDatagram,
}

impl Manager {
    fn at_path(bundle: &Bundle) -> Self {
        let path = bundle.dir.join("manager.sock");
        Self::new(path.to_str().unwrap().into(), UnixDatagram::bind(&path).unwrap())
    }

    fn abstract_one(bundle: &Bundle) -> Self {
        let address = SocketAddr::from_abstract_name(&bundle.id).unwrap();
        Self::new(format!("@{}", bundle.id), UnixDatagram::bind_addr(&address).unwrap())
    }

    fn new(name: String, socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self { name, socket }
    }

    fn spawn(&self, bundle: &Bundle, args: &[&str]) -> Call {
        Call::new(bundle.command(args).env("NOTIFY_SOCKET", &self.name))
    }

    fn call(&self, bundle: &Bundle, args: &[&str]) -> Output {
        self.spawn(bundle, args).wait()
    }

    /// A created container whose start waits for its readiness.
    fn starting(&self, bundle: &Bundle) -> Call {
        self.call(bundle, &["create", &bundle.id]).ok();
        self.spawn(bundle, &["start", &bundle.id])
    }

    /// The next message. What comes with it is closed.
    fn next(&self) -> Option<String> {
        let (mut text, mut control) = ([0; 4096], cmsg_space!([i32; 8]));
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags).ok()?;
        let length = message.bytes;
        for control in message.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(fds) = control else { continue };
            for fd in fds {
                // SAFETY: the kernel made this descriptor for us just now, and nobody else owns it.
                #[allow(unsafe_code)]
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        Some(String::from_utf8_lossy(&text[..length]).trim_end().to_string())
    }

    #[track_caller]
    fn hears(&self, want: &str) {
        let message = eventually_within(PATIENCE, || self.next());
        assert_eq!(message.as_deref(), Some(want));
    }

    /// All that is said until the command ends.
    #[track_caller]
    fn hears_until_it_ends(&self, mut run: Call) -> Output {
        let mut heard = Vec::new();
        eventually_within(PATIENCE, || {
            heard.extend(std::iter::from_fn(|| self.next()));
            run.child.try_wait().unwrap()
        });
        let output = run.wait();
        assert!(heard.first().is_some_and(|first| first == "READY=1"), "heard {heard:?}: {output}");
        output
    }

    #[track_caller]
    fn hears_that_it_is_ready(&self, pid: i32) {
        self.hears("READY=1");
        if !on_rrun() {
            return; // runc 1.1 tells its own pid, or none, and knows no barrier
        }
        self.hears(&format!("MAINPID={pid}"));
        self.hears("BARRIER=1");
    }
}

/// `notify WORDS` sends each to the socket of the container's environment. Perl, as every Debian has it, does what no
/// busybox can.
fn notifying(script: &str) -> Bundle {
    let send = "socket(my $s, PF_UNIX, SOCK_DGRAM, 0) or die; \
        connect($s, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die \"connect: $!\"; \
        foreach (@ARGV) { send($s, $_, 0) or die \"send: $!\" }";
    let mut bundle = Bundle::sh(&format!("notify() {{ /usr/bin/perl -MSocket -e '{send}' \"$@\"; }}; {script}"));
    for lib in ["lib", "lib64"] {
        symlink(format!("usr/{lib}"), bundle.rootfs(lib)).unwrap();
    }
    bundle.bind("/usr".as_ref(), "/usr", &["ro"]);
    bundle
}

const WHEN_TOLD: &str = "while [ ! -e /go ]; do sleep 0.02; done; notify READY=1; exec sleep 1000";

#[track_caller]
fn still_waits(call: &mut Call) {
    std::thread::sleep(A_WHILE);
    assert!(call.child.try_wait().unwrap().is_none(), "it did not wait");
}

#[test]
fn start_returns_when_the_program_is_ready() {
    let bundle = notifying(WHEN_TOLD);
    let manager = Manager::at_path(&bundle);
    let mut start = manager.starting(&bundle);
    still_waits(&mut start);
    assert_eq!((bundle.status().as_str(), manager.next()), ("running", None));
    bundle.image_file("go", "");
    manager.hears_that_it_is_ready(bundle.pid());
    start.wait().ok();
}

#[test]
fn run_detached_returns_when_the_program_is_ready() {
    let bundle = notifying(WHEN_TOLD);
    let manager = Manager::abstract_one(&bundle);
    let mut run = manager.spawn(&bundle, &["run", "-d", &bundle.id]);
    still_waits(&mut run);
    bundle.image_file("go", "");
    manager.hears_that_it_is_ready(bundle.pid());
    run.wait().ok();
}

#[test]
fn run_in_the_foreground_tells_it_and_stays() {
    let bundle = notifying("notify READY=1; echo told; while [ ! -e /go ]; do sleep 0.02; done; exit 5");
    let manager = Manager::at_path(&bundle);
    let run = manager.spawn(&bundle, &["run", &bundle.id]);
    manager.hears_that_it_is_ready(bundle_pid(&bundle));
    assert_eq!(bundle.status(), "running");
    bundle.image_file("go", "");
    let output = run.wait();
    assert_eq!((output.code, output.stdout.as_str()), (5, "told\n"), "{output}");
}

/// Of a container that is about to be there.
fn bundle_pid(bundle: &Bundle) -> i32 {
    bundle.wait_until("running");
    bundle.pid()
}

// systemd-notify(1) waits for a barrier of its own, and fails where nobody takes it
#[test]
fn what_is_said_after_it_is_still_taken() {
    need!(rrun); // runc takes nothing after READY=1
    let bundle = notifying("notify READY=1 BARRIER=1; echo $? > /sent; exec sleep 1000");
    let manager = Manager::at_path(&bundle);
    let start = manager.starting(&bundle);
    manager.hears_that_it_is_ready(bundle_pid(&bundle));
    start.wait().ok();
    let sent = || std::fs::read_to_string(bundle.rootfs("sent")).ok().filter(|sent| !sent.is_empty());
    assert_eq!(eventually_within(PATIENCE, sent).as_deref(), Some("0\n"));

    let bundle = notifying("notify READY=1; sleep 0.3; notify STATUS=x; echo $?");
    let manager = Manager::at_path(&bundle);
    let run = manager.spawn(&bundle, &["run", &bundle.id]);
    let output = manager.hears_until_it_ends(run);
    assert_eq!(output.ok(), "0\n");
}

#[test]
fn readiness_of_a_program_that_ends_at_once_is_told() {
    need!(rrun); // runc looks for the process first
    let bundle = notifying("notify READY=1");
    for verb in [&["run"][..], &["run", "-d"]] {
        let manager = Manager::abstract_one(&bundle);
        let run = manager.spawn(&bundle, &[verb, &[&bundle.id]].concat());
        manager.hears("READY=1");
        assert!(eventually_within(PATIENCE, || manager.next()).is_some_and(|line| line.starts_with("MAINPID=")));
        manager.hears("BARRIER=1");
        run.wait().ok();
        bundle.delete_force().ok();
    }
}

#[test]
fn nobody_waits_for_a_program_that_has_ended() {
    need!(rrun); // `runc run -d` waits for ever
    let bundle = Bundle::sh("exit 3");
    let manager = Manager::at_path(&bundle);
    manager.starting(&bundle).wait().ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    manager.call(&bundle, &["run", "-d", &bundle.id]).ok();
    bundle.delete_force().ok();
    assert_eq!(manager.call(&bundle, &["run", &bundle.id]).code, 3);
    assert_eq!(manager.next(), None);
}

#[test]
fn one_that_never_says_so_can_be_looked_at_paused_and_killed() {
    let bundle = Bundle::sleeping();
    let manager = Manager::at_path(&bundle);
    let mut start = manager.starting(&bundle);
    bundle.wait_until("running");
    bundle.pause().ok();
    bundle.resume().ok();
    still_waits(&mut start);
    bundle.kill("KILL").ok();
    start.wait().ok();
    assert_eq!(manager.next(), None);
}

#[test]
fn a_start_that_is_told_to_end_leaves_the_container_and_a_run_takes_it_away() {
    need!(rrun); // runc passes the signal on, to a container that it has left
    let bundle = Bundle::sleeping();
    let manager = Manager::at_path(&bundle);
    let start = manager.starting(&bundle);
    bundle.wait_until("running");
    kill(Pid::from_raw(start.pid()), Signal::SIGTERM).unwrap();
    assert_eq!(start.wait().code, 128 + 15);
    assert_eq!(bundle.status(), "running");
    bundle.delete_force().ok();

    let run = manager.spawn(&bundle, &["run", "-d", &bundle.id]);
    bundle.wait_until("running");
    kill(Pid::from_raw(run.pid()), Signal::SIGTERM).unwrap();
    run.wait().refused(&["SIGTERM", "not ready"]);
    bundle.leaves_nothing();
}

#[test]
fn a_start_that_is_killed_leaves_nothing_that_stays() {
    let bundle = Bundle::sleeping();
    let manager = Manager::at_path(&bundle);
    let mut start = manager.starting(&bundle);
    bundle.wait_until("running");
    start.child.kill().unwrap();
    start.wait();
    assert!(bundle.state_root.join(&bundle.id).join("notify/notify.sock").exists());
    bundle.delete_force().ok();
    bundle.leaves_nothing();
}

#[test]
fn any_user_of_the_container_may_notify() {
    let mut bundle = notifying("notify READY=1; echo $?");
    bundle.set("/process/user", json!({"uid": 1000, "gid": 1000}));
    let manager = Manager::at_path(&bundle);
    let run = manager.spawn(&bundle, &["run", &bundle.id]);
    assert_eq!(manager.hears_until_it_ends(run).ok(), "0\n");
}

#[test]
fn the_socket_is_seen_whatever_the_config_mounts_on_run() {
    let mut bundle = notifying("cat /proc/self/mountinfo; echo $NOTIFY_SOCKET >&2; notify READY=1");
    bundle.mount("/run", "tmpfs", "tmpfs", &["nosuid", "ro"]);
    bundle.set("/process/env/-", "NOTIFY_SOCKET=/of/the/image");
    let manager = Manager::at_path(&bundle);
    let run = manager.spawn(&bundle, &["run", &bundle.id]);
    let output = manager.hears_until_it_ends(run);
    assert_eq!((output.code, output.stderr.as_str()), (0, "/run/notify/notify.sock\n"), "{output}");
    let mounts = crate::mounted::Mounted::parse(&output.stdout);
    let mount = mount_at(&mounts, "/run/notify");
    assert!(["ro", "nosuid", "nodev", "noexec"].iter().all(|option| mount.has(option)), "{mount:?}");
}

// the container's own idea of which process systemd should look after, or keep descriptors of
#[test]
fn nothing_but_readiness_is_passed_on() {
    need!(rrun); // runc wants READY=1 as the first line
    let bundle = notifying(
        "notify STATUS=starting; notify MAINPID=1; notify XREADY=1; notify READY=0; \
         notify \"$(printf 'STATUS=x\\nREADY=1\\nMAINPID=1\\nFDSTORE=1')\"; exec sleep 1000",
    );
    let manager = Manager::at_path(&bundle);
    let start = manager.starting(&bundle);
    manager.hears_that_it_is_ready(bundle_pid(&bundle));
    start.wait().ok();
    assert_eq!(manager.next(), None);
}

// docker's directory and its ids of 64 digits are too long for the address of a socket
#[test]
fn a_long_path_of_the_state_is_no_obstacle() {
    need!(rrun); // runc binds the whole path
    let mut bundle = notifying("notify READY=1; exec sleep 1000");
    bundle.state_root = bundle.dir.join("x".repeat(120));
    let manager = Manager::at_path(&bundle);
    let start = manager.starting(&bundle);
    manager.hears_that_it_is_ready(bundle_pid(&bundle));
    start.wait().ok();
}

// an address holds 107 bytes
#[test]
fn a_manager_may_listen_deep() {
    need!(rrun); // runc binds what it cannot reach
    let bundle = notifying("notify READY=1; exec sleep 1000");
    let mut manager = Manager::at_path(&bundle);
    let deep = bundle.dir.join("x".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    let path = deep.join("manager.sock");
    std::fs::rename(&manager.name, &path).unwrap();
    manager.name = path.to_str().unwrap().into();
    let start = manager.starting(&bundle);
    manager.hears_that_it_is_ready(bundle_pid(&bundle));
    start.wait().ok();
}

#[test]
fn a_container_that_was_created_without_it_starts_without_it() {
    need!(rrun); // runc fails
    let bundle = Bundle::sleeping();
    let manager = Manager::at_path(&bundle);
    bundle.create().ok();
    manager.call(&bundle, &["start", &bundle.id]).ok();
    bundle.delete_force().ok();
    manager.call(&bundle, &["create", &bundle.id]).ok();
    bundle.start().ok();
    assert_eq!((bundle.status().as_str(), manager.next()), ("running", None));
}

#[test]
fn where_nobody_listens_nothing_is_started() {
    need!(rrun); // runc starts it and fails then
    let bundle = Bundle::sleeping();
    let call = |args: &[&str], name: &str| run(bundle.command(args).env("NOTIFY_SOCKET", name));
    for verb in [&["run"][..], &["run", "-d"]] {
        call(&[verb, &[&bundle.id]].concat(), "/missing.sock").refused(&["NOTIFY_SOCKET", "/missing.sock"]);
        bundle.leaves_nothing();
    }
    for name in ["relative.sock", "@", "vsock:2:1", &format!("/{}", "x".repeat(108))] {
        call(&["create", &bundle.id], name).refused(&["NOTIFY_SOCKET"]);
        bundle.leaves_nothing();
    }
    call(&["create", &bundle.id], "/missing.sock").ok();
    call(&["start", &bundle.id], "/missing.sock").refused(&["NOTIFY_SOCKET", "/missing.sock"]);
    assert_eq!(bundle.status(), "created");
    bundle.start().ok();
}

#[test]
fn without_a_mount_namespace_there_is_no_place_for_the_socket() {
    need!(rrun); // runc waits for what cannot come
    let mut bundle = Bundle::sleeping();
    bundle.without_namespace("mount").set("/mounts", json!([]));
    for pointer in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        bundle.set(pointer, json!([]));
    }
    let manager = Manager::at_path(&bundle);
    manager.call(&bundle, &["create", &bundle.id]).refused(&["NOTIFY_SOCKET", "mount namespace"]);
    bundle.leaves_nothing();
}
