//! The words of mount(8) and what each one does.

use super::AttrChange;

/// A change in words, for `rrun plan`.
pub fn words(_change: &AttrChange) -> String {
    String::new()
}

/// Every word that the parser knows, sorted.
pub fn all_words() -> Vec<String> {
    ["ro", "rro", "rw"].map(String::from).to_vec()
}
