//! Durations predicted from what ended, and whether a tenant's predictions are worth anything.
//!
//! A prediction only orders runs of one level and size, and only for a tenant on whose ended runs it
//! has told the longer of two from the shorter more often than chance. A tenant whose runs are not
//! predictable loses nothing by it.

use crate::model::RecentDurations;
use std::collections::BTreeMap;

/// Pairs of a tenant's ended runs without which its predictions prove nothing.
const FEWEST_PAIRS: u32 = 32;
/// Pairs after which older ones count half.
const MOST_PAIRS: u32 = 256;
/// Per cent of pairs told apart rightly from which on predictions are used; guessing gives fifty.
const PROVEN_PERCENT: u32 = 65;

/// Medians of recent durations by group of like runs, and each tenant's record.
#[derive(Debug, Clone, Default)]
pub struct Predictor {
    groups: BTreeMap<u64, RecentDurations>,
    records: BTreeMap<usize, Record>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Record {
    last: Option<(u64, u64)>,
    agreed: u32,
    pairs: u32,
}

impl Predictor {
    /// The median of a group's recent durations. A group is whatever the caller finds alike: user,
    /// name and size, say.
    pub fn predict_us(&self, group: u64) -> Option<u64> {
        self.groups.get(&group)?.median()
    }

    /// Whether predictions have told this tenant's runs apart so far.
    pub fn is_proven(&self, tenant: usize) -> bool {
        self.records.get(&tenant).is_some_and(|record| {
            record.pairs >= FEWEST_PAIRS && record.agreed * 100 >= record.pairs * PROVEN_PERCENT
        })
    }

    /// A run that ended, with what had been predicted for it, used or not.
    pub fn ended(&mut self, tenant: usize, group: u64, predicted_us: Option<u64>, took_us: u64) {
        if let Some(predicted_us) = predicted_us {
            let record = self.records.entry(tenant).or_default();
            if let Some((last_predicted_us, last_took_us)) = record.last
                && last_predicted_us != predicted_us
                && last_took_us != took_us
            {
                record.pairs += 1;
                if (last_predicted_us < predicted_us) == (last_took_us < took_us) {
                    record.agreed += 1;
                }
                if record.pairs >= MOST_PAIRS {
                    record.pairs /= 2;
                    record.agreed /= 2;
                }
            }
            record.last = Some((predicted_us, took_us));
        }
        self.groups.entry(group).or_default().add(took_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tenant_whose_runs_were_told_apart_is_proven() {
        let mut predictor = Predictor::default();
        for number in 0..200 {
            let long = number % 3 == 0;
            let predicted_us = if long { 900 } else { 100 };
            predictor.ended(0, 1, Some(predicted_us), predicted_us + number);
            // The same predictions, and durations that have nothing to do with them.
            predictor.ended(1, 2, Some(predicted_us), 1 + (number * 7_919) % 101);
        }
        assert!(predictor.is_proven(0));
        assert!(!predictor.is_proven(1));
        assert!(!predictor.is_proven(2));
    }

    #[test]
    fn a_tenant_that_changes_its_ways_loses_its_proof() {
        let mut predictor = Predictor::default();
        for number in 0..400 {
            let predicted_us = if number % 2 == 0 { 100 } else { 900 };
            predictor.ended(0, 1, Some(predicted_us), predicted_us);
        }
        assert!(predictor.is_proven(0));
        for number in 0..400 {
            let predicted_us = if number % 2 == 0 { 100 } else { 900 };
            predictor.ended(0, 1, Some(predicted_us), 1_000 - predicted_us);
        }
        assert!(!predictor.is_proven(0));
    }
}
