//! Prices come into effect at their moment, and every live grant is charged by them from then on.

use super::State;
use crate::model::{MemberPhase, Policy, ScheduledPrice, utc_text};
use crate::policy::Refusal;

/// Prices to come: a few changes a year of a few dozen models.
const MOST_SCHEDULED_PRICES: usize = 512;
const LONGEST_MODEL: usize = 128;

impl State {
    /// Whether something takes effect by this moment that no command brings: a price to come, or
    /// something of a budget.
    pub fn is_due(&self, now_us: u64) -> bool {
        let price = self.policy.scheduled_prices.first();
        price
            .map(|price| price.from_us)
            .into_iter()
            .chain(self.budgets.due_us())
            .any(|due_us| due_us <= now_us)
    }

    /// Puts in effect what was due by now, each price from its own moment: an entry that comes late
    /// changes nothing of what is charged.
    pub(super) fn bring_prices_into_effect(&mut self) {
        let due = self
            .policy
            .scheduled_prices
            .partition_point(|price| price.from_us <= self.time_us);
        if due == 0 {
            return;
        }
        let due: Vec<ScheduledPrice> = self.policy.scheduled_prices.drain(..due).collect();
        // Whoever read the policy before would bring the old prices back.
        self.policy.version += 1;
        for price in due {
            self.settle_budgets(price.from_us);
            self.policy
                .gpu_hour_price_micro
                .insert(price.gpu_model, price.price_per_gpu_hour_micro);
            self.charge_live_grants(price.from_us);
        }
    }

    /// Charges every live grant by the policy in force, from a moment on that is not before anything
    /// that has happened to it.
    pub(super) fn charge_live_grants(&mut self, from_us: u64) {
        let mut changed = Vec::new();
        for id in &self.active {
            let Some(run) = self.runs.get_mut(id) else {
                continue;
            };
            let Some(attempt) = run.attempts.last_mut() else {
                continue;
            };
            let granted_us = attempt.placed_us;
            let (mut less, mut more) = (0, 0);
            for grant in attempt
                .members
                .iter_mut()
                .filter(|member| member.phase != MemberPhase::Ended)
                .flat_map(|member| &mut member.devices)
            {
                let price = self.policy.price_per_gpu_hour_micro(&grant.model);
                if price != grant.price_now_micro() {
                    less += grant.charge_rate();
                    grant.charge_from(granted_us, from_us, price);
                    more += grant.charge_rate();
                }
            }
            if less != more {
                changed.push((run.tenant.clone(), run.spec.clone(), less, more));
            }
        }
        for (tenant, spec, less, more) in changed {
            self.count_charge(&tenant, &spec, from_us, less, more);
        }
    }

    /// Whether the prices to come of a new policy may be set, and their list in order.
    pub(super) fn check_scheduled_prices(
        &self,
        policy: &Policy,
    ) -> Result<Vec<ScheduledPrice>, Refusal> {
        let mut prices = policy.scheduled_prices.clone();
        prices.sort_unstable();
        if prices.len() > MOST_SCHEDULED_PRICES {
            return Err(
                Refusal::invalid(format!("{} prices to come are too many", prices.len()))
                    .allowed(format!("up to {MOST_SCHEDULED_PRICES}")),
            );
        }
        for price in &prices {
            let model = &price.gpu_model;
            if model.is_empty()
                || model.len() > LONGEST_MODEL
                || model.chars().any(char::is_control)
            {
                return Err(
                    Refusal::invalid(format!("GPU model {model:?} is not valid"))
                        .allowed(format!("1 to {LONGEST_MODEL} bytes, as in A100-80G")),
                );
            }
            if price.from_us <= self.time_us {
                return Err(Refusal::refused(format!(
                    "the price of {model} cannot be in effect from {}: that has passed, and what was charged stays",
                    utc_text(price.from_us)
                ))
                .allowed(format!("a moment after {}", utc_text(self.time_us)))
                .hint("leave out --from to have it in effect at once"));
            }
        }
        if let Some(pair) = prices.windows(2).find(|pair| {
            (pair[0].from_us, &pair[0].gpu_model) == (pair[1].from_us, &pair[1].gpu_model)
        }) {
            return Err(Refusal::invalid(format!(
                "{} has two prices from {}",
                pair[0].gpu_model,
                utc_text(pair[0].from_us)
            ))
            .allowed("one price for each model and moment"));
        }
        Ok(prices)
    }
}
