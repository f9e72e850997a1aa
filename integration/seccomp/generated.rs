//! Profiles that nobody wrote: few calls, many rules for each, so that rules meet.

use serde_json::{Value, json};

/// SplitMix64: the same profiles in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

const ACTIONS: [&str; 8] = ["KILL_THREAD", "KILL_PROCESS", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY"];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const CALLS: [&str; 16] = [
    "read",
    "write",
    "openat",
    "clone",
    "personality",
    "ioctl",
    "socket",
    "sendmsg",
    "recv",
    "semop",
    "shmat",
    "execve",
    "socketcall",
    "rt_sigaction",
    "fadvise64",
    "cacheflush",
];
const VALUES: [u64; 16] = [
    0,
    1,
    2,
    5,
    8,
    0x20000,
    0x7E02_0000,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 32,
    (1 << 32) + 5,
    2 << 32,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// What the rules of a profile may do to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One verdict for all rules of a call.
    Agreeing,
    /// Several verdicts; each condition looks at one argument.
    OneArgument,
    /// Anything.
    Any,
}

pub fn profile(random: &mut Random, kind: Kind, architectures: &[&str]) -> Value {
    let calls: Vec<&str> = (0..2 + random.below(6)).map(|_| random.of(&CALLS)).collect();
    let verdicts: Vec<(&str, u64)> = (0..4).map(|_| verdict(random)).collect();
    let rules = (0..1 + random.below(12)).map(|_| {
        let call = random.below(calls.len());
        let (action, errno) = verdicts[if kind == Kind::Agreeing { call % 4 } else { random.below(4) }];
        let mut rule = json!({"names": [calls[call]], "action": format!("SCMP_ACT_{action}")});
        if matches!(action, "ERRNO" | "TRACE") {
            rule["errnoRet"] = errno.into();
        }
        if !random.one_in(8) {
            rule["args"] = arguments(random, kind);
        }
        rule
    });
    let rules: Vec<Value> = rules.collect();
    let listed: Vec<&str> = architectures.iter().copied().filter(|_| !random.one_in(3)).collect();
    let (action, errno) = loop {
        let verdict = verdict(random);
        if verdict.0 != "NOTIFY" {
            break verdict;
        }
    };
    let mut profile = json!({
        "defaultAction": format!("SCMP_ACT_{action}"),
        "architectures": listed,
        "listenerPath": "/agent",
        "syscalls": rules,
    });
    if matches!(action, "ERRNO" | "TRACE") {
        profile["defaultErrnoRet"] = errno.into();
    }
    profile
}

fn verdict(random: &mut Random) -> (&'static str, u64) {
    (random.of(&ACTIONS), random.of(&[0, 1, 38, 4094]))
}

fn arguments(random: &mut Random, kind: Kind) -> Value {
    let many = if kind == Kind::OneArgument { 1 } else { 1 + random.below(3) };
    let argument = |random: &mut Random| {
        let few = if random.one_in(2) { &VALUES[..5] } else { &VALUES[..] };
        let (value, other) = (random.of(few), random.of(few));
        let index = if random.one_in(4) { random.below(6) } else { random.below(2) };
        let operator = random.of(&OPERATORS);
        json!({"index": index, "value": value, "valueTwo": other, "op": format!("SCMP_CMP_{operator}")})
    };
    (0..many).map(|_| argument(random)).collect()
}
