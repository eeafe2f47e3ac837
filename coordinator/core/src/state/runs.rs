//! Submitting, cancelling, queueing again and ending runs.

use super::index::{held_milli, note_stoppable};
use super::{Event, Outcome, State};
use crate::model::{
    Attempt, Cancellation, Element, EndKind, MemberEnd, Role, Run, RunId, RunOutcome, RunPhase,
    StopReason, Submission, TenantName, UserName, WorkloadSpec,
};
use crate::policy::{self, Admitted, Refusal, RefusalKind};
use std::sync::Arc;

/// Attempts that the platform may lose before it says that this run cannot be kept alive here.
const MOST_LOSSES: u32 = 10;

impl State {
    /// What a submit that is charged to this tenant would be admitted as, or why it is refused.
    /// `role` is the submitter's.
    pub fn admit(
        &self,
        tenant: &TenantName,
        role: Option<Role>,
        spec: WorkloadSpec,
    ) -> Result<Admitted, Refusal> {
        let mut admitted = policy::resolve(self.surroundings(tenant)?.asked_by(role), spec)?;
        self.check_dependencies(&admitted.spec.after, tenant)?;
        if let Some(refusal) = self.stopped_by(tenant, &admitted.spec) {
            return Err(refusal);
        }
        let warnings = self.budget_warnings(tenant, &admitted.spec);
        admitted.warnings.extend(warnings);
        Ok(admitted)
    }

    pub(super) fn submit(
        &mut self,
        spec: &WorkloadSpec,
        tenant: &TenantName,
        user: &UserName,
        role: Option<Role>,
    ) -> Outcome {
        let charged = spec.tenant.clone().unwrap_or_else(|| tenant.clone());
        let admitted = self.admit(&charged, role, spec.clone())?;
        let spec = Arc::new(admitted.spec);
        let warnings = admitted.warnings;
        let run = self.new_run(spec.clone(), &charged, user, None);
        if self.file_under_awaited(Submission::Run(run), &spec) {
            return Ok(vec![Event::RunHeld { run, warnings }]);
        }
        self.queue(run);
        Ok(vec![Event::RunQueued {
            run,
            again: false,
            warnings,
        }])
    }

    /// Makes a run, held until it is queued.
    pub(super) fn new_run(
        &mut self,
        spec: Arc<WorkloadSpec>,
        tenant: &TenantName,
        user: &UserName,
        element: Option<Element>,
    ) -> RunId {
        let predicted_ms = self.history.predict_ms(user, &spec);
        let id = RunId(self.next_run);
        self.next_run += 1;
        let run = Run {
            id,
            spec,
            tenant: tenant.clone(),
            user: user.clone(),
            submitted_us: self.time_us,
            phase: RunPhase::Held,
            attempts: Vec::new(),
            failures: 0,
            losses: 0,
            cancelled: None,
            has_claim: false,
            held_until_us: None,
            predicted_ms,
            element: element.map(Box::new),
            justification: None,
        };
        self.live.insert(id);
        self.runs.insert(id, run);
        self.note_start_deadline(id);
        id
    }

