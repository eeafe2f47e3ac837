//! One pass: the heads of queues in order, each given room or passed over.

use super::books::Cover;
use super::reclaim::{Depth, Victim};
use super::{Demand, Like, Queue, Room};
use crate::model::{QueuePlace, RunId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Why a running run is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It used borrowed room that its owner needs.
    Reclaimed,
    /// A run of an earlier level, or of its own tenant's higher priority, takes its room.
    Displaced,
    /// It starts again elsewhere at once, so that a gang fits where it ran.
    Moved,
}

/// A running run to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stop {
    /// Which.
    pub run: RunId,
    /// Why.
    pub reason: Reason,
    /// The run that it makes way for.
    pub makes_way_for: RunId,
}

/// What a pass decided. Every stop comes before every start; a run in both moves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// By run.
    pub stops: Vec<Stop>,
    /// By run. Each holds its room already.
    pub starts: Vec<RunId>,
}

/// The first of a tenant's waiting runs of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    cover: Cover,
    across: (u32, (u64, u64), u64, RunId),
    key: QueuePlace,
    tenant: usize,
    demand: Demand,
}

/// What a pass has found so far.
struct Pass {
    now_us: u64,
    agenda: BTreeSet<Head>,
    /// What of each tenant is on the agenda.
    heads: Vec<Vec<Head>>,
    /// Tenants and queues that found no room since something was freed last.
    passed_over: BTreeSet<(usize, Like)>,
    /// The earliest level of each shape that no borrower could make way for, until someone does.
    refused: BTreeMap<u32, u32>,
    /// Shapes that nothing borrowed could make room for.
    unreclaimed: BTreeSet<u32>,
    /// Shapes that moving does not help, until something is freed.
    unmoved: BTreeSet<u32>,
    borrowers: Option<Vec<Victim>>,
    /// Of those that ran when the pass began.
    stopped: BTreeMap<RunId, Stop>,
    started: BTreeSet<RunId>,
    /// Started and stopped again within the pass, and for whom.
    replaced: BTreeMap<RunId, RunId>,
    /// Stopped once in this pass, and not stopped again: so a pass ends.
    spent: BTreeSet<RunId>,
}

impl Pass {
    /// A stop by what the pass came to in the end.
    fn as_it_came(&self, stop: &Stop) -> Stop {
        let mut stop = *stop;
        if self.started.contains(&stop.run) {
            stop.reason = Reason::Moved;
        }
        // Whoever took the place of the one it made way for has its room now. A run is stopped once
        // in a pass, so the chain ends.
        while !self.started.contains(&stop.makes_way_for) {
            match self.replaced.get(&stop.makes_way_for) {
                Some(next) => stop.makes_way_for = *next,
                None => break,
            }
        }
        stop
    }
}

impl Queue {
    /// Decides who starts and who stops at `now_us`, taking and freeing `room` accordingly.
    pub fn decide(&mut self, room: &mut impl Room, now_us: u64) -> Decisions {
        self.pass_changes(now_us);
        let mut pass = Pass {
            now_us,
            agenda: BTreeSet::new(),
            heads: vec![Vec::new(); self.waiting.len()],
            passed_over: BTreeSet::new(),
            refused: BTreeMap::new(),
            unreclaimed: BTreeSet::new(),
            unmoved: BTreeSet::new(),
            borrowers: None,
            stopped: BTreeMap::new(),
            spent: BTreeSet::new(),
            started: BTreeSet::new(),
            replaced: BTreeMap::new(),
        };
        for tenant in 0..self.waiting.len() {
            self.put_on_agenda(&mut pass, tenant);
        }
        while let Some(head) = pass.agenda.pop_first() {
            // What others use since has changed what is lent.
            if head.cover != self.books.cover(head.tenant, head.demand.gpu_milli) {
                self.put_on_agenda(&mut pass, head.tenant);
            } else if !self.give(&mut pass, room, &head) {
                let like = (head.demand.shape, self.is_preemptible(head.key.run()));
                pass.passed_over.insert((head.tenant, like));
            }
        }
        let stops = pass
            .stopped
            .values()
            .map(|stop| pass.as_it_came(stop))
            .collect();
        Decisions {
            stops,
            starts: pass.started.into_iter().collect(),
        }
    }

    /// Tries everything for a head, the gentlest first. False: it waits on.
    fn give(&mut self, pass: &mut Pass, room: &mut impl Room, head: &Head) -> bool {
        let is_covered = head.cover == Cover::Quota;
        let may_borrow = self.is_preemptible(head.key.run());
        if is_covered || (may_borrow && head.cover == Cover::Borrow) {
            if room.try_take(head.key.run(), head.demand) {
                self.begin(pass, head.key, head.tenant, head.demand);
                return true;
            }
            if self.move_for(pass, room, head) {
                return true;
            }
        }
        if is_covered {
            self.reclaim_for(pass, room, head) || self.displace_own(pass, room, head)
        } else if may_borrow {
            self.displace_for(pass, room, head)
        } else {
            self.displace_own(pass, room, head)
        }
    }

