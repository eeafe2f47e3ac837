//! Which nodes hold what a run brings along: those that ran its image, or its packed files, last. They
//! need not fetch or install again.
//!
//! Deliberately a guess: nodes evict what was not used for long, and the agent fetches what is missing.

use super::State;
use crate::model::{NodeName, Run, RunId, WorkloadSpec};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The run that was placed last with each content, and when.
pub(super) type PlacedLast = BTreeMap<Arc<str>, (u64, RunId)>;

/// What has to be on a node before the run can start there: its image, else its packed files.
fn content(spec: &WorkloadSpec) -> Option<&str> {
    spec.image.as_deref().or(spec.source_sha256.as_deref())
}

impl State {
    /// Nodes that hold the run's image or files, as far as is known.
    pub fn nodes_near(&self, run: &Run) -> Vec<NodeName> {
        let own = run.last_attempt();
        let other = || {
            let (_, last) = self.placed_last.get(content(&run.spec)?)?;
            self.runs.get(last)?.last_attempt()
        };
        own.or_else(other)
            .into_iter()
            .flat_map(|attempt| &attempt.members)
            .map(|member| member.node.clone())
            .collect()
    }

    pub(super) fn note_placed(&mut self, run: RunId) {
        let Some(run) = self.runs.get(&run) else {
            return;
        };
        let (Some(content), Some(attempt)) = (content(&run.spec), run.last_attempt()) else {
            return;
        };
        let placed = (attempt.placed_us, run.id);
        match self.placed_last.get_mut(content) {
            Some(last) => *last = placed.max(*last),
            None => {
                self.placed_last.insert(content.into(), placed);
            }
        }
    }
}
