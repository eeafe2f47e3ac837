//! The replicated state and the one function that changes it.
//!
//! [`State::apply`] is pure and total: the same entries give the same state on every replica, a
//! refused command gives [`Event::Rejected`], and asserts guard only our own invariants. Plans made
//! outside are rechecked here item by item, so a stale or wrong plan can never give a device twice.

mod accounts;
mod arrays;
mod budgets;
mod capacity;
mod caps;
mod command;
mod dependencies;
mod event;
mod frame;
mod history;
mod idleness;
mod index;
mod invariants;
mod locality;
mod meters;
mod nodes;
mod order;
mod placement;
mod preemption;
mod prices;
mod queues;
mod recent;
mod reports;
mod runs;
mod settings;
mod supposed;
mod tenants;
mod timers;

pub use crate::model::QueuePlace;
pub use accounts::run_ledger_rows;
pub use arrays::ArrayLine;
pub use budgets::{BudgetAccount, Budgets};
pub use command::{
    Command, DeviceUse, Entry, IdleStretch, MemberPlacement, MemberReport, ParentChange, Placement,
    Preemption, QuotaChange,
};
pub use dependencies::{Followers, MOST_DEPENDENCIES};
pub use event::Event;
pub use history::RunHistory;
pub use index::Stoppable;
pub use invariants::Violation;
pub use meters::ways_among;
pub use nodes::unknown_node;
pub use queues::{Filed, Lines, Queues, Shape};
pub use tenants::LineUse;

use crate::model::{
    Array, ArrayId, Epoch, Node, NodeName, OutboxRecord, Policy, Pool, PoolName, Run, RunId,
    Tenant, TenantName, TenantTree, Token,
};
use crate::policy::{Refusal, RefusalKind, Surroundings};
use capacity::Capacity;
use serde::{Deserialize, Serialize};
use settings::PoolChange;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How long a repeated idempotency key gives the first answer: a client retries for minutes, an
/// offline one for hours.
pub const IDEMPOTENCY_WINDOW_US: u64 = 24 * 3_600 * 1_000_000;

/// Everything whose loss or doubling would cost a GPU, money or an audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct State {
    index: u64,
    time_us: u64,
    next_run: u64,
    next_epoch: u64,
    policy: Policy,
    pools: BTreeMap<PoolName, Pool>,
    tenants: TenantTree,
    nodes: BTreeMap<NodeName, Node>,
    runs: BTreeMap<RunId, Run>,
    live: BTreeSet<RunId>,
    #[serde(default)]
    budgets: Budgets,
    #[serde(default, skip_serializing_if = "RunHistory::is_empty")]
    history: RunHistory,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    recent: recent::Recent,
    #[serde(skip)]
    capacity: Capacity,
    #[serde(skip)]
    queues: Queues,
    #[serde(skip)]
    timers: timers::Timers,
    #[serde(skip)]
    active: BTreeSet<RunId>,
    #[serde(skip)]
    stoppable: Stoppable,
    #[serde(skip)]
    stopping: BTreeSet<RunId>,
    #[serde(skip)]
    claimants: BTreeSet<RunId>,
    #[serde(skip)]
    placed_last: locality::PlacedLast,
    #[serde(skip)]
    used_milli: BTreeMap<TenantName, BTreeMap<PoolName, u64>>,
    #[serde(skip)]
    stopping_milli: BTreeMap<TenantName, BTreeMap<PoolName, u64>>,
    #[serde(skip)]
    model_use: meters::ModelUse,
    #[serde(skip)]
    followers: Followers,
    #[serde(skip)]
    memory_sums_mib: BTreeMap<String, u64>,
    #[serde(default)]
    arrays: BTreeMap<ArrayId, Array>,
    #[serde(skip)]
    array_lines: BTreeMap<ArrayId, ArrayLine>,
    tokens: BTreeMap<String, Token>,
    outbox: VecDeque<OutboxRecord>,
    outbox_sequence: u64,
    audit_sequence: u64,
    audit_head: String,
    answered: BTreeMap<String, Vec<Event>>,
    answered_order: VecDeque<(u64, String)>,
}

impl Default for State {
    fn default() -> Self {
        let pool = Pool {
            description: "the first pool".to_owned(),
            ..Pool::new(PoolName::default_pool())
        };
        let tenant = Tenant::new(TenantName::default_tenant(), 0);
        Self {
            index: 0,
            time_us: 0,
            next_run: 1,
            next_epoch: 1,
            policy: Policy::default(),
            pools: BTreeMap::from([(pool.name.clone(), pool)]),
            tenants: [tenant].into_iter().collect(),
            nodes: BTreeMap::new(),
            runs: BTreeMap::new(),
            live: BTreeSet::new(),
            budgets: Budgets::default(),
            capacity: Capacity::default(),
            history: RunHistory::default(),
            recent: BTreeMap::new(),
            queues: Queues::default(),
            timers: timers::Timers::default(),
            active: BTreeSet::new(),
            stoppable: Stoppable::default(),
            stopping: BTreeSet::new(),
            claimants: BTreeSet::new(),
            placed_last: locality::PlacedLast::new(),
            used_milli: BTreeMap::new(),
            stopping_milli: BTreeMap::new(),
            model_use: meters::ModelUse::default(),
            followers: Followers::default(),
            memory_sums_mib: BTreeMap::new(),
            arrays: BTreeMap::new(),
            array_lines: BTreeMap::new(),
            tokens: BTreeMap::new(),
            outbox: VecDeque::new(),
            outbox_sequence: 0,
            audit_sequence: 0,
            audit_head: String::new(),
            answered: BTreeMap::new(),
            answered_order: VecDeque::new(),
        }
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    /// Reads what is stored and makes anew what is derived from it.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut state = Self::deserialize(deserializer)?;
        state.reindex();
        Ok(state)
    }
}

