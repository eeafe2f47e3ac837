//! Why a run stands where it does among its tenant's, in a pool that does not take them as they were
//! submitted.

use crate::model::{Levels, OVERDUE, PoolOrder, Run};
use crate::state::State;

const US_PER_GPU_HOUR_MILLI: u128 = 1000 * 3_600 * 1_000_000;

/// The order of its pool and this run's standing in it, in one sentence; absent where runs go as they
/// were submitted, for then their number is all there is to say.
pub fn of_its_tenants(state: &State, run: &Run) -> Option<String> {
    let pool = state.pools().get(run.spec.pool.as_ref()?)?;
    let place = state.queues().place(run.id)?;
    if pool.order == PoolOrder::Fifo {
        return None;
    }
    let name = &pool.name;
    if place.level() == OVERDUE {
        return Some(format!(
            "it has waited for {}, as long as pool {name} lets a run wait, and goes before others of its tenant and priority",
            span(pool.age_bound_ms)
        ));
    }
    let standing = match (pool.order, run.predicted_ms) {
        (PoolOrder::LeastAttained, _) => {
            let levels = Levels::standard();
            let attained = run.attained_gpu_milli_us();
            format!(
                "pool {name} takes those first that have had the least: it has had {} GPU-hours, level {} of {}",
                hundredths(attained.saturating_mul(100) / US_PER_GPU_HOUR_MILLI),
                levels.of(attained).saturating_add(1),
                levels.count()
            )
        }
        (_, Some(predicted_ms)) => format!(
            "pool {name} takes the shortest first: it is predicted to take {}",
            span(predicted_ms)
        ),
        (_, None) => format!(
            "pool {name} takes the shortest first, and nothing tells how long this one takes: it goes last until then (--time-limit would tell)"
        ),
    };
    Some(format!(
        "{standing}; it goes first once it has waited for {}",
        span(pool.age_bound_ms)
    ))
}

fn hundredths(hundredths: u128) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// A length of time in its largest unit that says it without a rest of more than a tenth.
fn span(milliseconds: u64) -> String {
    for (unit, length_ms) in [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000)] {
        let (count, rest) = (milliseconds / length_ms, milliseconds % length_ms);
        if count >= 10 || (count > 0 && rest == 0) {
            return format!("{count} {unit}");
        }
    }
    format!("{} s", milliseconds.div_ceil(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_said_in_its_largest_unit() {
        for (milliseconds, said) in [
            (400, "1 s"),
            (90_000, "90 s"),
            (60_000, "1 min"),
            (5_400_000, "90 min"),
            (86_400_000, "1 d"),
            (100_000_000, "27 h"),
            (3_600_000_000, "41 d"),
        ] {
            assert_eq!(span(milliseconds), said);
        }
    }
}
