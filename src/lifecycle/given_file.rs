//! Files that the caller names: read whole, up to a sensible size, and without waiting for ever.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Doing;
use crate::plan::spec::document::MAX_BYTES;
use crate::sys::file;

/// Real ones have some ten thousand bytes.
const LONGEST: u64 = MAX_BYTES as u64;

/// For the other end of a pipe to write and close.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the file may be a pipe, such as a shell's `<(…)` gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pipes {
    Read,
    Refused,
}

pub fn read_whole(path: &Path, pipes: Pipes) -> Result<Vec<u8>> {
    let shown = path.display();
    // not by way of a FIFO or device that would keep us waiting
    let file = File::from(file::open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK).doing("open", &shown)?);
    let metadata = file.metadata().doing("stat", &shown)?;
    if metadata.file_type().is_fifo() && pipes == Pipes::Read {
        return read_pipe(file, path);
    }
    ensure!(metadata.is_file(), "{shown} is not a regular file");
    ensure!(metadata.len() <= LONGEST, "{shown} has {} bytes; at most {LONGEST} are read", metadata.len());
    let mut bytes = file::read(&file, metadata.len() as usize + 1, MAX_BYTES).doing("read", &shown)?;
    // A size is only what a file system says, and some give in parts: what is left, up to what is allowed.
    if bytes.len() as u64 != metadata.len() {
        file.take(LONGEST.saturating_sub(bytes.len() as u64)).read_to_end(&mut bytes).doing("read", &shown)?;
    }
    Ok(bytes)
}

fn read_pipe(mut pipe: File, path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    loop {
        match (&mut pipe).take(LONGEST).read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => drop(result.doing("read", &shown)?),
        }
        ensure!(bytes.len() as u64 <= LONGEST, "{shown} has more than {LONGEST} bytes");
        let left =
            PollTimeout::try_from(deadline.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, left).doing("poll", &shown)? == 0 {
            bail!("{shown}: its other end does not write and close within {} s", PATIENCE.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    /// No size is told of a file of procfs, and it is given in parts.
    #[test]
    fn a_size_is_not_believed() {
        let path = Path::new("/proc/kallsyms");
        let mut whole = Vec::new();
        File::open(path).unwrap().take(LONGEST).read_to_end(&mut whole).unwrap();
        assert!(whole.len() > 64 << 10, "{} bytes are too few for parts", whole.len());
        let read = read_whole(path, Pipes::Refused).unwrap();
        assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
    }

    #[test]
    fn a_pipe_is_read_to_its_end() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        let written = "x".repeat(100_000);
        let copy = written.clone();
        let writing = std::thread::spawn(move || writer.write_all(copy.as_bytes()));
        let path = Path::new(&path);
        assert!(read_whole(path, Pipes::Refused).unwrap_err().to_string().contains("is not a regular file"));
        assert_eq!(read_whole(path, Pipes::Read).unwrap(), written.as_bytes());
        writing.join().unwrap().unwrap();
    }
}
