//! How long filters take: `make bench-seccomp`. Instructions executed per call over a recorded trace, nanoseconds per
//! call with the filter loaded, and the time to compile, against libseccomp's in both its layouts. Prints; never fails
//! for being slow.

#[allow(dead_code)]
mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use libc::sock_filter;
use rrun::plan::seccomp::calls::{Arch, Call, X86};
use rrun::plan::seccomp::compile;
use rrun::plan::seccomp::interpret::{Data, run};
use rrun::plan::seccomp::profile::Profile;
use rrun::plan::spec::seccomp::Seccomp;
use rrun::sys::{clone, seccomp};
use serde_json::Value;

use oracle::{Layout, Oracle};

const TIMES: u32 = 1000;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn main() {
    let mut oracle = Oracle::new();
    for manager in ["docker-plain", "ctr-seccomp", "podman-plain"] {
        let config = fs::read(path(&format!("tests/plans/{manager}.config.json"))).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        let mut written = config["linux"]["seccomp"].take();
        for architectures in [written["architectures"].clone(), serde_json::json!(["SCMP_ARCH_X86_64"])] {
            written["architectures"] = architectures;
            compare(manager, &written, &mut oracle);
        }
    }
}

fn compare(manager: &str, written: &Value, oracle: &mut Oracle) {
    let seccomp: Seccomp = serde_json::from_value(written.clone()).unwrap();
    let (ours, took) = timed(&seccomp);
    let [list, tree] =
        [Layout::List, Layout::Tree].map(|layout| oracle.compile(written, X86.own().name(), layout, 11).unwrap());
    let archs = written["architectures"].as_array().unwrap().len();
    println!("{manager}, {archs} architectures        rrun  libseccomp's list  its tree");
    println!("  instructions            {:8} {:18} {:9}", ours.len(), list.program.len(), tree.program.len());
    let us = |nanoseconds: u64| nanoseconds as f64 / 1000.0;
    println!("  us to compile           {:8.1} {:18.1} {:9.1}", us(took), us(list.nanoseconds), us(tree.nanoseconds));
    let programs = [&ours, &list.program, &tree.program];
    let means = programs.map(|program| mean(program));
    println!("  executed, mean of trace {:8.2} {:18.2} {:9.2}", means[0], means[1], means[2]);
    println!("    ratio                          {:18.3} {:9.3}", means[0] / means[1], means[0] / means[2]);
    let worst = programs.map(|program| worst(program));
    println!("  executed, worst         {:8} {:18} {:9}", worst[0], worst[1], worst[2]);
    for (what, number, argument) in
        [("allowed", "getppid", 0), ("by argument", "personality", 0xFFFF_FFFF), ("refused", "acct", 0)]
    {
        let number = X86.number(Call::named(number).unwrap(), Arch::X86_64).unwrap();
        let bare = nanoseconds(None, number, argument);
        let with = programs.map(|program| nanoseconds(Some(program), number, argument));
        println!("  ns, {what:<19} {:8.0} {:18.0} {:9.0}   without a filter {bare:.0}", with[0], with[1], with[2]);
    }
}

/// The filter, and the median of the time to make it of a profile that is read.
fn timed(seccomp: &Seccomp) -> (Vec<sock_filter>, u64) {
    let make = || compile(&Profile::check(black_box(seccomp), &X86).unwrap(), &X86).unwrap();
    let mut took: Vec<u64> = (0..TIMES)
        .map(|_| {
            let since = Instant::now();
            black_box(make());
            since.elapsed().as_nanos() as u64
        })
        .collect();
    took.sort_unstable();
    (make(), took[took.len() / 2])
}

fn steps(program: &[sock_filter], number: u32, arch: Arch) -> u32 {
    run(program, &Data { number, arch: arch.token(), ..Data::default() }).unwrap().steps
}

/// Each program of the trace counts the same.
fn mean(program: &[sock_filter]) -> f64 {
    let trace = fs::read_to_string(path("integration/seccomp/trace.tsv")).unwrap();
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for line in trace.lines().skip(1) {
        let (name, counts) = line.split_once('\t').unwrap();
        let number = Call::named(name).and_then(|call| X86.number(call, Arch::X86_64)).unwrap();
        let steps = f64::from(steps(program, number, Arch::X86_64));
        for (column, count) in counts.split('\t').enumerate() {
            let count: f64 = count.parse().unwrap();
            let (total, calls) = sums.entry(column).or_default();
            (*total, *calls) = (*total + count * steps, *calls + count);
        }
    }
    sums.values().map(|(total, calls)| total / calls).sum::<f64>() / sums.len() as f64
}

fn worst(program: &[sock_filter]) -> u32 {
    (0..600).map(|number| steps(program, number, Arch::X86_64)).max().unwrap()
}

/// Of one call, in a process of its own.
fn nanoseconds(program: Option<&[sock_filter]>, number: u32, argument: u64) -> f64 {
    const CALLS: u32 = 300_000;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let child = clone::fork(|| {
        nix::sys::prctl::set_no_new_privs().unwrap();
        if let Some(program) = program {
            seccomp::load(program, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW).unwrap();
        }
        let since = Instant::now();
        for _ in 0..CALLS {
            #[allow(unsafe_code)]
            // SAFETY: none of the calls that are tried takes a pointer that is looked at.
            unsafe {
                libc::syscall(number.into(), argument, 0)
            };
        }
        let took = since.elapsed().as_nanos() as u64;
        nix::unistd::write(&writer, &took.to_ne_bytes()).unwrap();
        0
    })
    .unwrap();
    let mut bytes = [0; 8];
    nix::unistd::read(&reader, &mut bytes).unwrap();
    clone::wait_for_end(std::os::fd::AsFd::as_fd(&child.pidfd)).unwrap();
    u64::from_ne_bytes(bytes) as f64 / f64::from(CALLS)
}
