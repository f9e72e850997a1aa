//! Containers of an ordinary user: rrun is run by one, on an image of his, without any right beyond.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::leftovers::VARIABLE;
use crate::mapped::{give, mapping};
use crate::runtime::{self, Output, eventually_within};
use crate::tty::ConsoleSocket;

mod cgroups;
mod ranges;

const USER: u32 = 4242;
/// A bundle that belongs to a user, with the runtime where he can reach it.
struct Rootless {
    bundle: Bundle,
    /// Made by root for the user.
    cgroups: Vec<PathBuf>,
}

impl Rootless {
    fn new(mut bundle: Bundle) -> Self {
        bundle.unset("/linux/cgroupsPath").unset("/linux/resources");
        bundle.set("/linux/namespaces/-", json!({"type": "user"}));
        bundle.set("/linux/uidMappings", json!([mapping(0, USER, 1)]));
        bundle.set("/linux/gidMappings", json!([mapping(0, USER, 1)]));
        // without a cgroup of its own it is known by this
        bundle.set("/process/env/-", format!("{VARIABLE}={}", bundle.id));
        give(&bundle.dir, USER);
        let program = bundle.dir.join("runtime");
        fs::hard_link(runtime::path(), &program).or_else(|_| fs::copy(runtime::path(), &program).map(drop)).unwrap();
        Self { bundle, cgroups: Vec::new() }
    }

    fn sh(script: &str) -> Self {
        Self::new(Bundle::sh(script))
    }

    /// As a shell command of root's, `$@` becoming the user's own command.
    fn after(&self, script: &str, global: &[&str], args: &[&str]) -> Command {
        self.bundle.write_config();
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", "setpriv", "--reuid", &USER.to_string(), "--regid", &USER.to_string()]);
        command.arg("--clear-groups").arg(self.bundle.dir.join("runtime")).args(global).args(args);
        command.current_dir(&self.bundle.dir).env(VARIABLE, &self.bundle.id).env_remove("XDG_RUNTIME_DIR");
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        self.after("exec \"$@\"", &["--root", self.bundle.state_root.to_str().unwrap()], args)
    }

    fn call(&self, args: &[&str]) -> Output {
        runtime::run(&mut self.command(args))
    }

    fn run(&self) -> Output {
        self.call(&["run", &self.bundle.id])
    }

    fn run_detached(&self) -> Output {
        self.call(&["run", "-d", &self.bundle.id])
    }

    fn exec(&self, args: &[&str]) -> Output {
        self.call(&[&["exec", &self.bundle.id], args].concat())
    }

