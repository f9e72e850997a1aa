//! Performs the writes of a plan: tries, takes what the plan has for a refusal, and words what is left as an error.

use std::fs::File;

use anyhow::{Result, anyhow};
use nix::errno::Errno;

use super::cpuset;
use super::directory::{Directory, write_once};
use super::write::{Otherwise, Write};
use crate::error::SysError;

/// All of one group, in order. What the kernel wants later is tried again as long as something else went through.
pub fn write_all(directory: &Directory, writes: &[Write]) -> Result<()> {
    let mut pen = Pen { directory, open: None };
    let mut todo: Vec<&Write> = writes.iter().collect();
    loop {
        let mut later = Vec::new();
        for write in &todo {
            if let Outcome::Later(errno) = pen.write(write)? {
                later.push((*write, errno));
            }
        }
        match later.first() {
            None => return Ok(()),
            Some((write, errno)) if later.len() == todo.len() => {
                return Err(refusal(directory, write, &write.file, &write.value, *errno));
            }
            Some(_) => todo = later.into_iter().map(|(write, _)| write).collect(),
        }
    }
}

/// What the kernel took of lists less than all of, as warnings.
pub fn shortfalls(directory: &Directory, writes: &[Write]) -> Vec<String> {
    let shortfall = |write: &Write| {
        let effective = directory.read(write.effective?).ok()?;
        let Write { field, value, .. } = write;
        let told = || format!("{field}: of {value} the cgroups above leave {}", effective.trim());
        (!cpuset::same(value, &effective)).then(told)
    };
    writes.iter().filter_map(shortfall).collect()
}

enum Outcome {
    Done,
    Later(Errno),
}

/// Of a limit of memory below what is in use. v1 charges a processor 256 KiB at once and counts them as used; refusing, it
/// takes back what nobody has used of them, and the next try may fit.
const TRIES: usize = 3;

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
            let tries = if write.in_use.is_some() { TRIES } else { 1 };
            let Err(errno) = self.put_within(tries, file, value) else { return Ok(Outcome::Done) };
            match otherwise.find(|(of, _)| *of == errno) {
                Some((_, Otherwise::File(other))) => file = other,
                Some((_, Otherwise::Value(other))) => value = other,
                Some((_, Otherwise::Other(other, its))) => (file, value) = (other, its),
                Some((_, Otherwise::Later)) => return Ok(Outcome::Later(errno)),
                Some((_, Otherwise::Leave)) => return Ok(Outcome::Done),
                None => return Err(refusal(self.directory, write, file, value, errno)),
            }
        }
    }

    fn put_within(&mut self, tries: usize, file: &str, value: &str) -> Result<(), Errno> {
        match self.put(file, value) {
            Err(Errno::EBUSY) if tries > 1 => self.put_within(tries - 1, file, value),
            result => result,
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
fn refusal(directory: &Directory, write: &Write, file: &str, value: &str, errno: Errno) -> anyhow::Error {
    let field = &write.field;
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
            match write.in_use.filter(|_| errno == Errno::EBUSY).and_then(|file| used(directory, file)) {
                // without the errno's own words: the kernel tried to make room first, and what is in use changes
                Some((most, now)) => anyhow!(
                    "{field}: {value} bytes are too few for {file}: {now} are in use, {most} were (EBUSY); give more"
                ),
                None => error.context(field.to_string()),
            }
        }
    }
}

/// The peak, whose file is given, and what is left of it now.
fn used(directory: &Directory, peak: &str) -> Option<(String, String)> {
    let read = |file: &str| Some(directory.read(file).ok()?.trim().to_string());
    Some((read(peak)?, read(&peak.replace("max_usage", "usage"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plain directory stands in for a cgroup: what is tested is which file gets which value.
    fn with_files(files: &[&str]) -> (tempfile::TempDir, Directory) {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|file| std::fs::write(dir.path().join(file), "").unwrap());
        let directory = Directory::at(dir.path()).unwrap().0;
        (dir, directory)
    }

    #[test]
    fn a_missing_file_selects_the_alternative() {
        let (dir, directory) = with_files(&["b", "c", "d"]);
        let writes = [
            Write::new("f", "a", 1).on(Errno::ENOENT, Otherwise::File("b")),
            Write::new("f", "a", 1).on(Errno::ENOENT, Otherwise::Other("d", "91".into())),
            Write::new("f", "x", 2).on(Errno::ENOENT, Otherwise::Leave),
            Write::new("f", "c", 3).on(Errno::ENOENT, Otherwise::Leave),
        ];
        write_all(&directory, &writes).unwrap();
        let read = |file| std::fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!([read("b"), read("c"), read("d")], ["1", "3", "91"]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "nothing was made");
    }

    #[test]
    fn a_list_that_was_not_taken_whole_is_told() {
        let (dir, directory) = with_files(&["cpuset.cpus.effective"]);
        std::fs::write(dir.path().join("cpuset.cpus.effective"), "0-1\n").unwrap();
        let write = |list: &str| [Write::new("linux.cpus", "cpuset.cpus", list).effective("cpuset.cpus.effective")];
        assert_eq!(shortfalls(&directory, &write("1,0")), [""; 0]);
        assert_eq!(shortfalls(&directory, &write("0-5")), ["linux.cpus: of 0-5 the cgroups above leave 0-1"]);
    }

    #[test]
    fn lines_for_one_file_are_one_write_each() {
        let (dir, directory) = with_files(&["devices.allow"]);
        let lines = ["a", "bc", "d"].map(|line| Write::new("f", "devices.allow", line));
        write_all(&directory, &lines).unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("devices.allow")).unwrap(), "abcd");
    }

    #[test]
    fn a_refusal_names_field_file_and_value_but_no_missing_program() {
        const MEANING: &[(Errno, &str)] = &[(Errno::ENOENT, "boot with swapaccount=1")];
        let (dir, directory) = with_files(&[]);
        let path = dir.path().display();
        for (write, want) in [
            (Write::new("linux.x", "a", 1), format!("linux.x: cgroup {path} has no file a on this kernel (ENOENT)")),
            (
                Write::new("linux.x", "a", 1).on(Errno::ENOENT, Otherwise::File("b")).meaning(MEANING),
                format!("linux.x: cannot set b = 1 of cgroup {path}: boot with swapaccount=1 (ENOENT)"),
            ),
        ] {
            assert_eq!(format!("{:#}", write_all(&directory, &[write]).unwrap_err()), want);
        }
    }

    #[test]
    fn what_never_succeeds_later_ends_in_its_error() {
        let (dir, directory) = with_files(&["good"]);
        let writes =
            [Write::new("linux.x", "bad", 1).on(Errno::ENOENT, Otherwise::Later), Write::new("linux.y", "good", 2)];
        let error = format!("{:#}", write_all(&directory, &writes).unwrap_err());
        assert!(error.starts_with("linux.x: ") && error.ends_with("(ENOENT)"), "{error}");
        assert_eq!(std::fs::read_to_string(dir.path().join("good")).unwrap(), "2", "once, not again");
    }

    #[test]
    fn a_link_is_not_followed() {
        let (dir, directory) = with_files(&["real"]);
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let error = write_all(&directory, &[Write::new("linux.x", "link", 1)]).unwrap_err();
        assert!(format!("{error:#}").ends_with("(ELOOP)"), "{error:#}");
    }
}
