//! libseccomp, asked about profiles: oracle.c as a process, and what runc puts before its program.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use libc::sock_filter;
use rrun::plan::seccomp::interpret::{Data, Outcome, run};
use serde_json::Value;

pub struct Oracle {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One comparison after the other: libseccomp's own choice.
    List,
    /// runc's choice for more than 32 rules.
    Tree,
}

/// A filter as runc loads it.
pub struct Theirs {
    pub program: Vec<sock_filter>,
    /// Of each architecture the largest number that the profile names; none where that is 0.
    newest: Vec<(String, u32)>,
    answers_newer: bool,
    /// To make it.
    pub nanoseconds: u64,
}

/// libseccomp does not take the profile: errno and position of the rule.
#[derive(Debug)]
pub struct Refused {
    pub errno: i32,
}

impl Oracle {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("oracle");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/seccomp/oracle.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).arg("-lseccomp");
        let compiled = compiler.status().is_ok_and(|status| status.success());
        assert!(compiled, "{compiler:?}: needs a C compiler and libseccomp-dev; `make seccomp` installs them");
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, requests, answers, _dir: dir }
    }

    fn ask(&mut self, request: &str) {
        self.requests.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the oracle ended");
        line.trim_end().to_string()
    }

    /// The name of a number, as libseccomp knows it.
    pub fn name(&mut self, arch: &str, number: u32) -> Option<String> {
        self.ask(&format!("number {arch} {}\n", number as i32));
        Some(self.line()).filter(|name| name != "-")
    }

    /// `linux.seccomp` of a config.json, on a kernel of the architecture `own`.
    pub fn compile(&mut self, profile: &Value, own: &str, layout: Layout, times: u32) -> Result<Theirs, Refused> {
        self.ask(&request(profile, own, layout, times));
        let (mut newest, mut line) = (Vec::new(), self.line());
        while let Some(rest) = line.strip_prefix("newest ") {
            let (arch, number) = rest.split_once(' ').unwrap();
            let number: u32 = number.parse().unwrap();
            newest.extend((number > 0).then(|| (arch.to_string(), number)));
            line = self.line();
        }
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "refused" {
            return Err(Refused { errno: words[1].parse().unwrap() });
        }
        let (length, nanoseconds): (usize, u64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let program = (0..length).map(|_| instruction(&self.line())).collect();
        let permissive = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
        let answers_newer = !permissive.contains(&profile["defaultAction"].as_str().unwrap());
        Ok(Theirs { program, newest, answers_newer, nanoseconds })
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.requests.take();
        let _ = self.child.wait();
    }
}

fn instruction(line: &str) -> sock_filter {
    let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    sock_filter { code: numbers[0] as u16, jt: numbers[1] as u8, jf: numbers[2] as u8, k: numbers[3] }
}

fn request(profile: &Value, own: &str, layout: Layout, times: u32) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let action =
        |action: &Value, errno: &Value| format!("{} {}", action.as_str().unwrap(), errno.as_u64().unwrap_or(1));
    let mut request = format!("profile {} {times}\nown {own}\n", u8::from(layout == Layout::Tree));
    request += &format!("default {}\n", action(&profile["defaultAction"], &profile["defaultErrnoRet"]));
    for arch in list(&profile["architectures"]) {
        request += &format!("arch {}\n", arch.as_str().unwrap());
    }
    for syscall in list(&profile["syscalls"]) {
        let mut arguments = String::new();
        for argument in list(&syscall["args"]) {
            let number = |key: &str| argument[key].as_u64().unwrap_or(0);
            let operator = argument["op"].as_str().unwrap();
            arguments += &format!(" {} {operator} {} {}", number("index"), number("value"), number("valueTwo"));
        }
        for name in list(&syscall["names"]) {
            let action = action(&syscall["action"], &syscall["errnoRet"]);
            request += &format!("rule {action} {}{arguments}\n", name.as_str().unwrap());
        }
    }
    request + "end\n"
}

pub const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const X86_64: u32 = 0xC000_003E;

impl Theirs {
    /// What runc's filter says: a call newer than the newest that the profile names is unknown, all others are judged
    /// by libseccomp's program.
    pub fn run(&self, data: &Data) -> Outcome {
        let outcome = run(&self.program, data).expect("a program of libseccomp");
        let x32 = data.number & 1 << 30 != 0;
        let arch = match data.arch {
            X86_64 if x32 => "SCMP_ARCH_X32",
            X86_64 => "SCMP_ARCH_X86_64",
            0x4000_0003 => "SCMP_ARCH_X86",
            0xC000_00B7 => "SCMP_ARCH_AARCH64",
            0x4000_0028 => "SCMP_ARCH_ARM",
            _ => return outcome,
        };
        match self.newest.iter().find(|(name, _)| name == arch) {
            Some((_, newest)) if self.answers_newer && data.number > *newest => Outcome { verdict: ENOSYS, ..outcome },
            _ => outcome,
        }
    }
}
