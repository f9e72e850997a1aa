//! rrun's filters against libseccomp's, as runc uses it: `make seccomp`. Needs libseccomp-dev and a C compiler; no root.

mod generated;
mod inputs;
#[cfg(target_arch = "x86_64")]
mod loaded;
mod naive;
mod oracle;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use libc::sock_filter;
use rrun::plan::seccomp::calls::{ARM, Arch, Call, Family, X32_BIT, X86};
use rrun::plan::seccomp::compile;
use rrun::plan::seccomp::interpret::{Data, Outcome, run};
use rrun::plan::seccomp::profile::{OPERATORS, Profile};
use rrun::plan::spec::seccomp::Seccomp;
use serde_json::{Value, json};

use generated::{Kind, Random};
use oracle::{Layout, Oracle};

/// Default profiles of container managers: those of the configs that tests/plans keeps, each once.
fn real_profiles() -> Vec<(String, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut profiles: BTreeMap<String, (String, Value)> = BTreeMap::new();
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    for path in names.iter().filter(|path| path.to_string_lossy().ends_with(".config.json")) {
        let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let profile = config["linux"]["seccomp"].take();
        if !profile.is_null() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            profiles.entry(profile.to_string()).or_insert((name, profile));
        }
    }
    let profiles: Vec<_> = profiles.into_values().collect();
    for manager in ["docker", "ctr", "podman"] {
        assert!(profiles.iter().any(|(name, _)| name.starts_with(manager)), "no profile of {manager}");
    }
    profiles
}

fn ours(profile: &Profile, family: &Family) -> Result<Vec<sock_filter>, String> {
    compile(profile, family).map_err(|error| format!("{error:#}"))
}

#[derive(Debug, Default)]
struct Tally {
    profiles: usize,
    verdicts: usize,
    faults: BTreeMap<Fault, usize>,
    refused_by_both: usize,
    refused_for_nothing: usize,
}

/// Only names that every architecture of the profile has; whether that is fewer.
fn common_calls(written: &Value, profile: &Profile, family: &Family) -> (Value, bool) {
    let everywhere = |name: &Value| {
        let call = name.as_str().and_then(Call::named);
        call.is_some_and(|call| profile.architectures.iter().all(|arch| family.number(call, *arch).is_some()))
    };
    let mut common = written.clone();
    for rule in common["syscalls"].as_array_mut().unwrap() {
        rule["names"].as_array_mut().unwrap().retain(everywhere);
    }
    common["syscalls"].as_array_mut().unwrap().retain(|rule| rule["names"] != json!([]));
    let fewer = common != *written;
    (common, fewer)
}

/// How the two differ about a profile.
fn difference(
    oracle: &mut Oracle,
    written: &Value,
    family: &Family,
    layout: Layout,
    tally: &mut Tally,
) -> Option<String> {
    let seccomp: Seccomp = serde_json::from_value(written.clone()).unwrap();
    let profile = Profile::check(&seccomp, family).unwrap_or_else(|error| panic!("{error:#}: {written:#}"));
    tally.profiles += 1;
    let ours = ours(&profile, family);
    let (ours, theirs) = match (ours, oracle.compile(written, family.own().name(), layout, 1)) {
        (Ok(ours), Ok(theirs)) => (ours, theirs),
        (Err(_), Err(refused)) if refused.errno == libc::EEXIST => {
            tally.refused_by_both += 1;
            return None;
        }
        (Ok(_), Err(refused)) if refused.errno == libc::EEXIST => {
            // A contradiction about a call that an architecture does not have; no filter is the worse for it.
            let (common, fewer) = common_calls(written, &profile, family);
            tally.refused_for_nothing += 1;
            return if fewer {
                difference(oracle, &common, family, layout, tally)
            } else {
                Some("only libseccomp refuses".into())
            };
        }
        (Ok(_), Err(refused)) => return Some(format!("only libseccomp refuses: {refused:?}")),
        (Err(error), Ok(_)) => return Some(format!("only rrun refuses: {error}")),
        (Err(error), Err(refused)) => return Some(format!("{error}; {refused:?}")),
    };
    for data in inputs::inputs(&profile, family) {
        tally.verdicts += 1;
        let own = run(&ours, &data).expect("a program of rrun").verdict;
        let their = theirs.run(&data).verdict;
        if own != their {
            let judged = run(&theirs.program, &data).expect("a program of libseccomp");
            let case = Case { written, profile: &profile, family, layout, data: &data, judged };
            match case.fault(oracle, own, their) {
                Some(fault) => *tally.faults.entry(fault).or_default() += 1,
                None => return Some(format!("{data:x?}: {own:x}, libseccomp {their:x}")),
            }
        }
    }
    None
}

