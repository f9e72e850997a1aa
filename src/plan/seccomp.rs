//! `linux.seccomp` → the filter that the kernel runs at every system call of the container. Decides only; it is loaded
//! by init.
//!
//! ```text
//! config.json ─ profile ─▶ Profile ─ compile ─▶ Graph ─ layout ─▶ program ─ interpret ─▶ what init may still do
//!                          (checked)  rules: conflicts            (classic BPF)
//! ```
//!
//! A filter means what libseccomp's would mean as runc uses it; integration/seccomp compares the two.

pub mod calls;
pub mod compile;
mod graph;
pub mod interpret;
mod layout;
pub mod profile;
pub mod rules;

#[cfg(test)]
mod tests;
