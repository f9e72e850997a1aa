//! Performs the writes of a plan: tries, takes what the plan has for a refusal, and words what is left as an error.

use std::fs::File;

use anyhow::{Result, anyhow};
use nix::errno::Errno;

use super::directory::{Directory, write_once};
use super::write::{Otherwise, Write};
use crate::error::SysError;

/// All of one group, in order. What the kernel wants later is tried again as long as something else went through.
pub fn write_all(directory: &Directory, writes: &[Write]) -> Result<()> {
    let mut pen = Pen { directory, open: None };
    let mut waiting: Vec<&Write> = Vec::new();
    for write in writes {
        if pen.write(write)? == Outcome::Later {
            waiting.push(write);
        }
    }
    while !waiting.is_empty() {
        let before = waiting.len();
        let mut still = Vec::new();
        for write in waiting {
            if pen.write(write)? == Outcome::Later {
                still.push(write);
            }
        }
        waiting = still;
        if waiting.len() == before {
            return Err(refusal(directory, waiting[0], Errno::EINVAL));
        }
    }
    Ok(())
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    Later,
}

/// Holds the last file open: device rules are many lines for one file.
struct Pen<'a> {
    directory: &'a Directory,
    open: Option<(String, File)>,
}

impl Pen<'_> {
    fn write(&mut self, write: &Write) -> Result<Outcome> {
        let (mut file, mut value) = (&*write.file, write.value.as_str());
        // each alternative is taken once, in the order given
        let mut otherwise = write.otherwise.iter();
        loop {
            let Err(errno) = self.put(file, value) else { return Ok(Outcome::Done) };
            match otherwise.find(|(of, _)| *of == errno) {
                Some((_, Otherwise::File(other))) => file = other,
                Some((_, Otherwise::Value(other))) => value = other,
                Some((_, Otherwise::Later)) => return Ok(Outcome::Later),
                Some((_, Otherwise::Leave)) => return Ok(Outcome::Done),
                None => return Err(refusal(self.directory, write, errno)),
            }
        }
    }

    fn put(&mut self, file: &str, value: &str) -> Result<(), Errno> {
        let open = match self.open.take() {
            Some((name, open)) if name == file => open,
            _ => self.directory.open_to_write(file)?,
        };
        let result = write_once(&open, value);
        self.open = Some((file.to_string(), open));
        result
    }
}

/// Names the field, the file, the value and the errno. A missing file of the kernel's must not read like a missing
/// program, which is what strerror(3)'s words mean to managers.
fn refusal(directory: &Directory, write: &Write, errno: Errno) -> anyhow::Error {
    let Write { field, file, value, .. } = write;
    let dir = directory.path.display();
    let meaning = write.meanings.iter().find(|(of, _)| *of == errno).map(|(_, meaning)| *meaning);
    match (errno, meaning) {
        (_, Some(meaning)) => {
            anyhow!("{field}: cannot set {file} = {value} of cgroup {dir}: {meaning} ({errno:?})")
        }
        (Errno::ENOENT, None) => anyhow!("{field}: cgroup {dir} has no file {file} on this kernel (ENOENT)"),
        (errno, None) => {
            let error =
                anyhow::Error::new(SysError::new("write cgroup", format_args!("{dir}/{file} = {value}"), errno));
            match write.in_use.filter(|_| errno == Errno::EBUSY).and_then(|file| directory.read(file).ok()) {
                Some(used) => {
                    error.context(format!("{field}: limit too small: {value} bytes, {} are in use", used.trim()))
                }
                None => error.context(field.to_string()),
            }
        }
    }
}
