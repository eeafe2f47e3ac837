//! What a waiting run has before it, found by planning on a copy beside what serves everybody.

use super::error::ApiError;
use super::{App, convert_outlook};
use coordinator_core::model::{Role, RunId, TenantName, UserName, WorkloadSpec};
use coordinator_core::scheduler::{self, Durations, Outlook};
use coordinator_core::state::{Command, Event, State};
use platform_proto::http::OutlookView;

/// The outlook of a run that waits; `None` when it does not.
pub async fn of_run(app: &App, run: RunId) -> Result<Option<Outlook>, ApiError> {
    let (copy, durations) = app
        .driver
        .read(|state| (state.live_copy(), Durations::of(state)));
    beside(move || scheduler::outlook(copy, &durations, run, crate::now_us())).await
}

/// The outlook that a run would have if it were submitted now.
pub async fn of_spec(
    app: &App,
    spec: WorkloadSpec,
    tenant: TenantName,
    user: UserName,
    role: Option<Role>,
) -> Result<Option<OutlookView>, ApiError> {
    let (copy, durations) = app
        .driver
        .read(|state| (state.live_copy(), Durations::of(state)));
    let outlook = beside(move || {
        let mut trial = scheduler::Trial::new(copy, crate::now_us());
        let events = trial.apply(Command::Submit {
            spec: Box::new(spec),
            tenant,
            user,
            role,
        });
        let run = events.iter().find_map(|event| match event {
            Event::RunQueued { run, .. } => Some(*run),
            _ => None,
        })?;
        let (state, now_us): (State, u64) = trial.into_parts();
        scheduler::outlook(state, &durations, run, now_us)
    })
    .await?;
    Ok(outlook.map(convert_outlook::outlook_view))
}

/// Off the threads that serve.
async fn beside(
    look: impl FnOnce() -> Option<Outlook> + Send + 'static,
) -> Result<Option<Outlook>, ApiError> {
    let started = std::time::Instant::now();
    let outlook = tokio::task::spawn_blocking(look)
        .await
        .map_err(|_| ApiError::unavailable("the look ahead did not end well"))?;
    metrics::histogram!("coordinator_outlook_seconds").record(started.elapsed().as_secs_f64());
    Ok(outlook)
}
