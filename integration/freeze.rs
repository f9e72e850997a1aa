//! `pause` and `resume`.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::bundle::Bundle;
use crate::layout::{freezer_state, is_v2, set_frozen};
use crate::leftovers::{hierarchies, is_alive, status_letter};
use crate::runtime::{Call, eventually_within, on_rrun, rounds};

/// Counts in its output, as fast as it can.
const COUNTING: &str = "while :; do echo; done > /out/file";

fn counting() -> (Bundle, PathBuf) {
    let mut bundle = Bundle::sh(COUNTING);
    let file = bundle.host_file("out/file", "");
    bundle.bind(file.parent().unwrap(), "/out", &["rw"]);
    (bundle, file)
}

fn grows(file: &Path) -> bool {
    let length = || fs::metadata(file).unwrap().len();
    let before = length();
    eventually_within(Duration::from_millis(300), || (length() > before).then_some(())).is_some()
}

#[test]
fn a_paused_container_does_nothing_until_it_is_resumed() {
    let (bundle, file) = counting();
    bundle.run_detached().ok();
    assert!(grows(&file));
    for _ in 0..3 {
        bundle.pause().ok();
        assert_eq!(bundle.status(), "paused");
        assert!(!grows(&file));
        bundle.resume().ok();
        assert_eq!(bundle.status(), "running");
        assert!(grows(&file));
    }
}

#[test]
fn what_cannot_be_paused_or_resumed_says_why() {
    let bundle = Bundle::sleeping();
    bundle.pause().refused(&["container does not exist"]);
    bundle.resume().refused(&["container does not exist"]);
    bundle.run_detached().ok();
    bundle.resume().refused(&["container not paused"]);
    bundle.pause().ok();
    bundle.pause().refused(&["container not running"]);
    bundle.resume().ok();
    bundle.resume().refused(&["container not paused"]);
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.pause().refused(&["container not running"]);
    bundle.resume().refused(&["container not paused"]);
}

#[test]
fn a_created_container_can_be_paused_and_does_not_start_meanwhile() {
    let bundle = Bundle::sleeping();
    bundle.create().ok();
    bundle.pause().ok();
    assert_eq!(bundle.status(), "paused");
    bundle.start().refused(&["cannot start a container in the paused state"]);
    bundle.resume().ok();
    assert_eq!(bundle.status(), "created");
    bundle.start().ok();
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_paused_container_can_be_killed_and_deleted() {
    let bundle = Bundle::sleeping();
    for delete in [Bundle::delete, Bundle::delete_force] {
        bundle.run_detached().ok();
        bundle.pause().ok();
        bundle.delete().refused(&[&format!("cannot delete container {} that is not stopped: paused", bundle.id)]);
        bundle.kill("KILL").ok();
        bundle.wait_until("stopped");
        delete(&bundle).ok();
        bundle.leaves_nothing();
    }
    for prepare in [Bundle::create, Bundle::run_detached] {
        prepare(&bundle).ok();
        bundle.pause().ok();
        let deleted = bundle.delete_force();
        deleted.ok();
        assert!(deleted.took < Duration::from_secs(5), "{deleted}");
        bundle.leaves_nothing();
    }
}

#[test]
fn kill_9_ends_all_of_a_paused_container_without_a_pid_namespace() {
    let mut bundle = Bundle::sh("sleep 1000 & sleep 1000 & echo ready; wait");
    bundle.without_namespace("pid");
    let run = bundle.run_detached();
    assert!(eventually_within(Duration::from_secs(5), || run.later().contains("ready").then_some(())).is_some());
    let pids = pids(&bundle);
    assert_eq!(pids.len(), 3);
    bundle.pause().ok();
    bundle.call(&["kill", "--all", &bundle.id, "KILL"]).ok();
    let gone = || pids.iter().all(|pid| !is_alive(*pid)).then_some(());
    assert!(eventually_within(Duration::from_secs(3), gone).is_some(), "{pids:?}");
}

// any other waits for the resume
#[test]
fn a_signal_to_a_paused_container_comes_when_it_is_resumed() {
    let bundle = Bundle::sh("trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done");
    let run = bundle.spawn(&["run", &bundle.id]);
    assert!(eventually_within(Duration::from_secs(9), || run.so_far().contains("ready").then_some(())).is_some());
    bundle.pause().ok();
    bundle.kill("TERM").ok();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(bundle.status(), "paused");
    bundle.resume().ok();
    assert_eq!(run.wait().code, 7);
}

fn pids(bundle: &Bundle) -> Vec<i32> {
    serde_json::from_str(bundle.call(&["ps", "--format", "json", &bundle.id]).ok()).unwrap()
}

fn state_of_freezer(bundle: &Bundle) -> &'static str {
    freezer_state(&bundle.cgroup("freezer"))
}

