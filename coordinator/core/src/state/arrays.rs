//! Arrays: how many of their elements may be queued or alive, and how far each array is.
//!
//! Elements beyond what an array may have at once are held in its own line, where no plan looks at
//! them; one moves to the queue whenever another has ended. So the cap holds whatever a planner
//! proposes: only what is queued can be placed. The lines are derived from the runs:
//! [`super::State::reindex`] makes them anew.

use super::{Event, Outcome, State};
use crate::model::{
    Array, ArrayId, ArrayRequest, Cancellation, Element, LedgerRow, Role, Run, RunId, RunOutcome,
    RunPhase, StopReason, Submission, TenantName, UserName, WorkloadSpec,
};
use crate::policy::arrays::Elements;
use crate::policy::{self, Admitted, Refusal, RefusalKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far an array is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArrayLine {
    /// Elements that wait for others of it, or for what the array follows; first to last.
    held: BTreeSet<RunId>,
    /// Elements that are queued or alive.
    released: u32,
    /// Elements that have ended, by how.
    succeeded: u32,
    failed: u32,
    cancelled: u32,
    /// When the last of them ended.
    last_end_us: u64,
    /// What its released members have cost, in millionths of the currency.
    cost_micro: u64,
    /// What they have held, in thousandths of devices times microseconds.
    gpu_milli_us: u128,
}

impl ArrayLine {
    /// Elements that are held.
    pub fn held(&self) -> &BTreeSet<RunId> {
        &self.held
    }

    /// Elements that are queued or alive.
    pub fn released(&self) -> u32 {
        self.released
    }

    /// Elements that have succeeded.
    pub fn succeeded(&self) -> u32 {
        self.succeeded
    }

    /// Elements that have failed.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Elements that were cancelled.
    pub fn cancelled(&self) -> u32 {
        self.cancelled
    }

    /// When the last of those that have ended did.
    pub fn last_end_us(&self) -> u64 {
        self.last_end_us
    }

    /// Whether every element has ended.
    pub fn is_over(&self) -> bool {
        self.held.is_empty() && self.released == 0
    }

    /// Whether it can never be a success any more.
    pub fn is_spoilt(&self) -> bool {
        self.failed + self.cancelled > 0
    }

    /// Cost of what has been given back, in millionths of the currency.
    pub fn cost_micro(&self) -> u64 {
        self.cost_micro
    }

    /// What has been given back, in thousandths of devices times microseconds.
    pub fn gpu_milli_us(&self) -> u128 {
        self.gpu_milli_us
    }

    fn count_end(&mut self, outcome: &RunOutcome, count: u32, at_us: u64) {
        self.last_end_us = self.last_end_us.max(at_us);
        match outcome {
            RunOutcome::Succeeded => self.succeeded += count,
            RunOutcome::Failed => self.failed += count,
            RunOutcome::Cancelled => self.cancelled += count,
        }
    }
}

impl State {
    /// Every array.
    pub fn arrays(&self) -> &BTreeMap<ArrayId, Array> {
        &self.arrays
    }

    /// How far an array is.
    pub fn array_line(&self, array: ArrayId) -> Option<&ArrayLine> {
        self.array_lines.get(&array)
    }

    /// The elements of an array, first to last.
    pub fn elements(&self, array: &Array) -> impl Iterator<Item = &Run> {
        self.runs.range(array.runs()).map(|(_, run)| run)
    }

    /// The elements of an array that hold devices, first to last.
    pub fn active_elements(&self, array: &Array) -> impl Iterator<Item = &Run> {
        self.active
            .range(array.runs())
            .filter_map(|id| self.runs.get(id))
    }

    /// What an array that is charged to this tenant would be admitted as, or why it is refused.
    pub fn admit_array(
        &self,
        tenant: &TenantName,
        role: Option<Role>,
        spec: WorkloadSpec,
        request: &ArrayRequest,
    ) -> Result<(Admitted, Elements), Refusal> {
        let elements = policy::arrays::elements(request)?;
        let admitted = self.admit(tenant, role, spec)?;
        policy::arrays::check_size(&admitted.spec, &elements)?;
        Ok((admitted, elements))
    }

    pub(super) fn submit_array(
        &mut self,
        spec: &WorkloadSpec,
        request: &ArrayRequest,
        tenant: &TenantName,
        user: &UserName,
        role: Option<Role>,
    ) -> Outcome {
        let charged = spec.tenant.clone().unwrap_or_else(|| tenant.clone());
        let (admitted, elements) = self.admit_array(&charged, role, spec.clone(), request)?;
        let id = ArrayId(self.next_run);
        let spec = Arc::new(admitted.spec);
        let mut line = ArrayLine::default();
        let size = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        for (index, parameters) in elements {
            let element = Element {
                array: id,
                index,
                parameters,
            };
            let run = self.new_run(spec.clone(), &charged, user, Some(element));
            line.held.insert(run);
        }
        self.arrays.insert(
            id,
            Array {
                id,
                tenant: charged,
                user: user.clone(),
                size,
                most_alive: request.most_alive,
            },
        );
        self.array_lines.insert(id, line);
        if !self.file_under_awaited(Submission::Array(id), &spec) {
            self.release_elements(id);
        }
        Ok(vec![Event::ArraySubmitted {
            array: id,
            warnings: admitted.warnings,
        }])
    }

    /// Queues held elements as far as the array may have them, when it waits for nothing else.
    pub(super) fn release_elements(&mut self, id: ArrayId) -> Vec<RunId> {
        let mut released = Vec::new();
        let Some(array) = self.arrays.get(&id) else {
            return released;
        };
        let most = array.most_alive.unwrap_or(u32::MAX);
        if self.is_array_following(array) {
            return released;
        }
        let Some(line) = self.array_lines.get_mut(&id) else {
            return released;
        };
        while line.released < most
            && let Some(element) = line.held.pop_first()
        {
            line.released += 1;
            released.push(element);
        }
        for element in &released {
            self.queue(*element);
        }
        released
    }

    /// Whether an array waits for what it follows. Asked of its first held element, for they all
    /// follow the same.
    pub fn is_array_following(&self, array: &Array) -> bool {
        self.array_lines
            .get(&array.id)
            .and_then(|line| line.held.first())
            .and_then(|first| self.runs.get(first))
            .is_some_and(|run| self.awaited_by(&run.spec).next().is_some())
    }

    /// An element has ended, and was counted among those released until now: the next takes its place.
    /// Says what of the array has ended or can never be a success any more.
    pub(super) fn settle_element(&mut self, id: RunId) -> (Vec<Event>, Option<ArrayId>) {
        let Some((array, outcome, at_us)) = self.runs.get(&id).and_then(|run| match &run.phase {
            RunPhase::Ended { outcome, at_us } => {
                Some((run.element.as_ref()?.array, outcome.clone(), *at_us))
            }
            _ => None,
        }) else {
            return (Vec::new(), None);
        };
        let Some(line) = self.array_lines.get_mut(&array) else {
            return (Vec::new(), None);
        };
        let was_spoilt = line.is_spoilt();
        // One that was held has not been released.
        let none_is_held = if line.held.remove(&id) {
            line.held.is_empty()
        } else {
            line.released = line.released.saturating_sub(1);
            false
        };
        line.count_end(&outcome, 1, at_us);
        let tell = line.is_over() || line.is_spoilt() != was_spoilt;
        if none_is_held && let Some(spec) = self.runs.get(&id).map(|run| run.spec.clone()) {
            self.forget_follower(Submission::Array(array), &spec);
        }
        let events = self
            .release_elements(array)
            .into_iter()
            .map(|run| Event::RunQueued {
                run,
                again: false,
                warnings: Vec::new(),
            })
            .collect();
        (events, tell.then_some(array))
    }

    pub(super) fn cancel_array(
        &mut self,
        id: ArrayId,
        by: &str,
        reason: Option<&String>,
    ) -> Outcome {
        let Some(array) = self.arrays.get(&id).cloned() else {
            return Err(unknown_array(id));
        };
        if self.array_lines.get(&id).is_some_and(ArrayLine::is_over) {
            return Err(
                Refusal::new(RefusalKind::Conflict, format!("{id} has already ended"))
                    .hint(format!("see how with: platform runs list --array {id}")),
            );
        }
        let cancellation = Cancellation {
            by: by.to_owned(),
            reason: reason.cloned(),
        };
        let mut told = self.end_waiting_elements(&array, &cancellation);
        told.push(Submission::Array(id));
        let active: Vec<RunId> = self.active.range(array.runs()).copied().collect();
        let mut events = vec![Event::ArrayChanged { array: id }];
        for element in active {
            if let Some(run) = self.runs.get_mut(&element) {
                run.cancelled.get_or_insert_with(|| cancellation.clone());
            }
            events.extend(self.stop_attempt(element, StopReason::Cancelled));
        }
        events.extend(self.tell_followers(told));
        Ok(events)
    }

    /// Ends every element that is held or queued, and says which.
    pub(super) fn end_waiting_elements(
        &mut self,
        array: &Array,
        cancellation: &Cancellation,
    ) -> Vec<Submission> {
        let waiting: Vec<RunId> = self
            .elements(array)
            .filter(|run| matches!(run.phase, RunPhase::Held | RunPhase::Queued))
            .map(|run| run.id)
            .collect();
        let held = self
            .array_lines
            .get(&array.id)
            .map_or(0, |line| line.held.len());
        if let Some(first) = self.runs.get(&array.id.first_run()) {
            let spec = first.spec.clone();
            self.forget_follower(Submission::Array(array.id), &spec);
        }
        for id in &waiting {
            self.end_waiting(*id, cancellation.clone());
        }
        let queued = u32::try_from(waiting.len().saturating_sub(held)).unwrap_or(u32::MAX);
        let time_us = self.time_us;
        if let Some(line) = self.array_lines.get_mut(&array.id) {
            line.held.clear();
            line.released = line.released.saturating_sub(queued);
            let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
            if count > 0 {
                line.count_end(&RunOutcome::Cancelled, count, time_us);
            }
        }
        waiting.into_iter().map(Submission::Run).collect()
    }

    /// What a member of an element held has been given back.
    pub(super) fn count_element_cost(&mut self, id: RunId, rows: &[LedgerRow]) {
        let line = self
            .runs
            .get(&id)
            .and_then(|run| run.element.as_ref())
            .and_then(|element| self.array_lines.get_mut(&element.array));
        if let Some(line) = line {
            line.cost_micro += rows.iter().map(LedgerRow::cost_micro).sum::<u64>();
            line.gpu_milli_us += rows.iter().map(LedgerRow::gpu_milli_us).sum::<u128>();
        }
    }

    /// Makes the lines anew from the runs, and lets elements share their specification again: it is
    /// stored with each of them.
    pub(super) fn reindex_arrays(&mut self) {
        self.array_lines.clear();
        for array in self.arrays.values() {
            let mut line = ArrayLine::default();
            let mut shared: Option<Arc<WorkloadSpec>> = None;
            for (id, run) in self.runs.range_mut(array.runs()) {
                match &shared {
                    Some(spec) if !Arc::ptr_eq(spec, &run.spec) && *spec == run.spec => {
                        run.spec = spec.clone();
                    }
                    Some(_) => {}
                    None => shared = Some(run.spec.clone()),
                }
                match &run.phase {
                    RunPhase::Held => {
                        line.held.insert(*id);
                    }
                    RunPhase::Queued | RunPhase::Active => line.released += 1,
                    RunPhase::Ended { outcome, at_us } => line.count_end(outcome, 1, *at_us),
                }
                for row in super::accounts::closed_ledger_rows(run) {
                    line.cost_micro += row.cost_micro();
                    line.gpu_milli_us += row.gpu_milli_us();
                }
            }
            self.array_lines.insert(array.id, line);
        }
        let held: Vec<(ArrayId, Arc<WorkloadSpec>)> = self
            .array_lines
            .iter()
            .filter_map(|(id, line)| Some((*id, self.runs.get(line.held.first()?)?.spec.clone())))
            .collect();
        for (id, spec) in held {
            self.file_under_awaited(Submission::Array(id), &spec);
        }
    }

    /// I6: no array has more at once than it may, holds any for nothing, or counts wrongly.
    /// `fresh` is this state with what is derived made anew.
    pub(super) fn arrays_keep_to_their_caps(&self, fresh: &Self) -> Vec<String> {
        let mut wrong = self.arrays_that_do_not_hold();
        if fresh.array_lines != self.array_lines {
            wrong.push(format!(
                "{:?} counted, {:?} are",
                self.array_lines, fresh.array_lines
            ));
        }
        wrong
    }

    fn arrays_that_do_not_hold(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (id, array) in &self.arrays {
            let Some(line) = self.array_lines.get(id) else {
                wrong.push(format!("{id} has no line"));
                continue;
            };
            let most = array.most_alive.unwrap_or(u32::MAX);
            let alive = self.active_elements(array).count();
            if line.released > most || alive > most as usize {
                wrong.push(format!(
                    "{id}: {} released and {alive} alive of {most} at once",
                    line.released
                ));
            }
            let held_for_nothing =
                !line.held.is_empty() && line.released < most && !self.is_array_following(array);
            if held_for_nothing {
                wrong.push(format!("{id}: {:?} are held for nothing", line.held));
            }
            for run in self.elements(array) {
                if run.element.as_ref().map(|element| element.array) != Some(*id) {
                    wrong.push(format!("{} is no element of {id}", run.id));
                }
            }
        }
        wrong
    }
}

pub(super) fn unknown_array(id: ArrayId) -> Refusal {
    Refusal::new(RefusalKind::NotFound, format!("{id} does not exist"))
        .hint("see the arrays with: platform runs list")
}
