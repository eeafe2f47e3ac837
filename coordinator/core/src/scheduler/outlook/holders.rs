//! Who holds what a waiting run needs, and until when at the latest.

use crate::model::{MemberPhase, Meter, Run, RunId, TenantName, tenant_and_above};
use crate::policy::quotas::{self, Standing};
use crate::state::State;

/// Holders named at most: the first to end are those that matter.
const MOST_HOLDERS: usize = 5;

/// A run that holds some of what another waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Run.
    pub run: RunId,
    /// Its tenant.
    pub tenant: TenantName,
    /// What it holds of it, in thousandths of devices.
    pub held_milli: u64,
    /// Until when.
    pub until: Until,
}

/// Until when a run holds its devices. Ordered by who leaves first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// It has been told to stop.
    Stopping,
    /// Its time limit ends it then.
    Latest {
        /// When.
        at_us: u64,
    },
    /// Its time limit begins to count when it has started.
    AfterStart {
        /// How long from its start.
        limit_us: u64,
    },
    /// It has no time limit.
    NoLimit,
}

/// Whose use keeps a run from starting.
enum Needs<'a> {
    /// Devices that it accepts, whoever holds them.
    Devices,
    /// What this tenant and those below it hold: a ceiling or a guarantee is used up.
    /// Of one model, where the line is for one.
    UseOf(&'a TenantName, Option<&'a str>),
}

/// The first few holders of what a run needs, and how many more there are.
pub fn of(state: &State, run: &Run) -> (Vec<Holder>, usize) {
    let Some(pool) = run.spec.pool.as_ref().filter(|_| run.spec.gpu_milli() > 0) else {
        return (Vec::new(), 0);
    };
    let ways = state.ways(&run.spec);
    // Where it may start in one way, devices are what it lacks.
    let mut limits = ways.iter().map(|way| {
        state
            .meters(pool, way)
            .find_map(|meter| Some((limiting_tenant(state, run, meter)?, meter)))
    });
    let first = limits.next().flatten();
    let limit = first.filter(|_| limits.all(|limit| limit.is_some()));
    let needs = limit.as_ref().map_or(Needs::Devices, |(tenant, meter)| {
        Needs::UseOf(tenant, meter.model)
    });
    let demand = state.policy().demand(&run.spec);
    let mut holders: Vec<Holder> = state
        .active_runs()
        .filter(|holder| holder.spec.pool.as_ref() == Some(pool))
        .filter(|holder| match needs {
            Needs::Devices => true,
            Needs::UseOf(tenant, _) => {
                tenant_and_above(state.tenants(), &holder.tenant).any(|above| above.name == *tenant)
            }
        })
        .filter_map(|holder| {
            let held_milli: u64 = holder
                .last_attempt()?
                .members
                .iter()
                .filter(|member| member.phase != MemberPhase::Ended)
                .flat_map(|member| &member.devices)
                .filter(|grant| match needs {
                    Needs::UseOf(_, model) => model.is_none_or(|model| grant.model == model),
                    Needs::Devices => demand.accepts(&grant.model),
                })
                .map(|grant| u64::from(grant.share_milli))
                .sum();
            (held_milli > 0).then(|| Holder {
                run: holder.id,
                tenant: holder.tenant.clone(),
                held_milli,
                until: until(holder),
            })
        })
        .collect();
    holders.sort_by_key(|holder| {
        (
            holder.until,
            std::cmp::Reverse(holder.held_milli),
            holder.run,
        )
    });
    let more = holders.len().saturating_sub(MOST_HOLDERS);
    holders.truncate(MOST_HOLDERS);
    (holders, more)
}

/// Until when a live run holds what it holds.
pub fn until(run: &Run) -> Until {
    let Some(attempt) = run.last_attempt() else {
        return Until::NoLimit;
    };
    if attempt.stopping.is_some() {
        return Until::Stopping;
    }
    match (run.spec.time_limit_ms, attempt.started_us) {
        (None, _) => Until::NoLimit,
        (Some(limit_ms), None) => Until::AfterStart {
            limit_us: limit_ms.saturating_mul(1000),
        },
        (Some(limit_ms), Some(started_us)) => Until::Latest {
            at_us: started_us.saturating_add(limit_ms.saturating_mul(1000)),
        },
    }
}

/// The tenant whose line is used up, when that is what keeps the run waiting.
fn limiting_tenant(state: &State, run: &Run, meter: Meter<'_>) -> Option<TenantName> {
    let asked = run.spec.gpu_milli();
    let used = |name: &TenantName| state.used_on(name, meter);
    match quotas::standing(state.tenants(), meter, &run.tenant, asked, used) {
        Standing::Guaranteed => None,
        Standing::OverLimit { tenant, .. } => Some(tenant),
        Standing::Borrows { .. } => {
            let kept = quotas::kept_from_milli(state.tenants(), meter, &run.tenant, used);
            let all_is_kept = kept > 0 && asked.saturating_add(kept) > state.idle_on(meter);
            (!run.spec.preemptible || all_is_kept)
                .then(|| quotas::nearest_line(state.tenants(), &run.tenant, meter))
                .flatten()
                .map(|(owner, _)| owner.name.clone())
        }
    }
}
