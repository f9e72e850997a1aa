//! A [`Profile`] → a program of classic BPF.
//!
//! First the architecture is told apart, then the call by a binary search over ranges of numbers with one verdict;
//! arguments are looked at last, so that the kernel's table of constant verdicts (5.11) covers every other call. Ranges
//! of calls that programs make often are near the root.

use anyhow::{Result, ensure};
use libc::sock_filter;

use super::calls::{Arch, Call, Family, X32_BIT};
use super::graph::{ARCHITECTURE, Graph, Id, Jump, LONGEST, NUMBER, Operation};
use super::layout;
use super::profile::{Comparison, Operator, Profile, Rule, Verdict, action};
use super::rules::Decision;

/// For an architecture that is not listed; libseccomp's.
const FOREIGN: Verdict = libc::SECCOMP_RET_KILL_THREAD;
/// For a call that is newer than all that the profile names: it may have been unknown to whoever wrote the profile, and
/// programs fall back to older calls when told so.
const UNKNOWN: Verdict = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

pub fn compile(profile: &Profile, family: &Family) -> Result<Vec<sock_filter>> {
    let filter = Filter { profile, family };
    let mut graph = Graph::default();
    let mut other = graph.verdict(FOREIGN)?;
    let mut tokens: Vec<u32> = filter.profile.architectures.iter().map(|arch| arch.token()).collect();
    // the kernel's own is asked for first
    tokens.sort_by_key(|token| (*token == family.own().token(), *token));
    tokens.dedup();
    for token in tokens {
        let yes = filter.part(token, &mut graph)?;
        other = graph.push(Operation::Jump { jump: Jump::Equal, operand: token, yes, no: other });
    }
    let root = graph.push(Operation::Load(ARCHITECTURE, other));
    let program = layout::program(&graph, root);
    ensure!(
        program.len() <= LONGEST,
        "linux.seccomp: needs {} instructions; the kernel takes at most {LONGEST}: name fewer calls or arguments",
        program.len()
    );
    Ok(program)
}

struct Filter<'p> {
    profile: &'p Profile<'p>,
    family: &'p Family,
}

/// A rule for one number.
struct Entry<'p> {
    number: u32,
    /// As written.
    order: u32,
    rule: &'p Rule<'p>,
    call: Call,
    /// Through a multiplexer: its first argument.
    through: Option<u8>,
}

/// From this number on.
struct Range {
    start: u32,
    verdict: Id,
    weight: u32,
}

impl<'p> Filter<'p> {
    /// What is decided for one value of `arch` in seccomp_data: one architecture, or x86-64 and x32.
    fn part(&self, token: u32, graph: &mut Graph) -> Result<Id> {
        let archs: Vec<Arch> =
            self.profile.architectures.iter().copied().filter(|arch| arch.token() == token).collect();
        let unruled = Unruled::new(self, &archs);
        let mut changes = Vec::with_capacity(64);
        for start in unruled.boundaries() {
            changes.push((start, graph.verdict(unruled.verdict(start))?));
        }
        let mut ruled = Vec::new();
        for arch in &archs {
            ruled.extend(self.decisions(*arch, graph)?);
        }
        let ranges = ranges(changes, ruled);
        let weighed = self.weighed(ranges, &archs);
        let search = search(graph, &weighed);
        Ok(graph.push(Operation::Load(NUMBER, search)))
    }

    fn decisions(&self, arch: Arch, graph: &mut Graph) -> Result<Vec<(u32, Id)>> {
        let otherwise = graph.verdict(self.profile.default)?;
        let entries = self.entries(arch);
        let mut decided = Vec::with_capacity(entries.len());
        for same in entries.chunk_by(|a, b| a.number == b.number) {
            let id = match decision(same, arch)? {
                Decision::Always(verdict) => graph.verdict(verdict)?,
                Decision::First(level) => graph.decision(&level, otherwise)?,
            };
            decided.push((same[0].number, id));
        }
        Ok(decided)
    }

    fn entries(&self, arch: Arch) -> Vec<Entry<'p>> {
        let mut entries = Vec::with_capacity(512);
        // libseccomp has no rules that say what the default says; they do not stand in the way of others.
        let rules = self.profile.rules.iter().filter(|rule| rule.verdict != self.profile.default);
        for (rule, call) in rules.flat_map(|rule| rule.calls.iter().flatten().map(move |call| (rule, *call))) {
            let mut push = |number, through| {
                entries.push(Entry { number, order: entries.len() as u32, rule, call, through });
            };
            if let Some((multiplexer, argument)) = call.through(arch) {
                push(multiplexer.number(), Some(argument));
            }
            if let Some(number) = self.family.number(call, arch) {
                push(number, None);
            }
        }
        entries.sort_unstable_by_key(|entry| (entry.number, entry.order));
        entries
    }

    fn weighed(&self, mut ranges: Vec<Range>, archs: &[Arch]) -> Vec<Range> {
        for arch in archs {
            for (call, weight) in Call::common() {
                let Some(number) = self.family.number(call, *arch) else { continue };
                let at = ranges.partition_point(|range| range.start <= number) - 1;
                ranges[at].weight += weight;
            }
        }
        ranges
    }
}

