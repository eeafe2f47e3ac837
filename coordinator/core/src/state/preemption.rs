//! Stopping runs for others. A plan proposes; each item is checked here again: who may take from
//! whom, whether there is anything to give, and whether it has been left alone long enough.

use super::meters::live_grants;
use super::{Event, Preemption, State};
use crate::model::{MemberDemand, Meter, Run, RunPhase, StopReason, TenantName};

impl State {
    pub(super) fn preempt_all(&mut self, preemptions: &[Preemption]) -> Vec<Event> {
        preemptions
            .iter()
            .flat_map(
                |preemption| match self.why_preempt(preemption, self.time_us) {
                    Ok(reason) => {
                        if let Some(claimant) = self.runs.get_mut(&preemption.claimant) {
                            claimant.has_claim = true;
                            self.claimants.insert(preemption.claimant);
                        }
                        self.stop_attempt(preemption.run, reason)
                    }
                    Err(reason) => vec![Event::PreemptionRefused {
                        run: preemption.run,
                        reason,
                    }],
                },
            )
            .collect()
    }

    fn why_preempt(&self, preemption: &Preemption, now_us: u64) -> Result<StopReason, String> {
        let find = |id| {
            self.runs
                .get(&id)
                .ok_or_else(|| format!("{id} does not exist"))
        };
        let (victim, claimant) = (find(preemption.run)?, find(preemption.claimant)?);
        if claimant.phase != RunPhase::Queued {
            return Err(format!("{} does not wait", claimant.id));
        }
        if let Some(refusal) = self.stopped_by(&claimant.tenant, &claimant.spec) {
            return Err(refusal.message);
        }
        if victim.phase != RunPhase::Active
            || victim.last_attempt().map(|attempt| attempt.number) != Some(preemption.attempt)
        {
            return Err(format!(
                "attempt {} of {} is not alive",
                preemption.attempt, victim.id
            ));
        }
        if self.exempt_until_us(victim) > now_us {
            return Err(format!(
                "{} has not run for its first {} s",
                victim.id,
                self.policy.minimum_run_ms / 1000
            ));
        }
        self.claim_on(claimant, victim)
            .ok_or_else(|| format!("{} may not take from {}", claimant.id, victim.id))
    }

    /// The run that another is stopped for, as long as it waits; `None`: that one leaves for nobody.
    pub fn waiting_claimant(&self, reason: &StopReason) -> Option<&Run> {
        self.runs
            .get(&reason.claimant()?)
            .filter(|claimant| claimant.phase == RunPhase::Queued)
    }

    /// Until when a run may not be preempted; 0 when nothing of it is alive.
    pub fn exempt_until_us(&self, run: &Run) -> u64 {
        run.held_since_us().map_or(0, |since_us| {
            since_us.saturating_add(self.policy.minimum_run_ms.saturating_mul(1000))
        })
    }

    /// By what right a waiting run may take the devices of a live one, as things are now: a higher
    /// priority within its tenant of a class that may, or a guarantee that the other tenant borrows. Time aside.
    pub fn claim_on(&self, claimant: &Run, victim: &Run) -> Option<StopReason> {
        self.ways(&claimant.spec)
            .iter()
            .find_map(|way| self.claim_beside(claimant, victim, way, |_, _| 0, |_, _| 0))
    }

    /// [`Self::claim_on`] for a run that is tried like this, when so much of each tenant is to be given back besides, and so much is
    /// claimed by it already.
    pub fn claim_beside(
        &self,
        claimant: &Run,
        victim: &Run,
        demand: &MemberDemand,
        given_milli: impl Fn(Meter<'_>, &TenantName) -> u64,
        claimed_milli: impl Fn(Meter<'_>, &TenantName) -> u64,
    ) -> Option<StopReason> {
        let stoppable = victim.spec.preemptible
            && victim.phase == RunPhase::Active
            && victim
                .last_attempt()
                .is_some_and(|attempt| attempt.stopping.is_none());
        if !stoppable || claimant.spec.pool != victim.spec.pool {
            return None;
        }
        if claimant.tenant == victim.tenant {
            let may_take =
                !claimant.spec.never_preempts && claimant.spec.priority > victim.spec.priority;
            return may_take.then_some(StopReason::Preempted {
                claimant: claimant.id,
            });
        }
        let holds_model = demand.only_model.as_deref().is_some_and(|model| {
            let attempt = victim.last_attempt();
            attempt.is_some_and(|attempt| live_grants(attempt).any(|grant| grant.model == model))
        });
        let borrower = (&victim.tenant, holds_model);
        self.reclaims_as(claimant, demand, borrower, given_milli, claimed_milli)
            .then_some(StopReason::Reclaimed {
                claimant: claimant.id,
            })
    }
}
