//! Labels of security modules: AppArmor profiles as a program inside is held by them, and what is said where a module is
//! off. No machine that tests run on has SELinux, so that side of it is tested in src/init/labels.rs, src/plan/labels.rs
//! and src/host/security.rs.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::bundle::Bundle;
use crate::exec::fails;
use crate::hooks::{add, logged, script, with_log};
use crate::mapped::mapped;
use crate::runtime::{Output, on_rrun, run};

/// Returns from a test about hosts with AppArmor. The guests have it.
macro_rules! apparmor {
    () => {
        if !apparmor() {
            return;
        }
    };
}

fn apparmor() -> bool {
    let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|on| on.starts_with('Y'));
    if !on {
        assert!(std::env::var_os("LAYOUT").is_none(), "AppArmor is off in this guest");
        let test = std::thread::current().name().unwrap_or("test").to_string();
        let _ = writeln!(std::io::stderr(), "{test}: is about hosts with AppArmor");
    }
    on
}

/// A profile that is loaded: everything is allowed, but to write into /tmp and to read /etc/passwd.
struct Profile(String);

impl Profile {
    fn new(bundle: &Bundle, name: &str, more: &str) -> Self {
        let name = format!("{}-{name}", bundle.id);
        let profile = Self(name.clone());
        profile.parser("-r", more);
        profile
    }

    fn parser(&self, how: &str, more: &str) {
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{\n\
             file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, {more}\n}}\n",
            self.0
        );
        let mut parser = Command::new("apparmor_parser").args(["-q", "-K", how]).stdin(Stdio::piped()).spawn().unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "apparmor_parser {how}: {text}");
    }

    fn enforced(&self) -> String {
        format!("{} (enforce)\n", self.0)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("-R", "");
    }
}

const CLOSED: &str = "deny /tmp/** w, deny /etc/passwd r,";
const OWN: &str = "cat /proc/self/attr/current";

/// As the host sees it: the container may show any /proc.
fn profile_of(pid: impl std::fmt::Display) -> String {
    fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap_or_default()
}

#[test]
fn a_program_is_held_by_its_profile() {
    apparmor!();
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::sh(&format!(
            "{OWN}; echo x > /tmp/x; cat /etc/passwd; echo y > /home/y && cat /home/y; touch /etc/z && echo made"
        ));
        let profile = Profile::new(&bundle, "closed", CLOSED);
        bundle.set("/process/noNewPrivileges", no_new_privileges).set("/process/apparmorProfile", profile.0.as_str());
        let output = bundle.run();
        assert_eq!(output.stdout, format!("{}y\nmade\n", profile.enforced()), "{output}");
        assert_eq!(output.stderr.matches("ermission denied").count(), 2, "{output}");
        bundle.unset("/process/apparmorProfile");
        let output = bundle.run();
        assert!(output.stdout.starts_with("unconfined\nroot:"), "{output}");
    }
}

#[test]
fn in_a_user_namespace_too() {
    apparmor!();
    let mut bundle = mapped(Bundle::sh(&format!("{OWN}; cat /etc/passwd")));
    let profile = Profile::new(&bundle, "closed", CLOSED);
    bundle.set("/process/apparmorProfile", profile.0.as_str());
    let output = bundle.run();
    assert!(output.stdout == profile.enforced() && output.code == 1, "{output}");
}

#[test]
fn a_profile_that_is_not_loaded() {
    apparmor!();
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/apparmorProfile", "no-such-profile");
    let output = bundle.create();
    output.refused(&["no-such-profile"]);
    if on_rrun() {
        output.refused(&["process.apparmorProfile no-such-profile: no such profile is loaded; load it by"]);
    }
    bundle.leaves_nothing();
    bundle.unset("/process/apparmorProfile");
    bundle.run_detached().ok();
    let exec = bundle.call(&["exec", "--apparmor", "no-such-profile", &bundle.id, "true"]);
    fails(&exec, &["no-such-profile"]);
    assert_eq!(bundle.call(&["exec", &bundle.id, "sh", "-c", OWN]).ok(), "unconfined\n");
}