    fn pid(&self) -> i32 {
        self.bundle.pid()
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        let _ = runtime::run(&mut self.bundle.command_on_config_as_it_is(&["delete", "--force", &self.bundle.id]));
        for cgroup in &self.cgroups {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

#[test]
fn ids_of_a_mount_are_not_a_users_to_map() {
    need!(rrun);
    let mut user = Rootless::sh("true");
    user.bundle.mount("/d", "none", "rootfs", &["bind", "idmap"]);
    user.run().refused(&["mounts[4].options: idmap: mapping the ids of a mount takes root's rights"]);
}

#[test]
fn a_user_is_root_inside_and_himself_outside() {
    let user = Rootless::sh(
        "id -u; id -g; cat /proc/self/uid_map /proc/self/setgroups; ls -l /dev/null > /dev/null && touch /made",
    );
    let output = user.run();
    let words: Vec<_> = output.ok().split_whitespace().collect();
    assert_eq!(words, ["0", "0", "0", &USER.to_string(), "1", "deny"], "{output}");
    assert_eq!(fs::metadata(user.bundle.rootfs("/made")).unwrap().uid(), USER);
}

#[test]
fn his_containers_live_and_end_as_roots_do() {
    let user = Rootless::new(Bundle::sleeping());
    let id = user.bundle.id.as_str();
    user.call(&["create", id]).ok();
    assert_eq!(fs::metadata(&user.bundle.state_root).unwrap().uid(), USER);
    let state: Value = serde_json::from_str(user.call(&["state", id]).ok()).unwrap();
    assert_eq!((state["status"].as_str(), state["owner"].as_str()), (Some("created"), Some("")), "{state}");
    user.call(&["start", id]).ok();
    assert!(user.call(&["list", "-q"]).ok().lines().any(|line| line == id));
    user.call(&["kill", id, "KILL"]).ok();
    user.bundle.wait_until("stopped");
    user.call(&["delete", id]).ok();
    user.bundle.leaves_nothing();
}

/// While it waits init is rrun, from a copy in memory that nobody can write. A process of `exec` enters by what only a
/// dumpable init shows its user; in a joined user namespace it would show that to others.
#[test]
fn rrun_is_protected_for_users_too() {
    need!(rrun);
    let user = Rootless::new(Bundle::sleeping());
    user.call(&["create", &user.bundle.id]).ok();
    let exe = fs::read_link(format!("/proc/{}/exe", user.pid())).unwrap();
    assert_eq!(exe, Path::new("/memfd:rrun (deleted)"));
    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}/status")).unwrap().uid();
    assert_eq!(owner(user.pid()), USER);
    let mut other = Rootless::new(Bundle::sleeping());
    other.bundle.unset("/linux/uidMappings").unset("/linux/gidMappings").unset("/hostname");
    for (kind, file) in [("user", "user"), ("uts", "uts")] {
        let path = format!("/proc/{}/ns/{file}", user.pid());
        other.bundle.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}));
    }
    other.call(&["create", &other.bundle.id]).ok();
    assert_eq!(owner(other.pid()), 0, "not dumpable: root's");
}

#[test]
fn exec_comes_to_a_container_that_waits_for_its_start() {
    let user = Rootless::new(Bundle::sleeping());
    user.call(&["create", &user.bundle.id]).ok();
    assert_eq!(user.exec(&["sh", "-c", "id -u; hostname; echo $PPID"]).ok(), "0\ninside\n0\n");
    let state: Value = serde_json::from_str(user.call(&["state", &user.bundle.id]).ok()).unwrap();
    assert_eq!(state["status"], "created");
    user.call(&["start", &user.bundle.id]).ok();
    user.bundle.wait_until("running");
}

#[test]
fn what_spec_writes_for_users_runs_as_it_is() {
    let user = Rootless::new(Bundle::new());
    fs::remove_file(user.bundle.dir.join("config.json")).unwrap_or_default();
    let setpriv = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        let id = USER.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(user.bundle.dir.join("runtime"));
        command.arg("--root").arg(&user.bundle.state_root).args(args);
        runtime::run(command.current_dir(&user.bundle.dir).env(VARIABLE, &user.bundle.id))
    };
    setpriv(&["spec", "--rootless"]).ok();
    let socket = ConsoleSocket::new(&user.bundle.dir);
    give(&socket.path, USER);
    setpriv(&["run", "-d", "--console-socket", socket.path.to_str().unwrap(), &user.bundle.id]).ok();
    let mut master = socket.receive();
    master.types("echo so$((1+1)) > /dev/shm/x; /bin/cat /dev/shm/x\n");
    master.hears("so2\r\n");
    setpriv(&["delete", "--force", &user.bundle.id]).ok();
    user.bundle.leaves_nothing();
}

#[test]
fn containers_are_recorded_below_the_runtime_directory() {
    let user = Rootless::new(Bundle::sleeping());
    let runtime_dir = user.bundle.dir.join("xdg");
    fs::create_dir(&runtime_dir).unwrap();
    give(&runtime_dir, USER);
    let with = |args: &[&str]| {
        let mut command = user.after("exec \"$@\"", &[], args);
        runtime::run(command.env("XDG_RUNTIME_DIR", &runtime_dir))
    };
    with(&["run", "-d", &user.bundle.id]).ok();
    let root = fs::read_dir(&runtime_dir).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o1700);
    assert!(root.join(&user.bundle.id).is_dir());
    with(&["delete", "--force", &user.bundle.id]).ok();
    need!(rrun); // the words
    let output = runtime::run(&mut user.after("exec \"$@\"", &[], &["create", &user.bundle.id]));
    output.refused(&["/run/rrun", "(EACCES); ", "as an ordinary user give --root, or set XDG_RUNTIME_DIR"]);
}

