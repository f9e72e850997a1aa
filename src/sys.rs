//! System calls that no crate offers as safe functions. The only `unsafe` of rrun is below this folder, behind types
//! that own their descriptors; nothing here decides anything.
#![allow(unsafe_code)]

pub mod allocator;
pub mod bpf;
pub mod clone;
pub mod credentials;
pub mod entry;
pub mod exec;
pub mod fds;
pub mod file;
pub mod keyring;
pub mod limits;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod network;
pub mod scheduling;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod start;
pub mod tty;
