//! rrun: an OCI container runtime.
//!
//! ```text
//! config.json ─ spec ─▶ Plan (checked, pure) ─▶ host side ─────────────▶ child side ──────────▶ state.json
//!               + Options    namespaces, mounts,   cgroup, spawn:           steps: mounts,          pid, start time,
//!               + Host       process, devices      serve the child          devices, root, …        cgroup, bundle
//! ```
//!
//! Floors; a module calls downward only, siblings of floor 4 never meet, and elsewhere siblings close no circle
//! (tests/floors.rs reads this list and the imports):
//!
//! ```text
//! 7 cli → 6 lifecycle → 5 launch → 4 init | cgroup | criu → 3 hooks | protocol | state | notify | netdev | resctrl | systemd → 2 plan
//!   → 1 host | procfs | rootfs | undo | log | timestamp → 0 sys → error
//! ```

pub mod cli;
pub mod lifecycle;

pub mod launch;

pub mod cgroup;
pub mod criu;
pub mod init;

pub mod hooks;
pub mod netdev;
pub mod notify;
pub mod protocol;
pub mod resctrl;
pub mod state;
pub mod systemd;

pub mod plan;

pub mod host;
pub mod log;
pub mod procfs;
pub mod rootfs;
pub mod timestamp;
pub mod undo;

pub mod error;
pub mod sys;

/// The runtime-spec that rrun follows: what `state`, `features` and `--version` say.
pub const OCI_VERSION: &str = "1.3.0";
