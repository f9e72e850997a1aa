//! A text with values of wrong types, read as if those were absent: so the first one does not hide the others, nor what is
//! wrong elsewhere. Only a text that is no JSON cannot be read.

use anyhow::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Fault, Segment, path_of, readable, value_of};

pub struct Lenient<T> {
    pub value: T,
    /// The first of the text, then those behind it. A key that is given twice is told only where that is the first.
    pub faults: Vec<Error>,
    /// The paths of what was taken for absent. That something is missing there is no second fault.
    pub lost: Vec<String>,
}

/// More than anybody reads, and a bound: each takes the text once more.
const MOST: usize = 100;

pub fn read_leniently<T: DeserializeOwned>(text: &[u8]) -> Result<Lenient<T>> {
    let text = readable(text)?;
    let mut fault = match value_of(text) {
        Ok(value) => return Ok(Lenient { value, faults: Vec::new(), lost: Vec::new() }),
        Err(fault) => fault,
    };
    let mut document: Option<Value> = None;
    let (mut faults, mut lost): (Vec<Error>, Vec<String>) = Default::default();
    loop {
        let Fault { error, place } = fault;
        let Some(place) = place.filter(|place| !place.is_empty() && lost.len() < MOST) else {
            return Err(if faults.is_empty() { error } else { faults.swap_remove(0) });
        };
        // what stands in for something lost may be of a wrong type too
        if !lost.iter().any(|lost: &String| is_within(&path_of(&place), lost)) {
            faults.push(error);
        }
        if document.is_none() {
            document = serde_json::from_str(text).ok();
        }
        let removed = document.as_mut().and_then(|document| remove(document, &place));
        let Some(removed) = removed else { return Err(faults.swap_remove(0)) };
        lost.push(path_of(&place[..removed]));
        match value_of(&document.as_ref().map(Value::to_string).unwrap_or_default()) {
            Ok(value) => return Ok(Lenient { value, faults, lost }),
            Err(next) => fault = next,
        }
    }
}

/// Takes out a value, or where it is out already the nearest one above that is not. The length of its place; nothing where
/// that is the whole text.
fn remove(document: &mut Value, place: &[Segment]) -> Option<usize> {
    for length in (1..=place.len()).rev() {
        let Some(value) = find(document, &place[..length]) else { continue };
        // an entry of a list of objects stays in the count
        let nothing = match place[length - 1] {
            Segment::Index(_) if !value.is_object() && !value.is_null() => Value::Object(Default::default()),
            _ => Value::Null,
        };
        if !value.is_null() && *value != nothing {
            *value = nothing;
            return Some(length);
        }
    }
    None
}

fn find<'v>(document: &'v mut Value, place: &[Segment]) -> Option<&'v mut Value> {
    place.iter().try_fold(document, |value, segment| match segment {
        Segment::Key(key) => value.get_mut(key),
        Segment::Index(index) => value.get_mut(index),
    })
}

/// `mounts[1].options` is within `mounts[1]`, and `mounts[10]` is not.
pub fn is_within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', ':']))
}

#[cfg(test)]
mod tests {
    use super::super::super::Spec;
    use super::*;

    fn read(text: &str) -> (Spec, Vec<String>) {
        let Lenient { value, faults, .. } = read_leniently(text.as_bytes()).unwrap();
        (value, faults.iter().map(|fault| format!("{fault:#}")).collect())
    }

    #[test]
    fn every_fault_is_found_and_the_rest_is_read() {
        let (spec, faults) = read(
            r#"{"hostname": 7, "process": {"args": ["a", 1], "cwd": "/", "user": "root", "env": ["A=\u0000"]},
                "mounts": [{"destination": "/a"}, "no", {"destination": "/b", "options": {}}], "root": {"path": "r"},
                "linux": {"resources": {"memory": {"limit": "1G", "swap": 5}}}}"#,
        );
        assert_eq!(
            faults,
            [
                "hostname: expected a string, got number 7",
                "linux.resources.memory.limit: expected a whole number, got string 1G",
                "mounts[1]: expected an object, got string no",
                "mounts[2].options: expected a list, got an object",
                "process.args[1]: expected a string, got number 1",
                "process.user: expected an object, got string root",
                "process.env[0]: holds a NUL character; remove it",
            ]
        );
        let process = spec.process.unwrap();
        assert_eq!((process.cwd.as_deref(), process.args.len()), (Some("/"), 0));
        let places: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.as_deref()).collect();
        assert_eq!(places, [Some("/a"), None, Some("/b")]);
    }

    #[test]
    fn what_is_no_object_or_no_json_is_not_read() {
        for (text, want) in [("[]", "expected an object, got a list"), ("{", "line 1, column 1: EOF"), ("", "line 1")] {
            let error = read_leniently::<Spec>(text.as_bytes()).err().unwrap();
            assert!(format!("{error:#}").starts_with(want), "{text}: {error:#}");
        }
        assert!(read_leniently::<Spec>(b"{}").unwrap().faults.is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_to_an_end(text in "[\\[\\]{}:,\"a0 n]{0,60}") {
            let _ = read_leniently::<Spec>(text.as_bytes());
        }
    }
}
