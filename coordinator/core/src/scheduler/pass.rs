//! One look at a pool: waiting runs get what is free, tenant by tenant in turn.
//!
//! Capacity only shrinks and use only grows while a pass is made. So a demand that found no room
//! finds none later in it, and a line that met a ceiling meets it again: equal runs behind are passed
//! over without a look. Where devices are kept for others until a time, the room of a run is what they
//! leave before then, and what finds none is remembered for each such room. The pass is bounded by
//! [`super::MOST_LINES_REFUSED`], which counts distinct lines and not runs, so that nobody's long queue
//! can hide another tenant's run that fits.

use super::fairness::{Phase, PlannedUse};
use super::models::Models;
use super::place::{Gang, Inventory};
use super::reserve::{self, Keeper, MOST_RESERVATIONS, Reservation, Tenures};
use super::turns::Turns;
use super::{MOST_LINES_REFUSED, MOST_PLACEMENTS, Plan};
use crate::model::{
    Member, MemberDemand, MemberPhase, Meter, NodeName, PoolName, Run, RunId, TenantName,
};
use crate::policy::gpu_memory_sums;
use crate::policy::quotas::{self, Standing};
use crate::state::{Lines, MemberPlacement, Placement, QueuePlace, State};
use std::collections::{BTreeMap, BTreeSet, btree_set};

/// Runs of which a pass asks whether others borrow what is guaranteed to them: each is a look at the
/// tenants, and few have anything kept.
const MOST_OWED_LOOKS: usize = 32;

pub struct Pass<'a> {
    state: &'a State,
    pool: &'a PoolName,
    now_us: u64,
    room: &'a mut Inventory,
    planned: PlannedUse<'a>,
    /// What is counted of single models, in a pool where anybody has a line for one.
    models: Models<'a>,
    /// The fewest members that found no room, by what each member asks; by how many reservations
    /// stood open to it.
    refused: [BTreeMap<MemberDemand, u32>; MOST_RESERVATIONS + 1],
    /// Runs that wait for those stopped for them: what they need is kept already.
    awaiting: BTreeSet<RunId>,
    kept: Vec<Reservation>,
    keeper: Keeper<'a>,
    /// The first run of each line that found no room or met a ceiling, in the order met.
    refused_first: Vec<RunId>,
    planned_milli: u64,
    /// MiB placed so far, by the model or `prefix*` of each cap in sum.
    planned_sums_mib: Option<BTreeMap<String, u64>>,
    placed: BTreeSet<RunId>,
    looks: usize,
    /// Whether those are being placed for whom others were stopped. Nothing is kept for them until it is
    /// known where they will fit as those end: what is kept is not there to be found.
    is_placing_claimants: bool,
    /// How often it was asked whether a run is owed anything.
    owed_looks: usize,
}

/// One tenant's lines of equal runs, the first of each in order.
struct Cursor<'a> {
    /// Where the tenant was met.
    tenant: usize,
    heads: BTreeSet<(QueuePlace, usize)>,
    lines: Vec<btree_set::Iter<'a, QueuePlace>>,
    /// Lines that would borrow.
    borrowing: Vec<(QueuePlace, usize)>,
    /// Lines that found no room or met a ceiling.
    refused: usize,
}

/// What became of one run in a pass.
enum Verdict {
    Placed,
    /// Neither it nor its equals can start in this phase; they may in the next.
    WouldBorrow,
    /// Neither it nor its equals can start.
    Refused,
    /// Neither it nor its equals can start, and no room that others give would change that.
    Capped,
    /// It cannot, and others of its line may.
    Skipped,
}

impl<'a> Pass<'a> {
    pub fn new(
        state: &'a State,
        pool: &'a PoolName,
        room: &'a mut Inventory,
        tenures: &'a mut Tenures,
        now_us: u64,
    ) -> Self {
        Self {
            state,
            pool,
            now_us,
            room,
            planned: PlannedUse::new(state, pool),
            models: Models::of(state, pool),
            refused: Default::default(),
            awaiting: BTreeSet::new(),
            kept: Vec::new(),
            keeper: Keeper::new(state, now_us, tenures),
            refused_first: Vec::new(),
            planned_milli: 0,
            planned_sums_mib: None,
            placed: BTreeSet::new(),
            looks: 0,
            is_placing_claimants: false,
            owed_looks: 0,
        }
    }

