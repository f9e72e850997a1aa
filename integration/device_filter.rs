//! Devices on cgroup v2: no files there, but a program that the kernel asks. Beside v1 hierarchies it is seen where the
//! one of the devices is not mounted.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rrun::cgroup::{DeviceFilter, attach_device_filter};
use rrun::sys::bpf::{self, Instruction};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::layout::{is_v2, mountpoint};
use crate::runtime::{self, Output, on_rrun};

/// The top of the v2 tree.
fn tree() -> PathBuf {
    mountpoint("unified")
}

/// Runs it where no v1 hierarchy has the devices.
fn run(bundle: &Bundle) -> Output {
    let command = bundle.command(&["run", &bundle.id]);
    let mut elsewhere = Command::new("unshare");
    let script = "if mountpoint -q /sys/fs/cgroup/devices; then umount /sys/fs/cgroup/devices; fi; exec \"$@\"";
    elsewhere.args(["-m", "sh", "-ec", script, "sh"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        elsewhere.env(name, value.unwrap());
    }
    runtime::run(elsewhere.current_dir(command.get_current_dir().unwrap()))
}

/// Nodes of numbers that no driver has: whoever may open one is told that there is no such device.
fn with_nodes(rules: Value) -> Bundle {
    let mut bundle = Bundle::sh(
        "for node in c240:1 c240:2 c241:1 c241:7 b240:1 b240:2; do for way in '<' '<>'; do
             case $(eval \"true $way /dev/$node\" 2>&1) in
                 *'No such device'*) echo $node $way yes;; *'not permitted'*) echo $node $way no;; *) echo $node $way;;
             esac
         done; done; echo x > /dev/null && head -c 1 /dev/zero | wc -c && mknod /tmp/any c 240 9 && echo made",
    );
    let node = |name: &&str| {
        let (major, minor) = name[1..].split_once(':').unwrap();
        let [major, minor] = [major, minor].map(|number| number.parse::<u32>().unwrap());
        json!({"path": format!("/dev/{name}"), "type": name[..1], "major": major, "minor": minor})
    };
    let nodes = ["c240:1", "c240:2", "c241:1", "c241:7", "b240:1", "b240:2"];
    bundle.set("/linux/devices", nodes.iter().map(node).collect::<Vec<_>>());
    bundle.set("/linux/resources/devices", rules);
    for set in ["bounding", "effective", "permitted"] {
        bundle.set(&format!("/process/capabilities/{set}/-"), "CAP_MKNOD");
    }
    bundle
}

