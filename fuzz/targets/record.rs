//! state.json, which may be of another version or damaged: what is read is written again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rrun::state::State;

fuzz_target!(|text: &[u8]| {
    if let Ok(state) = serde_json::from_slice::<State>(text) {
        let written = serde_json::to_vec(&state).expect("what was read can be written");
        assert_eq!(serde_json::from_slice::<State>(&written).expect("what was written can be read"), state);
    }
});
