//! The tenant tree and its lines in every pool, and what each tenant holds of them.

use super::{Event, Outcome, ParentChange, QuotaChange, State};
use crate::model::{
    MOST_TENANT_LEVELS, Meter, PoolName, Quota, Tenant, TenantName, WorkloadSpec, tenant_and_above,
};
use crate::policy::quotas::{self, Standing};
use crate::policy::{Refusal, RefusalKind, gpus, unknown_pool};
use std::collections::BTreeMap;

const MOST_QUOTA_MILLI: u64 = 1_000_000_000;
const MOST_WEIGHT: u32 = 1_000;

/// What a tenant's line borrows and lends at one moment, in thousandths of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineUse {
    /// Held above the guarantee.
    pub borrowed_milli: u64,
    /// Guaranteed, not used, and in use by others.
    pub lent_milli: u64,
}

impl State {
    pub(super) fn create_tenant(
        &mut self,
        name: &TenantName,
        parent: Option<&TenantName>,
        weight: Option<u32>,
    ) -> Outcome {
        if self.tenants.contains_key(name) {
            return Err(Refusal::new(
                RefusalKind::Conflict,
                format!("tenant {name} exists already"),
            )
            .hint(format!("see it with: platform tenants show {name}")));
        }
        check_weight(weight)?;
        if let Some(parent) = parent {
            self.surroundings(parent)?;
            check_levels(
                name,
                parent,
                tenant_and_above(&self.tenants, parent).count() + 1,
            )?;
        }
        let mut tenant = Tenant::new(name.clone(), self.time_us);
        tenant.parent = parent.cloned();
        tenant.weight = weight.unwrap_or(tenant.weight);
        self.tenants.put(tenant);
        Ok(vec![Event::SettingsChanged])
    }

    pub(super) fn set_tenant(
        &mut self,
        name: &TenantName,
        parent: &ParentChange,
        weight: Option<u32>,
    ) -> Outcome {
        self.check_tenant_change(name, parent, weight)?;
        let parent = match parent {
            ParentChange::Keep => None,
            ParentChange::Top => Some(None),
            ParentChange::Under(parent) => Some(Some(parent.clone())),
        };
        if let Some(parent) = parent {
            self.move_recent(name, parent.as_ref());
            self.tenants.change(name, |tenant| tenant.parent = parent);
            // What it holds leaves those above it and counts for those it comes under.
            self.reindex();
            self.recount_tenants_budgets();
        }
        if let Some(weight) = weight {
            self.tenants.change(name, |tenant| tenant.weight = weight);
        }
        Ok(vec![Event::SettingsChanged])
    }

    /// Whether a tenant may be moved or weighed so; the same check answers a dry run.
    pub fn check_tenant_change(
        &self,
        name: &TenantName,
        parent: &ParentChange,
        weight: Option<u32>,
    ) -> Result<(), Refusal> {
        self.surroundings(name)?;
        check_weight(weight)?;
        if let ParentChange::Under(parent) = parent {
            self.check_place_in_tree(name, parent)?;
        }
        let under = match parent {
            ParentChange::Keep => return Ok(()),
            ParentChange::Top => None,
            ParentChange::Under(parent) => Some(parent),
        };
        for pool in self.pools.keys() {
            let models = self.tenants.metered_models(pool);
            let models = models.map(|model| Meter::of_model(pool, model));
            for meter in std::iter::once(Meter::from(pool)).chain(models) {
                let moved = quotas::line(&self.tenants, name, meter).map_or_else(
                    || self.guaranteed_below(Some(name), meter, None),
                    |line| line.quota_milli,
                );
                if moved > 0 {
                    self.check_fits_above(name, under, meter, moved)?;
                }
            }
        }
        Ok(())
    }

    fn check_place_in_tree(&self, name: &TenantName, parent: &TenantName) -> Result<(), Refusal> {
        self.surroundings(parent)?;
        let above: Vec<&Tenant> = tenant_and_above(&self.tenants, parent).collect();
        if above.iter().any(|tenant| tenant.name == *name) {
            let circle: Vec<&str> = above
                .iter()
                .map(|tenant| tenant.name.as_str())
                .take_while(|above| above != &name.as_str())
                .collect();
            return Err(Refusal::refused(format!(
                "tenant {name} cannot be under {parent}: the tree would be a circle, {name} under {} under {name}",
                circle.join(" under ")
            ))
            .hint("see the tree with: platform tenants list"));
        }
        check_levels(name, parent, above.len() + self.levels_from(name))
    }

