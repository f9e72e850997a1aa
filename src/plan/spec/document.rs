//! A JSON text: read into a type, with the place of what is wrong in it. Knows nothing of containers.
//!
//! The way without errors is one pass of serde_json. Only when something is wrong the text is walked a second time, to
//! turn serde_json's line and column into the path of the value.

use std::collections::BTreeMap;
use std::collections::btree_map::{self, Entry};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use anyhow::{Result, anyhow, ensure};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, Visitor};
use serde_json::error::Category;

mod lenient;

pub use lenient::{Lenient, is_within, read_leniently};

/// A real config.json has some kilobytes. The bound keeps a hostile one from filling the memory; the depth is bounded
/// by serde_json (128).
pub const MAX_BYTES: usize = 16 << 20;

/// Strings of the result hold no NUL: each may become an argument of a system call.
pub fn read<T: DeserializeOwned>(text: &[u8]) -> Result<T> {
    let text = readable(text)?;
    value_of(text).map_err(|fault| fault.error)
}

fn readable(text: &[u8]) -> Result<&str> {
    ensure!(text.len() <= MAX_BYTES, "{} bytes are too many; at most {MAX_BYTES} are read", text.len());
    std::str::from_utf8(text).map_err(|error| anyhow!("byte {}: not UTF-8", error.valid_up_to()))
}

/// What is wrong with a text, and with which value of it; with none, it is no JSON.
pub struct Fault {
    error: anyhow::Error,
    place: Option<Vec<Segment>>,
}

fn value_of<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    let value = serde_json::from_str(text).map_err(|error| explain(text, &error))?;
    match nul(text) {
        Some(at) => {
            let place = place_at(text, at);
            let error = anyhow!("holds a NUL character; remove it").context(path_of(&place));
            Err(Fault { error, place: Some(place) })
        }
        None => Ok(value),
    }
}

/// Where a JSON text that parses has a NUL: it can only be escaped.
fn nul(text: &str) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find('\\') {
        let at = from + found;
        if text[at..].starts_with("\\u0000") {
            return Some(at);
        }
        from = at + 2; // with the character it escapes, so that the second half of `\\` escapes nothing
    }
    None
}

/// What is wrong with the text itself has a line and a column; what is wrong with a value has a path.
fn explain(text: &str, error: &serde_json::Error) -> Fault {
    let reason = error.to_string();
    let reason = reason.rsplit_once(" at line ").map_or(&*reason, |(reason, _)| reason);
    if error.classify() != Category::Data {
        let error = anyhow!("line {}, column {}: {reason}", error.line(), error.column());
        return Fault { error, place: None };
    }
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let offset = before + error.column();
    let place = place_at(text, offset);
    let path = path_of(&place);
    if let Some(field) = reason.strip_prefix("missing field ") {
        let dot = if path.is_empty() { "" } else { "." };
        let error = anyhow!("{path}{dot}{}: missing; add it", field.trim_matches('`'));
        return Fault { error, place: Some(place) };
    }
    let reason = reworded(reason, number_before(text, offset));
    let error = if path.is_empty() { anyhow!(reason) } else { anyhow!("{path}: {reason}") };
    Fault { error, place: Some(place) }
}

/// The number that ends at `offset`, as it is written: serde_json has made a fraction of one with many digits.
fn number_before(text: &str, offset: usize) -> &str {
    let text = text.get(..offset).unwrap_or_default();
    let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    &text[text.trim_end_matches(is_part).len()..]
}

