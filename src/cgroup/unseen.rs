//! Limits of what no machine of the tests has: adapters of RDMA, resources of misc, huge pages that are reserved (kernels
//! before 5.7 lack that too), BFQ on v1. Seen is which bytes reach which file, and not what a kernel makes of them.
//!
//! A plain directory stands in for the container's cgroup.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::directory::Directory;
use super::perform::write_all;
use super::{CgroupPlan, HierarchyPlan, Updated, plan};
use crate::host::cgroups::{CgroupLayout, Hierarchy, Unified};
use crate::plan::spec::resources::Resources;

fn on_v2() -> CgroupLayout {
    let controllers = ["io", "hugetlb", "rdma", "misc"].map(String::from).to_vec();
    let tree = Unified { mountpoint: "/cg".into(), root: "/".into(), own: "/own".into(), controllers };
    CgroupLayout { v1: Vec::new(), v2: Some(tree) }
}

fn on_v1(controller: &str) -> CgroupLayout {
    let controllers = vec![controller.to_string()];
    let v1 = Hierarchy { controllers, mountpoint: "/cg".into(), root: "/".into(), own: "/own".into() };
    CgroupLayout { v1: vec![v1], v2: None }
}

fn planned(layout: &CgroupLayout, resources: Value) -> CgroupPlan {
    let mut resources = resources;
    // what no hierarchy of this layout could keep away
    resources["devices"] = json!([{"allow": true, "access": "rwm"}]);
    let resources: Resources = serde_json::from_value(resources).unwrap();
    plan("c1", None, &resources, layout).unwrap()
}

/// What files of these names hold afterwards. Lines for one file stand behind each other: each was a write(2).
fn bytes(layout: &CgroupLayout, resources: Value, files: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| fs::write(dir.path().join(file), "").unwrap());
    let plan = planned(layout, resources);
    let HierarchyPlan { before, last, .. } = &plan.hierarchies[0];
    write_all(&Directory::at(dir.path()).unwrap().0, &[&before[..], last].concat()).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), files.len(), "nothing was made");
    files.iter().map(|file| read(dir.path(), file)).collect()
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap()
}

#[test]
fn adapters_of_rdma_have_a_line_each_on_both_versions() {
    let rdma = json!({"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "mlx5_0": {"hcaObjects": 0}}});
    for layout in [on_v2(), on_v1("rdma")] {
        let want = "mlx5_0 hca_object=0mlx5_1 hca_handle=3 hca_object=10000";
        assert_eq!(bytes(&layout, rdma.clone(), &["rdma.max"]), [want]);
    }
}

#[test]
fn resources_of_misc_have_a_line_each() {
    let unified = json!({"unified": {"misc.max": "sev 5\nsev_es max\n"}});
    assert_eq!(bytes(&on_v2(), unified, &["misc.max"]), ["sev 5sev_es max"]);
}

#[test]
fn huge_pages_are_limited_in_both_counters_where_there_are_two() {
    let limits =
        json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}, {"pageSize": "64KB", "limit": 65536}]});
    for (layout, file) in [(on_v2(), "max"), (on_v1("hugetlb"), "limit_in_bytes")] {
        let names = ["2MB", "2MB.rsvd", "64KB"].map(|size| format!("hugetlb.{size}.{file}"));
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(bytes(&layout, limits.clone(), &names), ["4194304", "4194304", "65536"]);
    }
}

#[test]
fn weights_go_to_bfq_where_it_is_and_are_scaled_where_it_is_not() {
    let weights = json!({"blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}]}});
    assert_eq!(bytes(&on_v2(), weights.clone(), &["io.bfq.weight", "io.weight"]), ["1008:0 1000", ""]);
    for (alone, want) in [("weight", "910"), ("weightDevice", "8:0 10000")] {
        let weight = json!({"blockIO": {alone: weights["blockIO"][alone]}});
        assert_eq!(bytes(&on_v2(), weight, &["io.weight"]), [want]);
    }
    let v1 = ["blkio.bfq.weight", "blkio.bfq.weight_device"];
    assert_eq!(bytes(&on_v1("blkio"), weights, &v1), ["100", "8:0 1000"]);
}

/// An update that is refused further on gives every adapter back what it had.
#[test]
fn adapters_get_their_old_limits_back() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("rdma.max"), "mlx5_0 hca_handle=1 hca_object=max\nmlx5_1 hca_handle=2 hca_object=3\n")
        .unwrap();
    let plan = planned(&on_v2(), json!({"rdma": {"mlx5_1": {"hcaHandles": 7}}}));
    let mut updated = Updated::default();
    updated
        .write(
            Directory::at(dir.path()).unwrap().0,
            plan.hierarchies[0].version,
            plan.hierarchies[0].before.iter().collect(),
        )
        .unwrap();
    // as the kernel says it then
    fs::write(dir.path().join("rdma.max"), "mlx5_0 hca_handle=1 hca_object=max\nmlx5_1 hca_handle=7 hca_object=3\n")
        .unwrap();
    updated.take_back().unwrap();
    assert!(
        read(dir.path(), "rdma.max").starts_with("mlx5_1 hca_handle=2 hca_object=3"),
        "{}",
        read(dir.path(), "rdma.max")
    );
}
