//! The parts of a command that make no system call: config.json read, planned, its filter compiled. `make bench-parts`.

use std::hint::black_box;
use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use rrun::host::Host;
use rrun::plan::build::Options;
use rrun::plan::spec::Spec;
use rrun::plan::{Descriptors, Plan, seccomp};
use serde_json::{Value, json};

const SPEC: &str = include_str!("../../../src/cli/spec/config.json");
const DOCKER: &str = include_str!("../../../tests/plans/docker-plain.config.json");

/// As `make bench` grows it: a thousand annotations of a kilobyte.
fn megabyte() -> String {
    let mut config: Value = serde_json::from_str(SPEC).unwrap();
    for number in 0..1000 {
        config["annotations"][format!("growth.{number}")] = json!("x".repeat(1000));
    }
    config.to_string()
}

fn options() -> Options {
    Options {
        id: "bench".into(),
        bundle: "/bundle".into(),
        rootfs: PathBuf::from("/bundle/rootfs"),
        no_pivot: false,
        // the spec's own config wants a terminal
        detached: false,
        console_socket: false,
        descriptors: Descriptors::default(),
        no_new_keyring: false,
        cgroup_of_unit: None,
        notify: None,
    }
}

fn parts(criterion: &mut Criterion) {
    let megabyte = megabyte();
    for (name, text) in [("spec", SPEC), ("docker", DOCKER), ("megabyte", &megabyte)] {
        criterion.bench_function(&format!("parse {name}"), |bencher| {
            bencher.iter(|| Spec::parse(black_box(text.as_bytes())).unwrap());
        });
    }
    let (host, options) = (Host::detect().unwrap(), options());
    for (name, text) in [("spec", SPEC), ("docker", DOCKER)] {
        let spec = Spec::parse(text.as_bytes()).unwrap();
        criterion.bench_function(&format!("plan {name}"), |bencher| {
            bencher.iter(|| Plan::build(black_box(&spec), &options, &host).unwrap());
        });
    }
    let spec = Spec::parse(DOCKER.as_bytes()).unwrap();
    let written = spec.linux.and_then(|linux| linux.seccomp).expect("docker's config has a profile");
    criterion.bench_function("compile docker's profile", |bencher| {
        bencher.iter(|| seccomp::plan(black_box(&written)).unwrap());
    });
}

criterion_group!(all, parts);
criterion_main!(all);
