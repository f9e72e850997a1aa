//! config.md, "POSIX-platform Hooks"

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::refused_beside;
use crate::bundle::Bundle;
use crate::hooks::{KINDS, add, logged, script, with_log};

/// What the shell of a hook needs to look at the container: `$pid`, from the state on its stdin.
const PID: &str = r#"pid=$(sed -n 's/.*"pid": *\([0-9][0-9]*\).*/\1/p')"#;

fn with_hook(kind: &str, what: &str) -> Bundle {
    let mut bundle = with_log(Bundle::sleeping());
    let hook = script(&bundle, kind, what);
    add(&mut bundle, kind, hook);
    bundle
}

/// To its end, as a caller would.
#[track_caller]
fn through_its_life(bundle: &Bundle) -> String {
    bundle.create().ok();
    bundle.start().ok();
    bundle.wait_until("running");
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    bundle.delete().ok();
    logged(bundle)
}

/// What a hook of `kind` writes when all goes well.
#[track_caller]
fn told_by(kind: &str, what: &str) -> String {
    through_its_life(&with_hook(kind, &format!("{what} >> $log")))
}

/// `fn name: kind;`
macro_rules! of_each_kind {
    ($check:ident: $(fn $name:ident: $kind:literal;)+) => {$(
        #[test]
        fn $name() {
            $check($kind);
        }
    )+};
}

#[track_caller]
fn is_invoked(kind: &str) {
    assert_eq!(told_by(kind, "echo ran"), "ran\n");
}

of_each_kind! { is_invoked:
    fn prestart_is_invoked: "prestart";
    fn create_runtime_is_invoked: "createRuntime";
    fn create_container_is_invoked: "createContainer";
    fn start_container_is_invoked: "startContainer";
    fn poststart_is_invoked: "poststart";
    fn poststop_is_invoked: "poststop";
}

#[track_caller]
fn refuses_a_relative_path(kind: &str) {
    // of a file that is there from wherever it is looked for
    let hook = |path: &'static str| {
        move |bundle: &mut Bundle| {
            for dir in [bundle.dir.clone(), bundle.rootfs("")] {
                fs::write(dir.join("hook"), "#!/bin/sh\n").unwrap();
                fs::set_permissions(dir.join("hook"), fs::Permissions::from_mode(0o755)).unwrap();
            }
            bundle.set(&format!("/hooks/{kind}"), json!([{"path": path}]));
        }
    };
    refused_beside(hook("/bin/true"), hook("hook"));
}

of_each_kind! { refuses_a_relative_path:
    fn prestart_has_an_absolute_path: "prestart";
    fn create_runtime_has_an_absolute_path: "createRuntime";
    fn create_container_has_an_absolute_path: "createContainer";
    fn start_container_has_an_absolute_path: "startContainer";
    fn poststart_has_an_absolute_path: "poststart";
    fn poststop_has_an_absolute_path: "poststop";
}

#[track_caller]
fn refuses_no_time(kind: &str) {
    for timeout in [0, -1] {
        let hook = |timeout: i32| {
            move |bundle: &mut Bundle| {
                bundle.set(&format!("/hooks/{kind}"), json!([{"path": "/bin/true", "timeout": timeout}]));
            }
        };
        refused_beside(hook(5), hook(timeout));
    }
}

of_each_kind! { refuses_no_time:
    fn prestart_has_some_time: "prestart";
    fn create_runtime_has_some_time: "createRuntime";
    fn create_container_has_some_time: "createContainer";
    fn start_container_has_some_time: "startContainer";
    fn poststart_has_some_time: "poststart";
    fn poststop_has_some_time: "poststop";
}

#[track_caller]
fn needs_a_path(kind: &str) {
    let hook = |hook: Value| {
        move |bundle: &mut Bundle| {
            bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        }
    };
    refused_beside(hook(json!({"path": "/bin/true"})), hook(json!({"args": ["/bin/true"]})));
}

#[test]
fn each_kind_needs_a_path() {
    KINDS.into_iter().for_each(needs_a_path);
}

