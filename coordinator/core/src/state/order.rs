//! The place of each waiting run among its tenant's, by the order that its pool has.
//!
//! A place depends on the run, on its pool's settings and on whether the run has waited for as long as
//! those let it wait. So runs are filed again when the settings change, all of that pool once, and when
//! one of them is due: nothing is sorted when a plan is made.

use super::{Filed, State};
use crate::model::{
    Levels, OVERDUE, Pool, PoolName, PoolOrder, QueuePlace, Run, RunId, TenantName, UserName,
    WithinLevel, WorkloadSpec,
};

impl State {
    /// Where a run is filed that waits now.
    pub(super) fn filed(&self, run: &Run) -> Filed {
        let pool = run.spec.pool.as_ref().and_then(|pool| self.pools.get(pool));
        file(run, pool, self.time_us)
    }

    /// Files a run that waits where it stands now.
    pub(super) fn file_anew(&mut self, id: RunId) {
        if let Some(run) = self.runs.get(&id) {
            let filed = self.filed(run);
            self.queues.insert(run, filed);
        }
    }

    /// Files again every run that waits in a pool whose order has changed.
    pub(super) fn order_anew(&mut self, pool: &PoolName) {
        for id in self.queues.of_pool(pool) {
            self.file_anew(id);
        }
    }

    /// Files again those that have waited as long as their pool lets them wait behind others.
    pub(super) fn pass_age_bounds(&mut self) {
        while let Some(id) = self.queues.due_by(self.time_us) {
            self.file_anew(id);
        }
    }

    /// Runs of its tenant that would wait ahead of a resolved spec, were it submitted now.
    pub fn would_wait_behind(
        &self,
        spec: &WorkloadSpec,
        tenant: &TenantName,
        user: &UserName,
    ) -> u64 {
        let name = spec.pool.clone().unwrap_or_else(PoolName::default_pool);
        let order = self
            .pools
            .get(&name)
            .map_or(PoolOrder::Fifo, |pool| pool.order);
        let place = place(
            order,
            spec,
            false,
            0,
            self.history.predict_ms(user, spec),
            self.time_us,
            RunId(self.next_run),
        );
        self.queues.ahead_of(&name, tenant, place)
    }
}

fn file(run: &Run, pool: Option<&Pool>, now_us: u64) -> Filed {
    let order = pool.map_or(PoolOrder::Fifo, |pool| pool.order);
    // In the order of submission nobody is ever passed by.
    let due_us = pool.filter(|_| order != PoolOrder::Fifo).map(|pool| {
        run.submitted_us
            .saturating_add(run.held_us())
            .saturating_add(pool.age_bound_ms.saturating_mul(1000))
    });
    let is_overdue = due_us.is_some_and(|due_us| due_us <= now_us);
    let attained = match order {
        PoolOrder::LeastAttained => run.attained_gpu_milli_us(),
        PoolOrder::Fifo | PoolOrder::ShortestPredicted => 0,
    };
    Filed {
        place: place(
            order,
            &run.spec,
            is_overdue,
            attained,
            run.predicted_ms,
            run.submitted_us,
            run.id,
        ),
        due_us: due_us.filter(|_| !is_overdue),
    }
}

fn place(
    order: PoolOrder,
    spec: &WorkloadSpec,
    is_overdue: bool,
    attained_gpu_milli_us: u128,
    predicted_ms: Option<u64>,
    submitted_us: u64,
    run: RunId,
) -> QueuePlace {
    let level = if is_overdue {
        OVERDUE
    } else {
        Levels::standard()
            .of(attained_gpu_milli_us)
            .saturating_add(OVERDUE + 1)
    };
    let within = match order {
        PoolOrder::Fifo | PoolOrder::LeastAttained => WithinLevel::FirstSubmitted,
        PoolOrder::ShortestPredicted => WithinLevel::ShortestPredicted,
    };
    let predicted_us = predicted_ms.map(|ms| ms.saturating_mul(1000));
    // Of places 0 goes first, of priorities the highest.
    QueuePlace::new(
        i32::MAX.abs_diff(spec.priority),
        level,
        within.rank(level, spec.gpu_milli(), predicted_us),
        submitted_us,
        run,
    )
}