#[test]
fn exec_joins_it() {
    let user = Rootless::new(Bundle::sleeping());
    user.run_detached().ok();
    let output =
        user.exec(&["sh", "-c", "id -u; hostname; echo $PPID; grep -c . /proc/self/uid_map; cat /proc/self/setgroups"]);
    assert_eq!(output.ok(), "0\ninside\n0\n1\ndeny\n");
    for (_, file) in [("user", "user"), ("pid", "pid"), ("mount", "mnt")] {
        let own = fs::read_link(format!("/proc/{}/ns/{file}", user.pid())).unwrap();
        let output = user.exec(&["readlink", &format!("/proc/self/ns/{file}")]);
        assert_eq!(output.ok().trim_end(), own.to_str().unwrap());
    }
    assert_eq!(user.exec(&["sh", "-c", "exit 7"]).code, 7);
}

#[test]
fn without_a_user_namespace_there_is_nothing_a_user_may_do() {
    let mut user = Rootless::sh("true");
    user.bundle.without_namespace("user").unset("/linux/uidMappings").unset("/linux/gidMappings");
    let output = user.run();
    if runtime::on_rrun() {
        output.refused(&["config.json: linux.namespaces: without root's rights a container needs a user namespace"]);
    }
    assert_ne!(output.code, 0, "{output}");
    user.bundle.leaves_nothing();
}

#[test]
fn groups_cannot_be_set_with_one_map() {
    need!(rrun); // the words
    let mut user = Rootless::sh("true");
    user.bundle.set("/process/user/additionalGids", json!([0]));
    user.run().refused(&["process.user.additionalGids: cannot be set in this user namespace"]);
    user.bundle.leaves_nothing();
}

#[test]
fn an_owner_that_is_not_mapped_is_told() {
    need!(rrun); // the words
    let mut user = Rootless::sh("true");
    user.bundle.set("/linux/devices", json!([{"path": "/dev/fifo", "type": "p", "uid": 55}]));
    user.run().refused(&["linux.devices[0]: /dev/fifo: chown", "it is not mapped in the user namespace"]);
    user.bundle.leaves_nothing();
}

#[test]
fn the_oom_score_goes_up_and_not_down() {
    let mut user = Rootless::sh("cat /proc/self/oom_score_adj");
    user.bundle.set("/process/oomScoreAdj", 345);
    assert_eq!(user.run().ok(), "345\n");
    need!(rrun); // runc 1.1 ends there
    user.bundle.set("/process/oomScoreAdj", -345);
    let root = user.bundle.state_root.to_str().unwrap();
    let log = user.bundle.dir.join("log");
    let global = ["--root", root, "--log", log.to_str().unwrap()];
    let output = runtime::run(&mut user.after("exec \"$@\"", &global, &["run", &user.bundle.id]));
    assert_eq!(output.ok(), fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("process.oomScoreAdj: write oom_score_adj") && log.contains("left as it is"), "{log}");
}