    fn move_for(&mut self, pass: &mut Pass, room: &mut impl Room, head: &Head) -> bool {
        if self.rules.most_moved_gpu_milli == 0 || pass.unmoved.contains(&head.demand.shape) {
            return false;
        }
        let found = room.moving(head.demand, self.rules.most_moved_gpu_milli, &|run| {
            !pass.spent.contains(&run)
                && self
                    .entries
                    .get(&run)
                    .is_some_and(|entry| entry.is_running && self.may_stop(entry, pass.now_us))
        });
        let Some(mut moved) = found else {
            pass.unmoved.insert(head.demand.shape);
            return false;
        };
        moved.sort_by_key(|run| (Reverse(self.entries[run].contender.demand.gpu_milli), *run));
        for run in &moved {
            self.stop(pass, room, *run, Reason::Moved, head.key.run());
        }
        if !room.try_take(head.key.run(), head.demand) {
            // The room promised more than it holds; those who made way wait for their turn.
            self.look_again(pass);
            return false;
        }
        self.begin(pass, head.key, head.tenant, head.demand);
        for run in moved {
            let entry = &self.entries[&run];
            let (key, demand, tenant) = (entry.key, entry.contender.demand, entry.contender.tenant);
            if room.try_take(run, demand) {
                self.begin(pass, key, tenant, demand);
            }
        }
        self.look_again(pass);
        true
    }

    /// Takes back for a covered run what others borrowed.
    fn reclaim_for(&mut self, pass: &mut Pass, room: &mut impl Room, head: &Head) -> bool {
        // No borrower's level protects it from the owner.
        if pass.unreclaimed.contains(&head.demand.shape) {
            return false;
        }
        let candidates: Vec<RunId> = self
            .borrowers_of(pass)
            .iter()
            .filter(|victim| victim.tenant != head.tenant)
            .map(|victim| victim.run)
            .collect();
        let found = [Depth::Borrowed, Depth::CoveredInPart]
            .into_iter()
            .find_map(|depth| self.clear(room, head, depth, &candidates));
        let Some(going) = found else {
            pass.unreclaimed.insert(head.demand.shape);
            return false;
        };
        self.replace(pass, room, head, &going, Reason::Reclaimed)
    }

    /// Borrowers of later levels, and own runs of later places, make way for a borrower.
    fn displace_for(&mut self, pass: &mut Pass, room: &mut impl Room, head: &Head) -> bool {
        let own = self.own_victims(head.tenant, &head.key, pass.now_us, &pass.spent);
        let refused = pass
            .refused
            .get(&head.demand.shape)
            .is_some_and(|level| head.key.level() >= *level);
        if refused && own.is_empty() {
            return false;
        }
        let mut others: Vec<RunId> = self
            .borrowers_of(pass)
            .iter()
            .take_while(|victim| victim.key.level() > head.key.level())
            .filter(|victim| victim.tenant != head.tenant)
            .map(|victim| victim.run)
            .collect();
        if own.is_empty() {
            let Some(going) = self.clear(room, head, Depth::Borrowed, &others) else {
                // A tenant at its limit says nothing of another's.
                if head.cover == Cover::Borrow {
                    pass.refused.insert(head.demand.shape, head.key.level());
                }
                return false;
            };
            return self.replace(pass, room, head, &going, Reason::Displaced);
        }
        // Merged by level, others' first: what they hold is borrowed for certain.
        others.extend(own.iter().map(|victim| victim.run));
        others.sort_by_key(|run| Reverse(self.entries[run].key.level()));
        match self.clear(room, head, Depth::Borrowed, &others) {
            Some(going) => self.replace(pass, room, head, &going, Reason::Displaced),
            None => false,
        }
    }

    fn displace_own(&mut self, pass: &mut Pass, room: &mut impl Room, head: &Head) -> bool {
        let own: Vec<RunId> = self
            .own_victims(head.tenant, &head.key, pass.now_us, &pass.spent)
            .iter()
            .map(|victim| victim.run)
            .collect();
        match self.clear(room, head, Depth::Borrowed, &own) {
            Some(going) => self.replace(pass, room, head, &going, Reason::Displaced),
            None => false,
        }
    }

