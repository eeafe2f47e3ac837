//! What a plan promises by the devices that it keeps: who they are kept for can start there by then, and
//! nobody placed there now stays for longer.
//!
//! Ends are counted anew, from time limits: what runs beyond its limit is given a minute to leave, and what has
//! not begun a minute to do so. For a run within its guarantee others may give way sooner: whoever could at all,
//! once their first while is over and with half a minute to save what they have. Whether each of them owes it
//! is judged when it is stopped.

use crate::Violation;
use crate::books::Books;
use crate::room::Ask;
use coordinator_core::model::{DeviceDescription, Node, Run, RunId, RunPhase};
use coordinator_core::scheduler::{Plan, Reservation};
use coordinator_core::state::{MemberPlacement, State};
use std::collections::BTreeSet;

/// What beginning may take, and what ending may, in microseconds.
const A_MINUTE_US: u64 = 60_000_000;

/// What who gives way has to save what it has, in microseconds.
const HALF_A_MINUTE_US: u64 = 30_000_000;

/// Judges every reservation, `books` with the plan's placements made.
pub fn judge(
    state: &State,
    plan: &Plan,
    books: &Books<'_>,
    now_us: u64,
    violations: &mut Vec<Violation>,
) {
    for (position, reservation) in plan.reservations.iter().enumerate() {
        let Some(run) = state.runs().get(&reservation.run) else {
            violations.push(Violation::NotWaiting {
                run: reservation.run,
            });
            continue;
        };
        judge_form(run, reservation, violations);
        judge_start(
            state,
            run,
            reservation,
            &plan.reservations[..position],
            books,
            now_us,
            violations,
        );
        judge_guests(state, plan, run, reservation, now_us, violations);
    }
}

fn judge_form(run: &Run, reservation: &Reservation, violations: &mut Vec<Violation>) {
    let nodes: BTreeSet<_> = reservation
        .members
        .iter()
        .map(|member| &member.node)
        .collect();
    if run.phase != RunPhase::Queued {
        violations.push(Violation::NotWaiting { run: run.id });
    }
    if nodes.len() != run.spec.nodes as usize || nodes.len() != reservation.members.len() {
        violations.push(Violation::IncompleteGang {
            run: run.id,
            planned: nodes.len(),
            asked: run.spec.nodes,
        });
    }
}

/// Where all who have a limit keep it, and nobody else comes, every member fits at the promised start.
fn judge_start(
    state: &State,
    run: &Run,
    reservation: &Reservation,
    before: &[Reservation],
    books: &Books<'_>,
    now_us: u64,
    violations: &mut Vec<Violation>,
) {
    let Some(start_us) = reservation.start_us else {
        return;
    };
    let ask = Ask::of(run, state.policy());
    let gone: Vec<RunId> = state
        .runs()
        .values()
        .filter(|other| {
            let gives_way_us = gives_way_us(state, run, other, now_us);
            let gives_way_us = gives_way_us.filter(|_| reservation.guaranteed);
            let ends = [latest_end_us(other, now_us), gives_way_us];
            ends.into_iter().flatten().any(|end_us| end_us <= start_us)
        })
        .map(|other| other.id)
        .collect();
    let mut then = books.without(&gone);
    // Who has devices kept before it is there from its own start to its own end.
    for other in before {
        let Some(holder) = state.runs().get(&other.run) else {
            continue;
        };
        let end_us = other
            .start_us
            .zip(limit_us(holder))
            .map(|(start_us, limit_us)| start_us.saturating_add(limit_us + A_MINUTE_US));
        if end_us.is_some_and(|end_us| end_us <= start_us) {
            continue;
        }
        let its_ask = Ask::of(holder, state.policy());
        for member in &other.members {
            if let Some(node) = state.nodes().get(&member.node) {
                let holding = its_ask.holding(holder, devices(node, member));
                then.add(member.node.clone(), holding);
            }
        }
    }
    for member in &reservation.members {
        let fits = state.nodes().get(&member.node).is_some_and(|node| {
            let devices = devices(node, member);
            ask.fits(node, &then)
                && devices.len() as u64 == ask.devices()
                && devices
                    .iter()
                    .all(|device| ask.fits_device(&member.node, device, &then))
        });
        if !fits {
            violations.push(Violation::PromiseNotKept {
                run: run.id,
                node: member.node.clone(),
                start_us,
            });
        }
    }
}

