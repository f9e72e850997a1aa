use serde_json::{Value, json};

use super::*;
use crate::host::security::Security;
use crate::plan::{Propagation, PropagationKind, RootSwitch};

pub(crate) fn options() -> Options {
    Options {
        id: "c1".into(),
        bundle: "/bundle".into(),
        rootfs: "/bundle/rootfs".into(),
        no_pivot: false,
        detached: true,
        console_socket: false,
        descriptors: Descriptors::default(),
        no_new_keyring: false,
        cgroup_of_unit: None,
        notify: None,
    }
}

/// The smallest config with all namespaces.
fn config() -> Value {
    let namespaces = ["pid", "network", "mount", "ipc", "uts", "cgroup"].map(|kind| json!({"type": kind}));
    json!({"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"args": ["sh"], "cwd": "/"},
        "linux": {"namespaces": namespaces}})
}

/// Sets the value at a JSON pointer; `null` is as good as removing it.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = config();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = config.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}"));
    parent.as_object_mut().unwrap().insert(key.into(), value);
    config
}

fn build(config: &Value, options: &Options) -> Result<Plan> {
    Plan::build(&Spec::parse(config.to_string().as_bytes())?, options, &Host::default())
}

fn build_error(config: &Value) -> String {
    match build(config, &options()) {
        Err(error) => format!("{error:#}"),
        Ok(_) => panic!("{config} was taken"),
    }
}

#[test]
fn the_version_is_a_version_one() {
    for version in ["1.0.0", "1.0.2-dev", "1.2.0+dev", "1.3.0-rc.1+a-b.7", "1.99.0"] {
        assert!(build(&with("/ociVersion", json!(version)), &options()).is_ok(), "{version}");
    }
    for (version, want) in [
        (json!(null), "missing"),
        (json!(""), "missing"),
        (json!("2.0.0"), "2.0.0 is not supported; rrun knows 1.x"),
        (json!("0.9.0"), "0.9.0 is not supported"),
        (json!("1.0"), "1.0 is no version"),
        (json!("v1.0.0"), "v1.0.0 is no version"),
        (json!("1.0.0-"), "1.0.0- is no version"),
        (json!("1..0"), "1..0 is no version"),
        (json!("1.0.0.0"), "1.0.0.0 is no version"),
        (json!("1.0.0 beta"), "1.0.0 beta is no version"),
        (json!("1.0.99999999999999999999"), "1.0.99999999999999999999 is no version"),
        (json!("one"), "one is no version"),
    ] {
        let error = build_error(&with("/ociVersion", version));
        assert!(error.starts_with(&format!("config.json: ociVersion: {want}")), "{error}");
    }
}

#[test]
fn what_says_nothing_is_as_if_absent() {
    for (pointer, value) in [
        ("/linux/uidMappings", json!([])),
        ("/linux/netDevices", json!({})),
        ("/linux/timeOffsets", json!({})),
        ("/linux/mountLabel", json!("")),
        ("/process/apparmorProfile", json!("")),
        ("/process/execCPUAffinity", json!({"initial": "0"})),
    ] {
        assert!(build(&with(pointer, value), &options()).is_ok(), "{pointer}");
    }
}

#[test]
fn a_bad_value_is_named_with_its_path() {
    for (pointer, value, want) in [
        ("/process/cwd", json!("x"), "process.cwd: x is not absolute"),
        ("/hostname", json!("x".repeat(65)), "hostname: xxxxx"),
        ("/domainname", json!("x".repeat(65)), "domainname: xxxxx"),
        ("/hooks", json!({"poststop": [{"path": "x"}]}), "hooks.poststop[0].path: x is not absolute"),
        ("/linux/maskedPaths", json!(["/a", "proc/x"]), "linux.maskedPaths[1]: proc/x is not absolute"),
        ("/linux/maskedPaths", json!(["/a/.."]), "linux.maskedPaths[0]: /a/.. is the root itself"),
        ("/linux/readonlyPaths", json!([""]), "linux.readonlyPaths[0]: is empty"),
        (
            "/linux/rootfsPropagation",
            json!("rsharded"),
            "linux.rootfsPropagation: rsharded is no propagation; use one of private, rprivate, shared",
        ),
        ("/linux/sysctl", json!({"kernel.panic": "1"}), "linux.sysctl: kernel.panic: is not in a separate"),
        ("/linux/devices", json!([{"path": "/x"}]), "linux.devices[0].type: missing"),
        (
            "/linux/namespaces",
            json!([{"type": "pid"}, {"type": "pid"}]),
            "linux.namespaces[1].type: pid is listed twice",
        ),
        ("/mounts", json!([{"destination": "/x"}]), "mounts[0].type: missing"),
        ("/linux/cgroupsPath", json!("/.."), "linux.cgroupsPath: /.. is not a cgroup of its own"),
        ("/linux/cgroupsPath", json!("/a\nb"), "linux.cgroupsPath: holds a NUL or a line break"),
    ] {
        let error = build_error(&with(pointer, value));
        assert!(error.starts_with(&format!("config.json: {want}")), "{pointer}: {error}");
    }
}

