//! Rules of one system call → one decision. Programs of other runtimes rest on how libseccomp settles it when several
//! rules speak of one call, so it is settled the same way:
//!
//! - A rule whose verdict is the default's is no rule.
//! - Of rules without condition the first decides, and rules with conditions for that call no longer count, written
//!   before or after.
//! - Of rules with conditions the first that holds decides, in an order of their own: later arguments before earlier,
//!   equalities before "less" before "greater", tighter bounds before wider ones, else as written. (But of NE, LT and
//!   LE the first written, for values whose upper half alone decides, where the upper halves of the bounds are equal.)
//! - Two rules with one condition and two verdicts contradict each other; so do a condition that is written after a
//!   longer one which begins with it, and has another verdict. The shorter written first wins without a word.
//! - On 32-bit architectures, and x32, only the low half of an argument and of the value is looked at.
//! - Of MASKED_EQ the value's bits outside of the mask do not count; a mask of 0 is no condition.
//!
//! It falls out of how conditions are put into a tree: each comparison becomes tests of 32-bit words, as BPF has them;
//! a condition is a path; paths share the tests they begin with; tests on one level have an order.

use super::profile::{Comparison, Operator, Verdict};

/// The decision about one system call.
#[derive(Debug)]
pub enum Decision {
    Always(Verdict),
    /// The default where nothing holds.
    First(Level),
}

/// Tried in order until one decides.
pub type Level = Vec<Node>;

#[derive(Debug, Clone)]
pub struct Node {
    pub test: Test,
    pub yes: Branch,
    pub no: Branch,
    class: Class,
    /// The whole value of the comparison that the test is a half of.
    whole: u64,
}

#[derive(Debug, Clone)]
pub enum Branch {
    /// Undecided: on with the next node, of this level or of the one above.
    Next,
    Decide(Verdict),
    Level(Level),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Test {
    pub word: Word,
    pub mask: u32,
    pub relation: Relation,
    pub value: u32,
}

/// Half of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    pub argument: u8,
    pub high: bool,
}

/// `Masked` differs from `Equal` in nothing but that such tests are not shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    Equal,
    Masked,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Greater,
    Less,
    Equal,
}

/// Two rules cannot both be kept.
#[derive(Debug, PartialEq, Eq)]
pub struct Contradiction;

impl Decision {
    pub fn new(condition: &[Comparison], verdict: Verdict, wide: bool) -> Self {
        match path(condition, verdict, wide) {
            Some(node) => Self::First(vec![node]),
            None => Self::Always(verdict),
        }
    }

    pub fn add(&mut self, condition: &[Comparison], verdict: Verdict, wide: bool) -> Result<(), Contradiction> {
        let Self::First(level) = self else { return Ok(()) };
        match path(condition, verdict, wide) {
            Some(node) => add(level, node),
            None => {
                *self = Self::Always(verdict);
                Ok(())
            }
        }
    }
}

/// A condition as a tree of its own; `None` when it always holds.
fn path(condition: &[Comparison], verdict: Verdict, wide: bool) -> Option<Node> {
    let mut ordered: Vec<&Comparison> = condition.iter().filter(|c| !always_holds(c, wide)).collect();
    ordered.sort_by_key(|comparison| comparison.argument);
    let mut then = Branch::Decide(verdict);
    for comparison in ordered.iter().rev() {
        let node = if wide { wide_node(comparison, then) } else { narrow_node(comparison, then) };
        then = Branch::Level(vec![node]);
    }
    match then {
        Branch::Level(mut level) => level.pop(),
        _ => None,
    }
}

fn always_holds(comparison: &Comparison, wide: bool) -> bool {
    let looked_at = if wide { comparison.mask } else { comparison.mask & u64::from(u32::MAX) };
    looked_at == 0
}

fn class(operator: Operator) -> Class {
    match operator {
        Operator::Equal | Operator::MaskedEqual | Operator::NotEqual => Class::Equal,
        Operator::Less | Operator::LessOrEqual => Class::Less,
        Operator::Greater | Operator::GreaterOrEqual => Class::Greater,
    }
}

fn node(comparison: &Comparison, high: bool, relation: Relation, yes: Branch, no: Branch) -> Node {
    let half = |whole: u64| if high { (whole >> 32) as u32 } else { whole as u32 };
    let mask = half(comparison.mask);
    let word = Word { argument: comparison.argument, high };
    let test = Test { word, mask, relation, value: half(comparison.value) & mask };
    Node { test, yes, no, class: class(comparison.operator), whole: comparison.value }
}