#[test]
fn the_rules_hold_for_what_the_program_opens() {
    layout!(Hybrid, V2);
    if !is_v2() {
        need!(rrun); // peers want all of v1 or all of v2
    }
    let rules = json!([
        {"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 240, "minor": 1, "access": "r"},
        {"allow": true, "type": "c", "major": 241, "access": "rw"},
        {"allow": false, "type": "c", "major": 241, "minor": 7, "access": "w"},
        {"allow": true, "type": "b", "major": 240, "minor": 2, "access": "rw"},
    ]);
    let want = "c240:1 < yes\nc240:1 <> no\nc240:2 < no\nc240:2 <> no\nc241:1 < yes\nc241:1 <> yes\n\
        c241:7 < yes\nc241:7 <> no\nb240:1 < no\nb240:1 <> no\nb240:2 < yes\nb240:2 <> yes\n1\nmade\n";
    let bundle = with_nodes(rules);
    assert_eq!(run(&bundle).ok(), want);
    bundle.leaves_nothing();
}

#[test]
fn without_rules_the_default_devices_alone_and_with_all_allowed_all() {
    layout!(Hybrid, V2);
    if !is_v2() {
        need!(rrun); // peers want all of v1 or all of v2
    }
    assert_eq!(run(&with_nodes(json!([]))).ok().matches(" no\n").count(), 12);
    assert_eq!(run(&with_nodes(json!([{"allow": true, "access": "rwm"}]))).ok().matches(" yes\n").count(), 12);
}

#[test]
fn a_bad_rule_is_refused_by_its_field() {
    layout!(Hybrid, V2);
    if !is_v2() {
        need!(rrun); // peers want all of v1 or all of v2
    }
    let bundle = with_nodes(json!([{"allow": true, "type": "x", "access": "r"}]));
    let output = run(&bundle);
    assert!(output.code == 1 || !on_rrun(), "{output}");
    if on_rrun() {
        output.refused(&["linux.resources.devices[0].type: x is none of"]);
    }
    bundle.leaves_nothing();
}

/// A cgroup of the v2 tree, and a process in it that opens a device which every filter allows, and one that none does,
/// until it is told to stop. What goes otherwise is in `log`.
struct Watched {
    dir: tempfile::TempDir,
    cgroup: PathBuf,
    opener: Child,
}

impl Watched {
    fn new(bundle: &Bundle) -> Self {
        let cgroup = tree().join(&bundle.id);
        fs::create_dir(&cgroup).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (name, minor) in [("allowed", 1), ("denied", 2)] {
            mknod(&dir.path().join(name), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(240, minor)).unwrap();
        }
        let script = "while [ ! -e go ]; do sleep 0.01; done
            while [ ! -e stop ]; do true < allowed; true < denied; done 2>> log";
        let opener = Command::new("sh").args(["-c", script]).current_dir(dir.path()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), opener.id().to_string()).unwrap();
        Self { dir, cgroup, opener }
    }

    fn set(&self, file: &str) {
        fs::write(self.dir.path().join(file), "").unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.opener.kill();
        let _ = self.opener.wait();
        runtime::eventually_within(runtime::DEADLINE, || fs::remove_dir(&self.cgroup).ok());
    }
}

/// Besides the defaults and one device that all of these tests allow.
fn filter(major: i64) -> DeviceFilter {
    let rules = json!([
        {"allow": true, "type": "c", "major": 240, "minor": 1, "access": "r"},
        {"allow": true, "type": "c", "major": major, "access": "rw"},
    ]);
    DeviceFilter::new(&serde_json::from_value::<Vec<_>>(rules).unwrap()).unwrap()
}

const OWN: &std::ffi::CStr = c"rrun_devices";
const ALLOW: [Instruction; 2] = [
    Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 1 },
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
];

#[test]
fn a_filter_is_replaced_without_a_moment_in_between() {
    layout!(Hybrid, V2);
    need!(rrun);
    let bundle = Bundle::new();
    let watched = Watched::new(&bundle);
    let cgroup = fs::File::open(&watched.cgroup).unwrap();
    attach_device_filter(cgroup.as_fd(), &filter(300)).unwrap();
    watched.set("go");
    let mut rounds = 0;
    let (replaced, opened) = if runtime::few_rounds() { (30, 200) } else { (300, 2000) };
    while rounds < replaced || (watched.log().lines().count() < opened && rounds < 100_000) {
        attach_device_filter(cgroup.as_fd(), &filter(300 + rounds % 2)).unwrap();
        assert_eq!(bpf::attached(cgroup.as_fd(), OWN).unwrap().len(), 1);
        rounds += 1;
    }
    watched.set("stop");
    let log = watched.log();
    let wrong =
        |line: &&str| !(line.contains("allowed: No such device") || line.contains("denied: Operation not permitted"));
    let (last, whole) = log.rsplit_once('\n').map(|(whole, last)| (last, whole)).unwrap();
    assert_eq!(whole.lines().filter(wrong).collect::<Vec<_>>(), [""; 0], "then {last}");
    assert!(whole.contains("allowed: ") && whole.contains("denied: "), "nothing was opened: {whole}");
}

