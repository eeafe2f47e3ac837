//! What is counted of single device models, in pools where anybody has a line for one: what tenants hold
//! of each model, which lines bind a run, and how it is narrowed to one model at a time.
//!
//! Counted from the models of the grants, so that a device which comes back under another name is
//! given back under the one that it was granted as. Derived and not stored.

use super::State;
use crate::model::{
    Attempt, DeviceGrant, MemberDemand, MemberPhase, Meter, PoolName, Quota, Run, TenantName,
    WorkloadSpec,
};
use crate::policy::quotas;
use std::collections::{BTreeMap, BTreeSet};

/// What is counted of each model, in the pools where that matters.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ModelUse {
    used: Counts,
    /// Of that, what is told to stop.
    stopping: Counts,
}

/// Thousandths of devices by pool, model and tenant, what those below it hold included.
type Counts = BTreeMap<PoolName, BTreeMap<String, BTreeMap<TenantName, u64>>>;

/// Thousandths of devices of each model among these.
pub(super) fn by_model<'a>(
    grants: impl IntoIterator<Item = &'a DeviceGrant>,
) -> BTreeMap<String, u64> {
    let mut models: BTreeMap<String, u64> = BTreeMap::new();
    for grant in grants {
        *models.entry(grant.model.clone()).or_default() += u64::from(grant.share_milli);
    }
    models
}

/// What the members of an attempt which have not ended hold.
pub(super) fn live_grants(attempt: &Attempt) -> impl Iterator<Item = &DeviceGrant> {
    attempt
        .members
        .iter()
        .filter(|member| member.phase != MemberPhase::Ended)
        .flat_map(|member| &member.devices)
}

fn find(counts: &Counts, pool: &PoolName, model: &str, tenant: &TenantName) -> u64 {
    let models = counts.get(pool);
    models
        .and_then(|models| models.get(model)?.get(tenant))
        .copied()
        .unwrap_or(0)
}

fn count(
    counts: &mut Counts,
    tenants: &[TenantName],
    pool: &PoolName,
    grants: &BTreeMap<String, u64>,
    taken: bool,
) {
    let models = counts.entry(pool.clone()).or_default();
    for (model, milli) in grants {
        let by_tenant = models.entry(model.clone()).or_default();
        for tenant in tenants {
            let counted = by_tenant.entry(tenant.clone()).or_default();
            *counted = if taken {
                counted.saturating_add(*milli)
            } else {
                counted.saturating_sub(*milli)
            };
        }
        by_tenant.retain(|_, counted| *counted > 0);
        if by_tenant.is_empty() {
            models.remove(model);
        }
    }
    if models.is_empty() {
        counts.remove(pool);
    }
}

