//! Budgets: how much a tenant, or all that carries a cost tag, may spend in a period of the calendar.
//!
//! Plain values and the exact arithmetic of what has been spent. Who spends is `state`'s to say.

use super::{DAY_US, Date, HOUR_US, TenantName, WHOLE_DEVICE_MILLI};
use serde::{Deserialize, Serialize};

/// Charge units in a millionth of the currency. A charge unit is a thousandth of a device held for a
/// microsecond at a price of a millionth for each GPU-hour: small enough that no sum is ever rounded.
pub const CHARGE_PER_MICRO: u128 = WHOLE_DEVICE_MILLI as u128 * HOUR_US as u128;

/// A budget as it was set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Name.
    pub name: String,
    /// Whose spending counts.
    pub scope: BudgetScope,
    /// What may be spent in a period, in millionths of the currency.
    pub amount_micro: u64,
    /// How long, before counting begins anew.
    pub period: BudgetPeriod,
    /// From this much of the amount on it warns, in percent.
    pub warn_at_percent: u32,
    /// Whether no run starts once it is spent. What runs goes on.
    pub stop: bool,
    /// When it was first set: what is counted once begins here.
    pub created_us: u64,
}

/// Whose spending counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// A tenant's, with all below it.
    Tenant(TenantName),
    /// Every run's that carries this cost tag.
    Tag {
        /// Key.
        key: String,
        /// Value.
        value: String,
    },
}

impl std::fmt::Display for BudgetScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Tag { key, value } => write!(f, "tag {key}={value}"),
        }
    }
}

/// A period of the UTC calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// From Monday, as ISO 8601 has it.
    Week,
    /// From its first day.
    Month,
    /// From the first of January, April, July or October.
    Quarter,
    /// From when the budget was set, without end.
    Once,
}

impl BudgetPeriod {
    /// As written in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Week => "week",
            Self::Month => "month",
            Self::Quarter => "quarter",
            Self::Once => "once",
        }
    }

    /// Reads [`Self::as_str`].
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Week, Self::Month, Self::Quarter, Self::Once]
            .into_iter()
            .find(|period| period.as_str() == text)
    }

    /// When the period in which a moment lies begins and ends, in microseconds since 1970. Without an
    /// end where the calendar has none: at once, and in the last of the year 9999.
    fn window(self, at_us: u64, created_us: u64) -> (u64, Option<u64>) {
        let date = Date::of(at_us);
        let first = |month| Date {
            month,
            day: 1,
            ..date
        };
        // The first day of the month after these many.
        let after = |start: Date, months: u64| {
            let month = start.month + months;
            Date {
                year: start.year + (month - 1) / 12,
                month: (month - 1) % 12 + 1,
                day: 1,
            }
            .start_us()
        };
        let (start_us, end_us) = match self {
            Self::Once => return (created_us, None),
            Self::Week => {
                // The first of January 1970 was a Thursday.
                let weekday = (date.start_us() / DAY_US + 3) % 7;
                let start_us = date.start_us().saturating_sub(weekday * DAY_US);
                (start_us, date.start_us() + (7 - weekday) * DAY_US)
            }
            Self::Month => (first(date.month).start_us(), after(first(date.month), 1)),
            Self::Quarter => {
                let start = first((date.month - 1) / 3 * 3 + 1);
                (start.start_us(), after(start, 3))
            }
        };
        (start_us, (end_us > at_us).then_some(end_us))
    }
}

/// What has been spent of a budget in its period. Between changes it grows in proportion to time, so
/// that nothing is counted run by run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetMeter {
    /// Begin of the period, in microseconds since 1970.
    pub period_start_us: u64,
    /// Its end.
    pub period_end_us: Option<u64>,
    /// Spent in the period until `counted_us`, in charge units.
    spent: u128,
    /// Until when `spent` is counted.
    counted_us: u64,
    /// Charge units for each microsecond from then on.
    rate: u128,
    /// Its warning has been given in this period.
    pub warned: bool,
    /// It has been found spent in this period.
    pub reached: bool,
}

/// Where a budget stands, and where it comes to at the present rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetStanding {
    /// Spent in the period, in millionths of the currency.
    pub spent_micro: u64,
    /// Spent by what is held now, for each hour.
    pub rate_micro_per_hour: u64,
    /// Spent at the end of the period if nothing starts or ends; absent without an end.
    pub projected_micro: Option<u64>,
    /// When the amount will be spent, if that is in the period and still to come.
    pub reached_us: Option<u64>,
}

/// Something that happens to a budget by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetMoment {
    /// The warning is due.
    Warns,
    /// The amount is spent.
    Reached,
    /// The period is over.
    PeriodEnds,
}