fn decision(entries: &[Entry], arch: Arch) -> Result<Decision> {
    // nearly every call
    if let [Entry { rule, through: None, .. }] = entries
        && rule.conditions.is_empty()
    {
        return Ok(Decision::Always(rule.verdict));
    }
    let mut decision: Option<Decision> = None;
    for entry in entries {
        for condition in conditions(entry) {
            match &mut decision {
                None => decision = Some(Decision::new(&condition, entry.rule.verdict, arch.is_wide())),
                Some(decision) => ensure!(
                    decision.add(&condition, entry.rule.verdict, arch.is_wide()).is_ok(),
                    "linux.seccomp.syscalls[{}]: contradicts an earlier rule for {}; keep one of them",
                    entry.rule.index,
                    entry.call.name()
                ),
            }
        }
    }
    Ok(decision.unwrap_or(Decision::First(Vec::new())))
}

/// The multiplexer's first argument says which call it is; the others it finds in memory, where no filter sees them.
fn conditions(entry: &Entry) -> Vec<Vec<Comparison>> {
    let mut conditions = entry.rule.conditions.clone();
    if conditions.is_empty() {
        conditions.push(Vec::new());
    }
    if let Some(argument) = entry.through {
        for condition in &mut conditions {
            condition.retain(|comparison| comparison.argument != 0);
            let value = argument.into();
            condition.push(Comparison { argument: 0, operator: Operator::Equal, value, mask: u64::MAX });
        }
    }
    conditions
}

/// Numbers that no rule speaks of.
struct Unruled<'p> {
    profile: &'p Profile<'p>,
    archs: &'p [Arch],
    /// Of each architecture, what is newer than the newest call named.
    newest: Vec<Option<u32>>,
}

impl<'p> Unruled<'p> {
    fn new(filter: &Filter<'p>, archs: &'p [Arch]) -> Self {
        // A tracer answers for calls that it does not know.
        let permissive = matches!(
            action(filter.profile.default),
            libc::SECCOMP_RET_ALLOW | libc::SECCOMP_RET_LOG | libc::SECCOMP_RET_TRACE
        );
        let newest = |arch: &Arch| {
            // runc does not count what x86 multiplexes
            let calls = filter.profile.rules.iter().flat_map(|rule| rule.calls.iter().flatten());
            let calls = calls.filter(|call| call.through(*arch).is_none());
            let largest = calls.filter_map(|call| filter.family.number(*call, *arch)).max();
            // nor number 0 alone
            largest.filter(|largest| !permissive && *largest > 0)
        };
        Self { profile: filter.profile, archs, newest: archs.iter().map(newest).collect() }
    }

    /// Where the verdict may change.
    fn boundaries(&self) -> Vec<u32> {
        let mut boundaries = vec![0];
        boundaries.extend(self.newest.iter().flatten().map(|newest| newest + 1));
        if self.archs.contains(&Arch::X86_64) {
            boundaries.extend([X32_BIT, 1 << 31, 3 << 30, u32::MAX]);
        }
        boundaries.sort_unstable();
        boundaries
    }

    fn verdict(&self, number: u32) -> Verdict {
        let x32 = self.archs.contains(&Arch::X32);
        let among = |arch: &Arch| {
            *arch != Arch::X32 && !(*arch == Arch::X86_64 && number & X32_BIT != 0)
                || *arch == Arch::X32 && number & X32_BIT != 0
        };
        let at = self.archs.iter().position(among);
        match at.and_then(|at| self.newest[at]) {
            Some(newest) if number > newest => UNKNOWN,
            // what a tracer makes of a call that it wants skipped
            _ if number == u32::MAX => self.profile.default,
            _ if self.archs[0] == Arch::X86_64 && !x32 && number >= X32_BIT => FOREIGN,
            _ => self.profile.default,
        }
    }
}

/// Both sorted by number; a rule speaks of one number.
fn ranges(unruled: Vec<(u32, Id)>, ruled: Vec<(u32, Id)>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(2 * ruled.len());
    let mut push = |start: u32, verdict: Id| {
        if ranges.last().is_some_and(|last| last.start == start) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|last| last.verdict != verdict) {
            ranges.push(Range { start, verdict, weight: 1 });
        }
    };
    let mut ruled = ruled.into_iter().peekable();
    for (at, (start, verdict)) in unruled.iter().enumerate() {
        let end = unruled.get(at + 1).map_or(u32::MAX, |(next, _)| next - 1);
        push(*start, *verdict);
        while let Some((number, id)) = ruled.next_if(|(number, _)| *number <= end) {
            push(number, id);
            if number < end {
                push(number + 1, *verdict);
            }
        }
    }
    ranges
}

/// Halves the weight at each comparison.
fn search(graph: &mut Graph, ranges: &[Range]) -> Id {
    let [first, .., _] = ranges else { return ranges[0].verdict };
    let total: u32 = ranges.iter().map(|range| range.weight).sum();
    let (mut split, mut below) = (1, first.weight);
    while split + 1 < ranges.len() && (below + ranges[split].weight).abs_diff(total / 2) <= below.abs_diff(total / 2) {
        below += ranges[split].weight;
        split += 1;
    }
    let (low, high) = ranges.split_at(split);
    let no = search(graph, low);
    let yes = search(graph, high);
    graph.push(Operation::Jump { jump: Jump::GreaterOrEqual, operand: high[0].start, yes, no })
}
