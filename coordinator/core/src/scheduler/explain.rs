//! Why a run waits: its tier, the counts of nodes by what they lack, and what would help.

use super::Outlook;
use crate::model::{MemberDemand, Meter, Node, PoolName, Run, RunPhase, TenantName, WorkloadSpec};
use crate::policy::quotas::{self, Standing};
use crate::policy::{Shortfall, fits_now, gpus, least_memory_mib};
use crate::state::State;
use std::collections::BTreeMap;

/// What kind of thing a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// It does not wait.
    NotWaiting,
    /// It waits for other runs or for a later time, not for devices.
    Held,
    /// It would borrow: it may not be preempted, or what is idle is not lent.
    OverQuota,
    /// Its tenant, or one above it, holds all that its limit allows.
    OverLimit,
    /// A budget that it draws on is spent, and starts no run.
    OverBudget,
    /// Runs of its model hold all the GPU memory that the policy gives them in sum.
    OverCap,
    /// Others are being stopped for it.
    WaitingForPreempted,
    /// No set of nodes has room now.
    WaitingForCapacity,
    /// Some, but too few, nodes have room for its members.
    WaitingForGang,
    /// Room is there, and kept for a run that has waited for longer.
    WaitingForReserved,
    /// Room is there: the next plan takes it.
    NextPlan,
}

impl Tier {
    /// As the API says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotWaiting => "not-waiting",
            Self::Held => "held",
            Self::OverQuota => "over-quota",
            Self::OverLimit => "over-limit",
            Self::OverBudget => "over-budget",
            Self::OverCap => "over-cap",
            Self::WaitingForPreempted => "waiting-for-preempted",
            Self::WaitingForCapacity => "waiting-for-capacity",
            Self::WaitingForGang => "waiting-for-gang",
            Self::WaitingForReserved => "waiting-for-reserved",
            Self::NextPlan => "next-plan",
        }
    }
}

/// Why a run waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What kind of thing it waits for.
    pub tier: Tier,
    /// In one sentence.
    pub summary: String,
    /// `3 of 4 nodes: model mismatch`.
    pub reasons: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
}

impl Waiting {
    /// The same, knowing what plans would do: room that others will take is no room.
    pub fn beside(mut self, outlook: &Outlook) -> Self {
        if self.tier == Tier::NextPlan && !outlook.starts_now {
            self.tier = Tier::WaitingForCapacity;
            self.summary = "room is free, and runs ahead of it take it or have it kept".to_owned();
            self.hint = Some("see its position, or ask for less: below".to_owned());
        }
        self
    }
}

/// Why this run waits.
pub fn explain(state: &State, run: &Run) -> Waiting {
    if run.phase == RunPhase::Held
        && let Some(held) = super::held::explain(state, run)
    {
        return held;
    }
    if run.phase != RunPhase::Queued {
        return Waiting {
            tier: Tier::NotWaiting,
            summary: match run.phase {
                RunPhase::Active => "it holds its devices".to_owned(),
                _ => "it has ended".to_owned(),
            },
            reasons: Vec::new(),
            hint: None,
        };
    }
    if let Some(waiting) = held(state, run, state.time_us()) {
        return waiting;
    }
    let giving_way: Vec<String> = state
        .stopping_runs()
        .filter(|other| {
            other
                .last_attempt()
                .and_then(|attempt| attempt.stopping.as_ref()?.claimant())
                == Some(run.id)
        })
        .map(|other| other.id.to_string())
        .collect();
    if !giving_way.is_empty() {
        return Waiting {
            tier: Tier::WaitingForPreempted,
            summary: format!(
                "{} {} stopped for it and has its grace to save what it has",
                giving_way.join(", "),
                if giving_way.len() == 1 { "is" } else { "are" }
            ),
            reasons: Vec::new(),
            hint: None,
        };
    }
    let mut waiting = explain_spec(state, &run.spec, &run.tenant);
    waiting
        .reasons
        .extend(super::order::of_its_tenants(state, run));
    if matches!(
        waiting.tier,
        Tier::WaitingForCapacity | Tier::WaitingForGang
    ) {
        waiting.reasons.extend(owed(state, run));
    }
    super::kept::explain(state, run, waiting)
}

