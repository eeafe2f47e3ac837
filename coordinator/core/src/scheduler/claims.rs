//! Which runs give way to those that may take from them: those with the least work to lose, then the
//! fewest, and never one that does not make room.
//!
//! Nodes are asked one by one what they would have to lose; the cheapest are taken first, and each run
//! is checked as `apply` will check it, after those before it. What claims together would take from a
//! tenant is counted over all of them.

use super::{Plan, Reservation};
use crate::model::{
    MemberDemand, MemberKey, Node, NodeName, PoolName, Run, RunId, TenantName, tenant_and_above,
};
use crate::policy::quotas::{self, Standing};
use crate::policy::{fits_empty, fits_now};
use crate::state::{Preemption, State};
use std::collections::{BTreeMap, BTreeSet};

/// Claims looked at in one plan. Each may look at every node of the pool; the next plan, after these
/// have been applied, looks at the next.
const MOST_CLAIMS: usize = 32;

/// Work that a run would lose, in thousandths of devices times microseconds, and its id.
type Loss = (u128, RunId);
/// Thousandths of devices by tenant, those above included.
type Amounts = BTreeMap<TenantName, u64>;

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
            add(
                state,
                &mut holders.claimed,
                &run.tenant,
                run.spec.gpu_milli(),
            );
        }
    }
    for reservation in kept.iter().filter(|kept| kept.guaranteed) {
        for member in &reservation.members {
            holders.kept.insert(&member.node, reservation.run);
        }
    }
    let claims = refused
        .iter()
        // Those for it are stopping already: it waits for them.
        .filter(|id| !waited_for.contains(id))
        .filter_map(|id| state.runs().get(id))
        .take(MOST_CLAIMS);
    for run in claims {
        let mut claim = Claim {
            state,
            pool,
            run,
            demand: state.policy().demand(&run.spec),
            now_us,
            given: holders.given.clone(),
            exempt_until_us: None,
        };
        let victims = claim.victims(&holders);
        if let Some(at_us) = claim.exempt_until_us {
            plan.look_again_at(at_us);
        }
        let Some((victims, nodes)) = victims.filter(|(victims, _)| !victims.is_empty()) else {
            continue;
        };
        holders.given = claim.given;
        holders.nodes_taken.extend(nodes);
        holders.stopped.extend(&victims);
        add(
            state,
            &mut holders.claimed,
            &run.tenant,
            run.spec.gpu_milli(),
        );
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
    /// Preemptible runs that nobody has told to stop, on each node.
    on: BTreeMap<&'a NodeName, Vec<&'a Run>>,
    /// The lowest priority of each tenant's.
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
        let mut on: BTreeMap<&NodeName, Vec<&Run>> = BTreeMap::new();
        let mut lowest_priority: BTreeMap<&TenantName, i32> = BTreeMap::new();
        for run in state.active_runs() {
            let Some(attempt) = run
                .last_attempt()
                .filter(|attempt| attempt.stopping.is_none())
                .filter(|_| run.spec.preemptible && run.spec.pool.as_ref() == Some(pool))
            else {
                continue;
            };
            let lowest = lowest_priority.entry(&run.tenant).or_insert(i32::MAX);
            *lowest = run.spec.priority.min(*lowest);
            let mut nodes: Vec<&NodeName> =
                attempt.members.iter().map(|member| &member.node).collect();
            nodes.dedup();
            for node in nodes {
                on.entry(node).or_default().push(run);
            }
        }
        Self {
            on,
            lowest_priority,
            claimed: Amounts::new(),
            given: Amounts::new(),
            nodes_taken: BTreeSet::new(),
            kept: BTreeMap::new(),
            stopped: BTreeSet::new(),
        }
    }
}

struct Claim<'a> {
    state: &'a State,
    pool: &'a PoolName,
    run: &'a Run,
    demand: MemberDemand,
    now_us: u64,
    given: Amounts,
    /// When the first run that is still left alone may be stopped.
    exempt_until_us: Option<u64>,
}

/// What one node would have to lose to hold one member.
type Offer<'a> = (u128, usize, &'a NodeName, Vec<Loss>);

