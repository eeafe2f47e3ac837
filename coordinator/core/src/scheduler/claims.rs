//! Which runs give way to those that may take from them: those with the least work to lose since their
//! last checkpoint, then the fewest, and never one that does not make room.
//!
//! Nodes are asked one by one what they would have to lose; the cheapest are taken first, and each run
//! is checked as `apply` will check it, after those before it. What claims together would take from a
//! tenant is counted over all of them.

use super::reach::nodes_to_ask;
use super::{Plan, Reservation};
use crate::model::{
    MemberDemand, MemberKey, MemberPhase, Meter, Node, NodeName, PoolName, Run, RunId, StopReason,
    TenantName, WHOLE_DEVICE_MILLI, tenant_and_above,
};
use crate::policy::quotas::{self, Standing};
use crate::policy::{fits_empty, fits_now};
use crate::state::{Preemption, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Claims looked at in one plan. Each may look at every node of the pool; the next plan, after these
/// have been applied, looks at the next.
const MOST_CLAIMS: usize = 32;

/// Work that a run would lose, in thousandths of devices times microseconds, and its id.
type Loss = (u128, RunId);
/// Thousandths of devices by tenant, those above included: over all models, and of each where that is
/// counted.
#[derive(Clone, Default)]
struct Amounts {
    all: BTreeMap<TenantName, u64>,
    of_models: BTreeMap<String, BTreeMap<TenantName, u64>>,
}

/// Proposes who gives way to these runs, in their order. What is kept for a guaranteed run is no
/// room for another's claim.
pub fn propose(
    state: &State,
    pool: &PoolName,
    refused: &[RunId],
    kept: &[Reservation],
    now_us: u64,
    plan: &mut Plan,
) {
    let waited_for: BTreeSet<RunId> = state
        .stopping_runs()
        .filter_map(|run| run.last_attempt()?.stopping.as_ref()?.claimant())
        .collect();
    let mut holders = Holders::of(state, pool);
    for run in state.claimants() {
        if run.spec.pool.as_ref() == Some(pool) && waited_for.contains(&run.id) {
            // Nobody knows yet on which of the models that it accepts it will be.
            let asked = run.spec.gpu_milli();
            let open = state
                .tenants()
                .metered_models(pool)
                .filter(|model| {
                    Meter::of_model(pool, model).is_open_to(run.spec.gpu_model.as_deref())
                })
                .map(|model| (model, asked));
            holders.claimed.add(state, &run.tenant, asked, open);
        }
    }
    let for_good = |kept: &&Reservation| kept.guaranteed && !kept.is_owed_at_once(state, now_us);
    for reservation in kept.iter().filter(for_good) {
        for member in &reservation.members {
            holders.kept.insert(&member.node, reservation.run);
        }
    }
    // The first of each line, then the second of each: an owner of many equal runs has all that it is
    // owed back at once, and not one by one as each gets its devices.
    let mut lines: VecDeque<_> = refused
        .iter()
        .filter_map(|id| state.runs().get(id))
        .map(|run| {
            let line = state.queues().line_from(run);
            // Those for it are stopping already: it waits for them.
            line.filter(|id| !waited_for.contains(id))
        })
        .collect();
    for _ in 0..MOST_CLAIMS {
        let Some(mut line) = lines.pop_front() else {
            break;
        };
        let Some(run) = line.next().and_then(|id| state.runs().get(&id)) else {
            continue;
        };
        // Where quota is stated by model, on the first model on which others make room.
        let found = state.ways(&run.spec).into_iter().find_map(|demand| {
            let mut claim = Claim {
                state,
                pool,
                run,
                demand,
                now_us,
                given: holders.given.clone(),
                takeable: BTreeSet::new(),
                exempt_until_us: None,
            };
            let victims = claim.victims(&holders);
            if let Some(at_us) = claim.exempt_until_us {
                plan.look_again_at(at_us);
            }
            let (victims, nodes) = victims.filter(|(victims, _)| !victims.is_empty())?;
            Some((victims, nodes, claim.given, claim.demand))
        });
        let Some((victims, nodes, given, demand)) = found else {
            // Nor would it make room for its equals.
            continue;
        };
        lines.push_back(line);
        holders.given = given;
        holders.nodes_taken.extend(nodes);
        holders.stopped.extend(&victims);
        let asked = run.spec.gpu_milli();
        let of_model = demand.only_model.as_deref().map(|model| (model, asked));
        holders
            .claimed
            .add(state, &run.tenant, asked, of_model.into_iter());
        plan.preemptions
            .extend(victims.into_iter().filter_map(|victim| {
                Some(Preemption {
                    run: victim,
                    attempt: state.runs().get(&victim)?.last_attempt()?.number,
                    claimant: run.id,
                })
            }));
    }
}

/// Who holds what of a pool, and what is claimed of it so far.
struct Holders<'a> {
    /// The lowest priority of each tenant's preemptible runs that nobody has told to stop.
    lowest_priority: BTreeMap<&'a TenantName, i32>,
    /// What will be used once those who are stopping have gone.
    claimed: Amounts,
    /// What the plan lets be given back.
    given: Amounts,
    nodes_taken: BTreeSet<NodeName>,
    /// Nodes with devices that are kept, and for which run.
    kept: BTreeMap<&'a NodeName, RunId>,
    /// Runs that give way to claims before.
    stopped: BTreeSet<RunId>,
}

