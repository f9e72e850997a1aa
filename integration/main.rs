//! What a user or a manager sees of a container runtime, tried on a real one. Needs root.
//!
//! `make integration` runs it on rrun, `RUNTIME=crun make integration` on a peer: a test that only rrun passes is
//! suspect, and says why by `on_rrun()`. One topic per file; a test makes its own [`bundle::Bundle`], which takes
//! everything away again. A run that was killed is cleaned up after by the next one (see `leftovers`).

#[macro_use]
mod layout;
#[macro_use]
mod need;

mod bundle;
mod leftovers;
mod mapped;
mod mounted;
mod patience;
mod procfs;
mod refusals;
mod runtime;
mod tracer;
mod tty;

mod annotations;
mod bad_input;
mod cgroups;
mod cgroups_v2;
mod check;
mod checkpoint;
mod cli;
mod conformance;
mod device_filter;
mod devices;
mod events;
mod exchanged;
mod exec;
mod faults;
mod fds;
mod freeze;
mod hook_failures;
mod hooks;
mod host_mounts;
mod ill_bundles;
mod joined;
mod kill;
mod labels;
mod lifecycle;
mod managers_on_systemd;
mod mount_ids;
mod mount_links;
mod mount_options;
mod mounts;
mod namespaces;
mod net_devices;
mod no_process;
mod notify;
mod pods;
mod process;
mod protection;
mod ps;
mod races;
mod root;
mod root_cover;
mod rootless;
mod scheduling;
mod seccomp;
mod state;
mod stdio;
mod systemd;
mod systemd_as_init;
mod terminal;
mod update;
mod update_v2;
mod userns;
mod v2_delegation;
mod v2_limits;
