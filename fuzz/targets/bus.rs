//! What comes from the bus, whoever is at its other end.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rrun::systemd::wire;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(length)) = wire::length(bytes) {
        let _ = wire::parse(&bytes[..length.min(bytes.len())]);
    }
    let _ = wire::parse(bytes);
});
