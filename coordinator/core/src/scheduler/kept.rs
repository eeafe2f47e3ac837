//! What a wait has to do with devices that are kept: those kept for the run itself, or room that is
//! there and kept for another.

use super::{Reservation, Tier, Waiting, plan};
use crate::model::Run;
use crate::policy::fits_now;
use crate::state::State;

/// Names of nodes in one sentence at most.
const MOST_NAMED: usize = 5;

/// Adds to why a run waits what the plan made now keeps, and for whom.
pub fn explain(state: &State, run: &Run, mut waiting: Waiting) -> Waiting {
    if !matches!(
        waiting.tier,
        Tier::WaitingForCapacity | Tier::WaitingForGang | Tier::NextPlan
    ) {
        return waiting;
    }
    let now_us = state.time_us();
    let plan = plan(state, now_us);
    if plan.placements.iter().any(|placed| placed.run == run.id) {
        return waiting;
    }
    if let Some(own) = plan.reservations.iter().find(|kept| kept.run == run.id) {
        waiting
            .reasons
            .push(own_words(own, is_owed(state, run, now_us), now_us));
        return waiting;
    }
    let Some(kept) = plan
        .reservations
        .iter()
        .find(|kept| is_in_the_way(state, kept, run))
    else {
        return waiting;
    };
    let holder = state.runs().get(&kept.run);
    waiting
        .reasons
        .push(if holder.is_some_and(|run| is_owed(state, run, now_us)) {
            format!(
                "{} kept for {}, to which others give back what they borrow",
                nodes(kept),
                kept.run
            )
        } else {
            format!(
                "{} kept for {}, which has found no room for {} s",
                nodes(kept),
                kept.run,
                waited_s(state, kept, now_us)
            )
        });
    if waiting.tier == Tier::NextPlan {
        waiting.tier = Tier::WaitingForReserved;
        waiting.summary = format!("the room that is free is kept for {}", kept.run);
        waiting.hint = Some(match kept.longest_limit_ms(now_us) {
            Some(limit_ms) => format!(
                "what will be gone before {} starts may use it meanwhile: --time-limit {}s or less",
                kept.run,
                limit_ms / 1000
            ),
            None => format!(
                "it starts after {}: platform runs explain {}",
                kept.run, kept.run
            ),
        });
    }
    waiting
}

/// Whether devices are kept for a run before it has waited for long: it is owed what others borrow.
fn is_owed(state: &State, run: &Run, now_us: u64) -> bool {
    super::reserve::due_us(state, run) > now_us
}

fn own_words(own: &Reservation, is_owed: bool, now_us: u64) -> String {
    let nodes = nodes(own);
    match own.start_us {
        Some(start_us) if is_owed => format!(
            "{nodes} kept for it: it starts in {} s at the latest, as those who borrow there give way",
            start_us.saturating_sub(now_us).div_ceil(1_000_000)
        ),
        Some(start_us) => format!(
            "{nodes} kept for it: it starts in {} s at the latest, by the time limits of what runs there",
            start_us.saturating_sub(now_us).div_ceil(1_000_000)
        ),
        None => format!(
            "{nodes} kept for it: when it starts is not known, for some of what runs there has no time limit"
        ),
    }
}

/// `2 nodes (node-1, node-2) are`.
fn nodes(kept: &Reservation) -> String {
    let named: Vec<&str> = kept
        .members
        .iter()
        .take(MOST_NAMED)
        .map(|member| member.node.as_str())
        .collect();
    let count = kept.members.len();
    let more = if count > MOST_NAMED { ", ..." } else { "" };
    format!(
        "devices of {count} {} ({}{more}) are",
        if count == 1 { "node" } else { "nodes" },
        named.join(", ")
    )
}

fn waited_s(state: &State, kept: &Reservation, now_us: u64) -> u64 {
    state.runs().get(&kept.run).map_or(0, |run| {
        now_us.saturating_sub(super::reserve::waits_since_us(run)) / 1_000_000
    })
}

/// Whether a run would fit on a node of which devices are kept, were it not for that.
fn is_in_the_way(state: &State, kept: &Reservation, run: &Run) -> bool {
    let demand = state.policy().demand(&run.spec);
    kept.members
        .iter()
        .filter_map(|member| state.nodes().get(&member.node))
        .any(|node| {
            run.spec.pool.as_ref() == Some(&node.description.pool)
                && fits_now(node, &demand).is_ok()
        })
}