    /// Levels of the tree from this tenant down, itself included.
    fn levels_from(&self, name: &TenantName) -> usize {
        self.tenants
            .keys()
            .filter_map(|below| {
                tenant_and_above(&self.tenants, below).position(|above| above.name == *name)
            })
            .max()
            .unwrap_or(0)
            + 1
    }

    pub(super) fn set_quota(&mut self, change: &QuotaChange) -> Outcome {
        self.check_quota_change(change)?;
        let line = change.gpu_milli.map(|quota_milli| Quota {
            quota_milli,
            limit_milli: change.limit_milli,
            lend_milli: change.lend_milli,
        });
        self.put_line(&change.tenant, change.meter(), line);
        Ok(vec![Event::SettingsChanged])
    }

    /// Whether a line may be set; the same check answers a dry run.
    pub fn check_quota_change(&self, change: &QuotaChange) -> Result<(), Refusal> {
        let (tenant, pool, meter) = (&change.tenant, &change.pool, change.meter());
        self.surroundings(tenant)?;
        if !self.pools.contains_key(pool) {
            return Err(unknown_pool(pool.as_str(), &self.pools));
        }
        let Some(quota) = change.gpu_milli else {
            return match (change.limit_milli, change.lend_milli) {
                (None, None) => Ok(()),
                _ => Err(
                    Refusal::invalid("a limit or what is lent is given without a quota")
                        .hint("say what is guaranteed too, as in: --gpus 0 --limit 8"),
                ),
            };
        };
        for (what, milli) in [
            ("quota", Some(quota)),
            ("limit", change.limit_milli),
            ("lend", change.lend_milli),
        ] {
            if let Some(milli) = milli
                && milli > MOST_QUOTA_MILLI
            {
                return Err(Refusal::invalid(format!(
                    "a {what} of {} GPUs is out of range",
                    gpus(milli)
                ))
                .allowed(format!("0 to {} GPUs", gpus(MOST_QUOTA_MILLI))));
            }
        }
        if let Some(limit) = change.limit_milli
            && limit < quota
        {
            return Err(Refusal::invalid(format!(
                "a limit of {} GPUs is below the quota of {}",
                gpus(limit),
                gpus(quota)
            ))
            .allowed(format!("{} GPUs or more", gpus(quota))));
        }
        if let Some(lend) = change.lend_milli
            && lend > quota
        {
            return Err(Refusal::invalid(format!(
                "{} GPUs to lend are more than the quota of {}",
                gpus(lend),
                gpus(quota)
            ))
            .allowed(format!("0 to {} GPUs", gpus(quota))));
        }
        self.check_model(pool, meter.model)?;
        self.check_below(tenant, meter, quota)?;
        self.check_models_within(tenant, meter, quota)?;
        let under = self
            .tenants
            .get(tenant)
            .and_then(|known| known.parent.as_ref());
        self.check_fits_above(tenant, under, meter, quota)
    }

    /// What is guaranteed below a tenant must fit into what is guaranteed to it.
    fn check_below(
        &self,
        tenant: &TenantName,
        meter: Meter<'_>,
        quota_milli: u64,
    ) -> Result<(), Refusal> {
        let below = self.guaranteed_below(Some(tenant), meter, None);
        if below > quota_milli {
            return Err(Refusal::refused(format!(
                "a quota of {} GPUs for {tenant} is less than the {} guaranteed below it {meter}",
                gpus(quota_milli),
                gpus(below)
            ))
            .allowed(format!("{} GPUs or more", gpus(below)))
            .hint("lower those first; see them with: platform quotas list"));
        }
        Ok(())
    }

