//! One write(2) to one file of a cgroup, and what takes its place when the kernel refuses it. Only data: the
//! decisions are made before anything is written.

use std::borrow::Cow;
use std::fmt;

use nix::errno::Errno;
use serde::{Serialize, Serializer};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where the value stands in config.json, for errors.
    pub field: Cow<'static, str>,
    pub file: Cow<'static, str>,
    pub value: String,
    pub otherwise: Vec<(Errno, Otherwise)>,
    /// What an errno of this file means, in words that help more than strerror(3)'s.
    pub meanings: &'static [(Errno, &'static str)],
    /// The file that tells what is in use now, when EBUSY says that it is more than the value.
    pub in_use: Option<&'static str>,
    /// The file that tells which numbers of the list the kernel took, which accepts more than it has.
    pub effective: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Otherwise {
    /// The same value goes to this file.
    File(&'static str),
    /// This value goes to the same file.
    Value(&'static str),
    /// This value goes to this file.
    Other(&'static str, String),
    /// Once more after the others of its group: the kernel checks some values against each other, so that the right
    /// order depends on what stands there already.
    Later,
    /// Nothing is lost without it.
    Leave,
}

impl Write {
    pub fn new(
        field: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl fmt::Display,
    ) -> Self {
        Self {
            field: field.into(),
            file: file.into(),
            value: value.to_string(),
            otherwise: Vec::new(),
            meanings: &[],
            in_use: None,
            effective: None,
        }
    }

    pub fn on(mut self, errno: Errno, otherwise: Otherwise) -> Self {
        self.otherwise.push((errno, otherwise));
        self
    }

    pub fn on_if(self, condition: bool, errno: Errno, otherwise: Otherwise) -> Self {
        if condition { self.on(errno, otherwise) } else { self }
    }

    pub fn meaning(mut self, meanings: &'static [(Errno, &'static str)]) -> Self {
        self.meanings = meanings;
        self
    }

    pub fn in_use(mut self, file: &'static str) -> Self {
        self.in_use = Some(file);
        self
    }

    pub fn effective(mut self, file: &'static str) -> Self {
        self.effective = Some(file);
        self
    }
}

/// `blkio.weight = 500; ENOENT: blkio.bfq.weight`
impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.file, self.value)?;
        for (errno, otherwise) in &self.otherwise {
            match otherwise {
                Otherwise::File(file) => write!(f, "; {errno:?}: {file}")?,
                Otherwise::Value(value) => write!(f, "; {errno:?}: = {value}")?,
                Otherwise::Other(file, value) => write!(f, "; {errno:?}: {file} = {value}")?,
                Otherwise::Later => write!(f, "; {errno:?}: later")?,
                Otherwise::Leave => write!(f, "; {errno:?}: leave")?,
            }
        }
        Ok(())
    }
}

impl Serialize for Write {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What tables of tests compare: the writes as text, or the error.
#[cfg(test)]
pub fn shown(result: anyhow::Result<Vec<Write>>) -> Result<Vec<String>, String> {
    match result {
        Ok(writes) => Ok(writes.iter().map(Write::to_string).collect()),
        Err(error) => Err(format!("{error:#}")),
    }
}
