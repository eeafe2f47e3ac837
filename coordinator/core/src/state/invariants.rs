//! What must always hold, as functions. Tests and simulations check them after every event.

use super::State;
use crate::model::{MemberPhase, RunPhase, WHOLE_DEVICE_MILLI};

/// An invariant that does not hold: its number in the design, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `I1` …
    pub invariant: &'static str,
    /// What was seen.
    pub seen: String,
}

impl State {
    /// Every invariant that can be read off one state.
    pub fn violations(&self) -> Vec<Violation> {
        let mut violations = self.capacity_is_never_exceeded();
        violations.extend(self.grants_and_members_agree());
        violations.extend(self.queue_and_phases_agree());
        let mut fresh = self.clone();
        fresh.reindex();
        let unkept = self.followers_wait_for_what_went_before(&fresh);
        let unkept = unkept
            .into_iter()
            .chain(self.arrays_keep_to_their_caps(&fresh));
        violations.extend(unkept.map(|seen| Violation {
            invariant: "I6",
            seen,
        }));
        violations.extend(self.usage_is_the_sum_of_grants(&fresh));
        if self.queues != fresh.queues {
            violations.push(Violation {
                invariant: "I11",
                seen: "runs wait in another order than after a snapshot is read".to_owned(),
            });
        }
        violations.extend(self.admission_held_for_every_live_run());
        violations.extend(self.budgets_are_the_sum_of_charges());
        let odd = self.recent_adds_up().into_iter();
        violations.extend(odd.map(|seen| Violation {
            invariant: "I9",
            seen,
        }));
        violations
    }

    /// I1: on every device, granted compute and memory never exceed capacity.
    fn capacity_is_never_exceeded(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (name, node) in &self.nodes {
            for (device, grants) in node.description.devices.iter().zip(&node.devices) {
                let share: u32 = grants.holders.values().map(|grant| grant.share_milli).sum();
                let memory: u64 = grants.holders.values().map(|grant| grant.memory_mib).sum();
                if share > WHOLE_DEVICE_MILLI
                    || memory > device.memory_mib
                    || share != grants.share_milli
                    || memory != grants.memory_mib
                {
                    violations.push(Violation {
                        invariant: "I1",
                        seen: format!(
                            "{name} {}: {share} thousandths and {memory} MiB granted",
                            device.id
                        ),
                    });
                }
            }
            // Not compared with capacity: a node may come back smaller than what it holds, and then
            // takes nothing more until that has ended.
            let reserved = node
                .members
                .iter()
                .filter_map(|key| {
                    let attempt = self.runs.get(&key.run)?.attempt(key.attempt)?;
                    attempt.members.get(key.member as usize)
                })
                .fold((0, 0), |(cpu, memory), member| {
                    (cpu + member.cpu_milli, memory + member.memory_mib)
                });
            if reserved != (node.cpu_reserved_milli, node.memory_reserved_mib) {
                violations.push(Violation {
                    invariant: "I1",
                    seen: format!("{name}: CPU or memory reserved is not what members hold"),
                });
            }
        }
        violations
    }

    /// I2, I3: shares are held by live members of last attempts, and by nobody else.
    fn grants_and_members_agree(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for (name, node) in &self.nodes {
            for key in node
                .members
                .iter()
                .chain(node.devices.iter().flat_map(|grants| grants.holders.keys()))
            {
                let live = self
                    .runs
                    .get(&key.run)
                    .and_then(|run| run.last_attempt())
                    .filter(|attempt| attempt.number == key.attempt)
                    .and_then(|attempt| attempt.members.get(key.member as usize))
                    .is_some_and(|member| {
                        member.phase != MemberPhase::Ended && member.node == *name
                    });
                if !live {
                    violations.push(Violation {
                        invariant: "I2",
                        seen: format!("{name}: {key:?} holds, and is not live"),
                    });
                }
            }
        }
        for run in self.runs.values() {
            for attempt in run.attempts.iter().rev().skip(1) {
                if !attempt.is_over() {
                    violations.push(Violation {
                        invariant: "I3",
                        seen: format!(
                            "{} attempt {} is live beside a later one",
                            run.id, attempt.number
                        ),
                    });
                }
            }
        }
        violations
    }

