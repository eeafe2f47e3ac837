//! Why a run is held: what it waits for that is no matter of devices.

use super::{Tier, Waiting};
use crate::model::{Condition, RunPhase, WorkloadSpec};
use crate::state::State;

/// Runs named in the one sentence at most; the reasons name every one.
const MOST_NAMED: usize = 3;

/// What a run with this spec waits for, when it does.
pub fn explain(state: &State, spec: &WorkloadSpec) -> Option<Waiting> {
    let awaited: Vec<(String, String)> = state
        .awaited_by(spec)
        .map(|(dependency, before)| {
            let until = match dependency.condition {
                Condition::Ok => format!("{} has succeeded", before.id),
                Condition::Any => format!("{} has ended", before.id),
            };
            let now = match before.phase {
                RunPhase::Held => "held itself",
                RunPhase::Queued => "queued",
                RunPhase::Active => "holds its devices",
                RunPhase::Ended { .. } => "ended",
            };
            (until, format!("{dependency} ({}): {now}", before.spec.name))
        })
        .collect();
    let named: Vec<&str> = awaited
        .iter()
        .take(MOST_NAMED)
        .map(|(until, _)| until.as_str())
        .collect();
    let more = match awaited.len() - named.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let (_, first) = state.awaited_by(spec).next()?;
    Some(Waiting {
        tier: Tier::Held,
        summary: format!("held until {}{more}", named.join(" and ")),
        reasons: awaited.into_iter().map(|(_, reason)| reason).collect(),
        hint: Some(format!(
            "see what that waits for: platform runs explain {}",
            first.id
        )),
    })
}