    pub fn looks(&self) -> usize {
        self.looks
    }

    pub fn refused_first(&self) -> &[RunId] {
        &self.refused_first
    }

    /// What is kept for runs that found no room, when the pass is done.
    pub fn take_reservations(&mut self) -> Vec<Reservation> {
        std::mem::take(&mut self.kept)
    }

    /// Runs for which others were stopped go before all others. Where those have not ended yet, the
    /// nodes are kept where they will fit: nobody else starts there for the short while of a grace.
    pub fn place_claimants(&mut self, plan: &mut Plan) {
        let mut stopping: BTreeMap<RunId, Vec<&Run>> = BTreeMap::new();
        // Who is cancelled or evicted makes room too: claims have counted on it.
        let mut leaving: Vec<&Run> = Vec::new();
        for run in self.state.stopping_runs() {
            let reason = run
                .last_attempt()
                .and_then(|attempt| attempt.stopping.as_ref());
            match reason.and_then(|reason| self.state.waiting_claimant(reason)) {
                Some(claimant) => stopping.entry(claimant.id).or_default().push(run),
                None => leaving.push(run),
            }
        }
        let mut waiting = Vec::new();
        self.is_placing_claimants = true;
        for run in self.state.claimants() {
            if run.spec.pool.as_ref() == Some(self.pool)
                && !self.state.is_stopped(&run.tenant, &run.spec)
                && !matches!(self.start(run, Phase::Borrowing, plan), Verdict::Placed)
            {
                let mut awaited = stopping.remove(&run.id).unwrap_or_default();
                awaited.extend(&leaving);
                if !awaited.is_empty() {
                    waiting.push((run, awaited));
                }
            }
        }
        self.is_placing_claimants = false;
        // A demand that finds no room now is looked at again beside what is kept.
        self.refused = Default::default();
        for (run, leaving) in waiting {
            self.hold_for(run, &leaving);
            self.awaiting.insert(run.id);
            self.planned.await_milli(&run.tenant, run.spec.gpu_milli());
            self.models.await_run(run);
        }
    }

    fn hold_for(&mut self, run: &Run, leaving: &[&Run]) {
        let members = || leaving.iter().flat_map(|run| live_members(run));
        for member in members() {
            self.room.release(member);
        }
        let demand = self.state.policy().demand(&run.spec);
        let ways = self.models.ways(demand);
        let later = ways
            .iter()
            .find_map(|way| self.room.choose(way, gang(run, &[])));
        // They have not left yet.
        for member in members() {
            self.room.hold_again(member);
        }
        for member in later.into_iter().flatten() {
            self.room.remove_node(&member.node);
        }
    }

    /// Every waiting run: first within guarantees, then borrowing, each tenant in its turn.
    pub fn place_waiting(&mut self, tenants: &'a BTreeMap<TenantName, Lines>, plan: &mut Plan) {
        let mut cursors: Vec<Cursor<'a>> = tenants
            .iter()
            .filter_map(|(tenant, lines)| {
                let is_stopped = self.state.is_tenant_stopped(tenant);
                Some(Cursor::new(self.planned.meet(tenant)?, lines, is_stopped))
            })
            .collect();
        self.place_in_turn(&mut cursors, Phase::Guaranteed, plan);
        for cursor in &mut cursors {
            cursor.heads = std::mem::take(&mut cursor.borrowing).into_iter().collect();
        }
        self.place_in_turn(&mut cursors, Phase::Borrowing, plan);
    }

