//! Where `exec` puts its process: namespaces, cgroups, directory, keyring, processors.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{detached, exec, fails, pid_in, process, running, sh};
use crate::bundle::Bundle;
use crate::mapped::{give, mapped};
use crate::procfs::{status, we_may_raise_limits};
use crate::runtime::{self, Output, on_rrun};
use crate::stdio::by_shell;

const KINDS: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

fn namespaces(pid: i32) -> Vec<String> {
    KINDS.iter().map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string()).collect()
}

/// Lines of `/proc/PID/cgroup`.
fn cgroups(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap()
}

#[test]
fn it_is_where_init_is() {
    let mut bundle = Bundle::sleeping();
    bundle.set("/linux/namespaces/-", json!({"type": "cgroup"}));
    if crate::need::namespace("time") {
        bundle.set("/linux/namespaces/-", json!({"type": "time"}));
    }
    let init = running(&bundle).pid();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(namespaces(pid), namespaces(init));
    assert_eq!(cgroups(pid), cgroups(init));
    let root = |pid| fs::metadata(format!("/proc/{pid}/root/")).map(|root| std::os::unix::fs::MetadataExt::ino(&root));
    assert_eq!(root(pid).unwrap(), root(init).unwrap());
}

// CVE-2024-21626: a descriptor of the host's as the working directory
#[test]
fn the_working_directory_is_inside() {
    let bundle = Bundle::sleeping();
    symlink("/proc/self/fd/7", bundle.rootfs("out")).unwrap();
    running(&bundle);
    for cwd in ["/proc/self/fd/7", "/proc/self/fd/8", "/out", "/proc/1/cwd/../../.."] {
        let args = ["exec", "--cwd", cwd, &bundle.id, "pwd"];
        let output = runtime::run(&mut by_shell(&bundle, "7</ 8</etc", &args));
        assert!(output.code != 0 || output.stdout == "/\n", "{cwd}: {output}");
    }
    fails(&exec(&bundle, &["--cwd", "/missing"], &["pwd"]), &["/missing", "no such file or directory"]);
    assert!(!bundle.rootfs("missing").exists(), "it is not made for another process");
}

#[test]
fn its_session_keyring_is_the_containers() {
    let bundle = Bundle::sleeping();
    running(&bundle);
    let keyring = format!("_ses.{}", bundle.id);
    let keys = |output: &Output| {
        let line = output.ok().lines().find(|line| line.contains(&keyring)).map(String::from);
        line.and_then(|line| line.split(' ').next().map(String::from))
            .unwrap_or_else(|| panic!("no {keyring}: {output}"))
    };
    // the same serial number for everybody
    assert_eq!(keys(&sh(&bundle, "cat /proc/keys")), keys(&exec(&bundle, &["-u", "1000"], &["cat", "/proc/keys"])));
    let bundle = Bundle::sleeping();
    bundle.call(&["run", "-d", "--no-new-keyring", &bundle.id]).ok();
    assert!(!sh(&bundle, "cat /proc/keys").ok().contains(&format!("_ses.{}", bundle.id)), "the caller's is kept");
}

#[test]
fn it_goes_into_a_cgroup_below_the_containers_own_if_there_is_one() {
    layout!(V1, Hybrid);
    let bundle = Bundle::sleeping();
    running(&bundle);
    let below = bundle.cgroup("pids").join("below/here");
    let flags = ["--cgroup", "pids:below/here"];
    fails(&exec(&bundle, &flags, &["true"]), &[" adding pid ", "no such file or directory"]);
    fs::create_dir_all(&below).unwrap();
    let output = exec(&bundle, &flags, &["cat", "/proc/self/cgroup"]);
    let own = format!("/{}", bundle.cgroup_path());
    assert!(output.ok().contains(&format!(":pids:{own}/below/here\n")), "{output}");
    assert!(output.ok().lines().any(|line| line.contains("freezer") && line.ends_with(&own)), "{output}");
    fails(&exec(&bundle, &["--cgroup", "pids:../.."], &["true"]), &["bad sub cgroup path"]);
    fails(&exec(&bundle, &["--cgroup", "none:below"], &["true"]), &["unknown controller none"]);
    fails(&exec(&bundle, &["--cgroup", "pids:below", "--cgroup", "pids:x"], &["true"]), &["pids"]);
    fs::remove_dir(&below).unwrap();
}