/// Who is placed now on devices that are kept leaves in time.
fn judge_guests(
    state: &State,
    plan: &Plan,
    run: &Run,
    reservation: &Reservation,
    now_us: u64,
    violations: &mut Vec<Violation>,
) {
    let Some(start_us) = reservation.start_us else {
        return;
    };
    let until_us = start_us.max(reservation.backfill_until_us);
    let ask = Ask::of(run, state.policy());
    for placement in &plan.placements {
        let Some(guest) = state.runs().get(&placement.run) else {
            continue;
        };
        let end_us = limit_us(guest).map(|limit_us| now_us + A_MINUTE_US + limit_us);
        if end_us.is_some_and(|end_us| end_us <= until_us) {
            continue;
        }
        let its_ask = Ask::of(guest, state.policy());
        let is_in_the_way = placement.members.iter().any(|theirs| {
            let kept = reservation
                .members
                .iter()
                .find(|kept| kept.node == theirs.node);
            let node = state.nodes().get(&theirs.node);
            kept.zip(node).is_some_and(|(kept, node)| {
                devices(node, theirs)
                    .iter()
                    .filter(|device| kept.devices.contains(&device.id))
                    .any(|device| {
                        its_ask.share_milli() + ask.share_milli() > 1000
                            || its_ask.memory_mib(device) + ask.memory_mib(device)
                                > device.memory_mib
                    })
            })
        });
        if is_in_the_way {
            violations.push(Violation::DelaysReserved {
                run: run.id,
                by: guest.id,
                end_us,
                until_us,
            });
        }
    }
}

fn devices<'n>(node: &'n Node, member: &MemberPlacement) -> Vec<&'n DeviceDescription> {
    let devices = node.description.devices.iter();
    devices
        .filter(|device| member.devices.contains(&device.id))
        .collect()
}

fn limit_us(run: &Run) -> Option<u64> {
    run.spec
        .time_limit_ms
        .map(|limit_ms| limit_ms.saturating_mul(1000))
}

/// When a run will have left at the latest that holds something now, or that the plan places now; `None`:
/// nobody knows.
fn latest_end_us(run: &Run, now_us: u64) -> Option<u64> {
    let attempt = run
        .attempts
        .last()
        .filter(|_| run.phase == RunPhase::Active);
    let Some(attempt) = attempt else {
        return limit_us(run).map(|limit_us| now_us + A_MINUTE_US + limit_us);
    };
    if attempt.stopping.is_some() {
        return Some(now_us + A_MINUTE_US);
    }
    let limit_us = limit_us(run)?;
    Some(match attempt.started_us {
        Some(started_us) => started_us + limit_us + A_MINUTE_US,
        None => now_us.max(attempt.placed_us + A_MINUTE_US) + limit_us,
    })
}

/// When one that may be stopped for a run at all will have left if it is; `None`: it may not.
fn gives_way_us(state: &State, run: &Run, other: &Run, now_us: u64) -> Option<u64> {
    let attempt = other
        .attempts
        .last()
        .filter(|_| other.phase == RunPhase::Active)?;
    let is_below = other.tenant != run.tenant || other.spec.priority < run.spec.priority;
    let first_while_us = state.policy().minimum_run_ms.saturating_mul(1000);
    (other.spec.preemptible && is_below)
        .then(|| now_us.max(attempt.placed_us.saturating_add(first_while_us)) + HALF_A_MINUTE_US)
}