    fn place_in_turn(&mut self, cursors: &mut [Cursor<'a>], phase: Phase, plan: &mut Plan) {
        let mut turns = Turns::default();
        for (position, cursor) in cursors.iter().enumerate() {
            turns.set(&self.planned, phase, cursor.tenant, position, cursor.next());
        }
        while let Some(position) = turns.first() {
            if plan.placements.len() >= MOST_PLACEMENTS {
                return;
            }
            let cursor = &mut cursors[position];
            let Some((place, line)) = cursor.heads.pop_first() else {
                // Whose turn it is has a run left; were it not so, this ends it.
                turns.set(&self.planned, phase, cursor.tenant, position, None);
                continue;
            };
            let verdict = match self.state.runs().get(&place.run()) {
                Some(run) if !self.placed.contains(&run.id) => self.start(run, phase, plan),
                _ => Verdict::Skipped,
            };
            match verdict {
                Verdict::Placed | Verdict::Skipped => {
                    if let Some(next) = cursor.lines[line].next() {
                        cursor.heads.insert((*next, line));
                    }
                }
                Verdict::Capped => {}
                Verdict::WouldBorrow => cursor.borrowing.push((place, line)),
                Verdict::Refused => {
                    self.refused_first.push(place.run());
                    cursor.refused += 1;
                    if cursor.refused >= MOST_LINES_REFUSED {
                        cursor.heads.clear();
                        cursor.borrowing.clear();
                    }
                }
            }
            turns.set(&self.planned, phase, cursor.tenant, position, cursor.next());
        }
    }

    fn start(&mut self, run: &Run, phase: Phase, plan: &mut Plan) -> Verdict {
        // Of a line only some may carry a cost tag whose budget is spent.
        if self.state.is_stopped(&run.tenant, &run.spec) {
            return Verdict::Skipped;
        }
        let demand = self.state.policy().demand(&run.spec);
        if self.models.are_metered() && demand.devices > 0 {
            return self.start_on_one_model(run, demand, phase, plan);
        }
        let verdict = match self.stands(run, &demand, phase) {
            Ok(_) => self.start_as(run, &demand, plan),
            Err(verdict) => return verdict,
        };
        match verdict {
            Some(verdict) => verdict,
            None => {
                // A phase lets nobody of the one before be kept from.
                self.keep_for(run, &demand, phase == Phase::Guaranteed, plan);
                Verdict::Refused
            }
        }
    }

    /// Tries one model after another: first those on which it is within its guarantees. It borrows a
    /// model only when none of its own has room, and devices are kept for it on one alone.
    fn start_on_one_model(
        &mut self,
        run: &Run,
        demand: MemberDemand,
        phase: Phase,
        plan: &mut Plan,
    ) -> Verdict {
        let (mut would_borrow, mut is_capped) = (false, false);
        let mut standing: Vec<(bool, MemberDemand)> = Vec::new();
        for way in self.models.ways(demand) {
            match self.stands(run, &way, phase) {
                Ok(is_guaranteed) => standing.push((is_guaranteed, way)),
                Err(Verdict::WouldBorrow) => would_borrow = true,
                Err(_) => {}
            }
        }
        standing.sort_by_key(|(is_guaranteed, _)| !is_guaranteed);
        let mut without_room: Option<(bool, MemberDemand)> = None;
        for (is_guaranteed, way) in standing {
            match self.start_as(run, &way, plan) {
                Some(Verdict::Placed) => return Verdict::Placed,
                Some(_) => is_capped = true,
                None => without_room = without_room.or(Some((is_guaranteed, way))),
            }
        }
        if would_borrow {
            return Verdict::WouldBorrow;
        }
        match without_room {
            Some((is_guaranteed, way)) => {
                let is_guaranteed = is_guaranteed && !run.has_claim;
                self.keep_for(run, &way, is_guaranteed, plan);
                Verdict::Refused
            }
            None if is_capped => Verdict::Capped,
            None => Verdict::Refused,
        }
    }

    /// Whether the lines let a run start like this in this phase, and if they do, whether it is within
    /// its guarantees.
    fn stands(&self, run: &Run, demand: &MemberDemand, phase: Phase) -> Result<bool, Verdict> {
        let asked = run.spec.gpu_milli();
        let of_pool = (Meter::from(self.pool), &self.planned, self.planned_milli);
        let of_model = self.models.meter_of(demand);
        let mut would_borrow = false;
        for (meter, planned, planned_milli) in std::iter::once(of_pool).chain(of_model) {
            let used = |name: &TenantName| planned.used_milli(name);
            match quotas::standing(planned.tenants(), meter, &run.tenant, asked, used) {
                Standing::Guaranteed => {}
                Standing::OverLimit { .. } => return Err(Verdict::Refused),
                Standing::Borrows { .. } if !run.spec.preemptible => return Err(Verdict::Refused),
                Standing::Borrows { .. } => {
                    would_borrow = true;
                    if phase == Phase::Guaranteed {
                        continue;
                    }
                    // As `apply` will count it: an owner that awaits its devices still keeps them.
                    let granted = |name: &TenantName| planned.granted_milli(name);
                    let kept =
                        quotas::kept_from_milli(planned.tenants(), meter, &run.tenant, granted);
                    if kept > 0 {
                        let idle = self.state.idle_on(meter).saturating_sub(planned_milli);
                        if asked.saturating_add(kept) > idle {
                            return Err(Verdict::Refused);
                        }
                    }
                }
            }
        }
        if would_borrow && phase == Phase::Guaranteed {
            return Err(Verdict::WouldBorrow);
        }
        Ok(!would_borrow)
    }

    /// Takes room for a run; `None`: there is none.
    fn start_as(&mut self, run: &Run, demand: &MemberDemand, plan: &mut Plan) -> Option<Verdict> {
        let asked = run.spec.gpu_milli();
        let placed = self.take(run, demand.clone())?;
        if !self.count_sums(run, demand, &placed, plan) {
            self.room.give_back(demand, &placed);
            return Some(Verdict::Capped);
        }
        self.planned.add(&run.tenant, asked);
        self.planned_milli += asked;
        self.models.add(&run.tenant, demand, asked);
        self.placed.insert(run.id);
        plan.placements.push(Placement {
            run: run.id,
            attempt: run.next_attempt(),
            members: placed,
        });
        Some(Verdict::Placed)
    }

    /// Counts what a run takes against the caps in sum that bind it, unless it would pass one.
    fn count_sums(
        &mut self,
        run: &Run,
        demand: &MemberDemand,
        members: &[MemberPlacement],
        plan: &Plan,
    ) -> bool {
        let policy = self.state.policy();
        if gpu_memory_sums(policy, &run.spec).next().is_none() {
            return true;
        }
        let state = self.state;
        // The caps know no pools: what the plan has placed in others counts.
        let planned = self
            .planned_sums_mib
            .get_or_insert_with(|| planned_sums_mib(state, plan));
        let taken_mib = taken_mib(state, demand, members);
        let before_mib = |pattern: &str| planned.get(pattern).copied().unwrap_or(0);
        if state
            .over_memory_sum(&run.spec, taken_mib, before_mib)
            .is_some()
        {
            return false;
        }
        for (pattern, _) in gpu_memory_sums(policy, &run.spec) {
            *planned.entry(pattern.to_owned()).or_default() += taken_mib;
        }
        true
    }

    /// Room for a run, beside what is kept for others beyond its end.
    fn take(&mut self, run: &Run, demand: MemberDemand) -> Option<Vec<MemberPlacement>> {
        let members = run.spec.nodes;
        let open: Vec<usize> = (0..self.kept.len())
            .filter(|kept| self.kept[*kept].lets_start(run, self.now_us))
            .collect();
        let refused = &self.refused[open.len()];
        if refused.get(&demand).is_some_and(|least| members >= *least) {
            return None;
        }
        self.looks += 1;
        for kept in &open {
            self.close(*kept, false);
        }
        // Looked at for a gang of one alone.
        let near = match members {
            1 => self.state.nodes_near(run),
            _ => Vec::new(),
        };
        let taken = self.room.take(&demand, gang(run, &near));
        for kept in &open {
            self.close(*kept, true);
        }
        if taken.is_none() {
            self.refused[open.len()].insert(demand, members);
        }
        taken
    }

    /// Keeps devices for a run that has found no room for too long, or that others borrow from: of each
    /// tenant for the first, as those behind it wait for it anyway, and for few at once.
    fn keep_for(&mut self, run: &Run, demand: &MemberDemand, guaranteed: bool, plan: &Plan) {
        let is_full = self.kept.len() >= MOST_RESERVATIONS;
        if is_full || self.is_placing_claimants || self.has_kept_for(run) {
            return;
        }
        let is_due = reserve::due_us(self.state, run) <= self.now_us;
        let is_owed = guaranteed && self.is_owed(run, demand);
        let (room, keeper) = (&self.room, &mut self.keeper);
        let is_offered = |node: &NodeName| room.has(node);
        let (placed, kept) = (plan.placements.as_slice(), self.kept.as_slice());
        let mut reservation = None;
        if is_owed {
            reservation = keeper.reserve_owed(run, demand, placed, kept, is_offered);
        }
        if is_due && reservation.is_none() {
            reservation = keeper.reserve(run, (demand, guaranteed), placed, kept, is_offered);
        }
        if let Some(reservation) = reservation {
            self.kept.push(reservation);
            self.close(self.kept.len() - 1, true);
        }
    }

    /// Whether others borrow what is guaranteed to a run.
    fn is_owed(&mut self, run: &Run, demand: &MemberDemand) -> bool {
        if self.owed_looks >= MOST_OWED_LOOKS
            || !(quotas::is_metered(self.state.tenants(), self.pool) || self.models.are_metered())
        {
            return false;
        }
        self.owed_looks += 1;
        let holders = self.state.stoppable(self.pool).into_iter().flatten();
        holders
            .map(|(tenant, _)| tenant)
            .any(|tenant| *tenant != run.tenant && self.state.is_owed_by(run, demand, tenant))
    }

    fn has_kept_for(&self, run: &Run) -> bool {
        let is_of_tenant = |id: &RunId| {
            self.state
                .runs()
                .get(id)
                .is_some_and(|other| other.tenant == run.tenant)
        };
        self.awaiting.contains(&run.id) || self.kept.iter().any(|kept| is_of_tenant(&kept.run))
    }

    /// Takes what a reservation keeps out of the room, or puts it back.
    fn close(&mut self, kept: usize, is_closed: bool) {
        let reservation = &self.kept[kept];
        let Some(run) = self.state.runs().get(&reservation.run) else {
            return;
        };
        let mut demand = self.state.policy().demand(&run.spec);
        demand.only_model.clone_from(&reservation.model);
        if is_closed {
            self.room.take_back(&demand, &reservation.members);
        } else {
            self.room.give_back(&demand, &reservation.members);
        }
    }
}

/// Where the members of a run would rather be.
fn gang<'a>(run: &Run, near: &'a [NodeName]) -> Gang<'a> {
    Gang {
        members: run.spec.nodes as usize,
        spread: run.spec.spread,
        near,
    }
}

