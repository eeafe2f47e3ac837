//! The queueing policy: which waiting runs start, and which running ones make way for them.
//!
//! Plain values in, decisions out. Nothing here knows the replicated state, a clock or a node:
//! the caller says what was submitted, what runs and what ended, and answers where there is room
//! by [`Room`]. So the planner and `platform simulate queue` ask the very same engine.
//!
//! The policy, strongest rule first:
//!
//! 1. **In quota first.** A run that its tenant's quota covers takes free room, else room that a
//!    few small runs free by moving together, else what others borrowed.
//! 2. **Borrow what is idle.** Any other run starts only where no covered run would.
//! 3. **Levels of attained GPU time** (discretised least-attained service: Gu et al., Tiresias,
//!    NSDI 2019) order the rest; a borrower displaces borrowers of a later level, and a tenant's own
//!    runs of a later level, never another tenant's covered run.
//! 4. **Nothing starves.** A run that has waited as long as the rules allow, in all, stands before
//!    every level from then on.
//! 5. **Nobody is stopped in vain.** Victims are named by [`Room`] for one start, and only those
//!    that make its room.
//!
//! A pass looks at the heads of queues only: one for each tenant and shape. It does not search for
//! the best set of starts; it takes the heads in order.

mod admit;
mod books;
mod contender;
mod levels;
mod predict;
mod reclaim;
mod room;
mod whole_nodes;

pub use crate::model::{Levels, WithinLevel};
pub use admit::{Decisions, Reason, Stop};
pub use contender::{Checkpoint, Contender, Demand, Rules, Share};
pub use predict::Predictor;
pub use room::Room;
pub use whole_nodes::WholeNodes;

use crate::model::{QueuePlace, RunId};
use books::Books;
use std::collections::{BTreeMap, BTreeSet};

/// The waiting and the running of one pool, indexed so that a pass reads heads alone.
#[derive(Debug, Clone)]
pub struct Queue {
    rules: Rules,
    books: Books,
    entries: BTreeMap<RunId, Entry>,
    /// By tenant and likeness.
    waiting: Vec<BTreeMap<Like, BTreeSet<QueuePlace>>>,
    /// By tenant; the last makes way first.
    running: Vec<BTreeSet<QueuePlace>>,
    /// When an entry's level is due to change, if nothing else happens to it.
    changes: BTreeSet<(u64, RunId)>,
}

/// Shape, and whether it may be stopped: what is alike enough for one's refusal to speak for all.
type Like = (u32, bool);

/// What the queue knows of one run.
#[derive(Debug, Clone)]
struct Entry {
    contender: Contender,
    key: QueuePlace,
    is_running: bool,
    /// Since when it runs or waits.
    since_us: u64,
    change_us: Option<u64>,
}

impl Entry {
    fn like(&self) -> Like {
        (self.contender.demand.shape, self.contender.is_preemptible)
    }

    fn attained_gpu_milli_us(&self, now_us: u64) -> u128 {
        let held_us = if self.is_running {
            now_us.saturating_sub(self.since_us)
        } else {
            0
        };
        self.contender
            .attained_gpu_milli_us
            .saturating_add(u128::from(held_us) * u128::from(self.contender.demand.gpu_milli))
    }

    fn waited_us(&self, now_us: u64) -> u64 {
        let more_us = if self.is_running {
            0
        } else {
            now_us.saturating_sub(self.since_us)
        };
        self.contender.waited_us.saturating_add(more_us)
    }

    /// Closes the books on the current spell, and opens the next.
    fn turn(&mut self, is_running: bool, now_us: u64) {
        self.contender.attained_gpu_milli_us = self.attained_gpu_milli_us(now_us);
        self.contender.waited_us = self.waited_us(now_us);
        self.is_running = is_running;
        self.since_us = now_us;
    }
}

impl Queue {
    /// An empty queue. `shares` by tenant; `unassigned_milli` is capacity that is nobody's quota,
    /// which anybody may borrow.
    pub fn new(rules: Rules, shares: Vec<Share>, unassigned_milli: u64) -> Self {
        Self {
            rules,
            waiting: vec![BTreeMap::new(); shares.len()],
            running: vec![BTreeSet::new(); shares.len()],
            books: Books::new(shares, unassigned_milli),
            entries: BTreeMap::new(),
            changes: BTreeSet::new(),
        }
    }

