//! What agents say of their members. An older epoch can write nothing.

use super::{Event, MemberReport, State};
use crate::model::{EndKind, Member, MemberEnd, MemberPhase, NodeCondition, NodeName};

/// Launches in a row that may fail by a node's own fault before it is cordoned: one node with a full
/// disk must not swallow the queue.
const MOST_LAUNCH_FAILURES: u32 = 3;

impl State {
    pub(super) fn report(&mut self, node: &NodeName, members: &[MemberReport]) -> Vec<Event> {
        members
            .iter()
            .flat_map(|report| self.report_member(node, report))
            .collect()
    }

    fn report_member(&mut self, node: &NodeName, report: &MemberReport) -> Vec<Event> {
        let key = report.key;
        let stale = || {
            vec![Event::StaleReport {
                key,
                node: node.clone(),
            }]
        };
        if !self.is_current(key, report.epoch) {
            return stale();
        }
        let time_us = self.time_us;
        let Some(attempt) = self
            .runs
            .get_mut(&key.run)
            .and_then(|run| run.attempts.last_mut())
        else {
            return stale();
        };
        let Some(member) = attempt
            .members
            .get_mut(key.member as usize)
            .filter(|member| member.node == *node)
        else {
            return stale();
        };
        if member.phase == MemberPhase::Ended {
            return Vec::new();
        }
        let mut told_more =
            report.enforcement.is_some() && report.enforcement != member.enforcement;
        if told_more {
            member.enforcement.clone_from(&report.enforcement);
        }
        // By the node's own clock: one that runs ahead saves nothing of what is yet to be done.
        let checkpointed_us = report.checkpointed_us.map(|at_us| at_us.min(time_us));
        if checkpointed_us > attempt.checkpointed_us {
            attempt.checkpointed_us = checkpointed_us;
            told_more = true;
        }
        if report.phase == MemberPhase::Ended {
            let end = report.end.clone().unwrap_or(MemberEnd {
                kind: EndKind::Lost,
                message: "the node said it ended, and not how".to_owned(),
            });
            // A member whose start and end arrive in one report has run all the same.
            let others = (0_u32..)
                .zip(&attempt.members)
                .filter(|(rank, _)| *rank != key.member);
            if attempt.started_us.is_none()
                && has_run(&end)
                && others.map(|(_, member)| member).all(has_begun)
            {
                attempt.started_us = Some(time_us);
                self.note_end(key.run);
            }
            let mut events = self.count_launch(node, &end);
            events.extend(self.release(key, end));
            return events;
        }
        // A report that was overtaken by a later one says nothing new.
        let moved = report.phase > member.phase
            || (report.phase == member.phase && report.detail != member.detail);
        if !moved && !told_more {
            return Vec::new();
        }
        if moved {
            member.phase = report.phase;
            member.detail.clone_from(&report.detail);
        }
        if attempt.started_us.is_none() && attempt.members.iter().all(has_begun) {
            attempt.started_us = Some(time_us);
            self.note_end(key.run);
        }
        if report.phase == MemberPhase::Running
            && let Some(node) = self.nodes.get_mut(node)
        {
            node.launch_failures = 0;
        }
        vec![Event::MemberChanged {
            key,
            node: node.clone(),
        }]
    }

    /// A launch failure counts against the node first; three in a row cordon it, and say so.
    fn count_launch(&mut self, name: &NodeName, end: &MemberEnd) -> Vec<Event> {
        let Some(node) = self.nodes.get_mut(name) else {
            return Vec::new();
        };
        match end.kind {
            EndKind::LaunchFailed { node_fault: true } => {
                node.launch_failures += 1;
                if node.launch_failures >= MOST_LAUNCH_FAILURES && node.is_ready() {
                    node.condition = NodeCondition::Cordoned {
                        reason: format!(
                            "{} launches in a row failed by the node's own fault, the last: {}",
                            node.launch_failures, end.message
                        ),
                    };
                    self.note_node(name);
                    return vec![Event::NodeChanged { node: name.clone() }];
                }
            }
            EndKind::Exited { .. } => node.launch_failures = 0,
            _ => {}
        }
        Vec::new()
    }
}

/// Whether a member that ended so had begun to run.
fn has_run(end: &MemberEnd) -> bool {
    matches!(
        end.kind,
        EndKind::Exited { .. }
            | EndKind::Signaled { .. }
            | EndKind::TimeLimit
            | EndKind::OutOfMemory
    )
}

fn has_begun(member: &Member) -> bool {
    member.phase == MemberPhase::Running || member.end.as_ref().is_some_and(has_run)
}