impl BudgetMeter {
    /// A meter for the period in which `at_us` lies, with what was spent in it so far.
    pub fn new(budget: &Budget, at_us: u64, spent: u128, rate: u128) -> Self {
        let (period_start_us, period_end_us) = budget.period.window(at_us, budget.created_us);
        Self {
            period_start_us,
            period_end_us,
            spent,
            counted_us: at_us,
            rate,
            warned: false,
            reached: false,
        }
    }

    /// Spent in the period by a moment within it, in charge units.
    pub fn spent(&self, at_us: u64) -> u128 {
        let at_us = at_us.min(self.period_end_us.unwrap_or(u64::MAX));
        let since_us = u128::from(at_us.saturating_sub(self.counted_us));
        self.spent
            .saturating_add(self.rate.saturating_mul(since_us))
    }

    /// Charge units for each microsecond.
    pub fn rate(&self) -> u128 {
        self.rate
    }

    /// From a moment on that much more, or less, is charged for each microsecond.
    pub fn change_rate(&mut self, at_us: u64, less: u128, more: u128) {
        self.spent = self.spent(at_us);
        self.counted_us = at_us;
        self.rate = self.rate.saturating_add(more).saturating_sub(less);
    }

    /// What happens to it next, and when, if nothing changes until then.
    pub fn next(&self, budget: &Budget) -> Option<(u64, BudgetMoment)> {
        let end = self
            .period_end_us
            .map(|end_us| (end_us, BudgetMoment::PeriodEnds));
        let warns = (!self.warned)
            .then(|| self.reaches(budget.warning_charge()))
            .flatten()
            .map(|at_us| (at_us, BudgetMoment::Warns));
        let reached = (!self.reached)
            .then(|| self.reaches(budget.amount_charge()))
            .flatten()
            .map(|at_us| (at_us, BudgetMoment::Reached));
        // What is crossed in the very moment in which the period ends belongs to the period.
        [warns, reached, end]
            .into_iter()
            .flatten()
            .min_by_key(|(at_us, _)| *at_us)
    }

    /// The first moment by which so many charge units are spent, at this rate; in this period or not.
    pub fn reaches(&self, charge: u128) -> Option<u64> {
        let missing = charge.saturating_sub(self.spent);
        if missing == 0 {
            return Some(self.counted_us);
        }
        let wait_us = missing
            .checked_add(self.rate.checked_sub(1)?)?
            .checked_div(self.rate)?;
        self.counted_us.checked_add(u64::try_from(wait_us).ok()?)
    }

    /// Where it stands at a moment, and where it comes to if nothing starts or ends.
    pub fn standing(&self, budget: &Budget, now_us: u64) -> BudgetStanding {
        let spent = self.spent(now_us);
        let reached_us = self
            .reaches(budget.amount_charge())
            .filter(|at_us| self.period_end_us.is_none_or(|end_us| *at_us <= end_us))
            .filter(|_| spent < budget.amount_charge());
        BudgetStanding {
            spent_micro: charge_micro(spent),
            rate_micro_per_hour: charge_micro(self.rate.saturating_mul(u128::from(HOUR_US))),
            projected_micro: self
                .period_end_us
                .map(|end_us| charge_micro(self.spent(end_us.max(now_us)))),
            reached_us,
        }
    }

    /// Begins the period in which a moment lies, which is at or after the end of this one.
    pub fn begin_period(&mut self, budget: &Budget, at_us: u64) {
        *self = Self::new(budget, at_us, 0, self.rate);
        self.counted_us = self.period_start_us;
    }
}

impl Budget {
    /// Its amount in charge units.
    pub fn amount_charge(&self) -> u128 {
        u128::from(self.amount_micro) * CHARGE_PER_MICRO
    }

    /// From where on it warns, in charge units.
    pub fn warning_charge(&self) -> u128 {
        self.amount_charge() / 100 * u128::from(self.warn_at_percent)
    }
}

/// Charge units as money: millionths of the currency, rounded down.
pub fn charge_micro(charge: u128) -> u64 {
    u64::try_from(charge / CHARGE_PER_MICRO).unwrap_or(u64::MAX)
}

/// Money as people write it, rounded down to the cent: `12.50`.
pub fn money_figure(micro: u64) -> String {
    format!("{}.{:02}", micro / 1_000_000, micro % 1_000_000 / 10_000)
}

