//! The smallest changes to what a run asks that would start it now.
//!
//! Each kind of change offers its own smallest step that looks as if there were room; the real plan,
//! with the run asking for that at its old place, has the last word. What gives nothing up comes first,
//! then what gives up least.

use super::victims;
use crate::model::{MemberDemand, PoolName, Role, Run, RunId, WorkloadSpec};
use crate::policy::{self, gpus};
use crate::scheduler::{Reservation, Tier, Trial, explain_spec};
use crate::state::State;
use std::collections::BTreeSet;

/// Changes told at most.
const MOST_CHANGES: usize = 3;
/// Plans made to find them.
const MOST_TRIALS: usize = 12;
/// Pools and models looked at besides its own: a platform has a handful.
const MOST_ALTERNATIVES: usize = 8;
/// Parts of a GPU that people ask for.
const PARTS_MILLI: [u32; 8] = [900, 800, 750, 600, 500, 400, 250, 100];
const MIB_IN_GIB: u64 = 1024;
const HIGHEST_PRIORITY: i32 = 100;

/// A change that starts a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As typed: `--gpus 3`.
    pub flags: String,
    /// What it means.
    pub words: String,
    /// Who would be stopped for it; empty: there is room.
    pub gives_way: Vec<RunId>,
}

/// A change that has not been tried.
struct Candidate {
    /// What it gives up of what was asked, in thousandths.
    lost_milli: u64,
    /// Changes of one kind are tried in turn until one starts the run.
    kind: Kind,
    flags: String,
    words: String,
    spec: WorkloadSpec,
}

/// Kinds of change; those that give up equally much are told in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Borrow,
    Pool,
    Model,
    TimeLimit,
    GpuMemory,
    Gpus,
    Nodes,
    Fraction,
    Cpus,
    Memory,
    Priority,
}

/// The changes that would start the run now, smallest first. `trial` holds what would be placed anyway,
/// and is given back as it was.
pub fn smallest(mut trial: Trial, run: &Run, kept: &[Reservation]) -> (Trial, Vec<Change>) {
    let mut candidates = candidates(trial.state(), run);
    candidates.extend(time_limits(trial.now_us(), run, kept));
    candidates.sort_by_key(|candidate| (candidate.lost_milli, candidate.kind));
    let mut found: Vec<Change> = Vec::new();
    let mut later: Vec<Change> = Vec::new();
    let mut kinds = BTreeSet::new();
    let mut trials = 0;
    for candidate in candidates {
        if found.len() == MOST_CHANGES || trials == MOST_TRIALS {
            break;
        }
        if kinds.contains(&candidate.kind) {
            continue;
        }
        trials += 1;
        let now_us = trial.now_us();
        trial = trial.supposing(run.id, candidate.spec);
        let plan = trial.propose(now_us);
        let placed = plan
            .placements
            .iter()
            .any(|placement| placement.run == run.id);
        let gives_way = if placed {
            Vec::new()
        } else {
            victims(&plan, run.id)
        };
        if !placed && gives_way.is_empty() {
            continue;
        }
        kinds.insert(candidate.kind);
        let change = Change {
            flags: candidate.flags,
            words: candidate.words,
            gives_way,
        };
        // What stops somebody else is no small change.
        if placed {
            found.push(change);
        } else {
            later.push(change);
        }
    }
    found.extend(later);
    found.truncate(MOST_CHANGES);
    (trial.supposing(run.id, (*run.spec).clone()), found)
}

/// What may be tried, in no order.
fn candidates(state: &State, run: &Run) -> Vec<Candidate> {
    let looking = Looking {
        state,
        run,
        demand: state.policy().demand(&run.spec),
    };
    let mut candidates = Vec::new();
    looking.borrow(&mut candidates);
    looking.pools(&mut candidates);
    looking.models(&mut candidates);
    looking.less(&mut candidates);
    looking.parts(&mut candidates);
    looking.priority(&mut candidates);
    candidates
}

/// What will be gone before a run for which devices are kept starts may use them meanwhile.
fn time_limits(now_us: u64, run: &Run, kept: &[Reservation]) -> Vec<Candidate> {
    kept.iter()
        .filter(|reservation| reservation.run != run.id)
        .filter_map(|reservation| Some((reservation.run, reservation.longest_limit_ms(now_us)?)))
        .map(|(other, limit_ms)| (other, limit_ms / 1000))
        .filter(|(_, limit_s)| {
            *limit_s > 0
                && run
                    .spec
                    .time_limit_ms
                    .is_none_or(|asked_ms| limit_s * 1000 < asked_ms)
        })
        .map(|(other, limit_s)| Candidate {
            // Whatever it would have taken: nobody knows.
            lost_milli: 1,
            kind: Kind::TimeLimit,
            flags: format!("--time-limit {limit_s}s"),
            words: format!("it is gone then before {other} starts, for which devices are kept"),
            spec: WorkloadSpec {
                time_limit_ms: Some(limit_s * 1000),
                ..(*run.spec).clone()
            },
        })
        .collect()
}