/// By v1 a frozen process shows as one that the kernel holds, by v2 as one that sleeps there.
fn all_are_held(pids: &[i32]) -> bool {
    // by the function that do_freezer_trap may have become a part of
    let place = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap();
    let sleeps_there = |pid: &i32| ["get_signal", "do_freezer_trap"].contains(&place(pid).as_str());
    pids.iter().all(|pid| if is_v2() { sleeps_there(pid) } else { status_letter(*pid) == Some('D') })
}

#[test]
fn every_one_of_many_processes_is_frozen_when_pause_returns() {
    let bundle = Bundle::sh("for i in $(seq 300); do sleep 1000 & done; echo ready; wait");
    let run = bundle.run_detached();
    assert!(eventually_within(Duration::from_secs(9), || run.later().contains("ready").then_some(())).is_some());
    for _ in 0..3 {
        bundle.pause().ok();
        assert_eq!(state_of_freezer(&bundle), "FROZEN");
        let pids = pids(&bundle);
        assert!(pids.len() == 301 && all_are_held(&pids), "{} processes", pids.len());
        bundle.resume().ok();
        assert_eq!(state_of_freezer(&bundle), "THAWED");
    }
}

#[test]
fn processes_that_fork_all_the_time_are_frozen() {
    let bundle = Bundle::sh("for i in 1 2 3; do while :; do busybox true; done & done; while :; do (true); done");
    bundle.run_detached().ok();
    for _ in rounds(10) {
        bundle.pause().ok();
        assert_eq!(state_of_freezer(&bundle), "FROZEN");
        let before = pids(&bundle);
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(pids(&bundle), before);
        bundle.resume().ok();
    }
}