/// BPF has no "less": it is the other branch of "greater or equal".
fn low_node(comparison: &Comparison, then: Branch) -> Node {
    let (relation, holds) = match comparison.operator {
        Operator::Equal => (Relation::Equal, true),
        Operator::MaskedEqual => (Relation::Masked, true),
        Operator::NotEqual => (Relation::Equal, false),
        Operator::Greater => (Relation::Greater, true),
        Operator::GreaterOrEqual => (Relation::GreaterOrEqual, true),
        Operator::LessOrEqual => (Relation::Greater, false),
        Operator::Less => (Relation::GreaterOrEqual, false),
    };
    let (yes, no) = if holds { (then, Branch::Next) } else { (Branch::Next, then) };
    node(comparison, false, relation, yes, no)
}

fn narrow_node(comparison: &Comparison, then: Branch) -> Node {
    low_node(comparison, then)
}

/// The high half decides unless it is equal; then the low half does.
fn wide_node(comparison: &Comparison, then: Branch) -> Node {
    let low = Branch::Level(vec![low_node(comparison, then.clone())]);
    let high = |relation, yes, no| node(comparison, true, relation, yes, no);
    match comparison.operator {
        Operator::Equal => high(Relation::Equal, low, Branch::Next),
        Operator::MaskedEqual => high(Relation::Masked, low, Branch::Next),
        Operator::NotEqual => high(Relation::Equal, low, then),
        Operator::Greater | Operator::GreaterOrEqual => {
            high(Relation::Greater, then, Branch::Level(vec![high(Relation::Equal, low, Branch::Next)]))
        }
        Operator::Less | Operator::LessOrEqual => {
            high(Relation::Greater, Branch::Next, Branch::Level(vec![high(Relation::Equal, low, then)]))
        }
    }
}

impl Node {
    /// Whether it is tried after `other`.
    fn is_after(&self, other: &Self) -> bool {
        let key = |node: &Self| (node.test.word, node.class);
        if key(self) != key(other) {
            return key(self) < key(other);
        }
        match self.class {
            Class::Less => self.test.value > other.test.value,
            _ => self.test.value < other.test.value,
        }
    }

    fn is_last(&self) -> bool {
        !matches!((&self.yes, &self.no), (Branch::Level(_), _) | (_, Branch::Level(_)))
    }
}

fn add(level: &mut Level, new: Node) -> Result<(), Contradiction> {
    for at in 0..level.len() {
        if level[at].test == new.test {
            return merge(&mut level[at], new);
        }
        if level[at].is_after(&new) {
            level.insert(at, new);
            return Ok(());
        }
    }
    level.push(new);
    Ok(())
}

/// Two paths that begin with the same test.
fn merge(there: &mut Node, new: Node) -> Result<(), Contradiction> {
    let high = new.test.word.high;
    // A wider lower bound without further arguments, written first: the longer condition adds nothing.
    if high && matches!((&there.yes, &new.yes), (Branch::Decide(_), Branch::Level(_))) && new.whole >= there.whole {
        return Ok(());
    }
    let ends = there.is_last() || new.is_last();
    // Both hold where the high half alone decides: there the tighter of two lower bounds wins.
    let tighter = high && new.whole > there.whole;
    join(&mut there.yes, new.yes, tighter, ends)?;
    join(&mut there.no, new.no, false, ends)
}

fn join(there: &mut Branch, new: Branch, tighter: bool, ends: bool) -> Result<(), Contradiction> {
    match (&mut *there, new) {
        (_, Branch::Next) => Ok(()),
        (Branch::Next, new) => {
            *there = new;
            Ok(())
        }
        (Branch::Decide(old), Branch::Decide(new)) => {
            if *old != new && ends {
                return Err(Contradiction);
            }
            if tighter {
                *old = new;
            }
            Ok(())
        }
        (Branch::Decide(_), Branch::Level(_)) => Ok(()),
        (Branch::Level(level), Branch::Decide(verdict)) => {
            if !all_decide(level, verdict) {
                return Err(Contradiction);
            }
            *there = Branch::Decide(verdict);
            Ok(())
        }
        (Branch::Level(level), Branch::Level(new)) => new.into_iter().try_for_each(|node| add(level, node)),
    }
}

fn all_decide(level: &Level, verdict: Verdict) -> bool {
    let agrees = |branch: &Branch| match branch {
        Branch::Next => true,
        Branch::Decide(decided) => *decided == verdict,
        Branch::Level(level) => all_decide(level, verdict),
    };
    level.iter().all(|node| agrees(&node.yes) && agrees(&node.no))
}
