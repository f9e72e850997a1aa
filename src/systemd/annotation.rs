//! Annotations `org.systemd.property.NAME` → properties of the unit. A value is GVariant's text format, as far as systemd
//! has use for it: one value of a basic type, or a list of such. Pure.
//!
//! Whoever writes annotations is often not who may decide about the host (CVE-2024-3154: a pod had the host run a program
//! of its choice), so only what root has listed is taken: see `lifecycle/permitted.rs`.

use anyhow::{Context, Result, bail, ensure};

use super::Property;
use super::wire::Value;

pub const PREFIX: &str = "org.systemd.property.";

/// The name without its prefix, the value as it is written.
pub fn property(name: &str, text: &str) -> Result<Property> {
    let letters = name.len() >= 3 && name.bytes().all(|byte| byte.is_ascii_alphabetic());
    ensure!(letters, "{name} is no property; names are letters alone, three or more");
    let value = value(text).with_context(|| format!("{text} is no value; write one as 'text', true, 5 or uint64 5"))?;
    // unit files have seconds where D-Bus has microseconds
    match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
        Some(stem) => Ok((format!("{stem}USec"), microseconds(&value).context("is no number of seconds")?)),
        None => Ok((name.into(), value)),
    }
}

fn microseconds(value: &Value) -> Option<Value> {
    const MICRO: u64 = 1_000_000;
    let whole = match *value {
        Value::Byte(number) => number.into(),
        Value::I16(number) => number.try_into().ok()?,
        Value::U16(number) => number.into(),
        Value::I32(number) => number.try_into().ok()?,
        Value::U32(number) => number.into(),
        Value::I64(number) => number.try_into().ok()?,
        Value::U64(u64::MAX) => return Some(Value::U64(u64::MAX)),
        Value::U64(number) => number,
        Value::Double(number) if (0.0..1e12).contains(&number) => {
            return Some(Value::U64((number * MICRO as f64) as u64));
        }
        _ => return None,
    };
    whole.checked_mul(MICRO).map(Value::U64)
}

/// GVariant's word for a type, and its letter.
const TYPES: [(&str, &str); 10] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
];

fn letter_of(word: &str) -> Option<&'static str> {
    TYPES.iter().find(|(name, letter)| *name == word || *letter == word).map(|(_, letter)| *letter)
}

fn value(text: &str) -> Result<Value> {
    let mut words = Words(text);
    let typed = words.typed()?;
    words.skip_spaces();
    let value = match (words.0.starts_with('['), typed) {
        (true, Typed::Basic(_)) => bail!("a list has a type such as @as"),
        (true, Typed::Not) => words.list(None)?,
        (true, Typed::List(of)) => words.list(Some(of))?,
        (false, Typed::List(_)) => bail!("a list stands in brackets"),
        (false, Typed::Basic(of)) => words.basic(Some(of))?,
        (false, Typed::Not) => words.basic(None)?,
    };
    words.skip_spaces();
    ensure!(words.0.is_empty(), "something follows it");
    Ok(value)
}

enum Typed {
    Not,
    Basic(&'static str),
    List(&'static str),
}

struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start();
    }

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let end = self.0.find(|c| !is_part(c)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// `uint64 5`, `@t 5`, `@as []`
    fn typed(&mut self) -> Result<Typed> {
        self.skip_spaces();
        if let Some(rest) = self.0.strip_prefix('@') {
            self.0 = rest;
            let signature = self.take(|c| c.is_ascii_alphabetic());
            let known = |letter: &str| letter_of(letter).filter(|_| letter.len() == 1);
            return match signature.strip_prefix('a') {
                Some(of) => known(of).map(Typed::List),
                None => known(signature).map(Typed::Basic),
            }
            .with_context(|| format!("@{signature} is no type"));
        }
        let word = self.0.split(char::is_whitespace).next().unwrap_or_default();
        match letter_of(word).filter(|_| word.len() > 1) {
            Some(letter) => {
                self.0 = &self.0[word.len()..];
                Ok(Typed::Basic(letter))
            }
            None => Ok(Typed::Not),
        }
    }

    fn list(&mut self, of: Option<&'static str>) -> Result<Value> {
        self.0 = &self.0[1..];
        let mut values = Vec::new();
        let mut of = of;
        loop {
            self.skip_spaces();
            if let Some(rest) = self.0.strip_prefix(']') {
                self.0 = rest;
                break;
            }
            if !values.is_empty() {
                self.0 = self.0.strip_prefix(',').context("a comma is missing")?;
            }
            match self.typed()? {
                Typed::Not => {}
                Typed::Basic(letter) if of.is_none_or(|of| of == letter) => of = Some(letter),
                _ => bail!("a list has values of one type"),
            }
            self.skip_spaces();
            let value = self.basic(of)?;
            of = of.or(letter_of(&value.signature()));
            values.push(value);
        }
        let of = of.context("an empty list needs a type, such as @as []")?;
        Ok(match of {
            "y" => Value::Bytes(values.iter().map(|v| if let Value::Byte(byte) = v { *byte } else { 0 }).collect()),
            of => Value::List(of, values),
        })
    }

    fn basic(&mut self, of: Option<&str>) -> Result<Value> {
        if let Some(quote) = self.0.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            ensure!(of.is_none_or(|of| of == "s"), "a text is not of that type");
            return self.text(quote).map(Value::Text);
        }
        let word = self.take(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        let wrong = || format!("{word} is not of that type");
        Ok(match of {
            None if matches!(word, "true" | "false") => Value::Bool(word == "true"),
            None if word.contains(['.', 'e']) => Value::Double(word.parse().with_context(wrong)?),
            None => Value::I32(word.parse().with_context(wrong)?),
            Some("b") => Value::Bool(word.parse().with_context(wrong)?),
            Some("y") => Value::Byte(number(word).with_context(wrong)?),
            Some("n") => Value::I16(number(word).with_context(wrong)?),
            Some("q") => Value::U16(number(word).with_context(wrong)?),
            Some("i") => Value::I32(number(word).with_context(wrong)?),
            Some("u") => Value::U32(number(word).with_context(wrong)?),
            Some("x") => Value::I64(number(word).with_context(wrong)?),
            Some("t") => Value::U64(number(word).with_context(wrong)?),
            Some("d") => Value::Double(word.parse().with_context(wrong)?),
            Some(_) => bail!("a text stands in quotes"),
        })
    }

    fn text(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut chars = self.0[1..].char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                c if c == quote => {
                    self.0 = &self.0[1 + at + 1..];
                    return Ok(text);
                }
                '\\' => text.push(match chars.next().map(|(_, c)| c) {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c) if !c.is_ascii_alphanumeric() => c,
                    _ => bail!("an escape that is not known"),
                }),
                // a unit's file has a line for each
                c => text.push(c),
            }
            ensure!(!text.ends_with(['\0', '\n']), "a text of more than one line");
        }
        bail!("a quote is missing")
    }
}