#[test]
fn processes_in_cgroups_below_are_frozen_and_one_frozen_there_stays_so() {
    let bundle = Bundle::sh("sleep 1000 & sleep 1000 & echo ready; wait");
    let run = bundle.run_detached();
    assert!(eventually_within(Duration::from_secs(5), || run.later().contains("ready").then_some(())).is_some());
    let own: Vec<i32> = pids(&bundle).into_iter().filter(|pid| *pid != bundle.pid()).collect();
    for (name, pid) in ["one", "two"].iter().zip(&own) {
        let below = bundle.cgroup("freezer").join(name);
        fs::create_dir(&below).unwrap();
        fs::write(below.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let one = bundle.cgroup("freezer").join("one");
    set_frozen(&one, true);
    assert_eq!(bundle.status(), "running", "only a part of it is frozen");
    bundle.pause().ok();
    assert!(all_are_held(&pids(&bundle)));
    bundle.resume().ok();
    assert_eq!(freezer_state(&one), "FROZEN");
    assert!(!all_are_held(&own[1..]));
    if on_rrun() {
        // a peer waits in vain: init cannot end before a process that is frozen
        bundle.delete_force().ok();
        bundle.leaves_nothing();
    } else {
        set_frozen(&one, false);
    }
}

/// A process of the host that was killed while it waits for an answer that a file system has been asked for and does not
/// give: no freezer gets at it, and it ends when the file system does.
struct Unfreezable {
    child: Child,
    mountpoint: PathBuf,
    device: Option<fs::File>,
}

impl Unfreezable {
    fn inside(bundle: &Bundle) -> Self {
        let mountpoint = bundle.dir.join("unserved");
        fs::create_dir(&mountpoint).unwrap();
        let mut device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("unserved"), &mountpoint, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        answer_init(&mut device);
        let child = Command::new("cat").arg(mountpoint.join("x")).stderr(Stdio::null()).spawn().unwrap();
        // taken, so the kernel waits for an answer even if who asked is killed
        let _ = device.read(&mut [0; 1 << 16]).unwrap();
        let this = Self { child, mountpoint, device: Some(device) };
        kill(this.pid(), Signal::SIGKILL).unwrap();
        fs::write(bundle.cgroup("freezer").join("cgroup.procs"), this.pid().to_string()).unwrap();
        this
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

/// fuse(4): the first request, of a header whose bytes 8 to 16 are its number. The answer: length, error, number, and
/// the version of the protocol that is spoken.
fn answer_init(device: &mut fs::File) {
    let mut request = [0; 1 << 16];
    let _ = device.read(&mut request).unwrap();
    let mut answer = [0; 16 + 64];
    answer[..4].copy_from_slice(&80_u32.to_ne_bytes());
    answer[8..16].copy_from_slice(&request[8..16]);
    answer[16..20].copy_from_slice(&7_u32.to_ne_bytes());
    answer[20..24].copy_from_slice(&31_u32.to_ne_bytes());
    device.write_all(&answer).unwrap();
}

impl Drop for Unfreezable {
    fn drop(&mut self) {
        let _ = umount2(&self.mountpoint, MntFlags::MNT_DETACH);
        drop(self.device.take());
        let _ = eventually_within(Duration::from_secs(3), || self.child.try_wait().ok()?);
    }
}

#[test]
fn a_pause_that_cannot_be_finished_is_undone_and_says_who_is_in_the_way() {
    need!(rrun, fuse);
    let (bundle, file) = counting();
    bundle.run_detached().ok();
    let stuck = Unfreezable::inside(&bundle);
    let pid = stuck.pid();
    let since = Instant::now();
    let output = bundle.pause();
    output.refused(&["not all of it freezes within 10 s", &format!("{pid} (cat) is in state "), "thawed again"]);
    assert!(since.elapsed() < Duration::from_secs(12), "{output}");
    assert_eq!(output.stderr.matches(" is in state ").count(), 1, "the others are frozen: {output}");
    assert_eq!((bundle.status().as_str(), state_of_freezer(&bundle)), ("running", "THAWED"));
    assert!(grows(&file));
    drop(stuck);
    bundle.pause().ok();
}

/// A container whose `pause` cannot be finished, while it tries.
fn paused_in_vain() -> (Bundle, Unfreezable, Call) {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let stuck = Unfreezable::inside(&bundle);
    let pause = bundle.spawn(&["pause", &bundle.id]);
    bundle.wait_until("paused");
    (bundle, stuck, pause)
}

#[test]
fn commands_answer_while_a_pause_waits_and_kill_9_ends_it() {
    need!(rrun, fuse);
    let (bundle, stuck, pause) = paused_in_vain();
    // between two tries of `pause` it is not
    let listed = || {
        let listed = bundle.call(&["list"]);
        assert!(listed.took < Duration::from_secs(5), "{listed}");
        listed.ok().contains("paused").then_some(())
    };
    eventually_within(Duration::from_secs(5), listed).expect("listed as paused");
    bundle.kill("KILL").ok();
    let output = pause.wait();
    output.refused(&["container not running"]);
    assert!(output.took < Duration::from_secs(5), "{output}");
    assert_eq!(state_of_freezer(&bundle), "THAWED");
    drop(stuck);
}

#[test]
fn a_pause_loses_against_a_resume_and_says_so() {
    need!(rrun, fuse);
    let (bundle, stuck, pause) = paused_in_vain();
    // between two tries of `pause` it is not
    eventually_within(Duration::from_secs(5), || (bundle.resume().code == 0).then_some(())).expect("resumed");
    pause.wait().refused(&["somebody thawed it"]);
    assert_eq!(bundle.status(), "running");
    drop(stuck);
}

/// As an `update` by systemd leaves it on v1 when it is killed.
#[test]
fn what_a_dead_update_froze_is_thawed_and_what_was_paused_is_not() {
    need!(rrun); // others leave it so
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    let record = bundle.state_root.join(&bundle.id);
    let (mark, freezer) = (record.join("update.frozen"), bundle.cgroup("freezer"));
    let left = || {
        fs::write(&mark, "").unwrap();
        set_frozen(&freezer, true);
    };
    left();
    // one that lives holds the lock, and thaws it itself
    let lock = Flock::lock(fs::File::open(&record).unwrap(), FlockArg::LockExclusive).unwrap();
    assert_eq!(bundle.status(), "paused");
    drop(lock);
    assert_eq!(bundle.status(), "running");
    assert!(!mark.exists());
    left();
    bundle.call(&["exec", &bundle.id, "true"]).ok();
    left();
    bundle.call(&["update", "--pids-limit", "50", &bundle.id]).ok();
    assert_eq!(bundle.status(), "running");
    // killed just after it had thawed
    fs::write(&mark, "").unwrap();
    bundle.pause().ok();
    assert_eq!((bundle.status().as_str(), mark.exists()), ("paused", false));
    bundle.resume().ok();
    left();
    bundle.pause().ok();
    assert_eq!(bundle.status(), "paused");
    bundle.resume().ok();
    left();
    bundle.delete().refused(&["running"]);
    left();
    bundle.delete_force().ok();
}

#[test]
fn a_container_below_a_frozen_cgroup_is_not_resumed_by_itself() {
    need!(rrun);
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/cgroupsPath", format!("/{}/inner", bundle.id));
    bundle.run_detached().ok();
    let above = bundle.cgroup("freezer");
    bundle.pause().ok();
    set_frozen(&above, true);
    bundle.resume().refused(&["a cgroup above the container's is frozen too; thaw it"]);
    set_frozen(&above, false);
    assert_eq!(bundle.status(), "running");
    bundle.pause().ok();
    bundle.resume().ok();
    bundle.delete_force().ok();
    for hierarchy in hierarchies() {
        let _ = fs::remove_dir(hierarchy.join(&bundle.id)); // what lies above is not the container's
    }
}

// a host without the v1 freezer
#[test]
fn the_v2_tree_freezes_where_there_is_no_freezer() {
    layout!(Hybrid); // freezing by v2 alone is what all the others do there
    need!(rrun);
    let (bundle, file) = counting();
    bundle.run_detached().ok();
    let path = bundle.state_root.join(&bundle.id).join("state.json");
    let recorded = fs::read(&path).unwrap();
    let mut state: Value = serde_json::from_slice(&recorded).unwrap();
    assert!(state["cgroup_paths"].as_object_mut().unwrap().remove("freezer").is_some());
    fs::write(&path, serde_json::to_vec(&state).unwrap()).unwrap();
    bundle.pause().ok();
    assert_eq!(bundle.status(), "paused");
    let events = fs::read_to_string(bundle.cgroup("unified").join("cgroup.events")).unwrap();
    assert!(events.contains("frozen 1") && !grows(&file), "{events}");
    assert_eq!(state_of_freezer(&bundle), "THAWED");
    bundle.resume().ok();
    assert!(bundle.status() == "running" && grows(&file));
    fs::write(&path, recorded).unwrap();
}

#[test]
fn pausing_says_nothing_and_waits_for_no_lock_of_a_state() {
    let bundle = Bundle::sleeping();
    bundle.run_detached().ok();
    for verb in ["pause", "resume"] {
        let output = bundle.call(&[verb, &bundle.id]);
        assert_eq!(output.ok(), "", "{output}");
        if on_rrun() {
            assert!(output.took < Duration::from_secs(5), "{output}");
        }
    }
}
