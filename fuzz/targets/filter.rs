//! The bytes of run.oci.seccomp_bpf_data: what is taken is a filter that ends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rrun::plan::seccomp::raw;

fuzz_target!(|text: &str| {
    if let Ok(filter) = raw::decode(text) {
        assert!(!filter.is_empty());
    }
});
