//! One look at a pool: waiting runs get what is free, tenant by tenant in turn.
//!
//! Capacity only shrinks and use only grows while a pass is made. So a demand that found no room
//! finds none later in it, and a line that met a ceiling meets it again: equal runs behind are passed
//! over without a look. The pass is bounded by [`super::MOST_DEMANDS_REFUSED`], which counts distinct
//! demands and not runs, so that nobody's long queue can hide another tenant's run that fits.

use super::fairness::{Phase, PlannedUse, Turn};
use super::place::Inventory;
use super::{MOST_DEMANDS_REFUSED, MOST_PLACEMENTS, Plan};
use crate::model::{MemberDemand, MemberPhase, NodeName, PoolName, Run, RunId, TenantName};
use crate::policy::quotas::{self, Standing};
use crate::state::{Lines, MemberPlacement, Placement, QueuePlace, State};
use std::collections::{BTreeMap, BTreeSet, btree_set};

pub struct Pass<'a> {
    state: &'a State,
    pool: &'a PoolName,
    room: Inventory,
    planned: PlannedUse<'a>,
    /// The fewest members that found no room, by what each member asks.
    refused: BTreeMap<MemberDemand, u32>,
    /// Each tenant's first run that found no room or met a ceiling, in the order met.
    refused_first: Vec<RunId>,
    /// Nodes kept for runs that others are being stopped for.
    held: BTreeSet<NodeName>,
    planned_milli: u64,
    looks: usize,
}

/// One tenant's lines of equal runs, the first of each in order.
struct Cursor<'a> {
    tenant: &'a TenantName,
    heads: BTreeSet<(QueuePlace, usize)>,
    lines: Vec<btree_set::Iter<'a, QueuePlace>>,
    /// Lines that would borrow.
    borrowing: Vec<(QueuePlace, usize)>,
    has_refused: bool,
}

/// What became of one run in a pass.
enum Verdict {
    Placed,
    /// Neither it nor its equals can start in this phase; they may in the next.
    WouldBorrow,
    /// Neither it nor its equals can start.
    Refused,
    /// It cannot, and others of its line may.
    Skipped,
}

impl<'a> Pass<'a> {
    pub fn new(state: &'a State, pool: &'a PoolName) -> Self {
        Self {
            state,
            pool,
            room: Inventory::of(state, pool),
            planned: PlannedUse::new(state, pool),
            refused: BTreeMap::new(),
            refused_first: Vec::new(),
            held: BTreeSet::new(),
            planned_milli: 0,
            looks: 0,
        }
    }

    pub fn looks(&self) -> usize {
        self.looks
    }

    pub fn refused_first(&self) -> &[RunId] {
        &self.refused_first
    }

    /// Keeps the nodes where runs will fit for which others are being stopped: nobody else starts
    /// there. Whole nodes, for the short while of a grace.
    pub fn hold_for_claimants(&mut self) {
        let mut stopping: BTreeMap<RunId, Vec<&Run>> = BTreeMap::new();
        for run in self.state.stopping_runs() {
            let claimant = run
                .last_attempt()
                .and_then(|attempt| attempt.stopping.as_ref()?.claimant());
            if let Some(claimant) = claimant.filter(|_| run.spec.pool.as_ref() == Some(self.pool)) {
                stopping.entry(claimant).or_default().push(run);
            }
        }
        for (claimant, leaving) in stopping {
            let Some(run) = self
                .state
                .runs()
                .get(&claimant)
                .filter(|run| self.state.queues().contains(run))
            else {
                continue;
            };
            let mut theirs = BTreeSet::new();
            for run in leaving {
                let demand = self.state.policy().demand(&run.spec);
                let held = held_by(run);
                theirs.extend(held.iter().map(|member| member.node.clone()));
                self.room.give_back(&demand, &held);
            }
            let demand = self.state.policy().demand(&run.spec);
            let later = self.room.choose(&demand, run.spec.nodes as usize);
            for member in later.into_iter().flatten() {
                self.room.remove_node(&member.node);
                self.held.insert(member.node);
            }
            // What is leaving has not left: the others are again as the state says.
            for name in theirs.difference(&self.held) {
                if let Some(node) = self.state.nodes().get(name) {
                    self.room.refresh_node(node);
                }
            }
        }
    }

    /// Every waiting run: first within guarantees, then borrowing, each tenant in its turn.
    pub fn place_waiting(&mut self, tenants: &'a BTreeMap<TenantName, Lines>, plan: &mut Plan) {
        let mut cursors: Vec<Cursor<'a>> = tenants
            .iter()
            .map(|(tenant, lines)| Cursor::new(tenant, lines))
            .collect();
        self.place_in_turn(&mut cursors, Phase::Guaranteed, plan);
        for cursor in &mut cursors {
            cursor.heads = std::mem::take(&mut cursor.borrowing).into_iter().collect();
        }
        self.place_in_turn(&mut cursors, Phase::Borrowing, plan);
    }

