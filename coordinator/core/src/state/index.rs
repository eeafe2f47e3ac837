//! What is derived from the runs (and by [`super::capacity`] from the nodes) and kept beside them, so that a plan
//! never scans: the queues, which runs are active, stopping or owed a place, what each tenant holds, and who
//! ran what last. Not stored in a snapshot.

use super::State;
use super::meters::live_grants;
use crate::model::{Attempt, DeviceGrant, PoolName, Run, RunId, RunPhase, Submission, TenantName};
use std::collections::{BTreeMap, BTreeSet};

/// Runs that may be preempted and that nobody has told to stop, by pool and tenant, each with its
/// priority before its id: the lowest first.
pub type Stoppable = BTreeMap<PoolName, BTreeMap<TenantName, BTreeSet<(i32, RunId)>>>;

/// A run has started, or has been told to stop or ended.
pub(super) fn note_stoppable(stoppable: &mut Stoppable, run: &Run, is_added: bool) {
    let Some(pool) = run.spec.pool.as_ref().filter(|_| run.spec.preemptible) else {
        return;
    };
    let entry = (run.spec.priority, run.id);
    if is_added {
        let tenants = stoppable.entry(pool.clone()).or_default();
        tenants.entry(run.tenant.clone()).or_default().insert(entry);
        return;
    }
    let Some(tenants) = stoppable.get_mut(pool) else {
        return;
    };
    if let Some(runs) = tenants.get_mut(&run.tenant) {
        runs.remove(&entry);
        if runs.is_empty() {
            tenants.remove(&run.tenant);
        }
    }
    if tenants.is_empty() {
        stoppable.remove(pool);
    }
}

impl State {
    /// Makes everything derived anew, as after reading a snapshot.
    pub(super) fn reindex(&mut self) {
        self.recount_nodes();
        self.budgets.reindex();
        self.queues = super::Queues::default();
        self.retime();
        self.followers.clear();
        self.active.clear();
        self.stoppable.clear();
        self.stopping.clear();
        self.claimants.clear();
        self.used_milli.clear();
        self.stopping_milli.clear();
        self.model_use = super::meters::ModelUse::default();
        self.placed_last.clear();
        let all: Vec<RunId> = self.runs.keys().copied().collect();
        for id in all {
            self.note_placed(id);
        }
        self.reindex_arrays();
        let live: Vec<RunId> = self.live.iter().copied().collect();
        for id in live {
            let Some(run) = self.runs.get(&id).cloned() else {
                continue;
            };
            match run.phase {
                RunPhase::Held => {
                    self.note_start_deadline(id);
                    // Elements of an array are filed with it.
                    if run.element.is_none() {
                        self.file_under_awaited(Submission::Run(id), &run.spec);
                    }
                }
                RunPhase::Queued => {
                    self.enqueue(id);
                    if run.has_claim {
                        self.claimants.insert(id);
                    }
                }
                RunPhase::Active => {
                    self.active.insert(id);
                    if let (Some(attempt), Some(pool)) = (run.last_attempt(), &run.spec.pool) {
                        let held = held_milli(attempt);
                        self.count_use(&run.tenant, pool, held, true);
                        self.count_models(&run.tenant, pool, live_grants(attempt), true);
                        if attempt.stopping.is_some() {
                            self.note_stopping(id, &run.tenant, pool, held);
                        } else {
                            note_stoppable(&mut self.stoppable, &run, true);
                        }
                    }
                }
                RunPhase::Ended { .. } => {}
            }
        }
        self.recount_memory();
    }

    /// A live attempt has been told to stop: what it holds is as good as given back.
    pub(super) fn note_stopping(
        &mut self,
        id: RunId,
        tenant: &TenantName,
        pool: &PoolName,
        held_milli: u64,
    ) {
        if let Some(run) = self.runs.get(&id) {
            note_stoppable(&mut self.stoppable, run, false);
        }
        if self.stopping.insert(id) {
            self.count_stopping(tenant, pool, held_milli, true);
            if self.tenants.is_metered_by_model(pool)
                && let Some(attempt) = self.runs.get(&id).and_then(|run| run.last_attempt())
            {
                let grants: Vec<DeviceGrant> = live_grants(attempt).cloned().collect();
                self.count_models_stopping(tenant, pool, &grants, true);
            }
        }
    }
}

/// Thousandths of devices that the members of an attempt which have not ended hold.
pub(super) fn held_milli(attempt: &Attempt) -> u64 {
    live_grants(attempt)
        .map(|grant| u64::from(grant.share_milli))
        .sum()
}
