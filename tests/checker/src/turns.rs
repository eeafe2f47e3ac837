//! Order within a tenant: the higher priority first, then, where the pool says so, who was submitted first. Who
//! stands before and asks for no more is not passed by.

use crate::Violation;
use crate::placements::Placed;
use coordinator_core::model::{PoolName, PoolOrder, Run};
use coordinator_core::state::State;

/// Judges whether somebody was placed before a run that still waits and stands before them.
pub fn judge(state: &State, run: &Run, placed: &Placed<'_>, violations: &mut Vec<Violation>) {
    let Some(pool) = &run.spec.pool else { return };
    let by = placed.runs.keys().find(|id| {
        state.runs().get(id).is_some_and(|other| {
            !other.has_claim && stands_before(state, pool, run, other) && asks_no_more(run, other)
        })
    });
    if let Some(by) = by {
        violations.push(Violation::PassedOver {
            run: run.id,
            by: *by,
        });
    }
}

fn stands_before(state: &State, pool: &PoolName, run: &Run, other: &Run) -> bool {
    if run.tenant != other.tenant || Some(pool) != other.spec.pool.as_ref() {
        return false;
    }
    let order = state
        .pools()
        .get(pool)
        .map_or(PoolOrder::Fifo, |pool| pool.order);
    run.spec.priority > other.spec.priority
        || (run.spec.priority == other.spec.priority
            && order == PoolOrder::Fifo
            && run.id < other.id)
}

/// Whether wherever and whenever the other may start, the run might have instead.
fn asks_no_more(run: &Run, other: &Run) -> bool {
    let (a, b) = (&run.spec, &other.spec);
    let gpus = |spec: &coordinator_core::model::WorkloadSpec| match spec.gpu_share_milli {
        Some(_) => 1,
        None => spec.gpus.unwrap_or(0),
    };
    // What it may be given beside reservations depends on how long it may run.
    let leaves_by_then = match (a.time_limit_ms, b.time_limit_ms) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(a), Some(b)) => a <= b,
    };
    (&a.gpu_model, &a.model, a.preemptible, a.image.is_some())
        == (&b.gpu_model, &b.model, b.preemptible, b.image.is_some())
        && (a.gpu_share_milli.is_some(), a.gpu_memory_mib)
            == (b.gpu_share_milli.is_some(), b.gpu_memory_mib)
        && a.gpu_share_milli <= b.gpu_share_milli
        && gpus(a) <= gpus(b)
        && a.nodes <= b.nodes
        && a.cpu_milli.unwrap_or(0) <= b.cpu_milli.unwrap_or(0)
        && a.memory_mib.unwrap_or(0) <= b.memory_mib.unwrap_or(0)
        && leaves_by_then
}
