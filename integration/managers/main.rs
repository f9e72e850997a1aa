//! rrun as the only runtime of real managers, which these tests start and end. Needs root, dockerd, containerd and podman.
//!
//! `make managers` runs it; `RUNTIME=runc make managers` tries the tests themselves. One topic per file; a test is what
//! a user of the manager types, and what the user sees. rows.md says what of all that managers do is tried where.

#[macro_use]
#[path = "../layout.rs"]
#[allow(dead_code, unused_macros)]
mod layout;
#[macro_use]
#[path = "../need.rs"]
#[allow(dead_code)]
mod need;

#[path = "../bundle.rs"]
#[allow(dead_code)]
mod bundle;
#[path = "../leftovers.rs"]
#[allow(dead_code)]
mod leftovers;
#[path = "../mounted.rs"]
#[allow(dead_code)]
mod mounted;
#[path = "../patience.rs"]
mod patience;
#[path = "../runtime.rs"]
#[allow(dead_code)]
mod runtime;
#[path = "../tty.rs"]
#[allow(dead_code)]
mod tty;

mod daemon;
mod kubelet;

mod containerd;
mod containerd_cri;
mod containerd_streams;

mod docker_daemon;
mod docker_images;
mod docker_lifecycle;
mod docker_limits;
mod docker_network;
mod docker_run;

mod documented;
mod played;
mod podman;
