//! Root's list of what annotations may do beyond what a config says.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use anyhow::{Result, ensure};

use crate::error::Doing;
use crate::plan::annotations::PERMITTED;

/// Of a list of names.
const LARGEST: u64 = 64 << 10;

/// One name a line; a host without the file permits none. Nobody but root may have written it.
pub fn annotations() -> Result<String> {
    let path = PERMITTED;
    let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        file => file.doing("open", path)?,
    };
    let found = file.metadata().doing("stat", path)?;
    ensure!(
        found.is_file() && found.uid() == 0 && found.mode() & 0o022 == 0,
        "{path}: must be a file that root owns and nobody else may write"
    );
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).doing("read", path)?;
    Ok(text)
}
