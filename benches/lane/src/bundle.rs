//! Bundles: the one that all are compared by, and larger ones.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use rrun::cgroup::DeviceFilter;
use rrun::plan::seccomp;
use rrun::plan::spec::seccomp::Seccomp;

/// What `rrun spec` writes. Without its cgroup mount, which the kinds of runtimes make in too different ways for a floor.
const SPEC: &str = include_str!("../../../src/cli/spec/config.json");
/// Holds Docker's default profile.
const DOCKER: &str = include_str!("../../../tests/plans/docker-plain.config.json");

pub struct Bundles {
    dir: PathBuf,
    pub rootfs: PathBuf,
    /// Docker's profile, compiled.
    pub filter: PathBuf,
    /// What a container may open, compiled.
    pub devices: PathBuf,
}

impl Bundles {
    pub fn new(dir: &Path, program: &Path) -> Result<Self> {
        let rootfs = dir.join("rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp", "mnt"] {
            fs::create_dir_all(rootfs.join(name)).context("rootfs")?;
        }
        fs::copy(program, rootfs.join("bin/program")).context("the container's program")?;
        let bundles =
            Self { dir: dir.join("bundles"), rootfs, filter: dir.join("filter"), devices: dir.join("devices") };
        let profile: Seccomp = serde_json::from_value(profile()?)?;
        let filter = seccomp::plan(&profile)?.program;
        let bytes = filter.iter().flat_map(|step| {
            let (code, k) = (step.code.to_ne_bytes(), step.k.to_ne_bytes());
            [code[0], code[1], step.jt, step.jf, k[0], k[1], k[2], k[3]]
        });
        fs::write(&bundles.filter, bytes.collect::<Vec<u8>>())?;
        let deny = serde_json::from_value(json!({"allow": false, "access": "rwm"}))?;
        let program = DeviceFilter::new(&[deny])?.program()?;
        let bytes = program.iter().flat_map(|step| {
            let (offset, immediate) = (step.offset.to_ne_bytes(), step.immediate.to_ne_bytes());
            let [a, b, c, d] = immediate;
            [step.code, step.registers, offset[0], offset[1], a, b, c, d]
        });
        fs::write(&bundles.devices, bytes.collect::<Vec<u8>>())?;
        Ok(bundles)
    }

    /// A bundle that runs `program ARGS`, with Docker's profile if that is asked for, and changed as the caller likes.
    pub fn make(&self, name: &str, args: &[&str], profiled: bool, change: impl FnOnce(&mut Value)) -> Result<PathBuf> {
        let mut config: Value = serde_json::from_str(SPEC)?;
        let mut argv = vec!["/bin/program"];
        argv.extend(args);
        // a version that every peer takes
        config["ociVersion"] = json!("1.0.2");
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(argv);
        config["root"]["path"] = json!(self.rootfs);
        let mounts = config["mounts"].as_array_mut().context("mounts")?;
        mounts.retain(|mount| mount["type"] != "cgroup");
        if profiled {
            config["linux"]["seccomp"] = profile()?;
        }
        change(&mut config);
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("config.json"), serde_json::to_vec(&config)?)?;
        Ok(dir)
    }
}

fn profile() -> Result<Value> {
    let mut config: Value = serde_json::from_str(DOCKER)?;
    Ok(config["linux"]["seccomp"].take())
}
