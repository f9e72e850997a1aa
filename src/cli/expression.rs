//! Extended regular expressions, as POSIX has them and `--regex` takes them, on ids: ASCII letters and few of them. So a
//! set of positions is all that matching needs, and no expression takes long; a crate would add 50 KB for one flag.
//! Without back references, which POSIX has in basic expressions alone.

use std::ops::RangeInclusive;

use anyhow::{Result, bail, ensure};

#[derive(Debug)]
pub struct Expression(Node);

#[derive(Debug)]
enum Node {
    /// A letter that is one of these, or none of them.
    Letter {
        ranges: Vec<RangeInclusive<char>>,
        within: bool,
    },
    Begin,
    End,
    All(Vec<Node>),
    Any(Vec<Node>),
    Repeated(Box<Node>, usize, Option<usize>),
}

/// RE_DUP_MAX
const MOST_REPETITIONS: usize = 255;
/// Of groups in each other: with a repetition of each, every level doubles the work.
const DEEPEST: usize = 10;

const CLASSES: [(&str, &[RangeInclusive<char>]); 6] = [
    ("[:alpha:]", &['a'..='z', 'A'..='Z']),
    ("[:digit:]", &['0'..='9']),
    ("[:alnum:]", &['a'..='z', 'A'..='Z', '0'..='9']),
    ("[:lower:]", &['a'..='z']),
    ("[:upper:]", &['A'..='Z']),
    ("[:punct:]", &['!'..='/', ':'..='@', '['..='`', '{'..='~']),
];

impl Expression {
    pub fn new(text: &str) -> Result<Self> {
        let mut parser = Parser { rest: text, depth: 0 };
        let node = parser.alternatives()?;
        ensure!(parser.rest.is_empty(), "a group ends that has not begun");
        Ok(Self(node))
    }

    /// Anywhere in `text`.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let anywhere = vec![true; text.len() + 1];
        self.0.ends(&text, &anywhere).contains(&true)
    }
}

/// Of each position in the text, its end too, whether it is meant.
type Positions = Vec<bool>;

impl Node {
    /// Where it can end if it begins at one of `starts`.
    fn ends(&self, text: &[char], starts: &Positions) -> Positions {
        let at = |is_there: &dyn Fn(usize) -> bool| (0..starts.len()).map(is_there).collect();
        match self {
            Self::Begin => at(&|n| starts[n] && n == 0),
            Self::End => at(&|n| starts[n] && n == text.len()),
            Self::Letter { ranges, within } => {
                let fits = |letter: char| ranges.iter().any(|range| range.contains(&letter)) == *within;
                at(&|n| n > 0 && starts[n - 1] && fits(text[n - 1]))
            }
            Self::All(nodes) => nodes.iter().fold(starts.clone(), |starts, node| node.ends(text, &starts)),
            Self::Any(nodes) => nodes.iter().fold(at(&|_| false), |ends, node| joined(&ends, &node.ends(text, starts))),
            Self::Repeated(node, least, most) => {
                let mut here = starts.clone();
                for count in 0..most.unwrap_or(usize::MAX) {
                    let further = node.ends(text, &here);
                    let all = if count < *least { further } else { joined(&here, &further) };
                    if all == here {
                        break;
                    }
                    here = all;
                }
                here
            }
        }
    }
}