/// A verdict that differs.
struct Case<'c> {
    written: &'c Value,
    profile: &'c Profile<'c>,
    family: &'c Family,
    layout: Layout,
    data: &'c Data,
    /// By libseccomp's program alone, without what runc puts before it.
    judged: Outcome,
}

/// Why libseccomp's verdict is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// runc does not count the numbers behind x86's multiplexers and calls them unknown, though the profile names them.
    CalledUnknown,
    /// No rule that holds for the call has it: libseccomp compares with what the accumulator held before, or takes
    /// over a part of another rule's condition.
    NoRuleSaysSo,
    /// libseccomp itself says otherwise when the rules that do not hold for the call are taken out.
    OtherRulesMatter,
}

impl Case<'_> {
    fn fault(&self, oracle: &mut Oracle, own: u32, their: u32) -> Option<Fault> {
        let applying = naive::applying(self.profile, self.family, self.data)?;
        let right = naive::verdicts(self.profile, &applying, self.data);
        if !right.contains(&own) {
            return None;
        }
        if self.judged.verdict == own {
            return Some(Fault::CalledUnknown);
        }
        if !right.contains(&their) {
            return Some(Fault::NoRuleSaysSo);
        }
        let mut alone = self.written.clone();
        alone["syscalls"] = applying.iter().map(|rule| self.alone(rule)).collect();
        let alone = oracle.compile(&alone, self.family.own().name(), self.layout, 1).ok()?;
        (run(&alone.program, self.data)?.verdict == own).then_some(Fault::OtherRulesMatter)
    }

    fn alone(&self, applying: &naive::Applying) -> Value {
        let mut rule = self.written["syscalls"][self.profile.rules[applying.rule].index].clone();
        rule["names"] = json!([applying.name]);
        if let Some(arguments) = rule["args"].as_array_mut() {
            let kept = |argument: &Value| {
                applying.condition.iter().any(|comparison| {
                    let word = OPERATORS.iter().find(|(_, operator)| *operator == comparison.operator).unwrap().0;
                    let masked = argument["op"] == "SCMP_CMP_MASKED_EQ";
                    let value = argument[if masked { "valueTwo" } else { "value" }].as_u64();
                    argument["index"] == comparison.argument
                        && argument["op"] == word
                        && value == Some(comparison.value)
                })
            };
            arguments.retain(kept);
        }
        rule
    }
}

#[track_caller]
fn compare(oracle: &mut Oracle, name: &str, written: &Value, family: &Family, layouts: &[Layout], tally: &mut Tally) {
    for layout in layouts {
        if let Some(difference) = difference(oracle, written, family, *layout, tally) {
            let small = shrunk(oracle, written.clone(), family, *layout);
            panic!("{name}, {layout:?}: {difference}; {small}");
        }
    }
}

/// With as few rules and arguments as differ in some way.
fn shrunk(oracle: &mut Oracle, mut written: Value, family: &Family, layout: Layout) -> Value {
    'smaller: loop {
        let rules = written["syscalls"].as_array().unwrap().len();
        for rule in 0..rules {
            let arguments = written["syscalls"][rule]["args"].as_array().map_or(0, Vec::len);
            for argument in std::iter::once(None).chain((0..arguments).map(Some)) {
                let mut smaller = written.clone();
                let place = &mut smaller["syscalls"];
                let (list, at) = match argument {
                    None => (place, rule),
                    Some(argument) => (&mut place[rule]["args"], argument),
                };
                list.as_array_mut().unwrap().remove(at);
                let empty = argument.is_some() && arguments == 1;
                if !empty && difference(oracle, &smaller, family, layout, &mut Tally::default()).is_some() {
                    written = smaller;
                    continue 'smaller;
                }
            }
        }
        return written;
    }
}

