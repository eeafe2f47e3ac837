//! Keeps who is first in line and has to wait, and why, whenever the reason is new. A loop of its own:
//! explaining waits is no part of a plan's time.

use super::LEADER;
use crate::driver::DriverHandle;
use coordinator_core::model::Decision;
use coordinator_core::scheduler::decisions::Fronts;
use coordinator_core::state::Command;
use std::time::Duration;

/// Between two looks: who waits for less was not kept waiting.
const GATHER: Duration = Duration::from_millis(500);

pub async fn run(driver: DriverHandle) {
    let mut applied = driver.watch();
    let mut fronts = Fronts::default();
    loop {
        applied.borrow_and_update();
        let decisions = driver.read(|state| {
            let now_us = crate::now_us().max(state.time_us());
            fronts.look(state, now_us, crate::VERSION)
        });
        keep(&driver, decisions).await;
        tokio::time::sleep(GATHER).await;
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps decisions in the log, on their way to the books. Where that fails they are lost and nothing
/// else is.
pub async fn keep(driver: &DriverHandle, decisions: Vec<Decision>) {
    if decisions.is_empty() {
        return;
    }
    let command = Command::KeepDecisions { decisions };
    if let Err(error) = driver.propose(LEADER.to_owned(), None, command).await {
        tracing::warn!(%error, "decisions could not be kept");
    }
}