struct Looking<'a> {
    state: &'a State,
    run: &'a Run,
    demand: MemberDemand,
}

impl Looking<'_> {
    fn spec(&self) -> WorkloadSpec {
        (*self.run.spec).clone()
    }

    /// The spec as admission would take it.
    fn admitted(&self, spec: WorkloadSpec) -> Option<WorkloadSpec> {
        self.admitted_for(None, spec)
    }

    fn admitted_for(&self, role: Option<Role>, spec: WorkloadSpec) -> Option<WorkloadSpec> {
        let around = self.state.surroundings(&self.run.tenant).ok()?;
        policy::resolve(around.asked_by(role), spec)
            .ok()
            .map(|admitted| admitted.spec)
    }

    /// Whether there is room for it, whoever is ahead: a look without a plan.
    fn has_room(&self, spec: &WorkloadSpec) -> bool {
        explain_spec(self.state, spec, &self.run.tenant).tier == Tier::NextPlan
    }

    fn offer(
        &self,
        candidates: &mut Vec<Candidate>,
        kind: Kind,
        lost_milli: u64,
        flags: String,
        words: String,
        spec: WorkloadSpec,
    ) {
        if self.has_room(&spec)
            && let Some(spec) = self.admitted(spec)
        {
            candidates.push(Candidate {
                lost_milli,
                kind,
                flags,
                words,
                spec,
            });
        }
    }

    fn borrow(&self, candidates: &mut Vec<Candidate>) {
        if self.run.spec.preemptible {
            return;
        }
        self.offer(
            candidates,
            Kind::Borrow,
            0,
            "leave out --no-preempt".to_owned(),
            "it borrows then, and may have to give it back".to_owned(),
            WorkloadSpec {
                preemptible: true,
                ..self.spec()
            },
        );
    }

    fn pools(&self, candidates: &mut Vec<Candidate>) {
        let others: Vec<&PoolName> = self
            .state
            .pools()
            .keys()
            .filter(|pool| self.run.spec.pool.as_ref() != Some(pool))
            .take(MOST_ALTERNATIVES)
            .collect();
        for pool in others {
            self.offer(
                candidates,
                Kind::Pool,
                0,
                format!("--pool {pool}"),
                format!("there is room in pool {pool}"),
                WorkloadSpec {
                    pool: Some(pool.clone()),
                    ..self.spec()
                },
            );
        }
    }

    fn models(&self, candidates: &mut Vec<Candidate>) {
        let Some(asked) = &self.run.spec.gpu_model else {
            return;
        };
        let others: BTreeSet<&str> = self
            .state
            .nodes()
            .values()
            .filter(|node| Some(&node.description.pool) == self.run.spec.pool.as_ref())
            .flat_map(|node| &node.description.devices)
            .map(|device| device.model.as_str())
            .filter(|model| !self.demand.accepts(model))
            .collect();
        for model in others.into_iter().take(MOST_ALTERNATIVES) {
            self.offer(
                candidates,
                Kind::Model,
                0,
                format!("--gpu-model {model}"),
                format!("instead of {asked}"),
                WorkloadSpec {
                    gpu_model: Some(model.to_owned()),
                    ..self.spec()
                },
            );
        }
    }

    /// Less of one amount: the most of it for which there is room, and half of that, for others may be
    /// ahead of it.
    fn less(&self, candidates: &mut Vec<Candidate>) {
        let spec = &self.run.spec;
        let devices = spec
            .gpu_share_milli
            .is_none()
            .then_some(spec.gpus)
            .flatten();
        let plural =
            |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let each = if spec.nodes > 1 { " on each node" } else { "" };
        let amounts: [Amount<'_>; 5] = [
            (Kind::Gpus, devices.map(u64::from), &|count| Changed {
                flags: format!("--gpus {count}"),
                words: format!(
                    "{} less{each}",
                    plural(u64::from(devices.unwrap_or(0)).saturating_sub(count), "GPU")
                ),
                spec: WorkloadSpec {
                    gpus: u32::try_from(count).ok(),
                    ..self.spec()
                },
            }),
            (Kind::Nodes, Some(u64::from(spec.nodes)), &|count| Changed {
                flags: format!("--nodes {count}"),
                words: format!("{} less", plural(u64::from(spec.nodes) - count, "node")),
                spec: WorkloadSpec {
                    nodes: u32::try_from(count).unwrap_or(spec.nodes),
                    ..self.spec()
                },
            }),
            (
                Kind::GpuMemory,
                spec.gpu_memory_mib.map(|mib| mib.div_ceil(MIB_IN_GIB)),
                &|gib| Changed {
                    flags: format!("--gpu-memory {gib}G"),
                    words: format!("instead of {}", in_gib(spec.gpu_memory_mib)),
                    spec: WorkloadSpec {
                        gpu_memory_mib: Some(gib * MIB_IN_GIB),
                        ..self.spec()
                    },
                },
            ),
            (
                Kind::Cpus,
                spec.cpu_milli.map(|milli| milli.div_ceil(1000)),
                &|cpus| Changed {
                    flags: format!("--cpus {cpus}"),
                    words: format!("instead of {}", gpus(spec.cpu_milli.unwrap_or(0))),
                    spec: WorkloadSpec {
                        cpu_milli: Some(cpus * 1000),
                        ..self.spec()
                    },
                },
            ),
            (
                Kind::Memory,
                spec.memory_mib.map(|mib| mib.div_ceil(MIB_IN_GIB)),
                &|gib| Changed {
                    flags: format!("--memory {gib}G"),
                    words: format!("instead of {}", in_gib(spec.memory_mib)),
                    spec: WorkloadSpec {
                        memory_mib: Some(gib * MIB_IN_GIB),
                        ..self.spec()
                    },
                },
            ),
        ];
        for (kind, asked, changed) in amounts {
            let Some(asked) = asked.filter(|asked| *asked > 1) else {
                continue;
            };
            let Some(most) = most_that(asked - 1, |amount| self.has_room(&changed(amount).spec))
            else {
                continue;
            };
            for amount in BTreeSet::from([most, (most / 2).max(1)]) {
                let Changed { flags, words, spec } = changed(amount);
                let lost_milli = (asked - amount) * 1000 / asked;
                self.offer(candidates, kind, lost_milli.max(1), flags, words, spec);
            }
        }
    }

    /// A part of a GPU, or a smaller one.
    fn parts(&self, candidates: &mut Vec<Candidate>) {
        let spec = &self.run.spec;
        let asked = match (spec.gpu_share_milli, spec.gpus) {
            (Some(share), _) => share,
            (None, Some(1)) => 1000,
            _ => return,
        };
        let smaller = PARTS_MILLI.into_iter().filter(|part| *part < asked);
        for part in smaller.take(MOST_ALTERNATIVES) {
            self.offer(
                candidates,
                Kind::Fraction,
                u64::from(asked - part) * 1000 / u64::from(asked),
                format!("--gpu-fraction {}", gpus(u64::from(part))),
                "a part of one GPU".to_owned(),
                WorkloadSpec {
                    gpus: None,
                    gpu_share_milli: Some(part),
                    ..self.spec()
                },
            );
        }
    }

    /// Just above those of its own tenant that are ahead of it, and just above those that run: only a
    /// plan can say what either comes to.
    fn priority(&self, candidates: &mut Vec<Candidate>) {
        let own = self.run.spec.priority;
        let of_tenant =
            |run: &&Run| run.tenant == self.run.tenant && run.spec.pool == self.run.spec.pool;
        let ahead = self
            .run
            .spec
            .pool
            .as_ref()
            .and_then(|pool| self.state.queues().first_of(pool, &self.run.tenant))
            .and_then(|first| self.state.runs().get(&first))
            .filter(|first| first.id != self.run.id)
            .map(|first| first.spec.priority);
        let holding = self
            .state
            .active_runs()
            .filter(of_tenant)
            .filter(|run| run.spec.preemptible)
            .map(|run| run.spec.priority)
            .min();
        let steps: BTreeSet<i32> = [ahead, holding]
            .into_iter()
            .flatten()
            .map(|priority| priority.saturating_add(1))
            .filter(|priority| *priority > own && *priority <= HIGHEST_PRIORITY)
            .collect();
        for priority in steps {
            let spec = WorkloadSpec {
                priority,
                priority_class: None,
                ..self.spec()
            };
            // Who will ask is not known here: only what is open to every member is named.
            if let Some(spec) = self.admitted_for(Some(Role::Member), spec) {
                candidates.push(Candidate {
                    // It gives up nothing of its own, and takes from its colleagues: the last resort.
                    lost_milli: 1000,
                    kind: Kind::Priority,
                    flags: format!("--priority {priority}"),
                    words: "ahead of other runs of its tenant".to_owned(),
                    spec,
                });
            }
        }
    }
}

/// A spec that asks for less, and how to say it.
struct Changed {
    flags: String,
    words: String,
    spec: WorkloadSpec,
}

/// A kind of amount, how much of it was asked for, and the spec that asks for another.
type Amount<'a> = (Kind, Option<u64>, &'a dyn Fn(u64) -> Changed);

fn in_gib(mib: Option<u64>) -> String {
    match mib {
        Some(mib) if mib % MIB_IN_GIB == 0 => format!("{}G", mib / MIB_IN_GIB),
        Some(mib) => format!("{mib}M"),
        None => "all".to_owned(),
    }
}

/// The largest of 1 to `most` that is allowed, where all below an allowed one are allowed too.
fn most_that(most: u64, allowed: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut good, mut open) = (0, most);
    while good < open {
        let middle = good + (open - good).div_ceil(2);
        if allowed(middle) {
            good = middle;
        } else {
            open = middle - 1;
        }
    }
    (good > 0).then_some(good)
}
