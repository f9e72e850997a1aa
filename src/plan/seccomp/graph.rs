//! A filter as a graph of BPF operations: what is decided, before anything has a place. Equal parts are one node.

use anyhow::{Result, bail};

use super::profile::Verdict;
use super::rules::{Branch, Level, Node, Relation, Test, Word};

/// BPF_MAXINSNS
pub const LONGEST: usize = 4096;

pub type Id = u32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Return(Verdict),
    /// A 32-bit word of seccomp_data becomes the accumulator.
    Load(u32, Id),
    And(u32, Id),
    Jump {
        jump: Jump,
        operand: u32,
        yes: Id,
        no: Id,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jump {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBitSet,
}

/// Where `nr` stands in seccomp_data, `arch`, and the first argument.
pub const NUMBER: u32 = 0;
pub const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

#[derive(Debug, Default)]
pub struct Graph {
    operations: Vec<Operation>,
    /// Those that may occur again: verdicts, and tests of arguments.
    shared: Vec<Id>,
}

/// What the accumulator holds: a word of an argument, and which of its bits are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    word: Word,
    mask: u32,
}

/// A place to go on, by what the accumulator holds on the way there.
#[derive(Clone, Copy)]
struct Entry {
    /// Whatever it holds.
    any: Id,
    /// It holds this already.
    held: Option<(Held, Id)>,
}

impl Entry {
    fn with(&self, held: Held) -> Id {
        match self.held {
            Some((wanted, id)) if wanted == held => id,
            _ => self.any,
        }
    }
}

impl Graph {
    pub fn operation(&self, id: Id) -> Operation {
        self.operations[id as usize]
    }

    pub fn len(&self) -> usize {
        self.operations.len()
    }

    pub fn push(&mut self, operation: Operation) -> Id {
        self.operations.push(operation);
        (self.operations.len() - 1) as Id
    }

    fn share(&mut self, operation: Operation) -> Result<Id> {
        if let Some(id) = self.shared.iter().find(|id| self.operations[**id as usize] == operation) {
            return Ok(*id);
        }
        if self.shared.len() > LONGEST {
            bail!(
                "linux.seccomp: needs more than {LONGEST} instructions, which the kernel does not take; name fewer calls or arguments"
            );
        }
        let id = self.push(operation);
        self.shared.push(id);
        Ok(id)
    }

    pub fn verdict(&mut self, verdict: Verdict) -> Result<Id> {
        self.share(Operation::Return(verdict))
    }

    /// The tests of a decision; `otherwise` where none holds.
    pub fn decision(&mut self, level: &Level, otherwise: Id) -> Result<Id> {
        Ok(self.level(level, Entry { any: otherwise, held: None })?.any)
    }

    fn level(&mut self, level: &[Node], otherwise: Entry) -> Result<Entry> {
        level.iter().rev().try_fold(otherwise, |next, node| self.node(node, next))
    }

    fn node(&mut self, node: &Node, next: Entry) -> Result<Entry> {
        let test = node.test;
        // Masked out entirely: it always holds.
        if test.mask == 0 {
            return self.branch(&node.yes, next);
        }
        // One test of bits needs no AND, and leaves the accumulator whole.
        let bits = test.mask != u32::MAX && test.value == 0 && test.relation == Relation::Masked;
        let held = Held { word: test.word, mask: if bits { u32::MAX } else { test.mask } };
        let yes = self.branch(&node.yes, next)?.with(held);
        let no = self.branch(&node.no, next)?.with(held);
        let jump = if bits {
            Operation::Jump { jump: Jump::AnyBitSet, operand: test.mask, yes: no, no: yes }
        } else {
            Operation::Jump { jump: relation(test), operand: test.value, yes, no }
        };
        let jump = if yes == no { yes } else { self.share(jump)? };
        self.entry(held, jump)
    }

    fn branch(&mut self, branch: &Branch, next: Entry) -> Result<Entry> {
        match branch {
            Branch::Next => Ok(next),
            Branch::Decide(verdict) => Ok(Entry { any: self.verdict(*verdict)?, held: None }),
            Branch::Level(level) => self.level(level, next),
        }
    }

    fn entry(&mut self, held: Held, jump: Id) -> Result<Entry> {
        let half = if held.word.high { 4 } else { 0 };
        let offset = ARGUMENTS + 8 * u32::from(held.word.argument) + half;
        let whole = if held.mask == u32::MAX { jump } else { self.share(Operation::And(held.mask, jump))? };
        let any = self.share(Operation::Load(offset, whole))?;
        Ok(Entry { any, held: Some((Held { mask: u32::MAX, ..held }, whole)) })
    }
}

fn relation(test: Test) -> Jump {
    match test.relation {
        Relation::Equal | Relation::Masked => Jump::Equal,
        Relation::Greater => Jump::Greater,
        Relation::GreaterOrEqual => Jump::GreaterOrEqual,
    }
}