#[test]
fn a_container_joins_another_of_the_same_user() {
    need!(rrun);
    let infra = Rootless::new(Bundle::sleeping());
    infra.run_detached().ok();
    let mut user = Rootless::new(Bundle::sleeping());
    user.bundle.unset("/linux/uidMappings").unset("/linux/gidMappings").unset("/hostname");
    user.bundle.set("/process/oomScoreAdj", 400);
    let kinds = [("user", "user"), ("pid", "pid"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")];
    for (kind, file) in kinds {
        let path = format!("/proc/{}/ns/{file}", infra.pid());
        user.bundle.without_namespace(kind).set("/linux/namespaces/-", json!({"type": kind, "path": path}));
    }
    user.run_detached().ok();
    for (_, file) in kinds {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
        assert_eq!(of(user.pid()), of(infra.pid()), "{file}");
    }
    assert_eq!(fs::read_to_string(format!("/proc/{}/oom_score_adj", user.pid())).unwrap(), "400\n");
    assert_eq!(user.exec(&["hostname"]).ok(), "inside\n");
    user.call(&["kill", &user.bundle.id, "KILL"]).ok();
    user.bundle.wait_until("stopped");
    infra.bundle.wait_until("running");
}

#[test]
fn clocks_of_a_new_user_namespace_are_its_users_to_set() {
    need!(namespace("time"));
    let mut user = Rootless::sh("cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime; exec sleep 1000");
    user.bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    user.bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": 7, "nanosecs": 5}, "boottime": {"secs": 1000}}));
    let out = user.bundle.dir.join("out");
    let output = fs::File::create(&out).unwrap();
    let mut command = user.command(&["run", "-d", &user.bundle.id]);
    assert!(command.stdout(output).status().unwrap().success());
    let whole = || Some(fs::read_to_string(&out).unwrap()).filter(|said| said.lines().count() == 3);
    let said = eventually_within(runtime::DEADLINE, whole).unwrap();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "7", "5", "boottime", "1000", "0"], "{said}");
    let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/time")).unwrap();
    let inside = of(&user.pid().to_string());
    assert_ne!(inside, of("self"));
    assert_eq!(user.exec(&["readlink", "/proc/self/ns/time"]).ok().trim_end(), inside.to_str().unwrap());
    need!(rrun); // the words
    user.bundle.set("/linux/timeOffsets/boottime/secs", -1_000_000_000);
    user.call(&["delete", "--force", &user.bundle.id]).ok();
    user.run()
        .refused(&["new time namespace: linux.timeOffsets.boottime: write timens_offsets boottime -1000000000 0: "]);
    user.bundle.leaves_nothing();
}

#[test]
fn no_more_user_namespaces_is_told() {
    need!(rrun);
    let user = Rootless::sh("true");
    let root = user.bundle.state_root.to_str().unwrap().to_string();
    // root of a user namespace may take them away from those below
    let script = "user=\"$1 $2 $3 $4 $5 $6\"; shift 6; exec $user unshare -Ur sh -c \
                  'echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"' sh \"$@\"";
    let output = runtime::run(&mut user.after(script, &["--root", &root], &["run", &user.bundle.id]));
    output
        .refused(&["clone3: ", "(ENOSPC); too many namespaces: see sysctl user.max_*_namespaces, where 0 allows none"]);
}

/// As inside of a rootless engine: all rights, in a user namespace that is not the host's. It needs no other one.
#[test]
fn root_of_a_user_namespace_needs_no_other() {
    let mut user = Rootless::sh("id -u; cat /proc/self/uid_map | tr -s ' '; echo x > /dev/null && echo written");
    user.bundle.without_namespace("user").unset("/linux/uidMappings").unset("/linux/gidMappings");
    let root = user.bundle.state_root.to_str().unwrap().to_string();
    let script = "user=\"$1 $2 $3 $4 $5 $6\"; shift 6; exec $user unshare -Ur \"$@\"";
    let output = runtime::run(&mut user.after(script, &["--root", &root], &["run", &user.bundle.id]));
    assert_eq!(output.ok(), format!("0\n 0 {USER} 1\nwritten\n"));
}

#[test]
fn a_filter_is_loaded_and_its_listener_handed_over() {
    let mut user = Rootless::new(Bundle::sh("grep Seccomp: /proc/self/status; mkdir /tmp/x || echo denied"));
    let path = user.bundle.dir.join("agent");
    let agent = crate::seccomp::Agent::new(&path, 1, -13);
    give(&path, USER);
    let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"});
    user.bundle
        .set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [rule]}));
    let output = user.run();
    assert!(output.stdout.starts_with("Seccomp:\t2\n") && output.stdout.ends_with("denied\n"), "{output}");
    assert_eq!(agent.messages()[0]["state"]["status"], "creating");
}
