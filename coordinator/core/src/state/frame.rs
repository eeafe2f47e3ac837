//! What a period began with: the settings and the nodes of a state, without anything that runs, so that
//! a history can be played on them again.

use super::{State, run_ledger_rows};
use crate::model::{Charge, Node, NodeCondition, PastRun, Policy, Run, RunId, RunPhase, TagMode};

impl State {
    /// Pools, tenants with their lines, policy and nodes as they are now, at the time `at_us`, and
    /// nothing else: no runs, no budgets (what they have counted is of today), no tokens.
    ///
    /// Nodes take runs, whatever their condition is today; one that is lost is only there if it held a
    /// run that had not ended by `at_us`. Cost tags are not asked for: what is replayed was admitted.
    pub fn frame(&self, at_us: u64) -> Self {
        let held_something = |node: &Node| {
            self.past_runs(at_us).any(|run| {
                run.attempts
                    .iter()
                    .filter(|attempt| attempt.ended_us.is_none_or(|ended_us| ended_us >= at_us))
                    .flat_map(|attempt| &attempt.members)
                    .any(|member| member.node == node.description.name)
            })
        };
        let mut frame = Self {
            index: self.index,
            time_us: at_us,
            policy: Policy {
                tag_mode: TagMode::Off,
                ..self.policy.clone()
            },
            pools: self.pools.clone(),
            tenants: self.tenants.clone(),
            nodes: self
                .nodes
                .iter()
                .filter(|(_, node)| node.condition != NodeCondition::Lost || held_something(node))
                .map(|(name, node)| (name.clone(), Node::new(node.description.clone())))
                .collect(),
            ..Self::default()
        };
        frame.reindex();
        frame
    }

    /// The runs that had not ended by `since_us`, first submitted first.
    pub fn past_runs(&self, since_us: u64) -> impl Iterator<Item = &Run> {
        self.past_runs_after(RunId(0), since_us)
    }

    /// What one of them has been, with what it was charged from `since_us` until `until_us`.
    pub fn past_run(run: &Run, since_us: u64, until_us: u64) -> PastRun {
        let mut charge = Charge::default();
        for row in run_ledger_rows(run, until_us) {
            charge.add(&row, since_us, until_us);
        }
        PastRun {
            charge,
            ..PastRun::of(run)
        }
    }

    /// Those of them with an id above `after`.
    pub fn past_runs_after(&self, after: RunId, since_us: u64) -> impl Iterator<Item = &Run> {
        self.runs
            .range(RunId(after.0.saturating_add(1))..)
            .map(|(_, run)| run)
            .filter(move |run| match run.phase {
                RunPhase::Ended { at_us, .. } => at_us >= since_us,
                RunPhase::Held | RunPhase::Queued | RunPhase::Active => true,
            })
    }
}
