//! Tables for each rule, and properties over random sequences.

mod properties;
mod rules;

use super::*;
use std::collections::BTreeMap;

/// A pool of whole GPUs, its queue, and the words of each pass.
pub(super) struct Pool {
    pub(super) queue: Queue,
    pub(super) room: WholeNodes,
    pub(super) now_us: u64,
    next: u64,
    gpus: BTreeMap<RunId, u32>,
}

pub(super) const SECOND_US: u64 = 1_000_000;

impl Pool {
    /// Nodes of eight GPUs, and tenants' quotas in GPUs.
    pub(super) fn new(nodes: usize, quotas: &[u64]) -> Self {
        Self::with(Rules::standard(), nodes, quotas)
    }

    pub(super) fn with(rules: Rules, nodes: usize, quotas: &[u64]) -> Self {
        let shares = quotas
            .iter()
            .map(|quota| Share::of_quota(quota * 1_000))
            .collect();
        Self::of_shares(rules, nodes, shares)
    }

    pub(super) fn of_shares(rules: Rules, nodes: usize, shares: Vec<Share>) -> Self {
        let quota_milli: u64 = shares.iter().map(|share| share.quota_milli).sum();
        let unassigned_milli = (nodes as u64 * 8_000).saturating_sub(quota_milli);
        Self {
            queue: Queue::new(rules, shares, unassigned_milli),
            room: WholeNodes::new(&vec![8; nodes]),
            now_us: 0,
            next: 0,
            gpus: BTreeMap::new(),
        }
    }

    pub(super) fn contender(&mut self, tenant: usize, gpus: u32) -> Contender {
        self.next += 1;
        let run = RunId(self.next);
        self.gpus.insert(run, gpus);
        Contender {
            run,
            tenant,
            demand: WholeNodes::demand(gpus),
            priority: 0,
            submitted_us: self.now_us,
            attained_gpu_milli_us: 0,
            waited_us: 0,
            is_preemptible: true,
            predicted_us: None,
            stop_cost_us: 0,
            checkpoint: Checkpoint::AtStop,
        }
    }

    /// Submits a run that nothing is special about.
    pub(super) fn submit(&mut self, tenant: usize, gpus: u32) -> RunId {
        let contender = self.contender(tenant, gpus);
        self.submit_as(contender)
    }

    pub(super) fn submit_as(&mut self, contender: Contender) -> RunId {
        assert!(self.queue.wait(contender, self.now_us));
        contender.run
    }

    pub(super) fn decide(&mut self) -> Decisions {
        self.queue.decide(&mut self.room, self.now_us)
    }

    /// Lets so many seconds pass, and decides.
    pub(super) fn after(&mut self, seconds: u64) -> Decisions {
        self.now_us += seconds * SECOND_US;
        self.decide()
    }

    pub(super) fn end(&mut self, run: RunId) {
        self.room.give_back(run);
        self.queue.end(run);
    }

    pub(super) fn runs(&self, run: RunId) -> bool {
        !self.room.holding(run).is_empty()
    }
}

/// Who was stopped, and why.
pub(super) fn stops(decisions: &Decisions) -> Vec<(RunId, Reason)> {
    decisions
        .stops
        .iter()
        .map(|stop| (stop.run, stop.reason))
        .collect()
}
