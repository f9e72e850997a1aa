//! System calls to judge: every number, and for each argument that a rule looks at the values around its own.

use std::collections::BTreeSet;

use rrun::plan::seccomp::calls::{Arch, Call, Family, X32_BIT};
use rrun::plan::seccomp::interpret::Data;
use rrun::plan::seccomp::profile::{Comparison, Profile, Rule};

/// Combinations of arguments for one number.
const MOST: usize = 4000;

pub fn inputs(profile: &Profile, family: &Family) -> Vec<Data> {
    let mut inputs = Vec::new();
    for token in tokens(family) {
        for number in numbers() {
            inputs.push(Data { number, arch: token, ..Data::default() });
        }
    }
    for arch in family.members {
        for number in ruled(profile, family, *arch) {
            let comparisons: Vec<Comparison> = rules_of(profile, family, *arch, number)
                .flat_map(|rule| rule.conditions.iter().flatten().copied())
                .collect();
            inputs.extend(with_arguments(number, arch.token(), &comparisons));
        }
    }
    inputs.sort_by_key(|data| (data.arch, data.number, data.arguments));
    inputs.dedup();
    inputs
}

/// Each architecture's, and two that no member of the family has.
fn tokens(family: &Family) -> BTreeSet<u32> {
    family.members.iter().map(|arch| arch.token()).chain([0, 0x8000_0016]).collect()
}

fn numbers() -> impl Iterator<Item = u32> {
    let edges = [0xF_0000_u32, 0x90_0000, X32_BIT, 1 << 31, 3 << 30, u32::MAX];
    let around = edges.into_iter().flat_map(|edge| (-12..600).map(move |off| edge.wrapping_add_signed(off)));
    (0..600).chain(around)
}

fn ruled(profile: &Profile, family: &Family, arch: Arch) -> BTreeSet<u32> {
    let calls = profile.rules.iter().flat_map(|rule| rule.names).filter_map(|name| Call::named(name));
    calls.flat_map(|call| numbers_of(call, family, arch)).map(|(number, _)| number).collect()
}

/// The call's own number, and that of its multiplexer with the first argument there.
pub fn numbers_of(call: Call, family: &Family, arch: Arch) -> Vec<(u32, Option<u64>)> {
    let through = call.through(arch).map(|(multiplexer, argument)| (multiplexer.number(), Some(argument.into())));
    family.number(call, arch).map(|number| (number, None)).into_iter().chain(through).collect()
}

pub fn rules_of<'p>(
    profile: &'p Profile<'p>,
    family: &'p Family,
    arch: Arch,
    number: u32,
) -> impl Iterator<Item = &'p Rule<'p>> {
    profile.rules.iter().filter(move |rule| {
        let calls = rule.names.iter().filter_map(|name| Call::named(name));
        calls.into_iter().any(|call| numbers_of(call, family, arch).iter().any(|(own, _)| *own == number))
    })
}

fn with_arguments(number: u32, arch: u32, comparisons: &[Comparison]) -> Vec<Data> {
    let values: Vec<Vec<u64>> = (0..6).map(|argument| values(argument, comparisons)).collect();
    let all: usize = values.iter().map(Vec::len).product();
    let step = (all / MOST).max(1);
    let nth = |mut n: usize| {
        let mut arguments = [0; 6];
        for (argument, values) in arguments.iter_mut().zip(&values) {
            *argument = values[n % values.len()];
            n /= values.len();
        }
        Data { number, arch, instruction_pointer: 0, arguments }
    };
    // With a step that divides nothing, so that it meets all residues.
    (0..all).step_by(if step > 1 { step | 1 } else { 1 }).map(nth).collect()
}

/// For one argument. The first of a multiplexed call tells which it is.
fn values(argument: u8, comparisons: &[Comparison]) -> Vec<u64> {
    let mut values = BTreeSet::from([0]);
    for comparison in comparisons.iter().filter(|comparison| comparison.argument == argument) {
        let (value, mask) = (comparison.value, comparison.mask);
        values.extend([value, value.wrapping_sub(1), value.wrapping_add(1), value ^ 1 << 32, value & 0xFFFF_FFFF]);
        values.extend([value | !mask, value & mask, mask, !mask, u64::MAX, 1 << 32, 0xFFFF_FFFF]);
        values.insert(value.wrapping_add(1 << 32));
        let bits = (0..64).map(|bit| 1_u64 << bit).filter(|bit| mask != u64::MAX && mask & bit != 0);
        values.extend(bits.map(|bit| value ^ bit));
    }
    if argument == 0 {
        values.extend(1..25);
    }
    values.into_iter().collect()
}
