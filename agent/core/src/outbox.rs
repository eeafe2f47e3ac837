//! What must still be said: the latest state of each member, until acknowledged.
//!
//! States coalesce: a member that prepared, ran and ended since the last batch is told of once, as
//! ended. An end is never replaced by anything, so it is never lost.

use crate::model::{Key, MemberReport};
use std::collections::{BTreeMap, BTreeSet};

/// Batches under way at once. Two keep the line busy while the first is being committed; more would
/// only grow what is sent again after a break.
const WINDOW: usize = 4;
/// Members in a batch: about 100 KiB at most, well below the message limit of 4 MiB.
const BATCH: usize = 1024;
/// A batch is sent again when it has not been acknowledged for this long.
const AGAIN_US: u64 = 3_000_000;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    changed: BTreeSet<Key>,
    flying: BTreeMap<u64, Flying>,
    last_sequence: u64,
}

#[derive(Debug)]
struct Flying {
    sent_us: u64,
    members: Vec<MemberReport>,
}

impl Outbox {
    pub(crate) fn changed(&mut self, key: Key) {
        self.changed.insert(key);
    }

    pub(crate) fn forget(&mut self, key: Key) {
        self.changed.remove(&key);
        for flying in self.flying.values_mut() {
            flying.members.retain(|report| report.key != key);
        }
    }

    /// The next batch to send, new or again.
    pub(crate) fn next(
        &mut self,
        now_us: u64,
        report: impl Fn(Key) -> Option<MemberReport>,
    ) -> Option<(u64, Vec<MemberReport>)> {
        let late = self
            .flying
            .iter_mut()
            .find(|(_, flying)| now_us >= flying.sent_us.saturating_add(AGAIN_US));
        if let Some((sequence, flying)) = late {
            flying.sent_us = now_us;
            // Told again as it is now: a batch sent since may have told an end, which nothing overtakes.
            flying.members = flying
                .members
                .iter()
                .filter_map(|told| report(told.key))
                .collect();
            return Some((*sequence, flying.members.clone()));
        }
        if self.changed.is_empty() || self.flying.len() >= WINDOW {
            return None;
        }
        let mut members = Vec::new();
        while members.len() < BATCH
            && let Some(key) = self.changed.pop_first()
        {
            members.extend(report(key));
        }
        if members.is_empty() {
            return None;
        }
        self.last_sequence += 1;
        self.flying.insert(
            self.last_sequence,
            Flying {
                sent_us: now_us,
                members: members.clone(),
            },
        );
        Some((self.last_sequence, members))
    }

    pub(crate) fn acknowledged(&mut self, sequence: u64) {
        self.flying.remove(&sequence);
    }

    /// A new session: what flew on the old one may be lost, and Hello tells the latest of everything.
    pub(crate) fn new_session(&mut self) {
        self.flying.clear();
        self.changed.clear();
    }

    pub(crate) fn next_wake_us(&self) -> Option<u64> {
        self.flying
            .values()
            .map(|flying| flying.sent_us.saturating_add(AGAIN_US))
            .min()
    }
}