/// Money with its currency: `12.50 EUR`.
pub fn money_text(micro: u64, currency: &str) -> String {
    format!("{} {currency}", money_figure(micro))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(period: BudgetPeriod) -> Budget {
        Budget {
            name: "b".to_owned(),
            scope: BudgetScope::Tenant(TenantName::default_tenant()),
            amount_micro: 100,
            period,
            warn_at_percent: 80,
            stop: true,
            created_us: 77,
        }
    }

    #[test]
    fn periods_are_those_of_the_calendar() {
        let at = |year, month, day| Date { year, month, day }.start_us();
        let noon = |year, month, day| at(year, month, day) + DAY_US / 2;
        for (period, moment, start, end) in [
            // 2026-11-24 is a Tuesday; 2027-01-01 a Friday.
            (
                BudgetPeriod::Week,
                noon(2026, 11, 24),
                at(2026, 11, 23),
                at(2026, 11, 30),
            ),
            (
                BudgetPeriod::Week,
                at(2026, 11, 30),
                at(2026, 11, 30),
                at(2026, 12, 7),
            ),
            (
                BudgetPeriod::Week,
                noon(2027, 1, 1),
                at(2026, 12, 28),
                at(2027, 1, 4),
            ),
            (BudgetPeriod::Week, 0, 0, at(1970, 1, 5)),
            (
                BudgetPeriod::Month,
                noon(2028, 2, 29),
                at(2028, 2, 1),
                at(2028, 3, 1),
            ),
            (
                BudgetPeriod::Month,
                noon(2026, 12, 31),
                at(2026, 12, 1),
                at(2027, 1, 1),
            ),
            (
                BudgetPeriod::Quarter,
                noon(2026, 11, 24),
                at(2026, 10, 1),
                at(2027, 1, 1),
            ),
            (
                BudgetPeriod::Quarter,
                at(2026, 4, 1),
                at(2026, 4, 1),
                at(2026, 7, 1),
            ),
        ] {
            assert_eq!(
                period.window(moment, 77),
                (start, Some(end)),
                "{period:?} of {}",
                Date::of(moment)
            );
        }
        assert_eq!(BudgetPeriod::Once.window(5_000, 77), (77, None));
        for period in [BudgetPeriod::Week, BudgetPeriod::Month] {
            assert_eq!(period.window(u64::MAX, 0).1, None, "no calendar, no end");
        }
    }

    #[test]
    fn a_meter_says_to_the_microsecond_when_it_warns_and_when_it_is_spent() {
        let budget = budget(BudgetPeriod::Once);
        let mut meter = BudgetMeter::new(&budget, 1_000, 0, 0);
        assert_eq!(meter.next(&budget), None, "nothing is spent");
        // Seven for each microsecond: 80 % and the whole come at no round moment.
        meter.change_rate(1_000, 0, 7);
        let warns_us = 1_000 + u64::try_from(budget.warning_charge().div_ceil(7)).expect("small");
        assert_eq!(meter.next(&budget), Some((warns_us, BudgetMoment::Warns)));
        assert!(meter.spent(warns_us) >= budget.warning_charge());
        assert!(meter.spent(warns_us - 1) < budget.warning_charge());
        meter.warned = true;
        let reached_us = 1_000 + u64::try_from(budget.amount_charge().div_ceil(7)).expect("small");
        assert_eq!(
            meter.next(&budget),
            Some((reached_us, BudgetMoment::Reached))
        );
        meter.change_rate(2_000, 7, 0);
        assert_eq!((meter.spent(9_000), meter.rate()), (7_000, 0));
    }

    #[test]
    fn the_forecast_is_what_the_present_rate_comes_to() {
        let budget = budget(BudgetPeriod::Week);
        // One thousandth of a device at 1 for each GPU-hour, in millionths: 1000 for each hour.
        let mut meter = BudgetMeter::new(&budget, 4 * DAY_US - HOUR_US, 0, 1_000_000);
        let now_us = 4 * DAY_US - HOUR_US + HOUR_US / 20;
        assert_eq!(
            meter.standing(&budget, now_us),
            BudgetStanding {
                spent_micro: 50,
                rate_micro_per_hour: 1_000,
                projected_micro: Some(1_000),
                reached_us: Some(4 * DAY_US - HOUR_US + HOUR_US / 10),
            }
        );
        assert_eq!(
            meter.standing(&budget, 4 * DAY_US - 1).reached_us,
            None,
            "it is spent"
        );
        meter.change_rate(now_us, 1_000_000, 10);
        assert_eq!(
            meter.standing(&budget, now_us).reached_us,
            None,
            "not in this period"
        );
    }

    #[test]
    fn a_new_period_counts_from_its_begin_what_went_on_running() {
        let budget = budget(BudgetPeriod::Week);
        let mut meter = BudgetMeter::new(&budget, 4 * DAY_US - 10, 500, 3);
        let end_us = 4 * DAY_US;
        assert_eq!(
            meter.next(&budget),
            Some((end_us, BudgetMoment::PeriodEnds))
        );
        assert_eq!(
            meter.spent(end_us + 99),
            530,
            "no period spends after its end"
        );
        meter.begin_period(&budget, end_us + 5);
        assert_eq!(meter.period_start_us, end_us);
        assert_eq!(meter.spent(end_us + 5), 15);
    }
}
