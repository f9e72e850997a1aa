//! (to be written)
pub fn warning(_line: &str) {}
