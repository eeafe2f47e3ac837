//! One member's life: preparing, starting, running, ended. Transitions only; no deadlines of others.

use crate::model::{
    Assignment, End, Exit, Intent, MemberReport, Now, Observation, Signal, State, StopCause,
};
use crate::reconcile::Action;

/// SIGKILL is sent again after this long: a process in an uninterruptible wait dies only afterwards,
/// and a signal lost with a connection to the launcher must not be the last.
const KILL_AGAIN_US: u64 = 5_000_000;
/// Checkpoints told of are at least so far apart: one that is made every second must not fill the
/// coordinator's log, and half a minute of work is not worth choosing by.
const CHECKPOINTS_APART_US: u64 = 30_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Recorded, waiting for the runtime to have everything.
    Preparing { detail: Option<String> },
    /// Start was asked for; it may live already.
    Starting,
    /// It lives.
    Running { since_us: u64 },
    /// It never will again.
    Ended { end: End, message: String },
}

#[derive(Debug, Clone)]
struct Stopping {
    cause: StopCause,
    /// When SIGKILL is due.
    kill_at_us: u64,
    /// A signal went out; false while it is still starting.
    signaled: bool,
}

/// A member and all the core knows of it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) assignment: Assignment,
    phase: Phase,
    stopping: Option<Stopping>,
    /// The warning before its time limit has been sent, or it is too late for it.
    warned: bool,
    at_us: u64,
    checkpointed_us: Option<u64>,
    /// The last of them that was worth a report of its own.
    checkpoint_told_us: Option<u64>,
    /// The coordinator has let go of it; forget it once ended.
    pub(crate) retire: bool,
    /// Adopted, and it surely never started: nothing is done until the coordinator asks for it again.
    pub(crate) dormant: bool,
    /// The shell was told that it ended.
    pub(crate) end_told: bool,
    /// The deadline registered for it.
    pub(crate) wake_us: Option<u64>,
}

impl Member {
    pub(crate) fn new(assignment: Assignment, now: Now) -> Self {
        Self {
            assignment,
            phase: Phase::Preparing { detail: None },
            stopping: None,
            warned: false,
            at_us: now.wall_us,
            checkpointed_us: None,
            checkpoint_told_us: None,
            retire: false,
            dormant: false,
            end_told: false,
            wake_us: None,
        }
    }

    pub(crate) fn ended(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// A process of it may live.
    pub(crate) fn may_live(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running { .. })
    }

    pub(crate) fn report(&self) -> MemberReport {
        let mut report = MemberReport {
            key: self.assignment.key,
            epoch: self.assignment.epoch,
            state: State::Assigned,
            detail: String::new(),
            end: None,
            message: String::new(),
            at_us: self.at_us,
            checkpointed_us: self.checkpointed_us,
        };
        match &self.phase {
            Phase::Preparing { detail: None } => {}
            Phase::Preparing {
                detail: Some(detail),
            } => {
                report.state = State::Preparing;
                report.detail.clone_from(detail);
            }
            Phase::Starting => {
                report.state = State::Preparing;
                report.detail = "starting".to_owned();
            }
            Phase::Running { .. } => report.state = State::Running,
            Phase::Ended { end, message } => {
                report.state = State::Ended;
                report.end = Some(end.clone());
                report.message.clone_from(message);
            }
        }
        report
    }

    /// The workload says that all its work until then is saved; whether that is worth a report now. Any
    /// report tells of the last one.
    pub(crate) fn checkpointed(&mut self, at_us: u64, now: Now) -> bool {
        // What is not yet is not saved.
        let at_us = at_us.min(now.wall_us);
        self.checkpointed_us = self.checkpointed_us.max(Some(at_us));
        let is_due = self
            .checkpoint_told_us
            .is_none_or(|told_us| at_us >= told_us.saturating_add(CHECKPOINTS_APART_US));
        if is_due && !self.ended() {
            self.checkpoint_told_us = Some(at_us);
        }
        is_due && !self.ended()
    }

    /// What the runtime found of it after a restart of the agent; `cause` is the stop already begun.
    pub(crate) fn adopt(
        &mut self,
        observation: Option<Observation>,
        cause: Option<StopCause>,
        now: Now,
        actions: &mut Vec<Action>,
    ) {
        match (observation, cause) {
            // It surely never started. It may have been given up since, so wait for the word.
            (None, None) => self.dormant = true,
            (None, Some(cause)) => self.end(cause.end(), cause.message(), now.wall_us),
            (Some(observation), cause) => {
                self.phase = Phase::Starting;
                self.stopping = cause.map(|cause| Stopping {
                    cause,
                    kill_at_us: now.boottime_us + self.assignment.grace_ms * 1000,
                    signaled: false,
                });
                self.observe(observation, now, actions);
            }
        }
    }

    /// Takes what the runtime saw. True when the report changed.
    pub(crate) fn observe(
        &mut self,
        observation: Observation,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let key = self.assignment.key;
        match (observation, &mut self.phase) {
            (Observation::Progress { detail: new }, Phase::Preparing { detail })
                if !self.dormant =>
            {
                *detail = Some(new);
                self.at_us = now.wall_us;
                true
            }
            (Observation::Prepared, Phase::Preparing { .. }) if !self.dormant => {
                self.phase = Phase::Starting;
                actions.push(Action::Start(key));
                // Short preparations are not worth a message; "running" follows at once.
                false
            }
            (
                Observation::LaunchFailed {
                    message,
                    node_fault,
                },
                Phase::Preparing { .. } | Phase::Starting,
            ) => {
                match self.stopping.take() {
                    Some(stopping) => {
                        self.end(stopping.cause.end(), stopping.cause.message(), now.wall_us);
                    }
                    None => self.end(End::LaunchFailed { node_fault }, message, now.wall_us),
                }
                true
            }
            (
                Observation::Running {
                    started_boottime_us,
                    at_us,
                },
                Phase::Starting,
            ) => {
                self.phase = Phase::Running {
                    since_us: started_boottime_us,
                };
                self.at_us = at_us;
                self.signal_when_due(now, actions);
                true
            }
            (Observation::Ended { exit, at_us }, Phase::Starting | Phase::Running { .. }) => {
                self.take_exit(exit, at_us);
                true
            }
            // A late word about a member that is past it: the latest state stands.
            _ => false,
        }
    }

