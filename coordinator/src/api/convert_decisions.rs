//! Decisions as clients read them.

use coordinator_core::model::Verdict;
use coordinator_tracking::KeptDecision;
use platform_proto::http::{DecidedMember, DecisionView};

pub fn decision_view(kept: &KeptDecision) -> DecisionView {
    let decision = &kept.decision;
    let mut view = DecisionView {
        id: kept.sequence,
        at_us: kept.at_us,
        index: decision.index,
        decided_us: decision.now_us,
        version: decision.version.clone(),
        run: decision.run.map(|run| run.to_string()),
        tenant: decision.tenant.to_string(),
        verdict: String::new(),
        attempt: None,
        members: Vec::new(),
        claimant: None,
        lost_gpu_us: None,
        tier: None,
        summary: None,
        reasons: Vec::new(),
        actor: None,
        plan: None,
    };
    let word = match &decision.verdict {
        Verdict::Granted {
            attempt,
            members,
            plan,
        } => {
            view.attempt = Some(*attempt);
            view.plan = Some(plan.clone());
            view.members = members
                .iter()
                .map(|member| DecidedMember {
                    node: member.node.to_string(),
                    devices: member
                        .devices
                        .iter()
                        .map(|device| device.0.to_string())
                        .collect(),
                })
                .collect();
            "granted"
        }
        Verdict::Preempted {
            attempt,
            claimant,
            lost_gpu_us,
            plan,
        } => {
            view.attempt = Some(*attempt);
            view.claimant = Some(claimant.to_string());
            view.lost_gpu_us = Some(*lost_gpu_us);
            view.plan = Some(plan.clone());
            "preempted"
        }
        Verdict::Waits {
            tier,
            summary,
            reasons,
        } => {
            view.tier = Some(tier.clone());
            view.summary = Some(summary.clone());
            view.reasons = reasons.clone();
            "waits"
        }
        Verdict::Refused { actor, message } => {
            view.actor = Some(actor.clone());
            view.summary = Some(message.clone());
            "refused"
        }
    };
    word.clone_into(&mut view.verdict);
    view
}
