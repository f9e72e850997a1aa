//! tests/plans/NAME.config.json, as container managers write them, and the plan that each gives: NAME.plan.json, or
//! NAME.error.txt where this version refuses it. Of one with limits NAME.v2.json has the cgroups on a host with cgroup v2
//! alone, or NAME.v2.error.txt why there are none. A changed decision shows as a difference; `UPDATE_PLANS=1 cargo test
//! --test plans` writes the files anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use rrun::cgroup;
use rrun::host::Host;
use rrun::host::cgroups::{CgroupLayout, Hierarchy, Unified};
use rrun::host::security::Security;
use rrun::plan::build::Options;
use rrun::plan::spec::Spec;
use rrun::plan::spec::resources::Resources;
use rrun::plan::{Descriptors, Plan, Source};
use serde_json::{Value, json};

/// A hybrid host (v1 controllers, and a v2 tree without any), root but for two capabilities.
fn host() -> Host {
    let hierarchy = |names: &[&str]| {
        let directory = names.join(",").replace("name=", "");
        Hierarchy {
            controllers: names.iter().map(|name| (*name).to_string()).collect(),
            mountpoint: Path::new("/sys/fs/cgroup").join(directory),
            root: "/".into(),
            own: "/manager".into(),
        }
    };
    let v1: [&[&str]; 12] = [
        &["name=systemd"],
        &["cpu", "cpuacct"],
        &["cpuset"],
        &["blkio"],
        &["memory"],
        &["devices"],
        &["freezer"],
        &["net_cls", "net_prio"],
        &["perf_event"],
        &["hugetlb"],
        &["pids"],
        &["rdma"],
    ];
    let v2 = Unified {
        mountpoint: "/sys/fs/cgroup/unified".into(),
        root: "/".into(),
        own: "/manager".into(),
        controllers: Vec::new(),
    };
    let (sys_resource, sys_module) = (1 << 24, 1 << 16);
    Host {
        rootless: false,
        uid: 0,
        gid: 0,
        no_setgroups: false,
        capabilities: ((1 << 41) - 1) & !sys_resource & !sys_module,
        last_capability: 40,
        changed_signals: 0,
        cgroups: CgroupLayout { v1: v1.iter().map(|names| hierarchy(names)).collect(), v2: Some(v2) },
        security: Security::default(),
    }
}

/// With all controllers in a v2 tree.
fn v2_host() -> Host {
    let controllers = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];
    let v2 = Unified {
        mountpoint: "/sys/fs/cgroup".into(),
        root: "/".into(),
        own: "/system.slice/manager".into(),
        controllers: controllers.map(String::from).to_vec(),
    };
    Host { cgroups: CgroupLayout { v1: Vec::new(), v2: Some(v2) }, ..host() }
}

/// What a container's limits become on that host, and what it sees of them; nothing if it has none but of devices.
fn on_v2(name: &str, config: &Value) -> Option<(String, String)> {
    let resources: Resources = serde_json::from_value(config["linux"]["resources"].clone()).ok()?;
    let path = config["linux"]["cgroupsPath"].as_str();
    let host = v2_host();
    Some(match cgroup::plan("c1", path, &resources, &host.cgroups) {
        Ok(cgroups) if cgroups.hierarchies.iter().all(|tree| tree.before.is_empty() && tree.last.is_empty()) => {
            return None;
        }
        Ok(cgroups) => {
            let mounts = build_on(&host, config).map_or(Vec::new(), |plan| plan.mounts);
            let shown: Vec<_> = mounts.iter().filter(|mount| matches!(mount.source, Source::Cgroup(_))).collect();
            let both = json!({"cgroups": cgroups, "mounts": shown});
            (format!("{name}.v2.json"), serde_json::to_string_pretty(&both).unwrap() + "\n")
        }
        Err(error) => (format!("{name}.v2.error.txt"), format!("{error:#}\n")),
    })
}

fn build(config: &Value) -> Result<Plan, String> {
    build_on(&host(), config)
}

fn build_on(host: &Host, config: &Value) -> Result<Plan, String> {
    let spec = Spec::parse(config.to_string().as_bytes()).map_err(|error| format!("{error:#}"))?;
    let rootfs = Path::new("/bundle").join(spec.root_path().map_err(|error| format!("{error:#}"))?);
    let terminal = config["process"]["terminal"] == true;
    let options = Options {
        id: "c1".into(),
        bundle: "/bundle".into(),
        rootfs,
        no_pivot: false,
        detached: true,
        console_socket: terminal,
        descriptors: Descriptors::default(),
        no_new_keyring: false,
        cgroup_of_unit: None,
        notify: None,
    };
    Plan::build(&spec, &options, host).map_err(|error| format!("{error:#}"))
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans")
}

/// What should be in the directory beside the configs, by file name.
fn expected(name: &str, config: &Value) -> Vec<(String, String)> {
    let pretty = |plan: Plan| serde_json::to_string_pretty(&plan).unwrap() + "\n";
    let mut files: Vec<_> = on_v2(name, config).into_iter().collect();
    match build(config) {
        Ok(plan) => files.push((format!("{name}.plan.json"), pretty(plan))),
        Err(error) => files.push((format!("{name}.error.txt"), error + "\n")),
    }
    files
}

#[test]
fn every_config_gives_its_plan() {
    let update = env::var_os("UPDATE_PLANS").is_some();
    let mut there: BTreeSet<String> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let configs: Vec<String> = there.iter().filter(|name| name.ends_with(".config.json")).cloned().collect();
    assert!(configs.len() >= 20, "only {} configs in tests/plans", configs.len());
    let mut wrong = Vec::new();
    for config in configs {
        let text = fs::read_to_string(directory().join(&config)).unwrap();
        there.remove(&config);
        let name = config.strip_suffix(".config.json").unwrap();
        for (file, want) in expected(name, &serde_json::from_str(&text).unwrap()) {
            there.remove(&file);
            let path = directory().join(&file);
            if update {
                fs::write(path, want).unwrap();
            } else if let Some(difference) = difference(&fs::read_to_string(path).unwrap_or_default(), &want) {
                wrong.push(format!("{file}:\n{difference}"));
            }
        }
    }
    if update {
        for file in &there {
            fs::remove_file(directory().join(file)).unwrap();
        }
        there.clear();
    }
    assert!(there.is_empty(), "no config gives {there:?}");
    assert!(wrong.is_empty(), "UPDATE_PLANS=1 takes these over:\n{}", wrong.join("\n"));
}

/// The first lines that differ.
fn difference(before: &str, now: &str) -> Option<String> {
    let (mut before, mut now, mut line) = (before.lines(), now.lines(), 0);
    loop {
        line += 1;
        match (before.next(), now.next()) {
            (None, None) => return None,
            (old, new) if old == new => {}
            (old, new) => return Some(format!("  line {line}\n  - {}\n  + {}", old.unwrap_or(""), new.unwrap_or(""))),
        }
    }
}

#[test]
fn a_host_with_fewer_capabilities_grants_fewer() {
    let config = json!({"ociVersion": "1.0.0", "root": {"path": "r"}, "process": {"args": ["a"], "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL", "CAP_SYS_MODULE"]}}});
    let plan = build(&config).unwrap();
    assert_eq!(plan.process.capabilities.bounding, 1 << 5);
    assert_eq!(plan.warnings.len(), 1);
}
