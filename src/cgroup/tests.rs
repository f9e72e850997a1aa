use serde_json::{Value, from_value, json, to_value};

use super::*;
use crate::host::cgroups::{Hierarchy, Unified};

fn layout(v1: &[&str], tree: Option<&[&str]>) -> CgroupLayout {
    let strings = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
    let hierarchy = |names: &&str| Hierarchy {
        controllers: names.split(',').map(String::from).collect(),
        mountpoint: Path::new("/cg").join(names),
        root: "/".into(),
        own: "/own".into(),
    };
    CgroupLayout {
        v1: v1.iter().map(hierarchy).collect(),
        v2: tree.map(|controllers| Unified {
            mountpoint: "/cg/unified".into(),
            root: "/".into(),
            own: "/own".into(),
            controllers: strings(controllers),
        }),
    }
}

fn resources(value: &Value) -> Resources {
    from_value(value.clone()).unwrap_or_else(|e| panic!("{value}: {e}"))
}

fn planned(path: Option<&str>, value: Value, layout: &CgroupLayout) -> Value {
    let plan = plan("c1", path, &resources(&value), layout).unwrap_or_else(|e| panic!("{value}: {e:#}"));
    to_value(plan).unwrap()
}

#[test]
fn values_go_to_the_hierarchy_of_their_controller() {
    let layout = layout(&["cpu,cpuacct", "memory", "cpuset", "name=systemd"], Some(&[]));
    let value = json!({
        "cpu": {"shares": 512, "realtimeRuntime": 1000, "cpus": "0"},
        "memory": {"limit": 4096, "useHierarchy": true, "kernel": 5},
        "devices": [{"allow": true, "access": "rwm"}],
    });
    let want = json!({
        "hierarchies": [
            {"version": "v1", "controllers": ["cpu", "cpuacct"], "mountpoint": "/cg/cpu,cpuacct", "path": "pods/c1",
             "realtime_above": ["cpu.rt_runtime_us = 1000; EINVAL: later"],
             "before": ["cpu.rt_runtime_us = 1000; EINVAL: later", "cpu.shares = 512"]},
            {"version": "v1", "controllers": ["memory"], "mountpoint": "/cg/memory", "path": "pods/c1",
             "before": ["memory.use_hierarchy = 1"], "last": ["memory.limit_in_bytes = 4096; EINVAL: later"]},
            {"version": "v1", "controllers": ["cpuset"], "mountpoint": "/cg/cpuset", "path": "pods/c1",
             "before": ["cpuset.cpus = 0; ENOENT: cpus"]},
            {"version": "v1", "controllers": ["name=systemd"], "mountpoint": "/cg/name=systemd", "path": "pods/c1"},
            {"version": "v2", "mountpoint": "/cg/unified", "path": "pods/c1"},
        ],
        "warnings": ["linux.resources.memory.kernel: is ignored, as the kernel counts it in memory.limit"],
    });
    assert_eq!(planned(Some("/pods/c1"), value, &layout), want);
}

#[test]
fn what_is_asked_of_a_cgroup_that_is_not_there_is_refused() {
    let layout = layout(&["cpu", "pids", "devices"], None);
    let made = |value: Value| plan("c1", Some("/c1"), &resources(&value), &layout).unwrap();
    let value = || made(json!({"cpu": {"shares": 512}, "pids": {"limit": 5}}));
    let paths = BTreeMap::from([("cpu".to_string(), PathBuf::from("/cg/cpu/elsewhere"))]);
    let at = value().at(&paths, |write| write.field.contains("cpu")).unwrap();
    assert_eq!(at.hierarchies.len(), 1);
    assert_eq!(at.hierarchies[0].path, Path::new("elsewhere"));
    let error = value().at(&paths, |write| write.field.contains("pids")).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.pids.limit: the container has no cgroup of its own for it"), "{error}");
    assert_eq!(value().at(&BTreeMap::new(), |_| false).unwrap().hierarchies, []);
}

#[test]
fn a_controller_of_the_tree_is_enabled_above_and_written_there() {
    let layout = layout(&["devices"], Some(&["hugetlb", "rdma", "misc"]));
    let value = json!({
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "rdma": {"mlx5": {"hcaHandles": 1}},
        "unified": {"misc.max": "res 1", "hugetlb.1GB.max": "0"},
    });
    let tree = &planned(None, value, &layout)["hierarchies"][1];
    let want = json!({
        "version": "v2", "mountpoint": "/cg/unified", "path": "own/c1", "enable": ["hugetlb", "rdma", "misc"],
        "before": ["hugetlb.2MB.max = 1", "hugetlb.2MB.rsvd.max = 1; ENOENT: leave", "rdma.max = mlx5 hca_handle=1",
                   "hugetlb.1GB.max = 0", "misc.max = res 1"],
    });
    assert_eq!(tree, &want);
}

