//! Containers of an ordinary user in units of his own systemd, and where that has no cgroup to give.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::{systemctl, with_systemd};
use crate::bundle::Bundle;
use crate::leftovers::VARIABLE;
use crate::mapped::give;
use crate::runtime::{Output, eventually_within, path, run};

/// Of the guest, whose own systemd runs without a login.
const USER: u32 = 1000;

/// A container of the user's: rrun is called from outside of what his systemd has been given, as from a login.
struct OfUser(Bundle);

impl OfUser {
    fn new(mut bundle: Bundle) -> Self {
        let map = |container: u32| json!([{"containerID": container, "hostID": USER, "size": 1}]);
        bundle.set("/linux/namespaces/-", json!({"type": "user"})).unset("/linux/resources");
        bundle.set("/linux/uidMappings", map(0)).set("/linux/gidMappings", map(0));
        bundle.set("/linux/cgroupsPath", format!(":x:{}", bundle.id));
        let program = bundle.dir.join("runtime");
        fs::hard_link(path(), &program).or_else(|_| fs::copy(path(), &program).map(drop)).unwrap();
        give(&bundle.dir, USER);
        Self(bundle)
    }

    fn call(&self, args: &[&str]) -> Output {
        let bundle = &self.0;
        bundle.write_config();
        let user = USER.to_string();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(bundle.dir.join("runtime"));
        command.arg("--root").arg(&bundle.state_root).args(args).current_dir(&bundle.dir);
        command.env(VARIABLE, &bundle.id).env("XDG_RUNTIME_DIR", format!("/run/user/{USER}"));
        run(command.env_remove("DBUS_SESSION_BUS_ADDRESS"))
    }

    fn scope(&self) -> String {
        format!("x-{}.scope", self.0.id)
    }

    fn shown(&self, property: &str) -> String {
        let user = format!("--machine={USER}@.host");
        systemctl(&["--user", &user, "show", &self.scope(), "--value", "-p", property])
    }
}

#[test]
fn a_users_own_systemd_limits_a_users_container() {
    systemd!();
    layout!(V2);
    let _systemd = with_systemd();
    let mut user = OfUser::new(Bundle::sleeping());
    user.0.set("/linux/resources", json!({"pids": {"limit": 7}, "memory": {"limit": 50 << 20}}));
    let id = user.0.id.clone();
    user.call(&["--systemd-cgroup", "run", "-d", &id]).ok();
    let cgroup = format!("/user.slice/user-{USER}.slice/user@{USER}.service/user.slice/{}", user.scope());
    let memberships = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap().trim_end().to_string();
    let state: serde_json::Value = serde_json::from_str(user.call(&["state", &id]).ok()).unwrap();
    let init = state["pid"].as_i64().unwrap() as i32;
    assert_eq!(memberships(init), format!("0::{cgroup}"));
    let limit =
        |file: &str| fs::read_to_string(format!("/sys/fs/cgroup{cgroup}/{file}")).unwrap().trim_end().to_string();
    assert_eq!((limit("pids.max").as_str(), limit("memory.max").as_str()), ("7", "52428800"));
    assert_eq!((user.shown("TasksMax").as_str(), user.shown("MemoryMax").as_str()), ("7", "52428800"));
    let exec = user.call(&["exec", &id, "cat", "/proc/self/cgroup"]);
    assert_eq!(exec.ok().trim_end(), format!("0::{cgroup}"), "of a process of exec");
    user.call(&["update", "--pids-limit", "9", &id]).ok();
    assert_eq!((limit("pids.max").as_str(), user.shown("TasksMax").as_str()), ("9", "9"));
    user.call(&["pause", &id]).ok();
    user.call(&["resume", &id]).ok();
    user.call(&["delete", "--force", &id]).ok();
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup{cgroup}")).exists());
    user.0.leaves_nothing();
}