impl State {
    /// Thousandths of devices that a tenant and all below it hold there.
    pub fn used_on<'m>(&self, tenant: &TenantName, meter: impl Into<Meter<'m>>) -> u64 {
        let meter = meter.into();
        match meter.model {
            None => self.used_milli(tenant, meter.pool),
            Some(model) => find(&self.model_use.used, meter.pool, model, tenant),
        }
    }

    /// Of that, what is told to stop.
    pub fn stopping_on<'m>(&self, tenant: &TenantName, meter: impl Into<Meter<'m>>) -> u64 {
        let meter = meter.into();
        match meter.model {
            None => self.stopping_milli(tenant, meter.pool),
            Some(model) => find(&self.model_use.stopping, meter.pool, model, tenant),
        }
    }

    /// Thousandths of devices of ready nodes there that nobody holds.
    pub fn idle_on<'m>(&self, meter: impl Into<Meter<'m>>) -> u64 {
        let meter = meter.into();
        match meter.model {
            None => self.idle_milli(meter.pool),
            Some(model) => self.capacity.idle_of_model(meter.pool, model),
        }
    }

    /// Thousandths of devices that nodes have there, whatever their condition.
    pub fn capacity_on<'m>(&self, meter: impl Into<Meter<'m>>) -> u64 {
        let meter = meter.into();
        let Some(model) = meter.model else {
            return self.capacity_milli(meter.pool);
        };
        self.makes()
            .get(meter.pool)
            .into_iter()
            .flatten()
            .map(|(make, count)| {
                let devices = make.devices.iter().filter(|device| device.model == model);
                devices.count() as u64 * 1000 * u64::from(*count)
            })
            .sum()
    }

    /// The device models of a pool's nodes.
    pub fn models_of(&self, pool: &PoolName) -> BTreeSet<&str> {
        self.makes()
            .get(pool)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .flat_map(|make| &make.devices)
            .map(|device| device.model.as_str())
            .collect()
    }

    /// What each member of a run of this spec may be tried as: as it is where no line is for a single
    /// model, else on one model after another.
    pub fn ways(&self, spec: &WorkloadSpec) -> Vec<MemberDemand> {
        let demand = self.policy.demand(spec);
        match &spec.pool {
            Some(pool) if demand.devices > 0 && self.tenants.is_metered_by_model(pool) => {
                ways_among(&self.models_of(pool), demand)
            }
            _ => vec![demand],
        }
    }

    /// The meters on which such a member counts, that anybody has a line on; the pool's is always
    /// the first.
    pub fn meters<'a>(
        &self,
        pool: &'a PoolName,
        demand: &'a MemberDemand,
    ) -> impl Iterator<Item = Meter<'a>> + use<'a> {
        let of_model = demand
            .only_model
            .as_deref()
            .map(|model| Meter::of_model(pool, model))
            .filter(|meter| self.tenants.is_metered(*meter));
        std::iter::once(Meter::from(pool)).chain(of_model)
    }

    /// Whether the lines for single models let a tenant have these devices now; what of it is borrowed.
    pub(super) fn check_models(
        &self,
        tenant: &TenantName,
        pool: &PoolName,
        spec: &WorkloadSpec,
        grants: &BTreeMap<String, u64>,
    ) -> Result<u64, String> {
        let mut models = grants.iter();
        let (Some((model, asked_milli)), other) = (models.next(), models.next()) else {
            return Ok(0);
        };
        if let Some((other, _)) = other {
            return Err(format!(
                "devices of {model} and {other} are planned, and pool {pool} has lines by model"
            ));
        }
        let meter = Meter::of_model(pool, model);
        if self.tenants.is_metered(meter) {
            self.check_meter(tenant, meter, spec, *asked_milli)
        } else {
            Ok(0)
        }
    }

    /// Sets a line, and counts anew where it is the first or was the last for a single model.
    pub(super) fn put_line(&mut self, tenant: &TenantName, meter: Meter<'_>, line: Option<Quota>) {
        let was_metered = self.tenants.is_metered_by_model(meter.pool);
        self.tenants
            .change(tenant, |tenant| tenant.set_line(meter, line));
        if self.tenants.is_metered_by_model(meter.pool) != was_metered {
            self.reindex();
        }
    }

    /// Counts what a tenant takes of models, or gives back, for it and for all above it.
    pub(super) fn count_models<'a>(
        &mut self,
        tenant: &TenantName,
        pool: &PoolName,
        grants: impl IntoIterator<Item = &'a DeviceGrant>,
        taken: bool,
    ) {
        if let Some((tenants, grants)) = self.metered_by_model(tenant, pool, grants) {
            count(&mut self.model_use.used, &tenants, pool, &grants, taken);
        }
    }

    /// The same of what is told to stop.
    pub(super) fn count_models_stopping<'a>(
        &mut self,
        tenant: &TenantName,
        pool: &PoolName,
        grants: impl IntoIterator<Item = &'a DeviceGrant>,
        taken: bool,
    ) {
        if let Some((tenants, grants)) = self.metered_by_model(tenant, pool, grants) {
            count(&mut self.model_use.stopping, &tenants, pool, &grants, taken);
        }
    }

    /// What is granted of each model, and for whom it counts; `None`: in this pool nobody has a line
    /// for a single model.
    fn metered_by_model<'a>(
        &self,
        tenant: &TenantName,
        pool: &PoolName,
        grants: impl IntoIterator<Item = &'a DeviceGrant>,
    ) -> Option<(Vec<TenantName>, BTreeMap<String, u64>)> {
        self.tenants
            .is_metered_by_model(pool)
            .then(|| (self.with_above(tenant), by_model(grants)))
    }

    /// Whether another tenant borrows, as things are now, what a waiting run tried like this is owed.
    pub fn is_owed_by(&self, claimant: &Run, demand: &MemberDemand, borrower: &TenantName) -> bool {
        self.reclaims_as(claimant, demand, (borrower, true), |_, _| 0, |_, _| 0)
    }

    /// Whether a waiting run, tried like this, is owed what another tenant borrows: on one meter by
    /// reclaim, and on every other it is within its own. By a model's line only what is of that model
    /// is taken (`holds_model`: whether the other does).
    pub fn reclaims_as(
        &self,
        claimant: &Run,
        demand: &MemberDemand,
        (borrower, holds_model): (&TenantName, bool),
        given_milli: impl Fn(Meter<'_>, &TenantName) -> u64,
        claimed_milli: impl Fn(Meter<'_>, &TenantName) -> u64,
    ) -> bool {
        let Some(pool) = &claimant.spec.pool else {
            return false;
        };
        let meters: Vec<Meter<'_>> = self.meters(pool, demand).collect();
        let (owner, asked_milli) = (&claimant.tenant, claimant.spec.gpu_milli());
        // What is claimed already, by siblings too, will be used once those who are stopping have gone.
        let wanted = |meter: Meter<'_>, name: &TenantName| {
            self.used_on(name, meter)
                .saturating_add(claimed_milli(meter, name))
        };
        // What is stopping already is as good as given back.
        let staying = |meter: Meter<'_>, name: &TenantName| {
            self.used_on(name, meter)
                .saturating_sub(self.stopping_on(name, meter))
                .saturating_sub(given_milli(meter, name))
        };
        meters.iter().any(|by| {
            (by.model.is_none() || holds_model)
                && quotas::may_reclaim(
                    &self.tenants,
                    *by,
                    owner,
                    asked_milli,
                    borrower,
                    |name| wanted(*by, name),
                    |name| staying(*by, name),
                )
                && meters.iter().filter(|other| *other != by).all(|other| {
                    quotas::is_within_beside(
                        &self.tenants,
                        *other,
                        owner,
                        asked_milli,
                        borrower,
                        |name| wanted(*other, name),
                    )
                })
        })
    }
}

/// The demand on each of these models that it accepts. Where it accepts none it stays as it is: no
/// node will hold it.
pub fn ways_among(models: &BTreeSet<&str>, demand: MemberDemand) -> Vec<MemberDemand> {
    let ways: Vec<MemberDemand> = models
        .iter()
        .filter(|model| demand.accepts(model))
        .map(|model| demand.narrowed(model))
        .collect();
    if ways.is_empty() { vec![demand] } else { ways }
}