#[test]
fn a_v1_hierarchy_goes_before_the_tree() {
    let layout = layout(&["devices", "hugetlb"], Some(&["hugetlb"]));
    let plan = planned(None, json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}), &layout);
    assert_eq!(plan["hierarchies"][1]["before"][0], "hugetlb.2MB.limit_in_bytes = 1");
    assert_eq!(plan["hierarchies"][2], json!({"version": "v2", "mountpoint": "/cg/unified", "path": "own/c1"}));
}

#[test]
fn what_docker_sends_for_unset_writes_nothing_but_the_devices() {
    let layout = layout(&["cpu", "memory", "cpuset", "pids", "blkio", "devices"], None);
    let value = json!({
        "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
        "memory": {"limit": 0, "swap": 0, "reservation": 0, "kernel": 0, "swappiness": u64::MAX, "disableOOMKiller": false},
        "blockIO": {"weight": 0, "leafWeight": 0},
        "network": {"classID": 0}, "pids": {}, "hugepageLimits": [], "rdma": {}, "unified": {},
    });
    for hierarchy in planned(None, value, &layout)["hierarchies"].as_array().unwrap() {
        let devices = hierarchy["controllers"] == json!(["devices"]);
        assert_eq!(hierarchy.get("before").is_some(), devices, "{hierarchy}");
        assert_eq!(hierarchy.get("last"), None, "{hierarchy}");
    }
}

#[test]
fn a_value_without_its_controller_is_refused() {
    let without = layout(&["devices"], None);
    for (value, says) in [
        (json!({"cpu": {"shares": 5}}), "linux.resources.cpu.shares: this host has no cpu controller"),
        (json!({"cpu": {"cpus": "0"}}), "linux.resources.cpu.cpus: this host has no cpuset controller"),
        (json!({"pids": {"limit": -1}}), "linux.resources.pids.limit: this host has no pids controller"),
        (json!({"memory": {"limit": 5}}), "linux.resources.memory.limit: this host has no memory controller"),
        (json!({"memory": {"useHierarchy": true}}), "linux.resources.memory.useHierarchy: this host has no memory"),
        (json!({"blockIO": {"weight": 50}}), "linux.resources.blockIO.weight: this host has no blkio controller"),
        (json!({"network": {"classID": 5}}), "linux.resources.network.classID: this host has no net_cls controller"),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            "linux.resources.network.priorities[0]: this host has no net_prio controller",
        ),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]}),
            "linux.resources.hugepageLimits[0]: this host has no hugetlb controller",
        ),
        (json!({"rdma": {"a": {"hcaObjects": 1}}}), "linux.resources.rdma.a: this host has no rdma controller"),
        (
            json!({"unified": {"memory.high": "1"}}),
            "linux.resources.unified.memory.high: invalid configuration: needs cgroup v2",
        ),
    ] {
        let error = plan("c1", None, &resources(&value), &without).unwrap_err().to_string();
        assert!(error.starts_with(says), "{value}: {error}");
    }
}

/// All that a v2 host of today has.
const V2: &[&str] = &["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"];

#[test]
fn a_host_with_v2_alone() {
    let value = json!({
        "cpu": {"shares": 512, "quota": 20000, "period": 50000, "cpus": "0"},
        "memory": {"limit": 4096, "swap": 8192, "reservation": 2048, "kernel": 5},
        "pids": {"limit": 7},
        "blockIO": {"weight": 100},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 1}],
        "unified": {"memory.high": "3000", "pids.max": "6", "misc.max": "a 1\nb 2"},
        "devices": [{"allow": true, "access": "rwm"}],
    });
    let want = json!({
        "hierarchies": [
            {"version": "v2", "mountpoint": "/cg/unified", "path": "pods/c1",
             "enable": ["cpu", "cpuset", "pids", "io", "hugetlb", "memory", "misc"],
             "enable_also": ["rdma"],
             "before": ["cpu.weight = 59", "cpu.max = 20000 50000; EINVAL: later", "cpuset.cpus = 0", "pids.max = 7",
                        "io.bfq.weight = 100; ENOENT: io.weight = 910", "hugetlb.2MB.max = 1",
                        "hugetlb.2MB.rsvd.max = 1; ENOENT: leave", "misc.max = a 1", "misc.max = b 2", "pids.max = 6"],
             "last": ["memory.swap.max = 4096", "memory.max = 4096", "memory.low = 2048", "memory.high = 3000"]},
        ],
        "warnings": ["linux.resources.memory.kernel: is ignored, as the kernel counts it in memory.limit"],
    });
    assert_eq!(planned(Some("/pods/c1"), value, &layout(&[], Some(V2))), want);
}

