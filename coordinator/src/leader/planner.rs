//! Plans whenever the state has changed, and proposes what the plan says.

use super::LEADER;
use crate::driver::DriverHandle;
use coordinator_core::scheduler;
use coordinator_core::state::Command;
use std::time::Instant;

pub async fn run(driver: DriverHandle) {
    let mut applied = driver.watch();
    loop {
        applied.borrow_and_update();
        let started = Instant::now();
        let placements = driver.read(scheduler::plan);
        metrics::histogram!("coordinator_plan_seconds").record(started.elapsed().as_secs_f64());
        if placements.is_empty() {
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        }
        let planned = placements.len();
        match driver
            .propose(LEADER.to_owned(), None, Command::Place { placements })
            .await
        {
            Ok(applied) => tracing::debug!(planned, index = applied.index, "plan applied"),
            Err(error) => {
                tracing::warn!(%error, planned, "a plan could not be proposed; the next change plans anew");
                if applied.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}
