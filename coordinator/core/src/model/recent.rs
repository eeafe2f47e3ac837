//! What a tenant held of late: a mean over its past in which an hour counts half as much as the one a
//! half-life later.
//!
//! Held amounts change in steps, so the mean has a closed form and nobody needs to touch it in between.
//! It is worked out in whole numbers, for every replica must come to the same.

use serde::{Deserialize, Serialize};

/// Binary places of a mean below one thousandth of a device: a million small changes round away less
/// than a thousandth of it.
const FINE_BITS: u32 = 32;
/// Binary places of a factor of decay.
const FACTOR_BITS: u32 = 63;
/// Binary places that an exponent is taken to: a microsecond of a half-life of a month is 2^-41.
const EXPONENT_BITS: u32 = 56;

/// `2^-(2^-place)` for each binary place of an exponent, each the square root of the one before.
const ROOTS: [u64; EXPONENT_BITS as usize] = roots();

const fn roots() -> [u64; EXPONENT_BITS as usize] {
    let mut roots = [0; EXPONENT_BITS as usize];
    let mut root: u128 = 1 << (FACTOR_BITS - 1);
    let mut place = 0;
    while place < roots.len() {
        root = (root << FACTOR_BITS).isqrt();
        roots[place] = root as u64;
        place += 1;
    }
    roots
}

/// `2^-(elapsed / half_life)` in [`FACTOR_BITS`] binary places.
fn factor(elapsed_us: u64, half_life_us: u64) -> u64 {
    let exponent = (u128::from(elapsed_us) << EXPONENT_BITS) / u128::from(half_life_us);
    let halvings = exponent >> EXPONENT_BITS;
    if halvings >= u128::from(FACTOR_BITS) {
        return 0;
    }
    let mut factor: u128 = 1 << FACTOR_BITS;
    for (place, root) in (0_u32..).zip(ROOTS) {
        if exponent >> (EXPONENT_BITS - 1 - place) & 1 == 1 {
            factor = (factor * u128::from(root)) >> FACTOR_BITS;
        }
    }
    u64::try_from(factor >> halvings).unwrap_or(u64::MAX)
}

/// The mean as it was when what is held last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RecentUse {
    /// In thousandths of devices, with [`FINE_BITS`] binary places.
    fine: u64,
    at_us: u64,
}

impl RecentUse {
    /// Nothing held until now.
    pub fn nothing(now_us: u64) -> Self {
        Self {
            fine: 0,
            at_us: now_us,
        }
    }

    /// The mean now, after `held_milli` was held since it was last brought up to a moment. A half-life
    /// of 0 remembers nothing.
    pub fn at(self, now_us: u64, held_milli: u64, half_life_us: u64) -> Self {
        let now_us = now_us.max(self.at_us);
        if half_life_us == 0 {
            return Self::nothing(now_us);
        }
        if now_us == self.at_us {
            return self;
        }
        let held = held_milli.min(u64::MAX >> FINE_BITS) << FINE_BITS;
        let factor = factor(now_us.saturating_sub(self.at_us), half_life_us);
        let scaled = |apart: u64| {
            u64::try_from((u128::from(apart) * u128::from(factor)) >> FACTOR_BITS)
                .unwrap_or(u64::MAX)
        };
        Self {
            // What lies between the mean and what is held decays.
            fine: if self.fine > held {
                held + scaled(self.fine - held)
            } else {
                held - scaled(held - self.fine)
            },
            at_us: now_us,
        }
    }

    /// When it was brought up to a moment last.
    pub fn at_us(self) -> u64 {
        self.at_us
    }

    /// Thousandths of devices.
    pub fn milli(self) -> u64 {
        self.fine >> FINE_BITS
    }

    /// With what another held besides; both brought up to the same moment.
    pub fn with(self, other: Self) -> Self {
        Self {
            fine: self.fine.saturating_add(other.fine),
            ..self
        }
    }

    /// Without what another held; both brought up to the same moment.
    pub fn without(self, other: Self) -> Self {
        Self {
            fine: self.fine.saturating_sub(other.fine),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: u64 = 3_600_000_000;
    const DAY_US: u64 = 24 * HOUR_US;

    #[test]
    fn half_of_it_is_gone_after_a_half_life_and_comes_back_as_it_went() {
        let start = RecentUse::default();
        let full = start.at(100 * DAY_US, 8_000, DAY_US);
        assert_eq!(full.milli(), 8_000, "what was held for ever");
        for (days, expected) in [(0, 8_000), (1, 4_000), (2, 2_000), (3, 1_000), (40, 0)] {
            let later = full.at((100 + days) * DAY_US, 0, DAY_US);
            assert!(
                later.milli().abs_diff(expected) <= 1,
                "{days} days: {later:?}"
            );
        }
        for (days, expected) in [(1, 4_000), (2, 6_000), (3, 7_000)] {
            let now = RecentUse { fine: 0, at_us: 0 }.at(days * DAY_US, 8_000, DAY_US);
            assert!(now.milli().abs_diff(expected) <= 1, "{days} days: {now:?}");
        }
    }

    #[test]
    fn it_is_the_same_however_often_it_is_brought_up_to_date() {
        for half_life_us in [HOUR_US, DAY_US, 30 * DAY_US] {
            let whole = RecentUse::default().at(DAY_US, 64_000, half_life_us);
            let mut parts = RecentUse::default();
            let mut moments: Vec<u64> = (1..20_000).map(|number| number * 777).collect();
            moments.push(DAY_US);
            for moment in moments {
                parts = parts.at(moment, 64_000, half_life_us);
            }
            assert!(
                parts.milli().abs_diff(whole.milli()) <= 1,
                "{parts:?} {whole:?}"
            );
        }
    }

    #[test]
    fn it_agrees_with_the_formula() {
        for elapsed_us in [1, 999, HOUR_US, DAY_US / 3, DAY_US, 5 * DAY_US + 7] {
            let expected = (-(elapsed_us as f64) / DAY_US as f64).exp2();
            let found = factor(elapsed_us, DAY_US) as f64 / (1_u64 << FACTOR_BITS) as f64;
            assert!((expected - found).abs() < 1e-12, "{elapsed_us}: {found}");
        }
    }

    #[test]
    fn absurd_amounts_and_times_stay_in_bounds() {
        for (now_us, held, half_life_us) in [
            (u64::MAX, u64::MAX, 1),
            (u64::MAX, u64::MAX, u64::MAX),
            (0, u64::MAX, 1),
            (u64::MAX, 5, 0),
        ] {
            let mean = RecentUse::default().at(now_us, held, half_life_us);
            assert!(mean.milli() <= held);
            let back = mean.at(0, held, half_life_us);
            assert_eq!(back.at_us, now_us, "no moment comes twice");
        }
    }
}