    /// What is guaranteed beside a tenant must fit, with it, into the nearest line from `under` up,
    /// or into the pool.
    fn check_fits_above(
        &self,
        tenant: &TenantName,
        under: Option<&TenantName>,
        meter: Meter<'_>,
        quota_milli: u64,
    ) -> Result<(), Refusal> {
        if let Some((above, line)) =
            under.and_then(|under| quotas::nearest_line(&self.tenants, under, meter))
        {
            return self.check_sum_below(&above.name, meter, line.quota_milli, tenant, quota_milli);
        }
        let room = self.capacity_on(meter);
        // A pool that no node has joined yet may be divided beforehand.
        if room == 0 {
            return Ok(());
        }
        let beside = self.guaranteed_below(None, meter, Some(tenant));
        if beside.saturating_add(quota_milli) > room {
            return Err(Refusal::refused(format!(
                "a quota of {} GPUs for {tenant} is more than {} can guarantee: it has {}, and {} are guaranteed to others",
                gpus(quota_milli),
                whole(meter),
                gpus(room),
                gpus(beside)
            ))
            .allowed(format!("0 to {} GPUs", gpus(room.saturating_sub(beside))))
            .hint("more than the guarantee is borrowed from what is idle, up to --limit"));
        }
        Ok(())
    }

    fn check_sum_below(
        &self,
        above: &TenantName,
        meter: Meter<'_>,
        room_milli: u64,
        tenant: &TenantName,
        quota_milli: u64,
    ) -> Result<(), Refusal> {
        let beside = self.guaranteed_below(Some(above), meter, Some(tenant));
        if beside.saturating_add(quota_milli) <= room_milli {
            return Ok(());
        }
        Err(Refusal::refused(format!(
            "a quota of {} GPUs for {tenant} does not fit into the {} of {above} {meter}, of which {} are guaranteed to others",
            gpus(quota_milli),
            gpus(room_milli),
            gpus(beside)
        ))
        .allowed(format!("0 to {} GPUs", gpus(room_milli.saturating_sub(beside))))
        .hint(format!("raise the quota of {above} first")))
    }

    /// The sum of the nearest lines below a tenant (or in the whole tree), one branch left out.
    fn guaranteed_below(
        &self,
        above: Option<&TenantName>,
        meter: Meter<'_>,
        without: Option<&TenantName>,
    ) -> u64 {
        self.tenants
            .values()
            .filter(|tenant| Some(&tenant.name) != above)
            .filter_map(|tenant| {
                let quota = tenant.line(meter)?.quota_milli;
                let mut up = tenant_and_above(&self.tenants, &tenant.name)
                    .take_while(|up| Some(&up.name) != above);
                let nearest = up.by_ref().skip(1).all(|up| up.line(meter).is_none());
                let in_branch = above.is_none_or(|above| {
                    tenant_and_above(&self.tenants, &tenant.name).any(|up| up.name == *above)
                });
                let left_out = without.is_some_and(|without| {
                    tenant_and_above(&self.tenants, &tenant.name).any(|up| up.name == *without)
                });
                (nearest && in_branch && !left_out).then_some(quota)
            })
            .sum()
    }

    /// A line is for a model that some node of the pool has, by its full name. A pool that no node has
    /// joined yet may be divided beforehand.
    fn check_model(&self, pool: &PoolName, model: Option<&str>) -> Result<(), Refusal> {
        let Some(model) = model else {
            return Ok(());
        };
        let known = self.models_of(pool);
        if known.is_empty() && is_model_name(model) || known.contains(model) {
            return Ok(());
        }
        let known: Vec<&str> = known.into_iter().collect();
        Err(
            Refusal::refused(format!("pool {pool} has no devices of model {model:?}"))
                .allowed(if known.is_empty() {
                    "1 to 128 letters, digits, spaces, and any of - _ . / ( )".to_owned()
                } else {
                    known.join(", ")
                })
                .hint(
                    "a line is for one model by its full name; see them with: platform nodes list",
                ),
        )
    }

