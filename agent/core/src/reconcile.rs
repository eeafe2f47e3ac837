//! The state machine of one node: every member it holds, its lease, and what must be done now.
//!
//! Incremental on purpose: one event touches one member (and the lease touches the fenced ones), so a
//! thousand starts a second cost a thousand small steps, never a thousand scans.

use crate::member::Member;
use crate::model::{
    Assignment, Intent, Key, MemberReport, Now, Observation, Signal, StopCause, WarningSignal,
};
use crate::outbox::Outbox;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Retired members that are remembered, so that a late word cannot start them anew. At 1,000 runs
/// a second this is the last minute.
const TOMBSTONES: usize = 65_536;
/// The margin before the lease's end is a quarter of it, and never more than this.
const LONGEST_MARGIN_US: u64 = 5_000_000;

/// What the shell owes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Record the assignment, then prepare it; answer with `Prepared` or `LaunchFailed`.
    Prepare(Key),
    /// Give up a preparation; no answer is awaited.
    CancelPreparation(Key),
    /// Start what was prepared; answer with `Running` or `LaunchFailed`.
    Start(Key),
    /// Record the cause, then signal.
    Signal {
        /// Whom.
        key: Key,
        /// Which.
        signal: Signal,
        /// Why.
        cause: StopCause,
    },
    /// Record that it is warned, then signal: once for each attempt, also across a restart of the agent.
    Warn {
        /// Whom.
        key: Key,
        /// Which.
        signal: WarningSignal,
    },
    /// It ended just now, or was found ended: its log can be stored.
    Ended(Key),
    /// It ended and the coordinator knows: clean up all that is left of it.
    Retire(Key),
}

/// What the coordinator wants of this node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// Everything, in place of changes.
    pub full: bool,
    /// New or changed.
    pub upsert: Vec<Assignment>,
    /// Known to have ended.
    pub retire: Vec<Key>,
    /// Epoch of the session that says so.
    pub session_epoch: u64,
}

/// The coordinator that speaks is not the newest one this agent has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleSession {
    /// Its epoch.
    pub given: u64,
    /// The newest met.
    pub newest: u64,
}

/// The core of one agent.
#[derive(Debug, Default)]
pub struct Core {
    members: BTreeMap<Key, Member>,
    wakes: BTreeSet<(u64, Key)>,
    fenced: BTreeSet<Key>,
    lease_us: u64,
    lease_end_us: Option<u64>,
    session_epoch: u64,
    outbox: Outbox,
    retired: BTreeSet<Key>,
    retired_order: VecDeque<Key>,
}

impl Core {
    /// An empty node that has met coordinators up to `session_epoch`, whose lease ends at
    /// `lease_end_us` if it holds one.
    pub fn new(session_epoch: u64, lease: Option<(u64, u64)>) -> Self {
        Self {
            session_epoch,
            lease_us: lease.map_or(0, |(length_us, _)| length_us),
            lease_end_us: lease.map(|(_, end_us)| end_us),
            ..Self::default()
        }
    }

    /// Takes in a member that an agent before us recorded.
    pub fn adopt(
        &mut self,
        assignment: Assignment,
        observation: Option<Observation>,
        cause: Option<StopCause>,
        now: Now,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let key = assignment.key;
        let mut member = Member::new(assignment, now);
        member.adopt(observation, cause, now, &mut actions);
        self.insert(key, member);
        self.outbox.changed(key);
        self.settle(key, now, &mut actions);
        actions
    }

    /// A session was welcomed: Hello, sent at `hello_us`, asked for a lease as a heartbeat does.
    pub fn welcomed(
        &mut self,
        session_epoch: u64,
        lease_ms: u64,
        hello_us: u64,
    ) -> Result<(), StaleSession> {
        self.check_session(session_epoch)?;
        self.lease_us = lease_ms.saturating_mul(1000);
        self.lease_renewed(hello_us);
        Ok(())
    }

    /// The lease was renewed by a heartbeat sent at `sent_us`: it counts from the asking.
    pub fn lease_renewed(&mut self, sent_us: u64) {
        let end_us = sent_us.saturating_add(self.lease_us);
        self.lease_end_us = Some(self.lease_end_us.unwrap_or(0).max(end_us));
    }

    /// Length and end of the lease, to be kept on disk.
    pub fn lease(&self) -> Option<(u64, u64)> {
        self.lease_end_us.map(|end_us| (self.lease_us, end_us))
    }

