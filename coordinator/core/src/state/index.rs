//! What is derived from the runs (and by [`super::capacity`] from the nodes) and kept beside them, so that a plan never scans: the queues, which
//! runs are active, stopping or owed a place, and what each tenant holds. Not stored in a snapshot.

use super::State;
use crate::model::{Attempt, MemberPhase, PoolName, RunId, RunPhase, TenantName};

impl State {
    /// Makes everything derived anew, as after reading a snapshot.
    pub(super) fn reindex(&mut self) {
        self.recount_nodes();
        self.budgets.reindex();
        self.queues = super::Queues::default();
        self.retime();
        self.followers.clear();
        self.active.clear();
        self.stopping.clear();
        self.claimants.clear();
        self.used_milli.clear();
        self.stopping_milli.clear();
        let live: Vec<RunId> = self.live.iter().copied().collect();
        for id in live {
            let Some(run) = self.runs.get(&id).cloned() else {
                continue;
            };
            match run.phase {
                RunPhase::Held => {
                    self.hold_or_queue(id);
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
                        if attempt.stopping.is_some() {
                            self.note_stopping(id, &run.tenant, pool, held);
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
        if self.stopping.insert(id) {
            self.count_stopping(tenant, pool, held_milli, true);
        }
    }
}

/// Thousandths of devices that the members of an attempt which have not ended hold.
pub(super) fn held_milli(attempt: &Attempt) -> u64 {
    attempt
        .members
        .iter()
        .filter(|member| member.phase != MemberPhase::Ended)
        .flat_map(|member| &member.devices)
        .map(|grant| u64::from(grant.share_milli))
        .sum()
}