    fn queue_and_phases_agree(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let in_lines: usize = self
            .pools
            .keys()
            .map(|pool| self.queues.waiting(pool))
            .sum();
        let queued = in_lines + self.held();
        let mut expected = 0;
        for run in self.runs.values() {
            let in_queue = self.queues.contains(run);
            expected += usize::from(run.phase == RunPhase::Queued);
            let waits = run.phase == RunPhase::Queued && !self.is_held(run);
            let active = run.phase == RunPhase::Active;
            let alive = run.last_attempt().is_some_and(|attempt| !attempt.is_over());
            let stopping = alive
                && run
                    .last_attempt()
                    .is_some_and(|attempt| attempt.stopping.is_some());
            if in_queue != waits
                || active != alive
                || self.active.contains(&run.id) != alive
                || self.stopping.contains(&run.id) != stopping
                || self.live.contains(&run.id) == run.is_ended()
            {
                violations.push(Violation {
                    invariant: "I6",
                    seen: format!(
                        "{}: phase {:?}, queued {in_queue}, alive {alive}",
                        run.id, run.phase
                    ),
                });
            }
        }
        if queued != expected {
            violations.push(Violation {
                invariant: "I6",
                seen: format!("{queued} queued, {expected} waiting"),
            });
        }
        violations
    }

    /// I9: what is counted of tenants is what is granted to them and those below, what is counted of
    /// nodes is what they have and have free, and what is borrowed is recorded.
    fn usage_is_the_sum_of_grants(&self, fresh: &Self) -> Vec<Violation> {
        let mut violations = Vec::new();
        if self.capacity != fresh.capacity {
            violations.push(Violation {
                invariant: "I9",
                seen: format!(
                    "capacity: {:?} counted, {:?}",
                    self.capacity, fresh.capacity
                ),
            });
        }
        if (&self.timers, &self.queues) != (&fresh.timers, &fresh.queues) {
            violations.push(Violation {
                invariant: "I6",
                seen: format!("{:?} is not what the runs wait for", self.timers),
            });
        }
        if self.stoppable != fresh.stoppable {
            violations.push(Violation {
                invariant: "I9",
                seen: format!(
                    "may be stopped: {:?}, {:?}",
                    self.stoppable, fresh.stoppable
                ),
            });
        }
        for (what, counted, summed) in [
            ("used", &self.used_milli, &fresh.used_milli),
            ("stopping", &self.stopping_milli, &fresh.stopping_milli),
        ] {
            if counted != summed {
                violations.push(Violation {
                    invariant: "I9",
                    seen: format!("{what}: {counted:?} counted, {summed:?} granted"),
                });
            }
        }
        if self.model_use != fresh.model_use {
            violations.push(Violation {
                invariant: "I9",
                seen: format!(
                    "of models: {:?} counted, {:?} granted",
                    self.model_use, fresh.model_use
                ),
            });
        }
        if self.memory_sums_mib != fresh.memory_sums_mib {
            violations.push(Violation {
                invariant: "I13",
                seen: format!(
                    "memory in sum: {:?} counted, {:?} granted",
                    self.memory_sums_mib, fresh.memory_sums_mib
                ),
            });
        }
        for run in self.active_runs() {
            let recorded = run
                .last_attempt()
                .map_or(0, |attempt| attempt.borrowed_milli);
            if recorded > 0 && !run.spec.preemptible {
                violations.push(Violation {
                    invariant: "I9",
                    seen: format!("{}: borrows, and could not give it back", run.id),
                });
            }
        }
        violations
    }

    /// I13: what is spent of a budget is what its runs were charged, and one that is spent says so.
    fn budgets_are_the_sum_of_charges(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for account in self.budgets() {
            let meter = &account.meter;
            let charged = self.charged_to(&account.budget.scope, meter.period_start_us);
            let counted = (meter.spent(self.time_us), meter.rate());
            let is_spent = counted.0 >= account.budget.amount_charge();
            if counted != charged || meter.reached != is_spent {
                violations.push(Violation {
                    invariant: "I13",
                    seen: format!(
                        "budget {}: {counted:?} counted, {charged:?} charged, reached {}",
                        account.budget.name, meter.reached
                    ),
                });
            }
        }
        violations
    }

    /// I13: no run holds memory above its model's cap.
    fn admission_held_for_every_live_run(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        for id in &self.live {
            let Some(run) = self.runs.get(id) else {
                continue;
            };
            let Some(asked) = run.spec.gpu_memory_mib else {
                continue;
            };
            for grant in run
                .last_attempt()
                .into_iter()
                .flat_map(|attempt| &attempt.members)
                .flat_map(|m| &m.devices)
            {
                if grant.memory_mib > asked {
                    violations.push(Violation {
                        invariant: "I13",
                        seen: format!("{id}: {} MiB granted of {asked}", grant.memory_mib),
                    });
                }
            }
        }
        violations
    }
}