    /// Newest session met, to be kept on disk.
    pub fn session_epoch(&self) -> u64 {
        self.session_epoch
    }

    fn check_session(&mut self, given: u64) -> Result<(), StaleSession> {
        if given < self.session_epoch {
            return Err(StaleSession {
                given,
                newest: self.session_epoch,
            });
        }
        self.session_epoch = given;
        Ok(())
    }

    /// Takes what the coordinator wants.
    pub fn desired(&mut self, desired: Desired, now: Now) -> Result<Vec<Action>, StaleSession> {
        self.check_session(desired.session_epoch)?;
        let mut actions = Vec::new();
        let mut named = BTreeSet::new();
        for key in desired.retire {
            named.insert(key);
            self.let_go(
                key,
                "the coordinator has recorded its end",
                now,
                &mut actions,
            );
        }
        for assignment in desired.upsert {
            named.insert(assignment.key);
            self.upsert(assignment, now, &mut actions);
        }
        if desired.full {
            let orphans: Vec<Key> = self
                .members
                .keys()
                .filter(|key| !named.contains(key))
                .copied()
                .collect();
            for key in orphans {
                if let Some(member) = self.members.get_mut(&key) {
                    member.retire = true;
                    member.stop(
                        StopCause::Orphan,
                        member.assignment.grace_ms.saturating_mul(1000),
                        now,
                        &mut actions,
                    );
                }
                self.settle(key, now, &mut actions);
            }
        }
        Ok(actions)
    }

    fn let_go(&mut self, key: Key, reason: &str, now: Now, actions: &mut Vec<Action>) {
        if let Some(member) = self.members.get_mut(&key) {
            member.retire = true;
            let cause = StopCause::Desired {
                reason: reason.to_owned(),
            };
            let grace_us = member.assignment.grace_ms.saturating_mul(1000);
            member.stop(cause, grace_us, now, actions);
            self.settle(key, now, actions);
        }
    }

    fn upsert(&mut self, assignment: Assignment, now: Now, actions: &mut Vec<Action>) {
        let key = assignment.key;
        // Its life is over: another try would be another attempt, with another key.
        if self.retired.contains(&key) {
            return;
        }
        match self.members.get_mut(&key) {
            Some(member) if assignment.epoch < member.assignment.epoch => return,
            Some(member) => {
                // What runs cannot change under it: of a known member only these words count.
                member.assignment.epoch = assignment.epoch;
                member.assignment.intent = assignment.intent;
                member.assignment.stop_reason = assignment.stop_reason;
                member.assignment.grace_ms = assignment.grace_ms;
                member.assignment.fence = assignment.fence;
                if member.dormant && member.assignment.intent == Intent::Run {
                    member.dormant = false;
                    actions.push(Action::Prepare(key));
                }
                if member.ended() {
                    // It asks about what it has not heard yet.
                    self.outbox.changed(key);
                }
            }
            None => {
                let member = Member::new(assignment, now);
                if member.assignment.intent == Intent::Run {
                    actions.push(Action::Prepare(key));
                }
                self.insert(key, member);
            }
        }
        if let Some(member) = self.members.get_mut(&key)
            && member.told_to_stop()
        {
            let cause = StopCause::Desired {
                reason: member.assignment.stop_reason.clone(),
            };
            let grace_us = member.assignment.grace_ms.saturating_mul(1000);
            if member.stop(cause, grace_us, now, actions) {
                self.outbox.changed(key);
            }
        }
        self.settle(key, now, actions);
    }

    fn insert(&mut self, key: Key, member: Member) {
        self.members.insert(key, member);
    }

    /// Takes what a runtime saw of one member.
    pub fn observe(&mut self, key: Key, observation: Observation, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(member) = self.members.get_mut(&key) {
            if member.observe(observation, now, &mut actions) {
                self.outbox.changed(key);
            }
            self.settle(key, now, &mut actions);
        }
        actions
    }

    /// Takes a workload's word that all its work until `at_us` (wall clock) is saved.
    pub fn checkpointed(&mut self, key: Key, at_us: u64, now: Now) {
        if let Some(member) = self.members.get_mut(&key)
            && member.checkpointed(at_us, now)
        {
            self.outbox.changed(key);
        }
    }

