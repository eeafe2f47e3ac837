//! What a tenant's runs waited, held and cost: as it happened, and as it would have been.

use super::{History, Replayed};
use coordinator_core::model::{Charge, PastRun, TenantName};
use serde::Serialize;
use std::collections::BTreeMap;

/// One tenant's period, or everybody's.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Figures {
    /// Runs that were submitted in the period.
    pub runs: usize,
    /// Of them, refused when they were submitted.
    pub refused: usize,
    /// Of them, never given devices: cancelled before, or waiting when the period ended.
    pub not_started: usize,
    /// What they waited on average, in microseconds. One that waits yet counts as far as it has.
    pub wait_mean_us: u64,
    /// What no more than one in twenty waited longer than.
    pub wait_p95_us: u64,
    /// Times that a run was stopped for another.
    pub preemptions: usize,
    /// Devices times microseconds held within the period, also by runs submitted before it.
    pub gpu_us: u64,
    /// That, as a share of all devices for the whole period.
    pub utilisation: f64,
    /// Millionths of the currency.
    pub cost_micro: u64,
}

/// One tenant's figures, side by side.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TenantComparison {
    /// Tenant; empty: all together.
    pub tenant: String,
    /// As it happened.
    pub happened: Figures,
    /// Replayed with the quotas of today.
    pub replayed: Figures,
    /// Replayed with those proposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposed: Option<Figures>,
}

/// Everybody's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// All together.
    pub total: TenantComparison,
    /// By name.
    pub tenants: Vec<TenantComparison>,
}

/// What one way of telling the period says of each run, by its place in the history.
struct Told<'a> {
    runs: Vec<Option<&'a PastRun>>,
    charges: BTreeMap<TenantName, Charge>,
}

/// Compares; `capacity_milli` are the devices that there were, in thousandths.
pub fn compare(
    history: &History,
    replayed: &Replayed,
    proposed: Option<&Replayed>,
    capacity_milli: u64,
) -> Comparison {
    let mut happened = Told {
        runs: history.runs.iter().map(Some).collect(),
        charges: BTreeMap::new(),
    };
    for run in &history.runs {
        let charge = happened.charges.entry(run.tenant.clone()).or_default();
        charge.gpu_milli_us += run.charge.gpu_milli_us;
        charge.cost_micro += run.charge.cost_micro;
    }
    let told =
        |replayed: &'_ Replayed| -> BTreeMap<TenantName, Charge> { replayed.charges.clone() };
    let replayed = Told {
        charges: told(replayed),
        runs: replayed.runs.iter().map(Option::as_ref).collect(),
    };
    let proposed = proposed.map(|proposed| Told {
        charges: told(proposed),
        runs: proposed.runs.iter().map(Option::as_ref).collect(),
    });
    let of = |tenant: Option<&TenantName>| TenantComparison {
        tenant: tenant.map(ToString::to_string).unwrap_or_default(),
        happened: figures(history, &happened, tenant, capacity_milli),
        replayed: figures(history, &replayed, tenant, capacity_milli),
        proposed: proposed
            .as_ref()
            .map(|proposed| figures(history, proposed, tenant, capacity_milli)),
    };
    let tenants: BTreeMap<&TenantName, ()> =
        history.runs.iter().map(|run| (&run.tenant, ())).collect();
    Comparison {
        total: of(None),
        tenants: tenants.into_keys().map(|tenant| of(Some(tenant))).collect(),
    }
}

fn figures(
    history: &History,
    told: &Told<'_>,
    tenant: Option<&TenantName>,
    capacity_milli: u64,
) -> Figures {
    let mut figures = Figures::default();
    let mut waits: Vec<u64> = Vec::new();
    for (run, what) in history.runs.iter().zip(&told.runs) {
        if tenant.is_some_and(|tenant| run.tenant != *tenant) {
            continue;
        }
        figures.preemptions += what.map_or(0, |run| {
            let within = |spell: &&coordinator_core::model::Spell| {
                spell.preempted && spell.ended_us.is_none_or(|at_us| at_us >= history.since_us)
            };
            run.spells.iter().filter(within).count()
        });
        // Of what was submitted before, the replay knows no wait.
        if run.submitted_us < history.since_us {
            continue;
        }
        figures.runs += 1;
        match what {
            None => figures.refused += 1,
            Some(run) => {
                figures.not_started += usize::from(run.spells.is_empty());
                waits.push(run.waited_us(history.until_us));
            }
        }
    }
    waits.sort_unstable();
    if let Some(last) = waits.len().checked_sub(1) {
        let sum: u128 = waits.iter().map(|wait_us| u128::from(*wait_us)).sum();
        figures.wait_mean_us = u64::try_from(sum / waits.len() as u128).unwrap_or(u64::MAX);
        figures.wait_p95_us = waits[(last * 95).div_ceil(100)];
    }
    let mut charge = Charge::default();
    for (whose, theirs) in &told.charges {
        if tenant.is_none_or(|tenant| whose == tenant) {
            charge.gpu_milli_us += theirs.gpu_milli_us;
            charge.cost_micro += theirs.cost_micro;
        }
    }
    figures.gpu_us = u64::try_from(charge.gpu_milli_us / 1000).unwrap_or(u64::MAX);
    figures.cost_micro = u64::try_from(charge.cost_micro).unwrap_or(u64::MAX);
    let all =
        u128::from(capacity_milli) * u128::from(history.until_us.saturating_sub(history.since_us));
    figures.utilisation = if all == 0 {
        0.0
    } else {
        charge.gpu_milli_us as f64 / all as f64
    };
    figures
}