    fn take_exit(&mut self, exit: Exit, at_us: u64) {
        // However it died after our signal, it died of our signal. Vanishing is told as such: nobody
        // can say that the signal arrived.
        let cause = self.stopping.take().map(|stopping| stopping.cause);
        let (end, message) = match (exit, cause) {
            (Exit::Lost { message }, None) => (End::Lost, message),
            (_, Some(cause)) => (cause.end(), cause.message()),
            (Exit::OutOfMemory { message }, None) => (End::OutOfMemory, message),
            (Exit::Exited { code }, None) => (End::Exited { code }, String::new()),
            (Exit::Signaled { signal }, None) => (End::Signaled { signal }, String::new()),
        };
        self.end(end, message, at_us);
    }

    fn end(&mut self, end: End, message: String, at_us: u64) {
        self.phase = Phase::Ended { end, message };
        self.stopping = None;
        self.at_us = at_us;
    }

    /// Stops it for `cause` with this grace. A stop already begun keeps its cause; the earlier kill wins.
    /// True when the report changed.
    pub(crate) fn stop(
        &mut self,
        cause: StopCause,
        grace_us: u64,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let key = self.assignment.key;
        let kill_at_us = now.boottime_us.saturating_add(grace_us);
        match &self.phase {
            Phase::Ended { .. } => false,
            Phase::Preparing { .. } => {
                actions.push(Action::CancelPreparation(key));
                self.end(cause.end(), cause.message(), now.wall_us);
                true
            }
            Phase::Starting | Phase::Running { .. } => {
                match &mut self.stopping {
                    Some(stopping) => {
                        stopping.kill_at_us = stopping.kill_at_us.min(kill_at_us);
                    }
                    None => {
                        self.stopping = Some(Stopping {
                            cause,
                            kill_at_us,
                            signaled: false,
                        });
                    }
                }
                self.signal_when_due(now, actions);
                false
            }
        }
    }

    /// Sends the signals that are due: the first as soon as it lives, SIGKILL after the grace.
    fn signal_when_due(&mut self, now: Now, actions: &mut Vec<Action>) {
        let Phase::Running { .. } = self.phase else {
            return;
        };
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        let mut send = |signal| {
            actions.push(Action::Signal {
                key: self.assignment.key,
                signal,
                cause: stopping.cause.clone(),
            });
        };
        if now.boottime_us >= stopping.kill_at_us {
            send(Signal::Kill);
            stopping.kill_at_us = now.boottime_us + KILL_AGAIN_US;
            stopping.signaled = true;
        } else if !stopping.signaled {
            send(Signal::Terminate);
            stopping.signaled = true;
        }
    }

    /// A deadline of it has come, or may have.
    pub(crate) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        if let Phase::Running { since_us } = self.phase
            && self.stopping.is_none()
            && let Some(limit_ms) = self.time_limit_ms()
            && now.boottime_us >= since_us.saturating_add(limit_ms.saturating_mul(1000))
        {
            let grace_us = self.assignment.grace_ms.saturating_mul(1000);
            self.stop(StopCause::TimeLimit { limit_ms }, grace_us, now, actions);
        } else {
            self.warn_when_due(now, actions);
            self.signal_when_due(now, actions);
        }
    }

    /// When the workload wants to know that its time is nearly over.
    fn warn_at_us(&self) -> Option<u64> {
        let Phase::Running { since_us } = self.phase else {
            return None;
        };
        let warning = self.assignment.workload.warning?;
        let after_ms = self.time_limit_ms()?.saturating_sub(warning.before_ms);
        (!self.warned).then(|| since_us.saturating_add(after_ms.saturating_mul(1000)))
    }

    fn warn_when_due(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.stopping.is_none()
            && self.warn_at_us().is_some_and(|at| at <= now.boottime_us)
            && let Some(warning) = self.assignment.workload.warning
        {
            self.warned = true;
            actions.push(Action::Warn {
                key: self.assignment.key,
                signal: warning.signal,
            });
        }
    }

    fn time_limit_ms(&self) -> Option<u64> {
        Some(self.assignment.workload.time_limit_ms).filter(|limit| *limit > 0)
    }

    /// When [`Member::tick`] has something to do next.
    pub(crate) fn next_wake_us(&self) -> Option<u64> {
        let Phase::Running { since_us } = self.phase else {
            return None;
        };
        match &self.stopping {
            Some(stopping) => Some(stopping.kill_at_us),
            None => {
                let limit_us = self
                    .time_limit_ms()
                    .map(|limit| since_us.saturating_add(limit.saturating_mul(1000)));
                [self.warn_at_us(), limit_us].into_iter().flatten().min()
            }
        }
    }

    /// A stop has begun.
    pub(crate) fn stop_under_way(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether the coordinator's word asks for a stop that has not begun.
    pub(crate) fn told_to_stop(&self) -> bool {
        self.assignment.intent == Intent::Stop && !self.ended()
    }
}