impl<'a> Claim<'a> {
    /// Runs whose end makes room for every member, in the order in which they may be stopped, and the
    /// nodes where it will be; `None`: no runs do.
    fn victims(&mut self, holders: &Holders<'a>) -> Option<(Vec<RunId>, BTreeSet<NodeName>)> {
        if !self.may_take_from_anybody(holders) {
            return None;
        }
        let mut offers: BTreeSet<Offer<'a>> = BTreeSet::new();
        for node in self.state.nodes().values() {
            if node.description.pool == *self.pool
                && node.is_ready()
                && !holders.nodes_taken.contains(&node.description.name)
                && holders
                    .kept
                    .get(&node.description.name)
                    .is_none_or(|kept_for| *kept_for == self.run.id)
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
        self.make_it_standing(holders, &mut chosen)
            .then(|| (chosen.into_iter().map(|(_, run)| run).collect(), nodes))
    }

    /// A look that costs next to nothing, for most that wait may take from nobody.
    fn may_take_from_anybody(&self, holders: &Holders<'_>) -> bool {
        holders.lowest_priority.iter().any(|(tenant, lowest)| {
            if **tenant == self.run.tenant {
                return self.run.spec.priority > *lowest;
            }
            self.state.reclaims_from(
                self.run,
                tenant,
                |name| of(&self.given, name),
                |name| of(&holders.claimed, name),
            )
        })
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
        for run in holders.on.get(name).into_iter().flatten() {
            if !banned.contains(&run.id) && self.is_candidate(run, holders) {
                candidates.push((self.loss(run), run.id));
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

    /// Whether a run is on its way out for nobody in particular: cancelled, or evicted.
    fn leaves(&self, run: RunId) -> bool {
        self.state
            .runs()
            .get(&run)
            .and_then(|run| run.last_attempt()?.stopping.as_ref())
            .is_some_and(|reason| reason.claimant().is_none())
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
        if holders.stopped.contains(&victim.id) || self.right_to(victim, holders).is_none() {
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
                |name| of(&self.given, name),
                |name| of(&holders.claimed, name),
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
        add(
            self.state,
            &mut self.given,
            &run.tenant,
            run.spec.gpu_milli(),
        );
        chosen.push(victim);
        true
    }

    /// Work since the attempt was granted its devices.
    fn loss(&self, run: &Run) -> u128 {
        let since_us = run.held_since_us().unwrap_or(self.now_us);
        u128::from(run.spec.gpu_milli()) * u128::from(self.now_us.saturating_sub(since_us))
    }

    /// Room is not all: with what is given back it must also lie below every ceiling, and not borrow
    /// what is not lent. Where it meets a ceiling others below that give way too, the cheapest first.
    fn make_it_standing(&mut self, holders: &Holders<'a>, chosen: &mut Vec<Loss>) -> bool {
        let needed = chosen.len();
        let mut others: Option<Vec<Loss>> = None;
        while let Standing::OverLimit { tenant, .. } = self.standing() {
            if others.is_none() {
                others = Some(self.candidates_below(&tenant, holders, chosen));
            }
            let Some(next) = others.as_mut().and_then(Vec::pop) else {
                return false;
            };
            self.choose(next, holders, chosen);
        }
        self.leave_out_what_no_ceiling_needs(needed, chosen);
        match self.standing() {
            Standing::Guaranteed => true,
            Standing::OverLimit { .. } => false,
            Standing::Borrows { .. } => self.run.spec.preemptible && self.is_lent(chosen),
        }
    }

    /// Who may be stopped below a tenant and is not chosen yet, the cheapest last.
    fn candidates_below(
        &mut self,
        tenant: &TenantName,
        holders: &Holders<'a>,
        chosen: &[Loss],
    ) -> Vec<Loss> {
        let below: BTreeMap<RunId, &Run> = holders
            .on
            .values()
            .flatten()
            .filter(|run| {
                tenant_and_above(self.state.tenants(), &run.tenant)
                    .any(|above| above.name == *tenant)
            })
            .filter(|run| !chosen.iter().any(|(_, chosen)| *chosen == run.id))
            .map(|run| (run.id, *run))
            .collect();
        let mut candidates: Vec<Loss> = Vec::new();
        for (id, run) in below {
            if self.is_candidate(run, holders) {
                candidates.push((self.loss(run), id));
            }
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates
    }

    fn leave_out_what_no_ceiling_needs(&mut self, needed: usize, chosen: &mut Vec<Loss>) {
        for position in (needed..chosen.len()).rev() {
            let Some(run) = self.state.runs().get(&chosen[position].1) else {
                continue;
            };
            let before = self.given.clone();
            for above in tenant_and_above(self.state.tenants(), &run.tenant) {
                if let Some(given) = self.given.get_mut(&above.name) {
                    *given = given.saturating_sub(run.spec.gpu_milli());
                }
            }
            if matches!(self.standing(), Standing::OverLimit { .. }) {
                self.given = before;
            } else {
                chosen.remove(position);
            }
        }
    }

    fn used_after(&self, name: &TenantName) -> u64 {
        self.state
            .used_milli(name, self.pool)
            .saturating_sub(of(&self.given, name))
    }

    /// Where this run would stand once what is given is back.
    fn standing(&self) -> Standing {
        quotas::standing(
            self.state.tenants(),
            self.pool,
            &self.run.tenant,
            self.run.spec.gpu_milli(),
            |name| self.used_after(name),
        )
    }

    fn is_lent(&self, chosen: &[Loss]) -> bool {
        let kept =
            quotas::kept_from_milli(self.state.tenants(), self.pool, &self.run.tenant, |name| {
                self.used_after(name)
            });
        if kept == 0 {
            return true;
        }
        let back: u64 = chosen
            .iter()
            .filter_map(|(_, run)| self.state.runs().get(run))
            .map(|run| run.spec.gpu_milli())
            .sum();
        let idle = self.state.idle_milli(self.pool).saturating_add(back);
        self.run.spec.gpu_milli().saturating_add(kept) <= idle
    }
}

fn of(amounts: &Amounts, name: &TenantName) -> u64 {
    amounts.get(name).copied().unwrap_or(0)
}

/// Counts an amount for a tenant and all above it.
fn add(state: &State, amounts: &mut Amounts, tenant: &TenantName, milli: u64) {
    for above in tenant_and_above(state.tenants(), tenant) {
        *amounts.entry(above.name.clone()).or_default() += milli;
    }
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