    /// What a tenant is guaranteed of single models fits into what it is guaranteed over all, and where
    /// others have a line over all, so must it: else its models would be borrowed all the same.
    fn check_models_within(
        &self,
        tenant: &TenantName,
        meter: Meter<'_>,
        quota_milli: u64,
    ) -> Result<(), Refusal> {
        let pool = meter.pool;
        let Some(known) = self.tenants.get(tenant) else {
            return Ok(());
        };
        let of_models = known.models_quota_milli(pool, meter.model);
        let (all, of_models, hint) = match (meter.model, known.quotas.get(pool)) {
            (None, _) => (
                Some(quota_milli),
                of_models,
                format!("lower those first; see them with: platform quotas show {tenant}"),
            ),
            (Some(_), line) => (
                line.map(|line| line.quota_milli),
                of_models.saturating_add(quota_milli),
                format!("raise that first: platform quotas set {tenant} --pool {pool} --gpus N"),
            ),
        };
        if let Some(all) = all.filter(|all| of_models > *all) {
            return Err(Refusal::refused(format!(
                "{} GPUs of single models are more than the {} guaranteed to {tenant} in pool {pool}",
                gpus(of_models),
                gpus(all)
            ))
            .hint(hint));
        }
        let is_covered = meter.model.is_none()
            || quota_milli == 0
            || !self.tenants.is_metered(pool)
            || quotas::nearest_line(&self.tenants, tenant, pool).is_some();
        if is_covered {
            return Ok(());
        }
        Err(Refusal::refused(format!(
            "pool {pool} is divided over all models, and neither {tenant} nor any tenant above it has a line over all: what it is guaranteed of {} would be borrowed",
            meter.model.unwrap_or_default()
        ))
        .hint(format!(
            "give it one first: platform quotas set {tenant} --pool {pool} --gpus N"
        )))
    }

    /// Thousandths of devices that a tenant and all below it hold in a pool.
    pub fn used_milli(&self, tenant: &TenantName, pool: &PoolName) -> u64 {
        self.used_milli
            .get(tenant)
            .and_then(|pools| pools.get(pool))
            .copied()
            .unwrap_or(0)
    }

    /// What a tenant's line borrows and lends there now.
    pub fn use_of_line<'m>(&self, tenant: &TenantName, meter: impl Into<Meter<'m>>) -> LineUse {
        let meter = meter.into();
        let idle_quota = |tenant: &TenantName| {
            quotas::line(&self.tenants, tenant, meter).map_or(0, |line| {
                line.quota_milli.saturating_sub(self.used_on(tenant, meter))
            })
        };
        let borrowed_milli = match quotas::line(&self.tenants, tenant, meter) {
            Some(line) => self.used_on(tenant, meter).saturating_sub(line.quota_milli),
            None => match quotas::nearest_line(&self.tenants, tenant, meter) {
                // It has part in the line above, and in what that borrows.
                Some((above, line)) => self
                    .used_on(&above.name, meter)
                    .saturating_sub(line.quota_milli)
                    .min(self.used_on(tenant, meter)),
                None if quotas::is_metered(&self.tenants, meter) => self.used_on(tenant, meter),
                None => 0,
            },
        };
        // Guaranteed and not used, but not idle either: others have it. Nobody's devices carry a
        // name, so it is divided among those who could have lent it.
        let lendable: u64 = self
            .tenants
            .values()
            .filter(|other| {
                tenant_and_above(&self.tenants, &other.name)
                    .skip(1)
                    .all(|above| above.line(meter).is_none())
            })
            .map(|other| idle_quota(&other.name))
            .sum();
        let lent = lendable.saturating_sub(self.idle_on(meter));
        let own = u128::from(idle_quota(tenant));
        let part = (own * u128::from(lent))
            .checked_div(u128::from(lendable))
            .unwrap_or(0);
        LineUse {
            borrowed_milli,
            lent_milli: u64::try_from(part).unwrap_or(u64::MAX),
        }
    }

    /// Of what a tenant and all below it hold in a pool, what is told to stop.
    pub fn stopping_milli(&self, tenant: &TenantName, pool: &PoolName) -> u64 {
        self.stopping_milli
            .get(tenant)
            .and_then(|pools| pools.get(pool))
            .copied()
            .unwrap_or(0)
    }

    /// Counts what a tenant takes or gives back, for it and for all above it.
    pub(super) fn count_use(
        &mut self,
        tenant: &TenantName,
        pool: &PoolName,
        milli: u64,
        taken: bool,
    ) {
        let above = self.with_above(tenant);
        count(&mut self.used_milli, &above, pool, milli, taken);
    }

    pub(super) fn count_stopping(
        &mut self,
        tenant: &TenantName,
        pool: &PoolName,
        milli: u64,
        taken: bool,
    ) {
        let above = self.with_above(tenant);
        count(&mut self.stopping_milli, &above, pool, milli, taken);
    }

    pub(super) fn with_above(&self, tenant: &TenantName) -> Vec<TenantName> {
        // A tenant is never removed while it holds anything, so its own line is always counted.
        std::iter::once(tenant.clone())
            .chain(
                tenant_and_above(&self.tenants, tenant)
                    .skip(1)
                    .map(|above| above.name.clone()),
            )
            .collect()
    }

    /// Whether the lines over all models let a tenant have so much more now; what of it is borrowed.
    pub(super) fn check_quota(
        &self,
        tenant: &TenantName,
        pool: &PoolName,
        spec: &WorkloadSpec,
        asked_milli: u64,
    ) -> Result<u64, String> {
        self.check_meter(tenant, pool.into(), spec, asked_milli)
    }

    /// The same on any meter.
    pub(super) fn check_meter(
        &self,
        tenant: &TenantName,
        meter: Meter<'_>,
        spec: &WorkloadSpec,
        asked_milli: u64,
    ) -> Result<u64, String> {
        let of = of_model(meter);
        let used = |name: &TenantName| self.used_on(name, meter);
        match quotas::standing(&self.tenants, meter, tenant, asked_milli, used) {
            Standing::Guaranteed => Ok(0),
            Standing::OverLimit {
                tenant,
                used_milli,
                limit_milli,
            } => Err(format!(
                "tenant {tenant} holds {} of its limit of {} GPUs{of}",
                gpus(used_milli),
                gpus(limit_milli)
            )),
            Standing::Borrows { .. } if !spec.preemptible => {
                Err(format!("it would borrow{of}, and may not be preempted"))
            }
            Standing::Borrows { milli, .. } => {
                let kept = quotas::kept_from_milli(&self.tenants, meter, tenant, used);
                if kept == 0 {
                    return Ok(milli);
                }
                let idle = self.idle_on(meter);
                if asked_milli.saturating_add(kept) > idle {
                    return Err(format!(
                        "{} GPUs{of} of the {} that are idle are not lent",
                        gpus(kept.min(idle)),
                        gpus(idle)
                    ));
                }
                Ok(milli)
            }
        }
    }
}