/// What a run is held for, as of a time that the state may not have seen yet; `None` when it is not
/// held.
pub fn held(state: &State, run: &Run, now_us: u64) -> Option<Waiting> {
    let words = run.held_words(now_us).filter(|_| state.is_held(run))?;
    Some(Waiting {
        tier: Tier::Held,
        summary: format!("held: {words}"),
        reasons: Vec::new(),
        hint: Some(format!(
            "see what it said: platform logs {}; or give it up: platform stop {}",
            run.id, run.id
        )),
    })
}

/// Who holds what this run may take, named until a few.
fn owed(state: &State, run: &Run) -> Option<String> {
    const MOST_NAMED: usize = 5;
    let holders: Vec<&Run> = state
        .active_runs()
        .filter(|holder| state.claim_on(run, holder).is_some())
        .collect();
    if holders.is_empty() {
        return None;
    }
    let named: Vec<String> = holders
        .iter()
        .take(MOST_NAMED)
        .map(|holder| holder.id.to_string())
        .collect();
    let more = match holders.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "{}{more} may have to give way to it, once each has run for {} s",
        named.join(", "),
        state.policy().minimum_run_ms / 1000
    ))
}

/// The ways in which the lines let a run start now; where none does, which line keeps it from the first
/// that it was to be tried in.
fn open_ways(
    state: &State,
    spec: &WorkloadSpec,
    tenant: &TenantName,
    pool: &PoolName,
) -> Result<Vec<MemberDemand>, Waiting> {
    let mut open = Vec::new();
    let mut closed: Option<Waiting> = None;
    for way in state.ways(spec) {
        let waits = state
            .meters(pool, &way)
            .find_map(|meter| quota_wait(state, spec, tenant, meter));
        match waits {
            None => open.push(way),
            Some(waiting) => match &mut closed {
                Some(first) if first.summary != waiting.summary => {
                    first.reasons.push(waiting.summary);
                }
                Some(_) => {}
                None => closed = Some(waiting),
            },
        }
    }
    match closed {
        Some(waiting) if open.is_empty() => Err(waiting),
        _ => Ok(open),
    }
}

fn quota_wait(
    state: &State,
    spec: &WorkloadSpec,
    tenant: &TenantName,
    meter: Meter<'_>,
) -> Option<Waiting> {
    let asked = spec.gpu_milli();
    let used = |name: &TenantName| state.used_on(name, meter);
    let (tier, summary, hint) = match quotas::standing(state.tenants(), meter, tenant, asked, used)
    {
        Standing::Guaranteed => return None,
        Standing::OverLimit {
            tenant: above,
            used_milli,
            limit_milli,
        } => (
            Tier::OverLimit,
            format!(
                "tenant {above} holds {} of its limit of {} GPUs {meter}, and this run asks for {}",
                gpus(used_milli),
                gpus(limit_milli),
                gpus(asked)
            ),
            format!(
                "wait for its runs to end, or raise the limit: platform quotas set {above} {} --gpus N --limit M",
                meter.flags()
            ),
        ),
        Standing::Borrows { milli, .. } if !spec.preemptible => (
            Tier::OverQuota,
            format!(
                "it would borrow {} GPUs {meter}, and a run that may not be preempted borrows nothing",
                gpus(milli)
            ),
            "wait for runs of your tenant to end, or submit it without --no-preempt".to_owned(),
        ),
        Standing::Borrows { milli, .. } => {
            let kept = quotas::kept_from_milli(state.tenants(), meter, tenant, used);
            let idle = state.idle_on(meter);
            if kept == 0 || asked.saturating_add(kept) <= idle {
                return None;
            }
            (
                Tier::OverQuota,
                format!(
                    "it would borrow {} GPUs {meter}: {} are idle, and {} of them are not lent",
                    gpus(milli),
                    gpus(idle),
                    gpus(kept.min(idle))
                ),
                format!(
                    "wait for runs of your tenant to end, or see who lends what: platform quotas list --pool {}",
                    meter.pool
                ),
            )
        }
    };
    Some(Waiting {
        tier,
        summary,
        reasons: Vec::new(),
        hint: Some(hint),
    })
}