fn live_members(run: &Run) -> impl Iterator<Item = &Member> {
    run.last_attempt()
        .into_iter()
        .flat_map(|attempt| &attempt.members)
        .filter(|member| member.phase != MemberPhase::Ended)
}

/// Memory of devices that placed members take, MiB.
fn taken_mib(state: &State, demand: &MemberDemand, members: &[MemberPlacement]) -> u64 {
    members
        .iter()
        .filter_map(|member| Some((member, state.nodes().get(&member.node)?)))
        .flat_map(|(member, node)| {
            node.description
                .devices
                .iter()
                .filter(|device| member.devices.contains(&device.id))
        })
        .map(|device| demand.memory_on(device.memory_mib))
        .sum()
}

/// What a plan takes of each cap in sum, MiB.
fn planned_sums_mib(state: &State, plan: &Plan) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for placement in &plan.placements {
        let Some(run) = state.runs().get(&placement.run) else {
            continue;
        };
        for (pattern, _) in gpu_memory_sums(state.policy(), &run.spec) {
            let demand = state.policy().demand(&run.spec);
            *sums.entry(pattern.to_owned()).or_default() +=
                taken_mib(state, &demand, &placement.members);
        }
    }
    sums
}

impl<'a> Cursor<'a> {
    /// Where a budget is spent, only the lines of runs that cost nothing.
    fn new(tenant: usize, lines: &'a Lines, is_stopped: bool) -> Self {
        let mut heads = BTreeSet::new();
        let lines = lines
            .iter()
            .filter(|(shape, _)| !is_stopped || shape.demand.devices == 0)
            .enumerate()
            .map(|(position, (_, line))| {
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
            refused: 0,
        }
    }

    /// The run to be looked at next.
    fn next(&self) -> Option<QueuePlace> {
        self.heads.first().map(|(place, _)| *place)
    }
}
