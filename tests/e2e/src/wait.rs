//! Waiting without guessing: a condition, a deadline, and what was waited for when it passes.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine of two cores; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

const PAUSE: Duration = Duration::from_millis(20);

/// Asks until `condition` answers, and panics naming `what` when it does not in time.
#[track_caller]
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition)
}

/// The same with a patience of one's own.
#[track_caller]
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = condition() {
            return answer;
        }
        assert!(
            started.elapsed() < patience,
            "waited {patience:?} in vain: {what}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// Says by name what this machine cannot run; `scripts/test` counts these lines.
pub fn skip(name: &str, why: &str) {
    println!("skipped: {name} ({why})");
}
