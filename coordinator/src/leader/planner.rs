//! Plans whenever the state has changed, or the plan said to look again, and proposes what it says.
//! Before that it lets the time pass for what is due by it alone: runs held back, start deadlines.

use super::LEADER;
use super::decisions::keep;
use crate::driver::DriverHandle;
use coordinator_core::scheduler::{Plan, Planner, decisions};
use coordinator_core::state::{Command, Event};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// After a plan of which nothing was accepted: a clock that went back, or a change that came between.
const REFUSED_AGAIN_US: u64 = 100_000;

pub async fn run(driver: DriverHandle) {
    let mut applied = driver.watch();
    let mut planner = Planner::default();
    loop {
        applied.borrow_and_update();
        let due_us = pass_time(&driver).await;
        let started = Instant::now();
        let now_us = crate::now_us();
        let (plan, mut decisions) = driver.read(|state| {
            let now_us = now_us.max(state.time_us());
            let plan = planner.plan(state, now_us);
            let decisions = decisions::of_plan(state, now_us, &plan, crate::VERSION);
            (plan, decisions)
        });
        let Plan {
            placements,
            preemptions,
            again_at_us,
            ..
        } = plan;
        metrics::histogram!("coordinator_plan_seconds").record(started.elapsed().as_secs_f64());
        // What is due and has not come to pass is not asked for at once again.
        let again_at_us = again_at_us
            .into_iter()
            .filter(|at_us| *at_us > now_us)
            .chain(due_us)
            .min();
        let planned = (placements.len(), preemptions.len());
        let mut commands = Vec::new();
        if !placements.is_empty() {
            commands.push(Command::Place { placements });
        }
        if !preemptions.is_empty() {
            commands.push(Command::Preempt { preemptions });
        }
        if commands.is_empty() {
            if !changed_or_due(&mut applied, now_us, again_at_us).await {
                return;
            }
            continue;
        }
        let mut changed_something = false;
        for command in commands {
            match driver.propose(LEADER.to_owned(), None, command).await {
                Ok(applied) => {
                    changed_something |= applied.events.iter().any(Event::is_change);
                    for event in applied.events.iter().filter(|event| !event.is_change()) {
                        tracing::warn!(?event, "a fresh plan was refused in part");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, ?planned, "a plan could not be proposed; the next change plans anew");
                    break;
                }
            }
        }
        driver.read(|state| decisions.retain(|made| decisions::came_to_pass(state, made)));
        // The next plan does not wait for the books.
        let books = driver.clone();
        tokio::spawn(async move { keep(&books, decisions).await });
        tracing::debug!(placed = planned.0, preempted = planned.1, "plan applied");
        // A plan that changed nothing would be made again at once, and again: one log entry each.
        if !changed_something {
            applied.borrow_and_update();
            if !changed_or_due(&mut applied, now_us, Some(now_us + REFUSED_AGAIN_US)).await {
                return;
            }
        }
    }
}

/// Lets the state know the time when something is due by it, and says when the next such thing is.
async fn pass_time(driver: &DriverHandle) -> Option<u64> {
    let now_us = crate::now_us();
    let due_us = driver.read(|state| state.next_due_us())?;
    if due_us > now_us {
        return Some(due_us);
    }
    if let Err(error) = driver.propose(LEADER.to_owned(), None, Command::Tick).await {
        tracing::warn!(%error, "the time could not be passed on; the next look tries again");
    }
    // A clock that went back after this look would make one entry after another.
    let next_us = driver.read(|state| state.next_due_us())?;
    Some(next_us.max(now_us + REFUSED_AGAIN_US))
}

/// Waits for the next change, or for the time at which the plan would say something else. False when
/// the driver is gone.
async fn changed_or_due(
    applied: &mut watch::Receiver<u64>,
    now_us: u64,
    again_at_us: Option<u64>,
) -> bool {
    let Some(at_us) = again_at_us else {
        return applied.changed().await.is_ok();
    };
    tokio::select! {
        changed = applied.changed() => changed.is_ok(),
        () = tokio::time::sleep(Duration::from_micros(at_us.saturating_sub(now_us))) => true,
    }
}