#[test]
fn a_v2_host_hands_down_all_that_it_has_even_if_nothing_is_set() {
    let tree = &planned(None, json!({}), &layout(&[], Some(V2)))["hierarchies"][0];
    // below the parent of rrun's own, which holds rrun
    assert_eq!((&tree["path"], &tree["enable_also"]), (&json!("c1"), &json!(V2)));
    assert_eq!((tree.get("before"), tree.get("enable")), (None, None), "{tree}");
}

#[test]
fn what_v2_lacks_is_refused_by_its_name() {
    for (value, says) in [
        (json!({"cpu": {"realtimeRuntime": 5}}), "linux.resources.cpu.realtimeRuntime: cgroup v2 has no"),
        (json!({"memory": {"swappiness": 5}}), "linux.resources.memory.swappiness: cgroup v2 has none"),
        (json!({"memory": {"disableOOMKiller": true}}), "linux.resources.memory.disableOOMKiller: cgroup v2 always"),
        (json!({"blockIO": {"leafWeight": 50}}), "linux.resources.blockIO.leafWeight: this kernel has no leaf"),
        (json!({"network": {"classID": 5}}), "linux.resources.network.classID: this host has no net_cls controller"),
        (
            json!({"network": {"priorities": [{"name": "lo", "priority": 1}]}}),
            "linux.resources.network.priorities[0]: this host has no net_prio controller",
        ),
        (
            json!({"unified": {"perf.x": "1"}}),
            "linux.resources.unified.perf.x: invalid configuration: the cgroup v2 tree of this host has no perf controller; it has cpuset, cpu,",
        ),
        (json!({"unified": {"cgroup.freeze": "1"}}), "linux.resources.unified.cgroup.freeze: is not a limit"),
    ] {
        let error = plan("c1", None, &resources(&value), &layout(&[], Some(V2))).unwrap_err().to_string();
        assert!(error.starts_with(says), "{value}: {error}");
    }
    let without = layout(&[], Some(&["cpu"]));
    let limit = resources(&json!({"memory": {"limit": 5}}));
    let error = plan("c1", None, &limit, &without).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.memory.limit: this host has no memory controller"), "{error}");
}

#[test]
fn each_controller_is_where_the_host_has_it() {
    let mixed = layout(&["net_cls"], Some(V2));
    let value = json!({"network": {"classID": 1}, "memory": {"limit": 4096}, "pids": {"limit": 1}});
    let plan = planned(Some("/c1"), value, &mixed);
    assert_eq!(plan["hierarchies"][0]["before"], json!(["net_cls.classid = 1"]));
    let tree = &plan["hierarchies"][1];
    assert_eq!((&tree["before"], &tree["last"]), (&json!(["pids.max = 1"]), &json!(["memory.max = 4096"])));
    assert_eq!((&tree["enable"], tree.get("enable_also")), (&json!(["pids", "memory"]), None));
    let elsewhere = layout(&["pids"], Some(&["memory"]));
    let unified = resources(&json!({"unified": {"memory.high": "1", "pids.max": "1"}}));
    let error = super::plan("c1", None, &unified, &elsewhere).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "linux.resources.unified.pids.max: invalid configuration: the cgroup v2 tree of this host has no pids"
        ),
        "{error}"
    );
}

#[test]
fn devices_can_be_kept_from_a_container_or_it_is_refused() {
    let without = layout(&["cpu"], None);
    let error = plan("c1", None, &Resources::default(), &without).unwrap_err().to_string();
    assert!(error.starts_with("linux.resources.devices: this host has no devices controller"), "{error}");
    planned(None, json!({"devices": [{"allow": true, "access": "rwm"}]}), &without);
}

