//! What the live runs of each model hold of all devices' memory together, beside what the policy lets
//! them hold in sum.

use super::State;
use crate::model::WorkloadSpec;
use crate::policy::gpu_memory_sums;
use std::collections::BTreeMap;

impl State {
    /// MiB that the live runs hold to which a cap in sum applies, by the cap's model or `prefix*`.
    pub fn gpu_memory_held_mib(&self, pattern: &str) -> u64 {
        self.memory_sums_mib.get(pattern).copied().unwrap_or(0)
    }

    /// The first cap in sum that so much more memory for a run would pass, with what is `planned`
    /// besides; in words (I13).
    pub fn over_memory_sum(
        &self,
        spec: &WorkloadSpec,
        more_mib: u64,
        planned_mib: impl Fn(&str) -> u64,
    ) -> Option<String> {
        gpu_memory_sums(&self.policy, spec).find_map(|(pattern, cap_mib)| {
            let held_mib = self.gpu_memory_held_mib(pattern);
            let then_mib = held_mib
                .saturating_add(planned_mib(pattern))
                .saturating_add(more_mib);
            (more_mib > 0 && then_mib > cap_mib).then(|| {
                format!(
                    "models {pattern} hold {held_mib} of the {cap_mib} MiB of GPU memory that the policy gives them in sum, and this run takes {more_mib} MiB"
                )
            })
        })
    }

    pub(super) fn count_memory(&mut self, spec: &WorkloadSpec, mib: u64, is_more: bool) {
        let patterns: Vec<String> = gpu_memory_sums(&self.policy, spec)
            .map(|(pattern, _)| pattern.to_owned())
            .collect();
        for pattern in patterns {
            let held = self.memory_sums_mib.entry(pattern.clone()).or_default();
            *held = if is_more {
                held.saturating_add(mib)
            } else {
                held.saturating_sub(mib)
            };
            if *held == 0 {
                self.memory_sums_mib.remove(&pattern);
            }
        }
    }

    /// Counts anew what is held, as after the caps have changed.
    pub(super) fn recount_memory(&mut self) {
        self.memory_sums_mib = BTreeMap::new();
        let held: Vec<_> = self
            .active
            .iter()
            .filter_map(|id| self.runs.get(id))
            .filter_map(|run| {
                let held_mib = run
                    .last_attempt()?
                    .members
                    .iter()
                    .filter(|member| member.released_us.is_none())
                    .map(crate::model::Member::gpu_memory_mib)
                    .sum();
                Some((run.spec.clone(), held_mib))
            })
            .collect();
        for (spec, held_mib) in held {
            self.count_memory(&spec, held_mib, true);
        }
    }
}
