//! Prices in effect from a moment: what is to come in the policy, and what a grant was charged when.
//!
//! A run is charged at each moment what the policy says at that moment, so a grant remembers every
//! change it has lived through and its ledger rows are cut there. Nothing of the past can be changed:
//! a price begins now or later.

use super::DeviceGrant;
use serde::{Deserialize, Serialize};

/// A price that comes into effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScheduledPrice {
    /// When, in microseconds since 1970.
    pub from_us: u64,
    /// Of which device model.
    pub gpu_model: String,
    /// For each GPU-hour, in millionths of the currency.
    pub price_per_gpu_hour_micro: u64,
}

/// A price that a grant is charged from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceFrom {
    /// When, in microseconds since 1970.
    pub from_us: u64,
    /// For each GPU-hour, in millionths of the currency.
    pub price_per_gpu_hour_micro: u64,
}

/// A stretch of time at one price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// From, in microseconds since 1970.
    pub start_us: u64,
    /// Until.
    pub end_us: u64,
    /// For each GPU-hour, in millionths of the currency.
    pub price_per_gpu_hour_micro: u64,
}

impl DeviceGrant {
    /// What it is charged for each GPU-hour now, in millionths of the currency.
    pub fn price_now_micro(&self) -> u64 {
        self.later_prices
            .last()
            .map_or(self.price_per_gpu_hour_micro, |later| {
                later.price_per_gpu_hour_micro
            })
    }

    /// What it is charged for each microsecond now, in the units of [`super::CHARGE_PER_MICRO`].
    pub fn charge_rate(&self) -> u128 {
        u128::from(self.share_milli) * u128::from(self.price_now_micro())
    }

    /// Charges another price from a moment on, which is not before any change so far. `granted_us` is
    /// when it was granted.
    pub fn charge_from(&mut self, granted_us: u64, from_us: u64, price_per_gpu_hour_micro: u64) {
        match self.later_prices.last_mut() {
            Some(last) if from_us <= last.from_us => {
                last.price_per_gpu_hour_micro = price_per_gpu_hour_micro;
            }
            None if from_us <= granted_us => {
                self.price_per_gpu_hour_micro = price_per_gpu_hour_micro;
            }
            _ => self.later_prices.push(PriceFrom {
                from_us,
                price_per_gpu_hour_micro,
            }),
        }
    }

    /// The stretches at one price of a grant held from `start_us` until `end_us`: at least one, without
    /// a gap.
    pub fn stretches(&self, start_us: u64, end_us: u64) -> impl Iterator<Item = Stretch> {
        let begins = std::iter::once((start_us, self.price_per_gpu_hour_micro)).chain(
            self.later_prices
                .iter()
                .map(|later| (later.from_us, later.price_per_gpu_hour_micro)),
        );
        let ends = self
            .later_prices
            .iter()
            .map(|later| later.from_us)
            .chain(std::iter::once(end_us));
        begins
            .zip(ends)
            .map(|((start_us, price_per_gpu_hour_micro), end_us)| Stretch {
                start_us,
                end_us,
                price_per_gpu_hour_micro,
            })
    }
}
