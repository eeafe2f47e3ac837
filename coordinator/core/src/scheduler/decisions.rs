//! Decisions kept for whoever asks later: what of a plan came to pass, who was first in line and had to
//! wait, and whether the same state and time decide the same again.
//!
//! A wait is told once, and again only when its reason changes, so that a queue of a week does not fill
//! the books; a count in the reason is not a reason.

use super::{Plan, Tier, explain, plan};
use crate::model::{Decision, GrantedMember, Run, RunId, RunPhase, TenantName, Verdict};
use crate::state::{Entry, Event, Preemption, State};
use std::collections::BTreeMap;

/// First runs that are looked at each time. Explaining one takes up to a millisecond at ten thousand
/// nodes, under the lock that the log waits for.
const MOST_FRONTS: usize = 16;

/// The digest of what a plan proposes: equal plans, equal digests.
pub fn digest(plan: &Plan) -> String {
    let mut hasher = blake3::Hasher::new();
    rmp_serde::encode::write_named(&mut hasher, &(&plan.placements, &plan.preemptions))
        .expect("a plan of names and numbers always encodes");
    hasher.finalize().to_hex().to_string()
}

/// What a plan on this state decides, by run, in its order.
pub fn of_plan(state: &State, now_us: u64, plan: &Plan, version: &str) -> Vec<Decision> {
    if plan.is_empty() {
        return Vec::new();
    }
    let digest = digest(plan);
    let decision = |id: RunId, verdict: &dyn Fn(&Run) -> Verdict| {
        let run = state.runs().get(&id)?;
        Some(Decision {
            index: state.index(),
            now_us,
            version: version.to_owned(),
            run: Some(id),
            tenant: run.tenant.clone(),
            verdict: verdict(run),
        })
    };
    let granted = plan.placements.iter().filter_map(|placement| {
        decision(placement.run, &|_| Verdict::Granted {
            attempt: placement.attempt,
            members: placement
                .members
                .iter()
                .map(|member| GrantedMember {
                    node: member.node.clone(),
                    devices: member.devices.clone(),
                })
                .collect(),
            plan: digest.clone(),
        })
    });
    let preempted = plan.preemptions.iter().filter_map(|preemption| {
        decision(preemption.run, &|run| Verdict::Preempted {
            attempt: preemption.attempt,
            claimant: preemption.claimant,
            lost_gpu_us: lost_gpu_us(run, now_us),
            plan: digest.clone(),
        })
    });
    granted.chain(preempted).collect()
}

fn lost_gpu_us(run: &Run, now_us: u64) -> u64 {
    u64::try_from(run.unsaved_work(now_us) / 1000).unwrap_or(u64::MAX)
}

/// Whether what was decided is what the state shows after the plan was applied: a stale item is not.
pub fn came_to_pass(state: &State, decision: &Decision) -> bool {
    let attempt = |number: u32| state.runs().get(&decision.run?)?.attempt(number);
    match &decision.verdict {
        Verdict::Granted {
            attempt: number, ..
        } => attempt(*number).is_some(),
        Verdict::Preempted {
            attempt: number, ..
        } => attempt(*number).is_some_and(|attempt| attempt.stopping.is_some()),
        Verdict::Waits { .. } | Verdict::Refused { .. } => true,
    }
}

/// Remembers what the first of each line was last told.
#[derive(Debug, Default)]
pub struct Fronts {
    said: BTreeMap<RunId, String>,
}

impl Fronts {
    /// Who is first of its tenant in its pool and has to wait, where the reason is new.
    pub fn look(&mut self, state: &State, now_us: u64, version: &str) -> Vec<Decision> {
        self.said.retain(|id, _| {
            state
                .runs()
                .get(id)
                .is_some_and(|run| run.phase == RunPhase::Queued)
        });
        let fronts = state
            .queues()
            .pools()
            .flat_map(|(pool, tenants)| {
                tenants
                    .keys()
                    .filter_map(move |tenant| state.queues().first_of(pool, tenant))
            })
            .filter_map(|id| state.runs().get(&id))
            .filter(|run| !state.is_held(run))
            .take(MOST_FRONTS);
        let mut decisions = Vec::new();
        for run in fronts {
            let verdict = waits(state, run);
            let Some(verdict) = verdict else { continue };
            let reason = reason(&verdict);
            if self.said.get(&run.id) == Some(&reason) {
                continue;
            }
            self.said.insert(run.id, reason);
            decisions.push(Decision {
                index: state.index(),
                now_us,
                version: version.to_owned(),
                run: Some(run.id),
                tenant: run.tenant.clone(),
                verdict,
            });
        }
        decisions
    }
}

