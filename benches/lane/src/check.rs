//! Whether the floor makes what rrun makes: both containers are looked at from inside, and must be the same. A floor that
//! does less would be too low, one that does more no floor.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::ptrace;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use crate::bench::Bench;
use crate::patience::eventually_within;
use crate::runtime::Calls;

/// What a program reads inside, and what is left out of it: numbers that differ from process to process.
const FILES: [&str; 5] =
    ["/proc/self/status", "/proc/self/mountinfo", "/proc/self/cgroup", "/proc/self/limits", "/proc/self/environ"];
const VARYING: [&str; 6] = ["Vm", "Rss", "voluntary_ctxt", "nonvoluntary_ctxt", "SigQ", "FDSize"];

pub fn compare(bench: &Bench) -> Result<()> {
    let (rrun, floor) = (seen(bench, 0)?, seen(bench, 1)?);
    let mut differences = Vec::new();
    for (what, of_rrun) in &rrun {
        let of_floor = floor.get(what).map(String::as_str).unwrap_or_default();
        let (theirs, ours): (Vec<_>, Vec<_>) = (of_rrun.lines().collect(), of_floor.lines().collect());
        differences.extend(theirs.iter().filter(|l| !ours.contains(l)).map(|l| format!("{what}: only rrun: {l}")));
        differences.extend(ours.iter().filter(|l| !theirs.contains(l)).map(|l| format!("{what}: only floor: {l}")));
    }
    ensure!(
        rrun.len() == floor.len() && differences.is_empty(),
        "the floor is not rrun's:\n{}",
        differences.join("\n")
    );
    println!(
        "\nfloor and rrun, {}: the same inside: {}",
        bench.layout,
        rrun.into_keys().collect::<Vec<_>>().join(", ")
    );
    Ok(())
}

fn seen(bench: &Bench, at: usize) -> Result<BTreeMap<String, String>> {
    let runtime = &bench.runtimes[at];
    let calls = bench.calls(runtime, true)?;
    let mut seen = BTreeMap::new();
    for file in FILES {
        let bundle = bench.bundles.make("check", &["cat", file], true, |_| {})?;
        let text = output(&calls.run(&bundle, &["/bin/program", "cat", file]))?;
        seen.insert(file.to_string(), normal(file, &text));
    }
    let bundle = bench.bundles.make("check", &["pause"], true, |_| {})?;
    bench.stopwatch.time(&calls.create(&bundle, &["/bin/program", "pause"]))?;
    let looked = from_outside(&calls);
    output(&calls.simple("start"))?;
    let pid = calls.pid()?;
    output(&calls.kill())?;
    let gone = || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(());
    eventually_within(Duration::from_secs(10), gone).context("the container lives on after kill")?;
    output(&calls.simple("delete"))?;
    seen.extend(looked?);
    Ok(seen)
}

fn output(command: &[String]) -> Result<String> {
    let output = Command::new(&command[0]).args(&command[1..]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", command.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn normal(file: &str, text: &str) -> String {
    match file {
        "/proc/self/mountinfo" => text.lines().map(mount_line).collect(),
        "/proc/self/environ" => text.replace('\0', "\n"),
        _ => {
            let kept = text.lines().filter(|line| !VARYING.iter().any(|word| line.starts_with(word)));
            kept.map(|line| format!("{line}\n")).collect()
        }
    }
}

/// Without its numbers, and without `ro` or `rw` of the file system: mount(2) says it of both, fsmount(2) of the mount
/// alone, and nothing but the mount can be written through here.
fn mount_line(line: &str) -> String {
    let fields: Vec<&str> = line.split(' ').skip(3).collect();
    let mut line = fields.join(" ");
    for word in [" rw", " ro"] {
        let (mount, filesystem) = line.rsplit_once(" - ").unwrap_or((&line, ""));
        line = format!("{mount} - {}", filesystem.replace(&format!("{word},"), " ").trim_end_matches(word));
    }
    line.push('\n');
    line
}

/// /dev, cgroups, devices and the filter of a container that is created.
fn from_outside(calls: &Calls) -> Result<BTreeMap<String, String>> {
    let pid = calls.pid()?;
    let mut seen = BTreeMap::new();
    seen.insert("/dev".into(), listing(Path::new(&format!("/proc/{pid}/root/dev")))?);
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    seen.insert("cgroups".into(), cgroups.replace(&calls.id, "ID"));
    for parent in calls.cgroups.split(',').filter(|parent| parent.ends_with("/devices")) {
        let mut lines: Vec<_> =
            fs::read_to_string(format!("{parent}/{}/devices.list", calls.id))?.lines().map(String::from).collect();
        lines.sort();
        seen.insert("devices".into(), lines.join("\n"));
    }
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        let link = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let new = link(&pid.to_string())? != link("self")?;
        seen.insert(format!("{kind} namespace"), if new { "new" } else { "the host's" }.into());
    }
    seen.insert("filter".into(), filter(pid)?);
    Ok(seen)
}

fn listing(dir: &Path) -> Result<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir).context("/dev of the container")? {
        let entry = entry?;
        let data = entry.metadata()?;
        let kind = data.file_type();
        let number = if kind.is_char_device() { format!(" {:x}", data.rdev()) } else { String::new() };
        let link = fs::read_link(entry.path()).map(|to| format!(" -> {}", to.display())).unwrap_or_default();
        lines.push(format!("{} {:o}{number}{link}", entry.file_name().to_string_lossy(), data.mode()));
    }
    lines.sort();
    Ok(lines.join("\n"))
}

/// PTRACE_SECCOMP_GET_FILTER of ptrace(2).
const GET_FILTER: libc::c_uint = 0x420c;

/// Its instructions as the kernel has them, so that no other filter is compared than the one that was loaded.
fn filter(pid: i32) -> Result<String> {
    let process = Pid::from_raw(pid);
    ptrace::attach(process).context("ptrace")?;
    waitpid(process, Some(nix::sys::wait::WaitPidFlag::__WALL)).context("ptrace")?;
    let mut program = vec![0u64; 4096];
    // SAFETY: the kernel writes at most 4096 instructions of 8 bytes (BPF_MAXINSNS).
    let length = unsafe { libc::ptrace(GET_FILTER, pid, 0, program.as_mut_ptr()) };
    let error = std::io::Error::last_os_error();
    ptrace::detach(process, None).context("ptrace")?;
    if length < 0 {
        bail!("the filter of {pid}: {error}");
    }
    program.truncate(length as usize);
    Ok(program.iter().map(|instruction| format!("{instruction:016x}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        for (line, want) in [
            ("68 67 0:40 / /proc rw - proc proc rw", "/ /proc rw - proc proc\n"),
            ("73 67 0:44 / /sys ro,nodev - sysfs sysfs ro", "/ /sys ro,nodev - sysfs sysfs\n"),
            ("45 68 0:45 / /a ro master:1 - tmpfs none rw,size=4k", "/ /a ro master:1 - tmpfs none size=4k\n"),
        ] {
            assert_eq!(mount_line(line), want, "{line}");
        }
    }
}