/// serde's words for types, in the words of someone who writes JSON.
fn reworded(reason: &str, number: &str) -> String {
    if reason.starts_with("duplicate field") {
        return GIVEN_TWICE.into();
    }
    let wrong = reason.strip_prefix("invalid type: ").or_else(|| reason.strip_prefix("invalid value: "));
    let Some((got, expected)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return reason.into();
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" => "a whole number from 0 to 18446744073709551615",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "i64" if is_whole(number) => "a whole number from -9223372036854775808 to 9223372036854775807",
        "i64" => "a whole number",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    let got = match got.split_once(' ') {
        Some(("integer" | "floating", _)) => format!("number {number}"),
        Some(("boolean", value)) => value.trim_matches('`').into(),
        Some(("string", value)) => format!("string {}", value.trim_matches('"')),
        None if got == "sequence" => "a list".into(),
        None if got == "map" => "an object".into(),
        _ => got.into(),
    };
    format!("expected {expected}, got {got}")
}

fn is_whole(number: &str) -> bool {
    let digits = number.trim_start_matches('-');
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

const GIVEN_TWICE: &str = "given twice; keep one";

enum Frame<'a> {
    Object(Option<&'a str>),
    Array(usize),
}

/// One step on the way to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Key(String),
    Index(usize),
}

/// `process.args[0]`
fn path_of(place: &[Segment]) -> String {
    place.iter().fold(String::new(), |path, segment| match segment {
        Segment::Key(key) if path.is_empty() => key.clone(),
        Segment::Key(key) => path + "." + key,
        Segment::Index(index) => format!("{path}[{index}]"),
    })
}

/// Where the value is that ends at `offset`, or is about to begin there.
fn place_at(text: &str, offset: usize) -> Vec<Segment> {
    let bytes = text.as_bytes();
    let mut frames: Vec<Frame> = Vec::new();
    let mut at = 0;
    while at < offset.min(bytes.len()) {
        match bytes[at] {
            b'"' => {
                let end = string_end(bytes, at);
                if end > offset {
                    break;
                }
                if let Some(Frame::Object(key @ None)) = frames.last_mut() {
                    *key = text.get(at + 1..end - 1);
                }
                at = end;
                continue;
            }
            b'{' => frames.push(Frame::Object(None)),
            b'[' => frames.push(Frame::Array(0)),
            b'}' | b']' => drop(frames.pop()),
            b',' => match frames.last_mut() {
                Some(Frame::Object(key)) => *key = None,
                Some(Frame::Array(index)) => *index += 1,
                None => {}
            },
            _ => {}
        }
        at += 1;
    }
    let segments = frames.iter().filter_map(|frame| match frame {
        Frame::Object(key) => key.map(|key| Segment::Key(key.into())),
        Frame::Array(index) => Some(Segment::Index(*index)),
    });
    segments.collect()
}

/// Just behind the closing quote of the string that opens at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// A type that is read from an object. What derive makes would also take a list of the values, in order: a wrong type
/// that goes unnoticed. So the derived code is kept under the type's own name (`remote = "Self"`), and the trait is
/// implemented by [`from_object`], which lets only an object through to it.
pub trait FromObject<'de>: Sized {
    fn from_object<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

pub struct ObjectVisitor<T>(pub PhantomData<T>);

impl<'de, T: FromObject<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::from_object(map)
    }
}

macro_rules! from_object {
    ($($name:ident),+) => {$(
        impl<'de> $crate::plan::spec::document::FromObject<'de> for $name {
            fn from_object<A: serde::de::MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
                $name::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_map($crate::plan::spec::document::ObjectVisitor(std::marker::PhantomData))
            }
        }
    )+};
}
pub(crate) use from_object;

/// A list; absent and `null` are the empty one.
#[derive(Debug, Clone)]
pub struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(list: Vec<T>) -> Self {
        Self(list)
    }
}

impl<T> Extend<T> for List<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, more: I) {
        self.0.extend(more);
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|list| Self(list.unwrap_or_default()))
    }
}

/// An object with free keys; absent and `null` are the empty one. Unlike a plain map it refuses a key given twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table<V>(BTreeMap<String, V>);

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<V> Deref for Table<V> {
    type Target = BTreeMap<String, V>;
    fn deref(&self) -> &BTreeMap<String, V> {
        &self.0
    }
}

impl<K: Into<String>, V, const N: usize> From<[(K, V); N]> for Table<V> {
    fn from(entries: [(K, V); N]) -> Self {
        Self(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl<'a, V> IntoIterator for &'a Table<V> {
    type Item = (&'a String, &'a V);
    type IntoIter = btree_map::Iter<'a, String, V>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Table<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_option(TableVisitor(PhantomData))
    }
}

struct TableVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for TableVisitor<V> {
    type Value = Table<V>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Table::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut table = BTreeMap::new();
        while let Some(key) = map.next_key()? {
            match table.entry(key) {
                Entry::Vacant(entry) => drop(entry.insert(map.next_value()?)),
                Entry::Occupied(_) => return Err(A::Error::custom(GIVEN_TWICE)),
            }
        }
        Ok(Table(table))
    }
}
