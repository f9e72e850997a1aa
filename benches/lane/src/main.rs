//! `make bench`: rrun, the floor that the kernel sets, and peers, measured in turns. It prints and writes what it saw, and
//! never fails for a number; it fails when a command does.

mod bench;
mod bundle;
mod check;
mod counted;
mod docs;
mod growth;
mod layout;
#[path = "../../../integration/leftovers.rs"]
#[allow(dead_code)]
mod leftovers;
mod lifecycle;
mod list;
mod measure;
mod order;
mod parallel;
#[path = "../../../integration/patience.rs"]
mod patience;
mod report;
mod runtime;
mod setting;
mod targets;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use layout::Layout;
use runtime::{Kind, Runtime};
use setting::Setting;

const USAGE: &str = "lane docs RESULT FILE: tables of a result; lane order RRUN PROGRAMS SCRIPT: a script for the linker; lane RRUN PROGRAMS RESULT: the release binary, the directory of floor and stopwatch, the file to write. \
    SCENARIOS=run,exec ROUNDS=40 LAYOUTS=v1,v2 PACES=hot,spaced SIZES=10,100 PEERS_DIR=";

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [word, rrun, programs, script] = &args[..]
        && word == "order"
    {
        return order::write(rrun, programs, script);
    }
    let [rrun, programs, result] = &args[..] else { bail!(USAGE) };
    if rrun == "docs" {
        return docs::write(programs, result);
    }
    let setting = Setting::from_environment()?;
    ensure!(nix::unistd::geteuid().is_root(), "making containers needs root");
    measure::catch_interrupts()?;
    let rrun = Runtime::new(Kind::Rrun, std::path::absolute(rrun)?);
    let programs = std::path::absolute(programs)?;
    let floor = Runtime::new(Kind::Floor, programs.join("floor"));
    let mut runtimes = vec![rrun, floor];
    runtimes.extend(runtime::peers());
    setting::sweep();

    let machine = setting::machine(&runtimes);
    setting::print(&machine);
    let mut results: Vec<Value> = Vec::new();
    for layout in &setting.layouts {
        if !layout.is_possible()? {
            println!("\nlayout {}: this machine has no such cgroups", layout.name());
            continue;
        }
        results.extend(in_a_process(*layout, || setting.measure(*layout, &runtimes, &programs))?);
    }
    let load = setting::load();
    println!("\nload at the end {load}");
    let result = PathBuf::from(result);
    std::fs::create_dir_all(result.parent().context("RESULT")?)?;
    let whole = json!({"machine": machine, "load_at_the_end": load, "results": results});
    std::fs::write(&result, serde_json::to_vec_pretty(&whole)?)?;
    println!("written: {}", result.display());
    Ok(())
}

/// Layouts are mount namespaces: each has a process, whose results come back by a pipe.
fn in_a_process(layout: Layout, measure: impl FnOnce() -> Result<Vec<Value>>) -> Result<Vec<Value>> {
    use std::io::{Read, Write};
    let (mut reader, mut writer) = std::io::pipe()?;
    // SAFETY: there is one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => {
            drop(writer);
            let mut text = Vec::new();
            // a signal that came to this process came to that one too
            reader.read_to_end(&mut text)?;
            let status = nix::sys::wait::waitpid(child, None)?;
            ensure!(matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)), "layout {}: failed", layout.name());
            Ok(serde_json::from_slice(&text)?)
        }
        nix::unistd::ForkResult::Child => {
            drop(reader);
            let done = layout.enter().and_then(|()| measure());
            let done = done.and_then(|results| Ok(writer.write_all(&serde_json::to_vec(&results)?)?));
            if let Err(error) = &done {
                eprintln!("bench: {error:#}");
            }
            std::process::exit(i32::from(done.is_err()))
        }
    }
}
