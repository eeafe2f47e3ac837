//! What a period has seen of a run, as far as a replay of the period needs to know it: what it asked
//! for, when, and how long it held what it was given.

use super::{
    ArrayId, LedgerRow, Run, RunId, RunOutcome, RunPhase, StopReason, TenantName, UserName,
    WorkloadSpec,
};
use std::collections::BTreeMap;

/// A run of a period that is over, or goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct PastRun {
    /// Id.
    pub id: RunId,
    /// What it asked for, resolved; without what it executed, which no scheduler looks at and which
    /// may be nobody else's business.
    pub spec: WorkloadSpec,
    /// Tenant that is charged.
    pub tenant: TenantName,
    /// Who submitted it.
    pub user: UserName,
    /// When the submit was recorded.
    pub submitted_us: u64,
    /// The array that it is an element of.
    pub array: Option<ArrayId>,
    /// When it held devices, first to last.
    pub spells: Vec<Spell>,
    /// How and when it ended; absent: it has not.
    pub end: Option<(RunOutcome, u64)>,
    /// What of it was held and charged within the period.
    pub charge: Charge,
}

/// What was held, and what it cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charge {
    /// Thousandths of devices times microseconds.
    pub gpu_milli_us: u128,
    /// Millionths of the currency.
    pub cost_micro: u128,
}

impl Charge {
    /// Adds the part of a ledger row that lies within a period.
    pub fn add(&mut self, row: &LedgerRow, since_us: u64, until_us: u64) {
        if let Some(clipped) = row.clipped(since_us, until_us) {
            self.gpu_milli_us = self.gpu_milli_us.saturating_add(clipped.gpu_milli_us());
            self.cost_micro = self
                .cost_micro
                .saturating_add(u128::from(clipped.cost_micro()));
        }
    }
}

/// A time in which a run held devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    /// When they were granted.
    pub placed_us: u64,
    /// When the last was released; absent: it holds them.
    pub ended_us: Option<u64>,
    /// It was stopped for another run.
    pub preempted: bool,
}

impl PastRun {
    /// What a run of a state has been until now, of whose charge nothing is known:
    /// [`crate::state::State::past_run`] says that too.
    pub fn of(run: &Run) -> Self {
        let spells = run.attempts.iter().map(|attempt| Spell {
            placed_us: attempt.placed_us,
            ended_us: attempt.ended_us,
            preempted: matches!(
                attempt.stopping,
                Some(StopReason::Preempted { .. } | StopReason::Reclaimed { .. })
            ),
        });
        Self {
            id: run.id,
            spec: WorkloadSpec {
                command: vec!["replayed".to_owned()],
                environment: BTreeMap::new(),
                ..WorkloadSpec::clone(&run.spec)
            },
            tenant: run.tenant.clone(),
            user: run.user.clone(),
            submitted_us: run.submitted_us,
            array: run.element.as_ref().map(|element| element.array),
            spells: spells.collect(),
            end: match &run.phase {
                RunPhase::Ended { outcome, at_us } => Some((outcome.clone(), *at_us)),
                RunPhase::Held | RunPhase::Queued | RunPhase::Active => None,
            },
            charge: Charge::default(),
        }
    }

    /// How long it has waited for devices until `until_us`: from its submission, and again after each
    /// time that it was stopped for another run. What it waits after a failure is of its own making.
    pub fn waited_us(&self, until_us: u64) -> u64 {
        let mut waited_us = 0_u64;
        let mut since_us = Some(self.submitted_us);
        for spell in &self.spells {
            if let Some(since_us) = since_us {
                waited_us += spell.placed_us.min(until_us).saturating_sub(since_us);
            }
            since_us = spell.ended_us.filter(|_| spell.preempted);
        }
        let ended_us = self
            .end
            .as_ref()
            .map_or(until_us, |(_, at_us)| (*at_us).min(until_us));
        waited_us + since_us.map_or(0, |since_us| ended_us.saturating_sub(since_us))
    }

    /// How often it was stopped for another run.
    pub fn preemptions(&self) -> usize {
        self.spells.iter().filter(|spell| spell.preempted).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::spec;

    #[test]
    fn waiting_counts_until_the_first_devices_and_again_after_each_preemption() {
        let spell = |placed_us, ended_us, preempted| Spell {
            placed_us,
            ended_us,
            preempted,
        };
        let end = |at_us| Some((RunOutcome::Succeeded, at_us));
        for (spells, end, waited_us) in [
            (vec![], None, 90),
            (vec![], end(30), 20),
            (vec![spell(15, None, false)], None, 5),
            (vec![spell(15, Some(20), true)], None, 85),
            (
                vec![spell(15, Some(20), true), spell(50, Some(60), false)],
                end(60),
                35,
            ),
            // A failure's own waiting is not the scheduler's.
            (
                vec![spell(15, Some(20), false), spell(50, Some(60), false)],
                end(60),
                5,
            ),
            (vec![spell(200, None, false)], None, 90),
        ] {
            let run = PastRun {
                id: RunId(1),
                spec: spec(),
                tenant: TenantName::default_tenant(),
                user: UserName::new("ana").expect("a good name"),
                submitted_us: 10,
                array: None,
                spells,
                end,
                charge: Charge::default(),
            };
            assert_eq!(run.waited_us(100), waited_us, "{:?}", run.spells);
        }
    }
}
