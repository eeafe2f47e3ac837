//! Budgets as text: what is spent, what it comes to, and when it will be reached.

use crate::output::Paint;
use crate::output::amounts::{money, money_figure, utc};
use crate::output::tables::{pairs, plain, table};
use platform_proto::http::BudgetView;

/// Of whom it is.
fn scope(budget: &BudgetView) -> String {
    match (&budget.tenant, &budget.tag) {
        (Some(tenant), _) => plain(tenant),
        (None, Some(tag)) => format!("{}={}", plain(&tag.key), plain(&tag.value)),
        (None, None) => String::new(),
    }
}

fn percent(budget: &BudgetView) -> String {
    let percent = u128::from(budget.spent_micro) * 100 / u128::from(budget.amount_micro.max(1));
    format!("{percent} %")
}

fn reached(budget: &BudgetView) -> String {
    budget.reached_us.map_or_else(String::new, utc)
}

/// `platform budgets list`.
pub fn budgets(budgets: &[BudgetView], paint: Paint) -> String {
    let Some(first) = budgets.first() else {
        return "no budgets; make one with `platform budgets set`\n".to_owned();
    };
    let rows = budgets
        .iter()
        .map(|budget| {
            vec![
                plain(&budget.name),
                scope(budget),
                plain(&budget.period),
                money_figure(budget.amount_micro),
                money_figure(budget.spent_micro),
                percent(budget),
                money_figure(budget.rate_micro_per_hour),
                budget
                    .projected_micro
                    .map_or_else(|| "-".to_owned(), money_figure),
                reached(budget),
                plain(&budget.state),
            ]
        })
        .collect();
    let mut text = table(
        &[
            "budget",
            "of",
            "period",
            "amount",
            "spent",
            "",
            "per hour",
            "at its end",
            "reached on",
            "state",
        ],
        rows,
        paint,
    );
    text.push_str(&format!(
        "in {}; per hour: what is held now; at its end: when nothing starts or ends until then\n",
        plain(&first.currency)
    ));
    text
}

/// `platform budgets show`.
pub fn budget(budget: &BudgetView) -> String {
    let figure = |micro| money(micro, &budget.currency);
    let held_back = budget.holds_back.len();
    pairs(&[
        ("budget", plain(&budget.name)),
        (
            "of",
            match budget.tenant {
                Some(_) => format!("tenant {} and all below it", scope(budget)),
                None => format!("every run with the tag {}", scope(budget)),
            },
        ),
        ("amount", figure(budget.amount_micro)),
        (
            "period",
            match budget.period_end_us {
                Some(end_us) => format!(
                    "{}, from {} until {}",
                    plain(&budget.period),
                    utc(budget.period_start_us),
                    utc(end_us)
                ),
                None => format!("once, from {}", utc(budget.period_start_us)),
            },
        ),
        (
            "spent",
            format!("{} ({})", figure(budget.spent_micro), percent(budget)),
        ),
        (
            "rate now",
            format!("{} an hour", figure(budget.rate_micro_per_hour)),
        ),
        (
            "at its end",
            budget.projected_micro.map(figure).unwrap_or_default(),
        ),
        ("reached on", reached(budget)),
        ("warns", format!("from {} % on", budget.warn_at_percent)),
        (
            "when spent",
            if budget.stop {
                "no run of it starts; what runs goes on".to_owned()
            } else {
                "it warns, and runs start all the same".to_owned()
            },
        ),
        ("state", plain(&budget.state)),
        (
            "holds back",
            if held_back == 0 {
                String::new()
            } else {
                const MOST_NAMED: usize = 10;
                let named: Vec<String> = budget
                    .holds_back
                    .iter()
                    .take(MOST_NAMED)
                    .map(|run| plain(run))
                    .collect();
                match held_back.saturating_sub(MOST_NAMED) {
                    0 => named.join(", "),
                    more => format!("{} and {more} more", named.join(", ")),
                }
            },
        ),
    ])
}

/// Which budgets a run draws on, in its plan.
pub fn budgets_drawn_on(budgets: &[BudgetView]) -> String {
    let lines: Vec<String> = budgets
        .iter()
        .map(|budget| {
            format!(
                "{}: {} of {} spent {}",
                plain(&budget.name),
                money_figure(budget.spent_micro),
                money(budget.amount_micro, &budget.currency),
                match budget.period.as_str() {
                    "once" => "so far".to_owned(),
                    period => format!("this {}", plain(period)),
                }
            )
        })
        .collect();
    lines.join("\n")
}