impl<'a> Holders<'a> {
    fn of(state: &'a State, pool: &PoolName) -> Self {
        let lowest_priority = state
            .stoppable(pool)
            .into_iter()
            .flatten()
            .filter_map(|(tenant, runs)| Some((tenant, runs.first()?.0)))
            .collect();
        Self {
            lowest_priority,
            claimed: Amounts::default(),
            given: Amounts::default(),
            nodes_taken: BTreeSet::new(),
            kept: BTreeMap::new(),
            stopped: BTreeSet::new(),
        }
    }
}

impl Holders<'_> {
    /// Whether a node is neither taken by a claim before nor kept for another run.
    fn is_open_to(&self, run: &Run, node: &NodeName) -> bool {
        let kept_for = self.kept.get(node);
        !self.nodes_taken.contains(node) && kept_for.is_none_or(|kept_for| *kept_for == run.id)
    }
}

struct Claim<'a> {
    state: &'a State,
    pool: &'a PoolName,
    run: &'a Run,
    demand: MemberDemand,
    now_us: u64,
    given: Amounts,
    /// Tenants that had something to give before this claim took any.
    takeable: BTreeSet<&'a TenantName>,
    /// When the first run that is still left alone may be stopped.
    exempt_until_us: Option<u64>,
}

/// What one node would have to lose to hold one member.
type Offer<'a> = (u128, usize, &'a NodeName, Vec<Loss>);

impl<'a> Claim<'a> {
    /// Runs whose end makes room for every member, in the order in which they may be stopped, and the
    /// nodes where it will be; `None`: no runs do.
    fn victims(&mut self, holders: &Holders<'a>) -> Option<(Vec<RunId>, BTreeSet<NodeName>)> {
        self.takeable = self.may_take_from(holders);
        if self.takeable.is_empty() {
            return None;
        }
        let mut offers: BTreeSet<Offer<'a>> = BTreeSet::new();
        let takeable = |tenant: &TenantName| self.takeable.contains(tenant);
        for name in nodes_to_ask(self.state, self.pool, &self.demand, takeable) {
            let Some(node) = self.state.nodes().get(name) else {
                continue;
            };
            if node.description.pool == *self.pool
                && node.is_ready()
                && holders.is_open_to(self.run, &node.description.name)
                && fits_empty(node, &self.demand).is_ok()
            {
                offers.extend(self.offer(node, holders, &BTreeSet::new()));
            }
        }
        let mut chosen: Vec<Loss> = Vec::new();
        let mut nodes = BTreeSet::new();
        let mut banned: BTreeMap<&NodeName, BTreeSet<RunId>> = BTreeMap::new();
        while nodes.len() < self.run.spec.nodes as usize {
            let (_, _, name, victims) = offers.pop_first()?;
            let before = (self.given.clone(), chosen.len());
            let refused = victims
                .into_iter()
                .find(|victim| !self.choose(*victim, holders, &mut chosen));
            let Some((_, refused)) = refused else {
                nodes.insert(name.clone());
                continue;
            };
            // Those chosen meanwhile have taken what its tenant had to give: ask the node again.
            self.given = before.0;
            chosen.truncate(before.1);
            let banned = banned.entry(name).or_default();
            banned.insert(refused);
            if let Some(node) = self.state.nodes().get(name) {
                offers.extend(self.offer(node, holders, banned));
            }
        }
        if !self.make_it_standing(holders, &mut chosen) {
            return None;
        }
        self.leave_out_what_others_make_up_for(holders, &mut chosen, &mut nodes);
        Some((chosen.into_iter().map(|(_, run)| run).collect(), nodes))
    }

