//! What only a leader does: plan, tell agents, expire leases, evict, export, let time pass, watch
//! for devices that idle.
//!
//! Each is a loop of its own that reads the state, proposes, and holds nothing that another leader
//! would miss.

mod clock;
pub mod decisions;
pub mod dispatch;
mod exporter;
mod idle;
mod leases;
mod planner;

use crate::driver::DriverHandle;
use crate::sessions::Hub;
use coordinator_tracking::Tracking;
use futures::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Actor of what the leader does by itself.
pub const LEADER: &str = "leader";

/// Starts every loop; they end with `shutdown`.
pub fn start(
    driver: &DriverHandle,
    hub: &Hub,
    tracking: &Tracking,
    lease: Duration,
    shutdown: &CancellationToken,
) -> JoinSet<()> {
    let mut loops = JoinSet::new();
    loops.spawn(until(shutdown.clone(), planner::run(driver.clone())));
    loops.spawn(until(
        shutdown.clone(),
        dispatch::run(driver.clone(), hub.clone()),
    ));
    loops.spawn(until(
        shutdown.clone(),
        leases::run(driver.clone(), hub.clone(), lease),
    ));
    loops.spawn(until(
        shutdown.clone(),
        exporter::run(driver.clone(), tracking.clone()),
    ));
    loops.spawn(until(shutdown.clone(), clock::run(driver.clone())));
    loops.spawn(until(shutdown.clone(), decisions::run(driver.clone())));
    loops.spawn(until(
        shutdown.clone(),
        idle::run(driver.clone(), hub.clone()),
    ));
    loops
}

async fn until(shutdown: CancellationToken, work: impl Future<Output = ()>) {
    let work = AssertUnwindSafe(work).catch_unwind();
    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = work => if ended.is_err() {
            // A coordinator that answers and places nothing looks healthy and is not. What is
            // acknowledged is on disk, so the next start goes on from here.
            tracing::error!("a leader's loop panicked: the coordinator stops");
            eprintln!("error: the coordinator stops: one of its loops panicked");
            // EX_SOFTWARE of sysexits.h.
            std::process::exit(70);
        }
    }
}