// CVE-2019-16884: the files in the container's /proc are the image's
#[test]
fn a_proc_of_the_images_takes_no_label() {
    apparmor!();
    let mut bundle = Bundle::sleeping();
    let profile = Profile::new(&bundle, "closed", CLOSED);
    bundle.set("/process/apparmorProfile", profile.0.as_str()).without_mount("/proc");
    let fakes =
        ["self/attr/exec", "self/attr/apparmor/exec", "thread-self/attr/exec", "thread-self/attr/apparmor/exec"];
    for fake in fakes {
        bundle.image_file(&format!("/proc/{fake}"), "");
    }
    bundle.run_detached().ok();
    assert_eq!(profile_of(bundle.pid()), profile.enforced());
    let pid_file = bundle.dir.join("exec.pid");
    bundle.call(&["exec", "-d", "--pid-file", pid_file.to_str().unwrap(), &bundle.id, "sleep", "1000"]).ok();
    assert_eq!(profile_of(fs::read_to_string(&pid_file).unwrap()), profile.enforced());
    for fake in fakes {
        assert_eq!(fs::read_to_string(bundle.rootfs(&format!("/proc/{fake}"))).unwrap(), "", "{fake}");
    }
}

// CVE-2023-28642: labels were written to where a /proc of the image's led
#[test]
fn a_proc_that_is_a_link_is_refused() {
    let mut bundle = Bundle::sh(OWN);
    let profile = apparmor().then(|| Profile::new(&bundle, "closed", CLOSED));
    if let Some(profile) = &profile {
        bundle.set("/process/apparmorProfile", profile.0.as_str());
    }
    fs::remove_dir(bundle.rootfs("/proc")).unwrap();
    std::os::unix::fs::symlink("/tmp", bundle.rootfs("/proc")).unwrap();
    bundle.run().refused(&["/proc"]);
    bundle.leaves_nothing();
}

#[test]
fn hooks_of_the_host_are_not_held_and_those_inside_are() {
    apparmor!();
    let mut bundle = with_log(Bundle::sh(&format!("{OWN} >> /out/log")));
    let profile = Profile::new(&bundle, "closed", CLOSED);
    bundle.set("/process/apparmorProfile", profile.0.as_str());
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let hook = script(&bundle, kind, "read label < /proc/self/attr/current; echo \"$label\" >> $log");
        add(&mut bundle, kind, hook);
    }
    let output = bundle.run();
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(logged(&bundle), format!("unconfined\nunconfined\n{0}{0}", profile.enforced()));
}

#[test]
fn exec_gets_the_containers_profile_or_its_own() {
    apparmor!();
    let mut bundle = Bundle::sleeping();
    let (first, other) = (Profile::new(&bundle, "first", ""), Profile::new(&bundle, "other", CLOSED));
    bundle.set("/process/apparmorProfile", first.0.as_str());
    bundle.run_detached().ok();
    let asked = |words: &[&str]| bundle.call(&[&["exec"], words, &[&bundle.id, "sh", "-c", OWN]].concat());
    assert_eq!(asked(&[]).ok(), first.enforced());
    assert_eq!(asked(&["--apparmor", &other.0]).ok(), other.enforced());
    let denied = bundle.call(&["exec", "--apparmor", &other.0, &bundle.id, "cat", "/etc/passwd"]);
    assert!(denied.code == 1 && denied.stderr.contains("ermission denied"), "{denied}");
    // a process of the caller's is whole: without a profile it has none
    let process = |profile: &str| {
        let json = json!({"args": ["sh", "-c", OWN], "cwd": "/", "env": ["PATH=/bin"], "apparmorProfile": profile});
        bundle.host_file("process.json", json.to_string());
        bundle.call(&["exec", "--process", bundle.dir.join("process.json").to_str().unwrap(), &bundle.id])
    };
    assert_eq!(process("").ok(), "unconfined\n");
    assert_eq!(process(&other.0).ok(), other.enforced());
}