/// The path of a program that is on one side alone.
#[track_caller]
fn path_resolves(kind: &str, dir: impl Fn(&Bundle) -> std::path::PathBuf, as_seen: impl Fn(&Bundle) -> String) {
    let mut bundle = with_log(Bundle::sleeping());
    let program = dir(&bundle).join("only-here");
    let log = if kind == "startContainer" { "/out/log".into() } else { bundle.dir.join("out/log") };
    fs::write(&program, format!("#!/bin/sh\necho found >> {}\n", log.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = as_seen(&bundle);
    add(&mut bundle, kind, json!({"path": path}));
    assert_eq!(through_its_life(&bundle), "found\n");
}

#[track_caller]
fn path_resolves_outside(kind: &str) {
    path_resolves(kind, |bundle| bundle.dir.clone(), |bundle| format!("{}/only-here", bundle.dir.display()));
}

of_each_kind! { path_resolves_outside:
    fn prestart_is_found_outside: "prestart";
    fn create_runtime_is_found_outside: "createRuntime";
    fn create_container_is_found_outside: "createContainer";
    fn poststart_is_found_outside: "poststart";
    fn poststop_is_found_outside: "poststop";
}

#[test]
fn start_container_is_found_inside() {
    path_resolves("startContainer", |bundle| bundle.rootfs(""), |_| "/only-here".into());
}

fn namespaces_of(process: &str) -> Vec<String> {
    let of = |kind| fs::read_link(format!("/proc/{process}/ns/{kind}")).unwrap().to_string_lossy().into_owned();
    ["mnt", "net", "ipc", "uts"].map(of).to_vec()
}

const OWN_NAMESPACES: &str = "for kind in mnt net ipc uts; do readlink /proc/self/ns/$kind; done";

#[track_caller]
fn runs_outside(kind: &str) {
    let told = told_by(kind, OWN_NAMESPACES);
    assert_eq!(told.lines().collect::<Vec<_>>(), namespaces_of("self"));
}

of_each_kind! { runs_outside:
    fn prestart_runs_outside: "prestart";
    fn create_runtime_runs_outside: "createRuntime";
    fn poststart_runs_outside: "poststart";
    fn poststop_runs_outside: "poststop";
}

#[track_caller]
fn runs_inside(kind: &str) {
    let bundle = with_hook(kind, &format!("({OWN_NAMESPACES}) >> $log"));
    bundle.create().ok();
    bundle.start().ok();
    bundle.wait_until("running");
    let log = || (logged(&bundle).lines().count() == 4).then_some(());
    assert!(crate::runtime::eventually_within(std::time::Duration::from_secs(5), log).is_some(), "it did not run");
    assert_eq!(logged(&bundle).lines().collect::<Vec<_>>(), namespaces_of(&bundle.pid().to_string()));
}

of_each_kind! { runs_inside:
    fn create_container_runs_inside: "createContainer";
    fn start_container_runs_inside: "startContainer";
}

#[test]
fn hooks_run_in_the_order_of_their_list() {
    let mut bundle = with_log(Bundle::sleeping());
    for kind in ["createRuntime", "createContainer", "startContainer", "poststop"] {
        for n in ["a", "b", "c"] {
            let hook = script(&bundle, kind, &format!("echo {kind} {n} >> $log"));
            add(&mut bundle, kind, hook);
        }
    }
    let order = ["createRuntime", "createContainer", "startContainer", "poststop"];
    let want: Vec<_> = order.iter().flat_map(|kind| ["a", "b", "c"].map(|n| format!("{kind} {n}"))).collect();
    assert_eq!(through_its_life(&bundle).lines().collect::<Vec<_>>(), want);
}

#[test]
fn each_kind_is_given_the_state() {
    for kind in KINDS {
        let mut bundle = with_hook(kind, "cat >> $log");
        bundle.set("/annotations", json!({"a.b": "c"}));
        let state: Value = serde_json::from_str(&through_its_life(&bundle)).unwrap_or_default();
        assert_eq!((&state["id"], &state["bundle"]), (&json!(bundle.id), &json!(bundle.dir)), "{kind}: {state}");
        assert!(state["ociVersion"].is_string() && state["status"].is_string(), "{kind}: {state}");
        assert_eq!(state["annotations"]["a.b"], "c", "{kind}: {state}");
    }
}

/// "the pid as seen by the runtime", and "by the container" in hooks that run inside.
#[test]
fn each_kind_is_given_the_pid_as_it_sees_it() {
    for (kind, inside) in
        [("prestart", false), ("createRuntime", false), ("createContainer", true), ("startContainer", true)]
    {
        let bundle = with_hook(kind, &format!("{PID}; echo $pid >> $log"));
        bundle.create().ok();
        bundle.start().ok();
        let want = if inside { 1 } else { bundle.pid() };
        assert_eq!(logged(&bundle).trim(), want.to_string(), "{kind}");
    }
}

/// At create; with the namespaces made, and the root of the container still that of the host.
#[track_caller]
fn runs_before_the_pivot(kind: &str) {
    let look = "stat -L -c %d:%i /proc/$pid/root / ; readlink /proc/$pid/ns/net; readlink /proc/$pid/ns/mnt";
    let bundle = with_hook(kind, &format!("{PID}; ({look}) >> $log"));
    bundle.create().ok();
    let log = logged(&bundle);
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 4, "{log}");
    assert_eq!(lines[0], lines[1], "the root has changed already");
    let namespaces = namespaces_of(&bundle.pid().to_string());
    assert_eq!((lines[2], lines[3]), (namespaces[1].as_str(), namespaces[0].as_str()), "not those of the container");
}

of_each_kind! { runs_before_the_pivot:
    fn prestart_runs_before_the_pivot: "prestart";
    fn create_runtime_runs_before_the_pivot: "createRuntime";
}

#[test]
fn create_container_runs_before_the_pivot_with_all_mounted() {
    let mut bundle = with_hook("createContainer", "true");
    bundle.mount("/data", "tmpfs", "mounted-before", &[]);
    let look = format!(
        "grep -c mounted-before /proc/self/mountinfo >> $log; test -e {}/config.json && echo host >> $log",
        bundle.dir.display()
    );
    let hook = script(&bundle, "createContainer", &look);
    add(&mut bundle, "createContainer", hook);
    bundle.create().ok();
    assert_eq!(logged(&bundle), "1\nhost\n");
}

/// `$log` after create alone.
#[track_caller]
fn order_at_create(kinds: &[&str]) -> String {
    let mut bundle = with_log(Bundle::sleeping());
    for kind in kinds.iter().rev() {
        let hook = script(&bundle, kind, &format!("echo {kind} >> $log"));
        add(&mut bundle, kind, hook);
    }
    bundle.create().ok();
    logged(&bundle)
}

#[test]
fn prestart_runs_before_create_runtime() {
    assert_eq!(order_at_create(&["prestart", "createRuntime"]), "prestart\ncreateRuntime\n");
}

#[test]
fn create_container_runs_after_create_runtime() {
    assert_eq!(order_at_create(&["createRuntime", "createContainer"]), "createRuntime\ncreateContainer\n");
}

#[test]
fn start_container_runs_at_start_before_the_program() {
    let mut bundle = with_log(Bundle::sh("echo program >> /out/log; sleep 1000"));
    let hook = script(&bundle, "startContainer", "sleep 0.1; echo hook >> $log");
    add(&mut bundle, "startContainer", hook);
    bundle.create().ok();
    assert_eq!(logged(&bundle), "", "it ran at create");
    bundle.start().ok();
    let both = || (logged(&bundle) == "hook\nprogram\n").then_some(());
    let ran = crate::runtime::eventually_within(std::time::Duration::from_secs(5), both);
    assert!(ran.is_some(), "{}", logged(&bundle));
}

#[test]
fn poststart_runs_after_the_program_began_and_before_start_returns() {
    let bundle = with_hook("poststart", &format!("{PID}; sleep 0.2; cat /proc/$pid/comm >> $log"));
    bundle.create().ok();
    assert_eq!(logged(&bundle), "", "it ran at create");
    bundle.start().ok();
    assert_eq!(logged(&bundle), "sleep\n");
}

#[test]
fn poststop_runs_after_all_is_gone_and_before_delete_returns() {
    let mut bundle = with_log(Bundle::sleeping());
    let cgroup = bundle.cgroup("pids");
    let look = format!("sleep 0.2; test -e {} && echo there >> $log || echo gone >> $log", cgroup.display());
    let hook = script(&bundle, "poststop", &look);
    add(&mut bundle, "poststop", hook);
    bundle.create().ok();
    assert!(cgroup.exists());
    bundle.start().ok();
    bundle.kill("KILL").ok();
    bundle.wait_until("stopped");
    assert_eq!(logged(&bundle), "", "it ran before delete");
    bundle.delete().ok();
    assert_eq!(logged(&bundle), "gone\n");
}