    fn place_in_turn(&mut self, cursors: &mut [Cursor<'a>], phase: Phase, plan: &mut Plan) {
        let mut turns: BTreeSet<(Turn, QueuePlace, usize)> = BTreeSet::new();
        for (position, cursor) in cursors.iter().enumerate() {
            if let Some((place, _)) = cursor.heads.first() {
                turns.insert((self.planned.turn(cursor.tenant, phase), *place, position));
            }
        }
        while let Some((turn, place, position)) = turns.pop_first() {
            if plan.placements.len() >= MOST_PLACEMENTS
                || self.refused.len() >= MOST_DEMANDS_REFUSED
            {
                return;
            }
            let cursor = &mut cursors[position];
            // Others below the same tenant may have moved it along: its turn only grows.
            let current = self.planned.turn(cursor.tenant, phase);
            if current > turn {
                turns.insert((current, place, position));
                continue;
            }
            let Some((place, line)) = cursor.heads.pop_first() else {
                continue;
            };
            let verdict = match self.state.runs().get(&place.run()) {
                Some(run) => self.start(run, phase, plan),
                None => Verdict::Skipped,
            };
            match verdict {
                Verdict::Placed | Verdict::Skipped => {
                    if let Some(next) = cursor.lines[line].next() {
                        cursor.heads.insert((*next, line));
                    }
                }
                Verdict::WouldBorrow => cursor.borrowing.push((place, line)),
                Verdict::Refused => {
                    if !std::mem::replace(&mut cursor.has_refused, true) {
                        self.refused_first.push(place.run());
                    }
                }
            }
            if let Some((place, _)) = cursor.heads.first() {
                turns.insert((self.planned.turn(cursor.tenant, phase), *place, position));
            }
        }
    }

    fn start(&mut self, run: &Run, phase: Phase, plan: &mut Plan) -> Verdict {
        let asked = run.spec.gpu_milli();
        let planned = &self.planned;
        let used = |name: &TenantName| planned.used_milli(name);
        match quotas::standing(planned.tenants(), self.pool, &run.tenant, asked, used) {
            Standing::Guaranteed => {}
            Standing::Borrows { .. } if !run.spec.preemptible => return Verdict::Refused,
            Standing::Borrows { .. } if phase == Phase::Guaranteed => return Verdict::WouldBorrow,
            Standing::Borrows { .. } => {
                let kept = quotas::kept_from_milli(planned.tenants(), self.pool, &run.tenant, used);
                if kept > 0 {
                    let idle = self.state.idle_milli(self.pool);
                    if asked.saturating_add(kept) > idle.saturating_sub(self.planned_milli) {
                        return Verdict::Refused;
                    }
                }
            }
            Standing::OverLimit { .. } => return Verdict::Refused,
        }
        let demand = self.state.policy().demand(&run.spec);
        let members = run.spec.nodes;
        if self
            .refused
            .get(&demand)
            .is_some_and(|least| members >= *least)
        {
            return Verdict::Refused;
        }
        self.looks += 1;
        let Some(placed) = self.room.take(&demand, members as usize) else {
            self.refused.insert(demand, members);
            return Verdict::Refused;
        };
        self.planned.add(&run.tenant, asked);
        self.planned_milli += asked;
        plan.placements.push(Placement {
            run: run.id,
            attempt: run.next_attempt(),
            members: placed,
        });
        Verdict::Placed
    }
}

/// What the live members of a run hold.
fn held_by(run: &Run) -> Vec<MemberPlacement> {
    run.last_attempt()
        .into_iter()
        .flat_map(|attempt| &attempt.members)
        .filter(|member| member.phase != MemberPhase::Ended)
        .map(|member| MemberPlacement {
            node: member.node.clone(),
            devices: member
                .devices
                .iter()
                .map(|grant| grant.device.clone())
                .collect(),
        })
        .collect()
}

impl<'a> Cursor<'a> {
    fn new(tenant: &'a TenantName, lines: &'a Lines) -> Self {
        let mut heads = BTreeSet::new();
        let lines = lines
            .values()
            .enumerate()
            .map(|(position, line)| {
                let mut places = line.iter();
                if let Some(first) = places.next() {
                    heads.insert((*first, position));
                }
                places
            })
            .collect();
        Self {
            tenant,
            heads,
            lines,
            borrowing: Vec::new(),
            has_refused: false,
        }
    }
}