/// ` of A100-80G`, or nothing.
fn of_model(meter: Meter<'_>) -> String {
    meter
        .model
        .map_or_else(String::new, |model| format!(" of {model}"))
}

/// `pool default`, or `A100-80G in pool default`.
fn whole(meter: Meter<'_>) -> String {
    match meter.model {
        Some(model) => format!("{model} in pool {}", meter.pool),
        None => format!("pool {}", meter.pool),
    }
}

/// Whether this could be the name of a device model, as drivers write them.
fn is_model_name(text: &str) -> bool {
    let is_good = |letter: char| letter.is_ascii_alphanumeric() || " -_./()".contains(letter);
    !text.trim().is_empty() && text.trim() == text && text.len() <= 128 && text.chars().all(is_good)
}

fn check_weight(weight: Option<u32>) -> Result<(), Refusal> {
    match weight {
        Some(weight) if !(1..=MOST_WEIGHT).contains(&weight) => {
            Err(Refusal::invalid(format!("weight {weight} is out of range"))
                .allowed(format!("1 to {MOST_WEIGHT}")))
        }
        _ => Ok(()),
    }
}

fn check_levels(name: &TenantName, parent: &TenantName, levels: usize) -> Result<(), Refusal> {
    if levels <= MOST_TENANT_LEVELS {
        return Ok(());
    }
    Err(Refusal::refused(format!(
        "tenant {name} under {parent} makes a tree of {levels} levels"
    ))
    .allowed(format!("up to {MOST_TENANT_LEVELS} levels")))
}

fn count(
    counts: &mut BTreeMap<TenantName, BTreeMap<PoolName, u64>>,
    tenants: &[TenantName],
    pool: &PoolName,
    milli: u64,
    taken: bool,
) {
    if milli == 0 {
        return;
    }
    for tenant in tenants {
        let pools = counts.entry(tenant.clone()).or_default();
        let counted = pools.entry(pool.clone()).or_default();
        *counted = if taken {
            counted.saturating_add(milli)
        } else {
            counted.saturating_sub(milli)
        };
        if *counted == 0 {
            pools.remove(pool);
        }
        if pools.is_empty() {
            counts.remove(tenant);
        }
    }
}