    /// A run that waits from now on. One already known, or of a tenant that is not, is left as it is:
    /// false.
    pub fn wait(&mut self, contender: Contender, now_us: u64) -> bool {
        self.enter(contender, false, now_us)
    }

    /// A run that already holds its room, since `since_us`. False as for [`Queue::wait`].
    pub fn hold(&mut self, contender: Contender, since_us: u64) -> bool {
        self.enter(contender, true, since_us)
    }

    /// A run that ended, or was withdrawn. The caller gives its room back.
    pub fn end(&mut self, run: RunId) {
        let Some(entry) = self.entries.get(&run) else {
            return;
        };
        if entry.is_running {
            self.books
                .give_back(entry.contender.tenant, entry.contender.demand.gpu_milli);
        }
        self.unlink(run);
        self.entries.remove(&run);
    }

    /// A checkpoint that a running run has written: what stopping it would lose is counted from here.
    pub fn checkpointed(&mut self, run: RunId, at_us: u64) {
        if let Some(entry) = self.entries.get_mut(&run) {
            entry.contender.checkpoint = Checkpoint::Until(at_us);
        }
    }

    /// When a level changes next, so that the caller may ask for decisions then.
    pub fn next_change_us(&self) -> Option<u64> {
        self.changes.first().map(|(at_us, _)| *at_us)
    }

    /// Thousandths of GPUs that a tenant's runs hold.
    pub fn used_milli(&self, tenant: usize) -> u64 {
        self.books.used_milli(tenant)
    }

    /// A tenant's waiting runs, as demands and how many ask each.
    pub fn waiting(&self, tenant: usize) -> impl Iterator<Item = (Demand, usize)> + '_ {
        self.waiting
            .get(tenant)
            .into_iter()
            .flatten()
            .filter_map(|(_, keys)| {
                let first = keys.first()?;
                Some((self.entries[&first.run()].contender.demand, keys.len()))
            })
    }

    /// The level that a run stands in at the last decision, from 1; 0 is for those that have waited as
    /// long as the rules allow.
    pub fn level(&self, run: RunId) -> Option<u32> {
        self.entries.get(&run).map(|entry| entry.key.level())
    }

    fn enter(&mut self, contender: Contender, is_running: bool, since_us: u64) -> bool {
        let run = contender.run;
        if contender.tenant >= self.waiting.len() || self.entries.contains_key(&run) {
            return false;
        }
        if is_running {
            self.books
                .take(contender.tenant, contender.demand.gpu_milli);
        }
        let entry = Entry {
            key: contender.place(0, self.rules.within),
            contender,
            is_running,
            since_us,
            change_us: None,
        };
        self.entries.insert(run, entry);
        self.link(run, since_us);
        true
    }

    /// Files an entry under its level of this moment, and notes when that will change.
    fn link(&mut self, run: RunId, now_us: u64) {
        let Some(entry) = self.entries.get_mut(&run) else {
            return;
        };
        let (level, change_us) = levels::stand(entry, &self.rules, now_us);
        entry.key = entry.contender.place(level, self.rules.within);
        entry.change_us = change_us;
        if let Some(at_us) = change_us {
            self.changes.insert((at_us, run));
        }
        let like = entry.like();
        let tenant = entry.contender.tenant;
        if entry.is_running {
            self.running[tenant].insert(entry.key);
        } else {
            self.waiting[tenant]
                .entry(like)
                .or_default()
                .insert(entry.key);
        }
    }

    fn unlink(&mut self, run: RunId) {
        let Some(entry) = self.entries.get_mut(&run) else {
            return;
        };
        if let Some(at_us) = entry.change_us.take() {
            self.changes.remove(&(at_us, run));
        }
        let tenant = entry.contender.tenant;
        if entry.is_running {
            self.running[tenant].remove(&entry.key);
        } else if let Some(keys) = self.waiting[tenant].get_mut(&entry.like()) {
            keys.remove(&entry.key);
            if keys.is_empty() {
                self.waiting[tenant].remove(&entry.like());
            }
        }
    }

    /// Files anew what changed its level by now.
    fn pass_changes(&mut self, now_us: u64) {
        while let Some((at_us, run)) = self.changes.first().copied() {
            if at_us > now_us {
                break;
            }
            self.unlink(run);
            self.link(run, now_us);
        }
    }
}

#[cfg(test)]
mod tests;