/// Decimal, or with 0x.
fn number<T: TryFrom<i128>>(word: &str) -> Option<T> {
    let number = match word.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok()?,
        None => word.parse().ok()?,
    };
    number.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values() {
        for (text, want) in [
            ("'x'", Value::text("x")),
            ("\"it's\"", Value::text("it's")),
            (r"'a\'b\\'", Value::text(r"a'b\")),
            ("''", Value::text("")),
            ("true", Value::Bool(true)),
            (" 5 ", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("1.5", Value::Double(1.5)),
            ("uint64 5", Value::U64(5)),
            ("@t 18446744073709551615", Value::U64(u64::MAX)),
            ("byte 0xff", Value::Byte(255)),
            ("int64 -1", Value::I64(-1)),
            ("@b false", Value::Bool(false)),
            ("string 'x'", Value::text("x")),
            ("['a', 'b']", Value::texts(["a", "b"])),
            ("@as []", Value::texts([""; 0])),
            ("@au [1,2]", Value::List("u", vec![Value::U32(1), Value::U32(2)])),
            ("[uint64 1, 2]", Value::List("t", vec![Value::U64(1), Value::U64(2)])),
            ("@ay [1,0x02]", Value::Bytes(vec![1, 2])),
        ] {
            assert_eq!(value(text).map_err(|error| format!("{text}: {error:#}")), Ok(want));
        }
        for text in [
            "",
            "x",
            "'x",
            "x'",
            "'x'y",
            "5 5",
            "[]",
            "[1,'a']",
            "[1 2]",
            "[1",
            "[[1]]",
            "@z 5",
            "@aas []",
            "@t -1",
            "@t 'x'",
            "byte 256",
            "uint64 [1]",
            "@as 'x'",
            "99999999999",
            "'a\nb'",
            r"'a\nb'",
            r"'a\x'",
            "string x",
            "'a\0b'",
            "{'a': 1}",
            "(1,)",
        ] {
            assert!(value(text).is_err(), "{text:?} is taken for {:?}", value(text));
        }
    }

    #[test]
    fn properties() {
        let named = |name: &str, text: &str| property(name, text).map_err(|error| format!("{error:#}"));
        assert_eq!(named("CollectMode", "'inactive'"), Ok(("CollectMode".into(), Value::text("inactive"))));
        for (text, want) in
            [("5", 5_000_000), ("uint64 5", 5_000_000), ("0.5", 500_000), ("@t 18446744073709551615", u64::MAX)]
        {
            assert_eq!(named("TimeoutStopSec", text), Ok(("TimeoutStopUSec".into(), Value::U64(want))), "{text}");
        }
        assert_eq!(named("TimeoutStopUSec", "uint64 7"), Ok(("TimeoutStopUSec".into(), Value::U64(7))));
        for (name, text, says) in [
            ("Ab", "1", "Ab is no property"),
            ("A-b", "1", "A-b is no property"),
            ("", "1", "is no property"),
            ("Exec\nStart", "1", "is no property"),
            ("TimeoutStopSec", "'5'", "is no number of seconds"),
            ("TimeoutStopSec", "-5", "is no number of seconds"),
            ("TimeoutStopSec", "1e300", "is no number of seconds"),
            ("CollectMode", "inactive", "inactive is no value"),
        ] {
            let error = named(name, text).unwrap_err();
            assert!(error.contains(says), "{name} {text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(\\[|\\]|'|\"|,|@|a|t|s| |\\\\|é|uint64|-|\\.|[0-9]|true){0,12}") {
            let _ = property("TimeoutStopSec", &text);
        }
    }
}
