//! `make order`: which functions the commands run, seen step by step by ptrace(2), as a script for the linker. What one
//! command needs then lies together: the kernel maps 64 KiB around each page that is asked for, so a start that needs
//! functions from all over the file brings in most of it, by as many faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::bundle::Bundles;
use crate::runtime::{Calls, Kind, Runtime};

const HEAD: &str = "/* Made by `make order`: functions in the order in which commands need them. A name that is gone matches nothing. */\n\
    SECTIONS { .text.start : {\n*crt*.o(.text)\n*libc.a:*(.text .text.*)\n";
const TAIL: &str = "} } INSERT BEFORE .text;\n";

/// Of an ELF file: the bytes before the program headers, and the place in them that says where the program begins.
const HEADER: u64 = 64;
const ENTRY: u64 = 24;

/// `binary` has its symbols.
pub fn write(binary: &str, programs: &str, script: &str) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("rrun-order-{}", std::process::id()));
    let functions = Functions::of(binary)?;
    let seen = seen(binary, Path::new(programs), &dir, &functions);
    fs::remove_dir_all(&dir)?;
    let mut seen: Vec<(usize, u64)> = seen?.into_iter().map(|(function, rank)| (rank, function)).collect();
    seen.sort_unstable();
    let mut patterns: Vec<String> = Vec::new();
    for (_, address) in &seen {
        let pattern = pattern(&functions.names[address]);
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    let lines: String = patterns.iter().map(|pattern| format!("*(.text.{pattern})\n")).collect();
    fs::write(script, format!("{HEAD}{lines}{TAIL}"))?;
    println!("{script}: {} functions of {}", patterns.len(), functions.names.len());
    Ok(())
}

/// The names of crates and of instances of a function are told apart by hashes, which change with everything.
fn pattern(name: &str) -> String {
    let name = name.split(".llvm.").next().unwrap_or(name);
    if let Some((path, _)) = name.strip_prefix("_ZN").and_then(|_| name.rsplit_once("17h")) {
        return format!("{path}17h*");
    }
    let mut parts = name.split("Cs");
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |done, part| match part.split_once('_') {
        Some((hash, rest)) if hash.chars().all(|c| c.is_ascii_alphanumeric()) => format!("{done}Cs*_{rest}"),
        _ => format!("{done}Cs{part}"),
    })
}

struct Functions {
    names: BTreeMap<u64, String>,
    entry: u64,
}

impl Functions {
    fn of(binary: &str) -> Result<Self> {
        let output = Command::new("nm").args(["--defined-only", binary]).output().context("nm")?;
        let text = String::from_utf8(output.stdout)?;
        let names = text.lines().filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [address, "t" | "T" | "w" | "W", name] => Some((u64::from_str_radix(address, 16).ok()?, name.to_string())),
            _ => None,
        });
        let mut entry = [0; 8];
        fs::File::open(binary)?.read_exact_at(&mut entry, ENTRY)?;
        Ok(Self { names: names.collect(), entry: u64::from_le_bytes(entry) })
    }

    /// Where a process has rrun loaded, if that is what it runs: its headers are at the beginning of the file.
    fn base(&self, pid: Pid) -> Option<u64> {
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        let auxiliary = fs::read(format!("/proc/{pid}/auxv")).ok()?;
        let value = |key| auxiliary.chunks_exact(16).find(|pair| word(&pair[..8]) == key).map(|pair| word(&pair[8..]));
        let base = value(libc::AT_PHDR)?.checked_sub(HEADER)?;
        (value(libc::AT_ENTRY)? == base + self.entry).then_some(base)
    }
}

/// For each function, by address, the most frequent command that comes through it.
fn seen(binary: &str, programs: &Path, dir: &Path, functions: &Functions) -> Result<BTreeMap<u64, usize>> {
    let bundles = Bundles::new(dir, &programs.join("program"))?;
    let rrun = Runtime::new(Kind::Rrun, std::path::absolute(binary)?);
    let root = dir.join("root");
    let calls = Calls {
        runtime: &rrun,
        root: root.clone(),
        id: format!("order-{}", std::process::id()),
        cgroups: "",
        rootfs: &bundles.rootfs,
        filter: None,
        devices: None,
    };
    let bundle = |name, args: &[&str]| bundles.make(name, args, true, |_| {});
    let create = calls.create(&bundle("waits", &["pause"])?, &[]);
    fs::create_dir(&root)?;
    ensure!(Command::new(&create[0]).args(&create[1..]).status()?.success(), "{}", create.join(" "));
    let mut seen = BTreeMap::new();
    for (rank, command) in [
        (0, calls.simple("state")),
        (1, calls.simple("start")),
        (5, calls.list()),
        (3, calls.exec(&["/bin/program", "true"])),
        (2, calls.kill()),
        (4, calls.delete_force()),
        (6, calls.run(&bundle("ends", &["true"])?, &[])),
    ] {
        println!("{}", command.join(" "));
        for address in step(&command, functions)? {
            let first = seen.entry(address).or_insert(rank);
            *first = rank.min(*first);
        }
    }
    Ok(seen)
}

/// The functions that a command comes through, in all of its processes.
fn step(command: &[String], functions: &Functions) -> Result<BTreeSet<u64>> {
    let mut seen = BTreeSet::new();
    // where each process has rrun; none while it is another program
    let mut bases: BTreeMap<Pid, Option<u64>> = BTreeMap::new();
    let first = start_stopped(command)?;
    let options = Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK;
    ptrace::seize(first, options)?;
    kill(first, Signal::SIGCONT)?;
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::__WALL)) {
        let (pid, signal) = match status {
            WaitStatus::Stopped(pid, Signal::SIGTRAP) => (pid, None),
            WaitStatus::Stopped(pid, signal) => (pid, Some(signal)),
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == Event::PTRACE_EVENT_EXEC as i32 {
                    bases.remove(&pid);
                }
                (pid, None)
            }
            WaitStatus::Exited(pid, code) => {
                ensure!(pid != first || code == 0, "{}: ended with {code}", command.join(" "));
                continue;
            }
            _ => continue,
        };
        let base = *bases.entry(pid).or_insert_with(|| functions.base(pid));
        let next = match (base, ptrace::syscall_info(pid)) {
            (Some(base), Ok(info)) => {
                let here = functions.names.range(..=info.instruction_pointer.wrapping_sub(base)).next_back();
                seen.extend(here.map(|(address, _)| *address));
                ptrace::step(pid, signal)
            }
            _ => ptrace::cont(pid, signal),
        };
        ensure!(matches!(next, Ok(()) | Err(Errno::ESRCH)), "go on with {pid}");
    }
    Ok(seen)
}

/// A shell that stops itself and then becomes the command.
fn start_stopped(command: &[String]) -> Result<Pid> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "kill -STOP $$; exec \"$@\"", "sh"]).args(command);
    #[allow(clippy::zombie_processes)] // reaped by `step`
    let child = shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let pid = Pid::from_raw(child.id() as i32);
    let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED))?;
    ensure!(matches!(stopped, WaitStatus::Stopped(..)), "the shell has not stopped");
    Ok(pid)
}
