//! `platform budgets`.

use super::Outcome;
use crate::client::{Client, escape};
use crate::failure::{Failure, exit};
use crate::output::{Printer, amounts, views};
use http::Method;
use platform_proto::http::{BudgetList, BudgetRequest, BudgetTag, BudgetView};

/// From which part of the amount on a new budget warns, in percent: late enough to be news, early
/// enough to act on.
const WARN_AT_PERCENT: u32 = 80;

/// What `platform budgets set` changes; what is not named stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// Tenant.
    pub tenant: Option<String>,
    /// Cost tag and its value.
    pub tag: Option<(String, String)>,
    /// Amount.
    pub amount_micro: Option<u64>,
    /// Period.
    pub period: Option<String>,
    /// When it warns.
    pub warn_at_percent: Option<u32>,
    /// Whether it stops.
    pub stop: Option<bool>,
}

/// `platform budgets list`.
pub async fn list(client: &Client, printer: &Printer) -> Outcome {
    let list: BudgetList = client.get("/v1/budgets").await?;
    printer.result(&list, |paint| views::budgets(&list.budgets, paint))?;
    Ok(exit::DONE)
}

/// `platform budgets show`.
pub async fn show(client: &Client, printer: &Printer, name: &str) -> Outcome {
    let list: BudgetList = client.get("/v1/budgets").await?;
    let budget = find(&list, name).ok_or_else(|| absent(&list, name))?;
    printer.result(budget, |_| views::budget(budget))?;
    Ok(exit::DONE)
}

/// `platform budgets set`.
pub async fn set(
    client: &Client,
    printer: &Printer,
    name: &str,
    changes: Changes,
    dry_run: bool,
) -> Outcome {
    if changes == Changes::default() {
        return Err(
            Failure::usage("nothing to change was named").hint("platform budgets set --help")
        );
    }
    let list: BudgetList = client.get("/v1/budgets").await?;
    let request = BudgetRequest {
        dry_run,
        ..changed(name, find(&list, name), changes)?
    };
    let path = format!("/v1/budgets/{}", escape(name));
    let budget: BudgetView = client.change(Method::PUT, &path, &request).await?;
    printer.result(&budget, |_| views::budget(&budget))?;
    if dry_run {
        printer.note("nothing was changed");
    }
    Ok(exit::DONE)
}

/// `platform budgets remove`.
pub async fn remove(client: &Client, printer: &Printer, name: &str, dry_run: bool) -> Outcome {
    if dry_run {
        show(client, printer, name).await?;
        printer.note("nothing was changed");
        return Ok(exit::DONE);
    }
    let path = format!("/v1/budgets/{}", escape(name));
    let budget: BudgetView = client.delete(&path).await?;
    printer.result(&budget, |_| {
        format!(
            "removed {}: {} were spent\n",
            name,
            amounts::money(budget.spent_micro, &budget.currency)
        )
    })?;
    Ok(exit::DONE)
}

fn find<'a>(list: &'a BudgetList, name: &str) -> Option<&'a BudgetView> {
    list.budgets.iter().find(|budget| budget.name == name)
}

fn absent(list: &BudgetList, name: &str) -> Failure {
    let names: Vec<&str> = list
        .budgets
        .iter()
        .map(|budget| budget.name.as_str())
        .collect();
    Failure::not_found(format!("no budget `{name}`")).allowed(if names.is_empty() {
        "none is set".to_owned()
    } else {
        names.join(", ")
    })
}

fn changed(
    name: &str,
    known: Option<&BudgetView>,
    changes: Changes,
) -> Result<BudgetRequest, Failure> {
    let (tenant, tag) = match (changes.tenant, changes.tag, known) {
        (None, None, Some(known)) => (known.tenant.clone(), known.tag.clone()),
        (None, None, None) => {
            return Err(Failure::usage(format!(
                "budget `{name}` is new, and whose it is was not said"
            ))
            .allowed("--tenant TENANT or --tag KEY=VALUE"));
        }
        (tenant, tag, _) => (tenant, tag.map(|(key, value)| BudgetTag { key, value })),
    };
    let amount_micro = changes
        .amount_micro
        .or(known.map(|known| known.amount_micro))
        .ok_or_else(|| {
            Failure::usage(format!("budget `{name}` is new, and no amount was given"))
                .hint("add --amount 5000")
        })?;
    Ok(BudgetRequest {
        tenant,
        tag,
        amount_micro,
        period: changes
            .period
            .or(known.map(|known| known.period.clone()))
            .unwrap_or_else(|| "month".to_owned()),
        warn_at_percent: changes
            .warn_at_percent
            .or(known.map(|known| known.warn_at_percent))
            .unwrap_or(WARN_AT_PERCENT),
        stop: changes
            .stop
            .or(known.map(|known| known.stop))
            .unwrap_or(false),
        dry_run: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshots::values;

    #[test]
    fn what_is_not_named_stays_as_it_was() {
        let known = values::budget();
        let changes = Changes {
            amount_micro: Some(1),
            ..Changes::default()
        };
        let request = changed("nlp-month", Some(&known), changes).unwrap();
        assert_eq!(
            (
                request.tenant,
                request.amount_micro,
                request.period,
                request.warn_at_percent,
                request.stop
            ),
            (known.tenant, 1, known.period, 80, true)
        );
    }

    #[test]
    fn a_new_budget_says_whose_it_is_and_how_much() {
        let refused = |changes| changed("new", None, changes).unwrap_err().to_string();
        let of_nlp = Changes {
            tenant: Some("nlp".to_owned()),
            ..Changes::default()
        };
        assert!(refused(Changes::default()).contains("--tag KEY=VALUE"));
        assert!(refused(of_nlp.clone()).contains("--amount"));
        let full = Changes {
            amount_micro: Some(5),
            ..of_nlp
        };
        let request = changed("new", None, full).unwrap();
        assert_eq!((request.period.as_str(), request.stop), ("month", false));
    }
}
