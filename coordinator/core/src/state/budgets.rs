//! Budgets in the replicated state: what each has spent, kept in step with every grant and release.
//!
//! Each budget keeps one sum that grows in proportion to time, so that neither admission nor a plan
//! looks at runs. It is counted anew, over every run that the state knows, only when the budget is
//! set or a tenant moves. What happens at a moment (a warning, the amount, the end of a period) is
//! found by its moment and goes to the audit once.

use super::{Event, Outcome, State};
use crate::model::{
    Budget, BudgetMeter, BudgetMoment, BudgetScope, Run, RunId, RunPhase, TenantName, WorkloadSpec,
    charge_micro, gpu_milli_us, tenant_and_above,
};
use crate::policy::{Refusal, RefusalKind, budgets};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Budgets in all: every team of a large company, for itself and for its projects.
const MOST_BUDGETS: usize = 1_000;
/// Who stands in the audit for what happens by itself.
const ACTOR: &str = "budgets";

/// A budget and what has been spent of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetAccount {
    /// As it was set.
    pub budget: Budget,
    /// What has been spent.
    pub meter: BudgetMeter,
    /// When something happens to it next; derived.
    #[serde(skip)]
    due_us: Option<u64>,
}

impl BudgetAccount {
    /// Whether it keeps runs from starting.
    pub fn stops(&self) -> bool {
        self.budget.stop && self.meter.reached
    }

    /// As it is once what has been crossed by a moment has been told: where it is only looked at, and
    /// not set.
    pub fn told(mut self, at_us: u64) -> Self {
        let spent = self.meter.spent(at_us);
        self.meter.warned |= spent >= self.budget.warning_charge();
        self.meter.reached |= spent >= self.budget.amount_charge();
        self
    }
}

/// Every budget, with whom each is about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Budgets {
    accounts: BTreeMap<String, BudgetAccount>,
    #[serde(skip)]
    of_tenants: BTreeMap<TenantName, BTreeSet<String>>,
    /// By key, then value.
    #[serde(skip)]
    of_tags: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    #[serde(skip)]
    due: BTreeSet<(u64, String)>,
}

impl Budgets {
    /// Makes everything derived anew.
    pub(super) fn reindex(&mut self) {
        let accounts = std::mem::take(&mut self.accounts);
        *self = Self::default();
        for account in accounts.into_values() {
            self.insert(account);
        }
    }

    /// When something happens to one of them next.
    pub(super) fn due_us(&self) -> Option<u64> {
        self.due.first().map(|(at_us, _)| *at_us)
    }

    fn insert(&mut self, account: BudgetAccount) {
        let name = account.budget.name.clone();
        self.remove(&name);
        self.named(&account.budget.scope).insert(name.clone());
        self.accounts.insert(name.clone(), account);
        self.reschedule(&name);
    }

    fn remove(&mut self, name: &str) -> Option<BudgetAccount> {
        let account = self.accounts.remove(name)?;
        let named = self.named(&account.budget.scope);
        named.remove(name);
        if named.is_empty() {
            self.forget(&account.budget.scope);
        }
        if let Some(due_us) = account.due_us {
            self.due.remove(&(due_us, name.to_owned()));
        }
        Some(account)
    }

    fn named(&mut self, scope: &BudgetScope) -> &mut BTreeSet<String> {
        match scope {
            BudgetScope::Tenant(tenant) => self.of_tenants.entry(tenant.clone()).or_default(),
            BudgetScope::Tag { key, value } => self
                .of_tags
                .entry(key.clone())
                .or_default()
                .entry(value.clone())
                .or_default(),
        }
    }

    /// Nobody has a budget of this scope any more.
    fn forget(&mut self, scope: &BudgetScope) {
        match scope {
            BudgetScope::Tenant(tenant) => {
                self.of_tenants.remove(tenant);
            }
            BudgetScope::Tag { key, value } => {
                if let Some(values) = self.of_tags.get_mut(key) {
                    values.remove(value);
                    if values.is_empty() {
                        self.of_tags.remove(key);
                    }
                }
            }
        }
    }

    fn reschedule(&mut self, name: &str) {
        let Some(account) = self.accounts.get_mut(name) else {
            return;
        };
        let next_us = account.meter.next(&account.budget).map(|(at_us, _)| at_us);
        let before_us = std::mem::replace(&mut account.due_us, next_us);
        if let Some(before_us) = before_us {
            self.due.remove(&(before_us, name.to_owned()));
        }
        if let Some(next_us) = next_us {
            self.due.insert((next_us, name.to_owned()));
        }
    }
}

impl State {
    /// Every budget, by name.
    pub fn budgets(&self) -> impl Iterator<Item = &BudgetAccount> {
        self.budgets.accounts.values()
    }

