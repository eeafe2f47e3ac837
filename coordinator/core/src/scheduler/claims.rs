//! Which runs give way to one that may take from them: those with the least work to lose, then the
//! fewest, and never one that does not make room.

use super::Plan;
use crate::model::{MemberDemand, MemberKey, Node, Run, RunId, TenantName};
use crate::policy::quotas::{self, Standing};
use crate::policy::{fits_empty, fits_now};
use crate::state::{Preemption, State};
use std::collections::{BTreeMap, BTreeSet};

/// Work that a run would lose, in thousandths of devices times microseconds, and its id.
type Loss = (u128, RunId);

/// Proposes who gives way to the first of these runs that somebody can give way to.
pub fn propose(state: &State, claimants: &[RunId], now_us: u64, plan: &mut Plan) {
    let waited_for: BTreeSet<RunId> = state
        .stopping_runs()
        .filter_map(|run| run.last_attempt()?.stopping.as_ref()?.claimant())
        .collect();
    for claimant in claimants {
        let Some(run) = state
            .runs()
            .get(claimant)
            // Those for it are stopping already: it waits for them.
            .filter(|run| !waited_for.contains(&run.id))
        else {
            continue;
        };
        let mut claim = Claim::new(state, run, now_us);
        let victims = claim.victims();
        if let Some(at_us) = claim.exempt_until_us {
            plan.look_again_at(at_us);
        }
        if !victims.is_empty() {
            plan.preemptions
                .extend(victims.into_iter().filter_map(|victim| {
                    Some(Preemption {
                        run: victim,
                        attempt: state.runs().get(&victim)?.last_attempt()?.number,
                        claimant: run.id,
                    })
                }));
            return;
        }
    }
}

struct Claim<'a> {
    state: &'a State,
    run: &'a Run,
    demand: MemberDemand,
    now_us: u64,
    /// Whether a tenant's runs may be taken at all, asked once for each.
    may_take: BTreeMap<&'a TenantName, bool>,
    /// When the first run that is still left alone may be stopped.
    exempt_until_us: Option<u64>,
}

impl<'a> Claim<'a> {
    fn new(state: &'a State, run: &'a Run, now_us: u64) -> Self {
        Self {
            state,
            run,
            demand: state.policy().demand(&run.spec),
            now_us,
            may_take: BTreeMap::new(),
            exempt_until_us: None,
        }
    }

    /// Runs whose end makes room for every member, or none.
    fn victims(&mut self) -> BTreeSet<RunId> {
        let Some(pool) = &self.run.spec.pool else {
            return BTreeSet::new();
        };
        let mut offers: Vec<(u128, usize, &Node, Vec<Loss>)> = Vec::new();
        for node in self.state.nodes().values() {
            if node.description.pool == *pool
                && node.is_ready()
                && fits_empty(node, &self.demand).is_ok()
                && let Some(victims) = self.offer(node)
            {
                let loss = victims.iter().map(|(loss, _)| loss).sum();
                offers.push((loss, victims.len(), node, victims));
            }
        }
        let members = self.run.spec.nodes as usize;
        if offers.len() < members {
            return BTreeSet::new();
        }
        offers.sort_by(|a, b| {
            (a.0, a.1, &a.2.description.name).cmp(&(b.0, b.1, &b.2.description.name))
        });
        let mut chosen: BTreeMap<RunId, u128> = offers
            .into_iter()
            .take(members)
            .flat_map(|(_, _, _, victims)| victims)
            .map(|(loss, run)| (run, loss))
            .collect();
        if !self.lies_within_limits_after(&mut chosen) {
            return BTreeSet::new();
        }
        self.each_may_be_taken(chosen)
    }