#[test]
fn without_a_mount_namespace_what_is_mounted_covers_the_rootfs() {
    let without = |pointer: &str, value: Value| {
        let mut config = with(pointer, value);
        config["linux"]["namespaces"] = json!([{"type": "pid"}]);
        config
    };
    let needs = "needs a new mount namespace; add one to linux.namespaces";
    for (pointer, value) in [
        ("/mounts", json!([{"destination": "/x", "type": "tmpfs"}])),
        ("/linux/devices", json!([{"path": "/x", "type": "p"}])),
        ("/root/readonly", json!(true)),
        ("/process/terminal", json!(true)),
    ] {
        let field = pointer[1..].replace('/', ".");
        let mut config = without(pointer, value);
        let foreground = Options { detached: false, ..options() };
        let planned = build(&config, &foreground).unwrap();
        assert_eq!((planned.root.switch, planned.root.isolate_parent), (RootSwitch::ChrootCovered, false), "{field}");
        assert!(planned.devices.iter().any(|device| device.path == InRoot::new("/dev/null")), "{field}");
        let on_the_host = Options { rootfs: "/".into(), ..foreground };
        let error = format!("{:#}", build(&config, &on_the_host).unwrap_err());
        assert!(error.starts_with(&format!("config.json: {field}: would be that of the host")), "{error}");
        // who is root in a user namespace alone cannot
        config["linux"]["namespaces"] = json!([{"type": "user"}]);
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 100_000, "size": 1000}]);
        config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
        let error = format!("{:#}", build(&config, &Options { detached: false, ..options() }).unwrap_err());
        assert_eq!(error, format!("config.json: {field}: {needs}"));
    }
    for (field, value) in
        [("maskedPaths", json!(["/x"])), ("readonlyPaths", json!(["/x"])), ("rootfsPropagation", json!("rslave"))]
    {
        let error = build_error(&without(&format!("/linux/{field}"), value));
        assert_eq!(error, format!("config.json: linux.{field}: {needs}"));
    }
    let planned = build(&without("/mounts", json!([])), &Options { no_pivot: true, ..options() }).unwrap();
    assert_eq!((planned.root.switch, planned.root.isolate_parent), (RootSwitch::Chroot, false));
    assert!(planned.devices.is_empty() && planned.links.is_empty());
    let nothing = json!({"ociVersion": "1.0.0", "process": {"args": ["sh"], "cwd": "/"}});
    assert!(build(&nothing, &options()).unwrap().namespaces.is_empty());
}

#[test]
fn the_root_is_cut_off_from_the_host_one_way_or_another() {
    use PropagationKind::{Private, Shared, Slave, Unbindable};
    for (word, before, isolate, after) in [
        (json!(null), (Slave, true), false, None),
        (json!(""), (Slave, true), false, None),
        (json!("rslave"), (Slave, true), false, None),
        (json!("slave"), (Slave, false), true, None),
        (json!("rprivate"), (Private, true), false, None),
        (json!("private"), (Private, false), true, None),
        (json!("rshared"), (Shared, true), true, Some((Shared, true))),
        (json!("shared"), (Shared, false), true, Some((Shared, false))),
        (json!("runbindable"), (Slave, true), false, Some((Unbindable, true))),
        (json!("unbindable"), (Slave, true), false, Some((Unbindable, false))),
    ] {
        let root = build(&with("/linux/rootfsPropagation", word.clone()), &options()).unwrap().root;
        let propagation = |(kind, recursive)| Propagation { kind, recursive };
        let got = (root.propagation, root.isolate_parent, root.propagation_after);
        assert_eq!(got, (propagation(before), isolate, after.map(propagation)), "{word}");
    }
    for (word, taken) in [("rprivate", false), ("private", false), ("rslave", true), ("shared", true)] {
        let options = Options { no_pivot: true, ..options() };
        let built = build(&with("/linux/rootfsPropagation", json!(word)), &options);
        match built {
            Ok(plan) => assert!(taken && plan.root.switch == RootSwitch::MoveMount, "{word}"),
            Err(error) => assert!(!taken && format!("{error:#}").contains(word), "{word}: {error:#}"),
        }
    }
}

