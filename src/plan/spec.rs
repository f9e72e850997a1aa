//! (to be written)
pub mod resources;