/// Under no_new_privs a confined process cannot become something else: both profiles hold.
#[test]
fn a_runtime_that_is_confined_itself() {
    apparmor!();
    need!(rrun); // runc does not stack, and fails
    let mut bundle = Bundle::sh(&format!("{OWN}; cat /etc/passwd; cat /etc/group"));
    bundle.image_file("/etc/group", "g\n");
    let outer = Profile::new(&bundle, "outer", "change_profile -> **, deny /etc/group r,");
    let inner = Profile::new(&bundle, "inner", CLOSED);
    bundle.set("/process/apparmorProfile", inner.0.as_str()).set("/process/noNewPrivileges", true);
    let confined = |bundle: &Bundle| -> Output {
        let command = bundle.command(&["run", &bundle.id]);
        let mut outside = Command::new("aa-exec");
        outside.args(["-p", &outer.0, "--"]).arg(command.get_program()).args(command.get_args());
        outside.current_dir(&bundle.dir).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        run(&mut outside)
    };
    let output = confined(&bundle);
    let names: Vec<_> = output.stdout.trim_end().trim_end_matches(" (enforce)").split("//&").collect();
    assert!(names.contains(&outer.0.as_str()) && names.contains(&inner.0.as_str()), "{output}");
    assert_eq!(output.stderr.matches("ermission denied").count(), 2, "{output}");
    bundle.set("/process/noNewPrivileges", false);
    assert!(confined(&bundle).stdout.starts_with(&inner.enforced()), "{}", confined(&bundle));
}

#[test]
fn a_module_that_is_off() {
    let selinux = Path::new("/sys/fs/selinux/enforce").exists();
    assert!(!selinux, "these tests know of no host with SELinux");
    const LABEL: &str = "system_u:system_r:container_t:s0:c1,c2";
    let mut bundle = Bundle::sleeping();
    bundle.set("/process/selinuxLabel", LABEL);
    bundle.create().refused(&["elinux"]);
    if on_rrun() {
        bundle.create().refused(&[
            "config.json: process.selinuxLabel: ",
            LABEL,
            ": SELinux is off on this host; switch it on",
        ]);
        bundle.call(&["plan"]).refused(&["process.selinuxLabel"]);
    }
    bundle.leaves_nothing();
    bundle.unset("/process/selinuxLabel");
    bundle.run_detached().ok();
    let exec = bundle.call(&["exec", "--process-label", LABEL, &bundle.id, "true"]);
    fails(&exec, if on_rrun() { &["--process-label: ", "SELinux is off on this host"] } else { &[] });
    if !fs::exists("/sys/module/apparmor").unwrap() {
        let exec = bundle.call(&["exec", "--apparmor", "p", &bundle.id, "true"]);
        let words = ["--apparmor: p cannot be applied: AppArmor is off on this host; boot it with"];
        fails(&exec, if on_rrun() { &words } else { &[] });
        bundle.delete_force().ok();
        bundle.set("/process/apparmorProfile", "docker-default");
        bundle.create().error();
        if on_rrun() {
            bundle.create().refused(&["process.apparmorProfile: docker-default cannot be applied: AppArmor is off"]);
        }
        bundle.leaves_nothing();
    }
}

/// The spec: it has no effect then.
#[test]
fn a_label_of_mounts_without_selinux() {
    let mut bundle = Bundle::new();
    bundle.set("/linux/mountLabel", "system_u:object_r:container_file_t:s0:c1,c2");
    let mounts = bundle.mounts();
    assert!(
        mounts.iter().all(|mount| !mount.super_options.iter().any(|option| option.contains("context"))),
        "{mounts:?}"
    );
    if on_rrun() {
        let plan = bundle.call(&["plan"]);
        assert!(plan.ok().contains("linux.mountLabel: ") && plan.stdout.contains("is left out"), "{plan}");
        bundle.set("/linux/mountLabel", "nonsense");
        bundle.create().refused(&["linux.mountLabel: nonsense is no label; write user:role:type:level"]);
    }
}
