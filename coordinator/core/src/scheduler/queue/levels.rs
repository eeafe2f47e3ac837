//! Which level an entry stands in now, and until when.

use super::{Entry, Rules};
use crate::model::OVERDUE;

/// The level an entry stands in at `now_us`, and when that changes by time alone.
pub(super) fn stand(entry: &Entry, rules: &Rules, now_us: u64) -> (u32, Option<u64>) {
    let waited_us = entry.waited_us(now_us);
    if rules
        .starvation_bound_us
        .is_some_and(|bound_us| waited_us >= bound_us)
    {
        return (OVERDUE, None);
    }
    let attained = entry.attained_gpu_milli_us(now_us);
    let level = rules.levels.of(attained).saturating_add(1);
    let in_us = if entry.is_running {
        rules
            .levels
            .until_next_us(attained, entry.contender.demand.gpu_milli)
    } else {
        rules
            .starvation_bound_us
            .map(|bound_us| bound_us - waited_us)
    };
    (
        level,
        in_us.map(|in_us| now_us.saturating_add(in_us.max(1))),
    )
}
