//! The runs that wait, by pool, tenant and shape, so that a plan looks at the head of each line and
//! never along it: equal runs behind one that found no room would find none either.
//!
//! Derived from the runs and not stored: [`super::State::reindex`] makes it anew.

use crate::model::{MemberDemand, PoolName, Run, RunId, TenantName};
use std::collections::{BTreeMap, BTreeSet};

/// A run's place among its tenant's: higher priority first, then in order of submission. A run that
/// is queued again keeps the place its id gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePlace {
    negated_priority: i32,
    run: RunId,
}

impl QueuePlace {
    fn of(run: &Run) -> Self {
        Self {
            negated_priority: -run.spec.priority,
            run: run.id,
        }
    }

    /// The run that waits here.
    pub fn run(self) -> RunId {
        self.run
    }
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
}

impl Queues {
    pub(super) fn insert(&mut self, run: &Run) {
        self.pools
            .entry(pool_of(run))
            .or_default()
            .entry(run.tenant.clone())
            .or_default()
            .entry(Shape::of(run))
            .or_default()
            .insert(QueuePlace::of(run));
    }

    pub(super) fn remove(&mut self, run: &Run) {
        let pool = pool_of(run);
        let Some(tenants) = self.pools.get_mut(&pool) else {
            return;
        };
        let Some(lines) = tenants.get_mut(&run.tenant) else {
            return;
        };
        let shape = Shape::of(run);
        if let Some(line) = lines.get_mut(&shape) {
            line.remove(&QueuePlace::of(run));
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
        self.lines(&pool_of(run), &run.tenant)
            .and_then(|lines| lines.get(&Shape::of(run)))
            .is_some_and(|line| line.contains(&QueuePlace::of(run)))
    }

    /// Pools in which anything waits, with each tenant's lines.
    pub fn pools(&self) -> impl Iterator<Item = (&PoolName, &BTreeMap<TenantName, Lines>)> {
        self.pools.iter()
    }

    /// A run that waits and its equals behind it, in order; nothing if it does not wait.
    pub fn line_from(&self, run: &Run) -> impl Iterator<Item = RunId> {
        let place = QueuePlace::of(run);
        self.lines(&pool_of(run), &run.tenant)
            .and_then(|lines| lines.get(&Shape::of(run)))
            .into_iter()
            .flat_map(move |line| line.range(place..))
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
        let place = QueuePlace::of(run);
        self.contains(run).then(|| {
            self.lines(&pool_of(run), &run.tenant)
                .into_iter()
                .flat_map(BTreeMap::values)
                .map(|line| line.range(..place).count() as u64)
                .sum()
        })
    }
}

fn pool_of(run: &Run) -> PoolName {
    run.spec.pool.clone().unwrap_or_else(PoolName::default_pool)
}
