//! Everything that is wrong with a config, found in one go. A part that cannot be decided is left out, and what follows is
//! looked at all the same. `create` tells the first of them, `check` all.
//!
//! A function that finds several gives one error that holds them ([`Problems::result`]); whoever calls it by `take` or
//! `ok` gets them one by one. So what finds only one needs to know nothing of this.

use std::fmt;

use anyhow::{Error, Result};

#[derive(Debug, Default)]
pub struct Problems(Vec<Error>);

/// Shown as its first.
#[derive(Debug)]
struct Several(Vec<Error>);

impl fmt::Display for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.first().map_or(Ok(()), |first| write!(f, "{first:#}"))
    }
}

impl std::error::Error for Several {}

impl Problems {
    pub fn ok<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|error| self.0.extend(all(error))).ok()
    }

    /// With nothing in place of what could not be decided.
    pub fn take<T: Default>(&mut self, result: Result<T>) -> T {
        self.ok(result).unwrap_or_default()
    }

    /// Those of a list that could be decided.
    pub fn each<T>(&mut self, results: impl Iterator<Item = Result<T>>) -> Vec<T> {
        results.filter_map(|result| self.ok(result)).collect()
    }

    pub fn ensure(&mut self, holds: bool, otherwise: &'static str) {
        self.ok(if holds { Ok(()) } else { Err(Error::msg(otherwise)) });
    }

    /// What was put together, unless something is wrong with a part of it.
    pub fn result<T>(mut self, whole: T) -> Result<T> {
        match self.0.len() {
            0 => Ok(whole),
            1 => Err(self.0.remove(0)),
            _ => Err(Error::new(Several(self.0))),
        }
    }
}

/// Those that an error holds, each with what was said above them all.
pub fn all(error: Error) -> Vec<Error> {
    let above: Vec<String> =
        error.chain().take_while(|cause| !cause.is::<Several>()).map(ToString::to_string).collect();
    match error.downcast::<Several>() {
        Ok(Several(errors)) => {
            let within = |error: Error| above.iter().rev().fold(error, |error, text| error.context(text.clone()));
            errors.into_iter().map(within).collect()
        }
        Err(error) => vec![error],
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;
    use crate::error::{SysError, Wording, line};
    use nix::errno::Errno;

    fn texts(error: Error) -> Vec<String> {
        all(error).iter().map(|error| line(error, Wording::Verbatim)).collect()
    }

    #[test]
    fn each_is_told_with_what_stands_above_it() {
        let inner = |names: &[&str]| {
            let mut problems = Problems::default();
            let good = problems.each(names.iter().map(|name| match *name {
                "fine" => Ok(1),
                name => Err(anyhow!("{name}: bad")),
            }));
            problems.result(good)
        };
        let mut outer = Problems::default();
        assert_eq!(outer.take(inner(&["fine", "fine"])), [1, 1]);
        assert_eq!(outer.ok(inner(&["a", "fine"])), None);
        assert_eq!(outer.take(inner(&["b", "c"]).context("list")), Vec::<i32>::new());
        let error = outer.result(()).context("config.json").unwrap_err();
        assert_eq!(format!("{error:#}"), "config.json: a: bad", "the first one stands for all");
        assert_eq!(texts(error), ["config.json: a: bad", "config.json: list: b: bad", "config.json: list: c: bad"]);
    }

    #[test]
    fn what_is_alone_stays_what_it_is() {
        let error = || Error::new(SysError::new("fsopen", "x", Errno::ENODEV)).context("mounts[0]");
        let mut problems = Problems::default();
        problems.ok::<()>(Err(error()));
        let alone = problems.result(()).unwrap_err();
        assert!(alone.downcast_ref::<SysError>().is_some());
        assert_eq!(texts(alone), texts(error()));
    }
}
