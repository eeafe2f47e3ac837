//! Decisions for people.

use super::{Paint, amounts, tables};
use platform_proto::http::{DecisionList, DecisionReplay, DecisionView};

/// Decisions in order of time; of one run, or of many.
pub fn decisions(list: &DecisionList, run: Option<&str>, paint: Paint) -> String {
    if list.decisions.is_empty() {
        return "nothing was decided yet, or it is older than a month\n".to_owned();
    }
    let rows = list
        .decisions
        .iter()
        .map(|decision| {
            vec![
                decision.id.to_string(),
                amounts::moment(decision.decided_us),
                decision.run.clone().unwrap_or_default(),
                decision.tenant.clone(),
                decision.verdict.clone(),
                why(decision, run),
            ]
        })
        .collect();
    tables::table(
        &["id", "when", "run", "tenant", "decided", "why"],
        rows,
        paint,
    )
}

fn why(decision: &DecisionView, of: Option<&str>) -> String {
    let placed = decision.members.iter().map(|member| {
        if member.devices.is_empty() {
            return member.node.clone();
        }
        format!("{}: {}", member.node, member.devices.join(", "))
    });
    let mut words: Vec<String> = placed.collect();
    if let Some(claimant) = &decision.claimant {
        let lost = amounts::gpu_hours(decision.lost_gpu_us.unwrap_or(0));
        let whom = if of == Some(claimant) {
            "for this run"
        } else {
            "for"
        };
        let name = if of == Some(claimant) { "" } else { claimant };
        words.push(format!("{whom} {name}").trim_end().to_owned());
        words.push(format!("{lost} GPU hours not saved"));
    }
    if let Some(tier) = &decision.tier {
        words.push(tier.clone());
    }
    words.extend(decision.summary.iter().map(|text| tables::plain(text)));
    words.extend(decision.reasons.iter().map(|text| tables::plain(text)));
    if let Some(actor) = &decision.actor {
        words.push(tables::plain(actor));
    }
    words.join("; ")
}

/// Whether a decision came out alike.
pub fn replay(replay: &DecisionReplay) -> String {
    let decision = &replay.decision;
    let versions = if replay.version == decision.version {
        format!("version {}", replay.version)
    } else {
        format!(
            "decided by version {}, replayed by {}",
            decision.version, replay.version
        )
    };
    let again = match &replay.instead {
        None => "the same".to_owned(),
        Some(instead) => format!("something else: {}", tables::plain(instead)),
    };
    tables::pairs(&[
        ("decision", decision.id.to_string()),
        (
            "run",
            decision.run.clone().unwrap_or_else(|| "-".to_owned()),
        ),
        (
            "decided",
            format!("{}: {}", decision.verdict, why(decision, None)),
        ),
        (
            "on",
            format!(
                "log index {}, at {}",
                decision.index,
                amounts::moment(decision.decided_us)
            ),
        ),
        ("again", again),
        ("by", versions),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform_proto::http::DecidedMember;

    fn view(id: u64, verdict: &str) -> DecisionView {
        DecisionView {
            id,
            at_us: 1_790_000_000_000_000,
            index: 40 + id,
            decided_us: 1_790_000_000_000_000,
            version: "0.1.0".to_owned(),
            run: Some("run-7".to_owned()),
            tenant: "nlp".to_owned(),
            verdict: verdict.to_owned(),
            attempt: None,
            members: Vec::new(),
            claimant: None,
            lost_gpu_us: None,
            tier: None,
            summary: None,
            reasons: Vec::new(),
            actor: None,
            plan: None,
        }
    }

    fn all() -> DecisionList {
        DecisionList {
            decisions: vec![
                DecisionView {
                    tier: Some("waiting-for-capacity".to_owned()),
                    summary: Some("no node of pool default has room for 2 GPUs now".to_owned()),
                    reasons: vec!["4 of 4 nodes: devices exhausted".to_owned()],
                    ..view(1, "waits")
                },
                DecisionView {
                    run: Some("run-3".to_owned()),
                    tenant: "guests".to_owned(),
                    claimant: Some("run-7".to_owned()),
                    lost_gpu_us: Some(7_200_000_000),
                    ..view(2, "preempted")
                },
                DecisionView {
                    members: vec![DecidedMember {
                        node: "node-1".to_owned(),
                        devices: vec!["GPU-a".to_owned(), "GPU-b".to_owned()],
                    }],
                    ..view(3, "granted")
                },
                DecisionView {
                    run: None,
                    actor: Some("user:ana".to_owned()),
                    summary: Some("the cost tag team is missing".to_owned()),
                    ..view(4, "refused")
                },
            ],
        }
    }

    #[test]
    fn decisions_are_told_in_order_with_their_reasons() {
        insta::assert_snapshot!(decisions(&all(), Some("run-7"), Paint::default()));
    }

    #[test]
    fn a_replay_that_comes_out_otherwise_names_both_versions() {
        let decision = all().decisions.remove(2);
        let alike = DecisionReplay {
            decision: decision.clone(),
            same: true,
            instead: None,
            version: "0.1.0".to_owned(),
        };
        let otherwise = DecisionReplay {
            same: false,
            instead: Some("granted on node-2".to_owned()),
            version: "0.2.0".to_owned(),
            ..alike.clone()
        };
        insta::assert_snapshot!(format!("{}\n{}", replay(&alike), replay(&otherwise)));
    }
}