/// Why a run waits; `None` when the next plan takes it, or it does not wait.
fn waits(state: &State, run: &Run) -> Option<Verdict> {
    let waiting = explain(state, run);
    (!matches!(waiting.tier, Tier::NextPlan | Tier::NotWaiting)).then(|| Verdict::Waits {
        tier: waiting.tier.as_str().to_owned(),
        summary: waiting.summary,
        reasons: waiting.reasons,
    })
}

/// What a wait says, whatever it counts.
fn reason(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Waits {
            tier,
            summary,
            reasons,
        } => format!("{tier} {summary} {}", reasons.join(" "))
            .chars()
            .filter(|letter| !letter.is_ascii_digit())
            .collect(),
        Verdict::Granted { .. } | Verdict::Preempted { .. } | Verdict::Refused { .. } => {
            String::new()
        }
    }
}

/// The decision that a refused submit is.
pub fn of_refusal(
    index: u64,
    now_us: u64,
    version: &str,
    tenant: &TenantName,
    actor: &str,
    message: &str,
) -> Decision {
    Decision {
        index,
        now_us,
        version: version.to_owned(),
        run: None,
        tenant: tenant.clone(),
        verdict: Verdict::Refused {
            actor: actor.to_owned(),
            message: message.to_owned(),
        },
    }
}

/// Decides again: on the state at the decision's index and, for a refused submit, with the log entry
/// that came next. Answers what is decided now where that is something else.
///
/// # Errors
///
/// What this program decides instead, in words.
pub fn repeat(state: &State, next: Option<&Entry>, decision: &Decision) -> Result<(), String> {
    let planned = || plan(state, decision.now_us);
    match &decision.verdict {
        Verdict::Granted { plan: before, .. } | Verdict::Preempted { plan: before, .. } => {
            let plan = planned();
            let now = digest(&plan);
            let again = of_plan(state, decision.now_us, &plan, &decision.version);
            if now == *before && again.contains(decision) {
                return Ok(());
            }
            Err(about(&plan, decision.run))
        }
        Verdict::Waits { .. } => {
            let run = decision.run.and_then(|id| state.runs().get(&id));
            let again = run.and_then(|run| waits(state, run));
            let plan = planned();
            let is_placed = plan
                .placements
                .iter()
                .any(|placement| Some(placement.run) == decision.run);
            match again {
                _ if is_placed => Err(about(&plan, decision.run)),
                Some(again) if again == decision.verdict => Ok(()),
                Some(Verdict::Waits { tier, summary, .. }) => Err(format!("{tier}: {summary}")),
                _ => Err("it does not wait".to_owned()),
            }
        }
        Verdict::Refused { message, .. } => {
            let Some(next) = next else {
                return Err("its submit is not in the log".to_owned());
            };
            let mut state = state.clone();
            match state.apply(decision.index + 1, next).into_iter().next() {
                Some(Event::Rejected { refusal }) if refusal.message == *message => Ok(()),
                Some(Event::Rejected { refusal }) => Err(refusal.message),
                _ => Err("it is admitted".to_owned()),
            }
        }
    }
}

/// What a plan says about a run.
fn about(plan: &Plan, run: Option<RunId>) -> String {
    let placed = plan
        .placements
        .iter()
        .find(|placement| Some(placement.run) == run);
    if let Some(placed) = placed {
        let nodes: Vec<&str> = placed
            .members
            .iter()
            .map(|member| member.node.as_str())
            .collect();
        return format!("granted on {}", nodes.join("+"));
    }
    let stops = |preemption: &&Preemption| Some(preemption.run) == run;
    match plan.preemptions.iter().find(stops) {
        Some(preemption) => format!("stopped for {}", preemption.claimant),
        None => "nothing is decided about it".to_owned(),
    }
}
