//! The rules of budgets: what may be set, what a spent one says to a run, and what it warns of.

use super::Refusal;
use crate::model::{
    Budget, BudgetMeter, BudgetPeriod, BudgetScope, Tenant, TenantName, charge_micro, is_name,
    money_figure, money_text, utc_text,
};
use std::collections::BTreeMap;

/// A thousand million of any currency.
const MOST_AMOUNT_MICRO: u64 = 1_000_000_000_000_000;
const LONGEST_VALUE: usize = 128;

/// Whether a budget may be set so.
pub fn check(budget: &Budget, tenants: &BTreeMap<TenantName, Tenant>) -> Result<(), Refusal> {
    let name = &budget.name;
    if !is_name(name) {
        return Err(
            Refusal::invalid(format!("budget name {name:?} is not valid")).allowed(
                "1 to 63 lower-case letters, digits, '-', '_' or '.', beginning with a letter or digit",
            ),
        );
    }
    match &budget.scope {
        BudgetScope::Tenant(tenant) => {
            if !tenants.contains_key(tenant) {
                return Err(Refusal::new(
                    super::RefusalKind::NotFound,
                    format!("tenant {:?} does not exist", tenant.as_str()),
                )
                .allowed(super::list(tenants.keys().map(TenantName::as_str)))
                .hint("see the tenants with: platform tenants list"));
            }
        }
        BudgetScope::Tag { key, value } => {
            if !is_name(key)
                || value.is_empty()
                || value.len() > LONGEST_VALUE
                || value.chars().any(char::is_control)
            {
                return Err(
                    Refusal::invalid(format!("tag {key}={value:?} is not valid")).allowed(format!(
                        "a cost tag's key, and a value of 1 to {LONGEST_VALUE} bytes without control characters"
                    )),
                );
            }
        }
    }
    if !(1..=MOST_AMOUNT_MICRO).contains(&budget.amount_micro) {
        return Err(Refusal::invalid(format!(
            "an amount of {} millionths is out of range",
            budget.amount_micro
        ))
        .allowed("more than 0 and at most 1000000000")
        .hint("to give a tenant nothing, set its limit: platform quotas set"));
    }
    if !(1..=100).contains(&budget.warn_at_percent) {
        return Err(Refusal::invalid(format!(
            "a warning at {} % is out of range",
            budget.warn_at_percent
        ))
        .allowed("1 to 100"));
    }
    Ok(())
}

/// The period that a meter counts, in words.
pub fn period_words(budget: &Budget, meter: &BudgetMeter) -> String {
    match budget.period {
        BudgetPeriod::Once => format!("since {}", utc_text(meter.period_start_us)),
        period => format!(
            "in the {} from {}",
            period.as_str(),
            utc_text(meter.period_start_us)
        ),
    }
}

/// What has been spent of a budget, in words: `83 % is spent, 4150.00 of 5000.00 EUR, in ...`.
pub fn spent_words(budget: &Budget, meter: &BudgetMeter, now_us: u64, currency: &str) -> String {
    let spent = meter.spent(now_us);
    let percent = (spent / (budget.amount_charge() / 100).max(1)).min(99_999);
    format!(
        "{percent} % is spent, {} of {}, {}",
        money_figure(charge_micro(spent)),
        money_text(budget.amount_micro, currency),
        period_words(budget, meter)
    )
}

/// What a spent budget that says stop answers a run.
pub fn refusal(budget: &Budget, meter: &BudgetMeter, now_us: u64, currency: &str) -> Refusal {
    let name = &budget.name;
    let refusal = Refusal::refused(format!(
        "budget {name} of {} stops new runs: {}",
        budget.scope,
        spent_words(budget, meter, now_us, currency)
    ));
    let raise = format!(
        "have it raised: platform budgets set {name} --amount N; see what is spent: platform budgets show {name}"
    );
    match meter.period_end_us {
        Some(end_us) => refusal
            .allowed(format!("new runs from {}", utc_text(end_us)))
            .hint(format!(
                "wait for the next {}, or {raise}",
                budget.period.as_str()
            )),
        None => refusal.allowed("no new run of it").hint(raise),
    }
}

/// What a budget that warns says to a run that is submitted.
pub fn warning(budget: &Budget, meter: &BudgetMeter, now_us: u64, currency: &str) -> String {
    let until = match meter.reaches(budget.amount_charge()) {
        _ if meter.reached => String::new(),
        Some(at_us) if meter.period_end_us.is_none_or(|end_us| at_us <= end_us) => {
            format!("; at this rate it is spent on {}", utc_text(at_us))
        }
        _ => String::new(),
    };
    format!(
        "budget {} of {}: {}{until}",
        budget.name,
        budget.scope,
        spent_words(budget, meter, now_us, currency)
    )
}
