//! Budgets between the core's types and the HTTP types.

use super::error::ApiError;
use coordinator_core::model::{Budget, BudgetPeriod, BudgetScope, RunId, TenantName};
use coordinator_core::state::BudgetAccount;
use platform_proto::http::{BudgetRequest, BudgetTag, BudgetView};

/// A budget that a client sent.
pub fn budget_from_http(name: &str, request: BudgetRequest) -> Result<Budget, ApiError> {
    let scope = match (request.tenant, request.tag) {
        (Some(tenant), None) => BudgetScope::Tenant(TenantName::new(&tenant)?),
        (None, Some(tag)) => BudgetScope::Tag {
            key: tag.key,
            value: tag.value,
        },
        _ => {
            return Err(ApiError::invalid(
                "a budget is of one tenant or of one cost tag",
            ));
        }
    };
    let period = BudgetPeriod::parse(&request.period).ok_or_else(|| {
        ApiError::invalid(format!("period {:?} is not known", request.period))
            .allowed("week, month, quarter, once")
    })?;
    Ok(Budget {
        name: name.to_owned(),
        scope,
        amount_micro: request.amount_micro,
        period,
        warn_at_percent: request.warn_at_percent,
        stop: request.stop,
        created_us: 0,
    })
}

/// A budget as clients read it, as it stands now.
pub fn budget_view(
    account: &BudgetAccount,
    currency: &str,
    now_us: u64,
    holds_back: &[RunId],
) -> BudgetView {
    let BudgetAccount { budget, meter, .. } = account;
    let standing = meter.standing(budget, now_us);
    let (tenant, tag) = match &budget.scope {
        BudgetScope::Tenant(tenant) => (Some(tenant.to_string()), None),
        BudgetScope::Tag { key, value } => (
            None,
            Some(BudgetTag {
                key: key.clone(),
                value: value.clone(),
            }),
        ),
    };
    // As runs meet it: what has been crossed since the last log entry takes effect with the next.
    let state = if meter.reached {
        if budget.stop { "stopped" } else { "spent" }
    } else if meter.warned {
        "warned"
    } else {
        "within"
    };
    BudgetView {
        name: budget.name.clone(),
        tenant,
        tag,
        amount_micro: budget.amount_micro,
        currency: currency.to_owned(),
        period: budget.period.as_str().to_owned(),
        warn_at_percent: budget.warn_at_percent,
        stop: budget.stop,
        state: state.to_owned(),
        period_start_us: meter.period_start_us,
        period_end_us: meter.period_end_us,
        spent_micro: standing.spent_micro,
        rate_micro_per_hour: standing.rate_micro_per_hour,
        projected_micro: standing.projected_micro,
        reached_us: standing.reached_us,
        holds_back: holds_back.iter().map(ToString::to_string).collect(),
    }
}