    /// The cheapest runs of a node without which one member fits there; empty: it fits already.
    fn offer(&mut self, node: &Node) -> Option<Vec<Loss>> {
        let mut trial = node.clone();
        if fits_now(&trial, &self.demand).is_ok() {
            return Some(Vec::new());
        }
        let runs: BTreeSet<RunId> = node.members.iter().map(|key| key.run).collect();
        let mut candidates: Vec<Loss> = runs
            .into_iter()
            .filter_map(|id| {
                let run = self.state.runs().get(&id)?;
                self.is_candidate(run).then(|| (self.loss(run), id))
            })
            .collect();
        candidates.sort_unstable();
        let mut taken: Vec<Loss> = Vec::new();
        for candidate in candidates {
            remove(&mut trial, self.state, candidate.1);
            taken.push(candidate);
            if fits_now(&trial, &self.demand).is_ok() {
                return Some(self.only_needed(node, taken));
            }
        }
        None
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

    fn is_candidate(&mut self, victim: &'a Run) -> bool {
        // Within the tenant the priority of each run decides; beyond it the tenant's standing does.
        let allowed = if victim.tenant == self.run.tenant {
            self.state.claim_on(self.run, victim).is_some()
        } else {
            let stoppable = victim.spec.preemptible
                && victim
                    .last_attempt()
                    .is_some_and(|attempt| attempt.stopping.is_none() && !attempt.is_over());
            let (state, run) = (self.state, self.run);
            stoppable
                && *self
                    .may_take
                    .entry(&victim.tenant)
                    .or_insert_with(|| state.claim_on(run, victim).is_some())
        };
        if !allowed {
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

    /// Work since the attempt was granted its devices.
    fn loss(&self, run: &Run) -> u128 {
        let since_us = run.held_since_us().unwrap_or(self.now_us);
        u128::from(run.spec.gpu_milli()) * u128::from(self.now_us.saturating_sub(since_us))
    }

    /// A run that meets its tenant's ceiling needs more than room: others of the tenant, of lower
    /// priority, give way until it lies below.
    fn lies_within_limits_after(&mut self, chosen: &mut BTreeMap<RunId, u128>) -> bool {
        let Some(pool) = &self.run.spec.pool else {
            return false;
        };
        let own = |chosen: &BTreeMap<RunId, u128>| -> u64 {
            chosen
                .keys()
                .filter_map(|id| self.state.runs().get(id))
                .filter(|run| run.tenant == self.run.tenant)
                .map(|run| run.spec.gpu_milli())
                .sum()
        };
        let is_within = |given_milli: u64| {
            let standing = quotas::standing(
                self.state.tenants(),
                pool,
                &self.run.tenant,
                self.run.spec.gpu_milli(),
                |name| {
                    self.state
                        .used_milli(name, pool)
                        .saturating_sub(given_milli)
                },
            );
            match standing {
                Standing::Guaranteed => true,
                Standing::Borrows { .. } => self.run.spec.preemptible,
                Standing::OverLimit { .. } => false,
            }
        };
        let mut given = own(chosen);
        if is_within(given) {
            return true;
        }
        let mut others: Vec<Loss> = Vec::new();
        for run in self.state.active_runs() {
            if run.tenant == self.run.tenant
                && !chosen.contains_key(&run.id)
                && self.state.claim_on(self.run, run).is_some()
                && self.state.exempt_until_us(run) <= self.now_us
            {
                others.push((self.loss(run), run.id));
            }
        }
        others.sort_unstable();
        for (loss, id) in others {
            chosen.insert(id, loss);
            given = own(chosen);
            if is_within(given) {
                return true;
            }
        }
        false
    }

    /// Taken one after the other, each must still be above its quota when its turn comes.
    fn each_may_be_taken(&self, chosen: BTreeMap<RunId, u128>) -> BTreeSet<RunId> {
        let mut order: Vec<Loss> = chosen.into_iter().map(|(run, loss)| (loss, run)).collect();
        order.sort_unstable();
        let mut given: BTreeMap<&TenantName, u64> = BTreeMap::new();
        for (_, id) in &order {
            let Some(victim) = self.state.runs().get(id) else {
                return BTreeSet::new();
            };
            if self
                .state
                .claim_beside(self.run, victim, |name| {
                    given.get(name).copied().unwrap_or(0)
                })
                .is_none()
            {
                return BTreeSet::new();
            }
            for above in crate::model::tenant_and_above(self.state.tenants(), &victim.tenant) {
                *given.entry(&above.name).or_default() += victim.spec.gpu_milli();
            }
        }
        order.into_iter().map(|(_, run)| run).collect()
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
