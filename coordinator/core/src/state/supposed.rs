//! What if a waiting run asked for something else: for trials on a copy, never for what is replicated.

use super::State;
use crate::model::{RunId, RunPhase, WorkloadSpec};
use std::sync::Arc;

impl State {
    /// This state, had the waiting run `id` asked for `spec`, at its old place in the queue. The spec
    /// must be resolved ([`crate::policy::resolve`]). A run that does not wait, or is held, is left as it is.
    pub fn supposing(mut self, id: RunId, spec: WorkloadSpec) -> Self {
        if self.runs.get(&id).is_some_and(|run| self.is_held(run)) {
            return self;
        }
        if let Some(run) = self.runs.get_mut(&id)
            && run.phase == RunPhase::Queued
        {
            self.queues.remove(run);
            run.spec = Arc::new(spec);
            self.file_anew(id);
        }
        self
    }
}