/// Whether a node has room in one of these ways, and counts it for each in which it has; if in none, what
/// the one that comes closest lacks.
fn fits_one_way(
    node: &Node,
    ways: &[MemberDemand],
    fitting: &mut [usize],
) -> Result<(), Shortfall> {
    let mut closest: Option<Shortfall> = None;
    let mut fits = false;
    for (way, fitting) in ways.iter().zip(fitting) {
        match fits_now(node, way) {
            Ok(()) => {
                *fitting += 1;
                fits = true;
            }
            Err(shortfall) => closest = closest.max(Some(shortfall)),
        }
    }
    match closest {
        Some(shortfall) if !fits => Err(shortfall),
        _ => Ok(()),
    }
}

/// Why a run with this resolved spec would wait if it were queued now.
pub fn explain_spec(state: &State, spec: &WorkloadSpec, tenant: &TenantName) -> Waiting {
    if let Some(held) = super::held::explain_spec(state, spec) {
        return held;
    }
    let pool = spec.pool.clone().unwrap_or_else(PoolName::default_pool);
    if let Some(refusal) = state.stopped_by(tenant, spec) {
        return Waiting {
            tier: Tier::OverBudget,
            summary: refusal.message,
            reasons: Vec::new(),
            hint: refusal.hint,
        };
    }
    let ways = match open_ways(state, spec, tenant, &pool) {
        Ok(ways) => ways,
        Err(waiting) => return waiting,
    };
    let demand = state.policy().demand(spec);
    let nodes = state.nodes().values();
    let of_pool = nodes.filter(|node| node.description.pool == pool);
    if !state.policy().gpu_memory_cap_sums_mib.is_empty()
        && let least_mib = least_memory_mib(of_pool.map(|node| &node.description), spec, &demand)
        && let Some(summary) = state.over_memory_sum(spec, least_mib, |_| 0)
    {
        return Waiting {
            tier: Tier::OverCap,
            summary,
            reasons: Vec::new(),
            hint: Some(
                "wait for runs of the model to end, or ask for less with --gpu-memory".to_owned(),
            ),
        };
    }
    let mut counts: BTreeMap<Shortfall, usize> = BTreeMap::new();
    // Members of a gang are all on one model where quota is stated by model: the best of them counts.
    let mut fitting_by_way = vec![0_usize; ways.len()];
    let mut total = 0_usize;
    for node in state
        .nodes()
        .values()
        .filter(|node| node.description.pool == pool)
    {
        total += 1;
        let verdict = if node.is_ready() {
            fits_one_way(node, &ways, &mut fitting_by_way)
        } else {
            Err(Shortfall::NotReady)
        };
        match verdict {
            Ok(()) => {}
            Err(shortfall) => *counts.entry(shortfall).or_default() += 1,
        }
    }
    let fitting = fitting_by_way.into_iter().max().unwrap_or(0);
    let not_ready = counts.get(&Shortfall::NotReady).copied().unwrap_or(0);
    let reasons: Vec<String> = counts
        .iter()
        .map(|(shortfall, count)| format!("{count} of {total} nodes: {}", shortfall.words()))
        .collect();
    let members = spec.nodes as usize;
    if fitting >= members {
        return Waiting {
            tier: Tier::NextPlan,
            summary: "room is free; the next plan places it, after the runs ahead".to_owned(),
            reasons,
            hint: None,
        };
    }
    let (tier, summary) = if fitting > 0 {
        (
            Tier::WaitingForGang,
            format!("{fitting} of the {members} nodes it needs at once have room"),
        )
    } else {
        (
            Tier::WaitingForCapacity,
            match demand.gpu_milli() {
                _ if not_ready == total => format!("no node of pool {pool} is ready"),
                0 => format!("no node of pool {pool} has room for it now"),
                1000 => format!("no node of pool {pool} has room for 1 GPU now"),
                milli => format!(
                    "no node of pool {pool} has room for {} GPUs now",
                    gpus(milli)
                ),
            },
        )
    };
    let hint = if fitting == 0 && not_ready == total {
        format!(
            "see why: platform nodes list; or another pool: platform pools list (this is {pool})"
        )
    } else {
        format!(
            "see who holds them: platform runs list --state running; or another pool: platform pools list (this is {pool})"
        )
    };
    Waiting {
        tier,
        summary,
        reasons,
        hint: Some(hint),
    }
}