#[test]
fn real_profiles_mean_what_libseccomp_makes_of_them() {
    let (mut oracle, mut tally) = (Oracle::new(), Tally::default());
    for (name, mut profile) in real_profiles() {
        compare(&mut oracle, &name, &profile, &X86, &[Layout::List, Layout::Tree], &mut tally);
        profile["architectures"] = json!(["SCMP_ARCH_X86_64"]);
        compare(&mut oracle, &name, &profile, &X86, &[Layout::Tree], &mut tally);
        profile["architectures"] = json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
        compare(&mut oracle, &name, &profile, &ARM, &[Layout::List, Layout::Tree], &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.faults.is_empty() && tally.verdicts > 500_000, "{tally:?}");
}

/// `PROFILES=5000 make seccomp` tries more of each kind.
#[test]
fn generated_profiles_mean_what_libseccomp_makes_of_them() {
    let mut oracle = Oracle::new();
    let many: usize = std::env::var("PROFILES").map_or(100, |many| many.parse().expect("PROFILES is a number"));
    let x86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
    let arm = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];
    for kind in [Kind::Agreeing, Kind::OneArgument, Kind::Any] {
        let (mut random, mut tally) = (Random(1), Tally::default());
        for n in 0..many {
            let layouts = [random.of(&[Layout::List, Layout::Tree])];
            let (family, architectures) = if n % 4 == 3 { (&ARM, &arm[..]) } else { (&X86, &x86[..]) };
            let profile = generated::profile(&mut random, kind, architectures);
            compare(&mut oracle, &format!("{kind:?} {n}"), &profile, family, &layouts, &mut tally);
        }
        println!("{kind:?}: {tally:?}");
        let faults: usize = tally.faults.values().sum();
        assert!(tally.verdicts > 1_000_000 && faults * 20 < tally.verdicts, "{kind:?} compares little: {tally:?}");
    }
}

/// One changed instruction changes a verdict that the comparison looks at.
#[test]
fn a_filter_with_one_instruction_changed_is_caught() {
    let mut oracle = Oracle::new();
    let (_, mut written) = real_profiles().into_iter().find(|(name, _)| name.starts_with("docker")).unwrap();
    for architectures in [json!(["SCMP_ARCH_X86_64"]), json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])] {
        written["architectures"] = architectures;
        let seccomp: Seccomp = serde_json::from_value(written.clone()).unwrap();
        let profile = Profile::check(&seccomp, &X86).unwrap();
        let ours = compile(&profile, &X86).unwrap();
        let theirs = oracle.compile(&written, X86.own().name(), Layout::Tree, 1).unwrap();
        let judged: Vec<(Data, u32)> =
            inputs::inputs(&profile, &X86).into_iter().map(|data| (data, theirs.run(&data).verdict)).collect();
        let differs = |program: &[sock_filter]| {
            judged.iter().any(|(data, want)| run(program, data).is_none_or(|outcome| outcome.verdict != *want))
        };
        assert!(!differs(&ours));
        let mut changed = 0;
        for at in 0..ours.len() {
            for mutant in mutants(ours[at]) {
                let mut program = ours.clone();
                program[at] = mutant;
                assert!(differs(&program), "{at} of {}: {:?} → {mutant:?} goes unseen", ours.len(), ours[at]);
                changed += 1;
            }
        }
        println!(
            "{changed} mutants of {} instructions caught; libseccomp makes {} in {} us",
            ours.len(),
            theirs.program.len(),
            theirs.nanoseconds / 1000
        );
    }
}

/// Another operand; of jumps, the branches swapped.
fn mutants(instruction: sock_filter) -> Vec<sock_filter> {
    let mut mutants = vec![sock_filter { k: instruction.k ^ 1, ..instruction }];
    if instruction.jt != instruction.jf {
        mutants.push(sock_filter { jt: instruction.jf, jf: instruction.jt, ..instruction });
    }
    mutants
}

#[test]
fn numbers_are_libseccomps() {
    let mut oracle = Oracle::new();
    let mut differ = Vec::new();
    for (family, arch) in
        [(&X86, Arch::X86_64), (&X86, Arch::X86), (&X86, Arch::X32), (&ARM, Arch::Aarch64), (&ARM, Arch::Arm)]
    {
        let bit = if arch == Arch::X32 { X32_BIT } else { 0 };
        for number in (0..600).chain(0xF0000..0xF0010).map(|number| number | bit) {
            let theirs = oracle.name(arch.name(), number);
            if theirs.is_some() && theirs.as_deref() != family.name(number, arch) {
                differ.push((arch, number, theirs, family.name(number, arch)));
            }
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
}