/// The outcome of one command's handler: events, or nothing changed and why.
type Outcome = Result<Vec<Event>, Refusal>;

impl State {
    /// Applies the log entry at `index`. Pure and total.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Vec<Event> {
        self.index = index;
        self.time_us = self.time_us.max(entry.stamp_us);
        self.bring_prices_into_effect();
        self.settle_budgets(self.time_us);
        self.release_held();
        self.forget_old_answers();
        self.pass_age_bounds();
        let key = entry
            .idempotency_key
            .as_ref()
            .map(|key| format!("{}\n{key}", entry.actor));
        if let Some(answer) = key.as_ref().and_then(|key| self.answered.get(key)) {
            return answer.clone();
        }
        match self.dispatch(entry) {
            Err(refusal) => vec![Event::Rejected { refusal }],
            Ok(events) => {
                if events.iter().any(Event::is_change) {
                    self.audit(entry, &events);
                }
                if let Some(key) = key {
                    self.answered_order.push_back((self.time_us, key.clone()));
                    self.answered.insert(key, events.clone());
                }
                events
            }
        }
    }

    fn dispatch(&mut self, entry: &Entry) -> Outcome {
        match &entry.command {
            Command::Submit {
                spec,
                tenant,
                user,
                role,
            } => self.submit(spec, tenant, user, *role),
            Command::SubmitArray {
                spec,
                request,
                tenant,
                user,
                role,
            } => self.submit_array(spec, request, tenant, user, *role),
            Command::CancelArray { array, reason } => {
                self.cancel_array(*array, &entry.actor, reason.as_ref())
            }
            Command::Cancel { run, reason } => self.cancel(*run, &entry.actor, reason.clone()),
            Command::Place { placements } => Ok(self.place_all(placements)),
            Command::Preempt { preemptions } => Ok(self.preempt_all(preemptions)),
            Command::Report { node, members } => Ok(self.report(node, members)),
            Command::NoteUse { uses } => Ok(self.note_uses(uses)),
            Command::Justify {
                run,
                reason,
                for_ms,
            } => self.justify(*run, &entry.actor, reason, *for_ms),
            Command::RegisterNode { description } => self.register_node(description),
            Command::LoseNode { node } => self.lose_node(node),
            Command::Cordon { node, reason } => self.cordon(node, reason),
            Command::Uncordon { node } => self.uncordon(node),
            Command::Drain {
                node,
                reason,
                grace_ms,
            } => self.drain(node, reason, *grace_ms),
            Command::Evict { node } => self.evict(node),
            Command::SetPool {
                pool,
                description,
                order,
                age_bound_ms,
                must_exist,
            } => self.set_pool(
                pool,
                &PoolChange {
                    description: description.as_deref(),
                    order: *order,
                    age_bound_ms: *age_bound_ms,
                },
                *must_exist,
            ),
            Command::CreateTenant {
                tenant,
                parent,
                weight,
            } => self.create_tenant(tenant, parent.as_ref(), *weight),
            Command::SetTenant {
                tenant,
                parent,
                weight,
            } => self.set_tenant(tenant, parent, *weight),
            Command::SetQuota(change) => self.set_quota(change),
            Command::SetBudget { budget } => self.set_budget(budget),
            Command::RemoveBudget { name } => self.remove_budget(name),
            Command::SetPolicy { policy } => self.set_policy(policy),
            Command::CreateToken { hash, token } => self.create_token(hash, token),
            Command::RevokeToken { id } => self.revoke_token(id),
            // Prices and held runs take effect with every entry, before its command.
            Command::Tick => Ok(self.pass_time()),
            Command::KeepDecisions { decisions } => Ok(self.keep_decisions(decisions)),
            Command::AcknowledgeOutbox { through } => Ok(self.acknowledge_outbox(*through)),
        }
    }

    fn forget_old_answers(&mut self) {
        while let Some((at_us, _)) = self.answered_order.front()
            && at_us.saturating_add(IDEMPOTENCY_WINDOW_US) < self.time_us
        {
            if let Some((_, key)) = self.answered_order.pop_front() {
                self.answered.remove(&key);
            }
        }
    }

    /// Index of the last entry applied.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Time of the last entry applied: never goes back.
    pub fn time_us(&self) -> u64 {
        self.time_us
    }

    /// Policy in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Pools by name.
    pub fn pools(&self) -> &BTreeMap<PoolName, Pool> {
        &self.pools
    }

    /// Tenants by name.
    pub fn tenants(&self) -> &TenantTree {
        &self.tenants
    }

    /// Nodes by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// Every run, ended ones too.
    pub fn runs(&self) -> &BTreeMap<RunId, Run> {
        &self.runs
    }

    /// Runs that have not ended.
    pub fn live(&self) -> &BTreeSet<RunId> {
        &self.live
    }

    /// The runs that wait, by pool and tenant.
    pub fn queues(&self) -> &Queues {
        &self.queues
    }

    /// What ended runs took.
    pub fn history(&self) -> &RunHistory {
        &self.history
    }

    /// Runs whose last attempt is alive.
    pub fn active_runs(&self) -> impl Iterator<Item = &Run> {
        self.active.iter().filter_map(|id| self.runs.get(id))
    }

    /// Waiting runs for which others were stopped, first submitted first.
    pub fn claimants(&self) -> impl Iterator<Item = &Run> {
        self.claimants.iter().filter_map(|id| self.runs.get(id))
    }

    /// Runs whose last attempt is alive and told to stop.
    pub fn stopping_runs(&self) -> impl Iterator<Item = &Run> {
        self.stopping.iter().filter_map(|id| self.runs.get(id))
    }

    /// Runs of a pool that may be preempted and that nobody has told to stop.
    pub fn stoppable(
        &self,
        pool: &PoolName,
    ) -> Option<&BTreeMap<TenantName, BTreeSet<(i32, RunId)>>> {
        self.stoppable.get(pool)
    }

    /// A copy to try things on: without what is over, what is answered and what is on its way to the
    /// books, so that it is as small as what can still change.
    pub fn live_copy(&self) -> Self {
        Self {
            runs: self
                .live
                .iter()
                .filter_map(|id| Some((*id, self.runs.get(id)?.clone())))
                .collect(),
            outbox: VecDeque::new(),
            answered: BTreeMap::new(),
            answered_order: VecDeque::new(),
            policy: self.policy.clone(),
            pools: self.pools.clone(),
            tenants: self.tenants.clone(),
            nodes: self.nodes.clone(),
            live: self.live.clone(),
            budgets: self.budgets.clone(),
            capacity: self.capacity.clone(),
            history: RunHistory::default(),
            recent: self.recent.clone(),
            queues: self.queues.clone(),
            timers: self.timers.clone(),
            active: self.active.clone(),
            stoppable: self.stoppable.clone(),
            stopping: self.stopping.clone(),
            claimants: self.claimants.clone(),
            placed_last: self.placed_last.clone(),
            used_milli: self.used_milli.clone(),
            stopping_milli: self.stopping_milli.clone(),
            model_use: self.model_use.clone(),
            followers: self.followers.clone(),
            memory_sums_mib: self.memory_sums_mib.clone(),
            arrays: self.arrays.clone(),
            array_lines: self.array_lines.clone(),
            tokens: BTreeMap::new(),
            audit_head: self.audit_head.clone(),
            ..*self
        }
    }

    /// Tokens by the hash of their secret.
    pub fn tokens(&self) -> &BTreeMap<String, Token> {
        &self.tokens
    }

    /// Records that the tracking store has not acknowledged yet, oldest first.
    pub fn outbox(&self) -> &VecDeque<OutboxRecord> {
        &self.outbox
    }

    /// Sequence of the newest outbox record ever made.
    pub fn outbox_sequence(&self) -> u64 {
        self.outbox_sequence
    }

    /// Hash of the newest audit entry.
    pub fn audit_head(&self) -> &str {
        &self.audit_head
    }

    /// Highest epoch granted so far.
    pub fn highest_epoch(&self) -> Epoch {
        Epoch(self.next_epoch - 1)
    }

    /// What admission may look at, for a tenant.
    pub fn surroundings(&self, tenant: &TenantName) -> Result<Surroundings<'_>, Refusal> {
        let Some(tenant) = self.tenants.get(tenant) else {
            return Err(Refusal::new(
                RefusalKind::NotFound,
                format!("tenant {:?} does not exist", tenant.as_str()),
            )
            .allowed(
                self.tenants
                    .keys()
                    .map(TenantName::as_str)
                    .collect::<Vec<_>>()
                    .join(", "),
            )
            .hint("see the tenants with: platform tenants list"));
        };
        Ok(Surroundings {
            policy: &self.policy,
            pools: &self.pools,
            makes: self.makes(),
            tenants: &self.tenants,
            tenant,
            role: None,
        })
    }

    /// BLAKE3 of the whole state: equal on every replica at the same index (I11).
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        rmp_serde::encode::write_named(&mut hasher, self)
            .expect("a state of maps, numbers and text always encodes");
        *hasher.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests;
