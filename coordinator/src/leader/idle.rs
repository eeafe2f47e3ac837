//! Watches whether live runs use their devices, and says so in the log where something changes or is due.
//!
//! Readings are judged in the core; this only carries them there. A new leader has no readings and so
//! begins every stretch anew: what it has not seen costs nobody a run.

use super::LEADER;
use crate::driver::DriverHandle;
use crate::sessions::Hub;
use coordinator_core::scheduler::IdleWatch;
use coordinator_core::state::Command;
use std::time::Duration;

/// Agents read their devices every ten seconds; simulated readings come twice a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(driver: DriverHandle, hub: Hub) {
    let mut watch = IdleWatch::default();
    let mut heard_us = 0;
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for (device, reading) in hub.readings_after(heard_us) {
            heard_us = heard_us.max(reading.at_us);
            watch.hear(device, reading);
        }
        let now_us = crate::now_us();
        // A clock that went back must not hide what is heard from now on.
        heard_us = heard_us.min(now_us);
        let uses = driver.read(|state| watch.look(state, now_us.max(state.time_us())));
        if uses.is_empty() {
            continue;
        }
        let command = Command::NoteUse { uses };
        if let Err(error) = driver.propose(LEADER.to_owned(), None, command).await {
            tracing::warn!(%error, "what devices do could not be noted; the next look tries again");
        }
    }
}