    /// A held run may be looked at.
    pub(super) fn queue(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.phase = RunPhase::Queued;
            self.enqueue(id);
        }
    }

    /// Ends a run that is held or queued, without a word to anybody.
    pub(super) fn end_waiting(&mut self, id: RunId, cancellation: Cancellation) {
        self.dequeue(id);
        let time_us = self.time_us;
        let Some(run) = self.runs.get_mut(&id) else {
            return;
        };
        run.cancelled = Some(cancellation);
        run.phase = RunPhase::Ended {
            outcome: RunOutcome::Cancelled,
            at_us: time_us,
        };
        self.live.remove(&id);
    }

    /// What follows from a run's end: another element of its array takes its turn, and whoever follows
    /// it or its array is told.
    pub(super) fn after_end(&mut self, id: RunId) -> Vec<Event> {
        let (mut events, array) = self.settle_element(id);
        let mut told = vec![Submission::Run(id)];
        told.extend(array.map(Submission::Array));
        events.extend(self.tell_followers(told));
        events
    }

    pub(super) fn cancel(&mut self, id: RunId, by: &str, reason: Option<String>) -> Outcome {
        let Some(run) = self.runs.get_mut(&id) else {
            return Err(unknown_run(id));
        };
        match run.phase {
            RunPhase::Ended { .. } => Err(Refusal::new(
                RefusalKind::Conflict,
                format!("{id} has already ended"),
            )
            .hint(format!("see how with: platform runs show {id}"))),
            RunPhase::Held | RunPhase::Queued => {
                let spec = run.spec.clone();
                let by = by.to_owned();
                self.end_waiting(id, Cancellation { by, reason });
                self.forget_follower(Submission::Run(id), &spec);
                let mut events = vec![Event::RunEnded { run: id }];
                events.extend(self.after_end(id));
                Ok(events)
            }
            RunPhase::Active => {
                run.cancelled.get_or_insert(Cancellation {
                    by: by.to_owned(),
                    reason,
                });
                Ok(self.stop_attempt(id, StopReason::Cancelled))
            }
        }
    }

    /// Marks the last attempt of an active run as stopping. The first reason stands, except that a
    /// user's word outranks the platform's.
    pub(super) fn stop_attempt(&mut self, id: RunId, reason: StopReason) -> Vec<Event> {
        let Some(attempt) = self
            .runs
            .get_mut(&id)
            .and_then(|run| run.attempts.last_mut())
        else {
            return Vec::new();
        };
        if attempt.is_over() || (attempt.stopping.is_some() && reason != StopReason::Cancelled) {
            return Vec::new();
        }
        attempt.stopping = Some(reason);
        let held = held_milli(attempt);
        if let Some(run) = self.runs.get(&id)
            && let Some(pool) = run.spec.pool.clone()
        {
            let tenant = run.tenant.clone();
            self.note_stopping(id, &tenant, &pool, held);
        }
        self.note_end(id);
        vec![Event::RunStopping { run: id }]
    }

    /// The last member of the last attempt has been released: the run ends, or waits again.
    pub(super) fn settle_attempt(&mut self, id: RunId) -> Vec<Event> {
        let time_us = self.time_us;
        let retry = self.policy.retry.clone();
        let Some(run) = self.runs.get_mut(&id) else {
            return Vec::new();
        };
        let Some(attempt) = run.attempts.last_mut() else {
            return Vec::new();
        };
        attempt.ended_us = Some(time_us);
        let end = attempt_end(attempt);
        let stopping = attempt.stopping.clone();
        attempt.end = Some(end.clone());
        let verdict = if run.cancelled.is_some() && !end.kind.is_success() {
            Some(RunOutcome::Cancelled)
        } else if end.kind.is_success() {
            Some(RunOutcome::Succeeded)
        } else if matches!(
            stopping,
            Some(StopReason::Evicted | StopReason::Preempted { .. } | StopReason::Reclaimed { .. })
        ) {
            // Whatever its members said after the stop: the platform ended it, not the user.
            None
        } else if end.kind.is_loss() || end.kind == EndKind::Stopped {
            // A stop that neither the user nor an operator asked for is the platform's too.
            run.losses += 1;
            (run.losses > MOST_LOSSES).then_some(RunOutcome::Failed)
        } else {
            run.failures += 1;
            let wait_us = retry.wait_ms(run.failures).saturating_mul(1000);
            run.held_until_us = (wait_us > 0).then(|| time_us.saturating_add(wait_us));
            (run.failures > run.spec.retries).then_some(RunOutcome::Failed)
        };
        note_stoppable(&mut self.stoppable, run, false);
        self.active.remove(&id);
        self.stopping.remove(&id);
        match verdict {
            Some(outcome) => {
                run.held_until_us = None;
                self.history.note(run, &outcome);
                run.phase = RunPhase::Ended {
                    outcome,
                    at_us: time_us,
                };
                self.live.remove(&id);
                let mut events = vec![Event::RunEnded { run: id }];
                events.extend(self.after_end(id));
                events
            }
            None => {
                run.phase = RunPhase::Queued;
                self.enqueue(id);
                vec![Event::RunQueued {
                    run: id,
                    again: true,
                    warnings: Vec::new(),
                }]
            }
        }
    }
}

/// How an attempt ended, from its members: a loss first, for the members that it leaves behind fail
/// on their broken connections, often before the loss itself is known; then a failure of the user's
/// own making, for it explains why the others were stopped; then a stop; else success.
fn attempt_end(attempt: &Attempt) -> MemberEnd {
    let ends = || {
        attempt
            .members
            .iter()
            .filter_map(|member| member.end.as_ref())
    };
    ends()
        .find(|end| end.kind.is_loss())
        .or_else(|| ends().find(|end| !end.kind.is_success() && end.kind != EndKind::Stopped))
        .or_else(|| ends().find(|end| !end.kind.is_success()))
        .cloned()
        .unwrap_or(MemberEnd {
            kind: EndKind::Exited { code: 0 },
            message: String::new(),
        })
}

pub(super) fn unknown_run(id: RunId) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("{id} does not exist"))
        .hint("see the runs with: platform runs list")
}
