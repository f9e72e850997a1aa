//! Waiting for what happens in its own time.

use std::time::{Duration, Instant};

/// Asks until there is an answer.
pub fn eventually_within<T>(deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if since.elapsed() > deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