#[test]
fn a_terminal_must_go_to_somebody() {
    for (terminal, detached, console_socket, want) in [
        (false, false, false, None),
        (false, true, false, None),
        (true, false, false, None),
        (true, true, true, None),
        (true, true, false, Some(Matched::TtyWithoutConsoleSocket)),
        (false, true, true, Some(Matched::ConsoleSocketWithoutTty)),
        (true, false, true, Some(Matched::ConsoleSocketWithoutTty)),
        (false, false, true, Some(Matched::ConsoleSocketWithoutTty)),
    ] {
        let options = Options { detached, console_socket, ..options() };
        let built = build(&with("/process/terminal", json!(terminal)), &options);
        let got = built.err().map(|error| error.downcast::<Matched>().unwrap());
        assert_eq!(got, want, "terminal {terminal}, detached {detached}, console socket {console_socket}");
    }
}

#[test]
fn names_paths_and_annotations_are_taken_over() {
    let mut config = with("/annotations", json!({"a": "b", "c": "\u{1}\n"}));
    config["hostname"] = json!("box");
    config["domainname"] = json!("lan");
    config["linux"]["sysctl"] = json!({"kernel.domainname": "lan"});
    config["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc//kcore", "/x"]);
    config["linux"]["cgroupsPath"] = json!("/a/b");
    let plan = build(&config, &options()).unwrap();
    assert_eq!((plan.hostname.as_deref(), plan.domainname.as_deref()), (Some("box"), Some("lan")));
    assert_eq!(plan.annotations.len(), 2);
    assert_eq!(plan.annotations["c"], "\u{1}\n");
    assert_eq!(plan.masked_paths, ["/proc/kcore", "/x"].map(InRoot::new));
    assert_eq!((plan.cgroups_path.as_deref(), plan.sysctls.len()), (Some("/a/b"), 1));
    assert_eq!(build(&with("/linux/cgroupsPath", json!("")), &options()).unwrap().cgroups_path, None);
    config["linux"]["sysctl"] = json!({"kernel.domainname": "wan"});
    assert!(build_error(&config).contains("contradicts the field domainname"));
}

/// A config of 16 MiB has room for a million of them: comparing each with all others would take hours.
#[test]
fn long_lists_are_planned_in_no_time() {
    let many = |name: &str| Value::from_iter((0..100_000).map(|n| format!("{name}{n}")));
    let mut config = with("/process/capabilities", json!({"bounding": many("CAP_")}));
    for field in ["maskedPaths", "readonlyPaths"] {
        config["linux"][field] = many("/x");
    }
    let device = |n: u32| (format!("eth{n}"), json!({}));
    config["linux"]["netDevices"] = (0..100_000).map(device).collect::<serde_json::Map<_, _>>().into();
    let begun = std::time::Instant::now();
    let plan = build(&config, &options()).unwrap();
    assert_eq!(
        (plan.masked_paths.len(), plan.readonly_paths.len(), plan.net_devices.len()),
        (100_000, 100_000, 100_000)
    );
    assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
}

