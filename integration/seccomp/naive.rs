//! What a profile says about a call, read rule by rule: which verdicts can be right, where several rules apply. The
//! order among those is libseccomp's business; a verdict that is not among them is a fault.

use rrun::plan::seccomp::calls::{Arch, Call, Family, X32_BIT};
use rrun::plan::seccomp::interpret::Data;
use rrun::plan::seccomp::profile::{Comparison, Operator, Profile};

use crate::inputs::numbers_of;

/// A rule, or one of its alternatives, that holds for a call.
pub struct Applying {
    pub name: &'static str,
    pub rule: usize,
    pub verdict: u32,
    pub condition: Vec<Comparison>,
}

/// All that hold for the call, without those that say what the default says. `None`: no rule speaks of the number.
pub fn applying(profile: &Profile, family: &Family, data: &Data) -> Option<Vec<Applying>> {
    let arch = arch(profile, data)?;
    let (mut applying, mut spoken) = (Vec::new(), false);
    for (index, rule) in profile.rules.iter().enumerate().filter(|(_, rule)| rule.verdict != profile.default) {
        for call in rule.names.iter().filter_map(|name| Call::named(name)) {
            for (_, through) in numbers_of(call, family, arch).into_iter().filter(|(number, _)| *number == data.number)
            {
                spoken = true;
                if through.is_some_and(|argument| argument != low(data.arguments[0])) {
                    continue;
                }
                // what the multiplexer gets in memory
                let seen = |comparison: &&Comparison| through.is_none() || comparison.argument != 0;
                let always = [Vec::new()];
                let conditions = if rule.conditions.is_empty() { &always[..] } else { &rule.conditions };
                for condition in conditions {
                    if condition.iter().filter(seen).all(|comparison| compare(comparison, data, arch)) {
                        applying.push(Applying {
                            name: call.name(),
                            rule: index,
                            verdict: rule.verdict,
                            condition: condition.clone(),
                        });
                    }
                }
            }
        }
    }
    spoken.then_some(applying)
}

/// The verdicts that can be right.
pub fn verdicts(profile: &Profile, applying: &[Applying], data: &Data) -> Vec<u32> {
    let arch = arch(profile, data).expect("rules apply");
    let unconditional = |rule: &&Applying| {
        let multiplexed = Call::named(rule.name)
            .is_some_and(|call| call.through(arch).is_some_and(|(multiplexer, _)| multiplexer.number() == data.number));
        !multiplexed && rule.condition.iter().all(|comparison| mask(comparison, arch) == 0)
    };
    match applying.iter().find(unconditional) {
        Some(first) => vec![first.verdict],
        None if applying.is_empty() => vec![profile.default],
        None => applying.iter().map(|rule| rule.verdict).collect(),
    }
}

fn arch(profile: &Profile, data: &Data) -> Option<Arch> {
    let x32 = data.number & X32_BIT != 0;
    let same =
        |arch: &&Arch| arch.token() == data.arch && (**arch != Arch::X32 || x32) && !(**arch == Arch::X86_64 && x32);
    profile.architectures.iter().find(same).copied()
}

fn low(value: u64) -> u64 {
    value & 0xFFFF_FFFF
}

fn mask(comparison: &Comparison, arch: Arch) -> u64 {
    if arch.is_wide() { comparison.mask } else { low(comparison.mask) }
}

fn compare(comparison: &Comparison, data: &Data, arch: Arch) -> bool {
    let cut = |value: u64| if arch.is_wide() { value } else { low(value) };
    let (argument, value) = (cut(data.arguments[usize::from(comparison.argument)]), cut(comparison.value));
    let mask = mask(comparison, arch);
    match comparison.operator {
        Operator::NotEqual => argument != value,
        Operator::Less => argument < value,
        Operator::LessOrEqual => argument <= value,
        Operator::Equal => argument == value,
        Operator::GreaterOrEqual => argument >= value,
        Operator::Greater => argument > value,
        Operator::MaskedEqual => argument & mask == value & mask,
    }
}