    /// The budget of this name.
    pub fn budget(&self, name: &str) -> Result<&BudgetAccount, Refusal> {
        self.budgets
            .accounts
            .get(name)
            .ok_or_else(|| self.unknown_budget(name))
    }

    /// The budgets that a run of this tenant draws on: its tenant's and those above it, and those of
    /// its cost tags. A run without devices costs nothing and draws on none.
    pub fn budgets_of<'a>(
        &'a self,
        tenant: &'a TenantName,
        spec: &'a WorkloadSpec,
    ) -> impl Iterator<Item = &'a BudgetAccount> {
        let draws = !self.budgets.accounts.is_empty() && spec.gpu_milli() > 0;
        let above = draws.then(|| tenant_and_above(&self.tenants, tenant));
        let of_tenants = above
            .into_iter()
            .flatten()
            .filter_map(|tenant| self.budgets.of_tenants.get(&tenant.name));
        let tags = draws.then_some(&spec.tags);
        let of_tags = tags
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| self.budgets.of_tags.get(key)?.get(value));
        of_tenants
            .chain(of_tags)
            .flatten()
            .filter_map(|name| self.budgets.accounts.get(name))
    }

    /// Whether a spent budget keeps every run with devices of this tenant from starting.
    pub fn is_tenant_stopped(&self, tenant: &TenantName) -> bool {
        !self.budgets.accounts.is_empty()
            && tenant_and_above(&self.tenants, tenant)
                .filter_map(|tenant| self.budgets.of_tenants.get(&tenant.name))
                .flatten()
                .filter_map(|name| self.budgets.accounts.get(name))
                .any(BudgetAccount::stops)
    }

    /// Whether a spent budget keeps a run from starting (I13).
    pub fn is_stopped(&self, tenant: &TenantName, spec: &WorkloadSpec) -> bool {
        self.budgets_of(tenant, spec).any(BudgetAccount::stops)
    }

    /// What a spent budget answers a run that it keeps from starting.
    pub fn stopped_by(&self, tenant: &TenantName, spec: &WorkloadSpec) -> Option<Refusal> {
        let account = self
            .budgets_of(tenant, spec)
            .find(|account| account.stops())?;
        Some(budgets::refusal(
            &account.budget,
            &account.meter,
            self.time_us,
            &self.policy.currency,
        ))
    }

    /// What the budgets that a run draws on warn of when it is submitted.
    pub fn budget_warnings(&self, tenant: &TenantName, spec: &WorkloadSpec) -> Vec<String> {
        self.budgets_of(tenant, spec)
            .filter(|account| account.meter.warned)
            .map(|account| {
                budgets::warning(
                    &account.budget,
                    &account.meter,
                    self.time_us,
                    &self.policy.currency,
                )
            })
            .collect()
    }

    /// From now on that much less, and more, is charged each microsecond for a run.
    pub(super) fn count_charge(
        &mut self,
        tenant: &TenantName,
        spec: &WorkloadSpec,
        at_us: u64,
        less: u128,
        more: u128,
    ) {
        if less == more {
            return;
        }
        let names: Vec<String> = self
            .budgets_of(tenant, spec)
            .map(|account| account.budget.name.clone())
            .collect();
        for name in names {
            if let Some(account) = self.budgets.accounts.get_mut(&name) {
                account.meter.change_rate(at_us, less, more);
            }
            self.budgets.reschedule(&name);
        }
    }

    /// Lets happen what was due by a moment, each in its own order, and tells the audit.
    pub(super) fn settle_budgets(&mut self, until_us: u64) {
        while let Some((due_us, name)) = self.budgets.due.first().cloned()
            && due_us <= until_us
        {
            let Some(account) = self.budgets.accounts.get_mut(&name) else {
                return;
            };
            let (budget, meter) = (&account.budget, &mut account.meter);
            let action = match meter.next(budget) {
                Some((_, BudgetMoment::Warns)) => {
                    meter.warned = true;
                    Some("budget.warn")
                }
                Some((_, BudgetMoment::Reached)) => {
                    meter.reached = true;
                    Some("budget.reached")
                }
                Some((_, BudgetMoment::PeriodEnds)) => {
                    meter.begin_period(budget, until_us);
                    None
                }
                None => None,
            };
            let detail = format!(
                "scope={} at_us={due_us} spent_micro={} amount_micro={} period={} period_start_us={}",
                budget.scope,
                charge_micro(meter.spent(due_us)),
                budget.amount_micro,
                budget.period.as_str(),
                meter.period_start_us
            );
            self.budgets.reschedule(&name);
            if let Some(action) = action {
                self.push_audit(ACTOR, action, name, detail);
            }
        }
    }

    pub(super) fn set_budget(&mut self, wanted: &Budget) -> Outcome {
        let account = self.budget_to_be(wanted)?;
        self.budgets.insert(account);
        self.settle_budgets(self.time_us);
        Ok(vec![Event::SettingsChanged])
    }

    pub(super) fn remove_budget(&mut self, name: &str) -> Outcome {
        if self.budgets.remove(name).is_none() {
            return Err(self.unknown_budget(name));
        }
        Ok(vec![Event::SettingsChanged])
    }

    /// A tenant has moved: what it has spent counts where it is now.
    pub(super) fn recount_tenants_budgets(&mut self) {
        let of_tenants: Vec<Budget> = self
            .budgets()
            .map(|account| account.budget.clone())
            .filter(|budget| matches!(budget.scope, BudgetScope::Tenant(_)))
            .collect();
        for budget in of_tenants {
            let account = self.counted(budget);
            self.budgets.insert(account);
        }
        self.settle_budgets(self.time_us);
    }

    /// The account that a budget would have if it were set now, with what was spent in its period
    /// already; the same check answers a dry run.
    pub fn budget_to_be(&self, wanted: &Budget) -> Result<BudgetAccount, Refusal> {
        budgets::check(wanted, &self.tenants)?;
        let known = self.budgets.accounts.get(&wanted.name);
        if known.is_none() && self.budgets.accounts.len() >= MOST_BUDGETS {
            return Err(
                Refusal::refused(format!("there are {MOST_BUDGETS} budgets already"))
                    .allowed(format!("up to {MOST_BUDGETS}"))
                    .hint("remove one with: platform budgets remove NAME"),
            );
        }
        // What is counted once goes on counting from its first day when only the amount changes.
        let created_us = known
            .map(|account| &account.budget)
            .filter(|known| (&known.scope, known.period) == (&wanted.scope, wanted.period))
            .map_or(self.time_us, |known| known.created_us);
        Ok(self.counted(Budget {
            created_us,
            ..wanted.clone()
        }))
    }

    /// The runs that wait and that an account would keep waiting, first submitted first.
    pub fn held_back_by(&self, account: &BudgetAccount) -> Vec<RunId> {
        if !account.budget.stop
            || account.meter.spent(self.time_us) < account.budget.amount_charge()
        {
            return Vec::new();
        }
        self.live
            .iter()
            .filter_map(|id| self.runs.get(id))
            .filter(|run| run.phase == RunPhase::Queued && self.draws(run, &account.budget.scope))
            .map(|run| run.id)
            .collect()
    }

    fn draws(&self, run: &Run, scope: &BudgetScope) -> bool {
        run.spec.gpu_milli() > 0
            && match scope {
                BudgetScope::Tenant(tenant) => {
                    tenant_and_above(&self.tenants, &run.tenant).any(|above| above.name == *tenant)
                }
                BudgetScope::Tag { key, value } => run.spec.tags.get(key) == Some(value),
            }
    }

    /// Counts a budget over every run that the state knows.
    fn counted(&self, budget: Budget) -> BudgetAccount {
        let mut meter = BudgetMeter::new(&budget, self.time_us, 0, 0);
        let (spent, rate) = self.charged_to(&budget.scope, meter.period_start_us);
        meter = BudgetMeter::new(&budget, self.time_us, spent, rate);
        if let Some(known) = self.budgets.accounts.get(&budget.name)
            && known.meter.period_start_us == meter.period_start_us
        {
            // What was told is not told again, unless it was no longer so in between.
            meter.warned = known.meter.warned && spent >= budget.warning_charge();
            meter.reached = known.meter.reached && spent >= budget.amount_charge();
        }
        BudgetAccount {
            budget,
            meter,
            due_us: None,
        }
    }

    /// What was charged to a scope since a moment, and what is charged for each microsecond now, by
    /// the runs themselves, in charge units.
    pub(super) fn charged_to(&self, scope: &BudgetScope, since_us: u64) -> (u128, u128) {
        let (mut spent, mut rate) = (0_u128, 0_u128);
        for run in self.runs.values().filter(|run| self.draws(run, scope)) {
            for attempt in &run.attempts {
                for member in &attempt.members {
                    let end_us = member.released_us.unwrap_or(self.time_us);
                    for grant in &member.devices {
                        for stretch in grant.stretches(attempt.placed_us, end_us) {
                            let start_us = stretch.start_us.max(since_us);
                            spent += gpu_milli_us(grant.share_milli, start_us, stretch.end_us)
                                * u128::from(stretch.price_per_gpu_hour_micro);
                        }
                        if member.released_us.is_none() {
                            rate += grant.charge_rate();
                        }
                    }
                }
            }
        }
        (spent, rate)
    }

    fn unknown_budget(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.budgets.accounts.keys().map(String::as_str).collect();
        Refusal::new(
            RefusalKind::NotFound,
            format!("budget {name:?} does not exist"),
        )
        .allowed(if known.is_empty() {
            "no budget is set".to_owned()
        } else {
            known.join(", ")
        })
        .hint("see the budgets with: platform budgets list")
    }
}
