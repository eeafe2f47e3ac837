//! Exports the outbox to the tracking store, in order, each record once, and then lets the state
//! forget it. With the store down records wait; scheduling goes on.

use super::LEADER;
use crate::driver::DriverHandle;
use coordinator_core::model::OutboxRecord;
use coordinator_core::state::Command;
use coordinator_tracking::Tracking;
use std::time::Duration;

/// Records in one transaction.
const BATCH: usize = 4_096;
/// Between two exports, so that many small changes become one transaction.
const GATHER: Duration = Duration::from_millis(50);
/// After the store failed.
const BACK_OFF: Duration = Duration::from_secs(2);

pub async fn run(driver: DriverHandle, tracking: Tracking) {
    let mut applied = driver.watch();
    loop {
        applied.borrow_and_update();
        let (batch, waiting): (Vec<OutboxRecord>, usize) = driver.read(|state| {
            (
                state.outbox().iter().take(BATCH).cloned().collect(),
                state.outbox().len(),
            )
        });
        metrics::gauge!("coordinator_outbox_records").set(waiting as f64);
        if batch.is_empty() {
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        }
        match tracking.export(&batch).await {
            Ok(through) => {
                let command = Command::AcknowledgeOutbox { through };
                if let Err(error) = driver.propose(LEADER.to_owned(), None, command).await {
                    tracing::warn!(%error, "the outbox could not be acknowledged; exporting again is harmless");
                }
                tokio::time::sleep(GATHER).await;
            }
            Err(error) => {
                tracing::warn!(%error, waiting, "the tracking store does not take the outbox; records wait");
                tokio::time::sleep(BACK_OFF).await;
            }
        }
    }
}