    /// Tenants of which it may take runs: for most that wait, a look finds nobody.
    fn may_take_from(&self, holders: &Holders<'a>) -> BTreeSet<&'a TenantName> {
        let own = &self.run.tenant;
        let tenants = self.state.tenants();
        let wanted_milli = self
            .state
            .used_milli(own, self.pool)
            .saturating_add(holders.claimed.on(self.pool.into(), own))
            .saturating_add(self.run.spec.gpu_milli());
        // Whoever has no more of its own to come has nothing to take back.
        let is_owed_nothing = quotas::line(tenants, own, self.pool)
            .is_some_and(|line| wanted_milli > line.quota_milli)
            && tenants.below(Some(own)).next().is_none();
        let may_take = |tenant: &TenantName, lowest: i32| {
            if tenant == own {
                return !self.run.spec.never_preempts && self.run.spec.priority > lowest;
            }
            !is_owed_nothing
                && self.state.reclaims_as(
                    self.run,
                    &self.demand,
                    // Of some of them it may; which, is asked of each.
                    (tenant, true),
                    |meter, name| self.given.on(meter, name),
                    |meter, name| holders.claimed.on(meter, name),
                )
        };
        holders
            .lowest_priority
            .iter()
            .filter(|(tenant, lowest)| may_take(tenant, **lowest))
            .map(|(tenant, _)| *tenant)
            .collect()
    }

    /// The cheapest runs of a node without which one member fits there; empty: it fits without.
    fn offer(
        &mut self,
        node: &'a Node,
        holders: &Holders<'a>,
        banned: &BTreeSet<RunId>,
    ) -> Option<Offer<'a>> {
        let name = &node.description.name;
        if fits_now(node, &self.demand).is_ok() {
            return Some((0, 0, name, Vec::new()));
        }
        let mut candidates: Vec<Loss> = Vec::new();
        let mut held_by: Vec<RunId> = node.members.iter().map(|key| key.run).collect();
        held_by.dedup();
        for run in held_by {
            let Some(run) = self.state.runs().get(&run) else {
                continue;
            };
            if !banned.contains(&run.id) && self.is_candidate(run, holders) {
                candidates.push((run.unsaved_work(self.now_us), run.id));
            }
        }
        if candidates.is_empty() && !node.members.iter().any(|key| self.leaves(key.run)) {
            return None;
        }
        candidates.sort_unstable();
        let mut trial = node.clone();
        let leaving: BTreeSet<RunId> = node
            .members
            .iter()
            .map(|key| key.run)
            .filter(|run| self.leaves(*run))
            .collect();
        for run in leaving {
            remove(&mut trial, self.state, run);
        }
        let without_leaving = trial.clone();
        let mut taken: Vec<Loss> = Vec::new();
        let mut candidates = candidates.into_iter();
        while fits_now(&trial, &self.demand).is_err() {
            let candidate = candidates.next()?;
            remove(&mut trial, self.state, candidate.1);
            taken.push(candidate);
        }
        let taken = self.only_needed(&without_leaving, taken);
        let loss = taken.iter().map(|(loss, _)| loss).sum();
        Some((loss, taken.len(), name, taken))
    }

    /// Whether a run is on its way out for nobody that waits: cancelled, evicted, or stopped for one
    /// that has been cancelled since.
    fn leaves(&self, run: RunId) -> bool {
        self.stopping(run)
            .is_some_and(|reason| self.state.waiting_claimant(reason).is_none())
    }

    fn stopping(&self, run: RunId) -> Option<&StopReason> {
        let run = self.state.runs().get(&run)?;
        run.last_attempt()?.stopping.as_ref()
    }

