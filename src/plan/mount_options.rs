//! The words of mount(8) and what each one does.

use super::AttrChange;

/// A change in words, for `rrun plan`.
pub fn words(_change: &AttrChange) -> String {
    String::new()
}
