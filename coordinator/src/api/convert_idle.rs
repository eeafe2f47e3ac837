//! What clients read of devices that idle, and of who says that they may.

use coordinator_core::model::{Run, money_text, utc_text};
use coordinator_core::state::State;
use platform_proto::http::{IdleView, JustificationView};

/// That the devices of a live run idle, as clients read it.
pub fn idle_view(state: &State, run: &Run, now_us: u64) -> Option<IdleView> {
    let idle = state.idleness(run)?;
    Some(IdleView {
        since_us: idle.since_us,
        warned_us: idle.warned_us,
        stop_at_us: state.idle_stop_at_us(run),
        cost_micro: state.idle_cost_micro(run, now_us.max(idle.since_us)),
    })
}

/// Why the devices of a run may idle, as clients read it.
pub fn justification_view(run: &Run) -> Option<JustificationView> {
    let justification = run.justification.as_deref()?;
    Some(JustificationView {
        by: justification.by.clone(),
        reason: justification.reason.clone(),
        at_us: justification.at_us,
        until_us: justification.until_us,
    })
}

/// The warning of a live run whose devices idle, in words.
pub fn idle_words(state: &State, run: &Run, now_us: u64) -> Option<String> {
    let idle = state.idleness(run)?;
    idle.warned_us?;
    let mut words = format!(
        "its GPUs idle since {}, which has cost {} until now",
        utc_text(idle.since_us),
        money_text(
            state.idle_cost_micro(run, now_us.max(idle.since_us)),
            &state.policy().currency
        )
    );
    let justification = run
        .justification
        .as_deref()
        .filter(|justification| justification.until_us > now_us);
    match (justification, state.idle_stop_at_us(run)) {
        (Some(justification), _) => words.push_str(&format!(
            "; justified by {} until {}: {}",
            justification.by,
            utc_text(justification.until_us),
            justification.reason
        )),
        (None, Some(at_us)) => words.push_str(&format!(
            "; stopped at {} unless they are used or it is justified",
            utc_text(at_us)
        )),
        (None, None) => {}
    }
    Some(words)
}
