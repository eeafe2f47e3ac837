//! The runs that wait, by pool, tenant and shape, so that a plan looks at the head of each line and
//! never along it: equal runs behind one that found no room would find none either.
//!
//! Derived from the runs and not stored: [`super::State::reindex`] makes it anew.

use crate::model::{MemberDemand, PoolName, QueuePlace, Run, RunId, TenantName};
use std::collections::{BTreeMap, BTreeSet};

/// Where a waiting run is filed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filed {
    /// Its place among its tenant's.
    pub place: QueuePlace,
    /// When it will have waited as long as its pool lets a run wait behind others, if nothing happens
    /// to it until then.
    pub due_us: Option<u64>,
}

/// What makes two waiting runs of a tenant alike to the scheduler.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// What each member asks, without what the policy's caps have to say.
    pub demand: MemberDemand,
    /// Members.
    pub nodes: u32,
    /// Whether it may borrow.
    pub preemptible: bool,
    /// Whether it stops nobody of its tenant: one that does not must not stand before one that may.
    pub never_preempts: bool,
    /// Model whose cap binds it.
    pub model: Option<String>,
    /// Longest time to run: what ends soon may use what is kept for others later.
    pub time_limit_ms: Option<u64>,
}

impl Shape {
    fn of(run: &Run) -> Self {
        Self {
            demand: run.spec.demand(),
            nodes: run.spec.nodes,
            preemptible: run.spec.preemptible,
            never_preempts: run.spec.never_preempts,
            model: run.spec.model.clone(),
            time_limit_ms: run.spec.time_limit_ms,
        }
    }
}

/// One tenant's waiting runs in a pool.
pub type Lines = BTreeMap<Shape, BTreeSet<QueuePlace>>;

/// Every waiting run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Queues {
    pools: BTreeMap<PoolName, BTreeMap<TenantName, Lines>>,
    filed: BTreeMap<RunId, Filed>,
    /// Who is due when.
    due: BTreeSet<(u64, RunId)>,
}

impl Queues {
    pub(super) fn insert(&mut self, run: &Run, filed: Filed) {
        self.remove(run);
        self.filed.insert(run.id, filed);
        if let Some(due_us) = filed.due_us {
            self.due.insert((due_us, run.id));
        }
        self.pools
            .entry(pool_of(run))
            .or_default()
            .entry(run.tenant.clone())
            .or_default()
            .entry(Shape::of(run))
            .or_default()
            .insert(filed.place);
    }

    pub(super) fn remove(&mut self, run: &Run) {
        let Some(filed) = self.filed.remove(&run.id) else {
            return;
        };
        if let Some(due_us) = filed.due_us {
            self.due.remove(&(due_us, run.id));
        }
        let pool = pool_of(run);
        let Some(tenants) = self.pools.get_mut(&pool) else {
            return;
        };
        let Some(lines) = tenants.get_mut(&run.tenant) else {
            return;
        };
        let shape = Shape::of(run);
        if let Some(line) = lines.get_mut(&shape) {
            line.remove(&filed.place);
            if line.is_empty() {
                lines.remove(&shape);
            }
        }
        if lines.is_empty() {
            tenants.remove(&run.tenant);
        }
        if tenants.is_empty() {
            self.pools.remove(&pool);
        }
    }

    /// Whether this run waits here.
    pub fn contains(&self, run: &Run) -> bool {
        self.filed.contains_key(&run.id)
    }

    /// The place of a run that waits.
    pub fn place(&self, run: RunId) -> Option<QueuePlace> {
        self.filed.get(&run).map(|filed| filed.place)
    }

    /// The first run that is due by now to be filed anew.
    pub(super) fn due_by(&self, now_us: u64) -> Option<RunId> {
        let (due_us, run) = self.due.first()?;
        (*due_us <= now_us).then_some(*run)
    }

    /// Pools in which anything waits, with each tenant's lines.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolName, &BTreeMap<TenantName, Lines>)> {
        self.pools.iter()
    }

    /// A run that waits and its equals behind it, in order; nothing if it does not wait.
    pub fn line_from(&self, run: &Run) -> impl Iterator<Item = RunId> {
        self.lines(&pool_of(run), &run.tenant)
            .and_then(|lines| lines.get(&Shape::of(run)))
            .zip(self.place(run.id))
            .into_iter()
            .flat_map(|(line, place)| line.range(place..))
            .map(|place| place.run())
    }

    fn lines(&self, pool: &PoolName, tenant: &TenantName) -> Option<&Lines> {
        self.pools.get(pool)?.get(tenant)
    }

    /// How many runs wait in a pool.
    pub fn waiting(&self, pool: &PoolName) -> usize {
        self.pools
            .get(pool)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
            .map(BTreeSet::len)
            .sum()
    }

    /// The first of a tenant's waiting runs in a pool.
    pub fn first_of(&self, pool: &PoolName, tenant: &TenantName) -> Option<RunId> {
        self.lines(pool, tenant)?
            .values()
            .filter_map(|line| line.first())
            .min()
            .map(|place| place.run())
    }

    /// Every run that waits in a pool, in no order that matters.
    pub(super) fn of_pool(&self, pool: &PoolName) -> Vec<RunId> {
        self.pools
            .get(pool)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(BTreeMap::values)
            .flatten()
            .map(|place| place.run())
            .collect()
    }

    /// A tenant's waiting runs in a pool, first to be looked at first.
    pub fn of_tenant(&self, pool: &PoolName, tenant: &TenantName) -> Vec<RunId> {
        let mut places: Vec<QueuePlace> = self
            .lines(pool, tenant)
            .into_iter()
            .flat_map(BTreeMap::values)
            .flatten()
            .copied()
            .collect();
        places.sort_unstable();
        places.into_iter().map(QueuePlace::run).collect()
    }

    /// Runs of its tenant ahead of this one; `None` when it does not wait.
    pub fn ahead(&self, run: &Run) -> Option<u64> {
        let place = self.place(run.id)?;
        Some(self.ahead_of(&pool_of(run), &run.tenant, place))
    }

    /// Runs of a tenant that wait in a pool ahead of this place.
    pub fn ahead_of(&self, pool: &PoolName, tenant: &TenantName, place: QueuePlace) -> u64 {
        self.lines(pool, tenant)
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(|line| line.range(..place).count() as u64)
            .sum()
    }
}

fn pool_of(run: &Run) -> PoolName {
    run.spec.pool.clone().unwrap_or_else(PoolName::default_pool)
}