    /// Leaves out, dearest first, whoever turns out not to be needed.
    fn only_needed(&self, node: &Node, mut taken: Vec<Loss>) -> Vec<Loss> {
        for position in (0..taken.len()).rev() {
            let mut trial = node.clone();
            for (other, (_, run)) in taken.iter().enumerate() {
                if other != position {
                    remove(&mut trial, self.state, *run);
                }
            }
            if fits_now(&trial, &self.demand).is_ok() {
                taken.remove(position);
            }
        }
        taken
    }

    /// Whether a run may be stopped for this one: by its right, and as it has run long enough.
    fn is_candidate(&mut self, victim: &Run, holders: &Holders<'_>) -> bool {
        if !self.takeable.contains(&victim.tenant)
            || holders.stopped.contains(&victim.id)
            || self.right_to(victim, holders).is_none()
        {
            return false;
        }
        let exempt_until_us = self.state.exempt_until_us(victim);
        if exempt_until_us > self.now_us {
            let sooner = self.exempt_until_us.unwrap_or(u64::MAX);
            self.exempt_until_us = Some(sooner.min(exempt_until_us));
            return false;
        }
        true
    }

    fn right_to(&self, victim: &Run, holders: &Holders<'_>) -> Option<()> {
        self.state
            .claim_beside(
                self.run,
                victim,
                &self.demand,
                |meter, name| self.given.on(meter, name),
                |meter, name| holders.claimed.on(meter, name),
            )
            .map(drop)
    }

    /// Chooses a run if it may still be taken after those before it.
    fn choose(&mut self, victim: Loss, holders: &Holders<'_>, chosen: &mut Vec<Loss>) -> bool {
        if chosen.contains(&victim) {
            return true;
        }
        let Some(run) = self.state.runs().get(&victim.1) else {
            return false;
        };
        if self.right_to(run, holders).is_none() {
            return false;
        }
        self.given.count_victim(self.state, run, true);
        chosen.push(victim);
        true
    }

    /// Room is not all: with what is given back it must also lie below every ceiling, and not borrow
    /// what is not lent. Where it meets a ceiling others below that give way too, the cheapest first.
    fn make_it_standing(&mut self, holders: &Holders<'a>, chosen: &mut Vec<Loss>) -> bool {
        let mut others: Option<Vec<Loss>> = None;
        while let Some((model, tenant)) = self.over_limit(holders) {
            if others.is_none() {
                others = Some(self.candidates_below(&tenant, model.as_deref(), holders, chosen));
            }
            let Some(next) = others.as_mut().and_then(Vec::pop) else {
                return false;
            };
            self.choose(next, holders, chosen);
        }
        self.stands(holders, chosen)
    }

    fn stands(&self, holders: &Holders<'_>, chosen: &[Loss]) -> bool {
        self.state.meters(self.pool, &self.demand).all(|meter| {
            match self.standing(holders, meter) {
                Standing::Guaranteed => true,
                Standing::OverLimit { .. } => false,
                Standing::Borrows { .. } => {
                    self.run.spec.preemptible && self.is_lent(holders, chosen, meter)
                }
            }
        })
    }