#[test]
fn devices_are_filtered_in_the_tree_where_no_hierarchy_of_v1_has_them() {
    let everything = json!({"devices": [{"allow": true, "access": "rwm"}]});
    let only_read = json!({"devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"}]});
    let tree = |v1: &[&str], value: &Value| {
        planned(None, value.clone(), &layout(v1, Some(&[])))["hierarchies"].as_array().unwrap().last().unwrap().clone()
    };
    let filter = tree(&["cpu"], &only_read)["devices"].clone();
    assert!(filter.as_array().unwrap().contains(&json!("c 10:229 rm")), "{filter}");
    for (v1, value) in [("cpu", &everything), ("devices", &only_read)] {
        assert_eq!(tree(&[v1], value).get("devices"), None, "{value}");
    }
}

#[test]
fn a_host_without_any_cgroups_is_refused() {
    let error = plan("c1", None, &Resources::default(), &CgroupLayout::default()).unwrap_err().to_string();
    assert!(error.contains("no cgroup file system mounted"), "{error}");
}

#[test]
fn what_is_delegated_is_the_tree_alone() {
    let mut plan = plan("c1", None, &Resources::default(), &layout(&["devices"], Some(&[]))).unwrap();
    plan.delegate_to(1000);
    assert_eq!(plan.hierarchies.iter().map(|hierarchy| hierarchy.owner).collect::<Vec<_>>(), [None, Some(1000)]);
}

#[test]
fn state_finds_every_controller() {
    let host = layout(&["cpu,cpuacct", "devices", "name=systemd"], Some(&[]));
    let paths = plan("c1", Some("/a/b"), &Resources::default(), &host).unwrap().paths();
    let want = [
        ("", "/cg/unified/a/b"),
        ("cpu", "/cg/cpu,cpuacct/a/b"),
        ("cpuacct", "/cg/cpu,cpuacct/a/b"),
        ("devices", "/cg/devices/a/b"),
        ("name=systemd", "/cg/name=systemd/a/b"),
    ];
    assert_eq!(paths, want.map(|(name, path)| (name.to_string(), PathBuf::from(path))).into());
}

#[test]
fn with_a_subgroup_the_cgroup_above_counts_as_the_containers_too() {
    let above = Recorded::new(
        &plan("c1", Some("/a/x.scope/sub"), &Resources::default(), &layout(&[], Some(&[]))).unwrap().paths(),
    );
    let above = above.unwrap().above();
    assert_eq!(above.of("").unwrap().path, Path::new("/cg/unified/a/x.scope"));
    let dir = tempfile::tempdir().unwrap();
    let host = CgroupLayout {
        v1: Vec::new(),
        v2: layout(&[], Some(&[])).v2.map(|tree| Unified { mountpoint: dir.path().into(), ..tree }),
    };
    let mut plan = plan("c1", Some("/x.scope/sub"), &Resources::default(), &host).unwrap();
    let there = |plan: &mut CgroupPlan| {
        [false, true].map(|in_subgroup| {
            plan.in_subgroup = in_subgroup;
            plan.is_there()
        })
    };
    assert_eq!(there(&mut plan), [false, false]);
    std::fs::create_dir(dir.path().join("x.scope")).unwrap();
    assert_eq!(there(&mut plan), [false, true]);
}

#[test]
fn a_recorded_path_that_could_mean_the_machine_is_refused() {
    for path in ["/", "relative/c1", "/cg/../c1", ""] {
        let paths = [("cpu".to_string(), PathBuf::from(path))].into();
        assert!(Recorded::new(&paths).is_err(), "{path}");
    }
    // no hierarchy's top, and nothing outside of cgroup file systems
    for path in ["/proc", "/dev/shm", "/tmp"] {
        let recorded = Recorded::new(&[("cpu".to_string(), PathBuf::from(path))].into()).unwrap();
        assert!(recorded.pids().is_err(), "{path}");
        assert!(recorded.remove(std::time::Duration::ZERO, Holders::Kill).is_err(), "{path}");
        assert!(recorded.kill(std::time::Duration::ZERO).is_err(), "{path}");
    }
    let gone = Recorded::new(&[("cpu".to_string(), PathBuf::from("/tmp/rrun-never-made/c1"))].into()).unwrap();
    assert_eq!(gone.pids().unwrap(), []);
    assert!(!gone.frozen().unwrap());
    gone.kill(std::time::Duration::ZERO).unwrap();
    gone.remove(std::time::Duration::ZERO, Holders::Kill).unwrap();
}
