//! What the sentences of the OCI runtime-spec demand of a runtime, tried on any of them: each test asks for no more than
//! its sentence says, and never for the words of an error. Which sentences a test shows stands in conformance/*.txt,
//! beside the tests of other topics that show one.

use serde_json::Value;

use crate::bundle::Bundle;

/// `fn name: |bundle| change;` makes a test of each: what is refused.
macro_rules! refused {
    ($($(#[$comment:meta])* fn $name:ident: |$bundle:ident| $change:expr;)+) => {$(
        $(#[$comment])*
        #[test]
        fn $name() {
            crate::conformance::refused(|$bundle| { $change; });
        }
    )+};
}

/// `fn name: pointer, good => bad;` makes a test of each: a field that is taken with one value and refused with another.
macro_rules! bad_values {
    ($($(#[$comment:meta])* fn $name:ident: $pointer:literal, $good:tt => $bad:tt;)+) => {$(
        $(#[$comment])*
        #[test]
        fn $name() {
            use crate::conformance::{refused_beside, set};
            refused_beside(set($pointer, serde_json::json!($good)), set($pointer, serde_json::json!($bad)));
        }
    )+};
}

mod bundle;
mod cgroups;
mod config;
mod features;
mod hooks;
mod linux;
mod mount_options;
mod net_devices;
mod runtime;
mod seccomp;

/// `create` takes the bundle as it is, and not with `bad` done to it.
#[track_caller]
fn refused(bad: impl FnOnce(&mut Bundle)) {
    refused_beside(|_| (), bad);
}

/// The same, where `good` is what must be taken: without it anything could be what is wrong.
#[track_caller]
fn refused_beside(good: impl FnOnce(&mut Bundle), bad: impl FnOnce(&mut Bundle)) {
    let mut bundle = Bundle::sleeping();
    good(&mut bundle);
    bundle.create().ok();
    bundle.delete_force().ok();
    bad(&mut bundle);
    let output = bundle.create();
    assert_ne!(output.code, 0, "is taken: {output}");
    assert_eq!(bundle.status_if_any(), None, "a container in spite of an error");
}

fn set(pointer: &str, value: Value) -> impl FnOnce(&mut Bundle) {
    move |bundle| {
        bundle.set(pointer, value);
    }
}