    /// Who may be stopped below a tenant and is not chosen yet, the cheapest last.
    fn candidates_below(
        &mut self,
        tenant: &TenantName,
        model: Option<&str>,
        holders: &Holders<'a>,
        chosen: &[Loss],
    ) -> Vec<Loss> {
        let state = self.state;
        let below = state
            .stoppable(self.pool)
            .into_iter()
            .flatten()
            .filter(|(name, _)| {
                tenant_and_above(state.tenants(), name).any(|above| above.name == *tenant)
            })
            .flat_map(|(_, runs)| runs)
            .map(|(_, run)| *run)
            .filter(|run| !chosen.iter().any(|(_, chosen)| chosen == run))
            .filter_map(|run| state.runs().get(&run))
            .filter(|run| model.is_none_or(|model| holds_model(run, model)));
        let mut candidates: Vec<Loss> = Vec::new();
        for run in below {
            if self.is_candidate(run, holders) {
                candidates.push((run.unsaved_work(self.now_us), run.id));
            }
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates
    }

    /// A run that spans nodes makes room on several, and one that is stopped for a ceiling makes room
    /// too: leaves out, dearest first, whoever is not needed once all of that is counted.
    fn leave_out_what_others_make_up_for(
        &mut self,
        holders: &Holders<'a>,
        chosen: &mut Vec<Loss>,
        nodes: &mut BTreeSet<NodeName>,
    ) {
        let members = self.run.spec.nodes as usize;
        let mut dearest_first = chosen.clone();
        dearest_first.sort_unstable_by(|a, b| b.cmp(a));
        for victim in dearest_first {
            if chosen.len() < 2 {
                return;
            }
            let Some(run) = self.state.runs().get(&victim.1) else {
                continue;
            };
            let before = (self.given.clone(), chosen.clone());
            self.given.count_victim(self.state, run, false);
            chosen.retain(|other| *other != victim);
            let room = self.room_without(holders, chosen);
            if room.len() >= members && self.stands(holders, chosen) {
                *nodes = room.into_iter().take(members).cloned().collect();
            } else {
                (self.given, *chosen) = before;
            }
        }
    }

    /// The nodes that hold a member once these have gone.
    fn room_without(&self, holders: &Holders<'a>, gone: &[Loss]) -> Vec<&'a NodeName> {
        let mut room = Vec::new();
        for node in self.state.nodes().values() {
            let name = &node.description.name;
            if node.description.pool != *self.pool
                || !node.is_ready()
                || !holders.is_open_to(self.run, name)
            {
                continue;
            }
            let leaving: BTreeSet<RunId> = node
                .members
                .iter()
                .map(|key| key.run)
                .filter(|run| gone.iter().any(|(_, gone)| gone == run) || self.leaves(*run))
                .collect();
            let fits = if leaving.is_empty() {
                fits_now(node, &self.demand)
            } else {
                let mut trial = node.clone();
                for run in leaving {
                    remove(&mut trial, self.state, run);
                }
                fits_now(&trial, &self.demand)
            };
            if fits.is_ok() {
                room.push(name);
            }
        }
        room
    }

    /// What a tenant will hold once all who stop have gone and those they stop for have started.
    fn used_after(&self, holders: &Holders<'_>, meter: Meter<'_>, name: &TenantName) -> u64 {
        self.state
            .used_on(name, meter)
            .saturating_sub(self.state.stopping_on(name, meter))
            .saturating_sub(self.given.on(meter, name))
            .saturating_add(holders.claimed.on(meter, name))
    }

    /// Where this run would stand then.
    fn standing(&self, holders: &Holders<'_>, meter: Meter<'_>) -> Standing {
        quotas::standing(
            self.state.tenants(),
            meter,
            &self.run.tenant,
            self.run.spec.gpu_milli(),
            |name| self.used_after(holders, meter, name),
        )
    }

    /// The first ceiling that it would meet then: of which model, and whose.
    fn over_limit(&self, holders: &Holders<'_>) -> Option<(Option<String>, TenantName)> {
        self.state
            .meters(self.pool, &self.demand)
            .find_map(|meter| match self.standing(holders, meter) {
                Standing::OverLimit { tenant, .. } => {
                    Some((meter.model.map(str::to_owned), tenant))
                }
                _ => None,
            })
    }

    /// Whether what would be idle then is lent to this run.
    fn is_lent(&self, holders: &Holders<'_>, chosen: &[Loss], meter: Meter<'_>) -> bool {
        let tenants = self.state.tenants();
        let kept = quotas::kept_from_milli(tenants, meter, &self.run.tenant, |name| {
            self.used_after(holders, meter, name)
        });
        if kept == 0 {
            return true;
        }
        let claimed: u64 = tenants
            .values()
            .filter(|tenant| tenant.parent.is_none())
            .map(|tenant| holders.claimed.on(meter, &tenant.name))
            .sum();
        let idle = self
            .idle_after(holders, chosen, meter)
            .saturating_sub(claimed);
        self.run.spec.gpu_milli().saturating_add(kept) <= idle
    }

    /// Idle thousandths of ready nodes once all who stop have gone: of what they leave on a node that
    /// is cordoned nobody has anything.
    fn idle_after(&self, holders: &Holders<'_>, chosen: &[Loss], meter: Meter<'_>) -> u64 {
        let stops = |run: RunId| {
            holders.stopped.contains(&run)
                || chosen.iter().any(|(_, chosen)| *chosen == run)
                || self.stopping(run).is_some()
        };
        self.state
            .nodes()
            .values()
            .filter(|node| node.is_ready() && node.description.pool == *self.pool)
            .flat_map(|node| node.description.devices.iter().zip(&node.devices))
            .filter(|(device, _)| meter.model.is_none_or(|model| device.model == model))
            .map(|(_, grants)| {
                let stays = grants.holders.iter().filter(|(key, _)| !stops(key.run));
                let held: u32 = stays.map(|(_, grant)| grant.share_milli).sum();
                u64::from(WHOLE_DEVICE_MILLI.saturating_sub(held))
            })
            .sum()
    }
}

impl Amounts {
    fn on(&self, meter: Meter<'_>, name: &TenantName) -> u64 {
        let amounts = match meter.model {
            None => Some(&self.all),
            Some(model) => self.of_models.get(model),
        };
        amounts
            .and_then(|amounts| amounts.get(name))
            .copied()
            .unwrap_or(0)
    }

    /// Counts an amount for a tenant and all above it, and how much of it is of which model.
    fn add<'m>(
        &mut self,
        state: &State,
        tenant: &TenantName,
        milli: u64,
        of_models: impl Iterator<Item = (&'m str, u64)>,
    ) {
        for above in tenant_and_above(state.tenants(), tenant) {
            *self.all.entry(above.name.clone()).or_default() += milli;
        }
        for (model, milli) in of_models {
            let amounts = self.of_models.entry(model.to_owned()).or_default();
            for above in tenant_and_above(state.tenants(), tenant) {
                *amounts.entry(above.name.clone()).or_default() += milli;
            }
        }
    }

    /// Counts what a run holds, or takes that back.
    fn count_victim(&mut self, state: &State, run: &Run, is_given: bool) {
        let is_by_model = run
            .spec
            .pool
            .as_ref()
            .is_some_and(|pool| state.tenants().is_metered_by_model(pool));
        let mut of_models: BTreeMap<&str, u64> = BTreeMap::new();
        if is_by_model {
            for (model, milli) in held(run) {
                *of_models.entry(model).or_default() += milli;
            }
        }
        if is_given {
            self.add(state, &run.tenant, run.held_milli(), of_models.into_iter());
            return;
        }
        let all = std::iter::once((&mut self.all, run.held_milli()));
        let by_model = self
            .of_models
            .iter_mut()
            .filter_map(|(model, amounts)| Some((amounts, *of_models.get(model.as_str())?)));
        for (amounts, milli) in all.chain(by_model) {
            for above in tenant_and_above(state.tenants(), &run.tenant) {
                if let Some(given) = amounts.get_mut(&above.name) {
                    *given = given.saturating_sub(milli);
                }
            }
        }
    }
}

/// Models and thousandths of the devices that a run holds.
fn held(run: &Run) -> impl Iterator<Item = (&str, u64)> {
    run.last_attempt()
        .into_iter()
        .flat_map(|attempt| &attempt.members)
        .filter(|member| member.phase != MemberPhase::Ended)
        .flat_map(|member| &member.devices)
        .map(|grant| (grant.model.as_str(), u64::from(grant.share_milli)))
}

fn holds_model(run: &Run, model: &str) -> bool {
    held(run).any(|(held, _)| held == model)
}

/// Gives back on a trial node what a run holds there.
fn remove(trial: &mut Node, state: &State, id: RunId) {
    let keys: Vec<MemberKey> = trial
        .members
        .iter()
        .filter(|key| key.run == id)
        .copied()
        .collect();
    for key in keys {
        trial.members.remove(&key);
        for grants in &mut trial.devices {
            grants.remove(key);
        }
        let member = state
            .runs()
            .get(&id)
            .and_then(|run| run.attempt(key.attempt)?.members.get(key.member as usize));
        if let Some(member) = member {
            trial.cpu_reserved_milli = trial.cpu_reserved_milli.saturating_sub(member.cpu_milli);
            trial.memory_reserved_mib = trial.memory_reserved_mib.saturating_sub(member.memory_mib);
        }
    }
}
