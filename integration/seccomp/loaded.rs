//! Filters in the kernel: it takes them, and judges calls that are made as the interpreter does.

use std::arch::asm;
use std::io::Write;

use libc::sock_filter;
use rrun::plan::seccomp::calls::{Arch, X32_BIT, X86};
use rrun::plan::seccomp::compile;
use rrun::plan::seccomp::interpret::Data;
use rrun::plan::seccomp::profile::Profile;
use rrun::plan::spec::seccomp::Seccomp;
use rrun::sys::{clone, seccomp};
use serde_json::{Value, json};

use crate::generated::{self, Kind, Random};
use crate::oracle::{Layout, Oracle};
use crate::real_profiles;

/// A profile that tells whose rule decided, by the errno, and lets no call be carried out.
fn telling(profile: &Value) -> Value {
    let mut telling = profile.clone();
    let kept = ["write", "exit_group"];
    telling["defaultAction"] = json!("SCMP_ACT_ERRNO");
    telling["defaultErrnoRet"] = json!(1000);
    let rules = telling["syscalls"].as_array_mut().unwrap();
    // names apart, so that each has an errno
    let mut known: Vec<Value> = Vec::new();
    let mut apart = Vec::new();
    for rule in rules.iter() {
        for name in rule["names"].as_array().unwrap().iter().filter(|name| !kept.contains(&name.as_str().unwrap())) {
            let number = known.iter().position(|other| other == name).unwrap_or_else(|| {
                known.push(name.clone());
                known.len() - 1
            });
            let mut rule = rule.clone();
            rule["names"] = json!([name]);
            rule["action"] = json!("SCMP_ACT_ERRNO");
            rule["errnoRet"] = json!(1001 + number);
            apart.push(rule);
        }
    }
    *rules = apart;
    rules.push(json!({"names": kept, "action": "SCMP_ACT_ALLOW"}));
    telling
}

/// Calls of each architecture: every number that has a name, some more, and arguments that rules look at.
fn calls() -> Vec<Data> {
    let mut calls = Vec::new();
    for (arch, bit) in [(Arch::X86_64, 0), (Arch::X86, 0), (Arch::X32, X32_BIT)] {
        for number in (0..480).map(|number| number | bit) {
            let name = X86.name(number, arch);
            // uretprobe and uprobe go past seccomp (6.12): the kernel itself puts them into programs
            let unjudged = arch != Arch::X86 && [335, 336].contains(&(number & !X32_BIT));
            if name == Some("write") || name == Some("exit_group") || unjudged {
                continue;
            }
            for argument in [0, 1, 5, 8, 38, 39, 40, 0x20000, 0x20008, 0x1000_0000, 0x1100_0000, 0xFFFF_FFFF] {
                calls.push(Data {
                    number,
                    arch: arch.token(),
                    arguments: [argument, 0, 0, 0, 0, 0],
                    ..Data::default()
                });
            }
        }
    }
    calls
}

#[allow(unsafe_code)]
fn call(data: &Data) -> i64 {
    let mut result = i64::from(data.number);
    let argument = data.arguments[0];
    // SAFETY: the filter lets none of the calls be carried out, so they touch nothing.
    unsafe {
        if data.arch == Arch::X86.token() {
            // rbx is LLVM's own
            asm!("xchg rbx, {0}", "int 0x80", "xchg rbx, {0}", inout(reg) argument => _, inlateout("rax") result,
                in("rcx") 0, in("rdx") 0, in("rsi") 0, in("rdi") 0, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            return i64::from(result as i32);
        }
        asm!("syscall", inlateout("rax") result, in("rdi") argument, in("rsi") 0, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r9") 0, out("rcx") _, out("r11") _);
    }
    result
}

/// What the calls give in a process with the filter.
fn made(program: &[sock_filter], calls: &[Data]) -> Vec<i64> {
    let mut file = tempfile::tempfile().unwrap();
    let mut results = vec![0_u8; calls.len() * 8];
    let child = clone::fork(|| {
        nix::sys::prctl::set_no_new_privs().unwrap();
        if seccomp::load(program, 0).is_err() {
            return 1;
        }
        for (call_made, place) in calls.iter().zip(results.chunks_exact_mut(8)) {
            place.copy_from_slice(&call(call_made).to_ne_bytes());
        }
        // at once: to free memory is a call too
        clone::exit_now(i32::from(file.write_all(&results).is_err()))
    });
    let end = clone::wait_for_end(std::os::fd::AsFd::as_fd(&child.unwrap().pidfd)).unwrap();
    assert_eq!(end, clone::End::Exited(0));
    std::io::Seek::rewind(&mut file).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
    bytes.chunks_exact(8).map(|bytes| i64::from_ne_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn calls_that_are_made_get_the_verdicts_of_the_interpreter() {
    let mut oracle = Oracle::new();
    let calls = calls();
    for (name, written) in real_profiles() {
        let mut written = telling(&written);
        written["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        let seccomp: Seccomp = serde_json::from_value(written.clone()).unwrap();
        let ours = compile(&Profile::check(&seccomp, &X86).unwrap(), &X86).unwrap();
        let theirs = oracle.compile(&written, X86.own().name(), Layout::Tree, 1).unwrap();
        let results = made(&ours, &calls);
        assert_eq!(results.len(), calls.len());
        for (data, result) in calls.iter().zip(&results) {
            let want = -i64::from(theirs.run(data).verdict & libc::SECCOMP_RET_DATA);
            assert_eq!(*result, want, "{name}: {data:x?}");
        }
        // and libseccomp's, in the kernel, where runc puts nothing before it
        let newer = |data: &Data| theirs.run(data).verdict == crate::oracle::ENOSYS;
        for ((data, own), their) in calls.iter().zip(&results).zip(made(&theirs.program, &calls)) {
            assert!(*own == their || newer(data), "{name}: {data:x?}: {own}, libseccomp {their}");
        }
    }
    println!("{} calls made for each profile", calls.len());
}

#[test]
fn the_kernel_takes_every_program() {
    let mut random = Random(2);
    let mut taken = 0;
    for n in 0..300 {
        let kind = [Kind::Agreeing, Kind::OneArgument, Kind::Any][n % 3];
        let written = generated::profile(&mut random, kind, &["SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        let seccomp: Seccomp = serde_json::from_value(written.clone()).unwrap();
        // what contradicts itself makes no program
        let Ok(program) = compile(&Profile::check(&seccomp, &X86).unwrap(), &X86) else { continue };
        let child = clone::fork(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            match seccomp::load(&program, 0) {
                Ok(()) => loop {
                    // any verdict on its end would do
                    std::hint::spin_loop();
                },
                Err(_) => 1,
            }
        });
        let child = child.unwrap();
        let loaded = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid)).unwrap();
            status.contains("Seccomp:\t2") || status.contains("State:\tZ")
        };
        while !loaded() {
            std::thread::yield_now();
        }
        clone::pidfd_send_signal(std::os::fd::AsFd::as_fd(&child.pidfd), libc::SIGKILL).unwrap();
        let end = clone::wait_for_end(std::os::fd::AsFd::as_fd(&child.pidfd)).unwrap();
        assert_eq!(end, clone::End::Killed(libc::SIGKILL), "{written:#}");
        taken += 1;
    }
    assert!(taken > 200, "{taken}");
}