/// The filter of a container is changed again and again, and so are its other limits, while its program opens a device
/// that is always allowed and one that never is.
#[test]
fn no_update_opens_or_closes_a_device_for_a_moment() {
    layout!(V2);
    need!(rrun);
    let mut bundle = Bundle::sh(
        "until test -e /go; do sleep 0.02; done
         while [ ! -e /stop ]; do true < /dev/allowed; true < /dev/denied; done 2>> /log; echo over >> /log",
    );
    let node =
        |name: &str, minor: u32| json!({"path": format!("/dev/{name}"), "type": "c", "major": 240, "minor": minor});
    bundle.set("/linux/devices", json!([node("allowed", 1), node("denied", 2)]));
    let rules = |major: i64| {
        json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 240, "minor": 1, "access": "r"},
            {"allow": true, "type": "c", "major": major, "access": "rw"},
        ])
    };
    bundle.set("/linux/resources/devices", rules(300));
    bundle.run_detached().ok();
    let cgroup = fs::File::open(tree().join(bundle.cgroup_path())).unwrap();
    assert_eq!(bpf::attached(cgroup.as_fd(), OWN).unwrap().len(), 1);
    let log = || fs::read_to_string(bundle.rootfs("/log")).unwrap_or_default();
    bundle.image_file("go", "");
    runtime::eventually_within(runtime::DEADLINE, || log().contains("denied").then_some(()))
        .expect("nothing is opened");
    let before = log().lines().count();
    let mut round = 0;
    while round < 100 || (log().lines().count() < before + 200 && round < 100_000) {
        let filter = DeviceFilter::new(&serde_json::from_value::<Vec<_>>(rules(300 + round % 2)).unwrap()).unwrap();
        attach_device_filter(cgroup.as_fd(), &filter).unwrap();
        if round < 100 && (round % 5 == 0 || !runtime::few_rounds()) {
            let limits = json!({"pids": {"limit": 100 + round}, "devices": [{"allow": true, "access": "rwm"}]});
            let file = bundle.host_file("limits.json", limits.to_string());
            bundle.call(&["update", "--resources", file.to_str().unwrap(), &bundle.id]).ok();
        }
        round += 1;
        assert_eq!(bpf::attached(cgroup.as_fd(), OWN).unwrap().len(), 1, "round {round}");
    }
    bundle.image_file("stop", "");
    runtime::eventually_within(runtime::DEADLINE, || log().ends_with("over\n").then_some(()))
        .expect("it does not stop");
    let log = log();
    let right = |line: &&str| {
        line.contains("allowed: No such device") || line.contains("denied: Operation not permitted") || *line == "over"
    };
    assert_eq!(log.lines().filter(|line| !right(line)).collect::<Vec<_>>(), [""; 0]);
    assert!(log.lines().count() > before + 200, "hardly anything was opened meanwhile: {}", log.lines().count());
}

#[test]
fn several_of_ours_become_one_and_those_of_others_stay() {
    layout!(Hybrid, V2);
    need!(rrun);
    let bundle = Bundle::new();
    let watched = Watched::new(&bundle);
    let cgroup = fs::File::open(&watched.cgroup).unwrap();
    for name in [OWN, OWN, c"somebody_else"] {
        bpf::attach(cgroup.as_fd(), &bpf::load_device_filter(&ALLOW, name).unwrap()).unwrap();
    }
    let count = |name| bpf::attached(cgroup.as_fd(), name).unwrap().len();
    assert_eq!((count(OWN), count(c"somebody_else")), (2, 1));
    attach_device_filter(cgroup.as_fd(), &filter(300)).unwrap();
    assert_eq!((count(OWN), count(c"somebody_else")), (1, 1));
    let everything = json!([{"allow": true, "access": "rwm"}]);
    let everything = DeviceFilter::new(&serde_json::from_value::<Vec<_>>(everything).unwrap()).unwrap();
    attach_device_filter(cgroup.as_fd(), &everything).unwrap();
    assert_eq!((count(OWN), count(c"somebody_else")), (0, 1));
}

#[test]
fn what_the_verifier_dislikes_is_told() {
    layout!(Hybrid, V2);
    need!(rrun);
    let unset = Instruction { code: 0xbf, registers: 0x10 * 3, offset: 0, immediate: 0 };
    let error = bpf::load_device_filter(&[unset, ALLOW[1]], OWN).unwrap_err().to_string();
    assert!(error.starts_with("bpf load (R3 !read_ok): "), "{error}");
}