#[test]
fn labels_are_of_the_process_and_of_what_is_mounted() {
    let mut config = with("/linux/mountLabel", json!("u:object_r:file_t:s0:c1,c2"));
    config["process"]["apparmorProfile"] = json!("p");
    config["process"]["selinuxLabel"] = json!("u:r:t:s0");
    config["mounts"] =
        json!([{"destination": "/dev", "type": "tmpfs"}, {"destination": "/dev/mqueue", "type": "mqueue"}]);
    let spec = Spec::parse(config.to_string().as_bytes()).unwrap();
    let host = Host { security: Security { apparmor: true, selinux: true }, ..Host::default() };
    let plan = serde_json::to_value(Plan::build(&spec, &options(), &host).unwrap()).unwrap();
    assert_eq!(
        (&plan["process"]["apparmor_profile"], &plan["process"]["selinux_label"]),
        (&json!("p"), &json!("u:r:t:s0"))
    );
    assert_eq!(
        plan["mounts"][0]["source"]["filesystem"]["parameters"],
        json!([["context", config["linux"]["mountLabel"]]])
    );
    assert_eq!(
        (&plan["mounts"][1]["label"], &plan["mount_label"]),
        (&config["linux"]["mountLabel"], &config["linux"]["mountLabel"])
    );
}

#[test]
fn time_offsets_take_rights_of_the_host_or_a_new_user_namespace() {
    let mut config = with("/linux/timeOffsets", json!({"boottime": {"secs": 1}}));
    config["linux"]["namespaces"] = json!([{"type": "user"}, {"type": "mount"}, {"type": "time"}]);
    config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    config["linux"]["gidMappings"] = config["linux"]["uidMappings"].clone();
    let spec = Spec::parse(config.to_string().as_bytes()).unwrap();
    let plan = |host: Host| Plan::build(&spec, &options(), &host).map(|plan| plan.time_offsets.len());
    assert_eq!(plan(Host::default()).unwrap(), 1);
    let user = Host { rootless: true, uid: 1000, gid: 1000, ..Host::default() };
    assert_eq!(plan(user.clone()).unwrap(), 1);
    config["linux"]["namespaces"][0]["path"] = json!("/run/user_namespace");
    config["linux"].as_object_mut().unwrap().retain(|key, _| !key.ends_with("Mappings"));
    let spec = Spec::parse(config.to_string().as_bytes()).unwrap();
    let error = Plan::build(&spec, &options(), &user).unwrap_err();
    assert!(format!("{error:#}").starts_with("config.json: linux.timeOffsets: take root's rights"), "{error:#}");
}

#[test]
fn a_dev_of_the_host_is_left_alone() {
    let mounts = json!([{"destination": "/dev", "source": "/dev", "options": ["rbind"]}]);
    let plan = build(&with("/mounts", mounts), &options()).unwrap();
    assert!(plan.devices.is_empty() && plan.links.is_empty());
    let plan = build(&with("/mounts", json!([{"destination": "/dev", "type": "tmpfs"}])), &options()).unwrap();
    assert_eq!((plan.devices.len(), plan.links.len()), (6, 6));
}

#[test]
fn a_cgroup_is_given_to_whom_sees_it_as_its_own_and_writable() {
    let v2 = crate::host::cgroups::Unified {
        mountpoint: "/sys/fs/cgroup".into(),
        root: "/".into(),
        own: "/me".into(),
        controllers: Vec::new(),
    };
    let cgroups = crate::host::cgroups::CgroupLayout { v1: Vec::new(), v2: Some(v2) };
    let host = Host { cgroups, ..Host::default() };
    let owner = |uid: u32, namespace: &str, destination: &str, words: Value| {
        let mut config = with("/process/user", json!({"uid": uid}));
        config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": namespace}]);
        config["mounts"] = json!([{"destination": destination, "type": "cgroup", "options": words}]);
        let spec = Spec::parse(config.to_string().as_bytes()).unwrap();
        super::super::cgroup_paths::owner(&Plan::build(&spec, &options(), &host).unwrap())
    };
    for (uid, namespace, destination, words, want) in [
        (1000, "cgroup", "/sys/fs/cgroup", json!(["rw"]), Some(1000)),
        (1000, "cgroup", "/sys/fs/cgroup", json!(["ro"]), None),
        (1000, "cgroup", "/sys/fs/cgroup", json!(["rro"]), None),
        (1000, "cgroup", "/elsewhere", json!([]), None),
        (1000, "uts", "/sys/fs/cgroup", json!([]), None),
        (0, "cgroup", "/sys/fs/cgroup", json!([]), None),
    ] {
        assert_eq!(owner(uid, namespace, destination, words.clone()), want, "{uid} {namespace} {destination} {words}");
    }
}
