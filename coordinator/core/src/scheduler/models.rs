//! What a plan counts of single device models, in a pool where anybody has a line for one. In all others
//! it is empty, and asked once for each look at a run.

use super::fairness::PlannedUse;
use crate::model::{MemberDemand, Meter, PoolName, Run, TenantName};
use crate::state::{State, ways_among};
use std::collections::{BTreeMap, BTreeSet};

/// The models of a pool, and what tenants hold of those with lines.
#[derive(Default)]
pub struct Models<'a> {
    present: BTreeSet<&'a str>,
    metered: BTreeMap<&'a str, Metered<'a>>,
}

struct Metered<'a> {
    meter: Meter<'a>,
    planned: PlannedUse<'a>,
    /// Thousandths that the plan has placed.
    planned_milli: u64,
}

impl<'a> Models<'a> {
    /// As the state has it; empty where no line of the pool is for a single model.
    pub fn of(state: &'a State, pool: &'a PoolName) -> Self {
        if !state.tenants().is_metered_by_model(pool) {
            return Self::default();
        }
        let metered = state.tenants().metered_models(pool).map(|model| {
            let meter = Meter::of_model(pool, model);
            let metered = Metered {
                meter,
                planned: PlannedUse::new(state, meter),
                planned_milli: 0,
            };
            (model, metered)
        });
        Self {
            present: state.models_of(pool),
            metered: metered.collect(),
        }
    }

    /// Whether any line is for a single model.
    pub fn are_metered(&self) -> bool {
        !self.metered.is_empty()
    }

    /// What a demand is tried as, one after another.
    pub fn ways(&self, demand: MemberDemand) -> Vec<MemberDemand> {
        if self.are_metered() && demand.devices > 0 {
            ways_among(&self.present, demand)
        } else {
            vec![demand]
        }
    }

    /// The meter of the model to which a demand is narrowed, if anybody has a line there; what is
    /// held by it, and how much the plan has placed.
    pub fn meter_of(&self, demand: &MemberDemand) -> Option<(Meter<'a>, &PlannedUse<'a>, u64)> {
        let metered = self.metered.get(demand.only_model.as_deref()?)?;
        Some((metered.meter, &metered.planned, metered.planned_milli))
    }

    /// Counts a proposal.
    pub fn add(&mut self, tenant: &TenantName, demand: &MemberDemand, milli: u64) {
        let model = demand.only_model.as_deref();
        if let Some(metered) = model.and_then(|model| self.metered.get_mut(model)) {
            metered.planned.add(tenant, milli);
            metered.planned_milli += milli;
        }
    }

    /// Counts what is kept for a run until others have left, on every model that it may come to hold.
    pub fn await_run(&mut self, run: &Run) {
        let asked = run.spec.gpu_model.as_deref();
        for metered in self.metered.values_mut() {
            if metered.meter.is_open_to(asked) {
                metered
                    .planned
                    .await_milli(&run.tenant, run.spec.gpu_milli());
            }
        }
    }
}
