//! (another part writes this)
pub fn is_allowed_inside_proc(_t: &crate::rootfs::InRoot) -> bool { false }
