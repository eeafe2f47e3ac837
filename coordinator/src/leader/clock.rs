//! Lets time pass where nothing else happens: what takes effect at a moment (a price, the end of a
//! budget's period) does so with the first log entry after it, and this proposes one when none comes.

use super::LEADER;
use crate::driver::DriverHandle;
use coordinator_core::state::Command;
use std::time::Duration;

/// Prices and budgets speak of days; a reader of a report does not see half a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn run(driver: DriverHandle) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let now_us = crate::now_us();
        if !driver.read(|state| state.is_due(now_us)) {
            continue;
        }
        if let Err(error) = driver.propose(LEADER.to_owned(), None, Command::Tick).await {
            tracing::warn!(%error, "what is due waits for the next look");
        }
    }
}