#[test]
fn a_cgroup_below_stands_alone_on_v2() {
    layout!(V2);
    let bundle = Bundle::sleeping();
    running(&bundle);
    let below = bundle.cgroup("").join("below");
    fails(&exec(&bundle, &["--cgroup", "below"], &["true"]), &["no such file or directory"]);
    fs::create_dir(&below).unwrap();
    let output = exec(&bundle, &["--cgroup", "/below"], &["cat", "/proc/self/cgroup"]);
    assert!(output.ok().ends_with(&format!("/{}/below\n", bundle.cgroup_path())), "{output}");
    fails(&exec(&bundle, &["--cgroup", "pids:below"], &["true"]), &["pids"]);
    fails(&exec(&bundle, &["--cgroup", "../x"], &["true"]), &["cgroup"]);
    fs::remove_dir(&below).unwrap();
}

// programs such as systemd move themselves down, and then nobody can be put where they were
#[test]
fn it_goes_where_init_went_if_the_containers_own_cgroup_takes_nobody() {
    layout!(Hybrid, V2);
    need!(rrun); // runc 1.1 does so on v2 alone
    let bundle = Bundle::sleeping();
    running(&bundle);
    let tree = bundle.cgroup("unified");
    let below = tree.join("below");
    fs::create_dir(&below).unwrap();
    let init = bundle.pid();
    fs::write(below.join("cgroup.procs"), init.to_string()).unwrap();
    let controllers = fs::read_to_string(tree.join("cgroup.controllers")).unwrap();
    let Some(controller) = controllers.split_whitespace().find(|name| !matches!(*name, "cpu" | "cpuset" | "pids"))
    else {
        return crate::need::skip("a controller in the v2 tree that knows no threads");
    };
    fs::write(tree.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
    // named it is there or nowhere
    let words = ["--cgroup: adding pid numbers to cgroups that pass controllers on", "device or resource busy (EBUSY)"];
    fails(&exec(&bundle, &["--cgroup", "/"], &["true"]), &words);
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(cgroups(pid), cgroups(init));
    assert!(cgroups(pid).contains(&format!("0::/{}/below\n", bundle.cgroup_path())), "{}", cgroups(pid));
}

#[test]
fn it_enters_containers_that_share_namespaces_with_the_host() {
    for kind in ["pid", "network", "ipc", "uts"] {
        let mut bundle = Bundle::sleeping();
        bundle.without_namespace(kind);
        if kind == "uts" {
            bundle.unset("/hostname");
        }
        let init = running(&bundle).pid();
        let pid = detached(&bundle, &["sleep", "1000"]);
        assert_eq!(namespaces(pid), namespaces(init), "without {kind}");
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

#[test]
fn it_enters_a_pid_namespace_that_the_container_has_joined() {
    let mut bundle = Bundle::sleeping();
    let other = Bundle::sleeping();
    let first = running(&other).pid();
    bundle.without_namespace("pid");
    bundle.set("/linux/namespaces/-", json!({"type": "pid", "path": format!("/proc/{first}/ns/pid")}));
    let init = running(&bundle).pid();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(namespaces(pid), namespaces(init));
    assert!(sh(&bundle, "ps").ok().lines().count() > 3, "sees them all");
}

#[test]
fn it_enters_a_user_namespace() {
    let mut bundle = mapped(Bundle::sleeping());
    bundle.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
    bundle.set("/process/oomScoreAdj", 345);
    bundle.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 4096}]));
    let init = running(&bundle).pid();
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!((namespaces(pid), cgroups(pid)), (namespaces(init), cgroups(init)));
    assert_eq!(status(pid, "Uid").unwrap(), "100005 100005 100005 100005");
    assert_eq!(status(pid, "Groups").unwrap(), "100007");
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "345\n");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut command = bundle.command(&["exec", "-u", "9:0", &bundle.id, "sh", "-c", "id -u; echo again > /dev/stdout"]);
    assert!(command.stdin(Stdio::null()).stdout(writer).status().unwrap().success());
    drop(command);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    assert_eq!(said, "9\nagain\n");
    fails(
        &exec(&bundle, &["-u", "70000"], &["id"]),
        if on_rrun() { &["process.user.uid: 70000 is not mapped"] } else { &[] },
    );
}

// what only the parent can do is asked for, with and without something to record
#[test]
fn limits_are_raised_from_outside_a_user_namespace() {
    let bundle = mapped(Bundle::sleeping());
    running(&bundle);
    let limits = json!([{"type": "RLIMIT_NOFILE", "soft": 1 << 17, "hard": 1 << 19}]);
    let file = process(
        &bundle,
        json!({"args": ["sh", "-c", "ulimit -Hn"], "cwd": "/", "env": ["PATH=/bin"], "rlimits": limits}),
    );
    let exec = |flags: &[&str]| {
        let mut command = Command::new("prlimit");
        let exec = bundle.command(&[&["exec", "-p", &file], flags, &[&bundle.id]].concat());
        command.args(["--nofile=1024:4096"]).arg(exec.get_program()).args(exec.get_args()).current_dir(&bundle.dir);
        runtime::run(&mut command)
    };
    for flags in [&[][..], &["--pid-file", "pid"]] {
        match we_may_raise_limits() {
            true => assert_eq!(exec(flags).ok(), "524288\n"),
            false if on_rrun() => fails(&exec(flags), &["process.rlimits: RLIMIT_NOFILE", "(EPERM)"]),
            false => assert_ne!(exec(flags).code, 0),
        }
    }
}

