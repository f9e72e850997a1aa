//! What callers may ask for and later versions will do. Refused by name: a container that lacks what was asked for is
//! worse than none.

use anyhow::{Error, anyhow};

pub fn flag(name: &str) -> Error {
    anyhow!("{name}: not in this version yet; leave it out")
}