fn joined(a: &Positions, b: &Positions) -> Positions {
    a.iter().zip(b).map(|(a, b)| *a || *b).collect()
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

impl Parser<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.rest.chars().next()?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn skip(&mut self, word: &str) -> bool {
        let after = self.rest.strip_prefix(word);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn alternatives(&mut self) -> Result<Node> {
        let mut alternatives = vec![self.sequence()?];
        while self.skip("|") {
            alternatives.push(self.sequence()?);
        }
        Ok(Node::Any(alternatives))
    }

    fn sequence(&mut self) -> Result<Node> {
        let mut nodes = Vec::new();
        while !self.rest.is_empty() && !self.rest.starts_with(['|', ')']) {
            let node = self.one()?;
            nodes.push(match self.repetition()? {
                Some((least, most)) => Node::Repeated(Box::new(node), least, most),
                None => node,
            });
        }
        Ok(Node::All(nodes))
    }

    fn one(&mut self) -> Result<Node> {
        let letter = |letter: char| Node::Letter { ranges: vec![letter..=letter], within: true };
        Ok(match self.next() {
            Some('^') => Node::Begin,
            Some('$') => Node::End,
            Some('.') => Node::Letter { ranges: Vec::new(), within: false },
            Some('[') => self.set()?,
            Some('(') => {
                self.depth += 1;
                ensure!(self.depth <= DEEPEST, "has more than {DEEPEST} groups in each other");
                let inside = self.alternatives()?;
                self.depth -= 1;
                ensure!(self.skip(")"), "a group has no end");
                inside
            }
            Some('\\') => match self.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => letter(escaped),
                Some(other) => bail!("\\{} means nothing", other.escape_default()),
                None => bail!("ends in a backslash"),
            },
            Some(sign @ ('*' | '+' | '?' | '{')) => bail!("{sign} repeats nothing"),
            Some(plain) => letter(plain),
            None => bail!("ends too early"),
        })
    }

    fn repetition(&mut self) -> Result<Option<(usize, Option<usize>)>> {
        for (sign, times) in [("*", (0, None)), ("+", (1, None)), ("?", (0, Some(1)))] {
            if self.skip(sign) {
                return Ok(Some(times));
            }
        }
        if !self.skip("{") {
            return Ok(None);
        }
        let Some((inside, rest)) = self.rest.split_once('}') else { bail!("{{ has no end") };
        self.rest = rest;
        let number = |text: &str| text.parse().ok().filter(|number| *number <= MOST_REPETITIONS);
        let (least, most) = match inside.split_once(',') {
            None => (number(inside), number(inside).map(Some)),
            Some((least, "")) => (number(least), Some(None)),
            Some((least, most)) => (number(least), number(most).map(Some)),
        };
        match (least, most) {
            (Some(least), Some(most)) if most.is_none_or(|most| least <= most) => Ok(Some((least, most))),
            _ => bail!("{{{inside}}} is no number of repetitions"),
        }
    }

    /// Behind its bracket. The first letter is one of the set even if it is a bracket.
    fn set(&mut self) -> Result<Node> {
        let within = !self.skip("^");
        let mut ranges = Vec::new();
        loop {
            if let Some((class, of_it)) = CLASSES.iter().find(|(class, _)| self.rest.starts_with(class)) {
                self.skip(class);
                ranges.extend(of_it.iter().cloned());
                continue;
            }
            let from = match self.next() {
                Some(']') if !ranges.is_empty() => return Ok(Node::Letter { ranges, within }),
                Some('[') if self.rest.starts_with([':', '.', '=']) => bail!("[{} names no set of letters", self.rest),
                Some(letter) => letter,
                None => bail!("[ has no end"),
            };
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            let to = if is_range && self.skip("-") { self.next() } else { Some(from) };
            let Some(to) = to else { bail!("[ has no end") };
            ensure!(from <= to, "{from}-{to} is empty");
            ranges.push(from..=to);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn expressions_mean_what_they_say() {
        for (text, matched, not) in [
            ("b", &["abc", "b"][..], &["ac", ""][..]),
            ("^b", &["bc"], &["abc"]),
            ("b$", &["ab"], &["abc"]),
            ("^$", &[""], &["a"]),
            (".", &["a"], &[""]),
            ("^web-[0-9]+$", &["web-1", "web-17"], &["web-", "web-17x"]),
            ("^(a|b){2}c?$", &["ab", "bac"], &["a", "abab", "abcc"]),
            ("^(ab*)+$", &["a", "abbab"], &["ba", ""]),
            ("^(a*)*b$", &["b", "aaab"], &["aaa"]),
            ("^a{2,}$", &["aa", "aaaa"], &["a"]),
            ("^a{1,2}$", &["a", "aa"], &["", "aaa"]),
            ("^a{0}$", &[""], &["a"]),
            ("^(|x)a$", &["a", "xa"], &["xxa"]),
            (r"^a\.b$", &["a.b"], &["acb"]),
            ("^[]a-]$", &["]", "a", "-"], &["b"]),
            ("^[^]a]$", &["b"], &["]", "a"]),
            ("^[[:digit:][:upper:]_]+$", &["7_A"], &["7a"]),
            ("^one$|^two$", &["one", "two"], &["onetwo"]),
        ] {
            let expression = Expression::new(text).unwrap();
            for (ids, want) in [(matched, true), (not, false)] {
                ids.iter().for_each(|id| assert_eq!(expression.matches(id), want, "{text} {id}"));
            }
        }
    }

    #[test]
    fn what_is_none_is_told() {
        let deep = "(".repeat(DEEPEST + 1);
        for (text, want) in [
            ("a(", "a group has no end"),
            ("a)", "a group ends that has not begun"),
            ("*", "* repeats nothing"),
            ("(+a)", "+ repeats nothing"),
            ("a**", "* repeats nothing"),
            ("[z-a]", "z-a is empty"),
            ("[a", "[ has no end"),
            ("[]", "[ has no end"),
            ("[[:none:]]", "[:none:]] names no set"),
            ("a{2,1}", "{2,1} is no number"),
            ("a{,1}", "{,1} is no number"),
            ("a{256}", "{256} is no number"),
            ("a{1", "{ has no end"),
            ("\\", "ends in a backslash"),
            (r"\d", r"\d means nothing"),
            (&deep, "has more than 10 groups"),
        ] {
            let error = Expression::new(text).unwrap_err().to_string();
            assert!(error.starts_with(want), "{text}: {error}");
        }
    }

    #[test]
    fn no_expression_takes_long() {
        let nested =
            |inner: &str, sign: &str| (0..DEEPEST).fold(inner.to_string(), |inner, _| format!("({inner}){sign}"));
        let id = "a".repeat(255);
        for (text, want) in
            [(nested("a*", "*"), true), (nested("a", "{255}"), false), (nested("a|a*", "{0,255}") + "b", false)]
        {
            assert_eq!(Expression::new(&text).unwrap().matches(&id), want, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_id_written_as_an_expression_is_that_id_alone(id in "[a-zA-Z0-9_+.-]{1,20}", other in "[a-c.]{1,4}") {
            let escaped: String = id.chars().map(|c| if c.is_alphanumeric() { c.to_string() } else { format!("\\{c}") }).collect();
            let expression = Expression::new(&format!("^{escaped}$")).unwrap();
            prop_assert!(expression.matches(&id));
            prop_assert_eq!(expression.matches(&other), id == other);
        }

        #[test]
        fn whatever_it_is_it_ends(text in "[ab*+?(){},1|^$.\\[\\]-]{0,16}", id in "[ab]{0,12}") {
            let _ = Expression::new(&text).map(|expression| expression.matches(&id));
        }
    }
}
