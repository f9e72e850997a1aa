//! How the cost of `run` grows with what is asked for: without a seccomp filter, which would hide it.

use std::fs;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::bench::Bench;
use crate::measure::{Pace, in_turns};
use crate::report;

const MOST_ROUNDS: usize = 10;

type Change = fn(&mut Value, usize);

/// What grows, and how far. The floor has a part in what is none of the config's.
const GROWTHS: [(&str, &[usize], Change); 6] = [
    ("nothing", &[0], |_, _| {}),
    ("mounts", &[10, 100, 1000], mounts),
    ("devices", &[10, 100, 500], devices),
    ("variables", &[1000, 10_000], variables),
    ("config-kb", &[1000], kilobytes),
    ("host-mounts", &[1000], |_, _| {}),
];

pub fn measure(bench: &mut Bench) -> Result<()> {
    // both ends of what is bound, and no cost of making them
    for number in 0..1000 {
        fs::create_dir_all(bench.bundles.rootfs.join(format!("mnt/{number}")))?;
    }
    fs::create_dir_all(bench.dir.join("bound"))?;
    let bound = bench.dir.join("bound").to_string_lossy().into_owned();
    for (what, sizes, change) in GROWTHS {
        for &size in sizes {
            let scenario = format!("growth-{what}-{size}");
            let bundle = bench.bundles.make(&scenario, &["true"], false, |config| {
                config["annotations"] = json!({"bound": bound});
                change(config, size);
            })?;
            let host = if what == "host-mounts" { HostMounts::make(bench, size)? } else { HostMounts::default() };
            let floored = ["nothing", "host-mounts"].contains(&what);
            let takes_part = |floor: bool| floored || !floor;
            let runtimes: Vec<_> = bench.runtimes.iter().filter(|r| takes_part(r.is_floor())).cloned().collect();
            let mut samples = vec![Vec::new(); runtimes.len()];
            in_turns(bench.rounds.min(MOST_ROUNDS), &runtimes, |at, runtime| {
                let calls = bench.calls(runtime, false)?;
                samples[at].push(bench.run(&calls, &calls.run(&bundle, &["/bin/program", "true"]))?);
                Ok(())
            })?;
            drop(host);
            let names: Vec<_> = runtimes.into_iter().map(|runtime| runtime.name).collect();
            bench.record(Pace::Hot, &scenario, &names, samples);
            report::scenario(bench, Pace::Hot, &scenario);
        }
    }
    Ok(())
}

fn extend(list: &mut Value, more: impl Iterator<Item = Value>) {
    let mut whole = list.as_array().cloned().unwrap_or_default();
    whole.extend(more);
    *list = Value::Array(whole);
}

fn mounts(config: &mut Value, many: usize) {
    let bound = config["annotations"]["bound"].clone();
    let mount = |number| json!({"destination": format!("/mnt/{number}"), "type": "bind", "source": bound, "options": ["bind", "ro"]});
    extend(&mut config["mounts"], (0..many).map(mount));
}

fn devices(config: &mut Value, many: usize) {
    let numbers = || (0..many).map(|number| number + 300);
    let device = |minor| json!({"path": format!("/dev/growth{minor}"), "type": "c", "major": 240, "minor": minor, "fileMode": 0o600, "uid": 0, "gid": 0});
    extend(&mut config["linux"]["devices"], numbers().map(device));
    let rule = |minor| json!({"allow": true, "type": "c", "major": 240, "minor": minor, "access": "rw"});
    extend(&mut config["linux"]["resources"]["devices"], numbers().map(rule));
}

fn variables(config: &mut Value, many: usize) {
    extend(&mut config["process"]["env"], (0..many).map(|number| json!(format!("VARIABLE_{number}=value {number}"))));
}

fn kilobytes(config: &mut Value, many: usize) {
    for number in 0..many {
        config["annotations"][format!("growth.{number}")] = json!("x".repeat(1000));
    }
}

/// Mounts of the host, in this process's own mount namespace.
#[derive(Default)]
struct HostMounts(Vec<std::path::PathBuf>);

impl HostMounts {
    fn make(bench: &Bench, many: usize) -> Result<Self> {
        let mut made = Self::default();
        let source = bench.dir.join("bound");
        for number in 0..many {
            let place = bench.dir.join(format!("host-mounts/{number}"));
            fs::create_dir_all(&place)?;
            mount(Some(&source), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .context("a mount of the host")?;
            made.0.push(place);
        }
        Ok(made)
    }
}

impl Drop for HostMounts {
    fn drop(&mut self) {
        for place in self.0.iter().rev() {
            let _ = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}
