//! Cost: what has been held and released, from the ledger, and what is held now, from the state.

use super::App;
use super::auth::Identity;
use super::convert::whole_gpu_us;
use super::error::ApiError;
use axum::extract::{Query, State};
use axum::{Extension, Json};
use coordinator_core::model::{LedgerRow, OutboxBody, Role};
use coordinator_tracking::{CostBy, CostTotal};
use platform_proto::http::{CostRate, CostReport, CostRow};
use serde::Deserialize;

const DEFAULT_WINDOW_US: u64 = 7 * 24 * 3_600 * 1_000_000;

/// What to group by, over which window.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostQuery {
    by: Option<String>,
    since_us: Option<u64>,
    until_us: Option<u64>,
}

/// GET /v1/cost. Everyone sees their own tenant's cost, a platform administrator every tenant's.
pub async fn cost(
    State(app): State<App>,
    Extension(identity): Extension<Identity>,
    Query(query): Query<CostQuery>,
) -> Result<Json<CostReport>, ApiError> {
    let now_us = crate::now_us();
    let until_us = query.until_us.unwrap_or(now_us);
    let since_us = query
        .since_us
        .unwrap_or_else(|| until_us.saturating_sub(DEFAULT_WINDOW_US));
    if since_us >= until_us {
        return Err(ApiError::invalid(format!(
            "the window from {since_us} to {until_us} is empty"
        ))
        .allowed("a 'since' before 'until'"));
    }
    let by = query.by.unwrap_or_else(|| "team".to_owned());
    // The state is read first, and the ledger only as far as the outbox had come then: what is
    // released in between is counted once, as still held.
    let (through, unexported, open, currency) = app.driver.read(|state| {
        let unexported: Vec<(u64, LedgerRow)> = state
            .outbox()
            .iter()
            .filter_map(|record| match &record.body {
                OutboxBody::Ledger(row) => Some((record.sequence, row.clone())),
                OutboxBody::Audit(_) | OutboxBody::Decision(_) => None,
            })
            .collect();
        (
            state.outbox_sequence(),
            unexported,
            state.open_ledger_rows(now_us.max(state.time_us())),
            state.policy().currency.clone(),
        )
    });
    let tenant = (!identity.role.includes(Role::PlatformAdmin)).then(|| identity.tenant.clone());
    let mut report = app
        .tracking
        .cost(
            CostBy::new(&by),
            since_us,
            until_us,
            through,
            tenant.as_ref(),
        )
        .await?;
    let stored = report.through();
    let not_stored = unexported
        .iter()
        .filter(|(sequence, _)| *sequence > stored)
        .map(|(_, row)| row);
    for row in not_stored.chain(&open) {
        if tenant.as_ref().is_none_or(|tenant| row.tenant == *tenant) {
            report.add(row);
        }
    }
    Ok(Json(CostReport {
        by,
        since_us,
        until_us,
        rows: report.rows().iter().map(row).collect(),
        total: row(&report.total()),
        rates: report
            .rates()
            .map(|(gpu_model, price_micro, total)| {
                let CostRow {
                    gpu_us, cost_micro, ..
                } = row(&total);
                CostRate {
                    gpu_model: gpu_model.to_owned(),
                    price_micro,
                    gpu_us,
                    cost_micro,
                }
            })
            .collect(),
        currency,
        simulated: report.simulated(),
    }))
}

fn row(total: &CostTotal) -> CostRow {
    CostRow {
        key: total.key.clone(),
        runs: total.runs,
        gpu_us: whole_gpu_us(total.gpu_milli_us),
        cost_micro: u64::try_from(total.cost_micro).unwrap_or(u64::MAX),
    }
}