/// Processes come there from outside of what the user may move them out of, so systemd puts them below too.
#[test]
fn a_users_container_can_be_below_its_unit() {
    systemd!();
    layout!(V2);
    need!(rrun); // runc knows no such annotation
    let _systemd = with_systemd();
    let mut user = OfUser::new(Bundle::sleeping());
    user.0
        .set("/annotations/run.oci.systemd.subgroup", "payload")
        .set("/linux/resources", json!({"pids": {"limit": 7}}));
    let id = user.0.id.clone();
    user.call(&["--systemd-cgroup", "run", "-d", &id]).ok();
    let scope = format!("/user.slice/user-{USER}.slice/user@{USER}.service/user.slice/{}", user.scope());
    let exec = user.call(&["exec", &id, "cat", "/proc/self/cgroup"]);
    assert_eq!(exec.ok().trim_end(), format!("0::{scope}/payload"));
    let read = |file: &str| fs::read_to_string(format!("/sys/fs/cgroup{scope}/{file}")).unwrap().trim_end().to_string();
    let state: serde_json::Value = serde_json::from_str(user.call(&["state", &id]).ok()).unwrap();
    assert_eq!((read("payload/cgroup.procs"), read("cgroup.procs")), (state["pid"].to_string(), String::new()));
    assert_eq!((read("payload/pids.max").as_str(), user.shown("TasksMax").as_str()), ("7", "7"));
    user.call(&["update", "--pids-limit", "9", &id]).ok();
    assert_eq!((read("payload/pids.max").as_str(), user.shown("TasksMax").as_str()), ("9", "9"));
    user.call(&["delete", "--force", &id]).ok();
    assert!(!std::path::Path::new(&format!("/sys/fs/cgroup{scope}")).exists());
    user.0.leaves_nothing();
}

/// The commands after `create` are told nothing of systemd.
#[test]
fn every_command_finds_a_container_of_a_users_own_systemd() {
    systemd!();
    layout!(V2);
    let _systemd = with_systemd();
    let mut user = OfUser::new(Bundle::sleeping());
    let id = user.0.id.clone();
    let gone = |user: &OfUser| {
        let gone = || (user.shown("LoadState") == "not-found").then_some(());
        eventually_within(Duration::from_secs(5), gone).unwrap_or_else(|| panic!("{}", user.shown("ActiveState")));
    };
    user.call(&["--systemd-cgroup", "create", &id]).ok();
    assert_eq!(user.shown("ActiveState"), "active");
    user.call(&["start", &id]).ok();
    let ps = user.call(&["ps", &id]);
    assert!(ps.ok().contains("sleep 1000"), "{ps}");
    let stats: serde_json::Value = serde_json::from_str(user.call(&["events", "--stats", &id]).ok()).unwrap();
    assert_eq!(stats["data"]["pids"]["current"], 1, "{stats}");
    user.call(&["kill", &id, "KILL"]).ok();
    let stopped = || user.call(&["state", &id]).stdout.contains("\"stopped\"").then_some(());
    assert!(eventually_within(Duration::from_secs(5), stopped).is_some());
    user.call(&["delete", &id]).ok();
    gone(&user);
    user.0.leaves_nothing();
    user.0.args(&["/missing"]);
    user.call(&["--systemd-cgroup", "create", &id]).error();
    gone(&user);
    user.0.leaves_nothing();
}

/// Where it has nothing to give, it is as with his own cgroups: nothing is lost that was not asked for.
#[test]
fn without_a_systemd_of_his_a_user_goes_without_what_he_did_not_ask_for() {
    systemd!();
    layout!(V1, Hybrid);
    let _systemd = with_systemd();
    let mut user = OfUser::new(Bundle::new());
    let id = user.0.id.clone();
    let call = |user: &OfUser| user.call(&["--systemd-cgroup", "--log", "log", "run", &id]);
    call(&user).refused(&["linux.cgroupsPath: needs a cgroup of this user's own"]);
    user.0.unset("/linux/cgroupsPath").set("/linux/resources/pids/limit", 7);
    call(&user).refused(&["linux.resources.pids.limit: needs a cgroup of this user's own"]);
    user.0.unset("/linux/resources");
    assert_eq!(call(&user).code, 0);
    let log = fs::read_to_string(user.0.dir.join("log")).unwrap();
    assert!(
        log.contains("the container stays in the cgroup of rrun: a user's own systemd has cgroups to give on"),
        "{log}"
    );
    user.call(&["delete", "--force", &id]).ok();
}
