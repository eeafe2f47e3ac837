//! What a plan leaves undone: nothing that may start and fits, nobody owed put behind one that
//! borrows, no room taken that is kept.

use crate::books::Books;
use crate::placements::{Placed, why_not};
use crate::room::Ask;
use crate::tree::Tree;
use crate::{Claims, Violation, turns};
use coordinator_core::model::{NodeName, PoolName, Run, RunId, RunPhase, TenantName};
use coordinator_core::scheduler::{MOST_LINES_REFUSED, MOST_PLACEMENTS, Plan};
use coordinator_core::state::State;
use std::collections::BTreeSet;

/// Judges what still waits after the plan.
pub fn judge(
    state: &State,
    plan: &Plan,
    placed: &Placed<'_>,
    claims: &Claims<'_>,
    violations: &mut Vec<Violation>,
) {
    judge_kept_room(state, placed, claims, violations);
    // It was cut at its bound: the next one goes on.
    if plan.placements.len() >= MOST_PLACEMENTS {
        return;
    }
    for run in state.runs().values() {
        let waits = may_start(state, run) && !placed.runs.contains_key(&run.id);
        let Some(pool) = run.spec.pool.as_ref().filter(|_| waits) else {
            continue;
        };
        turns::judge(state, run, placed, violations);
        if shapes_waiting(state, run, pool) < MOST_LINES_REFUSED {
            let waiting = (state, plan, placed, claims);
            let ways = Ask::ways(state, run);
            let mut found = ways
                .iter()
                .filter_map(|ask| judge_waiting(waiting, (run, pool), ask));
            violations.extend(found.next());
        }
    }
}

/// Whether a run waits, and nothing holds it back.
pub fn may_start(state: &State, run: &Run) -> bool {
    run.phase == RunPhase::Queued && !crate::is_held(state, run)
}

/// A run others are stopping for finds as much room as before, whoever started meanwhile; only others
/// that are waited for may have come before it.
fn judge_kept_room(
    state: &State,
    placed: &Placed<'_>,
    claims: &Claims<'_>,
    violations: &mut Vec<Violation>,
) {
    let others: Vec<RunId> = placed
        .runs
        .keys()
        .filter(|run| !state.runs().get(run).is_some_and(|run| run.has_claim))
        .copied()
        .collect();
    let without = placed.books.without(&others);
    for (claimant, victims) in claims.awaited.values() {
        if placed.runs.contains_key(&claimant.id) {
            continue;
        }
        let ways = Ask::ways(state, claimant);
        let gone: BTreeSet<RunId> = victims.union(&claims.leaving).copied().collect();
        let most = |books: &Books<'_>| {
            let fitting = ways.iter().map(|ask| ask.fitting(state, books).len());
            fitting.max().unwrap_or(0)
        };
        let before = most(&without.without(&gone));
        let after = most(&placed.books.without(&gone));
        let members = claimant.spec.nodes;
        if before >= members as usize && after < members as usize {
            violations.push(Violation::TakesKeptRoom {
                claimant: claimant.id,
                before,
                after,
                members,
            });
        }
    }
}

/// What makes two runs of a tenant equal but for their priority.
fn alike(one: &Run, other: &Run) -> bool {
    let (a, b) = (&one.spec, &other.spec);
    one.tenant == other.tenant
        && (
            &a.pool,
            a.gpus,
            a.gpu_share_milli,
            a.gpu_memory_mib,
            &a.gpu_model,
        ) == (
            &b.pool,
            b.gpus,
            b.gpu_share_milli,
            b.gpu_memory_mib,
            &b.gpu_model,
        )
        && a.time_limit_ms == b.time_limit_ms
        && (a.nodes, a.cpu_milli, a.memory_mib, a.preemptible, &a.model)
            == (b.nodes, b.cpu_milli, b.memory_mib, b.preemptible, &b.model)
        && a.image.is_some() == b.image.is_some()
}

/// How many different shapes a tenant has waiting: at a bound of them a pass gives up.
fn shapes_waiting(state: &State, run: &Run, pool: &PoolName) -> usize {
    let mut distinct: Vec<&Run> = Vec::new();
    for other in state.runs().values() {
        if may_start(state, other)
            && other.tenant == run.tenant
            && other.spec.pool.as_ref() == Some(pool)
            && !distinct.iter().any(|known| alike(known, other))
        {
            distinct.push(other);
        }
    }
    distinct.len()
}

/// Nodes with devices that the plan keeps for others than this run.
pub fn reserved_from<'p>(run: &Run, plan: &'p Plan) -> BTreeSet<&'p NodeName> {
    plan.reservations
        .iter()
        .filter(|reservation| reservation.run != run.id)
        .flat_map(|reservation| &reservation.members)
        .map(|member| &member.node)
        .collect()
}

/// What is wrong with it that a run waits which might be tried like this.
fn judge_waiting(
    (state, plan, placed, claims): (&State, &Plan, &Placed<'_>, &Claims<'_>),
    (run, pool): (&Run, &PoolName),
    ask: &Ask<'_>,
) -> Option<Violation> {
    let tree = Tree::new(state.tenants(), pool, None);
    let awaited: Vec<&Run> = claims
        .awaited
        .values()
        .map(|(claimant, _)| *claimant)
        .filter(|claimant| {
            claimant.spec.pool.as_ref() == Some(pool)
                && claimant.id != run.id
                && !placed.runs.contains_key(&claimant.id)
        })
        .collect();
    let granted =
        |model: Option<&str>, name: &TenantName| placed.books.used_milli(name, pool, model);
    // Who awaits devices counts on each model that it may come to hold.
    let used = |model: Option<&str>, name: &TenantName| {
        let more = awaited
            .iter()
            .filter(|claimant| tree.is_below(&claimant.tenant, name))
            .map(|claimant| Ask::of(claimant, state.policy()))
            .filter(|ask| model.is_none_or(|model| ask.accepts_model(model)))
            .map(|ask| ask.total_milli());
        granted(model, name) + more.sum::<u64>()
    };
    let reserved = reserved_from(run, plan);
    // A claimant may be kept any node where one of its members could go, and no more than it has.
    let kept: usize = awaited
        .iter()
        .map(|claimant| claimant.spec.nodes as usize)
        .sum();
    let may_start = why_not(state, run, ask, &placed.books, &used, &granted);
    let room = |books: &Books<'_>| {
        let mut fitting = ask.fitting(state, books);
        fitting.retain(|node| !reserved.contains(node));
        fitting.len().saturating_sub(kept)
    };
    let members = run.spec.nodes;
    match may_start {
        Err(_) => None,
        Ok(_) if room(&placed.books) >= members as usize => Some(Violation::IdleWhileItFits {
            run: run.id,
            fitting: room(&placed.books),
            members,
        }),
        Ok(true) => None,
        Ok(false) => {
            let borrowing: BTreeSet<RunId> = placed
                .runs
                .iter()
                .filter(|(id, borrows)| {
                    let claims = state.runs().get(id).is_some_and(|run| run.has_claim);
                    **borrows && !claims
                })
                .map(|(id, _)| *id)
                .collect();
            let fitting = room(&placed.books.without(&borrowing));
            let is_passed = !borrowing.is_empty() && fitting >= members as usize;
            is_passed.then_some(Violation::BorrowedBefore {
                run: run.id,
                fitting,
                members,
            })
        }
    }
}
