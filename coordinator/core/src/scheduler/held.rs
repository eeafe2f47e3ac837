//! Why a run is held: what it waits for that is no matter of devices.

use super::{Tier, Waiting};
use crate::model::{Array, Condition, Dependency, Run, RunPhase, Submission, WorkloadSpec};
use crate::state::State;

/// Named in the one sentence at most; the reasons name every one.
const MOST_NAMED: usize = 3;

/// What a held run waits for: its turn in its array, or what it follows.
pub fn explain(state: &State, run: &Run) -> Option<Waiting> {
    let turn = run
        .element
        .as_ref()
        .and_then(|element| state.arrays().get(&element.array))
        .filter(|array| !state.is_array_following(array))
        .and_then(|array| explain_turn(state, array, run));
    turn.or_else(|| explain_spec(state, &run.spec))
}

fn explain_turn(state: &State, array: &Array, run: &Run) -> Option<Waiting> {
    let line = state.array_line(array.id)?;
    let most = array.most_alive?;
    let alive = state.active_elements(array).count();
    let queued = (line.released() as usize).saturating_sub(alive);
    let before = line.held().range(..run.id).count();
    let mut reasons = Vec::new();
    if queued > 0 {
        reasons.push(format!("{queued} of its array are queued and go first"));
    }
    if before > 0 {
        reasons.push(format!("{before} of its array are held before it"));
    }
    Some(Waiting {
        tier: Tier::Held,
        summary: format!("{alive} of {most} of its array run"),
        reasons,
        hint: Some(format!(
            "see them with: platform runs list --array {}",
            array.id
        )),
    })
}

/// What a run with this spec follows and waits for, when it does.
pub fn explain_spec(state: &State, spec: &WorkloadSpec) -> Option<Waiting> {
    let awaited: Vec<Dependency> = state.awaited_by(spec).collect();
    let first = awaited.first()?;
    let named: Vec<String> = awaited
        .iter()
        .take(MOST_NAMED)
        .map(|dependency| match dependency.condition {
            Condition::Ok => format!("{} has succeeded", dependency.before),
            Condition::Any => format!("{} has ended", dependency.before),
        })
        .collect();
    let more = match awaited.len() - named.len() {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Some(Waiting {
        tier: Tier::Held,
        summary: format!("starts once {}{more}", named.join(" and ")),
        reasons: awaited
            .iter()
            .map(|dependency| format!("{dependency} {}", progress(state, dependency.before)))
            .collect(),
        hint: Some(match first.before {
            Submission::Run(run) => {
                format!("see what that waits for: platform runs explain {run}")
            }
            Submission::Array(array) => {
                format!("see how far that is: platform runs list --array {array}")
            }
        }),
    })
}

/// How far it is, in words.
fn progress(state: &State, before: Submission) -> String {
    match before {
        Submission::Run(run) => state.runs().get(&run).map_or_else(String::new, |run| {
            let now = match run.phase {
                RunPhase::Held => "is held itself",
                RunPhase::Queued => "is queued",
                RunPhase::Active => "holds its devices",
                RunPhase::Ended { .. } => "has ended",
            };
            format!("({}) {now}", run.spec.name)
        }),
        Submission::Array(array) => state
            .arrays()
            .get(&array)
            .zip(state.array_line(array))
            .map_or_else(String::new, |(array, line)| {
                let ended = line.succeeded() + line.failed() + line.cancelled();
                format!("has {ended} of {} elements ended", array.size)
            }),
    }
}