    /// Asks the room who of the candidates must go.
    fn clear(
        &self,
        room: &impl Room,
        head: &Head,
        depth: Depth,
        candidates: &[RunId],
    ) -> Option<Vec<RunId>> {
        // Who is not borrowed whole can never go at this depth, so the room need not weigh it.
        let candidates: Vec<RunId> = candidates
            .iter()
            .copied()
            .filter(|run| {
                let contender = &self.entries[run].contender;
                depth == Depth::CoveredInPart
                    || contender.tenant == head.tenant
                    || contender.demand.gpu_milli <= self.books.over_milli(contender.tenant)
            })
            .collect();
        if candidates.is_empty() {
            return None;
        }
        let preemptible = self.is_preemptible(head.key.run());
        let gpu_milli = head.demand.gpu_milli;
        room.clearing(head.demand, &candidates, &|going| {
            let sum_of = |own: bool| {
                going
                    .iter()
                    .map(|run| &self.entries[run].contender)
                    .filter(|contender| (contender.tenant == head.tenant) == own)
                    .map(|contender| contender.demand.gpu_milli)
                    .sum::<u64>()
            };
            // What another borrower gives up changes hands.
            let cover = self
                .books
                .cover_after(head.tenant, gpu_milli, sum_of(true), sum_of(false));
            let covered = match cover {
                Cover::Quota => true,
                Cover::Borrow => preemptible,
                Cover::Nothing => false,
            };
            covered && self.keeps_quotas(head.tenant, gpu_milli, depth, going)
        })
    }

    fn replace(
        &mut self,
        pass: &mut Pass,
        room: &mut impl Room,
        head: &Head,
        going: &[RunId],
        reason: Reason,
    ) -> bool {
        for run in going {
            self.stop(pass, room, *run, reason, head.key.run());
        }
        let taken = room.try_take(head.key.run(), head.demand);
        if taken {
            self.begin(pass, head.key, head.tenant, head.demand);
        }
        self.look_again(pass);
        taken
    }

    fn is_preemptible(&self, run: RunId) -> bool {
        self.entries
            .get(&run)
            .is_some_and(|entry| entry.contender.is_preemptible)
    }

    fn borrowers_of<'a>(&self, pass: &'a mut Pass) -> &'a [Victim] {
        let (now_us, spent) = (pass.now_us, &pass.spent);
        pass.borrowers
            .get_or_insert_with(|| self.borrowers(now_us, spent))
    }

    fn begin(&mut self, pass: &mut Pass, key: QueuePlace, tenant: usize, demand: Demand) {
        self.unlink(key.run());
        if let Some(entry) = self.entries.get_mut(&key.run()) {
            entry.turn(true, pass.now_us);
        }
        self.books.take(tenant, demand.gpu_milli);
        self.link(key.run(), pass.now_us);
        pass.started.insert(key.run());
        pass.borrowers = None;
        self.put_on_agenda(pass, tenant);
    }

    fn stop(
        &mut self,
        pass: &mut Pass,
        room: &mut impl Room,
        run: RunId,
        reason: Reason,
        makes_way_for: RunId,
    ) {
        room.give_back(run);
        self.unlink(run);
        let Some(entry) = self.entries.get_mut(&run) else {
            return;
        };
        entry.turn(false, pass.now_us);
        let (tenant, gpu_milli) = (entry.contender.tenant, entry.contender.demand.gpu_milli);
        self.books.give_back(tenant, gpu_milli);
        self.link(run, pass.now_us);
        pass.spent.insert(run);
        // A run that started within the pass never ran.
        if pass.started.remove(&run) {
            pass.replaced.insert(run, makes_way_for);
        } else {
            let stop = Stop {
                run,
                reason,
                makes_way_for,
            };
            pass.stopped.insert(run, stop);
        }
        pass.borrowers = None;
        self.put_on_agenda(pass, tenant);
    }

    /// Something was freed: whoever was passed over may fit now.
    fn look_again(&self, pass: &mut Pass) {
        pass.refused.clear();
        pass.unreclaimed.clear();
        pass.unmoved.clear();
        let mut tenants: Vec<usize> = std::mem::take(&mut pass.passed_over)
            .into_iter()
            .map(|(tenant, _)| tenant)
            .collect();
        tenants.dedup();
        for tenant in tenants {
            self.put_on_agenda(pass, tenant);
        }
    }

    /// Puts a tenant's heads on the agenda as they stand now, save those passed over.
    fn put_on_agenda(&self, pass: &mut Pass, tenant: usize) {
        for head in pass.heads[tenant].drain(..) {
            pass.agenda.remove(&head);
        }
        for (like, keys) in &self.waiting[tenant] {
            let Some(key) = keys.first() else { continue };
            if pass.passed_over.contains(&(tenant, *like)) {
                continue;
            }
            let demand = self.entries[&key.run()].contender.demand;
            let head = Head {
                cover: self.books.cover(tenant, demand.gpu_milli),
                across: key.across_tenants(),
                key: *key,
                tenant,
                demand,
            };
            pass.heads[tenant].push(head);
            pass.agenda.insert(head);
        }
    }
}