    /// Takes the passing of time; the shell calls it when [`Core::next_wake_us`] has come.
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some((due_us, key)) = self.wakes.first().copied()
            && due_us <= now.boottime_us
        {
            self.wakes.pop_first();
            if let Some(member) = self.members.get_mut(&key) {
                member.wake_us = None;
                member.tick(now, &mut actions);
            }
            self.settle(key, now, &mut actions);
        }
        if self.fence_at_us().is_some_and(|at| at <= now.boottime_us) {
            // A fenced member must be gone before the lease's end: its grace may not pass that.
            let grace_us = self.margin_us() / 2;
            for key in std::mem::take(&mut self.fenced) {
                if let Some(member) = self.members.get_mut(&key) {
                    let grace_us = grace_us.min(member.assignment.grace_ms.saturating_mul(1000));
                    if member.stop(StopCause::Lease, grace_us, now, &mut actions) {
                        self.outbox.changed(key);
                    }
                }
                self.settle(key, now, &mut actions);
            }
        }
        actions
    }

    fn margin_us(&self) -> u64 {
        (self.lease_us / 4).min(LONGEST_MARGIN_US)
    }

    fn fence_at_us(&self) -> Option<u64> {
        if self.fenced.is_empty() {
            return None;
        }
        self.lease_end_us
            .map(|end_us| end_us.saturating_sub(self.margin_us()))
    }

    /// When [`Core::tick`] or [`Core::next_report`] has something to do next.
    pub fn next_wake_us(&self) -> Option<u64> {
        let member = self.wakes.first().map(|(due_us, _)| *due_us);
        [member, self.fence_at_us(), self.outbox.next_wake_us()]
            .into_iter()
            .flatten()
            .min()
    }

    /// After a member changed: its deadline, its fence, and whether it can go.
    fn settle(&mut self, key: Key, now: Now, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&key) else {
            return;
        };
        let wake_us = member.next_wake_us();
        if wake_us != member.wake_us {
            if let Some(old) = member.wake_us {
                self.wakes.remove(&(old, key));
            }
            if let Some(new) = wake_us {
                self.wakes.insert((new, key));
            }
            member.wake_us = wake_us;
        }
        if member.ended() {
            self.fenced.remove(&key);
            if !std::mem::replace(&mut member.end_told, true) {
                actions.push(Action::Ended(key));
            }
            if member.retire {
                self.retire(key, actions);
            }
        } else if !member.assignment.fence {
            self.fenced.remove(&key);
        } else if self
            .lease_end_us
            .is_none_or(|end_us| now.boottime_us < end_us.saturating_sub(self.margin_us()))
        {
            self.fenced.insert(key);
        } else {
            // Too late for it already: the next tick stops it, or its stop is under way.
            let member = self.members.get(&key);
            if member.is_some_and(|member| !member.stop_under_way()) {
                self.fenced.insert(key);
            }
        }
    }

    fn retire(&mut self, key: Key, actions: &mut Vec<Action>) {
        if self.members.remove(&key).is_none() {
            return;
        }
        self.outbox.forget(key);
        if self.retired.insert(key) {
            self.retired_order.push_back(key);
        }
        while self.retired_order.len() > TOMBSTONES {
            if let Some(oldest) = self.retired_order.pop_front() {
                self.retired.remove(&oldest);
            }
        }
        actions.push(Action::Retire(key));
    }

    /// The next batch of reports to send on the open session, if any is due.
    pub fn next_report(&mut self, now: Now) -> Option<(u64, Vec<MemberReport>)> {
        let members = &self.members;
        self.outbox
            .next(now.boottime_us, |key| members.get(&key).map(Member::report))
    }

    /// The coordinator has recorded a batch.
    pub fn acknowledged(&mut self, sequence: u64) {
        self.outbox.acknowledged(sequence);
    }

    /// For Hello: the latest of every member. Ends are reported once more on the new session, so that
    /// they are acknowledged whatever became of the old one.
    pub fn hello(&mut self) -> Vec<MemberReport> {
        self.outbox.new_session();
        for (key, member) in &self.members {
            if member.ended() {
                self.outbox.changed(*key);
            }
        }
        self.members.values().map(Member::report).collect()
    }

    /// What was asked for of a member.
    pub fn assignment(&self, key: Key) -> Option<&Assignment> {
        self.members.get(&key).map(|member| &member.assignment)
    }

    /// Whether the core holds this member and it has ended.
    pub fn has_ended(&self, key: Key) -> bool {
        self.members.get(&key).is_some_and(Member::ended)
    }

    /// Members of which a process may live.
    pub fn live(&self) -> usize {
        self.members
            .values()
            .filter(|member| member.may_live())
            .count()
    }

    /// Every member held.
    pub fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        self.members.keys().copied()
    }
}