#[test]
fn an_ordinary_user_enters_his_own_container() {
    need!(rrun); // others want directories of the user's session for it
    const USER: u32 = 54_321;
    let mut bundle = Bundle::sleeping();
    let own = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle.set("/linux/namespaces/-", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", own.clone()).set("/linux/gidMappings", own);
    bundle.unset("/linux/resources").unset("/linux/cgroupsPath");
    fs::create_dir(&bundle.state_root).unwrap();
    let runtime = bundle.dir.join("runtime");
    assert!(Command::new("cp").arg(runtime::path()).arg(&runtime).status().unwrap().success());
    let _ = bundle.command(&[]); // writes config.json
    give(&bundle.dir, USER);
    let by_user = |args: &[&str]| {
        let usual = bundle.command_on_config_as_it_is(args);
        let mut command = Command::new("setpriv");
        let id = USER.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(&runtime).args(usual.get_args());
        runtime::run(command.current_dir(&bundle.dir).env(crate::leftovers::VARIABLE, &bundle.id))
    };
    by_user(&["run", "-d", &bundle.id]).ok();
    let output = by_user(&["exec", &bundle.id, "sh", "-c", "id -u; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "0\n"), "{output}");
    by_user(&["exec", "-d", "--pid-file", "exec.pid", &bundle.id, "sleep", "1000"]).ok();
    assert_eq!(namespaces(pid_in(&bundle, "exec.pid")), namespaces(bundle.pid()));
    fails(&by_user(&["exec", "-u", "5", &bundle.id, "id"]), &["process.user.uid: 5 is not mapped"]);
    fails(&by_user(&["exec", &bundle.id, "/missing"]), &["exec: \"/missing\": stat /missing: no such file"]);
}

#[test]
fn it_enters_a_container_without_a_mount_namespace() {
    need!(rrun); // runc 1.1 cannot make one
    let mut bundle = Bundle::sleeping();
    bundle.without_namespace("mount").set("/mounts", json!([])).unset("/hostname").without_namespace("uts");
    bundle.image_file("here", "inside");
    running(&bundle);
    assert_eq!(sh(&bundle, "cat /here; pwd").ok(), "inside/\n");
}

#[test]
fn the_containers_proc_may_be_covered() {
    need!(rrun); // runc 1.1 reads the container's /proc
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/oomScoreAdj", 345);
    running(&bundle);
    exec(&bundle, &["--cap", "CAP_SYS_ADMIN"], &["mount", "-t", "tmpfs", "tmpfs", "/proc"]).ok();
    assert_eq!(sh(&bundle, "ls /proc").ok(), "");
    let pid = detached(&bundle, &["sleep", "1000"]);
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "345\n");
    assert_eq!(cgroups(pid), cgroups(bundle.pid()));
}

#[test]
fn a_caller_that_is_pinned_does_not_pin_it() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return crate::need::skip("two processors");
    }
    let mut bundle = Bundle::sleeping();
    running(&bundle);
    let pinned = |args: &[&str]| {
        let exec = bundle.command(args);
        let mut command = Command::new("taskset");
        command.args(["-c", "0"]).arg(exec.get_program()).args(exec.get_args()).current_dir(&bundle.dir);
        let output = runtime::run(&mut command);
        let line = output.ok().lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"));
        line.unwrap_or_else(|| panic!("{output}")).to_string()
    };
    let everything = ["exec", &bundle.id, "cat", "/proc/self/status"];
    if on_rrun() {
        let all = pinned(&everything);
        assert_ne!(all, "0");
        let file = |affinity: Value| {
            let args = ["cat", "/proc/self/status"];
            process(&bundle, json!({"args": args, "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity}))
        };
        for affinity in [json!({"final": "1"}), json!({"initial": "0", "final": "1"})] {
            let file = file(affinity.clone());
            assert_eq!(pinned(&["exec", "-p", &file, &bundle.id]), "1", "{affinity}");
        }
        // The last word is the kernel's. Before 6.2 whoever joins a cpuset gets all of it; later ones keep what was
        // asked for; a cgroup without a cpuset of its own changes nothing.
        let left = pinned(&["exec", "-p", &file(json!({"initial": "1"})), &bundle.id]);
        assert!(left == "1" || left == all, "{left}");
    }
    bundle.set("/process/execCPUAffinity", json!({}));
}
